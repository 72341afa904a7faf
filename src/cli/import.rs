//! `pve-diff-backup import` tells what archives of the originals are worth.

mod look;
mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use serde::Serialize;

use self::look::{Look, Of};
use super::archive::{open_in_any_form, processors};
use super::exit::Exit;
use super::places::{directory, missing, needs_root, scan};
use super::progress::Progress;
use super::results::ResultsFile;
use super::say::{chat, say};
use crate::backup::chain::Directory;
use crate::backup::verified::{self, Outcome};
use crate::backup::verify::{Opened, Task, Verdict, check, task};
use crate::backup::{BackupName, Differential};
use crate::container::source::Found;
use crate::container::{self, ByReading};
use crate::matching::WINDOW;
use crate::matching::restore::{self, Options};
use crate::nbd::Throttle;
use crate::text::shown;
use crate::vcdiff::AppHeader;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory with backups, or the name of a storage (/etc/pve/storage.cfg)
    #[arg(value_name = "DIR|STORAGE", value_hint = clap::ValueHint::DirPath)]
    place: PathBuf,
    /// Print JSON: a line for each backup as soon as it was read, and one with the counts at the end
    #[arg(long)]
    json: bool,
    /// Decode no more than this many KiB a second
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(1..))]
    bwlimit: Option<u64>,
    #[command(flatten)]
    results: ResultsFile,
    /// Show no progress (there is some on a terminal only)
    #[arg(long, short)]
    quiet: bool,
}

/// What is known of one backup, as JSON has it.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    guest: String,
    date: String,
    /// `ok`, `failed`, or `gone` (removed meanwhile).
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The length of what it restores to, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// What tells that it is whole, apart from the archive's structure; none where the file cannot be read at all.
    #[serde(flatten)]
    look: Option<Look>,
    seconds: f64,
}

/// The counts, as JSON has them.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: usize,
    failed: usize,
    gone: usize,
    /// Number of good differentials that the originals' xdelta3 made.
    originals: usize,
    /// Number of files that are no backups though their names look like it.
    unusable: usize,
}

/// Runs the command. `root` is the host whose storages may be named.
pub fn run(args: &Args, root: &Path) -> anyhow::Result<ExitCode> {
    needs_root(std::slice::from_ref(&args.place), root)?;
    let scanned = match scanned(&args.place, root) {
        Ok(scanned) => scanned,
        Err(error) => {
            say!("{error:#}");
            return Ok(Exit::Usage.into());
        }
    };
    let results = args.results.path(root);
    let names = names(&scanned);
    let sizes: Vec<u64> = names.iter().map(|name| expected(&scanned.path, name)).collect();
    let progress = Progress::new(!args.quiet, Some(sizes.iter().sum()));
    let throttle = args.bwlimit.map(|kib| Throttle::new(kib.saturating_mul(1024)));
    let passed = |bytes| {
        progress.add(bytes);
        if let Some(throttle) = &throttle {
            throttle.take(bytes);
        }
    };
    let print = |text: &str| progress.suspend(|| chat(&mut io::stdout(), text.as_bytes()));
    let mut report = Report { unusable: scanned.unusable.len(), ..Report::default() };
    if !args.json {
        print(&table::head())?;
    }
    let mut end = 0;
    for ((name, size), number) in names.iter().zip(sizes).zip(1..) {
        progress.at(name.as_str(), Some((number, names.len())));
        let finding = examine(&scanned.path, name, &passed, results.as_deref());
        end += size;
        progress.reached(end);
        report.count(&finding);
        match args.json {
            true => print(&(serde_json::to_string(&finding)? + "\n"))?,
            false => print(&table::row(&finding))?,
        }
    }
    progress.end();
    match args.json {
        true => print(&(serde_json::to_string(&report)? + "\n"))?,
        false => print(&table::end(&report, &scanned))?,
    }
    Ok(if report.failed + report.unusable > 0 { Exit::Failure } else { Exit::Success }.into())
}

