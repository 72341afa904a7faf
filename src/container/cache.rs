//! What was used last, or will be wanted next, shared by threads.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Something worth keeping.
pub trait Value: Sized {
    /// Its share of the cache's limit.
    fn weight(&self) -> usize;

    /// Whether it still holds this range of its content.
    fn holds(&self, range: &Range<usize>) -> bool {
        let _ = range;
        true
    }

    /// Whether it can be made to hold more.
    fn grows(&self) -> bool {
        false
    }

    /// No more of it than these ranges (sorted), in other memory; `None` where that saves too little.
    fn only(&self, ranges: &[Range<usize>]) -> Option<Self> {
        let _ = ranges;
        None
    }
}

/// Keeps values up to a total weight. A value that several threads want at once is made by one of them, the
/// others wait for it.
///
/// Where the cache is told beforehand who will want what ([`Cache::expect`]), it drops what nobody will want, then
/// of each value what nobody will want of it, then what takes up the most room for the longest time. Without that,
/// the least recently used.
pub struct Cache<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    slots: HashMap<u64, Slot<T>>,
    weight: usize,
    limit: usize,
    clock: u64,
    /// Turns that will want a key, in order, and what of it. Those before `turn` are over.
    expected: HashMap<u64, VecDeque<(u64, Range<usize>)>>,
    /// How many these are.
    told: usize,
    turn: u64,
    /// Were dropped, the lightest first; their memory can be used again.
    spare: Vec<T>,
}

/// Part of the limit that is made free at once where it is passed, for looking at all values takes time.
const ROOM: usize = 16;
/// Part of the limit that memory kept for use again may have, beside it, and how many values.
const SPARE: usize = 8;
const SPARES: usize = 64;
/// What is remembered of what will be wanted; more is not taken in. One turn may want a great many tiny values.
const MAX_TOLD: usize = 1 << 18;

enum Slot<T> {
    Busy,
    Ready(Kept<T>),
}

/// What is to be done with a value when there is no room; the last first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It goes where nothing else is left.
    Wanted,
    /// What nobody wants of it goes.
    Reducible,
    /// It goes.
    Unwanted,
}

struct Kept<T> {
    value: Arc<T>,
    used: u64,
    /// The turn that wanted it next when it was reduced to what was wanted of it.
    reduced: Option<u64>,
}

impl<T: Value> Cache<T> {
    /// A cache for values of `limit` weight in all.
    pub fn new(limit: usize) -> Cache<T> {
        let state = State {
            slots: HashMap::new(),
            weight: 0,
            limit,
            clock: 0,
            expected: HashMap::new(),
            told: 0,
            turn: 0,
            spare: Vec::new(),
        };
        Cache { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Changes the limit.
    pub fn allow(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// Tells that `turn`, which is not before any turn told, will want this range of `key`. What is wanted may be
    /// told in part: it decides what is kept, nothing else.
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
        // Now and then, so that what was never dropped does not stay for ever.
        if turn.is_multiple_of(64) {
            state.expected.retain(|_, turns| {
                turns.drain(..turns.partition_point(|(past, _)| *past <= turn));
                !turns.is_empty()
            });
            state.told = state.expected.values().map(VecDeque::len).sum();
        }
    }

    /// Whether `key` is not at hand and will be wanted once, as far as is told: not worth a place.
    pub fn passes_by(&self, key: u64) -> bool {
        let state = self.lock();
        !state.slots.contains_key(&key) && state.wanted(key).take(2).count() == 1
    }

    /// The value of `key`, which holds `range`; where it is not at hand, `load` makes it. It is given what there is of
    /// the value, or one that is no longer needed, for its memory, and where what is known to be wanted of it ends.
    ///
    /// # Errors
    /// Those of `load`; they are not kept.
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
        let had = had.or_else(|| state.spare.pop());
        let end = state.wanted(key).map(|(_, wanted)| wanted.end).fold(range.end, usize::max);
        drop(state);

        // Takes the mark away again whatever happens in `load`, so that nobody waits for ever.
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

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
                    // It is not known yet what the others weigh.
                    Rank::Wanted if reducible => break,
                    Rank::Wanted => self.remove(key),
                }
            }
        }
    }

    /// How little a value is worth its place: what to do with it, what it takes up for how long, how long it was not
    /// used, and its key.
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

    /// What is still wanted of a key.
    fn wanted(&self, key: u64) -> impl Iterator<Item = &(u64, Range<usize>)> {
        let turns = self.expected.get(&key);
        turns.into_iter().flat_map(|t| t.range(t.partition_point(|(turn, _)| *turn < self.turn)..))
    }

    /// The next turn that wants it.
    fn next(&self, key: u64) -> Option<u64> {
        self.wanted(key).next().map(|(turn, _)| *turn)
    }

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

    fn remove(&mut self, key: u64) {
        if let Some(value) = self.take(key) {
            self.reuse(value);
        }
    }

    /// Takes a value out, if nobody reads it still.
    fn take(&mut self, key: u64) -> Option<T> {
        let Some(Slot::Ready(kept)) = self.slots.remove(&key) else { return None };
        self.weight -= kept.value.weight();
        Arc::into_inner(kept.value)
    }

    /// Keeps the memory of a few values, the heaviest: more than [`State::evict`] makes room for at once, so that hardly
    /// any is got from the system anew.
    fn reuse(&mut self, value: T) {
        let at = self.spare.partition_point(|spare| spare.weight() < value.weight());
        self.spare.insert(at, value);
        let mut kept: usize = self.spare.iter().map(T::weight).sum();
        let mut count = self.spare.len();
        self.spare.retain(|spare| {
            let keep = kept <= self.limit / SPARE && count <= SPARES;
            kept -= if keep { 0 } else { spare.weight() };
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
        get(2);
        assert_eq!(loads.load(Ordering::Relaxed), 4);
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
