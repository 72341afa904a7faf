//! Comparing changed data with the base's bytes at that place, byte by byte.
//!
//! Most changed blocks differ from their old content in a few bytes, or hold it a little further on.
//! The old bytes are indexed by hashes of short strings; the new bytes are walked once, staying on
//! the current *diagonal* (the offset between new and old) as long as it yields anything.

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
        /// Place in the old bytes.
        from: usize,
        /// Bytes.
        len: usize,
    },
}

/// Bytes that are hashed to find a place in the old content.
const SEED: usize = 8;
/// Every so many bytes of the old content are indexed. With the seed this finds every common string of
/// SEED + STEP - 1 bytes.
const STEP: usize = 4;
/// A copy costs about five bytes; a shorter one is worth it only right behind another, on its diagonal.
const MIN_COPY: usize = 16;
/// Shortest copy that goes on behind a difference on the same diagonal.
const MIN_RESUME: usize = 8;

/// Reusable memory of [`compare`].
#[derive(Default)]
pub struct Workspace {
    table: Vec<u32>,
}

fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + SEED].try_into().expect("8 bytes"))
}

fn slot(word: u64, bits: u32) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
}

/// Number of equal bytes at the front of two slices.
fn common(a: &[u8], b: &[u8]) -> usize {
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
    if forward < SEED {
        return None;
    }
    let back = common_back(&old[..from], &new[literal..at]);
    (back + forward >= least).then_some((from, back, forward))
}

/// Expresses `new` by `old`; the parts are given to `emit` in order and cover `new`.
///
/// `diagonal`: place in `old` where the first byte of `new` is expected. Both may be up to 4 GiB.
pub fn compare(old: &[u8], new: &[u8], diagonal: isize, space: &mut Workspace, mut emit: impl FnMut(Part)) {
    let mut literal = 0;
    if old.len() >= SEED {
        let bits = (old.len() / STEP).max(256).next_power_of_two().ilog2() + 1;
        space.table.clear();
        space.table.resize(1 << bits, 0);
        // Backwards, so that of equal strings the first one stays.
        for at in (0..=old.len() - SEED).rev().filter(|at| at % STEP == 0) {
            space.table[slot(load(old, at), bits)] = at as u32 + 1;
        }
        let mut diagonal = diagonal;
        // Where the last copy ended in `old`: bytes that were put in are followed by what follows there.
        let mut rest = 0;
        let mut at = 0;
        while at + SEED <= new.len() {
            let word = load(new, at);
            let straight = at.checked_add_signed(diagonal).filter(|&from| from + SEED <= old.len());
            let found = straight
                .filter(|&from| load(old, from) == word)
                .and_then(|from| extend(old, new, from, literal, at, MIN_RESUME))
                .or_else(|| {
                    let follows = rest + SEED <= old.len() && load(old, rest) == word;
                    follows.then(|| extend(old, new, rest, literal, at, MIN_COPY)).flatten()
                })
                .or_else(|| match space.table[slot(word, bits)] {
                    0 => None,
                    n => extend(old, new, n as usize - 1, literal, at, MIN_COPY),
                });
            let Some((from, back, forward)) = found else {
                at += 1;
                continue;
            };
            if at - back > literal {
                emit(Part::Literal { at: literal, len: at - back - literal });
            }
            emit(Part::Copy { from: from - back, len: back + forward });
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
        compare(old, new, 0, &mut Workspace::default(), |p| all.push(p));
        let mut built: Vec<u8> = Vec::new();
        for p in &all {
            match *p {
                Part::Literal { at, len } => {
                    assert_eq!(at, built.len());
                    built.extend(&new[at..at + len]);
                }
                Part::Copy { from, len } => built.extend(&old[from..from + len]),
            }
        }
        assert_eq!(built, new);
        all
    }

    fn literals(parts: &[Part]) -> usize {
        parts.iter().map(|p| if let Part::Literal { len, .. } = p { *len } else { 0 }).sum()
    }

    #[test]
    fn finds_changes_insertions_and_moves() {
        let old: Vec<u8> = (0..8192u32).flat_map(|n| n.wrapping_mul(2654435761).to_le_bytes()).collect();
        assert_eq!(parts(&old, &old), [Part::Copy { from: 0, len: old.len() }]);

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