fn scanned(place: &Path, root: &Path) -> anyhow::Result<Directory> {
    let dir = directory(place, root)?;
    let scanned =
        scan(&dir).map_err(|error| anyhow::anyhow!("{}: {}", shown(&dir), missing(&dir, &error)))?;
    if scanned.chains.is_empty() && scanned.orphans.is_empty() && scanned.unusable.is_empty() {
        bail!("{}: there are no backups", shown(&scanned.path));
    }
    Ok(scanned)
}

/// All backups of a directory, each full before its differentials.
fn names(scanned: &Directory) -> Vec<BackupName> {
    let differential = |it: &Differential| BackupName::Differential(it.clone());
    let mut names = Vec::new();
    for chain in &scanned.chains {
        names.push(BackupName::Full(chain.full.clone()));
        names.extend(chain.differentials.iter().map(differential));
    }
    names.extend(scanned.orphans.iter().map(differential));
    names
}

/// Estimates how many bytes a backup holds.
fn expected(dir: &Path, name: &BackupName) -> u64 {
    let full = dir.join(name.full().as_str());
    let own = || full.metadata().map_or(0, |it| it.len() * 2);
    container::content_size(&full).unwrap_or_else(own)
}

/// Reads one backup to its end.
fn examine(dir: &Path, name: &BackupName, passed: &dyn Fn(u64), results: Option<&Path>) -> Finding {
    let begun = Instant::now();
    let task = task(dir, name);
    let subject = || task.source.as_ref().ok().and_then(|source| source.subject());
    let before = subject();
    let look = look::at(dir, name);
    let verdict = match &look {
        Ok(_) => check(&task, &open, false, passed),
        Err(error) => failed(&task, error),
    };
    let good = match verdict {
        Verdict::Good { .. } => Some(true),
        Verdict::Bad(_) => Some(false),
        Verdict::Gone => None,
    };
    if let (Some(results), Some(good), Some(subject)) =
        (results, good, before.filter(|it| Some(it) == subject().as_ref()))
        && let Err(error) = verified::note(results, &subject, &Outcome::now(good))
    {
        say!("warning: the result is not kept: {}: {error}", shown(results));
    }
    let (result, error, bytes, content) = match verdict {
        Verdict::Good { bytes, content, .. } => ("ok", None, Some(bytes), Some(content.to_string())),
        Verdict::Bad(reason) => ("failed", Some(reason), None, None),
        Verdict::Gone => ("gone", None, None, None),
    };
    Finding {
        file: name.as_str().to_owned(),
        guest: name.full().guest().to_string(),
        date: name.stamp().readable(),
        result,
        error,
        bytes,
        content,
        look: look.ok(),
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// The verdict on a backup whose file, or whose full, cannot be opened.
fn failed(task: &Task, error: &anyhow::Error) -> Verdict {
    let is_gone =
        |path: &Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    match &task.source {
        Ok(source) if is_gone(&source.path) => Verdict::Gone,
        _ => Verdict::Bad(format!("{error:#}")),
    }
}

/// Opens the content of a backup. What the originals did not write down is in the table, and no warning.
fn open(path: &Path, base: Option<&Path>) -> anyhow::Result<Opened> {
    let options = Options { threads: processors(), window: WINDOW, check_base: true };
    let base = base.map(|base| move |header: &AppHeader| open_in_any_form(base, Found::ByName, header));
    let stream = restore::open(path, base, Found::ByName, options, drop).with_context(|| shown(path))?;
    Ok(Box::new(ByReading::new(stream)))
}

impl Report {
    fn count(&mut self, finding: &Finding) {
        match finding.result {
            "ok" => self.ok += 1,
            "failed" => self.failed += 1,
            _ => self.gone += 1,
        }
        if let (0, Some(Look { of: Of::Differential { made_by: look::XDELTA3, .. }, .. })) =
            (usize::from(finding.result != "ok"), &finding.look)
        {
            self.originals += 1;
        }
    }
}
