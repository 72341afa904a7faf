//! `verify --orphans` lists what belongs to no chain.

use std::io;
use std::process::ExitCode;

use indicatif::BinaryBytes;
use serde::Serialize;

use super::arguments::{Found, Refused};
use crate::backup::orphans::{Kind, Orphan, orphans};
use crate::cli::exit::Exit;
use crate::cli::say::{chat, count};
use crate::text::shown;

/// A file without a chain, as JSON has it.
#[derive(Serialize)]
struct Line {
    directory: String,
    file: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    advice: String,
}

/// The result of a run, as JSON has it.
#[derive(Serialize)]
struct Report {
    leftovers: usize,
    stranded: usize,
    unreadable: usize,
    size: u64,
    refused: Vec<Refused>,
}

/// Prints a line for each file that belongs to no chain. Nothing is decoded.
pub(super) fn list(mut found: Found, json: bool) -> anyhow::Result<ExitCode> {
    let mut report = Report {
        leftovers: 0,
        stranded: 0,
        unreadable: 0,
        size: 0,
        refused: std::mem::take(&mut found.refused),
    };
    for directory in &found.directories {
        for Orphan { name, kind, size, advice } in orphans(directory) {
            match kind {
                Kind::Leftover => report.leftovers += 1,
                Kind::Stranded => report.stranded += 1,
                Kind::Unreadable => report.unreadable += 1,
            }
            report.size = report.size.saturating_add(size.unwrap_or(0));
            let line = match json {
                true => {
                    let directory = shown(&directory.path);
                    serde_json::to_string(&Line {
                        directory,
                        file: name,
                        kind: kind.to_string(),
                        size,
                        advice,
                    })?
                }
                false => {
                    let size = size.map_or("folder".into(), |size| BinaryBytes(size).to_string());
                    format!("{:<10}  {name} ({size}): {advice}", kind.to_string().to_uppercase())
                }
            };
            chat(&mut io::stdout(), format!("{line}\n").as_bytes())?;
        }
    }
    let has_backups = found.fulls > 0 || !found.work.is_empty();
    let told = match json {
        true => serde_json::to_string(&report)?,
        false => report.summary(has_backups),
    };
    chat(&mut io::stdout(), format!("{told}\n").as_bytes())?;
    Ok(report.exit(has_backups).into())
}

impl Report {
    fn all(&self) -> usize {
        self.leftovers + self.stranded + self.unreadable
    }

    fn summary(&self, has_backups: bool) -> String {
        let told = match self.all() {
            0 if has_backups => "every backup here belongs to a chain".into(),
            0 => "no backups here".into(),
            all => format!(
                "{} of no chain: {}, {} stranded, {} unreadable; {} in all",
                count(all, "file"),
                count(self.leftovers, "leftover"),
                self.stranded,
                self.unreadable,
                BinaryBytes(self.size)
            ),
        };
        match self.refused.len() {
            0 => told,
            refused => format!("{told}; {} could NOT be looked at", count(refused, "place")),
        }
    }

    fn exit(&self, has_backups: bool) -> Exit {
        match self.all() {
            1.. => Exit::Failure,
            // Where nothing is there, the place is more likely wrong than all well.
            0 if !self.refused.is_empty() || !has_backups => Exit::Usage,
            0 => Exit::Success,
        }
    }
}
