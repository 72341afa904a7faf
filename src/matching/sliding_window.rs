//! The last bytes of a base that can only be read from its front.
//!
//! The encoder reads such a base alongside the new stream, keeps its last [`WINDOW`] bytes, and compares the stream with
//! these. The decoder reads no further than a copy reaches. So its own window of the same size still holds whatever the
//! encoder copied from there.

use std::collections::VecDeque;

/// Bytes of such a base that are kept by default; xdelta3 keeps as many.
pub const WINDOW: u64 = 64 << 20;

/// How many bytes a differential may copy from further back than the window. The encoder knows such bytes by their
/// fingerprints; the decoder keeps them in a file, for which it finds out beforehand which they are.
pub(super) const FAR_COPIES: u64 = 1 << 30;

/// The last bytes of a stream, in the parts in which they were read.
#[derive(Default)]
pub(super) struct SlidingWindow {
    parts: VecDeque<Part>,
    end: u64,
}

struct Part {
    start: u64,
    bytes: Vec<u8>,
}

impl Part {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl SlidingWindow {
    /// Position behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Position of the first byte that is kept.
    pub fn start(&self) -> u64 {
        self.parts.front().map_or(self.end, |part| part.start)
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: Vec<u8>) {
        let start = self.end;
        self.end += bytes.len() as u64;
        self.parts.push_back(Part { start, bytes });
    }

    /// Removes the oldest parts, in order, as long as at least `keep` bytes remain.
    pub fn trim(&mut self, keep: u64) -> impl Iterator<Item = Vec<u8>> {
        let gone = self.parts.partition_point(|part| part.end() + keep <= self.end);
        self.parts.drain(..gone).map(|part| part.bytes)
    }

    /// Fills `buf` with the bytes from `pos` on; `None` where some of them are not kept.
    pub fn get(&self, mut pos: u64, mut buf: &mut [u8]) -> Option<()> {
        if pos < self.start() || pos.checked_add(buf.len() as u64)? > self.end {
            return None;
        }
        let mut n = self.parts.partition_point(|part| part.end() <= pos);
        while !buf.is_empty() {
            let Part { start, bytes } = &self.parts[n];
            let from = (pos - start) as usize;
            let len = buf.len().min(bytes.len() - from);
            let (now, later) = buf.split_at_mut(len);
            now.copy_from_slice(&bytes[from..from + len]);
            buf = later;
            pos += len as u64;
            n += 1;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_there_and_no_others() {
        let mut window = SlidingWindow::default();
        for part in [&b"0123"[..], b"4567", b"89"] {
            window.push(part.to_vec());
        }
        // A part goes only as a whole.
        assert_eq!(window.trim(7).count(), 0);
        assert_eq!(window.trim(6).collect::<Vec<_>>(), [b"0123"]);
        assert_eq!((window.start(), window.end()), (4, 10));
        let get = |pos, len| {
            let mut buf = vec![0; len];
            window.get(pos, &mut buf).map(|()| buf)
        };
        assert_eq!(get(4, 6).unwrap(), b"456789");
        assert_eq!(get(7, 2).unwrap(), b"78");
        assert_eq!((get(3, 2), get(9, 2), get(u64::MAX, 1)), (None, None, None));
    }
}
