//! Streams of which parts can be passed over without being copied.

use std::io::{self, Read};

/// A stream of which parts can be passed over.
pub trait Skip: Read {
    /// Passes over `n` bytes. The result is fewer where the stream ends before.
    ///
    /// # Errors
    /// Those of reading.
    fn skip(&mut self, n: u64) -> io::Result<u64>;
}

impl<R: Skip + ?Sized> Skip for Box<R> {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        (**self).skip(n)
    }
}

impl<R: Skip + ?Sized> Skip for &mut R {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        (**self).skip(n)
    }
}

impl Skip for &[u8] {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let at = self.len().min(usize::try_from(n).unwrap_or(usize::MAX));
        *self = &self[at..];
        Ok(at as u64)
    }
}

/// Makes any stream one of which parts can be passed over: by reading them.
pub struct ByReading<R> {
    inner: R,
    buffer: Vec<u8>,
}

impl<R> ByReading<R> {
    /// Wraps a stream.
    pub fn new(inner: R) -> Self {
        ByReading { inner, buffer: Vec::new() }
    }
}

impl<R: Read> Read for ByReading<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf)
    }
}

impl<R: Read> Skip for ByReading<R> {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        self.buffer.resize(64 << 10, 0);
        let mut left = n;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.inner.read(&mut self.buffer[..most]) {
                Ok(0) => break,
                Ok(got) => left -= got as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(n - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_is_gone() {
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let mut stream = ByReading::new(&bytes[..]);
        let mut two = [0; 2];
        assert_eq!(stream.skip(150_001).unwrap(), 150_001);
        stream.read_exact(&mut two).unwrap();
        assert_eq!(two, [bytes[150_001], bytes[150_002]]);
        assert_eq!(stream.skip(u64::MAX).unwrap(), 200_000 - 150_003);
        assert_eq!(stream.skip(1).unwrap(), 0);
    }
}
