//! A base that can be read from its front only, while a differential is applied to it.
//!
//! It passes by in a window ([`SlidingWindow`]). What is copied from before the window was kept when it passed
//! ([`Spill`]). If it was not, the base is read again from its start, and this time everything is kept that will be needed.
//! So the base is read twice at most, whatever the differential asks for.

use std::io::{self, Read};
use std::sync::Mutex;

use super::spill::Spill;
use crate::container::source::Pass;
use crate::matching::base::{OneWay, Stream};
use crate::matching::sliding_window::SlidingWindow;

/// The most bytes that are read at a time.
const PART: u64 = 1 << 20;

/// A base that can be read from its front only.
pub(super) struct OneWayBase {
    /// The compressed file, if it can be read more than once.
    file: Option<Pass>,
    /// Bytes that stay in memory.
    window: u64,
    /// Whether a damaged base serves as far as it can be read. So it did for our own encoder. xdelta3 takes no damaged
    /// source.
    salvages: bool,
    /// The differential, if it can be read once more.
    delta: Option<Pass>,
    state: Mutex<State>,
}

struct State {
    stream: Stream,
    window: SlidingWindow,
    /// Memory of the part that was dropped last.
    buffer: Vec<u8>,
    spill: Spill,
    /// The error that ends the stream, behind what is in the window.
    failed: Option<io::Error>,
}

impl OneWayBase {
    /// Begins at the start of `content`, and keeps its last `window` bytes in memory. `asked` is how many bytes the
    /// differential wants to be kept. `delta` is the differential, if it can be read once more. `far` tells that our own
    /// encoder made it and copied from before the window.
    pub fn new(content: OneWay, window: u64, asked: u64, delta: Option<Pass>, far: bool) -> OneWayBase {
        let OneWay { stream, file } = content;
        let window = window.max(1);
        // A pipe has no length.
        let len = file.as_ref().map_or(0, Pass::len);
        let spill = match far || asked > window {
            true => Spill::of(delta.as_ref(), certain(window), len),
            false => Spill::none(len),
        };
        let state =
            State { stream, window: SlidingWindow::default(), buffer: Vec::new(), spill, failed: None };
        OneWayBase { file, window, delta, salvages: far, state: Mutex::new(state) }
    }

    /// Fills `buf` with the content from `pos` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the content ends before; otherwise fails where the content cannot be decompressed, or what is
    /// needed again cannot be kept.
    pub fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock().map_err(|_| io::Error::other("another thread failed"))?;
        while pos < state.window.start() {
            let kept = (state.window.start() - pos).min(buf.len() as u64) as usize;
            if state.spill.get(pos, &mut buf[..kept])? {
                return self.read_on(&mut state, pos + kept as u64, &mut buf[kept..]);
            }
            self.read_again(&mut state)?;
        }
        self.read_on(&mut state, pos, buf)
    }

    /// Begins again at the start, and keeps more than before.
    fn read_again(&self, state: &mut State) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::Error::other(format!(
                "it is a pipe, and more than the last {} bytes of it are needed",
                self.window
            )));
        };
        state.spill = (state.spill.more(self.delta.as_ref(), certain(self.window)))
            .ok_or_else(|| io::Error::other("what was kept of it is lost"))?;
        state.stream = OneWay::decompress(file)?;
        state.window = SlidingWindow::default();
        state.failed = None;
        Ok(())
    }

    /// Reads what is in the window, or behind it.
    fn read_on(&self, state: &mut State, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = pos + buf.len() as u64;
        while state.window.end() < end {
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            let len = PART.min(self.window);
            let mut part = std::mem::take(&mut state.buffer);
            part.clear();
            part.reserve_exact(len as usize);
            let read = state.stream.by_ref().take(len).read_to_end(&mut part);
            match read {
                Ok(_) if part.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                // What can be read of a damaged base may be all that the differential was made against.
                Err(error) if self.salvages && !part.is_empty() => state.failed = Some(error),
                Err(error) => return Err(error),
            }
            state.window.push(part);
            // A part may be longer than the window: what is wanted now must not leave it.
            let keep = self.window.max(state.window.end().saturating_sub(pos));
            for gone in state.window.trim(keep) {
                state.spill.pass(&gone)?;
                state.buffer = gone;
            }
        }
        state
            .window
            .get(pos, buf)
            .ok_or_else(|| io::Error::other("the window on the base lost what it must hold"))
    }
}

/// How much of a window certainly holds what is before the end of what was needed: the base is read in parts, and so
/// further than is needed.
fn certain(window: u64) -> u64 {
    window.saturating_sub(2 * PART)
}
