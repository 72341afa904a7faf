//! Reading a differential ahead of its application, so that the base learns what will be copied from it, and when.
//!
//! Blocks of a disk move, so windows copy from all over the base, and a frame of it is needed again and again. When that
//! will be is written in the windows. Those that were read ahead are announced to the base, which keeps its decompressed
//! frames accordingly.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use super::copied::copied;
use crate::container::RandomReader;
use crate::matching::Error;
use crate::vcdiff::{Item, Reader};

/// The most windows that are read ahead, and the most bytes of them: a window of new data holds all of it.
const WINDOWS: usize = 256;
const BYTES: usize = 8 << 20;
/// The most windows, and bytes of them, that are read before one is handed out. So the first one does not have to wait
/// long, and the lead grows from there.
const STEP_WINDOWS: usize = 16;
const STEP_BYTES: usize = 1 << 20;
/// The most extents of the base that are announced for one window, and for all that are read ahead. A real window has some
/// hundred.
pub(super) const EXTENTS: usize = 1 << 12;
const ALL_EXTENTS: usize = 1 << 16;
/// Extents that are no further apart count as one. They lie in the same frame of the base, or in neighbouring ones.
const NEAR: u64 = 64 << 10;

/// A reader of windows that is some windows ahead.
pub(super) struct ReadAhead<R> {
    reader: Reader<R>,
    base: Option<Arc<RandomReader>>,
    queue: VecDeque<(Result<Item, Error>, Cost)>,
    held: Cost,
    ended: bool,
}

/// What a window adds to the limits.
#[derive(Clone, Copy, Default)]
struct Cost {
    bytes: usize,
    extents: usize,
}

impl<R: Read> ReadAhead<R> {
    /// Reads from `reader`. What windows will copy is announced to `base`, if it can be read at any position.
    pub fn new(reader: Reader<R>, base: Option<Arc<RandomReader>>) -> Self {
        ReadAhead { reader, base, queue: VecDeque::new(), held: Cost::default(), ended: false }
    }

    /// Returns the next item.
    ///
    /// # Errors
    /// Those of the reader, each behind the items that came before it.
    pub fn next_item(&mut self) -> Result<Option<Item>, Error> {
        let enough = self.held.bytes + STEP_BYTES;
        for _ in 0..STEP_WINDOWS {
            let full = self.queue.len() >= WINDOWS
                || self.held.bytes >= BYTES.min(enough)
                || self.held.extents >= ALL_EXTENTS;
            if self.ended || (full && !self.queue.is_empty()) {
                break;
            }
            self.read();
        }
        let Some((item, cost)) = self.queue.pop_front() else { return Ok(None) };
        self.held.bytes -= cost.bytes;
        self.held.extents -= cost.extents;
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
            let extents = copied(window, EXTENTS, NEAR);
            cost = Cost {
                bytes: window.data.len() + window.inst.len() + window.addr.len(),
                extents: extents.len(),
            };
            if let Some(base) = &self.base {
                base.expect(window.index, &extents);
            }
        }
        self.held.bytes += cost.bytes;
        self.held.extents += cost.extents;
        self.queue.push_back((item, cost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Extent;
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

    fn ahead(delta: &[u8]) -> ReadAhead<&[u8]> {
        ReadAhead::new(Reader::new(delta, Limits::default()).unwrap(), None)
    }

    #[test]
    fn hands_out_everything_in_order_and_errors_in_their_place() {
        let delta = delta(500);
        let mut all = ahead(&delta);
        for n in 0..500 {
            let Some(Item::Window(window)) = all.next_item().unwrap() else { panic!("no window") };
            assert_eq!(window.index, n);
            assert_eq!(copied(&window, 9, NEAR), [Extent::new(n * 1000, 200), Extent::new(1 << 30, 7)]);
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
