//! A zstd file with a seek table: each frame for itself.

use std::io;
use std::sync::Arc;

use super::{Piece, gap};
use crate::container::seekable::Seekable;

/// Reads one frame after the other.
pub(super) struct Frames {
    file: Arc<Seekable>,
    next: usize,
}

impl Frames {
    pub fn new(file: Arc<Seekable>) -> Frames {
        Frames { file, next: 0 }
    }
}

impl Iterator for Frames {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let (n, len) = (self.next, self.file.content_of(self.next)?);
        self.next += 1;
        Some(Ok(match self.file.decode(n) {
            Ok(bytes) => Piece::Bytes { bytes, proved: true },
            // The table has no checksum. Where the frame itself tells another length, one of both is wrong.
            Err(error) => match self.file.declared(n) {
                Some(declared) if declared != u64::from(len) => gap(None, error),
                _ => gap(Some(len.into()), error),
            },
        }))
    }
}
