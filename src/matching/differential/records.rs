//! Records of one length in new bytes: logs whose lines are equally long, tables, counters.
//!
//! Each record differs from the one before in a few bytes, at the same places. A compressor like zstd needs a sequence
//! with an offset for each repetition. VCDIFF says it with the same two bytes each time, and these compress to nearly
//! nothing. That is so for strict repetition only. Whatever else repeats, in text or in programs, zstd finds and encodes
//! better by itself: if all repetition was copied, whole logs, package lists, data bases and programs would grow by 1 to
//! 20 per cent (measured); with records alone they stay as they are.

use memchr::memmem;

use super::matcher::{Instruction, common};

/// The longest record, in bytes.
const REACH: usize = 1 << 10;
/// Where no records begin, the next look is so many bytes further on.
const STRIDE: usize = 2 << 10;
/// So many bytes are looked for a second time. They may be bytes that differ from record to record, so this is tried with
/// so many samples, which lie so many bytes apart.
const SAMPLE: usize = 8;
const SAMPLES: usize = 4;
const APART: usize = 12;
/// The most bytes in a row in which a record differs from the one before.
const MAX_CHANGE: usize = 16;
/// The fewest bytes of records that follow one another. Fewer are left to the compressor.
const MIN_TOTAL: usize = 4 << 10;
/// At least so many per cent of the bytes equal those of the record before.
const MIN_EQUAL: usize = 60;

/// A part of a record that equals the record before.
struct Copy {
    at: usize,
    from: usize,
    len: usize,
}

/// Splits `new` into copies from within itself, one record back, and the literal bytes between them. The instructions come
/// in order and make all of `new`.
pub fn split(new: &[u8], mut emit: impl FnMut(Instruction)) {
    let mut literal = 0;
    let mut at = 0;
    let mut copies = Vec::new();
    while at + STRIDE + REACH <= new.len() {
        let Some(end) = begins(new, at, &mut copies) else {
            at += STRIDE;
            continue;
        };
        for copy in &copies {
            if copy.at > literal {
                emit(Instruction::Literal { at: literal, len: copy.at - literal });
            }
            emit(Instruction::Copy { at: copy.at, from: copy.from, len: copy.len });
            literal = copy.at + copy.len;
        }
        at = end;
    }
    if literal < new.len() {
        emit(Instruction::Literal { at: literal, len: new.len() - literal });
    }
}

/// Looks for records from about `at` on. The result is their end; `copies` then holds what they repeat.
fn begins(new: &[u8], at: usize, copies: &mut Vec<Copy>) -> Option<usize> {
    for place in (0..SAMPLES).map(|n| at + n * APART) {
        let sample = &new[place..place + SAMPLE];
        let Some(before) = memmem::find(&new[place + 1..place + REACH], sample) else { continue };
        let period = before + 1;
        // A shorter period is a run, or nearly one, with which any compressor copes.
        if period < SAMPLE {
            continue;
        }
        let start = place + period;
        let end = follow(new, start, period, copies);
        if end - start >= MIN_TOTAL {
            return Some(end);
        }
    }
    None
}

/// Compares the bytes from `start` on with those that are `period` bytes before. The result is the end of what is alike
/// enough as a whole; `copies` then holds what is equal.
fn follow(new: &[u8], start: usize, period: usize, copies: &mut Vec<Copy>) -> usize {
    copies.clear();
    let (mut at, mut end, mut equal) = (start, start, 0);
    let mut good = (0, start);
    while at - end <= MAX_CHANGE && at < new.len() {
        let len = common(&new[at - period..], &new[at..]);
        if len < SAMPLE {
            at += 1;
            continue;
        }
        copies.push(Copy { at, from: at - period, len });
        at += len;
        end = at;
        equal += len;
        let total = end - start;
        if equal * 100 >= total * MIN_EQUAL {
            good = (copies.len(), end);
        } else if total - (good.1 - start) >= MIN_TOTAL {
            // Little is looked at in vain.
            break;
        }
    }
    copies.truncate(good.0);
    good.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes in literals, and the number of copies.
    fn summary(new: &[u8]) -> (usize, usize) {
        let (mut built, mut literals, mut copies) = (Vec::<u8>::new(), 0, 0);
        split(new, |part| match part {
            Instruction::Literal { at, len } => {
                assert_eq!((at, len > 0), (built.len(), true));
                built.extend(&new[at..at + len]);
                literals += len;
            }
            Instruction::Copy { at, from, len } => {
                assert_eq!((at, from < at), (built.len(), true));
                (0..len).for_each(|n| built.push(built[from + n]));
                copies += 1;
            }
        });
        assert!(built == new);
        (literals, copies)
    }

    fn counting(lines: std::ops::Range<u32>) -> Vec<u8> {
        lines.flat_map(|n| format!("{n:07} a line of a log\n").into_bytes()).collect()
    }

    #[test]
    fn lines_of_one_length_are_copied() {
        let lines = counting(0..10_000);
        let (literals, copies) = summary(&lines);
        assert!(copies > 9_900 && literals < lines.len() / 10, "{copies} copies, {literals} bytes");
        // Between other things, too.
        let noise: Vec<u8> = (0..20_000u32).flat_map(|n| n.wrapping_mul(2654435761).to_le_bytes()).collect();
        let (literals, copies) = summary(&[&noise[..], &lines, &noise].concat());
        assert!(copies > 9_000 && literals < 2 * noise.len() + lines.len() / 5, "{copies}, {literals}");
    }

    #[test]
    fn what_else_repeats_is_left_alone() {
        let uneven: Vec<u8> = (0..20_000u32)
            .flat_map(|n| {
                format!("{n} some line {}\n", "x".repeat((n.wrapping_mul(2654435761) >> 29) as usize))
                    .into_bytes()
            })
            .collect();
        assert_eq!(summary(&uneven).1, 0);
        assert_eq!(summary(&counting(0..100)).1, 0);
        // Followed to their end from everywhere, these would take hours.
        let mostly_new: Vec<u8> = (0..500_000u64)
            .flat_map(|n| {
                [
                    *b"constant",
                    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes(),
                    (n << 32 | !n).to_be_bytes(),
                ]
            })
            .flatten()
            .collect();
        assert_eq!(summary(&mostly_new).1, 0);
        // As would these, that repeat well for long, but worse and worse.
        let worse: Vec<u8> = (0..300_000u64)
            .flat_map(|n| {
                let new = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
                [
                    b"some constant text, ".repeat(if n < 150_000 { 2 } else { 1 }),
                    new.to_vec(),
                    new[..5].to_vec(),
                ]
            })
            .flatten()
            .collect();
        summary(&worse);
        assert_eq!(summary(&vec![7; 100_000]).1, 0);
        assert_eq!(summary(b""), (0, 0));
    }

    proptest! {
        #[test]
        fn any_repetition(
            record in prop::collection::vec(any::<u8>(), 1..300),
            changes in prop::collection::vec((0usize..20_000, any::<u8>()), 0..200),
        ) {
            let mut new: Vec<u8> = record.iter().copied().cycle().take(20_000).collect();
            changes.iter().for_each(|&(at, byte)| new[at] = byte);
            summary(&new);
        }
    }
}
