//! Comparing changed data with the base's bytes at that place, byte by byte.
//!
//! Most changed blocks differ from their old content in a few bytes, or hold it a little further on.
//! The old bytes are indexed by hashes of short strings; the new bytes are walked once, staying on
//! the current *diagonal* (the offset between new and old) as long as it yields anything.

use std::io;

use crate::container::ReadAt;

/// A stretch of new bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes found nowhere: place in `new`, and length.
    Literal {
        /// Place in the new bytes.
        at: usize,
        /// Bytes.
        len: usize,
    },
    /// Bytes of the old content.
    Copy {
        /// Place in the new bytes.
        at: usize,
        /// Place in the old bytes.
        from: usize,
        /// Bytes.
        len: usize,
    },
}

/// How the old content is indexed, for comparing with little of it: every so many bytes, and how many of them are
/// hashed. This finds every common string of SEED + STEP - 1 bytes.
const SEED: usize = 8;
const STEP: usize = 4;
/// The same for comparing with all of a base.
const WHOLE_SEED: usize = 16;
const WHOLE_STEP: usize = 8;
/// A copy costs about five bytes; a shorter one is worth it only right behind another, on its diagonal.
const MIN_COPY: usize = 16;
/// Of all of a base: text has much that short in many places, and the first of them is the wrong one.
const MIN_WHOLE: usize = 32;
/// Shortest copy that goes on behind a difference on the same diagonal.
const MIN_RESUME: usize = 8;

/// Reusable memory of [`compare`].
#[derive(Default)]
pub struct Workspace {
    table: Vec<u32>,
}

/// All of a base, indexed once.
pub struct Whole {
    old: Vec<u8>,
    table: Vec<u32>,
}

impl Whole {
    /// Indexes `old`, of less than 4 GiB. That takes as much memory again, or twice as much.
    pub fn new(old: Vec<u8>) -> Whole {
        let mut table = Vec::new();
        index::<WHOLE_SEED, WHOLE_STEP>(&old, &mut table);
        Whole { old, table }
    }

    /// As [`compare`] with all of it.
    pub fn compare(&self, new: &[u8], diagonal: isize, emit: impl FnMut(Part)) {
        walk::<WHOLE_SEED>(&self.old, &self.table, new, diagonal, emit);
    }
}

