//! What was proved of each guest's backups.

use serde::Serialize;

use super::finding::{Finding, ago};
use crate::backup::{BackupName, Guest, Stamp};
use crate::text::harmless;

/// What restores of a guest's backups give.
#[derive(Debug, Serialize)]
pub(super) struct Proof {
    guest: String,
    /// The number of its backups that were looked at.
    backups: usize,
    /// The number of those that restore.
    restore: usize,
    /// The newest that restores.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<Newest>,
    #[serde(skip)]
    of: Guest,
}

/// A backup and what its restore gives.
#[derive(Debug, Serialize)]
struct Newest {
    /// The time of the backup.
    date: String,
    restores: String,
    /// The time of the proof in seconds since 1970, if it was not this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<u64>,
    #[serde(skip)]
    stamp: Stamp,
}

/// Counts a result, if it is one of a backup whose restore was looked at, or that has none.
pub(super) fn add(proofs: &mut Vec<Proof>, finding: &Finding) {
    let Some(name) = BackupName::parse(finding.file.as_bytes()) else { return };
    let of = name.full().guest();
    if finding.restores.is_none() && finding.result != "failed" {
        return;
    }
    let at = proofs.iter().position(|it| it.of == of).unwrap_or_else(|| {
        proofs.push(Proof { guest: of.to_string(), backups: 0, restore: 0, newest: None, of });
        proofs.len() - 1
    });
    let proof = &mut proofs[at];
    proof.backups += 1;
    let Some(restores) = &finding.restores else { return };
    proof.restore += 1;
    let stamp = name.stamp();
    if proof.newest.as_ref().is_none_or(|newest| newest.stamp < stamp) {
        let (date, restores) = (stamp.readable(), restores.clone());
        proof.newest = Some(Newest { date, restores, verified: finding.verified, stamp });
    }
}

impl Proof {
    /// Writes what was proved, and when, as one line for people.
    pub fn line(&self) -> String {
        let Proof { guest, backups, restore, newest, .. } = self;
        let word = if restore == backups { "PROVED" } else { "NOT ALL PROVED" };
        let told = format!("{word}  {guest}: {restore} of {backups} backups restore");
        let Some(Newest { date, restores, verified, .. }) = newest else { return told };
        let when = verified.map_or("now".to_owned(), ago);
        format!("{told}, the newest of {date} (proved {when}): {}", harmless(restores))
    }
}
