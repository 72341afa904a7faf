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

/// The last backups of a guest, the newest first.
#[derive(Debug, Clone, Serialize)]
pub struct GuestRuns {
    /// The guest: `qemu/101`.
    pub guest: String,
    /// Its backups, in texts that are fit to be shown.
    pub runs: Vec<Run>,
}

/// Reads the logs of the tasks that ended since `since`, in seconds since 1970. Returns what they tell of each guest, and what
/// they do not tell, in words.
pub(super) fn last(root: &Root, since: u64) -> (Vec<GuestRuns>, Vec<String>) {
    let mut guests: BTreeMap<Guest, Vec<Run>> = BTreeMap::new();
    let mut unread = Vec::new();
    let older = tasks::logs(root, since, |log| {
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
                run.map_texts(|text| escaped(text.chars().take(LENGTH).collect::<String>().as_bytes()));
                runs.push(run);
            }
        }
        true
    });
    if older > 0 {
        unread.push(format!(
            "The logs of {older} older backup tasks were not read, as those of the newer ones have {} MiB: guests of which \
             only they tell are not told of here",
            tasks::MAX_LOGS >> 20
        ));
    }
    let guests = guests.into_iter().map(|(guest, runs)| GuestRuns { guest: guest.to_string(), runs });
    (guests.collect(), unread)
}

/// What to do where a backup is a full backup that need not have been one; `None` where all is as it should be.
fn why_full(run: &Run) -> Option<&'static str> {
    let reason = run.reason.as_deref().filter(|_| run.made == Some(Made::Full))?;
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
        () if run.is_odd => Some("See what is said there; pve-verify-backups tells which backups are good"),
        () => None,
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
        } else if let (Some(advice), Some(reason)) = (why_full(last), &last.reason) {
            notes.push(format!("Guest {guest}: the last backup is a full one: {reason}. {advice}"));
        }
    }
    notes
}
