//! Sums up streams, to compare them.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use twox_hash::XxHash3_128;

/// Is called with the number of bytes whenever some were read.
pub type Passed = Arc<dyn Fn(u64) + Send + Sync>;

/// Length and hash of a stream that passes by.
#[derive(Clone, Default)]
pub(in crate::backup) struct Sum(Arc<Mutex<(u64, XxHash3_128)>>);

impl Sum {
    /// The stream, whose bytes are summed up and counted.
    pub fn of(&self, inner: Box<dyn Read + Send>, passed: &Passed) -> Summed {
        Summed { inner, sum: self.clone(), passed: Arc::clone(passed) }
    }

    /// The length and the hash of what has passed by.
    pub fn get(&self) -> (u64, u128) {
        let sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (sum.0, sum.1.finish_128())
    }
}

/// A stream that is summed up.
pub(in crate::backup) struct Summed {
    inner: Box<dyn Read + Send>,
    sum: Sum,
    passed: Passed,
}

impl Read for Summed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        let mut sum = self.sum.0.lock().unwrap_or_else(PoisonError::into_inner);
        sum.0 += n as u64;
        sum.1.write(&buf[..n]);
        drop(sum);
        (self.passed)(n as u64);
        Ok(n)
    }
}
