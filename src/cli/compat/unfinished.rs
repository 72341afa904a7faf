//! An output that is being written: it goes when it cannot be completed, also where a signal ends the program.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// A regular file that is removed unless [`keep`](Unfinished::keep) is called. One that is named through a symbolic
/// link is removed itself, and the link stays.
pub struct Unfinished(Arc<Mutex<Option<PathBuf>>>);

impl Unfinished {
    /// For the file at `path`, which exists.
    pub fn new(path: &Path) -> io::Result<Unfinished> {
        // A file that was deleted meanwhile, known by /dev/fd, has no path, and need not be removed.
        let path = Arc::new(Mutex::new(std::fs::canonicalize(path).ok()));
        remove_on_signals(Arc::clone(&path))?;
        Ok(Unfinished(path))
    }

    /// Everything was written.
    pub fn keep(self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Mutex<Option<PathBuf>>) {
    if let Some(path) = path.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Best effort: the error that brought us here is reported, and is what matters.
        let _ = std::fs::remove_file(path);
    }
}

/// Has a thread wait for signals, remove the file, and end the program as the signal would have. Signals that whoever
/// started us had ignored (nohup) stay ignored.
fn remove_on_signals(path: Arc<Mutex<Option<PathBuf>>>) -> io::Result<()> {
    let ignored = ignored_signals();
    let (mut wait, wake) = UnixStream::pair()?;
    let which = Arc::new(AtomicUsize::new(0));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if ignored >> (signal - 1) & 1 == 0 {
            // In this order: whoever is woken finds out by which.
            flag::register_usize(signal, Arc::clone(&which), signal as usize)?;
            low_level::pipe::register(signal, wake.try_clone()?)?;
        }
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        // Without a byte there is nobody left who could send one.
        if wait.read_exact(&mut [0]).is_ok() {
            remove(&path);
            let _ = low_level::emulate_default_handler(which.load(Ordering::SeqCst) as i32);
        }
    })?;
    Ok(())
}

/// One bit for each signal that is ignored; the system tells it nowhere else without unsafe code.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
