//! Writing a stream as zstd (RFC 8878), with one thread as long as that is fast enough.
//!
//! Each thread of zstd takes a part of the stream, and hardly sees what is before it. So the result of several threads is up
//! to half a per cent larger, and takes several times the memory. Most differentials are small, so further threads can wait
//! until there is much to do. They then begin a new frame; readers take several frames for one file.

use std::io::{self, Write};

use zstd::stream::write::Encoder as Frame;
use zstd::zstd_safe::CParameter;

use super::Encoder;

/// The window with one thread, as a power of 2. What a differential holds repeats itself, but often much later: tables of a
/// disk's files, for instance.
const WINDOW_LOG: u32 = 24;
/// The window with several threads, and how many bytes each compresses at a time. zstd keeps some of both for each thread.
const THREADS_WINDOW_LOG: u32 = 21;
const JOB: u32 = 2 << 20;
const MAX_THREADS: usize = 3;

/// Compresses what is written to it as zstd.
pub struct Writer<W: Write> {
    /// The current frame. It is `None` only where one frame failed to end and no next one began.
    frame: Option<Frame<'static, W>>,
    level: i32,
    /// How many bytes remain until several threads are used, and how many threads these are.
    later: Option<(u64, usize)>,
}

impl<W: Write> Writer<W> {
    /// Writes to `out` with up to `threads` threads. A single thread compresses the first `alone` bytes. Behind these the output
    /// looks complete for a moment, so this is for streams that have an end mark of their own.
    ///
    /// # Errors
    /// Fails where the compressor cannot be set up.
    pub fn new(out: W, level: i32, threads: usize, alone: u64) -> io::Result<Self> {
        let threads = threads.min(MAX_THREADS);
        let later = (threads > 1 && alone > 0).then_some((alone, threads));
        let first = if later.is_some() { 1 } else { threads };
        Ok(Writer { frame: Some(frame(out, level, first)?), level, later })
    }

    fn frame(&mut self) -> io::Result<&mut Frame<'static, W>> {
        self.frame.as_mut().ok_or_else(|| io::Error::other("the output could not be written earlier"))
    }
}

fn frame<W: Write>(out: W, level: i32, threads: usize) -> io::Result<Frame<'static, W>> {
    let mut frame = Frame::new(out, level)?;
    frame.include_checksum(true)?;
    frame.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    if level == 1 {
        // The default of 14 is meant for small windows. The 256 KiB that this takes still fit into small caches. With 17,
        // large differentials would be smaller by 0.6 %, but take a tenth longer where the table does not fit.
        frame.set_parameter(CParameter::HashLog(16))?;
    }
    if threads > 1 {
        frame.set_parameter(CParameter::WindowLog(THREADS_WINDOW_LOG))?;
        frame.set_parameter(CParameter::JobSize(JOB))?;
        frame.multithread(threads as u32)?;
    }
    Ok(frame)
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let Some((0, threads)) = self.later
            && let Some(done) = self.frame.take()
        {
            self.later = None;
            self.frame = Some(frame(done.finish()?, self.level, threads)?);
        }
        let n = self.frame()?.write(buf)?;
        if let Some((alone, _)) = &mut self.later {
            *alone = alone.saturating_sub(n as u64);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.frame()?.flush()
    }
}

impl<W: Write + Send> Encoder for Writer<W> {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.frame()?;
        self.frame.take().map_or(Ok(()), |frame| frame.finish()?.flush())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn threads_come_in_with_a_frame_of_their_own() {
        let content: Vec<u8> = (0..2_000_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        for (threads, alone, frames) in [(1, 1 << 20, 1), (2, 0, 1), (2, 1 << 20, 2), (3, 1 << 30, 1)] {
            let out = Shared::default();
            let mut writer = Box::new(Writer::new(out.clone(), 1, threads, alone).unwrap());
            content.chunks(300_000).for_each(|part| writer.write_all(part).unwrap());
            writer.finish().unwrap();
            let file = out.0.lock().unwrap();
            assert!(zstd::decode_all(&file[..]).unwrap() == content);
            let first = zstd::zstd_safe::find_frame_compressed_size(&file).unwrap();
            assert_eq!(if first < file.len() { 2 } else { 1 }, frames, "{threads} threads, {alone} alone");
        }
    }

    #[test]
    fn what_was_not_finished_is_cut() {
        let out = Shared::default();
        let mut writer = Writer::new(out.clone(), 1, 2, 100).unwrap();
        writer.write_all(&[7; 1000]).unwrap();
        writer.write_all(&[8; 1000]).unwrap();
        writer.flush().unwrap();
        drop(writer);
        assert!(zstd::decode_all(&out.0.lock().unwrap()[..]).is_err());
    }
}
