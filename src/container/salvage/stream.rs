//! Files without parts that could be read for themselves.

use std::io::{self, Read};

use super::{PART, Patient, Piece, gap};
use crate::container::{decoder, read_full};

/// A file that is not compressed.
pub(super) struct Raw(Patient);

impl Raw {
    pub fn new(file: &std::fs::File) -> io::Result<Raw> {
        Patient::new(file, 0).map(Raw)
    }
}

impl Iterator for Raw {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let before = self.0.failed;
        let mut bytes = vec![0; PART];
        // Read by read, so that a piece is either wholly there or wholly lost.
        let n = loop {
            match self.0.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match n {
            Ok(0) => None,
            Ok(n) if self.0.failed > before => Some(Ok(gap(Some(n as u64), "the disk cannot be read there"))),
            Ok(n) => {
                bytes.truncate(n);
                Some(Ok(Piece::Bytes { bytes, proved: true }))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// A compressed stream. Its first pass finds how far it can be read, and whether its checksums prove it.
pub(super) struct Stream {
    input: Box<dyn Read + Send>,
    /// Bytes of content that are still to come, of those that could be read.
    left: u64,
    /// Why the content ends there, unless it is whole.
    damage: Option<String>,
    proved: bool,
}

impl Stream {
    pub fn new(file: &std::fs::File) -> io::Result<Stream> {
        let open = || Ok::<_, io::Error>(decoder(Box::new(Patient::new(file, 0)?))?.1);
        let (mut first, mut part, mut left, mut damage) = (open()?, vec![0; PART], 0, None);
        loop {
            match first.read(&mut part) {
                Ok(0) => break,
                Ok(n) => left += n as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    damage = Some(error.to_string());
                    break;
                }
            }
        }
        Ok(Stream { input: open()?, left, proved: damage.is_none(), damage })
    }
}

impl Iterator for Stream {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return self.damage.take().map(|why| Ok(gap(None, why)));
        }
        let mut bytes = vec![0; self.left.min(PART as u64) as usize];
        let read = read_full(&mut self.input, &mut bytes);
        Some(read.and_then(|n| {
            if n < bytes.len() {
                return Err(io::Error::other("the file was changed while it was read"));
            }
            self.left -= n as u64;
            Ok(Piece::Bytes { bytes, proved: self.proved })
        }))
    }
}
