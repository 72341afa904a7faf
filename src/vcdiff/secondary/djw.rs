//! DJW: semi-static Huffman coding with up to 8 code tables, in the manner of bzip2 (D. J. Wheeler).
//!
//! A section is cut into sectors of equal size, each coded with one of the tables. In order it holds:
//! number of tables less 1 (3 bits); with several tables the sector size / 5 less 1 (5 bits); the code for
//! code lengths (4 bits: how many of its lengths follow beyond the first 7, then 4 bits each); all tables'
//! code lengths; with several tables the code for selectors (3 bits per length) and one selector per sector;
//! then the symbols. Lengths and selectors are moved to front, with runs of the front symbol as numbers in
//! bijective base 2 (digits `RUN_0`, `RUN_1`, lowest first). All codes are canonical.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::bits::{BitReader, BitWriter, CUT};

const MAX_LEN: usize = 20;
/// Initial order of the code lengths for moving to front: 0, the five most common, then the others.
const LENGTH_ORDER: [u8; MAX_LEN + 1] =
    [0, 4, 5, 6, 7, 8, 9, 10, 3, 11, 2, 12, 13, 1, 14, 15, 16, 17, 18, 19, 20];
/// Symbols of the code for lengths: two run digits, then the places of [`LENGTH_ORDER`] but the front.
const LENGTH_SYMBOLS: usize = LENGTH_ORDER.len() + 1;
/// How many lengths of that code are always stored.
const LENGTHS_STORED: usize = 7;

const BAD_CODE: &str = "a DJW section has an invalid code";

/// Decompresses a section to exactly `size` bytes (at least one).
pub(super) fn decode(bytes: &[u8], size: usize) -> Result<Vec<u8>, &'static str> {
    // Every symbol takes at least one bit.
    if size > bytes.len().saturating_mul(8) {
        return Err(CUT);
    }
    let mut bits = BitReader::new(bytes);
    let groups = bits.number(3)? as usize + 1;
    let sector = if groups > 1 { (bits.number(5)? as usize + 1) * 5 } else { size };

    let mut lengths = [0u8; LENGTH_SYMBOLS];
    let stored = bits.number(4)? as usize + LENGTHS_STORED;
    for length in &mut lengths[..stored] {
        *length = bits.number(4)? as u8;
    }
    let mut order = LENGTH_ORDER;
    let lengths = moved_to_front(&mut bits, &Code::new(&lengths)?, &mut order, 256 * groups, Some(256))?;
    let codes = lengths.chunks_exact(256).map(Code::new).collect::<Result<Vec<_>, _>>()?;

    let selectors = if groups > 1 {
        let mut lengths = vec![0u8; groups + 1];
        for length in &mut lengths {
            *length = bits.number(3)? as u8;
        }
        let mut order: Vec<u8> = (0..groups as u8).collect();
        moved_to_front(&mut bits, &Code::new(&lengths)?, &mut order, size.div_ceil(sector), None)?
    } else {
        vec![0]
    };

    let mut out = Vec::with_capacity(size);
    for selector in selectors {
        let code = &codes[usize::from(selector)];
        for _ in 0..sector.min(size - out.len()) {
            out.push(code.symbol(&mut bits)? as u8);
        }
    }
    bits.finish()?;
    Ok(out)
}

/// Compresses a section (not empty) with a single table.
pub(super) fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut counts = [0u64; 256];
    bytes.iter().for_each(|&b| counts[usize::from(b)] += 1);
    let lengths = code_lengths(&counts, MAX_LEN);

    let symbols = move_to_front(&lengths);
    let mut counts = [0u64; LENGTH_SYMBOLS];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let symbol_lengths = code_lengths(&counts, 15);
    let stored = symbol_lengths.iter().rposition(|&l| l != 0).map_or(0, |last| last + 1).max(LENGTHS_STORED);

    let mut bits = BitWriter::default();
    bits.number(0, 3); // one table
    bits.number((stored - LENGTHS_STORED) as u32, 4);
    symbol_lengths[..stored].iter().for_each(|&l| bits.number(l.into(), 4));
    let codes = canonical(&symbol_lengths);
    let mut write = |codes: &[(u32, u8)], symbol: u8| {
        let (code, length) = codes[usize::from(symbol)];
        bits.number(code, length.into());
    };
    symbols.iter().for_each(|&s| write(&codes, s));
    let codes = canonical(&lengths);
    bytes.iter().for_each(|&b| write(&codes, b));
    bits.finish()
}

