//! gzip output.

use std::io::{self, Write};
use std::mem::ManuallyDrop;

/// Compresses to gzip.
pub struct Writer<W: Write> {
    // Never dropped: dropping would write the end mark.
    inner: ManuallyDrop<flate2::write::GzEncoder<W>>,
}

impl<W: Write> Writer<W> {
    /// Compresses into `sink` at a level from 1 to 9.
    pub fn new(sink: W, level: u32) -> Self {
        Writer {
            inner: ManuallyDrop::new(flate2::write::GzEncoder::new(sink, flate2::Compression::new(level))),
        }
    }

    /// Writes the end mark.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(self) -> io::Result<W> {
        ManuallyDrop::into_inner(self.inner).finish()
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
