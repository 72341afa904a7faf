//! Bases that can only be read from the front: a window that slides over them.
//!
//! The encoder reads such a base alongside the new stream, keeps its last [`WINDOW`] bytes, and compares with these.
//! The decoder reads no further than a copy reaches, so its own window of the same size then still holds whatever is
//! copied from there. Equal data from further back is known to the encoder by its fingerprint, and to the decoder by
//! reading the differential beforehand ([`super::far`]).

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Mutex;

use super::cut::Segment;
use super::far::Far;
use crate::container;
use crate::container::source::Pass;

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

    /// Takes the oldest parts out as long as `keep` bytes remain, in order.
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

/// A one-way base for the decoder.
///
/// What lies before the window was kept, or is read again from the file's start with everything kept that will be
/// needed: twice at most, whatever the differential asks for.
pub struct SlidingBase {
    /// From its start; none where it can be read only once.
    file: Option<Pass>,
    window: u64,
    /// Whether the base serves as far as it can be read.
    salvages: bool,
    /// The differential, where it can be read once more.
    delta: Option<Pass>,
    state: Mutex<State>,
}

struct State {
    stream: Box<dyn Read + Send>,
    ring: Ring,
    /// Memory of the part that was dropped last.
    spare: Vec<u8>,
    far: Far,
    /// Ends the stream, behind what is in the ring.
    failed: Option<io::Error>,
}

/// Bytes that are read at a time, at most.
const PART: u64 = 1 << 20;

impl SlidingBase {
    /// Reads `stream`, which is the content of `file`, from its start, and keeps the last `window` bytes in memory;
    /// `asked` are as many as the differential wants to be kept. `file` and `delta`, the differential, are there where
    /// they can be read once more; `far` tells that it was made by our `diff`, which copies from before the window.
    pub fn new(
        file: Option<Pass>,
        stream: Box<dyn Read + Send>,
        (window, asked): (u64, u64),
        delta: Option<Pass>,
        far: bool,
    ) -> SlidingBase {
        let window = window.max(1);
        // So does our `diff`; xdelta3 takes no damaged source.
        let salvages = far;
        // A pipe has no length.
        let len = file.as_ref().map_or(0, Pass::len);
        let far = match far || asked > window {
            true => Far::of(delta.as_ref(), surely(window), len),
            false => Far::none(len),
        };
        let state = Mutex::new(State { stream, ring: Ring::default(), spare: Vec::new(), far, failed: None });
        SlidingBase { file, window, delta, salvages, state }
    }

    /// Fills `buf` with the content from `pos` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the content ends before; those of decompressing, and of keeping what is needed again.
    pub fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock().map_err(|_| io::Error::other("another thread failed"))?;
        while pos < state.ring.start() {
            let kept = (state.ring.start() - pos).min(buf.len() as u64) as usize;
            if state.far.get(pos, &mut buf[..kept])? {
                return self.read_on(&mut state, pos + kept as u64, &mut buf[kept..]);
            }
            self.read_again(&mut state)?;
        }
        self.read_on(&mut state, pos, buf)
    }

    /// Starts anew, and keeps more than before.
    fn read_again(&self, state: &mut State) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::Error::other(format!(
                "it is a pipe, and more than the last {} bytes of it are needed",
                self.window
            )));
        };
        state.far = (state.far.more(self.delta.as_ref(), surely(self.window)))
            .ok_or_else(|| io::Error::other("what was kept of it is lost"))?;
        state.stream = container::decoder(Box::new(file.again()?))?.1;
        state.ring = Ring::default();
        state.failed = None;
        Ok(())
    }

    /// Reads what is in the window, or behind it.
    fn read_on(&self, state: &mut State, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = pos + buf.len() as u64;
        while state.ring.end() < end {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            let len = PART.min(self.window);
            let mut part = std::mem::take(&mut state.spare);
            part.clear();
            part.reserve_exact(len as usize);
            let read = state.stream.by_ref().take(len).read_to_end(&mut part);
            match read {
                Ok(_) if part.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                // What can be read of a damaged base may be what the differential was made against.
                Err(error) if self.salvages && !part.is_empty() => state.failed = Some(error),
                Err(error) => return Err(error),
            }
            state.ring.push(part);
            // Parts are longer than what is wanted: nothing of it may go with them.
            let keep = self.window.max(state.ring.end().saturating_sub(pos));
            for gone in state.ring.trim(keep) {
                state.far.pass(&gone)?;
                state.spare = gone;
            }
        }
        state
            .ring
            .get(pos, buf)
            .ok_or_else(|| io::Error::other("the window on the base lost what it must hold"))
    }
}

/// How much of a window is certainly there: the base is read in parts, further than is needed.
fn surely(window: u64) -> u64 {
    window.saturating_sub(2 * PART)
}

/// Bytes of a segment for the ring; gives those that are no longer kept.
pub(super) fn keep(ring: &mut Ring, segment: Segment, window: u64) -> impl Iterator<Item = Vec<u8>> {
    debug_assert_eq!(segment.start, ring.end());
    ring.push(segment.data);
    ring.trim(window)
}
