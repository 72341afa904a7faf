//! What is left of a damaged compressed file: its content in pieces, with the gaps between them.
//!
//! [`open`] tells the form of the file, and returns its [`Piece`]s in order. A zstd file with a seek table loses only the frames
//! that are damaged (`frames`), an lzop file only its damaged blocks (`blocks`). Any other file is read up to the damage: one
//! zstd frame after the other (`zstd`), or as one stream (`stream`). A compressed stream proves by its checksum, at its very
//! end, that it was read right. So whatever is longer than memory should hold is read twice there: once for the proof.

mod blocks;
mod frames;
mod patient;
mod stream;
mod zstd;

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::seekable::Seekable;
use super::{Kind, read_full};
use patient::Patient;

/// A part of a damaged content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that could be read.
    Bytes {
        /// The bytes.
        bytes: Vec<u8>,
        /// Whether nothing speaks against them. If not, the checksum that would vouch for them is wrong or lost.
        proved: bool,
    },
    /// Bytes that are lost.
    Gap {
        /// How many they are, where that is certain.
        len: Option<u64>,
        /// Why they are lost.
        why: String,
    },
    /// All that came before is in doubt.
    Doubt {
        /// Why.
        why: String,
    },
}

/// The pieces of a content, in order. Damage is a piece; an error ends them, because nothing can be read at all.
pub type Pieces = Box<dyn Iterator<Item = io::Result<Piece>>>;

/// How far a file is searched behind damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Also for what looks like a further frame or block. It may be one that a file within the content holds, so this is for
    /// readers that know their own data when they see them.
    Lookalikes,
    /// Only as far as the form of the file tells where the next frame or block begins.
    Certain,
}

/// The most content that is kept in memory until it is proved, and the most of a piece.
const HELD: usize = 16 << 20;
/// Bytes of a piece of longer content.
const PART: usize = 1 << 20;

/// Opens what is left of a file, from its start.
///
/// # Errors
/// Fails where the file's size cannot be told, or a decompressor cannot be set up.
pub fn open(file: &File, search: Search) -> io::Result<Pieces> {
    let mut input = Patient::new(file, 0)?;
    let mut prefix = [0; 9];
    let n = read_full(&mut input, &mut prefix)?;
    Ok(match Kind::detect(&prefix[..n]) {
        Kind::Zstd => match Seekable::open(file.try_clone()?) {
            Ok(Some(seekable)) => Box::new(frames::Frames::new(Arc::new(seekable))),
            _ => Box::new(zstd::Walk::new(file, search)?),
        },
        Kind::Lzop => Box::new(blocks::Blocks::new(file, search)?),
        Kind::Raw => Box::new(stream::Raw::new(file)?),
        Kind::Gzip | Kind::Xz | Kind::Bzip2 | Kind::Lzw => Box::new(stream::Stream::new(file)?),
    })
}

fn gap(len: Option<u64>, why: impl ToString) -> Piece {
    Piece::Gap { len, why: why.to_string() }
}
