//! Looks up what earlier runs found, and notes what this run finds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::finding::Finding;

use crate::backup::verified::{self, Outcome, Results, Subject};
use crate::cli::exit::{Exit, Stop};
use crate::cli::results::ResultsFile;
use crate::cli::say::say;
use crate::text::shown;

/// The results of earlier runs, and the file in which those of this run are noted.
pub(super) struct Notes {
    path: Option<PathBuf>,
    results: Results,
    /// A backup is not checked again if it was found good no longer ago than this.
    trusted: Option<Duration>,
    /// Whether people were told that results cannot be noted.
    told: AtomicBool,
}

impl Notes {
    /// Reads the results of earlier runs. With `trusted`, there must be a file for them.
    ///
    /// # Errors
    /// Fails where `trusted` is given and there is no file to look in, or where the file cannot be read.
    pub fn open(file: &ResultsFile, root: &Path, trusted: Option<Duration>) -> anyhow::Result<Notes> {
        let path = file.path(root);
        if trusted.is_some() && path.is_none() {
            let text = "--resume needs a file with results: name one with --results FILE";
            return Err(Stop(Exit::Usage, text.into()).into());
        }
        let results = match &path {
            Some(path) => Results::read(path).with_context(|| format!("cannot read {}", shown(path)))?,
            None => Results::default(),
        };
        let notes = Notes { path, results, trusted, told: AtomicBool::new(false) };
        if let Some(path) = &notes.path {
            notes.results.tidy(path).unwrap_or_else(|error| notes.cannot(path, &error));
        }
        Ok(notes)
    }

    /// Returns the result of a backup that need not be checked again. If `looked`, it must tell what a restore gives.
    pub fn good_before(&self, subject: Option<&Subject>, looked: bool) -> Option<&Outcome> {
        let outcome = self.results.of(subject?)?;
        let age = outcome.age(SystemTime::now())?;
        (outcome.good && age <= self.trusted? && (!looked || self.restored_lately(outcome)))
            .then_some(outcome)
    }

    fn restored_lately(&self, outcome: &Outcome) -> bool {
        let at = outcome.restored.as_ref().map(|it| Outcome { at: it.at, ..Outcome::now(true) });
        at.and_then(|it| it.age(SystemTime::now())).is_some_and(|age| Some(age) <= self.trusted)
    }

    /// Notes a result, if the files were the same before and after the check.
    pub fn add(&self, before: Option<&Subject>, after: Option<&Subject>, finding: &Finding) {
        let good = match finding.result {
            "ok" => true,
            "failed" => false,
            _ => return,
        };
        let (Some(path), Some(subject)) = (&self.path, before.filter(|_| before == after)) else { return };
        let outcome = match &finding.restores {
            Some(gave) => Outcome::now(good).restored(gave.clone()),
            // What was proved before of the same files still holds.
            None if good => {
                let before = self.results.of(subject).and_then(|it| it.restored.clone());
                Outcome { restored: before, ..Outcome::now(good) }
            }
            None => Outcome::now(good),
        };
        verified::note(path, subject, &outcome).unwrap_or_else(|error| self.cannot(path, &error));
    }

    fn cannot(&self, path: &Path, error: &std::io::Error) {
        if !self.told.swap(true, Ordering::Relaxed) {
            say!("warning: results are not kept: {}: {error}", shown(path));
        }
    }
}
