//! What all workers of a differential share.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::matching::fingerprint::Secret;
use crate::matching::{BaseProblem, Error};
use crate::text::told;

/// The most findings of damage that are kept.
const MAX_FINDINGS: usize = 3;

/// What all workers of a differential share.
pub(super) struct Context {
    /// The key of the base's fingerprints.
    pub secret: Secret,
    /// Whether records of one length are copied from within the new stream.
    pub records: bool,
    new: AtomicU64,
    findings: Mutex<Vec<String>>,
}

impl Context {
    pub fn new(secret: Secret, records: bool) -> Context {
        Context { secret, records, new: AtomicU64::new(0), findings: Mutex::default() }
    }

    /// Counts bytes that the differential holds because they are new.
    pub fn count_new(&self, bytes: usize) {
        self.new.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The number of bytes that were counted.
    pub fn new_bytes(&self) -> u64 {
        self.new.load(Ordering::Relaxed)
    }

    /// Remembers that the base is damaged. The stream is read to its end all the same; [`Context::check`] then refuses the
    /// base.
    pub fn note_damage(&self, error: &dyn std::error::Error) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let text = told(error);
        if findings.len() < MAX_FINDINGS && !findings.contains(&text) {
            findings.push(text);
        }
    }

    /// Returns what was found in the base. Where the base is damaged, nothing is found, and the damage is remembered.
    pub fn found<T>(&self, found: Result<Option<T>, Error>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.note_damage(&error);
            None
        })
    }

    /// Refuses a base in which damage was found. `path` is that of the base.
    ///
    /// # Errors
    /// [`BaseProblem::Damaged`].
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        match findings.is_empty() {
            true => Ok(()),
            false => Err(Error::base(path, BaseProblem::Damaged(findings.join("; ")))),
        }
    }
}
