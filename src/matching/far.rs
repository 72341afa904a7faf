//! Parts of a one-way base that a differential copies from further back than the window reaches.
//!
//! Files that were moved or written anew lie anywhere in the new stream. Where the base can only be read from the
//! front, whoever restores must keep such parts when they pass by: in a file without a name below `TMPDIR` or
//! `/var/tmp`, at their own places, so that it takes up little more than they do. Which parts these are is found by reading
//! the differential once before, beside the restore's own beginning.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::ahead::copied;
use super::restore::Differential;
use crate::budget::{Budget, Spent};
use crate::container::source::Pass;
use crate::vcdiff::Item;

/// Places and lengths whose sum is no more than a u64 holds; where it is told, sorted and apart from one another.
type Ranges = Vec<(u64, u64)>;

/// Places that are closer are one.
const NEAR: u64 = 512;
/// Most places that are told apart, of a window and in all; with more of them, those closer to one another are one.
/// `diff` copies pieces of 2 KiB and more from so far back, but for a few, and 1 GiB of them.
const MAX_RANGES: usize = 1 << 20;
const RANGES: usize = 1 << 16;
/// What `diff` copies from so far back, at most.
pub(super) const ROOM: u64 = 1 << 30;
/// What may be kept, beside some for each byte of the base's file: what `diff` copies, and what lies between pieces that
/// are close. Other encoders copy as much as they like, though not more than there is: no guest's data is so much
/// shorter when compressed, unless it was made to fill the disk.
const KEPT: u64 = ROOM + ROOM / (2048 / NEAR);
const KEPT_SHARE: u64 = 64;

/// What is to be kept.
enum Wanted {
    Nothing,
    /// Being found out.
    Coming(JoinHandle<Ranges>),
    Known(Ranges),
    All,
}

/// Keeps parts of a stream that passes by.
pub(super) struct Far {
    wanted: Wanted,
    /// All before this place has passed by.
    passed: u64,
    file: Option<File>,
    /// Length of the base's file.
    base: u64,
    room: Budget,
    /// More is wanted than there is room for.
    spent: Option<Spent>,
}

impl Far {
    /// Keeps nothing. The file of the base has `base` bytes.
    pub fn none(base: u64) -> Far {
        Far::new(Wanted::Nothing, base)
    }

    /// Keeps what the differential will copy from more than `window` bytes back; everything, if it cannot be read
    /// twice.
    pub fn of(delta: Option<&Pass>, window: u64, base: u64) -> Far {
        let Some(delta) = delta.and_then(|delta| delta.again().ok()) else {
            return Far::new(Wanted::All, base);
        };
        let scan = std::thread::Builder::new().name("far".into()).spawn(move || scan(delta, window));
        Far::new(scan.map_or(Wanted::All, Wanted::Coming), base)
    }

    /// For another pass, where this kept too little; `None` where it kept everything.
    pub fn more(&self, delta: Option<&Pass>, window: u64) -> Option<Far> {
        match self.wanted {
            Wanted::Nothing => Some(Far::of(delta, window, self.base)),
            Wanted::Coming(_) | Wanted::Known(_) => Some(Far::new(Wanted::All, self.base)),
            Wanted::All => None,
        }
    }

    fn new(wanted: Wanted, base: u64) -> Far {
        let room = Budget::of(KEPT.saturating_add(base.saturating_mul(KEPT_SHARE)));
        Far { wanted, passed: 0, file: None, base, room, spent: None }
    }

    /// Takes the next part of the stream, and keeps what is wanted of it.
    ///
    /// # Errors
    /// Where there is no room for it.
    pub fn pass(&mut self, part: &[u8]) -> io::Result<()> {
        let (start, end) = (self.passed, self.passed + part.len() as u64);
        let ranges: &[(u64, u64)] = match self.known() {
            Wanted::Known(ranges) => &ranges[ranges.partition_point(|(pos, len)| pos + len <= start)..],
            Wanted::All => &[(0, u64::MAX)],
            Wanted::Nothing | Wanted::Coming(_) => &[],
        };
        let wanted: Ranges = (ranges.iter())
            .take_while(|(pos, _)| *pos < end)
            .map(|(pos, len)| (start.max(*pos), end.min(pos.saturating_add(*len))))
            .collect();
        if let Some(spent) = self.spent {
            return Err(not_kept(spent.into()));
        }
        for (from, to) in wanted {
            if matches!(self.wanted, Wanted::All) {
                self.room.take(to - from).map_err(|spent| not_kept(spent.into()))?;
            }
            self.write(&part[(from - start) as usize..(to - start) as usize], from)?;
        }
        self.passed = end;
        Ok(())
    }

    /// Reads what was kept; tells whether it was.
    ///
    /// # Errors
    /// Those of reading.
    pub fn get(&mut self, pos: u64, buf: &mut [u8]) -> io::Result<bool> {
        let end = pos.saturating_add(buf.len() as u64);
        let kept = match self.known() {
            Wanted::Known(ranges) => {
                let n = ranges.partition_point(|(start, len)| start + len <= pos);
                ranges.get(n).is_some_and(|(start, len)| *start <= pos && end <= start + len)
            }
            Wanted::All => true,
            Wanted::Nothing | Wanted::Coming(_) => false,
        };
        match &self.file {
            Some(file) if kept && end <= self.passed => file.read_exact_at(buf, pos).map(|()| true),
            _ => Ok(false),
        }
    }

