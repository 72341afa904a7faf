//! Signals that end the program: they remove unfinished files first, or end what waits for them.

use std::{fs, thread};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::vma::Made;

/// The signals that end the program, while it waits for them.
pub(crate) struct Ending(Signals);

impl Ending {
    /// Catches the signals from now on. A signal that is ignored (nohup) stays ignored.
    ///
    /// # Errors
    /// Fails where the system does not let it.
    pub fn new() -> anyhow::Result<Ending> {
        Ok(Ending(signals()?))
    }

    /// Waits for one of them.
    pub fn wait(mut self) {
        let _ = self.0.forever().next();
    }
}

fn signals() -> anyhow::Result<Signals> {
    // Without unsafe code, only this file tells which signals are ignored: it has one bit for each.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    Signals::new(wanted).context("cannot wait for signals")
}

/// Makes the signals that end the program first remove the unfinished files. A signal that is ignored (nohup) stays
/// ignored.
///
/// # Errors
/// Fails where the system cannot start a thread.
pub(crate) fn remove_on_signals(made: &Made) -> anyhow::Result<()> {
    let mut signals = signals()?;
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
