//! A cache that several threads share. It keeps what was used last, or what will be wanted next.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A value that a [`Cache`] keeps. Only a frame of a zstd file needs more than its weight: parts of it can be dropped.
pub trait Value: Sized {
    /// How much of the cache's limit it takes, in bytes.
    fn weight(&self) -> usize;

    /// Whether it holds this range of its content.
    fn holds(&self, range: &Range<usize>) -> bool {
        let _ = range;
        true
    }

    /// Whether it can be made to hold more of its content.
    fn grows(&self) -> bool {
        false
    }

    /// Copies these ranges (sorted) to other memory, so that the rest can be dropped; `None` where that saves too little.
    fn only(&self, ranges: &[Range<usize>]) -> Option<Self> {
        let _ = ranges;
        None
    }
}

/// Keeps values up to a total weight. A value that several threads want at once is made by one of them; the others wait
/// for it.
///
/// When the limit is passed, the least recently used values are dropped. Where the cache was told what will be wanted
/// ([`Cache::expect`]), it drops in this order: values that nobody will want; of the other values, the parts that nobody
/// will want; the values that take the most room for the longest time.
pub struct Cache<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    slots: HashMap<u64, Slot<T>>,
    weight: usize,
    limit: usize,
    clock: u64,
    /// For each key, the turns that will want it, in order, and which range of it. Turns before `turn` are over.
    expected: HashMap<u64, VecDeque<(u64, Range<usize>)>>,
    /// How many ranges `expected` holds.
    told: usize,
    turn: u64,
    /// Values that were dropped, the lightest first. Their memory is used again.
    dropped: Vec<T>,
}

/// Where the limit is passed, a sixteenth of it is made free at once, because to look at all values takes time.
const ROOM: usize = 16;
/// Dropped values are kept for their memory: up to an eighth of the limit, beside the limit, and up to 64 values.
const DROPPED_SHARE: usize = 8;
const MAX_DROPPED: usize = 64;
/// The most ranges that are remembered as wanted. One turn may want a great many tiny values; further ones are ignored.
const MAX_TOLD: usize = 1 << 18;

enum Slot<T> {
    /// A thread makes the value.
    Busy,
    Ready(Kept<T>),
}

/// What is done with a value when room is needed. Values of the last rank go first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It is wanted, and only what is wanted is left of it: it goes where nothing else can go.
    Wanted,
    /// It is wanted: the parts of it that nobody wants go.
    Reducible,
    /// Nobody wants it: it goes.
    Unwanted,
}

struct Kept<T> {
    value: Arc<T>,
    /// The cache's clock when it was used last.
    used: u64,
    /// Where it was reduced to what was wanted of it: the turn that wanted it next at that time.
    reduced: Option<u64>,
}

