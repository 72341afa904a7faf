//! zstd files that can be read at any position: independent frames and a seek table.
//!
//! The table is the one of zstd's *seekable format* (contrib/seekable_format in zstd's sources), so
//! `zstd -d` and every other zstd reader sees an ordinary file. Between the data frames lie *side
//! frames*: skippable frames (RFC 8878 section 3.1.2) that start with an 8-byte tag and hold what
//! their writer wants; to the seek table they are frames without content.
//!
//! ```text
//! data frame … side frame … data frame … side frame | seek table (a skippable frame)
//! seek table: magic 5E 2A 4D 18, length u32,
//!             per frame: compressed size u32, content size u32 [, checksum u32]
//!             number of frames u32, descriptor u8 (bit 7: checksums), magic B1 EA 92 8F
//! ```
//! All numbers are little endian.
//!
//! [`Seekable`] is such a file with its seek table (`table`). [`FrameReader`] reads its content (`reader`): it finds the
//! frames, has them decompressed as far as is needed (`frame`), and keeps them for a while. [`Writer`] writes such files
//! (`write`). What is asked of a file without trust in its table walks over the headers of its frames (`walk`).

mod frame;
mod reader;
mod table;
mod walk;
mod write;

#[cfg(test)]
mod tests;

use std::io;

pub use reader::{FrameReader, Held, LastFrame, ReadOptions};
pub use table::Seekable;
pub use walk::{End, Frames, end, first_side_tag, frames};
pub use write::Writer;

/// Magic number of our side frames (one of the sixteen that RFC 8878 leaves to users).
const SIDE_MAGIC: u32 = 0x184D_2A5A;
/// Magic number of the frame that holds the seek table.
const TABLE_MAGIC: u32 = 0x184D_2A5E;
/// Magic number at the end of the seek table, which is the end of the file.
const FOOTER_MAGIC: u32 = 0x8F92_EAB1;
/// Bytes of the table behind its entries: number of frames, descriptor, magic number.
const FOOTER_LEN: u64 = 9;
/// The most content of a frame. A file with larger frames is not worth reading at random: it is read as a stream.
const MAX_FRAME: u32 = 16 << 20;

/// The tag of a side frame. All tags of ours begin with [`OURS`].
pub type Tag = [u8; 8];
const OURS: [u8; 5] = *b"pvedb";

/// How many bytes at the front of a frame [`is_derived`] needs.
pub const DERIVED_LEN: usize = 16;

/// Tells by the first bytes of a frame whether it holds only what was made from the content of other frames: it is a
/// side frame of ours, or a seek table. Such a frame is not lost where the content is compressed again.
pub fn is_derived(frame: &[u8]) -> bool {
    match frame.first_chunk().map(|magic| u32::from_le_bytes(*magic)) {
        Some(SIDE_MAGIC) => frame.get(8..).is_some_and(|tag| tag.starts_with(&OURS)),
        Some(TABLE_MAGIC) => true,
        _ => false,
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn le32(b: &[u8]) -> u32 {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}
