//! The result of a check of one backup.

use std::path::Path;
use std::time::{Duration, SystemTime};

use indicatif::{DecimalBytes, HumanDuration};
use serde::Serialize;

use crate::backup::verified::Outcome;
use crate::backup::verify::{Content, Holds, Task, Verdict};
use crate::text::{harmless, shown};

/// The result of one backup, as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    /// `ok`, `failed`, `gone` (removed meanwhile), or `skipped` (found good before).
    pub result: &'static str,
    /// The time when it was found good, in seconds since 1970, if it was not checked now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// What a restore gives, where that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restores: Option<String>,
    /// Why it was not restored, though that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unproved: Option<String>,
    seconds: f64,
}

impl Finding {
    pub fn new(task: &Task, verdict: Verdict, took: Duration) -> Self {
        let base = base(task);
        let restores = match &verdict {
            Verdict::Good { holds, .. } => holds.as_ref().map(Holds::to_string),
            Verdict::Bad(_) | Verdict::Gone => None,
        };
        let (result, error, bytes, content): (_, _, _, Option<Content>) = match verdict {
            Verdict::Good { bytes, content, .. } => ("ok", None, Some(bytes), Some(content)),
            Verdict::Bad(reason) => ("failed", Some(reason), None, None),
            Verdict::Gone => ("gone", None, None, None),
        };
        let content = content.map(|c| c.to_string());
        let seconds = took.as_secs_f64();
        Finding {
            file: task.name.clone(),
            base,
            result,
            verified: None,
            error,
            bytes,
            content,
            restores,
            unproved: None,
            seconds,
        }
    }

    /// The result of a backup that was found good before. If `looked`, what its restore gave then counts, too.
    pub fn skipped(task: &Task, outcome: &Outcome, looked: bool) -> Self {
        let restored = outcome.restored.as_ref().filter(|_| looked);
        Finding {
            file: task.name.clone(),
            base: base(task),
            result: "skipped",
            verified: Some(restored.map_or(outcome.at, |it| it.at)),
            error: None,
            bytes: None,
            content: None,
            restores: restored.map(|it| it.gave.clone()),
            unproved: None,
            seconds: 0.0,
        }
    }

    /// The length of a good backup's stream in bytes, if it was read.
    pub fn length(&self) -> Option<u64> {
        self.bytes.filter(|_| self.result == "ok")
    }

    /// Makes it the result of a backup that can be read, but not restored.
    pub fn fail(&mut self, reason: String) {
        let (file, base) = (std::mem::take(&mut self.file), self.base.take());
        let error = Some(reason);
        *self = Finding {
            file,
            base,
            result: "failed",
            verified: None,
            error,
            bytes: None,
            content: None,
            restores: None,
            unproved: None,
            seconds: self.seconds,
        };
    }

    /// Notes why a good backup was not restored as it was asked for.
    pub fn unproved(&mut self, reason: String) {
        (self.restores, self.unproved) = (None, Some(reason));
    }

    /// Writes the result as one line for people.
    pub fn line(&self) -> String {
        let name = &self.file;
        match self {
            Finding { bytes: Some(bytes), content: Some(content), restores, seconds, .. } => {
                let told = format!("OK    {name} ({content}, {}, {seconds:.1} s)", DecimalBytes(*bytes));
                match restores {
                    Some(restores) => format!("{told}: restores {}", harmless(restores)),
                    None => told,
                }
            }
            Finding { error: Some(error), .. } => format!("FAIL  {name}: {error}"),
            Finding { verified: Some(at), .. } => {
                format!("SKIP  {name}: unchanged, found good {}", ago(*at))
            }
            _ => format!("GONE  {name}: removed meanwhile"),
        }
    }
}

/// Writes how long ago a time in seconds since 1970 was.
pub(super) fn ago(at: u64) -> String {
    let outcome = Outcome { at, ..Outcome::now(true) };
    format!("{} ago", HumanDuration(outcome.age(SystemTime::now()).unwrap_or_default()))
}

/// The name of the full backup that a differential needs.
fn base(task: &Task) -> Option<String> {
    let base = task.source.as_ref().ok().and_then(|source| source.base.as_deref());
    base.and_then(Path::file_name).map(shown)
}
