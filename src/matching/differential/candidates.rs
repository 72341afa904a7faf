//! Where in the base the old bytes of a changed stretch probably are.

use super::stretch::{Origin, Stretch};
use crate::container::Extent;
use crate::matching::map::SeedMatch;

/// The most bytes of the base that are taken from one place, for one changed stretch.
pub(super) const MAX_REFERENCE: u64 = 1 << 20;
/// Where the origin of a stretch is not known exactly, so many bytes more than its length are compared.
const SLACK: u64 = 4 << 10;
/// How many stretches before and behind a changed one are looked at. A neighbour further away tells nothing.
const NEIGHBOURS: usize = 8;
/// Bytes of the base that are compared on either side of what a seed tells.
const AROUND_SEED: u64 = 2 << 10;

/// Lists the extents of the base that stretch `n` probably came from, the most likely one first: the same block of the same
/// disk; what follows the stretch before it in the base; what precedes the stretch behind it.
///
/// A block that moved and changed is at the latter two places. Where something else was put in its place, only one of the
/// three is right. `front` tells that the segment is the first one of its stream.
pub(super) fn candidates(stretches: &[Stretch], n: usize, front: bool) -> Vec<Extent> {
    let Stretch { at, len, origin } = stretches[n];
    let reach = (len as u64 + SLACK).min(MAX_REFERENCE);
    let block = match origin {
        Origin::Changed(block) => block,
        Origin::Equal(_) | Origin::Front(_) | Origin::Fresh => None,
    };
    let before = stretches[..n].iter().rev().take(NEIGHBOURS).find_map(|s| match s.origin {
        Origin::Equal(from) => Some(from + (at - s.at) as u64),
        Origin::Changed(_) | Origin::Front(_) | Origin::Fresh => None,
    });
    let after = stretches[n + 1..].iter().take(NEIGHBOURS).find_map(|s| match s.origin {
        Origin::Equal(to) => Some(to.saturating_sub((s.at - at - len) as u64)),
        Origin::Changed(_) | Origin::Front(_) | Origin::Fresh => None,
    });
    let mut extents = Vec::with_capacity(3);
    extents.extend(block);
    match (before, after) {
        (Some(from), Some(to)) if from <= to && to - from <= reach => {
            add(&mut extents, Extent::between(from, to))
        }
        _ => {
            if let Some(from) = before {
                add(&mut extents, Extent::new(from, reach));
            }
            if let Some(to) = after {
                add(&mut extents, Extent::between(to.saturating_sub(reach), to));
            }
        }
    }
    // If nothing around it matched, the stretch may have changed where it was. At the front of a stream, there is a header
    // of which that is likely.
    if extents.is_empty() && at == 0 && front {
        extents.push(Extent::new(0, reach));
    }
    extents
}

/// Lists the extents of the base that `len` new bytes from `at` on probably came from, by the seeds in them, which are in
/// order. Each seed tells about the bytes that are nearer to it than to another seed.
pub(super) fn around_seeds(at: usize, len: usize, seeds: &[SeedMatch]) -> Vec<Extent> {
    let mut extents = Vec::new();
    let (mut start, last) = (at, at + len);
    for (n, seed) in seeds.iter().enumerate() {
        let end = seeds.get(n + 1).map_or(last, |next| (seed.at + next.at) / 2);
        let first = seed.base.saturating_sub((seed.at - start) as u64 + AROUND_SEED);
        add(&mut extents, Extent::between(first, seed.base + (end - seed.at) as u64 + AROUND_SEED));
        start = end;
    }
    extents
}

/// Adds an extent. Where it overlaps or touches another one, the two become one, if that is not too long.
fn add(extents: &mut Vec<Extent>, new: Extent) {
    for had in extents.iter_mut() {
        if new.pos <= had.end() && had.pos <= new.end() {
            let union = Extent::between(had.pos.min(new.pos), had.end().max(new.end()));
            if union.len <= MAX_REFERENCE {
                *had = union;
                return;
            }
        }
    }
    extents.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extents as positions and lengths.
    fn pairs(extents: Vec<Extent>) -> Vec<(u64, u64)> {
        extents.into_iter().map(|extent| (extent.pos, extent.len)).collect()
    }

    fn stretch(at: usize, len: usize, origin: Origin) -> Stretch {
        Stretch { at, len, origin }
    }

    #[test]
    fn candidates_follow_from_the_neighbours() {
        let equal = Origin::Equal;
        let none = Origin::Changed(None);
        let at = |before, after| {
            let all = [stretch(0, 1000, before), stretch(1000, 10, none), stretch(1010, 90, after)];
            pairs(candidates(&all, 1, false))
        };
        // Both agree: what lies between them. Nothing does where something was inserted.
        assert_eq!(at(equal(5000), equal(6010)), [(6000, 10)]);
        assert_eq!(at(equal(5000), equal(6000)), [(6000, 0)]);
        // They do not: after the one, and before the other.
        assert_eq!(at(equal(5000), equal(50_000)), [(6000, 4106), (50_000 - 4106, 4106)]);
        assert_eq!(at(equal(5000), none), [(6000, 4106)]);
        assert_eq!(at(none, equal(100)), [(0, 100)]);
        assert_eq!(at(none, none), []);
        // The block itself comes first; what is nearly the same is one place.
        let block = Origin::Changed(Some(Extent::new(1000, 10)));
        let own = candidates(&[stretch(0, 1000, equal(0)), stretch(1000, 10, block)], 1, true);
        assert_eq!(pairs(own), [(1000, 4106)]);
        assert_eq!(pairs(candidates(&[stretch(0, 10, none)], 0, true)), [(0, 4106)]);
    }

    #[test]
    fn seeds_tell_where_to_look() {
        const AROUND: u64 = AROUND_SEED;
        let around = |at, len, seeds: &[(usize, u64)]| {
            let seeds: Vec<_> = seeds.iter().map(|&(at, base)| SeedMatch { at, base }).collect();
            pairs(around_seeds(at, len, &seeds))
        };
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
}
