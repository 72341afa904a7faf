//! What was used last, shared by threads.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Keeps values up to a total weight. A value that several threads want at once is made by one of them, the
/// others wait for it.
///
/// Where the cache is told beforehand who will want what ([`Cache::expect`]), the value dropped is the one that
/// is wanted last, or not at all as far as is known; without that, the one least recently used.
pub struct Cache<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    slots: HashMap<u64, Slot<T>>,
    weight: usize,
    limit: usize,
    clock: u64,
    /// Turns that will want a key, in order. Those before `turn` are over.
    expected: HashMap<u64, VecDeque<u64>>,
    turn: u64,
    /// Was dropped; its memory can be used again.
    spare: Option<T>,
}

enum Slot<T> {
    Busy,
    Ready { value: Arc<T>, weight: usize, used: u64 },
}

impl<T> Cache<T> {
    /// A cache for values of `limit` weight in all.
    pub fn new(limit: usize) -> Cache<T> {
        let state = State {
            slots: HashMap::new(),
            weight: 0,
            limit,
            clock: 0,
            expected: HashMap::new(),
            turn: 0,
            spare: None,
        };
        Cache { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Changes the limit.
    pub fn allow(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// Tells that `keys` will be wanted in `turn`, which is later than all turns told before. What is wanted
    /// may be told in part: it decides what is kept, nothing else.
    pub fn expect(&self, turn: u64, keys: impl IntoIterator<Item = u64>) {
        let mut state = self.lock();
        for key in keys {
            let turns = state.expected.entry(key).or_default();
            if turns.back() != Some(&turn) {
                turns.push_back(turn);
            }
        }
    }

    /// Tells that `turn` and those before it are over.
    pub fn passed(&self, turn: u64) {
        let mut state = self.lock();
        state.turn = turn + 1;
        // Now and then, so that what was never dropped does not stay for ever.
        if turn.is_multiple_of(64) {
            state.expected.retain(|_, turns| turns.back().is_some_and(|&last| last > turn));
        }
    }

    /// The value of `key`; where it is not at hand, `load` makes it and tells its weight. It is given a value
    /// that is no longer needed, if there is one, for its memory.
    ///
    /// # Errors
    /// Those of `load`; they are not kept.
    pub fn get<E>(
        &self,
        key: u64,
        load: impl FnOnce(Option<T>) -> Result<(T, usize), E>,
    ) -> Result<Arc<T>, E> {
        let mut state = self.lock();
        loop {
            state.clock += 1;
            let now = state.clock;
            match state.slots.get_mut(&key) {
                Some(Slot::Ready { value, used, .. }) => {
                    *used = now;
                    return Ok(Arc::clone(value));
                }
                Some(Slot::Busy) => {
                    state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        state.slots.insert(key, Slot::Busy);
        let spare = state.spare.take();
        drop(state);

        // Takes the mark away again whatever happens in `load`, so that nobody waits for ever.
        let busy = Busy { cache: self, key };
        let (value, weight) = load(spare)?;
        let value = Arc::new(value);
        let mut state = self.lock();
        state.weight += weight;
        let used = state.clock;
        state.slots.insert(key, Slot::Ready { value: Arc::clone(&value), weight, used });
        state.evict();
        drop(state);
        drop(busy);
        Ok(value)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Busy<'a, T> {
    cache: &'a Cache<T>,
    key: u64,
}

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        if matches!(state.slots.get(&self.key), Some(Slot::Busy)) {
            state.slots.remove(&self.key);
        }
        self.cache.ready.notify_all();
    }
}

impl<T> State<T> {
    fn evict(&mut self) {
        while self.weight > self.limit {
            let State { slots, expected, turn, .. } = self;
            let next = |key: u64| {
                let turns = expected.get(&key);
                turns.and_then(|t| t.get(t.partition_point(|t| t < turn))).copied().unwrap_or(u64::MAX)
            };
            let worst = slots
                .iter()
                .filter_map(|(&key, slot)| match slot {
                    Slot::Ready { used, .. } => Some((next(key), u64::MAX - used, key)),
                    Slot::Busy => None,
                })
                .max();
            let Some((.., key)) = worst else { return };
            if let Some(Slot::Ready { value, weight, .. }) = self.slots.remove(&key) {
                self.weight -= weight;
                self.spare = Arc::into_inner(value).or(self.spare.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn keeps_what_was_used_last() {
        let cache = Cache::new(2);
        let loads = AtomicUsize::new(0);
        let get = |key| {
            let load = |_| -> Result<_, ()> {
                loads.fetch_add(1, Ordering::Relaxed);
                Ok((key * 10, 1))
            };
            *cache.get(key, load).unwrap()
        };
        assert_eq!([1, 2, 1, 3, 1].map(get), [10, 20, 10, 30, 10]);
        assert_eq!(loads.load(Ordering::Relaxed), 3);
        get(2);
        assert_eq!(loads.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn keeps_what_will_be_wanted_first() {
        let cache = Cache::new(2);
        let loads = AtomicUsize::new(0);
        let plan = [1, 2, 3, 1, 3, 2, 4, 1];
        for (turn, key) in plan.into_iter().enumerate() {
            cache.expect(turn as u64, [key]);
        }
        for (turn, key) in plan.into_iter().enumerate() {
            let load = |_| -> Result<_, ()> {
                loads.fetch_add(1, Ordering::Relaxed);
                Ok((key, 1))
            };
            assert_eq!(*cache.get(key, load).unwrap(), key);
            cache.passed(turn as u64);
        }
        // 1, 2, then 3 in place of 2 (wanted after 1), 2 in place of 3, 4 in place of 2. By use it would be 7.
        assert_eq!(loads.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn one_thread_loads_and_errors_are_not_kept() {
        let cache = Cache::new(10);
        let loads = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    cache.get(5, |_| -> Result<_, ()> {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok(("five", 1))
                    })
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        assert_eq!(cache.get(6, |_| Err("no")), Err("no"));
        assert_eq!(*cache.get(6, |_| Ok::<_, ()>(("six", 1))).unwrap(), "six");
    }
}
