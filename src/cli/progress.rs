//! Shows progress on standard error where that is a terminal.

use std::fmt::Write;
use std::io::{self, IsTerminal, Read};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::backup::BackupName;

/// The number of columns that the numbers before a name take.
const NUMBERS: usize = 38;
/// The number of columns that a name gets at least.
const NAME: usize = 20;

/// A progress bar, which may be hidden.
#[derive(Clone)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Makes a bar for work of about `expected` bytes. If that number is not known, the bar shows how much was done.
    /// The bar is hidden if it is not `wanted`, or standard error is not a terminal.
    pub fn new(wanted: bool, expected: Option<u64>) -> Progress {
        if !wanted || !io::stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let (bar, template) = match expected {
            Some(bytes) => {
                (ProgressBar::new(bytes), "{prefix}{percent:>3} % {left}{decimal_bytes_per_sec} {msg}")
            }
            None => (ProgressBar::new_spinner(), "{prefix}{decimal_bytes} {decimal_bytes_per_sec} {msg}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("left", left));
        // The bar is shown at once, even if the work is short.
        bar.tick();
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }

    /// Shows the name of the present work, and its number and the number of all works.
    pub fn at(&self, name: &str, number: Option<(usize, usize)>) {
        if self.0.is_hidden() {
            return;
        }
        let width = usize::from(console::Term::stderr().size().1);
        self.0.set_message(shortened(name, width.saturating_sub(NUMBERS).max(NAME)));
        if let Some((number, of)) = number {
            self.0.set_prefix(format!("{number}/{of} "));
        }
    }

    /// Counts more bytes. What goes beyond the expected number is not counted, so that the bar never passes its end.
    pub fn add(&self, bytes: u64) {
        let left = self.0.length().map_or(bytes, |length| length.saturating_sub(self.0.position()));
        self.0.inc(bytes.min(left));
    }

    /// Sets the number of bytes that are done.
    pub fn reached(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Prints a text in place of the bar, which is drawn again below it.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes the bar off the terminal.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Writes the time that is left. Nothing is written before anything was done, and once more was done than was expected.
fn left(state: &ProgressState, text: &mut dyn Write) {
    let left = state.eta();
    if !left.is_zero() {
        let _ = write!(text, "{:#} left ", HumanDuration(left));
    }
}

/// A stream whose bytes are counted as they are read.
pub(crate) struct Watched<R> {
    /// The stream.
    pub inner: R,
    /// The bar that counts them.
    pub progress: Progress,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.progress.add(n as u64);
        Ok(n)
    }
}

/// Shortens a name to `width` columns. The guest and the date of a backup's name stay, of other names the beginning and
/// the end.
fn shortened(name: &str, width: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= width {
        return name.to_owned();
    }
    let parts = BackupName::parse(name.as_bytes()).map(|backup| match &backup {
        BackupName::Full(full) => (format!("{}-{}", full.kind(), full.vmid()), full.stamp().to_string()),
        BackupName::Differential(it) => {
            (format!("{}-{}", it.base().kind(), it.base().vmid()), it.stamp().to_string())
        }
    });
    let (front, back) = match &parts {
        Some((guest, stamp)) => (guest.chars().collect(), stamp.chars().collect()),
        None => (chars.clone(), chars[chars.len() - width * 2 / 3..].to_vec()),
    };
    let front = front.into_iter().take(width.saturating_sub(back.len() + 1));
    front.chain(['…']).chain(back).collect()
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn of_a_backup_the_guest_and_its_date_stay() {
        let full = "vzdump-qemu-100-2026_11_01-02_00_00.vma.zst";
        let differential = format!("{full}--differential-2026_11_05-02_00_00.vcdiff.zst");
        assert_eq!(shortened(full, 43), full);
        assert_eq!(shortened(full, 36), "qemu-100…2026_11_01-02_00_00");
        assert_eq!(shortened(&differential, 36), "qemu-100…2026_11_05-02_00_00");
        assert_eq!(shortened(&differential, 20), "…2026_11_05-02_00_00");
        assert_eq!(shortened("a-file-of-somebody-else-with-an-end.raw", 20), "a-file…th-an-end.raw");
        assert_eq!(shortened("ein-sehr-länglicher-Name.raw", 12).chars().count(), 12);
    }
}
