//! What the log of tasks tells of each guest's last backups.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::backup::names::Guest;
use crate::backup::tasklog::{self, Made, Run};
use crate::host::{Root, hint, tasks};
use crate::text::escaped;

/// The number of backups of a guest that are told, the last ones.
const KEPT: usize = 5;

/// The number of characters of a text of a log that are told.
const LENGTH: usize = 255;

/// A backup of a guest, in texts that are fit to be shown.
#[derive(Debug, Clone, Serialize)]
pub struct GuestRun {
    /// When it began, in the node's time, as the log has it.
    pub started: Option<String>,
    /// `differential`, `full`, or `stock` (by a job without the option).
    pub made: &'static str,
    /// Against which full it was made and why, or why it is a full one.
    pub reason: Option<String>,
    /// Whether the log warns of that.
    pub odd: bool,
    /// How much of the guest was read.
    pub read: Option<String>,
    /// Which part of that had changed.
    pub changed: Option<String>,
    /// How fast it was read.
    pub speed: Option<String>,
    /// How much is stored.
    pub stored: Option<String>,
    /// Which part of its full backup that is.
    pub share: Option<String>,
    /// How long it took.
    pub took: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The last backups of a guest, the newest first.
#[derive(Debug, Clone, Serialize)]
pub struct GuestRuns {
    /// The guest: `qemu/101`.
    pub guest: String,
    /// Its backups.
    pub runs: Vec<GuestRun>,
}

/// Reads the logs of the tasks that ended since `since`, in seconds since 1970. Returns what they tell of each guest, and what
/// they do not tell, in words.
pub(super) fn last(root: &Root, since: u64) -> (Vec<GuestRuns>, Vec<String>) {
    let mut guests: BTreeMap<Guest, Vec<GuestRun>> = BTreeMap::new();
    let mut unread = Vec::new();
    tasks::logs(root, since, |log| {
        if log.is_cut {
            unread.push(format!(
                "{} is too long to be read whole: what became of backups behind its byte {} is not told here",
                hint::file(&log.path),
                log.text.len()
            ));
        }
        for (guest, mut run) in tasklog::runs(&log.text).into_iter().rev() {
            if !run.has_end() {
                // How the one ended at which the log was cut is said behind that.
                if log.is_cut {
                    continue;
                }
                run.error = Some(format!("the log ends before the backup did ({})", log.status));
            }
            let runs = guests.entry(guest).or_default();
            if runs.len() < KEPT {
                runs.push(GuestRun::of(run));
            }
        }
        true
    });
    let guests = guests.into_iter().map(|(guest, runs)| GuestRuns { guest: guest.to_string(), runs });
    (guests.collect(), unread)
}

impl GuestRun {
    fn of(run: Run) -> GuestRun {
        let shown = |text: Option<String>| {
            text.map(|text| escaped(text.chars().take(LENGTH).collect::<String>().as_bytes()))
        };
        GuestRun {
            started: shown(run.started),
            made: match run.made {
                Some(Made::Differential) => "differential",
                Some(Made::Full) => "full",
                None => "stock",
            },
            reason: shown(run.reason),
            odd: run.is_odd,
            read: shown(run.read),
            changed: shown(run.changed),
            speed: shown(run.speed),
            stored: shown(run.stored),
            share: shown(run.share),
            took: shown(run.took),
            error: shown(run.error),
        }
    }

    /// What to do where this is a full backup that need not have been one; `None` where all is as it should be.
    fn why_full(&self) -> Option<&'static str> {
        let reason = self.reason.as_deref().filter(|_| self.made == "full")?;
        let is = |words: &str| reason.contains(words);
        match () {
            () if is("(largest-differential") => Some(
                "Much of this guest changes: full backups more often (a smaller Full Every), or another \
                 `largest-differential` in /etc/pve-diff-backup.conf",
            ),
            () if is("has no map") => Some(
                "The next ones are differentials. To make differentials against a full backup without a map: \
                 `base-without-map: use` in /etc/pve-diff-backup.conf",
            ),
            () if self.odd => Some("See what is said there; pve-verify-backups tells which backups are good"),
            () => None,
        }
    }
}

/// What is worth knowing of the last backups.
pub(super) fn notes(guests: &[GuestRuns]) -> Vec<String> {
    let mut notes = Vec::new();
    for GuestRuns { guest, runs } in guests {
        let Some(last) = runs.first() else { continue };
        if let Some(error) = &last.error {
            notes.push(format!(
                "Guest {guest}: the last backup failed: {error}. The task's log tells what came before"
            ));
        } else if let (Some(advice), Some(reason)) = (last.why_full(), &last.reason) {
            notes.push(format!("Guest {guest}: the last backup is a full one: {reason}. {advice}"));
        }
    }
    notes
}