impl ReadAt for Whole {
    fn size(&self) -> u64 {
        self.old.len() as u64
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = usize::try_from(pos).ok().and_then(|pos| Some(pos..pos.checked_add(buf.len())?));
        let bytes = end.and_then(|range| self.old.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Slot of `SEED` bytes (8 or 16) in a table of 2^bits.
#[inline]
fn slot<const SEED: usize>(bytes: &[u8], at: usize, bits: u32) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut word = load(bytes, at);
    if SEED > 8 {
        word = word.wrapping_mul(ODD).rotate_left(29) ^ load(bytes, at + SEED - 8);
    }
    (word.wrapping_mul(ODD) >> (64 - bits)) as usize
}

/// Makes a table of the places of `old`, each one more than it is; of equal strings the first one stays.
fn index<const SEED: usize, const STEP: usize>(old: &[u8], table: &mut Vec<u32>) {
    table.clear();
    if old.len() < SEED {
        return;
    }
    let bits = (old.len() / STEP).max(256).next_power_of_two().ilog2() + 1;
    table.resize(1 << bits, 0);
    for at in (0..=(old.len() - SEED) / STEP).rev().map(|n| n * STEP) {
        table[slot::<SEED>(old, at, bits)] = at as u32 + 1;
    }
}

/// Number of equal bytes at the front of two slices.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let mut n = 0;
    while n + 8 <= len {
        let diff = load(a, n) ^ load(b, n);
        if diff != 0 {
            return n + (diff.trailing_zeros() / 8) as usize;
        }
        n += 8;
    }
    n + a[n..len].iter().zip(&b[n..len]).take_while(|(a, b)| a == b).count()
}

/// Number of equal bytes at the back of two slices.
fn common_back(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// How far `new` equals `old` around `at` and `from`: `from` itself, bytes before it (down to `literal`),
/// and bytes from there on. `None` where that is less than `least`.
#[inline]
fn extend(
    old: &[u8],
    new: &[u8],
    from: usize,
    literal: usize,
    at: usize,
    least: usize,
) -> Option<(usize, usize, usize)> {
    let forward = common(&old[from..], &new[at..]);
    if forward < MIN_RESUME {
        return None;
    }
    let back = common_back(&old[..from], &new[literal..at]);
    (back + forward >= least).then_some((from, back, forward))
}

/// Expresses `new` by `old`; the parts are given to `emit` in order and cover `new`.
///
/// `diagonal`: place in `old` where the first byte of `new` is expected. Both may be up to 4 GiB.
pub fn compare(old: &[u8], new: &[u8], diagonal: isize, space: &mut Workspace, emit: impl FnMut(Part)) {
    index::<SEED, STEP>(old, &mut space.table);
    walk::<SEED>(old, &space.table, new, diagonal, emit);
}

/// How far to go on where nothing was found, by how long that has been so: most of a long literal is found nowhere.
/// A copy that begins in between is found a little later, and reaches back. The strides have no divisor in common with
/// [`STEP`], so none is missed for ever.
fn stride(literal: usize) -> usize {
    match literal {
        0..32 => 1,
        32..128 => 3,
        _ => 5,
    }
}

fn walk<const SEED: usize>(
    old: &[u8],
    table: &[u32],
    new: &[u8],
    mut diagonal: isize,
    mut emit: impl FnMut(Part),
) {
    let mut literal = 0;
    if !table.is_empty() {
        let bits = table.len().ilog2();
        // Where the last copy ended in `old`: bytes that were put in are followed by what follows there.
        let mut rest = 0;
        let mut at = 0;
        while at + SEED <= new.len() {
            let word = load(new, at);
            let follows = |from: usize| from + 8 <= old.len() && load(old, from) == word;
            let straight = at.checked_add_signed(diagonal).filter(|&from| follows(from));
            let found = straight
                .and_then(|from| extend(old, new, from, literal, at, MIN_RESUME))
                .or_else(|| follows(rest).then(|| extend(old, new, rest, literal, at, MIN_COPY)).flatten())
                .or_else(|| match table[slot::<SEED>(new, at, bits)] {
                    0 => None,
                    n => {
                        let least = if SEED < WHOLE_SEED { MIN_COPY } else { MIN_WHOLE };
                        extend(old, new, n as usize - 1, literal, at, least)
                    }
                });
            let Some((from, back, forward)) = found else {
                at += stride(at - literal);
                continue;
            };
            if at - back > literal {
                emit(Part::Literal { at: literal, len: at - back - literal });
            }
            emit(Part::Copy { at: at - back, from: from - back, len: back + forward });
            at += forward;
            literal = at;
            rest = from + forward;
            diagonal = rest as isize - at as isize;
        }
    }
    if literal < new.len() {
        emit(Part::Literal { at: literal, len: new.len() - literal });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(old: &[u8], new: &[u8]) -> Vec<Part> {
        let mut all = Vec::new();
        Whole::new(old.to_vec()).compare(new, 0, |p| all.push(p));
        check(&all, old, new);
        all.clear();
        compare(old, new, 0, &mut Workspace::default(), |p| all.push(p));
        check(&all, old, new);
        all
    }

    fn check(all: &[Part], old: &[u8], new: &[u8]) {
        let mut built: Vec<u8> = Vec::new();
        for p in all {
            match *p {
                Part::Literal { at, len } => {
                    assert_eq!(at, built.len());
                    built.extend(&new[at..at + len]);
                }
                Part::Copy { at, from, len } => {
                    assert_eq!(at, built.len());
                    built.extend(&old[from..from + len]);
                }
            }
        }
        assert_eq!(built, new);
    }

    fn literals(parts: &[Part]) -> usize {
        parts.iter().map(|p| if let Part::Literal { len, .. } = p { *len } else { 0 }).sum()
    }

    #[test]
    fn finds_changes_insertions_and_moves() {
        let old: Vec<u8> = (0..8192u32).flat_map(|n| n.wrapping_mul(2654435761).to_le_bytes()).collect();
        assert_eq!(parts(&old, &old), [Part::Copy { at: 0, from: 0, len: old.len() }]);

        let mut changed = old.clone();
        changed[1000..1010].fill(0);
        assert_eq!(literals(&parts(&old, &changed)), 10);

        let mut inserted = old.clone();
        inserted.splice(5000..5000, *b"some new bytes");
        assert_eq!(literals(&parts(&old, &inserted)), 14);

        let moved = [&old[20000..], &old[..20000]].concat();
        assert_eq!(literals(&parts(&old, &moved)), 0);

        assert_eq!(literals(&parts(b"", &old)), old.len());
        assert_eq!(parts(&old, b""), []);
    }

    proptest! {
        #[test]
        fn any_two_strings(old in prop::collection::vec(0u8..4, 0..600), new in prop::collection::vec(0u8..4, 0..600)) {
            parts(&old, &new);
        }
    }
}
