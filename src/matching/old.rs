//! Where the old bytes of a changed stretch are looked for, and how they are gathered.

use std::io;
use std::ops::Range;

use super::job::Stretch;
use crate::container::ReadAt;

/// The most old bytes that are taken from one place for one changed stretch.
pub const MAX_OLD: u64 = 1 << 20;
/// Old bytes that are looked at beyond the length of a changed stretch of unknown origin.
const SLACK: u64 = 4 << 10;
/// A neighbour further away says nothing.
const NEIGHBOURS: usize = 8;

/// Old bytes that are looked at on either side of what seeds tell.
const AROUND: u64 = 2 << 10;

/// Places of the base that `len` new bytes probably came from, by the seeds in them (where in them, and where in the
/// base; in order): each tells of what is nearer to it than to another.
pub fn around(start: usize, len: usize, seeds: &[(usize, u64)]) -> Vec<(u64, u64)> {
    let mut places = Vec::new();
    let (mut start, last) = (start, start + len);
    for (n, &(at, from)) in seeds.iter().enumerate() {
        let end = seeds.get(n + 1).map_or(last, |next| (at + next.0) / 2);
        let first = from.saturating_sub((at - start) as u64 + AROUND);
        add(&mut places, first, from + (end - at) as u64 + AROUND - first);
        start = end;
    }
    places
}

/// A stretch of a segment: its place in there, its length, and what is known of it.
pub type Placed = (usize, usize, Stretch);

/// Places of the base that stretch `n` probably came from, with lengths, the likeliest first: the same block
/// of the same disk, what follows the stretch before it in the base, what precedes the stretch behind it.
///
/// A block that moved and changed has the latter two; where something was put in its place, only one is right.
pub fn places(stretches: &[Placed], n: usize, front: bool) -> Vec<(u64, u64)> {
    let (at, len, stretch) = stretches[n];
    let reach = (len as u64 + SLACK).min(MAX_OLD);
    let block = match stretch {
        Stretch::Changed(block) => block,
        Stretch::Equal(_) | Stretch::Front(_) | Stretch::Fresh => None,
    };
    let before = stretches[..n].iter().rev().take(NEIGHBOURS).find_map(|&(b, _, s)| match s {
        Stretch::Equal(from) => Some(from + (at - b) as u64),
        Stretch::Changed(_) | Stretch::Front(_) | Stretch::Fresh => None,
    });
    let after = stretches[n + 1..].iter().take(NEIGHBOURS).find_map(|&(a, _, s)| match s {
        Stretch::Equal(to) => Some(to.saturating_sub((a - at - len) as u64)),
        Stretch::Changed(_) | Stretch::Front(_) | Stretch::Fresh => None,
    });
    let mut places = Vec::with_capacity(3);
    places.extend(block);
    match (before, after) {
        (Some(from), Some(to)) if from <= to && to - from <= reach => add(&mut places, from, to - from),
        _ => {
            if let Some(from) = before {
                add(&mut places, from, reach);
            }
            if let Some(to) = after {
                add(&mut places, to.saturating_sub(reach), reach.min(to));
            }
        }
    }
    // Nothing matched nearby: perhaps it changed where it was. At the front there is the header.
    if places.is_empty() && at == 0 && front {
        places.push((0, reach));
    }
    places
}

/// Adds a place, as far as it is not in another already.
fn add(places: &mut Vec<(u64, u64)>, from: u64, len: u64) {
    for (at, had) in places.iter_mut() {
        let end = from + len;
        if from <= *at + *had && *at <= end {
            let union = (*at).min(from);
            let whole = end.max(*at + *had) - union;
            if whole <= MAX_OLD {
                (*at, *had) = (union, whole);
                return;
            }
        }
    }
    places.push((from, len));
}

/// Parts of the base for several stretches, read in the base's order: what has to be decompressed for them is, but
/// once.
#[derive(Default)]
pub struct Known {
    bytes: Vec<u8>,
    /// Where in the base they begin, and where in the bytes they are: nowhere what could not be read.
    parts: Vec<(u64, Range<usize>)>,
    /// Whether the last ones were read from the back.
    backward: bool,
    /// Why some of them could not be read.
    pub errors: Vec<io::Error>,
}

impl Known {
    /// Bytes that are enough for once.
    const ENOUGH: u64 = 16 << 20;