impl<T: Value> Cache<T> {
    /// Makes a cache for values that weigh `limit` bytes together.
    pub fn new(limit: usize) -> Cache<T> {
        let state = State {
            slots: HashMap::new(),
            weight: 0,
            limit,
            clock: 0,
            expected: HashMap::new(),
            told: 0,
            turn: 0,
            dropped: Vec::new(),
        };
        Cache { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Announces that `turn` will want these ranges of these keys. Turns are announced in order. An announcement decides
    /// only what is kept, so it may be incomplete.
    pub fn expect(&self, turn: u64, wanted: impl IntoIterator<Item = (u64, Range<usize>)>) {
        let mut state = self.lock();
        let room = MAX_TOLD - state.told;
        for (key, range) in wanted.into_iter().take(room) {
            state.expected.entry(key).or_default().push_back((turn, range));
            state.told += 1;
        }
    }

    /// Tells that `turn` and those before it are over.
    pub fn passed(&self, turn: u64) {
        let mut state = self.lock();
        state.turn = turn + 1;
        // Every now and then, announcements of turns that are over are removed.
        if turn.is_multiple_of(64) {
            state.expected.retain(|_, turns| {
                turns.drain(..turns.partition_point(|(past, _)| *past <= turn));
                !turns.is_empty()
            });
            state.told = state.expected.values().map(VecDeque::len).sum();
        }
    }

    /// Whether `key` is not kept and was announced for a single use: then it is not worth a place in the cache.
    pub fn passes_by(&self, key: u64) -> bool {
        let state = self.lock();
        !state.slots.contains_key(&key) && state.wanted(key).take(2).count() == 1
    }

    /// Returns the value of `key`, which holds `range`. Where it is not kept, `load` makes it.
    ///
    /// `load` gets two arguments: what is kept of the value, or else a dropped value whose memory can be used; and the end
    /// of what is known to be wanted of it.
    ///
    /// # Errors
    /// Those of `load`. They are not kept: the next call tries again.
    pub fn get<E>(
        &self,
        key: u64,
        range: Range<usize>,
        load: impl FnOnce(Option<T>, usize) -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut state = self.lock();
        let mut had = None;
        loop {
            state.clock += 1;
            let now = state.clock;
            match state.slots.get_mut(&key) {
                Some(Slot::Ready(kept)) if kept.value.holds(&range) => {
                    kept.used = now;
                    return Ok(Arc::clone(&kept.value));
                }
                Some(Slot::Ready(_)) => {
                    match state.take(key) {
                        Some(value) if value.grows() => had = Some(value),
                        value => value.into_iter().for_each(|value| state.reuse(value)),
                    }
                    break;
                }
                Some(Slot::Busy) => {
                    state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        state.slots.insert(key, Slot::Busy);
        let had = had.or_else(|| state.dropped.pop());
        let end = state.wanted(key).map(|(_, wanted)| wanted.end).fold(range.end, usize::max);
        drop(state);

        // Removes the mark again whatever happens in `load`, so that no thread waits for ever.
        let busy = Busy { cache: self, key };
        let value = Arc::new(load(had, end)?);
        let mut state = self.lock();
        state.weight += value.weight();
        let used = state.clock;
        state.slots.insert(key, Slot::Ready(Kept { value: Arc::clone(&value), used, reduced: None }));
        state.evict();
        drop(state);
        drop(busy);
        Ok(value)
    }

    /// Returns the value of `key` if it is kept and holds `range`.
    pub fn peek(&self, key: u64, range: &Range<usize>) -> Option<Arc<T>> {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        match state.slots.get_mut(&key)? {
            Slot::Ready(kept) if kept.value.holds(range) => {
                kept.used = now;
                Some(Arc::clone(&kept.value))
            }
            _ => None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a key as being made. Dropping it wakes whoever waits for the key.
struct Busy<'a, T: Value> {
    cache: &'a Cache<T>,
    key: u64,
}

impl<T: Value> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if matches!(state.slots.get(&self.key), Some(Slot::Busy)) {
            state.slots.remove(&self.key);
        }
        self.cache.ready.notify_all();
    }
}

impl<T: Value> State<T> {
    /// Makes room where the limit is passed.
    fn evict(&mut self) {
        let enough = self.limit - self.limit / ROOM;
        while self.weight > self.limit {
            let mut worst: Vec<_> =
                self.slots.iter().filter_map(|(&key, slot)| self.rank(key, slot)).collect();
            if worst.is_empty() {
                return;
            }
            worst.sort_unstable_by(|a, b| b.cmp(a));
            let reducible = worst.iter().any(|(rank, ..)| *rank == Rank::Reducible);
            for (rank, _, _, key) in worst {
                match rank {
                    _ if self.weight <= enough => break,
                    Rank::Unwanted => self.remove(key),
                    Rank::Reducible => self.reduce(key),
                    // What the reduced values weigh is known only now: all are ranked again first.
                    Rank::Wanted if reducible => break,
                    Rank::Wanted => self.remove(key),
                }
            }
        }
    }

    /// Ranks a value; the highest goes first. After the rank count the room that it takes times the turns until it is
    /// wanted, then the time since its last use. The last number is its key.
    fn rank(&self, key: u64, slot: &Slot<T>) -> Option<(Rank, u64, u64, u64)> {
        let Slot::Ready(kept) = slot else { return None };
        let next = self.next(key);
        let wait = next.map_or(0, |turn| turn.saturating_sub(self.turn) + 1);
        let rank = match next {
            None => Rank::Unwanted,
            Some(_) if kept.reduced != next => Rank::Reducible,
            Some(_) => Rank::Wanted,
        };
        Some((rank, wait.saturating_mul(kept.value.weight() as u64), u64::MAX - kept.used, key))
    }

    /// Lists what turns that are not over want of a key.
    fn wanted(&self, key: u64) -> impl Iterator<Item = &(u64, Range<usize>)> {
        let turns = self.expected.get(&key);
        turns.into_iter().flat_map(|t| t.range(t.partition_point(|(turn, _)| *turn < self.turn)..))
    }

    /// The next turn that wants a key.
    fn next(&self, key: u64) -> Option<u64> {
        self.wanted(key).next().map(|(turn, _)| *turn)
    }

    /// Reduces a value to what is wanted of it.
    fn reduce(&mut self, key: u64) {
        let mut ranges: Vec<_> = self.wanted(key).map(|(_, range)| range.clone()).collect();
        ranges.sort_by_key(|range| range.start);
        let next = self.next(key);
        let Some(Slot::Ready(kept)) = self.slots.get_mut(&key) else { return };
        kept.reduced = next;
        if let Some(less) = kept.value.only(&ranges) {
            self.weight = self.weight - kept.value.weight() + less.weight();
            let whole = std::mem::replace(&mut kept.value, Arc::new(less));
            if let Some(whole) = Arc::into_inner(whole) {
                self.reuse(whole);
            }
        }
    }

    /// Drops a value.
    fn remove(&mut self, key: u64) {
        if let Some(value) = self.take(key) {
            self.reuse(value);
        }
    }

    /// Removes a value; it is returned if no thread still reads it.
    fn take(&mut self, key: u64) -> Option<T> {
        let Some(Slot::Ready(kept)) = self.slots.remove(&key) else { return None };
        self.weight -= kept.value.weight();
        Arc::into_inner(kept.value)
    }

    /// Keeps a dropped value for its memory, if it is among the heaviest few. These are more than [`State::evict`] drops at
    /// once, so that hardly any memory has to be got from the system.
    fn reuse(&mut self, value: T) {
        let at = self.dropped.partition_point(|other| other.weight() < value.weight());
        self.dropped.insert(at, value);
        let mut kept: usize = self.dropped.iter().map(T::weight).sum();
        let mut count = self.dropped.len();
        self.dropped.retain(|other| {
            let keep = kept <= self.limit / DROPPED_SHARE && count <= MAX_DROPPED;
            kept -= if keep { 0 } else { other.weight() };
            count -= usize::from(!keep);
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    impl Value for &'static str {
        fn weight(&self) -> usize {
            1
        }
    }

    impl Value for u64 {
        fn weight(&self) -> usize {
            1
        }
    }

    /// Five digits, or what is left of them.
    #[derive(Clone, Debug, PartialEq)]
    struct Digits(Vec<usize>);

    impl Digits {
        fn all() -> Digits {
            Digits((0..5).collect())
        }
    }

    impl Value for Digits {
        fn weight(&self) -> usize {
            self.0.len()
        }
        fn holds(&self, range: &Range<usize>) -> bool {
            range.clone().all(|n| self.0.contains(&n))
        }
        fn only(&self, ranges: &[Range<usize>]) -> Option<Self> {
            let digits: Vec<usize> = ranges.iter().flat_map(Range::clone).collect();
            (digits.len() < 4).then_some(Digits(digits))
        }
    }

    #[test]
    fn keeps_what_was_used_last() {
        let cache = Cache::new(2);
        let loads = AtomicUsize::new(0);
        let get = |key| {
            let load = |_, _| -> Result<_, ()> {
                loads.fetch_add(1, Ordering::Relaxed);
                Ok(key * 10)
            };
            *cache.get(key, 0..1, load).unwrap()
        };
        assert_eq!([1, 2, 1, 3, 1].map(get), [10, 20, 10, 30, 10]);
        assert_eq!(loads.load(Ordering::Relaxed), 3);
        // A look is a use, and loads nothing.
        assert_eq!(
            (cache.peek(1, &(0..1)).as_deref(), cache.peek(3, &(0..1)).as_deref()),
            (Some(&10), Some(&30))
        );
        assert!(cache.peek(2, &(0..1)).is_none());
        cache.peek(1, &(0..1));
        get(2);
        assert_eq!(loads.load(Ordering::Relaxed), 4);
        assert!(cache.peek(3, &(0..1)).is_none());
    }

    /// Loads that a plan of keys and ranges needs.
    fn loads(limit: usize, plan: &[(u64, Range<usize>)]) -> usize {
        let cache = Cache::new(limit);
        let mut loads = 0;
        for (turn, wanted) in plan.iter().enumerate() {
            cache.expect(turn as u64, [wanted.clone()]);
        }
        for (turn, (key, range)) in plan.iter().enumerate() {
            let load = |_, _| -> Result<_, ()> {
                loads += 1;
                Ok(Digits::all())
            };
            assert!(cache.get(*key, range.clone(), load).unwrap().holds(range));
            cache.passed(turn as u64);
            assert!(cache.lock().weight <= limit);
        }
        loads
    }

    #[test]
    fn keeps_what_will_be_wanted_first() {
        // 1, 2, then 3 in place of 2 (wanted after 1), 2 in place of 3, 4 in place of 2. By use it would be 7.
        assert_eq!(loads(10, &[1, 2, 3, 1, 3, 2, 4, 1].map(|key| (key, 0..5))), 5);
    }

    #[test]
    fn keeps_no_more_of_a_value_than_will_be_wanted() {
        let plan = [(1, 0..5), (2, 0..2), (3, 2..5), (4, 3..5), (1, 1..3), (2, 0..1), (3, 0..1), (4, 4..5)];
        assert_eq!(loads(12, &plan), 4);
        // Wanted nearly whole, it stays as it is; there is room for one of them.
        assert_eq!(loads(8, &[(1, 0..5), (2, 0..4), (1, 0..4), (2, 0..4)]), 4);
    }

    #[test]
    fn what_was_not_told_is_loaded_again() {
        let cache = Cache::new(6);
        let whole = |_, _| Ok::<_, ()>(Digits::all());
        cache.expect(5, [(1, 2..4), (2, 0..1)]);
        cache.get(1, 0..5, whole).unwrap();
        cache.get(2, 0..5, whole).unwrap();
        assert_eq!(*cache.get(1, 2..3, |_, _| Err(())).unwrap(), Digits(vec![2, 3]));
        assert_eq!(cache.get(1, 2..5, |_, _| Err("loaded")), Err("loaded"));
        assert_eq!(*cache.get(1, 2..5, whole).unwrap(), Digits::all());
    }

    #[test]
    fn one_thread_loads_and_errors_are_not_kept() {
        let cache = Cache::new(10);
        let loads = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    cache.get(5, 0..1, |_, _| -> Result<_, ()> {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok("five")
                    })
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        assert_eq!(cache.get(6, 0..1, |_, _| Err("no")), Err("no"));
        assert_eq!(*cache.get(6, 0..1, |_, _| Ok::<_, ()>("six")).unwrap(), "six");
    }
}
