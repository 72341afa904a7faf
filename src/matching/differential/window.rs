//! Writing a segment as VCDIFF windows.

use super::context::Context;
use super::matcher::Instruction;
use super::records;
use crate::vcdiff::{MAX_SEGMENT, WindowBuilder};
use crate::vma::{EXTENT_FRONT, EXTENT_UUID};

/// The shortest run of one byte that is worth an instruction of its own.
const MIN_RUN: usize = 64;

/// Writes a segment as VCDIFF windows: one, or several where a single one would copy from places too far apart.
pub(super) struct WindowWriter<'a> {
    context: &'a Context,
    /// The bytes of the segment.
    data: &'a [u8],
    /// The Adler-32 of the whole segment, if it is known.
    adler32: Option<u32>,
    builder: &'a mut WindowBuilder,
    /// Position in the segment where the current window began.
    begun: usize,
    /// Where the current window has the UUID of the VMA archive, if it has it.
    uuid: Option<usize>,
    out: Vec<u8>,
}

impl<'a> WindowWriter<'a> {
    /// Begins a segment with these bytes. `builder` is empty.
    pub fn new(
        context: &'a Context,
        data: &'a [u8],
        adler32: Option<u32>,
        builder: &'a mut WindowBuilder,
    ) -> WindowWriter<'a> {
        WindowWriter { context, data, adler32, builder, begun: 0, uuid: None, out: Vec::new() }
    }

    /// Writes a copy of `len` bytes from position `from` of the base.
    pub fn copy(&mut self, from: u64, len: usize) {
        if self.builder.span_with(from, len as u64) > MAX_SEGMENT {
            self.finish_window(self.begun + self.builder.target_len());
        }
        self.builder.copy_source(from, len);
    }

    /// Writes the front of a VMA extent's header, which is at `at` in the segment. `base` is the position of the front of a
    /// header with the same clusters in the base.
    ///
    /// What precedes the UUID follows from the clusters, so it is the same there. All extents of an archive have the same
    /// UUID, so it is copied from within the window.
    pub fn front(&mut self, at: usize, base: Option<u64>) {
        let front = &self.data[at..at + EXTENT_FRONT];
        match base {
            Some(from) => self.copy(from, EXTENT_UUID.start),
            None => self.literal(&front[..EXTENT_UUID.start]),
        }
        let uuid = &front[EXTENT_UUID];
        match self.uuid {
            Some(place) if self.data[self.begun + place..].starts_with(uuid) => {
                self.builder.copy_target(place, uuid.len());
            }
            _ => {
                self.uuid = Some(self.builder.target_len());
                self.literal(uuid);
            }
        }
        self.literal(&front[EXTENT_UUID.end..]);
    }

    /// Writes new bytes.
    pub fn literal(&mut self, bytes: &[u8]) {
        self.context.count_new(bytes.len());
        let begun = self.builder.target_len();
        if !self.context.records {
            return self.add(bytes);
        }
        records::split(bytes, |instruction| match instruction {
            Instruction::Literal { at, len } => self.add(&bytes[at..at + len]),
            Instruction::Copy { from, len, .. } => self.builder.copy_target(begun + from, len),
        });
    }

    /// Writes new bytes without looking for records in them. Long runs of one byte become instructions of their own.
    fn add(&mut self, bytes: &[u8]) {
        let mut done = 0;
        let mut at = 0;
        // A run of MIN_RUN bytes covers the whole step behind at least one multiple of this.
        const STEP: usize = MIN_RUN / 2;
        while at + STEP <= bytes.len() {
            let b = bytes[at];
            if bytes[at..at + STEP].iter().all(|&c| c == b) {
                let start = at - bytes[done..at].iter().rev().take_while(|&&c| c == b).count();
                let end = at + bytes[at..].iter().take_while(|&&c| c == b).count();
                if end - start >= MIN_RUN {
                    self.builder.add(&bytes[done..start]);
                    self.builder.run(b, end - start);
                    done = end;
                }
                at = end;
            } else {
                at += STEP;
            }
        }
        self.builder.add(&bytes[done..]);
    }

    /// Ends the last window, and returns all windows of the segment.
    pub fn finish(mut self) -> Vec<u8> {
        self.finish_window(self.data.len());
        self.out
    }

    /// Ends the current window, which reaches up to `end` in the segment.
    fn finish_window(&mut self, end: usize) {
        let window = &self.data[self.begun..end];
        let whole = self.adler32.filter(|_| window.len() == self.data.len());
        let adler = whole.unwrap_or_else(|| simd_adler32::adler32(&window));
        self.builder.finish(Some(adler), &mut self.out);
        self.begun = end;
        self.uuid = None;
    }
}
