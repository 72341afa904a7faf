//! Bases that can only be read from the front: a window that slides over them.
//!
//! The encoder reads such a base alongside the new stream, keeps its last [`WINDOW`] bytes, and copies only
//! from these. The decoder reads no further than a copy reaches, so its own window of the same size then
//! still holds whatever is copied.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::cut::{SEGMENT, Segment};
use crate::container::{self, read_full};

/// Bytes of the base that are kept by default, as xdelta3 does.
pub const WINDOW: u64 = 64 << 20;

/// The last bytes of a stream, in the parts they were read in.
#[derive(Default)]
pub struct Ring {
    parts: VecDeque<(u64, Vec<u8>)>,
    end: u64,
}

impl Ring {
    /// Place behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Place of the first byte that is kept.
    pub fn start(&self) -> u64 {
        self.parts.front().map_or(self.end, |(start, _)| *start)
    }

    /// Appends bytes.
    pub fn push(&mut self, part: Vec<u8>) {
        let start = self.end;
        self.end += part.len() as u64;
        self.parts.push_back((start, part));
    }

    /// Takes the oldest parts out as long as `keep` bytes remain.
    pub fn trim(&mut self, keep: u64) -> impl Iterator<Item = Vec<u8>> {
        let gone = self.parts.partition_point(|(start, part)| start + part.len() as u64 + keep <= self.end);
        self.parts.drain(..gone).map(|(_, part)| part)
    }

    /// Copies out what lies at `pos`; `None` where some of it is not kept.
    pub fn get(&self, mut pos: u64, mut buf: &mut [u8]) -> Option<()> {
        if pos < self.start() || pos.checked_add(buf.len() as u64)? > self.end {
            return None;
        }
        let mut n = self.parts.partition_point(|(start, part)| start + part.len() as u64 <= pos);
        while !buf.is_empty() {
            let (start, part) = &self.parts[n];
            let from = (pos - start) as usize;
            let len = buf.len().min(part.len() - from);
            let (now, later) = buf.split_at_mut(len);
            now.copy_from_slice(&part[from..from + len]);
            buf = later;
            pos += len as u64;
            n += 1;
        }
        Some(())
    }
}

/// A one-way base for the decoder. What lies before the window is read again from the file's start: slow,
/// but right, whatever the window of the encoder was.
pub struct SlidingBase {
    path: PathBuf,
    window: u64,
    state: Mutex<(Box<dyn Read + Send>, Ring)>,
}

impl SlidingBase {
    /// Reads `stream`, which is the content of the file `path`, from its start.
    pub fn new(path: &Path, stream: Box<dyn Read + Send>, window: u64) -> SlidingBase {
        SlidingBase { path: path.to_owned(), window, state: Mutex::new((stream, Ring::default())) }
    }

    /// Fills `buf` with the content from `pos` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the content ends before; those of decompressing.
    pub fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock().map_err(|_| io::Error::other("another thread failed"))?;
        let (stream, ring) = &mut *state;
        if pos < ring.start() {
            // Opening a FIFO again would wait for a writer that never comes.
            if std::fs::metadata(&self.path)?.file_type().is_fifo() {
                return Err(io::Error::other(format!(
                    "it is a pipe, and what lies {} bytes back is no longer kept (only {} bytes are)",
                    ring.end() - pos,
                    self.window
                )));
            }
            *stream = container::decoder(Box::new(std::fs::File::open(&self.path)?))?.1;
            *ring = Ring::default();
        }
        let end = pos + buf.len() as u64;
        while ring.end() < end {
            let mut part = vec![0; (SEGMENT / 8).min((self.window as usize).max(1))];
            let n = read_full(stream, &mut part)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            part.truncate(n);
            ring.push(part);
            // Parts are longer than what is wanted: nothing of it may go with them.
            drop(ring.trim(self.window.max(ring.end().saturating_sub(pos))));
        }
        ring.get(pos, buf).ok_or_else(|| io::Error::other("the window on the base lost what it must hold"))
    }
}

/// Bytes of a segment for the ring; gives those that are no longer kept.
pub(super) fn keep(ring: &mut Ring, segment: Segment, window: u64) -> impl Iterator<Item = Vec<u8>> {
    debug_assert_eq!(segment.start, ring.end());
    ring.push(segment.data);
    ring.trim(window)
}