    /// Reads the places of some stretches, as far as they can be read, and tells of how many: one at least.
    pub fn read<'a>(
        &mut self,
        content: &dyn ReadAt,
        stretches: impl Iterator<Item = &'a [(u64, u64)]>,
    ) -> usize {
        self.bytes.clear();
        self.parts.clear();
        self.errors.clear();
        let mut places = Vec::new();
        let (mut served, mut wanted) = (0, 0);
        for stretch in stretches {
            wanted += stretch.iter().map(|place| place.1).sum::<u64>();
            if served > 0 && wanted > Self::ENOUGH {
                break;
            }
            served += 1;
            let ends =
                stretch.iter().map(|&(from, len)| (from, from.saturating_add(len).min(content.size())));
            places.extend(ends.filter(|(from, end)| from < end));
        }
        places.sort_unstable();
        places.dedup_by(|next, joined| {
            let touches = next.0 <= joined.1;
            joined.1 = if touches { joined.1.max(next.1) } else { joined.1 };
            touches
        });
        for (from, end) in places {
            let at = self.bytes.len();
            self.bytes.resize(at + (end - from) as usize, 0);
            self.parts.push((from, at..self.bytes.len()));
        }
        // The next stretches want much of the same: what was read last comes first then, and is still at hand.
        self.backward = !self.backward;
        let Known { bytes, parts, errors, .. } = self;
        let read = |(from, range): &mut (u64, Range<usize>)| {
            if let Err(e) = content.read_at(*from, &mut bytes[range.clone()]) {
                range.end = range.start;
                errors.push(e);
            }
        };
        // Each part that is decompressed from its front, from its back: then it is, once, as far as is wanted.
        let zone = |(from, range): &(u64, Range<usize>)| content.part_at(from + range.len() as u64 - 1);
        let mut zones: Vec<_> = parts.chunk_by_mut(|a, b| zone(a) == zone(b)).collect();
        if self.backward {
            zones.reverse();
        }
        zones.into_iter().flat_map(|parts| parts.iter_mut().rev()).for_each(read);
        served
    }
}