    /// What is wanted; waits until that is found out.
    fn known(&mut self) -> &Wanted {
        if let Wanted::Coming(_) = self.wanted
            && let Wanted::Coming(scan) = std::mem::replace(&mut self.wanted, Wanted::All)
            && let Ok(ranges) = scan.join()
        {
            let all = ranges.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
            self.spent = self.room.take(all).err();
            self.wanted = Wanted::Known(ranges);
        }
        &self.wanted
    }

    fn write(&mut self, bytes: &[u8], pos: u64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(directory()).map_err(not_kept)?),
        };
        file.write_all_at(bytes, pos).map_err(not_kept)
    }
}

/// What there is no room for.
fn not_kept(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "what will be needed of it again could not be kept in {} ({error}): set TMPDIR to a directory with more \
             room, or decompress the full backup first",
            directory().display()
        ),
    )
}

/// `/tmp` may be memory.
fn directory() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// What a differential copies from more than `window` bytes before the end of what was needed until then. Where it
/// is damaged, what can be read of it: whoever restores comes upon the damage himself.
fn scan(delta: Pass, window: u64) -> Ranges {
    let mut far = Ranges::new();
    let Ok(Differential { mut reader, .. }) = Differential::open(Box::new(delta)) else { return far };
    let mut end = 0;
    let mut apart = NEAR;
    while let Ok(Some(Item::Window(window_read))) = reader.next_item() {
        let mut ranges = copied(&window_read, RANGES, NEAR);
        if ranges.len() == RANGES {
            ranges = window_read.source.map(|s| (s.pos, s.len)).into_iter().collect();
        }
        for (pos, len) in ranges {
            if pos.saturating_add(window) < end {
                far.push((pos, len));
            }
            end = end.max(pos.saturating_add(len));
        }
        if far.len() > MAX_RANGES {
            // To half of them: not at every window.
            while far.len() > MAX_RANGES / 2 {
                join(&mut far, apart);
                apart *= 2;
            }
        }
    }
    join(&mut far, apart);
    far
}

/// Sorts ranges, and makes one of those that are no further apart than that.
fn join(ranges: &mut Ranges, apart: u64) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let end = last.0 + last.1;
        let joined = next.0 <= end.saturating_add(apart);
        if joined {
            last.1 = end.max(next.0 + next.1) - last.0;
        }
        joined
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(ranges: &[(u64, u64)]) -> Far {
        Far::new(Wanted::Known(ranges.to_vec()), 0)
    }

    #[test]
    fn keeps_what_is_wanted_and_nothing_else() {
        let stream: Vec<u8> = (0..1000u32).map(|n| ((n * 7) >> 2) as u8).collect();
        let mut far = known(&[(10, 5), (90, 120), (500, 500)]);
        stream.chunks(100).for_each(|part| far.pass(part).unwrap());
        let mut get = |pos: u64, len: usize| {
            let mut buf = vec![0; len];
            far.get(pos, &mut buf).unwrap().then(|| buf == stream[pos as usize..][..len])
        };
        for (pos, len) in [(10, 5), (11, 1), (90, 120), (150, 3), (999, 1)] {
            assert_eq!(get(pos, len), Some(true), "{pos} {len}");
        }
        for (pos, len) in [(9, 2), (14, 2), (0, 1), (89, 120), (210, 1), (999, 2), (5000, 1)] {
            assert_eq!(get(pos, len), None, "{pos} {len}");
        }
    }

    #[test]
    fn what_has_not_passed_is_not_kept() {
        let mut all = Far::of(None, 1, 0);
        all.pass(&[7; 100]).unwrap();
        assert!(all.get(50, &mut [0; 50]).unwrap());
        assert!(!all.get(50, &mut [0; 51]).unwrap());
        assert!(!Far::none(0).get(0, &mut [0; 1]).unwrap());
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut all = Far::of(None, 1, 100);
        all.room = Budget::of(0);
        let part = vec![7; 1 << 20];
        let kept = (0..64).take_while(|_| all.pass(&part).is_ok()).count();
        assert_eq!(kept, 32);
        let error = all.pass(&part).unwrap_err().to_string();
        assert!(error.contains("asks for more than 32 MiB") && error.contains("decompress"), "{error}");

        let mut dir = tempfile::NamedTempFile::new().unwrap();
        let mut delta = crate::vcdiff::write_header(None, None);
        for from in [9, 5, 0] {
            let mut window = crate::vcdiff::WindowBuilder::new();
            window.copy_source(from << 28, 1 << 24);
            window.finish(None, &mut delta);
        }
        std::io::Write::write_all(&mut dir, &delta).unwrap();
        for (room, good) in [(0, true), (1 << 20, false)] {
            let mut known = Far::of(Pass::from_start(dir.as_file()).ok().as_ref(), 1 << 20, 0);
            known.room = Budget::of(0);
            known.room.take(room).unwrap();
            assert_eq!(known.pass(&[7; 100]).is_ok(), good);
        }
    }

    #[test]
    fn ranges_are_joined() {
        let mut ranges = vec![(50, 10), (0, 10), (5, 2), (12, 3), (60, 1)];
        join(&mut ranges, 2);
        assert_eq!(ranges, [(0, 15), (50, 11)]);
    }
}
