//! `pve-diff-backup verify`, also called as `pve-verify-backups`: is every differential restorable?

mod arguments;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args as _;
use indicatif::DecimalBytes;
use serde::Serialize;

use self::arguments::{Found, Left, Refused};
use super::VERIFY_NAME;
use super::exit::Exit;
use super::places::needs_root;
use super::progress::Progress;
use super::say::{chat, count, say};
use crate::backup::verify::{Content, Open, Task, Verdict, check};
use crate::container;
use crate::text::shown;

/// Decode every differential backup to its last byte and check the archive that comes out.
///
/// Each differential of the directories is decoded against its full, as a restore would do, and the
/// structure of the VMA or tar stream is checked. One line each is printed: OK or FAIL with the reason.
///
/// Exit code: 0 all are well, 1 some failed, 2 nothing was there to check, or not all that was named could be.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of storages (/etc/pve/storage.cfg), directories with backups, or single backups
    ///
    /// A name without a slash is that of a storage, if there is one: a folder here of the same name is ./NAME. Of a directory
    /// without backups that has a folder `dump`, that is meant. Logs and notes among them are passed over. What cannot be
    /// checked is named, and all else is checked.
    #[arg(value_name = "PATH", default_value = ".", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Check full backups too
    #[arg(long, short)]
    all: bool,
    /// Print the result as JSON, when all is done
    #[arg(long)]
    json: bool,
    /// Show no progress (there is some on a terminal only)
    #[arg(long, short)]
    quiet: bool,
}

/// The command as a program of its own: [`VERIFY_NAME`].
pub(super) fn command() -> clap::Command {
    Args::augment_args(clap::Command::new(VERIFY_NAME).version(env!("CARGO_PKG_VERSION")))
}

/// Runs the command; `open` is how backups are read, `root` the host whose storages may be named.
pub fn run(args: &Args, root: &Path, open: Open) -> anyhow::Result<ExitCode> {
    needs_root(&args.paths, root)?;
    let found = arguments::collect(&args.paths, args.all, root);
    // At once, though what they say counts at the end.
    for Refused { argument, reason } in &found.refused {
        say!("{argument}: {reason}");
    }
    if !args.json {
        for Left { file, advice } in &found.left {
            chat(&mut io::stdout(), format!("LEFT  {file}: {advice}\n").as_bytes())?;
        }
    }
    let fulls = found.fulls;
    let report = check_all(found, open, args)?;
    let told = match args.json {
        true => serde_json::to_string_pretty(&report)?,
        false => report.summary(fulls),
    };
    chat(&mut io::stdout(), format!("{told}\n").as_bytes())?;
    Ok(report.exit(fulls).into())
}

/// The result of a run.
#[derive(Debug, Serialize)]
struct Report {
    /// Number of good backups.
    ok: usize,
    /// Number of those that cannot be restored.
    failed: usize,
    /// Number of those that were removed before they were checked.
    gone: usize,
    backups: Vec<Finding>,
    unfinished: Vec<Left>,
    /// Arguments that nothing, or not all, could be checked of.
    refused: Vec<Refused>,
}

/// The result of one backup.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    /// `ok`, `failed`, or `gone` (removed meanwhile).
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    seconds: f64,
}

impl Finding {
    fn new(task: &Task, verdict: Verdict, took: Duration) -> Self {
        let base = task.source.as_ref().ok().and_then(|s| s.base.as_deref());
        let base = base.and_then(Path::file_name).map(shown);
        let (result, error, bytes, content): (_, _, _, Option<Content>) = match verdict {
            Verdict::Good { bytes, content } => ("ok", None, Some(bytes), Some(content)),
            Verdict::Bad(reason) => ("failed", Some(reason), None, None),
            Verdict::Gone => ("gone", None, None, None),
        };
        let content = content.map(|c| c.to_string());
        Finding { file: task.name.clone(), base, result, error, bytes, content, seconds: took.as_secs_f64() }
    }

