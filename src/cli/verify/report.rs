//! The result of a run.

use serde::Serialize;

use super::arguments::{Left, Refused};
use super::finding::Finding;
use super::proofs::{self, Proof};
use crate::cli::exit::Exit;
use crate::cli::say::count;

/// The result of a run, as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Number of backups that are good.
    pub ok: usize,
    /// Number of backups that cannot be restored.
    pub failed: usize,
    /// Number of backups that were removed before they were checked.
    pub gone: usize,
    /// Number of backups that were not checked, as they were found good before.
    pub skipped: usize,
    pub unfinished: Vec<Left>,
    /// The arguments that could not be checked, or not completely.
    pub refused: Vec<Refused>,
    /// What restores give, by guest, if that was looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<Proof>,
    /// The results of those that cannot be restored.
    #[serde(skip)]
    pub failures: Vec<Finding>,
}

impl Report {
    pub fn new(unfinished: Vec<Left>, refused: Vec<Refused>) -> Self {
        Report {
            ok: 0,
            failed: 0,
            gone: 0,
            skipped: 0,
            unfinished,
            refused,
            guests: Vec::new(),
            failures: Vec::new(),
        }
    }
}

impl Report {
    /// Counts a result.
    pub fn count(&mut self, finding: Finding) {
        if let Some(reason) = &finding.unproved {
            let reason = format!("not restored: {reason}");
            self.refused.push(Refused { argument: finding.file.clone(), reason });
        }
        proofs::add(&mut self.guests, &finding);
        match finding.result {
            "ok" => self.ok += 1,
            "failed" => {
                self.failed += 1;
                self.failures.push(finding);
            }
            "skipped" => self.skipped += 1,
            _ => self.gone += 1,
        }
    }

    pub fn summary(&self, fulls: usize) -> String {
        let told = self.checked(fulls);
        let told = match self.skipped {
            0 => told,
            skipped => format!("{told}; {skipped} found good before, and unchanged"),
        };
        match self.refused.len() {
            0 => told,
            refused => format!("{told}; {} could NOT be checked", count(refused, "argument")),
        }
    }

    fn checked(&self, fulls: usize) -> String {
        match (self.ok, self.failed) {
            (0, 0) if self.skipped > 0 => "nothing checked anew".into(),
            (0, 0) if self.gone > 0 => format!("nothing checked: {} removed meanwhile", self.gone),
            (0, 0) if fulls > 0 => {
                format!("no differential backups here ({fulls} full; --all checks those too)")
            }
            (0, 0) if self.refused.is_empty() => "no backups here".into(),
            (0, 0) => "nothing checked".into(),
            (ok, 0) => format!("{ok} checked, all of them restorable"),
            (ok, failed) => format!("{} checked, {failed} NOT restorable", ok + failed),
        }
    }

    /// Whether everything that was named could be checked, and nothing was found that cannot be restored.
    pub fn is_well(&self) -> bool {
        self.failed == 0 && self.refused.is_empty()
    }

    pub fn exit(&self, fulls: usize) -> Exit {
        match self {
            Report { failed: 1.., .. } => Exit::Failure,
            // If nothing at all was checked, the place is more likely wrong than the backups good.
            Report { ok: 0, skipped: 0, gone, .. } if *gone > 0 || fulls == 0 => Exit::Usage,
            Report { refused, .. } if !refused.is_empty() => Exit::Usage,
            _ => Exit::Success,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_meanwhile_is_not_called_good() {
        let report = |ok, gone| Report { ok, gone, ..Report::new(vec![], vec![]) };
        let told = |ok, gone, fulls| (report(ok, gone).summary(fulls), report(ok, gone).exit(fulls));
        assert_eq!(told(0, 2, 1), ("nothing checked: 2 removed meanwhile".into(), Exit::Usage));
        assert_eq!(told(3, 2, 1), ("3 checked, all of them restorable".into(), Exit::Success));
        assert_eq!(told(0, 0, 0), ("no backups here".into(), Exit::Usage));
        assert_eq!(told(0, 0, 1).1, Exit::Success);
    }
}
