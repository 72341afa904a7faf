//! Reading a file on a disk that cannot be read everywhere.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Where a read fails, so many bytes up to the next multiple of it are given up.
const SECTOR: u64 = 4096;

/// Reads a file. Where the disk fails, the bytes read as zeros, and are counted.
pub(super) struct Patient {
    file: File,
    at: u64,
    size: u64,
    /// How many bytes the disk did not give.
    pub failed: u64,
}

impl Patient {
    /// Begins at position `at` of the file.
    pub fn new(file: &File, at: u64) -> io::Result<Patient> {
        let mut file = file.try_clone()?;
        // Metadata would say 0 for a block device.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Patient { file, at, size, failed: 0 })
    }

    /// Begins at another position of the same file.
    pub fn again(&self, at: u64) -> io::Result<Patient> {
        Ok(Patient { file: self.file.try_clone()?, at, size: self.size, failed: 0 })
    }

    /// Length of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Position of the next byte.
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at).min(buf.len() as u64) as usize;
        if left == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..left];
        let read = self.file.read_at(buf, self.at).or_else(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return Err(error);
            }
            // A long read fails where any of its sectors does, so the first one is tried alone.
            let sector = (SECTOR - self.at % SECTOR).min(left as u64) as usize;
            self.file.read_at(&mut buf[..sector], self.at).or_else(|_| {
                buf[..sector].fill(0);
                self.failed += sector as u64;
                Ok(sector)
            })
        })?;
        self.at += read as u64;
        Ok(read)
    }
}
