//! Sets of cluster numbers that mostly follow one another.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of numbers, kept as ranges that neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a number. The result is whether it is new.
    pub fn insert(&mut self, n: u64) -> bool {
        let before = self.0.range(..=n).next_back().map(|(&start, &end)| start..end);
        if before.as_ref().is_some_and(|range| range.contains(&n)) {
            return false;
        }
        let start = before.filter(|range| range.end == n).map_or(n, |range| range.start);
        let end = self.0.remove(&(n + 1)).unwrap_or(n + 1);
        self.0.insert(start, end);
        true
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Position behind the largest number.
    pub fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// What is missing below `end`.
    pub fn missing(&self, end: u64) -> Vec<Range<u64>> {
        let (mut missing, mut at) = (Vec::new(), 0);
        for range in self.iter() {
            if range.start > at {
                missing.push(at..range.start.min(end));
            }
            at = range.end;
        }
        if at < end {
            missing.push(at..end);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_ranges() {
        let mut set = Ranges::default();
        for n in [5, 3, 4, 9, 0] {
            assert!(set.insert(n), "{n}");
        }
        assert!(!set.insert(4));
        assert_eq!(Vec::from_iter(set.iter()), [0..1, 3..6, 9..10]);
        assert_eq!(set.missing(12), [1..3, 6..9, 10..12]);
        assert_eq!((set.end(), set.len()), (10, 3));
    }
}
