//! Holds decoding back to the speed that is allowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Waits where decoding goes faster than is allowed. All jobs of a run share one.
pub(super) struct Throttle {
    /// The number of bytes that may be decoded in a second.
    limit: Option<u64>,
    begun: Instant,
    bytes: AtomicU64,
}

impl Throttle {
    pub fn new(kib: Option<u64>) -> Self {
        Throttle {
            limit: kib.map(|kib| kib.saturating_mul(1024)),
            begun: Instant::now(),
            bytes: AtomicU64::new(0),
        }
    }

    pub fn passed(&self, bytes: u64) {
        let Some(limit) = self.limit else { return };
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        std::thread::sleep(time_of(all, limit).saturating_sub(self.begun.elapsed()));
    }
}

/// Computes the shortest time in which so many bytes may be decoded.
fn time_of(bytes: u64, limit: u64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / limit as f64).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        assert_eq!(time_of(0, 1024), Duration::ZERO);
        assert_eq!(time_of(10 << 20, 4 << 20), Duration::from_millis(2500));
        assert!(time_of(u64::MAX, 1) > Duration::from_secs(1 << 60));
    }
}