/// The inverse of [`moved_to_front`] for code lengths.
fn move_to_front(lengths: &[u8]) -> Vec<u8> {
    let mut order = LENGTH_ORDER;
    let mut symbols = Vec::with_capacity(lengths.len());
    let mut run = 0usize;
    let end_run = |run: &mut usize, symbols: &mut Vec<u8>| {
        while *run > 0 {
            *run -= 1;
            symbols.push((*run & 1) as u8);
            *run >>= 1;
        }
    };
    for length in lengths {
        match order.iter().position(|l| l == length) {
            Some(0) => run += 1,
            Some(place) => {
                end_run(&mut run, &mut symbols);
                order[..=place].rotate_right(1);
                symbols.push(place as u8 + 1);
            }
            None => unreachable!("lengths are limited to those in the list"),
        }
    }
    end_run(&mut run, &mut symbols);
    symbols
}

/// Code and length per symbol.
fn canonical(lengths: &[u8]) -> Vec<(u32, u8)> {
    let mut codes = vec![(0, 0); lengths.len()];
    let mut code = 0;
    for length in 1..=MAX_LEN as u8 {
        code *= 2;
        for (entry, _) in codes.iter_mut().zip(lengths).filter(|(_, l)| **l == length) {
            *entry = (code, length);
            code += 1;
        }
    }
    codes
}

/// Huffman code lengths of at most `limit` bits; 0 for what does not occur.
fn code_lengths(counts: &[u64], limit: usize) -> Vec<u8> {
    let mut counts = counts.to_vec();
    loop {
        let lengths = huffman(&counts);
        if lengths.iter().all(|&l| usize::from(l) <= limit) {
            return lengths;
        }
        // Weights are evened out until the tree is flat enough.
        counts.iter_mut().filter(|c| **c > 0).for_each(|c| *c = *c / 2 + 1);
    }
}

fn huffman(counts: &[u64]) -> Vec<u8> {
    // Parents of leaves (by symbol), then of inner nodes.
    let mut parents = vec![usize::MAX; counts.len()];
    let mut heap: BinaryHeap<_> =
        (0..counts.len()).filter(|&s| counts[s] > 0).map(|s| Reverse((counts[s], s))).collect();
    let single = heap.len() == 1;
    while heap.len() > 1 {
        let (Some(Reverse((a, left))), Some(Reverse((b, right)))) = (heap.pop(), heap.pop()) else { break };
        let inner = parents.len();
        parents.push(usize::MAX);
        (parents[left], parents[right]) = (inner, inner);
        heap.push(Reverse((a + b, inner)));
    }
    let depth = |symbol: usize| {
        let path = std::iter::successors(Some(symbol), |&n| Some(parents[n]).filter(|&p| p != usize::MAX));
        path.count() - 1
    };
    let length = |s: usize| if counts[s] == 0 { 0 } else { depth(s) + usize::from(single) };
    (0..counts.len()).map(|s| length(s) as u8).collect()
}

/// Reads `count` values, which were moved to front in the list `order`. With `known_zero`, a value is zero, and not stored,
/// if the value so many places before it is zero: a byte that one table lacks is in none.
fn moved_to_front(
    bits: &mut BitReader,
    code: &Code,
    order: &mut [u8],
    count: usize,
    known_zero: Option<usize>,
) -> Result<Vec<u8>, &'static str> {
    let mut values = Vec::with_capacity(count);
    // How often the front value is to be repeated, and the place value of the next run digit.
    let (mut repeat, mut place) = (0usize, 1usize);
    while values.len() < count {
        if known_zero.is_some_and(|back| values.len() >= back && values[values.len() - back] == 0) {
            values.push(0);
            continue;
        }
        if repeat == 0 {
            let symbol = code.symbol(bits)?;
            if symbol <= 1 {
                repeat = (symbol + 1) * place;
                place *= 2;
            } else {
                let from = symbol - 1;
                order.get_mut(..=from).ok_or(BAD_CODE)?.rotate_right(1);
                values.push(order[0]);
                place = 1;
                continue;
            }
        }
        repeat -= 1;
        values.push(order[0]);
    }
    if repeat == 0 { Ok(values) } else { Err("a DJW section repeats too much") }
}

