//! Reading a differential ahead of its application, so that the base knows what will be copied when.
//!
//! Blocks of a disk move, so windows copy from all over the base, and frames of it are wanted again later.
//! Which ones is written in the windows: those read ahead tell the base, which keeps the frames accordingly.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use super::Error;
use crate::container::ReadAt;
use crate::vcdiff::{Inst, Item, Reader, Window};

/// Windows that are read ahead, at most.
const WINDOWS: usize = 256;
/// Bytes of windows that are read ahead: a window of new data holds all of it.
const BYTES: usize = 8 << 20;
/// How many windows are read, and bytes of them, before one is handed out: the first is not kept waiting long, and
/// the lead grows from there.
const STEP_WINDOWS: usize = 16;
const STEP_BYTES: usize = 1 << 20;
/// Places that the base is told of for one window, and for all that are read ahead. A real window has some hundred.
pub const RANGES: usize = 1 << 12;
const ALL_RANGES: usize = 1 << 16;

/// A reader that is some windows ahead.
pub struct Ahead<R> {
    reader: Reader<R>,
    base: Arc<dyn ReadAt>,
    queue: VecDeque<(Result<Item, Error>, Cost)>,
    held: Cost,
    ended: bool,
}

#[derive(Clone, Copy, Default)]
struct Cost {
    bytes: usize,
    ranges: usize,
}

impl<R: Read> Ahead<R> {
    /// Reads from `reader`, and tells `base`.
    pub fn new(reader: Reader<R>, base: Arc<dyn ReadAt>) -> Self {
        Ahead { reader, base, queue: VecDeque::new(), held: Cost::default(), ended: false }
    }

    /// The next item.
    ///
    /// # Errors
    /// Those of the reader, where they belong: behind the items that came before.
    pub fn next_item(&mut self) -> Result<Option<Item>, Error> {
        let enough = self.held.bytes + STEP_BYTES;
        for _ in 0..STEP_WINDOWS {
            let full = self.queue.len() >= WINDOWS
                || self.held.bytes >= BYTES.min(enough)
                || self.held.ranges >= ALL_RANGES;
            if self.ended || (full && !self.queue.is_empty()) {
                break;
            }
            self.read();
        }
        let Some((item, cost)) = self.queue.pop_front() else { return Ok(None) };
        self.held.bytes -= cost.bytes;
        self.held.ranges -= cost.ranges;
        item.map(Some)
    }

    fn read(&mut self) {
        let item = match self.reader.next_item() {
            Ok(Some(item)) => Ok(item),
            Ok(None) => {
                self.ended = true;
                return;
            }
            Err(e) => {
                self.ended = true;
                Err(e.into())
            }
        };
        let mut cost = Cost::default();
        if let Ok(Item::Window(window)) = &item {
            let ranges = copied(window, RANGES, NEAR);
            cost = Cost {
                bytes: window.data.len() + window.inst.len() + window.addr.len(),
                ranges: ranges.len(),
            };
            self.base.expect(window.index, &ranges);
        }
        self.held.bytes += cost.bytes;
        self.held.ranges += cost.ranges;
        self.queue.push_back((item, cost));
    }
}

/// Closer places are one for the base's frames: they lie in the same one, or the next.
const NEAR: u64 = 64 << 10;

/// Places of the base that a window copies from, and lengths, at most the first `limit` of them; those no further than
/// `near` behind one another are one.
pub fn copied(window: &Window, limit: usize, near: u64) -> Vec<(u64, u64)> {
    let segment = window.source.map_or((0, 0), |s| (s.pos, s.len));
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    // What is malformed will be said when the window is applied.
    for inst in window.instructions().map_while(|inst| inst.ok()) {
        let Inst::Copy { len, addr } = inst else { continue };
        // Others copy within the window.
        let Some(rest) = segment.1.checked_sub(addr).filter(|rest| *rest > 0) else { continue };
        let len = rest.min(len as u64);
        let pos = segment.0.saturating_add(addr);
        let full = ranges.len() >= limit;
        match ranges.last_mut() {
            Some((at, last)) if pos >= *at && pos - *at <= *last + near => {
                *last = (*last).max(pos - *at + len)
            }
            _ if full => break,
            _ => ranges.push((pos, len)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::RawFile;
    use crate::vcdiff::{Limits, WindowBuilder, write_header};

    fn delta(windows: usize) -> Vec<u8> {
        let mut out = write_header(None, None);
        let mut window = WindowBuilder::new();
        for n in 0..windows {
            window.copy_source(n as u64 * 1000, 100);
            window.copy_source(n as u64 * 1000 + 150, 50);
            window.add(b"new");
            window.copy_source(1 << 30, 7);
            window.copy_target(0, 20);
            window.finish(None, &mut out);
        }
        out
    }

    fn ahead(delta: &[u8]) -> Ahead<&[u8]> {
        let base = RawFile::new(tempfile::tempfile().unwrap()).unwrap();
        Ahead::new(Reader::new(delta, Limits::default()).unwrap(), Arc::new(base))
    }

    #[test]
    fn hands_out_everything_in_order_and_errors_in_their_place() {
        let delta = delta(500);
        let mut all = ahead(&delta);
        for n in 0..500 {
            let Some(Item::Window(window)) = all.next_item().unwrap() else { panic!("no window") };
            assert_eq!(window.index, n);
            assert_eq!(copied(&window, 9, NEAR), [(n * 1000, 200), (1 << 30, 7)]);
            assert_eq!(copied(&window, 1, NEAR).len(), 1);
            assert!(all.queue.len() <= WINDOWS);
        }
        assert!(all.next_item().unwrap().is_none());
        assert!(all.next_item().unwrap().is_none());

        let mut cut = ahead(&delta[..delta.len() - 1]);
        (0..499).for_each(|_| assert!(cut.next_item().unwrap().is_some()));
        assert!(cut.next_item().is_err());
    }
}
