//! Where the old bytes of a changed stretch are looked for, and how they are gathered.

use std::io;

use super::encode::Stretch;
use crate::container::ReadAt;

/// The most old bytes that are taken from one place for one changed stretch.
pub const MAX_OLD: u64 = 1 << 20;
/// Old bytes that are looked at beyond the length of a changed stretch of unknown origin.
const SLACK: u64 = 4 << 10;
/// A neighbour further away says nothing.
const NEIGHBOURS: usize = 8;

/// The most new bytes whose place in the base one mark tells, on either side of it, and in one stretch.
const MARKED: usize = 1 << 20;
const MARKED_STRETCH: usize = 256 << 10;

/// A mark that the base has too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Where it ends in the segment.
    pub at: usize,
    /// Where it ends in the base.
    pub from: u64,
}

/// Tells of changed stretches of unknown origin where they come from, as far as `hints` (sorted) lie in them: each
/// hint serves what is nearer to it than to another.
pub fn hinted(stretches: Vec<Placed>, hints: &[Hint]) -> Vec<Placed> {
    if hints.is_empty() {
        return stretches;
    }
    let mut all = Vec::with_capacity(stretches.len() + hints.len());
    for (at, len, stretch) in stretches {
        let end = at + len;
        let within = match stretch {
            Stretch::Changed(None) => {
                let first = hints.partition_point(|h| h.at <= at);
                &hints[first..hints.partition_point(|h| h.at <= end)]
            }
            _ => &[],
        };
        let mut done = at;
        for (n, hint) in within.iter().enumerate() {
            let middle = within.get(n + 1).map_or(end, |next| (hint.at + next.at) / 2);
            let (first, last) = (hint.at.saturating_sub(MARKED).max(done), middle.min(hint.at + MARKED));
            if done < first {
                all.push((done, first - done, Stretch::Changed(None)));
            }
            for part in (first..last).step_by(MARKED_STRETCH) {
                let len = MARKED_STRETCH.min(last - part);
                let slack = SLACK + len as u64 / 16;
                let from = (hint.from + part as u64).saturating_sub(hint.at as u64 + slack);
                all.push((part, len, Stretch::Changed(Some((from, len as u64 + 2 * slack)))));
            }
            done = last.max(done);
        }
        if done < end {
            all.push((done, end - done, if done == at { stretch } else { Stretch::Changed(None) }));
        }
    }
    all
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
        Stretch::Equal(_) | Stretch::Fresh => None,
    };
    let before = stretches[..n].iter().rev().take(NEIGHBOURS).find_map(|&(b, _, s)| match s {
        Stretch::Equal(from) => Some(from + (at - b) as u64),
        Stretch::Changed(_) | Stretch::Fresh => None,
    });
    let after = stretches[n + 1..].iter().take(NEIGHBOURS).find_map(|&(a, _, s)| match s {
        Stretch::Equal(to) => Some(to.saturating_sub((a - at - len) as u64)),
        Stretch::Changed(_) | Stretch::Fresh => None,
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
    fn marks_tell_where_stretches_come_from() {
        let new = Stretch::Changed(None);
        let all = vec![(0, 1000, Stretch::Equal(7)), (1000, 5 << 20, new), (1000 + (5 << 20), 9, new)];
        assert_eq!(hinted(all.clone(), &[]), all);
        let hints = [
            Hint { at: 900, from: 1 },
            Hint { at: 2 << 20, from: 9 << 20 },
            Hint { at: 3 << 20, from: 5 << 20 },
        ];
        let found = hinted(all.clone(), &hints);
        let mut end = 0;
        for &(at, len, stretch) in &found {
            assert_eq!(at, end);
            end += len;
            let Stretch::Changed(Some((from, old))) = stretch else { continue };
            let drift = if at < 5 << 19 { 7 << 20 } else { 2 << 20 };
            assert!(from < at as u64 + drift && from + old > (at + len) as u64 + drift);
        }
        assert_eq!(end, 1009 + (5 << 20));
        let told: usize =
            found.iter().filter(|s| matches!(s.2, Stretch::Changed(Some(_)))).map(|s| s.1).sum();
        assert_eq!(told, 3 << 20);
        assert_eq!((found[0], found[1]), (all[0], (1000, (1 << 20) - 1000, new)));
        assert_eq!(found.last(), all.last());
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
