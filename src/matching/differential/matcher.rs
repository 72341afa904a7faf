//! The matcher: compares new bytes with old bytes, byte by byte.
//!
//! Most changed blocks differ from their old content in a few bytes, or hold it a little further on. The old bytes are
//! indexed by hashes of short strings. Then the new bytes are walked once. The walk stays on one *diagonal* (the distance
//! between a position in the new bytes and the equal one in the old bytes) as long as bytes there are equal.

use std::io;

use crate::container::ReadAt;

/// What makes a part of the new bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// The bytes were found nowhere.
    Literal {
        /// Position in the new bytes.
        at: usize,
        /// Length in bytes.
        len: usize,
    },
    /// The bytes are copied.
    Copy {
        /// Position in the new bytes.
        at: usize,
        /// Position in the bytes that are copied from.
        from: usize,
        /// Length in bytes.
        len: usize,
    },
}

/// How a few old bytes are indexed: a string of SEED bytes is hashed every STEP bytes. So every common string of
/// SEED + STEP - 1 bytes is found.
const SEED: usize = 8;
const STEP: usize = 4;
/// The same where all of a base is indexed.
const WHOLE_SEED: usize = 16;
const WHOLE_STEP: usize = 8;
/// The shortest copy. A copy costs about five bytes.
const MIN_COPY: usize = 16;
/// The shortest copy from all of a base. Text has shorter strings in common at many places, and the first of these is
/// rarely the right one.
const MIN_WHOLE: usize = 32;
/// The shortest copy that goes on behind a difference on the same diagonal.
const MIN_RESUME: usize = 8;

/// Memory of [`compare`] that is used again.
#[derive(Default)]
pub struct Workspace {
    table: Vec<u32>,
}

/// All of a small base, indexed once.
pub struct WholeBase {
    old: Vec<u8>,
    table: Vec<u32>,
}

impl WholeBase {
    /// Indexes a base of less than 4 GiB. The index takes as much memory as the base, or twice as much.
    pub fn new(old: Vec<u8>) -> WholeBase {
        let mut table = Vec::new();
        index::<WHOLE_SEED, WHOLE_STEP>(&old, &mut table);
        WholeBase { old, table }
    }

    /// Compares `new` with all of the base, as [`compare`] does.
    pub fn compare(&self, new: &[u8], diagonal: isize, emit: impl FnMut(Instruction)) {
        walk::<WHOLE_SEED>(&self.old, &self.table, new, diagonal, emit);
    }
}

impl ReadAt for WholeBase {
    fn size(&self) -> u64 {
        self.old.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.old.read_at(pos, buf)
    }
}

fn load(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Computes the slot of the `SEED` bytes (8 or 16) at `at`, in a table of 2^`bits` slots.
#[inline]
fn slot<const SEED: usize>(bytes: &[u8], at: usize, bits: u32) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut word = load(bytes, at);
    if SEED > 8 {
        word = word.wrapping_mul(ODD).rotate_left(29) ^ load(bytes, at + SEED - 8);
    }
    (word.wrapping_mul(ODD) >> (64 - bits)) as usize
}

/// Fills the table with positions in `old`, each stored as one more than it is. Of equal strings, the first one stays.
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

/// Counts the equal bytes at the front of two slices.
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

/// Counts the equal bytes at the back of two slices.
fn common_back(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Tells how far `new` around `at` equals `old` around `from`. The result is `from`, the number of equal bytes before
/// it (no further back than `literal` in `new`), and the number of equal bytes from it on. It is `None` where these are
/// fewer than `least` bytes together.
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

/// Expresses `new` by copies from `old` and literal bytes. The instructions are passed to `emit` in order, and make all of
/// `new`.
///
/// `diagonal` is the position in `old` where the first byte of `new` is expected. Both may have up to 4 GiB.
pub fn compare(
    old: &[u8],
    new: &[u8],
    diagonal: isize,
    space: &mut Workspace,
    emit: impl FnMut(Instruction),
) {
    index::<SEED, STEP>(old, &mut space.table);
    walk::<SEED>(old, &space.table, new, diagonal, emit);
}

/// Tells how many bytes to advance where nothing was found, by the length of the literal so far. Most of a long literal is
/// found nowhere, so the walk becomes faster. A copy that begins between two looks is found at a later one, and is
/// extended backwards. The strides and [`STEP`] have no common divisor, so that some look hits an indexed string.
fn stride(literal: usize) -> usize {
    match literal {
        0..32 => 1,
        32..128 => 3,
        _ => 5,
    }
}

/// Walks over `new`, and looks for its strings in the table of `old`.
fn walk<const SEED: usize>(
    old: &[u8],
    table: &[u32],
    new: &[u8],
    mut diagonal: isize,
    mut emit: impl FnMut(Instruction),
) {
    let mut literal = 0;
    if !table.is_empty() {
        let bits = table.len().ilog2();
        // The end of the last copy in `old`. Behind bytes that were inserted, the new bytes go on from there.
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
                emit(Instruction::Literal { at: literal, len: at - back - literal });
            }
            emit(Instruction::Copy { at: at - back, from: from - back, len: back + forward });
            at += forward;
            literal = at;
            rest = from + forward;
            diagonal = rest as isize - at as isize;
        }
    }
    if literal < new.len() {
        emit(Instruction::Literal { at: literal, len: new.len() - literal });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(old: &[u8], new: &[u8]) -> Vec<Instruction> {
        let mut all = Vec::new();
        WholeBase::new(old.to_vec()).compare(new, 0, |p| all.push(p));
        check(&all, old, new);
        all.clear();
        compare(old, new, 0, &mut Workspace::default(), |p| all.push(p));
        check(&all, old, new);
        all
    }

    fn check(all: &[Instruction], old: &[u8], new: &[u8]) {
        let mut built: Vec<u8> = Vec::new();
        for p in all {
            match *p {
                Instruction::Literal { at, len } => {
                    assert_eq!(at, built.len());
                    built.extend(&new[at..at + len]);
                }
                Instruction::Copy { at, from, len } => {
                    assert_eq!(at, built.len());
                    built.extend(&old[from..from + len]);
                }
            }
        }
        assert_eq!(built, new);
    }

    fn literals(parts: &[Instruction]) -> usize {
        parts.iter().map(|p| if let Instruction::Literal { len, .. } = p { *len } else { 0 }).sum()
    }

    #[test]
    fn finds_changes_insertions_and_moves() {
        let old: Vec<u8> = (0..8192u32).flat_map(|n| n.wrapping_mul(2654435761).to_le_bytes()).collect();
        assert_eq!(parts(&old, &old), [Instruction::Copy { at: 0, from: 0, len: old.len() }]);

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
