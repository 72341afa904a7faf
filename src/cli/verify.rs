//! `pve-diff-backup verify`, also called as `pve-verify-backups`: is every differential restorable?

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args as _;
use indicatif::DecimalBytes;
use serde::Serialize;

use super::VERIFY_NAME;
use super::exit::Exit;
use super::progress::Progress;
use super::say::{chat, say};
use crate::backup::BackupName;
use crate::backup::chain::Directory;
use crate::backup::verify::{Content, Open, Task, Verdict, check, task, tasks};
use crate::container;
use crate::host::{Root, storage};
use crate::text::shown;

/// Decode every differential backup to its last byte and check the archive that comes out.
///
/// Each differential of the directories is decoded against its full, as a restore would do, and the
/// structure of the VMA or tar stream is checked. One line each is printed: OK or FAIL with the reason.
///
/// Exit code: 0 all are well, 1 some failed, 2 wrong usage or nothing there to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories with backups, names of storages (/etc/pve/storage.cfg), or single backups
    ///
    /// Of a directory without backups that has a folder `dump`, that is meant. Logs and notes among them are passed over.
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
    let Found { work, fulls, left } = match collect(args, root) {
        Ok(found) => found,
        Err(error) => {
            say!("{error:#}");
            return Ok(Exit::Usage.into());
        }
    };
    if !args.json {
        for Left { file, advice } in &left {
            chat(&mut io::stdout(), format!("LEFT  {file}: {advice}\n").as_bytes())?;
        }
    }
    let report = check_all(&work, left, open, args)?;
    let told = match args.json {
        true => serde_json::to_string_pretty(&report)?,
        false => report.summary(fulls),
    };
    chat(&mut io::stdout(), format!("{told}\n").as_bytes())?;
    Ok(match report {
        Report { failed: 1.., .. } => Exit::Failure,
        // nothing at all is more likely the wrong directory than good news
        Report { ok: 0, .. } if fulls == 0 => Exit::Usage,
        _ => Exit::Success,
    }
    .into())
}

/// What the arguments name.
#[derive(Default)]
struct Found {
    /// What to check.
    work: Vec<Task>,
    /// Number of full backups seen.
    fulls: usize,
    left: Vec<Left>,
}

/// An unfinished backup that people should look after.
#[derive(Debug, Serialize)]
struct Left {
    file: String,
    advice: String,
}

fn collect(args: &Args, root: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for path in &args.paths {
        let stored = match path.exists() {
            true => None,
            false => stored(path, root)?,
        };
        let path = stored.as_ref().unwrap_or(path);
        if path.is_dir() {
            let directory = scan(path)?;
            found.fulls += directory.chains.len();
            found.work.extend(tasks(&directory, args.all));
            found.left.extend(directory.leftovers.iter().filter_map(|it| {
                let advice = it.advice(&directory.path)?;
                Some(Left { file: it.file.name.clone(), advice })
            }));
        } else if is_beside_backups(path) {
            say!("{}: not a backup but what vzdump writes beside one: passed over", shown(path));
        } else {
            found.work.push(single(path)?);
        }
    }
    Ok(found)
}

/// Where the storage named `id` keeps its backups, if it is one.
fn stored(id: &Path, root: &Path) -> anyhow::Result<Option<PathBuf>> {
    match id.to_str() {
        Some(id) if !id.contains('/') => Ok(storage::backups(&Root::open(root)?, id)?),
        _ => Ok(None),
    }
}

/// The backups in a directory. Where it has none but a folder `dump`, it is the path of a storage, whose backups lie there.
fn scan(path: &Path) -> anyhow::Result<Directory> {
    let read = |path: &Path| {
        Directory::scan(path).with_context(|| format!("cannot read the directory {}", shown(path)))
    };
    let directory = read(path)?;
    let is_empty =
        directory.chains.is_empty() && directory.orphans.is_empty() && directory.unusable.is_empty();
    match path.join("dump") {
        dump if is_empty && dump.is_dir() => read(&dump),
        _ => Ok(directory),
    }
}

/// Whether a file is a log, or notes or the mark of protection of a backup.
fn is_beside_backups(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    path.is_file() && matches!(extension, Some("log" | "notes" | "protected"))
}

/// A backup named on the command line.
fn single(path: &Path) -> anyhow::Result<Task> {
    if !path.is_file() {
        bail!("{}: no such file or directory, and no storage of that name", shown(path));
    }
    let name = path.file_name().and_then(|n| BackupName::parse(n.as_bytes()));
    let Some(name) = name else { bail!("{}: not the name of a backup", shown(path)) };
    Ok(task(path.parent().unwrap_or(Path::new("")), &name))
}

/// The result of a run.
#[derive(Debug, Serialize)]
struct Report {
    /// Number of good backups.
    ok: usize,
    /// Number of those that cannot be restored.
    failed: usize,
    backups: Vec<Finding>,
    unfinished: Vec<Left>,
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
        match (self.ok, self.failed) {
            (0, 0) if fulls == 0 => "no backups here".into(),
            (0, 0) => format!("no differential backups here ({fulls} full; --all checks those too)"),
            (ok, 0) => format!("{ok} checked, all of them restorable"),
            (ok, failed) => format!("{} checked, {failed} NOT restorable", ok + failed),
        }
    }
}

/// Checks one after the other, with a line for each as soon as it is known.
fn check_all(work: &[Task], unfinished: Vec<Left>, open: Open, args: &Args) -> anyhow::Result<Report> {
    let sizes: Vec<u64> = work.iter().map(expected).collect();
    let progress = Progress::new(!args.quiet, Some(sizes.iter().sum()));
    let mut report = Report { ok: 0, failed: 0, backups: Vec::new(), unfinished };
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
            _ => {}
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
