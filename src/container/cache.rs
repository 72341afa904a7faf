//! What was used last, shared by threads.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Keeps values up to a total weight and drops the least recently used ones. A value that several
/// threads want at once is made by one of them, the others wait for it.
pub struct Cache<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    limit: usize,
}

struct State<T> {
    slots: HashMap<u64, Slot<T>>,
    weight: usize,
    clock: u64,
}

enum Slot<T> {
    Busy,
    Ready { value: Arc<T>, weight: usize, used: u64 },
}

impl<T> Cache<T> {
    /// A cache for values of `limit` weight in all.
    pub fn new(limit: usize) -> Cache<T> {
        let state = State { slots: HashMap::new(), weight: 0, clock: 0 };
        Cache { state: Mutex::new(state), ready: Condvar::new(), limit }
    }

    /// The value of `key`; where it is not at hand, `load` makes it and tells its weight.
    ///
    /// # Errors
    /// Those of `load`; they are not kept.
    pub fn get<E>(&self, key: u64, load: impl FnOnce() -> Result<(T, usize), E>) -> Result<Arc<T>, E> {
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
        drop(state);

        // Takes the mark away again whatever happens in `load`, so that nobody waits for ever.
        let busy = Busy { cache: self, key };
        let (value, weight) = load()?;
        let value = Arc::new(value);
        let mut state = self.lock();
        state.weight += weight;
        let used = state.clock;
        state.slots.insert(key, Slot::Ready { value: Arc::clone(&value), weight, used });
        state.evict(self.limit);
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
    fn evict(&mut self, limit: usize) {
        while self.weight > limit {
            let oldest = self
                .slots
                .iter()
                .filter_map(|(&key, slot)| match slot {
                    Slot::Ready { used, .. } => Some((*used, key)),
                    Slot::Busy => None,
                })
                .min();
            let Some((_, key)) = oldest else { return };
            if let Some(Slot::Ready { weight, .. }) = self.slots.remove(&key) {
                self.weight -= weight;
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
            let load = || -> Result<_, ()> {
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
    fn one_thread_loads_and_errors_are_not_kept() {
        let cache = Cache::new(10);
        let loads = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    cache.get(5, || -> Result<_, ()> {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok(("five", 1))
                    })
                });
            }
        });
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        assert_eq!(cache.get(6, || Err("no")), Err("no"));
        assert_eq!(*cache.get(6, || Ok::<_, ()>(("six", 1))).unwrap(), "six");
    }
}
