//! Finds repetitions among the new bytes of a window.

use crate::vcdiff::WindowBuilder;

/// The length in bytes of the shortest match that is worth a COPY instruction.
const MIN: usize = 8;
const TABLE_BITS: u32 = 16;

/// Describes new bytes as copies of earlier new bytes of the same window, where they repeat.
pub struct Matcher {
    /// For each hash of [`MIN`] bytes, the position where such bytes were seen last, plus 1. It is 0 if they were not
    /// seen.
    table: Vec<u32>,
    /// The bytes of the window. Only those in `known` are valid.
    window: Vec<u8>,
    /// The ranges of new bytes (start and end), in order.
    known: Vec<(usize, usize)>,
}

impl Matcher {
    pub fn new() -> Self {
        Matcher { table: vec![0; 1 << TABLE_BITS], window: Vec::new(), known: Vec::new() }
    }

    /// Begins a new window.
    pub fn start(&mut self) {
        self.table.fill(0);
        self.known.clear();
        self.window.clear();
    }

    /// Adds the new bytes `data` to the window, after what `builder` holds so far.
    pub fn add(&mut self, data: &[u8], builder: &mut WindowBuilder) {
        let start = builder.target_len();
        self.window.resize(start, 0);
        self.window.extend_from_slice(data);
        let end = self.window.len();
        self.known.push((start, end));

        let (mut at, mut added, mut misses) = (start, start, 0);
        while at + MIN <= end {
            match self.find(at, added) {
                Some((from, to, len)) => {
                    builder.add(&self.window[added..to]);
                    builder.copy_target(from, len);
                    (at, added, misses) = (to + len, to + len, 0);
                }
                None => {
                    // The longer no match is found, the larger the steps become.
                    misses += 1;
                    at += 1 + (misses >> 7);
                }
            }
        }
        builder.add(&self.window[added..]);
    }

    /// Finds a match for the bytes at `at`, and extends it both ways, but not back beyond `added`. Returns the position
    /// of the earlier bytes, the position where the match begins, and its length.
    fn find(&mut self, at: usize, added: usize) -> Option<(usize, usize, usize)> {
        let window = &self.window[..];
        let key = u64::from_le_bytes(window[at..at + MIN].try_into().ok()?);
        let slot = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS)) as usize;
        // The position fits, as a window has at most 16 MiB.
        let seen = std::mem::replace(&mut self.table[slot], at as u32 + 1);
        let from = (seen as usize).checked_sub(1)?;
        // Bytes are never compared beyond the end of a range, as those behind it are not known.
        let stretch = self.known.partition_point(|&(start, _)| start <= from).checked_sub(1)?;
        let (start, end) = self.known[stretch];
        let same = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(x, y)| x == y).count();
        let forward = same(&window[from..end], &window[at..]);
        if forward < MIN {
            return None;
        }
        let backward = window[start..from].iter().rev().zip(window[added..at].iter().rev());
        let backward = backward.take_while(|(x, y)| x == y).count();
        Some((from - backward, at - backward, forward + backward))
    }
}
