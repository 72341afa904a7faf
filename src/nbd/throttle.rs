//! Limits the number of bytes per second that all disks of a guest are read with.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets bytes through at a rate.
pub struct Throttle {
    /// Bytes per second.
    rate: u64,
    /// The time from which on the next byte may be read.
    free: Mutex<Instant>,
}

impl Throttle {
    /// Makes a throttle of this many bytes per second; 0 counts as 1.
    pub fn new(rate: u64) -> Throttle {
        Throttle { rate: rate.max(1), free: Mutex::new(Instant::now()) }
    }

    /// Waits until these bytes may be read. Time in which nobody reads does not allow a faster rate later.
    pub fn take(&self, bytes: u64) {
        let now = Instant::now();
        let begins = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let begins = (*free).max(now);
            *free = begins + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            begins
        };
        std::thread::sleep(begins.saturating_duration_since(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_goes_than_the_rate_lets() {
        let throttle = Throttle::new(1 << 20);
        let began = Instant::now();
        (0..4).for_each(|_| throttle.take(16 << 10));
        // The first went at once.
        assert!(began.elapsed() >= Duration::from_secs_f64(3.0 / 64.0));
    }
}