/// A canonical prefix code: shorter codes first, codes of one length in the order of their symbols.
struct Code {
    /// For each value of the next [`FAST`] bits, lowest first: symbol and length. The length is 0 if the code is longer.
    fast: Vec<(u8, u8)>,
    /// By length: first code, number of codes, index of the first one's symbol.
    ranges: [(u32, u32, u32); MAX_LEN + 1],
    symbols: Vec<u8>,
}

const FAST: usize = 9;

impl Code {
    /// Makes the code from the length for each symbol; 0 stands for symbols that do not occur.
    fn new(lengths: &[u8]) -> Result<Self, &'static str> {
        let mut ranges = [(0, 0, 0); MAX_LEN + 1];
        for &length in lengths.iter().filter(|l| **l != 0) {
            ranges[usize::from(length)].1 += 1;
        }
        let (mut code, mut index) = (0u32, 0);
        for (length, range) in ranges.iter_mut().enumerate().skip(1) {
            code *= 2;
            (range.0, range.2) = (code, index);
            code += range.1;
            index += range.1;
            if code > 1 << length {
                return Err("a DJW section has an impossible code");
            }
        }
        let mut symbols: Vec<u8> = (0..lengths.len()).filter(|&s| lengths[s] != 0).map(|s| s as u8).collect();
        symbols.sort_by_key(|&s| lengths[usize::from(s)]); // stable

        let mut fast = vec![(0, 0); 1 << FAST];
        for (length, &(first, count, index)) in ranges.iter().enumerate().take(FAST + 1).skip(1) {
            for n in 0..count {
                // Codes are stored most significant bit first, that is lowest.
                let reversed = ((first + n).reverse_bits() >> (32 - length)) as usize;
                for entry in fast[reversed..].iter_mut().step_by(1 << length) {
                    *entry = (symbols[(index + n) as usize], length as u8);
                }
            }
        }
        Ok(Code { fast, ranges, symbols })
    }

    #[inline]
    fn symbol(&self, bits: &mut BitReader) -> Result<usize, &'static str> {
        let ahead = bits.peek();
        let (symbol, length) = self.fast[ahead as usize % (1 << FAST)];
        if length != 0 {
            bits.skip(length.into())?;
            return Ok(symbol.into());
        }
        let mut code = 0;
        for (length, &(first, count, index)) in self.ranges.iter().enumerate().skip(1) {
            code = code << 1 | (ahead >> (length - 1)) as u32 & 1;
            // Codes below `first` are prefixes of nothing shorter, so they were taken before.
            if code.wrapping_sub(first) < count {
                bits.skip(length as u32)?;
                return Ok(self.symbols[(index + code - first) as usize].into());
            }
        }
        Err(BAD_CODE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(bytes in prop::collection::vec(any::<u8>(), 1..3000), mask: u8) {
            let bytes: Vec<u8> = bytes.into_iter().map(|b| b & mask).collect();
            prop_assert_eq!(decode(&encode(&bytes), bytes.len()), Ok(bytes));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, size in 1usize..5000) {
            let _ = decode(&bytes, size);
        }
    }

    #[test]
    fn codes_stay_within_20_bits() {
        // Fibonacci numbers make the deepest trees.
        let (mut a, mut b) = (1u64, 1u64);
        let counts: Vec<u64> = (0..40)
            .map(|_| {
                (a, b) = (b, a + b);
                a
            })
            .collect();
        let lengths = code_lengths(&counts, MAX_LEN);
        assert!(lengths.iter().all(|&l| (1..=20).contains(&l)), "{lengths:?}");
        Code::new(&lengths).unwrap();
    }
}
