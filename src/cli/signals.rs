//! Removes unfinished files where a signal ends the program.

use std::{fs, thread};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::vma::Made;

/// Makes the signals that end the program first remove the unfinished files. A signal that is ignored (nohup) stays
/// ignored.
///
/// # Errors
/// Fails where the system cannot start a thread.
pub(crate) fn remove_on_signals(made: &Made) -> anyhow::Result<()> {
    // Without unsafe code, only this file tells which signals are ignored: it has one bit for each.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let mut signals = Signals::new(wanted).context("cannot wait for signals")?;
    let made = made.clone();
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let _nothing_more = made.remove();
                let _ = emulate_default_handler(signal);
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}
