//! Reads ahead for those who read on from part to part.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Sender, bounded};

/// How many parts are remembered: several readers may be at work.
const REMEMBERED: usize = 64;
/// Whoever has read this share of a part reads on, and whoever has read a little of so many parts one behind the other.
const SHARE: u64 = 8;
const ROW: usize = 4;
/// How many bytes are read ahead, about.
const REACH: u64 = 4 << 20;
/// How many parts may wait to be loaded. Further ones are not read ahead.
const WAITING: usize = 32;
/// The most threads that read ahead.
const THREADS: usize = 4;

/// Loads parts in the background, before they are read.
pub(super) struct Ahead {
    recent: Mutex<Recent>,
    send: Sender<usize>,
}

#[derive(Default)]
struct Recent {
    /// Parts and how many bytes of them were read.
    read: VecDeque<(usize, u64)>,
    /// The part that was read last, and how many one behind the other were read before it.
    last: (usize, usize),
    /// Parts that were loaded last.
    loaded: VecDeque<usize>,
}

impl Recent {
    fn bytes(&self, part: usize) -> u64 {
        self.read.iter().find(|(own, _)| *own == part).map_or(0, |(_, bytes)| *bytes)
    }

    /// Notes that bytes of a part of this length were read; tells whether somebody reads on.
    fn note(&mut self, part: usize, bytes: u64, len: u64) -> bool {
        match self.read.iter_mut().find(|(own, _)| *own == part) {
            Some((_, all)) => *all += bytes,
            None => {
                self.read.truncate(REMEMBERED - 1);
                self.read.push_front((part, bytes));
            }
        }
        let (last, row) = self.last;
        self.last = (part, if part == last + 1 { row + 1 } else { row * usize::from(part == last) });
        let before = part.checked_sub(1).map_or(0, |before| self.bytes(before));
        self.bytes(part) >= len / SHARE || before >= len / 2 || self.last.1 + 1 >= ROW
    }

    /// Notes that a part is loaded; tells whether it was not before.
    fn load(&mut self, part: usize) -> bool {
        let is_new = !self.loaded.contains(&part);
        if is_new {
            self.loaded.truncate(REMEMBERED - 1);
            self.loaded.push_front(part);
        }
        is_new
    }
}

impl Ahead {
    /// Makes some threads, which end with this, and load parts by a function.
    pub fn new(load: impl Fn(usize) + Send + Sync + 'static) -> Ahead {
        let (send, parts) = bounded::<usize>(WAITING);
        let load = Arc::new(load);
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(THREADS) {
            let (parts, load) = (parts.clone(), Arc::clone(&load));
            // Without threads nothing is read ahead.
            let _ = std::thread::Builder::new()
                .name("read-ahead".into())
                .spawn(move || parts.into_iter().for_each(|part| load(part)));
        }
        Ahead { recent: Mutex::default(), send }
    }

    /// Notes that bytes of a part of `len` bytes are read. The result tells whether somebody reads on from part to part: then those
    /// behind it, of `count` parts, are loaded.
    pub fn note(&self, part: usize, bytes: u64, len: u64, count: usize) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if !recent.note(part, bytes, len) {
            return false;
        }
        let next = (part + 1)..(part + 1 + (REACH / len.max(1)).max(1) as usize).min(count);
        for part in next {
            // Where too many wait already, the reader is not slower than they are.
            if recent.load(part) && self.send.try_send(part).is_err() {
                break;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_reads_on_is_noticed() {
        let mut recent = Recent::default();
        // Here and there.
        assert!((0..1000).all(|n| !recent.note(n * 7 % 1000, 4096, 2 << 20)));
        // A part in pieces, and what follows it.
        let pieces: Vec<_> = (0..16).map(|_| recent.note(2000, 64 << 10, 2 << 20)).collect();
        assert_eq!(pieces.iter().filter(|reads_on| **reads_on).count(), 13);
        assert!(recent.note(2001, 512, 2 << 20));
        assert!(!recent.note(2003, 512, 2 << 20));
        // A little of each part.
        let row: Vec<_> =
            [3000, 3001, 3001, 3002, 3003, 3004, 3006].map(|n| recent.note(n, 512, 2 << 20)).into();
        assert_eq!(row, [false, false, false, false, true, true, false]);
        assert!(recent.load(5) && !recent.load(5));
        assert!((6..6 + REMEMBERED).all(|n| recent.load(n)) && recent.load(5));
        assert!(recent.read.len() == REMEMBERED && recent.loaded.len() == REMEMBERED);
    }

    #[test]
    fn what_comes_next_is_loaded_once() {
        let (send, loaded) = bounded(100);
        let ahead = Ahead::new(move |part| send.send(part).unwrap());
        let len = 1 << 20;
        assert!(!ahead.note(10, 4096, len, 20));
        for _ in 0..4 {
            assert!(ahead.note(10, len / 4, len, 20));
        }
        assert!(ahead.note(18, len, len, 20));
        drop(ahead);
        let mut all: Vec<_> = loaded.into_iter().collect();
        all.sort_unstable();
        assert_eq!(all, [11, 12, 13, 14, 19]);
    }
}