    /// One line for people.
    fn line(&self) -> String {
        let name = &self.file;
        match self {
            Finding { bytes: Some(bytes), content: Some(content), seconds, .. } => {
                format!("OK    {name} ({content}, {}, {seconds:.1} s)", DecimalBytes(*bytes))
            }
            Finding { error: Some(error), .. } => format!("FAIL  {name}: {error}"),
            _ => format!("GONE  {name}: removed meanwhile"),
        }
    }
}

impl Report {
    fn summary(&self, fulls: usize) -> String {
        let told = match (self.ok, self.failed) {
            (0, 0) if self.gone > 0 => format!("nothing checked: {} removed meanwhile", self.gone),
            (0, 0) if fulls > 0 => {
                format!("no differential backups here ({fulls} full; --all checks those too)")
            }
            (0, 0) if self.refused.is_empty() => "no backups here".into(),
            (0, 0) => "nothing checked".into(),
            (ok, 0) => format!("{ok} checked, all of them restorable"),
            (ok, failed) => format!("{} checked, {failed} NOT restorable", ok + failed),
        };
        match self.refused.len() {
            0 => told,
            refused => format!("{told}; {} could NOT be checked", count(refused, "argument")),
        }
    }

    fn exit(&self, fulls: usize) -> Exit {
        match self {
            Report { failed: 1.., .. } => Exit::Failure,
            // Nothing at all is more likely the wrong place than good news.
            Report { ok: 0, gone, .. } if *gone > 0 || fulls == 0 => Exit::Usage,
            Report { refused, .. } if !refused.is_empty() => Exit::Usage,
            _ => Exit::Success,
        }
    }
}

/// Checks one after the other, with a line for each as soon as it is known.
fn check_all(found: Found, open: Open, args: &Args) -> anyhow::Result<Report> {
    let Found { work, left: unfinished, refused, .. } = found;
    let sizes: Vec<u64> = work.iter().map(expected).collect();
    let progress = Progress::new(!args.quiet, Some(sizes.iter().sum()));
    let mut report = Report { ok: 0, failed: 0, gone: 0, backups: Vec::new(), unfinished, refused };
    let mut end = 0;
    for ((task, number), size) in work.iter().zip(1..).zip(sizes) {
        progress.at(&task.name, Some((number, work.len())));
        end += size;
        let start = Instant::now();
        // An estimate: a backup that is larger stays at its end until it is done.
        let count = |n: u64| progress.add(n.min(end.saturating_sub(progress.position())));
        let verdict = check(task, open, &count);
        progress.reached(end);
        let finding = Finding::new(task, verdict, start.elapsed());
        match finding.result {
            "ok" => report.ok += 1,
            "failed" => report.failed += 1,
            _ => report.gone += 1,
        }
        if !args.json {
            progress.suspend(|| chat(&mut io::stdout(), format!("{}\n", finding.line()).as_bytes()))?;
        }
        report.backups.push(finding);
    }
    progress.end();
    Ok(report)
}

/// About how many bytes a backup holds: as many as its full backup, where that tells, else twice that file's own.
fn expected(task: &Task) -> u64 {
    let Ok(source) = &task.source else { return 0 };
    let file = source.base.as_ref().unwrap_or(&source.path);
    let own = || file.metadata().map_or(0, |metadata| metadata.len() * 2);
    container::content_size(file).unwrap_or_else(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_meanwhile_is_not_called_good() {
        let report =
            |ok, gone| Report { ok, failed: 0, gone, backups: vec![], unfinished: vec![], refused: vec![] };
        let told = |ok, gone, fulls| (report(ok, gone).summary(fulls), report(ok, gone).exit(fulls));
        assert_eq!(told(0, 2, 1), ("nothing checked: 2 removed meanwhile".into(), Exit::Usage));
        assert_eq!(told(3, 2, 1), ("3 checked, all of them restorable".into(), Exit::Success));
        assert_eq!(told(0, 0, 0), ("no backups here".into(), Exit::Usage));
        assert_eq!(told(0, 0, 1).1, Exit::Success);
    }
}