impl ReadAt for Known {
    fn size(&self) -> u64 {
        self.parts.last().map_or(0, |(from, range)| from + range.len() as u64)
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let n = self.parts.partition_point(|part| part.0 <= pos).checked_sub(1);
        let (from, range) = &self.parts[n.ok_or(io::ErrorKind::NotFound)?];
        let bytes = self.bytes[range.clone()].get((pos - from) as usize..);
        buf.copy_from_slice(bytes.and_then(|bytes| bytes.get(..buf.len())).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

/// Bytes of the base from several places, one behind the other.
#[derive(Default)]
pub struct Old {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where in the base those from here on lie.
    parts: Vec<(usize, u64)>,
}

impl Old {
    /// Fetches what lies at `places`, as far as there is anything. What cannot be read is left out; the last
    /// error is returned beside it.
    pub fn fetch(&mut self, content: &dyn ReadAt, places: &[(u64, u64)]) -> Option<io::Error> {
        self.bytes.clear();
        self.parts.clear();
        let mut error = None;
        for &(from, len) in places {
            let len = len.min(content.size().saturating_sub(from)) as usize;
            if len == 0 {
                continue;
            }
            let at = self.bytes.len();
            self.bytes.resize(at + len, 0);
            match content.read_at(from, &mut self.bytes[at..]) {
                Ok(()) => self.parts.push((at, from)),
                Err(e) => {
                    self.bytes.truncate(at);
                    error = Some(e);
                }
            }
        }
        error
    }

    /// Where in the base a stretch of the bytes lies: one place, or several where it goes over a seam.
    pub fn origins(&self, at: usize, len: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
        let ends = self.parts.iter().skip(1).map(|part| part.0).chain([self.bytes.len()]);
        self.parts.iter().zip(ends).filter_map(move |(&(start, from), end)| {
            let (first, last) = (at.max(start), (at + len).min(end));
            (first < last).then(|| (from + (first - start) as u64, last - first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(Vec<u8>);
    impl ReadAt for Bytes {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
            if pos == 300 {
                return Err(io::ErrorKind::NotFound.into());
            }
            buf.copy_from_slice(&self.0[pos as usize..][..buf.len()]);
            Ok(())
        }
    }

    #[test]
    fn places_follow_from_the_neighbours() {
        let equal = Stretch::Equal;
        let changed = (1000, 10, Stretch::Changed(None));
        let at = |before, after| places(&[(0, 1000, before), changed, (1010, 90, after)], 1, false);
        let none = Stretch::Changed(None);
        // Both agree: what lies between them. Nothing does where something was inserted.
        assert_eq!(at(equal(5000), equal(6010)), [(6000, 10)]);
        assert_eq!(at(equal(5000), equal(6000)), [(6000, 0)]);
        // They do not: after the one, and before the other.
        assert_eq!(at(equal(5000), equal(50_000)), [(6000, 4106), (50_000 - 4106, 4106)]);
        assert_eq!(at(equal(5000), none), [(6000, 4106)]);
        assert_eq!(at(none, equal(100)), [(0, 100)]);
        assert_eq!(at(none, none), []);
        // The block itself comes first; what is nearly the same is one place.
        let own = places(&[(0, 1000, equal(0)), (1000, 10, Stretch::Changed(Some((1000, 10))))], 1, true);
        assert_eq!(own, [(1000, 4106)]);
        assert_eq!(places(&[(0, 10, none)], 0, true), [(0, 4106)]);
    }

    #[test]
    fn seeds_tell_where_to_look() {
        assert_eq!(around(100, 9000, &[]), []);
        // All of it lies around one seed.
        assert_eq!(around(100, 9000, &[(1100, 50_000)]), [(50_000 - 1000 - AROUND, 9000 + 2 * AROUND)]);
        // Two that agree are one place, two that do not share it.
        assert_eq!(around(0, 9000, &[(1000, 50_000), (5000, 54_000)]).len(), 1);
        let apart = around(0, 9000, &[(1000, 50_000), (5000, 99_000)]);
        assert_eq!(apart, [(49_000 - AROUND, 3000 + 2 * AROUND), (97_000 - AROUND, 6000 + 2 * AROUND)]);
        // At the front of the base.
        assert_eq!(around(0, 100, &[(50, 10)]), [(0, 60 + AROUND)]);
    }

    #[test]
    fn what_is_known_is_read_once_and_in_order() {
        let content = Bytes((0..=255).cycle().take(20 << 20).collect());
        let mut known = Known::default();
        let stretches: [&[(u64, u64)]; 3] =
            [&[(5000, 100), (1000, 50)], &[], &[(1040, 20), (300, 9), (20 << 20, 1)]];
        assert_eq!(known.read(&content, stretches.into_iter()), 3);
        assert_eq!((known.bytes.len(), known.parts.len(), known.errors.len()), (169, 3, 1));
        let mut buf = [0; 10];
        known.read_at(1050, &mut buf).unwrap();
        assert_eq!(buf, content.0[1050..1060]);
        known.read_at(5090, &mut buf).unwrap();
        for missing in [0, 300, 990, 1051, 4999, 5091, 9000] {
            assert_eq!(known.read_at(missing, &mut buf).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        // No more than is enough, but one in any case.
        let large: [&[(u64, u64)]; 3] = [&[(0, Known::ENOUGH)], &[(1 << 20, 1)], &[]];
        assert_eq!(known.read(&content, large.into_iter()), 1);
        assert_eq!(known.read(&content, std::iter::empty()), 0);
    }

    #[test]
    fn what_was_read_last_is_read_first_and_each_zone_from_the_back() {
        /// Remembers what was read.
        struct Reads(std::sync::Mutex<Vec<u64>>);
        impl ReadAt for Reads {
            fn size(&self) -> u64 {
                1000
            }
            fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
                self.0.lock().unwrap().push(pos);
                buf.fill(pos as u8);
                Ok(())
            }
            fn part_at(&self, pos: u64) -> u64 {
                pos / 100
            }
        }
        let (content, mut known) = (Reads(Default::default()), Known::default());
        for _ in 0..2 {
            // One reaches from one zone into the next.
            known.read(&content, [&[(220, 5), (10, 5), (150, 5), (190, 15), (120, 5)][..]].into_iter());
            let mut buf = [0; 5];
            for from in [10u8, 120, 150, 190, 220] {
                known.read_at(from.into(), &mut buf).unwrap();
                assert_eq!(buf, [from; 5]);
            }
        }
        let read = content.0.lock().unwrap();
        assert_eq!(*read, [220, 190, 150, 120, 10, 10, 150, 120, 220, 190]);
    }

    #[test]
    fn bytes_of_several_places_know_where_they_come_from() {
        let content = Bytes((0..=255).cycle().take(1000).collect());
        let mut old = Old::default();
        assert!(old.fetch(&content, &[(10, 5), (300, 9), (990, 50), (2000, 1)]).is_some());
        assert_eq!(old.bytes.len(), 15);
        assert_eq!(old.origins(0, 5).collect::<Vec<_>>(), [(10, 5)]);
        assert_eq!(old.origins(3, 4).collect::<Vec<_>>(), [(13, 2), (990, 2)]);
        assert_eq!(old.origins(6, 9).collect::<Vec<_>>(), [(991, 9)]);
    }
}
