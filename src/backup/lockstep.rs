//! Streams that are read at about the same position, each in a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that a stream may be ahead of the slowest.
const AHEAD: u64 = 24 << 20;

/// Knows where each of the streams is.
pub struct Lockstep {
    positions: Mutex<Vec<u64>>,
    moved: Condvar,
}

impl Lockstep {
    /// Makes this many streams, all at their beginning.
    pub fn streams(count: usize) -> Vec<Stream> {
        let all = Arc::new(Lockstep { positions: Mutex::new(vec![0; count]), moved: Condvar::new() });
        (0..count).map(|number| Stream { all: Arc::clone(&all), number }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the streams. It is waited for until this is dropped.
pub struct Stream {
    all: Arc<Lockstep>,
    number: usize,
}

impl Stream {
    /// Tells that the stream is at this position now, and waits where the others are far behind.
    pub fn reached(&self, position: u64) {
        let mut positions = self.all.lock();
        positions[self.number] = position;
        self.all.moved.notify_all();
        let is_ahead = |all: &mut Vec<u64>| all.iter().any(|it| it.saturating_add(AHEAD) < position);
        drop(self.all.moved.wait_while(positions, is_ahead));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.all.lock()[self.number] = u64::MAX;
        self.all.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn nobody_is_far_ahead_and_whoever_ends_is_not_waited_for() {
        let mut streams = Lockstep::streams(3);
        let all = Arc::clone(&streams[0].all);
        drop(streams.pop());
        thread::scope(|scope| {
            for (stream, length) in streams.into_iter().zip([5 * AHEAD, 2 * AHEAD]) {
                scope.spawn(move || {
                    for position in (0..length).step_by(1000) {
                        stream.reached(position);
                        let positions = stream.all.lock().clone();
                        let least = positions.iter().min().copied().unwrap_or_default();
                        assert!(position <= least.saturating_add(AHEAD), "{positions:?}");
                    }
                });
            }
        });
        assert_eq!(*all.lock(), [u64::MAX; 3]);
    }
}
