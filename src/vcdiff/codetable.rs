//! The default instruction code table (RFC 3284 section 5.6), the only one xdelta3 uses.
//!
//! [`TABLE`] is built from the rules of the RFC and serves decoding; the functions beside it are its
//! inverse for encoding (a test compares them entry by entry).

use super::address::{MODES, SAME_START};

/// What half an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Noop,
    Add,
    Run,
    /// Copy with this address mode (0..[`MODES`]).
    Copy(u8),
}

/// One of the two instructions of an entry. Size 0 means that the size follows as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Half {
    pub kind: Kind,
    pub size: u8,
}

const NOOP: Half = Half { kind: Kind::Noop, size: 0 };

const fn add(size: u8) -> Half {
    Half { kind: Kind::Add, size }
}

const fn copy(mode: u8, size: u8) -> Half {
    Half { kind: Kind::Copy(mode), size }
}

/// The 256 entries.
pub(crate) static TABLE: [[Half; 2]; 256] = generate();

/// Sizes that have an opcode of their own.
pub(super) const ADD_MAX: u8 = 17;
pub(super) const COPY_MIN: u8 = 4;
pub(super) const COPY_MAX: u8 = 18;
/// Longest ADD before a COPY in one opcode, and the longest COPY after it.
pub(super) const PAIR_ADD_MAX: u8 = 4;
pub(super) const PAIR_COPY_MAX: u8 = 6;

const fn generate() -> [[Half; 2]; 256] {
    let mut table = [[NOOP; 2]; 256];
    let mut at = 0;
    // Line 1: RUN 0. Line 2: ADD 0, 1..=17.
    table[at][0] = Half { kind: Kind::Run, size: 0 };
    at += 1;
    let mut size = 0;
    while size <= ADD_MAX {
        table[at][0] = add(size);
        at += 1;
        size += 1;
    }
    // Lines 3..=11: COPY 0, 4..=18 in each mode.
    let mut mode = 0;
    while mode < MODES {
        table[at][0] = copy(mode, 0);
        at += 1;
        let mut size = COPY_MIN;
        while size <= COPY_MAX {
            table[at][0] = copy(mode, size);
            at += 1;
            size += 1;
        }
        mode += 1;
    }
    // Lines 12..=20: ADD 1..=4 then COPY 4..=6 (4 only in the "same" modes).
    let mut mode = 0;
    while mode < MODES {
        let last = if mode < SAME_START { PAIR_COPY_MAX } else { COPY_MIN };
        let mut added = 1;
        while added <= PAIR_ADD_MAX {
            let mut copied = COPY_MIN;
            while copied <= last {
                table[at] = [add(added), copy(mode, copied)];
                at += 1;
                copied += 1;
            }
            added += 1;
        }
        mode += 1;
    }
    // Line 21: COPY 4 in each mode, then ADD 1.
    let mut mode = 0;
    while mode < MODES {
        table[at] = [copy(mode, COPY_MIN), add(1)];
        at += 1;
        mode += 1;
    }
    assert!(at == 256);
    table
}

/// RUN, size follows.
pub(super) const RUN: u8 = 0;

/// Opcode of an ADD; `true` if the size must follow.
#[inline]
pub(super) fn add_opcode(size: usize) -> (u8, bool) {
    if size <= ADD_MAX as usize { (1 + size as u8, false) } else { (1, true) }
}

/// Opcode of a COPY; `true` if the size must follow.
#[inline]
pub(super) fn copy_opcode(mode: u8, size: usize) -> (u8, bool) {
    let first = 19 + 16 * mode;
    if (COPY_MIN as usize..=COPY_MAX as usize).contains(&size) {
        (first + size as u8 - (COPY_MIN - 1), false)
    } else {
        (first, true)
    }
}

/// Opcode of an ADD of 1..=4 bytes followed by a COPY, if there is one.
#[inline]
pub(super) fn add_copy_opcode(added: u8, mode: u8, copied: usize) -> Option<u8> {
    if mode < SAME_START {
        let index = copied.wrapping_sub(COPY_MIN as usize);
        (index < 3).then(|| 163 + 12 * mode + 3 * (added - 1) + index as u8)
    } else {
        (copied == COPY_MIN as usize).then(|| 235 + 4 * (mode - SAME_START) + (added - 1))
    }
}

/// Opcode of a COPY of 4 bytes followed by an ADD of 1.
#[inline]
pub(super) fn copy_add_opcode(mode: u8) -> u8 {
    247 + mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_rfc() {
        assert_eq!(TABLE[0], [Half { kind: Kind::Run, size: 0 }, NOOP]);
        assert_eq!(TABLE[18], [add(17), NOOP]);
        assert_eq!(TABLE[19], [copy(0, 0), NOOP]);
        assert_eq!(TABLE[162], [copy(8, 18), NOOP]);
        assert_eq!(TABLE[163], [add(1), copy(0, 4)]);
        assert_eq!(TABLE[234], [add(4), copy(5, 6)]);
        assert_eq!(TABLE[235], [add(1), copy(6, 4)]);
        assert_eq!(TABLE[246], [add(4), copy(8, 4)]);
        assert_eq!(TABLE[247], [copy(0, 4), add(1)]);
        assert_eq!(TABLE[255], [copy(8, 4), add(1)]);
    }

    #[test]
    fn opcodes_are_the_inverse_of_the_table() {
        for (opcode, &[first, second]) in TABLE.iter().enumerate() {
            let opcode = opcode as u8;
            let sized = |size: u8, unsized_as: usize| if size == 0 { unsized_as } else { size.into() };
            match (first.kind, second.kind) {
                (Kind::Run, Kind::Noop) => assert_eq!(opcode, RUN),
                (Kind::Add, Kind::Noop) => {
                    assert_eq!(add_opcode(sized(first.size, 99)), (opcode, first.size == 0))
                }
                (Kind::Copy(mode), Kind::Noop) => {
                    assert_eq!(copy_opcode(mode, sized(first.size, 99)), (opcode, first.size == 0))
                }
                (Kind::Add, Kind::Copy(mode)) => {
                    assert_eq!(add_copy_opcode(first.size, mode, second.size.into()), Some(opcode))
                }
                (Kind::Copy(mode), Kind::Add) => assert_eq!(copy_add_opcode(mode), opcode),
                other => panic!("{other:?}"),
            }
        }
        for copied in [0, 3, 5, 7, usize::MAX] {
            assert_eq!(add_copy_opcode(1, SAME_START, copied), None);
        }
        assert_eq!(add_copy_opcode(1, 0, 7), None);
        assert_eq!(copy_opcode(2, 3), (51, true));
    }
}
