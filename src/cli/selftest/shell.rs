//! Runs the programs of Proxmox VE for the self-test.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::cli::say::{self, println_quietly};
use crate::host::Program;
use crate::host::hint::quoted;

/// The longest backup or restore of a guest.
const LIMIT: Duration = Duration::from_secs(86_400);

/// How much of the output is kept, in bytes. The log of a backup or restore has a line for each percent or second.
const KEPT: usize = 64 << 20;

/// Lines of a failed program's output that are shown.
const TAIL: usize = 20;

/// Runs programs, shows them, keeps their output.
pub(super) struct Shell {
    interrupted: Arc<AtomicBool>,
}

impl Shell {
    /// `interrupted` is set by a signal; no new program is started then.
    pub(super) fn new(interrupted: Arc<AtomicBool>) -> Self {
        Shell { interrupted }
    }

    /// Whether a signal asked to stop.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Runs a program that must succeed, and gives its output. It runs none once a signal came.
    pub(super) fn run(&self, words: &[OsString]) -> anyhow::Result<String> {
        if self.interrupted() {
            bail!("interrupted");
        }
        self.run_always(words)
    }

    /// Runs a program in the same way, but also after a signal. That is for cleaning up.
    pub(super) fn run_always(&self, words: &[OsString]) -> anyhow::Result<String> {
        let (status, output) = self.status(words)?;
        if status == Some(0) {
            return Ok(output);
        }
        let lines: Vec<_> = output.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            say::text(format_args!("    {line}\n"));
        }
        let how = status.map_or("was killed".to_owned(), |code| format!("failed with exit code {code}"));
        let last = lines.iter().rfind(|line| !line.trim().is_empty()).unwrap_or(&"without a word");
        bail!("{} {how}: {}", words[0].display(), last.trim())
    }

    /// Runs a program; gives its exit code (none if it was killed) and what it printed.
    pub(super) fn status(&self, words: &[OsString]) -> anyhow::Result<(Option<i32>, String)> {
        println_quietly(&format!("$ {}", show(words)));
        let program = Program::new(&words[0], &words[1..]).env("LC_ALL", "C").limit(LIMIT).keep(KEPT);
        let ran = program.run().with_context(|| format!("cannot run {}", words[0].display()))?;
        ensure!(ran.whole, "{} says more than is read", words[0].display());
        Ok((ran.status.code(), ran.out() + &ran.err()))
    }
}

/// A command as one would type it.
pub(super) fn show(words: &[OsString]) -> String {
    words.iter().map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A command as one would type it, in which `*` stands for a part of a name that only vzdump knows.
pub(super) fn show_pattern(words: &[OsString]) -> String {
    let part = |part: &str| if part.is_empty() { String::new() } else { quoted(part) };
    let word = |word: &OsString| word.to_string_lossy().split('*').map(part).collect::<Vec<_>>().join("*");
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::selftest::guest::words;

    fn shell() -> Shell {
        Shell::new(Arc::default())
    }

    #[test]
    fn output_is_kept_and_failures_say_what_the_program_said_last() {
        assert_eq!(shell().run(&words(["echo", "a b"])).unwrap(), "a b\n");
        let error =
            shell().run(&words(["sh", "-c", "echo starting; echo no space left >&2; exit 7"])).unwrap_err();
        assert_eq!(error.to_string(), "sh failed with exit code 7: no space left");
        let error = shell().run(&words(["sh", "-c", "kill -9 $$"])).unwrap_err();
        assert_eq!(error.to_string(), "sh was killed: without a word");
        let error = shell().run(&words(["no-such-program"])).unwrap_err();
        assert_eq!(error.to_string(), "cannot run no-such-program");
    }

    #[test]
    fn after_a_signal_only_cleaning_up_runs() {
        let shell = shell();
        shell.interrupted.store(true, Ordering::Relaxed);
        assert_eq!(shell.run(&words(["true"])).unwrap_err().to_string(), "interrupted");
        assert!(shell.run_always(&words(["true"])).is_ok());
    }

    #[test]
    fn commands_are_shown_so_that_they_can_be_typed() {
        assert_eq!(
            show(&words(["qm", "set", "100", "--description", "it's\nso"])),
            "qm set 100 --description 'it'\\''s\nso'"
        );
        assert_eq!(show(&words(["x", ""])), "x ''");
    }
}
