//! Writing the differential.

use crate::container::Encoder;
use crate::matching::Error;
use crate::matching::chunker::SEGMENT;
use crate::matching::differential::matcher::Instruction;
use crate::matching::differential::records;
use crate::vcdiff::{AppHeader, DeltaHasher, EndRecord, MAX_SEGMENT, WindowBuilder, write_header};

/// Writes the windows of the differential.
pub(super) struct Output {
    encoder: Box<dyn Encoder>,
    window: WindowBuilder,
    /// New bytes that are not in the window yet: repeated records are looked for in all those that follow one another.
    pending: Vec<u8>,
    bytes: Vec<u8>,
    hash: DeltaHasher,
    /// The length of the target so far, in bytes.
    pub total: u64,
    /// The number of new bytes in it.
    pub new: u64,
}

impl Output {
    /// Begins a differential with this application header.
    pub fn new(encoder: Box<dyn Encoder>, app: &AppHeader) -> Output {
        Output {
            encoder,
            window: WindowBuilder::new(),
            pending: Vec::new(),
            bytes: write_header(Some(&app.encode()), None),
            hash: DeltaHasher::default(),
            total: 0,
            new: 0,
        }
    }

    fn room(&self) -> usize {
        SEGMENT - self.window.target_len() - self.pending.len()
    }

    /// Adds new bytes.
    ///
    /// # Errors
    /// Fails where the output cannot be written.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.room() == 0 {
                self.end_window()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            self.pending.extend(now);
            (self.total, self.new) = (self.total + now.len() as u64, self.new + now.len() as u64);
            bytes = later;
        }
        Ok(())
    }

    /// Adds a copy from the base.
    ///
    /// # Errors
    /// Fails where the output cannot be written.
    pub fn copy(&mut self, mut at: u64, mut len: u64) -> Result<(), Error> {
        self.flush();
        while len > 0 {
            let now = len.min(self.room() as u64);
            if now == 0 || self.window.span_with(at, now) > MAX_SEGMENT {
                self.end_window()?;
                continue;
            }
            self.window.copy_source(at, now as usize);
            self.total += now;
            at += now;
            len -= now;
        }
        Ok(())
    }

    /// Puts the pending new bytes into the window.
    fn flush(&mut self) {
        let begun = self.window.target_len();
        let (pending, window) = (&self.pending, &mut self.window);
        records::split(pending, |part| match part {
            Instruction::Literal { at, len } => window.add(&pending[at..at + len]),
            Instruction::Copy { from, len, .. } => window.copy_target(begun + from, len),
        });
        self.pending.clear();
    }

    fn end_window(&mut self) -> Result<(), Error> {
        self.flush();
        if !self.window.is_empty() {
            self.window.finish(None, &mut self.bytes);
        }
        self.put()
    }

    fn put(&mut self) -> Result<(), Error> {
        self.hash.update(&self.bytes);
        self.encoder.write_all(&self.bytes).map_err(cannot)?;
        self.bytes.clear();
        Ok(())
    }

    /// Writes the end. `base` is the identity of the base.
    ///
    /// # Errors
    /// Fails where the output cannot be written.
    pub fn finish(mut self, base: [u8; 16]) -> Result<(), Error> {
        self.end_window()?;
        let end = EndRecord { total_len: self.total, hash: self.hash.finish(), base: Some(base) };
        self.encoder.write_all(&end.encode()).map_err(cannot)?;
        self.encoder.finish().map_err(cannot)
    }
}

fn cannot(source: std::io::Error) -> Error {
    Error::Io { what: "cannot write the differential".into(), source }
}
