//! What a backup was made of, in numbers, for the module within vzdump that writes them into the task log.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::say::say;
use crate::matching::compose::ReadOf;
use crate::text::shown;

/// Counts what is read, and notes it in a file at the end, if one is wanted.
pub(super) struct Report {
    path: Option<PathBuf>,
    read: Arc<AtomicU64>,
    begun: Instant,
}

impl Report {
    pub fn new(path: Option<PathBuf>) -> Self {
        Report { path, read: Arc::default(), begun: Instant::now() }
    }

    /// The stream whose bytes are counted.
    pub fn counted<R>(&self, inner: R) -> Counted<R> {
        Counted { inner, read: Arc::clone(&self.read) }
    }

    /// Writes `read=BYTES seconds=S`, and `new=BYTES` of a differential: those that it holds. The backup is whole without
    /// it, so that an error is told and no more.
    pub fn write(&self, new: Option<u64>) {
        self.write_disks(new, &[]);
    }

    /// The same, and a line `read=BYTES size=BYTES NAME` for each disk of which not all was read.
    pub fn write_disks(&self, new: Option<u64>, disks: &[ReadOf]) {
        let Some(path) = &self.path else { return };
        let read = self.read.load(Ordering::Relaxed) + disks.iter().map(|disk| disk.read).sum::<u64>();
        let mut line = format!("read={read} seconds={:.3}", self.begun.elapsed().as_secs_f64());
        if let Some(new) = new {
            line += &format!(" new={new}");
        }
        for disk in disks {
            line += &format!("\nread={} size={} {}", disk.read, disk.size, shown(&disk.name));
        }
        // Never through a link that somebody else put there.
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        if let Err(error) = made.and_then(|mut file| writeln!(file, "{line}")) {
            say!("warning: cannot write {}: {error}", shown(path));
        }
    }
}

/// A stream whose bytes are counted.
pub(super) struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
