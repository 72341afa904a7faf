//! An lzop file: each block for itself.

use std::fs::File;
use std::io;

use super::{Patient, Piece, Search, gap};
use crate::container::lzop::salvage::{Next, Salvage};

/// Reads one block after the other.
pub(super) struct Blocks {
    scan: Salvage<Patient>,
    file: Patient,
    search: Search,
    ended: bool,
}

impl Blocks {
    pub fn new(file: &File, search: Search) -> io::Result<Blocks> {
        let file = Patient::new(file, 0)?;
        Ok(Blocks { scan: Salvage::new(file.again(0)?), file, search, ended: false })
    }

    fn step(&mut self) -> io::Result<Option<Piece>> {
        if self.ended {
            return Ok(None);
        }
        Ok(match self.scan.next_block() {
            Next::Block(bytes) => Some(Piece::Bytes { bytes, proved: true }),
            Next::Lost { len, why } => Some(gap(len, why)),
            Next::Unknown { at, why } => {
                self.ended = true;
                if self.search == Search::Lookalikes {
                    let file = &self.file;
                    self.ended = !self.scan.find(at + 1, file.size(), |at| file.again(at))?;
                }
                Some(gap(None, why))
            }
            Next::End => None,
        })
    }
}

impl Iterator for Blocks {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
