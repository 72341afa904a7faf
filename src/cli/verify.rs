//! `pve-diff-backup verify`, also called as `pve-verify-backups`, tells whether every differential can be restored.

mod arguments;
mod notes;

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Args as _;
use indicatif::{DecimalBytes, HumanDuration};
use serde::Serialize;

use self::arguments::{Found, Left, Refused};
use self::notes::Notes;
use super::VERIFY_NAME;
use super::exit::Exit;
use super::places::needs_root;
use super::progress::Progress;
use super::results::ResultsFile;
use super::say::{chat, count, say};
use crate::backup::verified::Outcome;
use crate::backup::verify::{Content, Open, Source, Task, Verdict, check};
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
    /// A name without a slash is that of a storage, if there is one: a folder here of the same name is ./NAME. If a
    /// directory has no backups but a folder `dump`, that folder is meant. Logs and notes among the arguments are
    /// passed over. What cannot be checked is named, and all else is checked.
    #[arg(value_name = "PATH", default_value = ".", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Check full backups too
    #[arg(long, short)]
    all: bool,
    /// Print JSON: a line for each backup as soon as it is checked, and one with the counts at the end
    #[arg(long)]
    json: bool,
    /// Pass over what was found good within --max-age and is unchanged since: the same file and full, by size, inode
    /// and time
    #[arg(long)]
    resume: bool,
    /// How many days a good result holds for --resume
    #[arg(long, value_name = "DAYS", default_value_t = 30, requires = "resume")]
    max_age: u32,
    /// Decode no more than this many KiB a second; about as much is read at most
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(1..))]
    bwlimit: Option<u64>,
    #[command(flatten)]
    results: ResultsFile,
    /// Show no progress (there is some on a terminal only)
    #[arg(long, short)]
    quiet: bool,
}

/// The command as a program of its own, which is called [`VERIFY_NAME`].
pub(super) fn command() -> clap::Command {
    Args::augment_args(clap::Command::new(VERIFY_NAME).version(env!("CARGO_PKG_VERSION")))
}

/// Runs the command. `open` reads backups, and `root` is the host whose storages may be named.
pub fn run(args: &Args, root: &Path, open: Open) -> anyhow::Result<ExitCode> {
    needs_root(&args.paths, root)?;
    let trusted = args.resume.then(|| Duration::from_secs(u64::from(args.max_age) * 86_400));
    let notes = Notes::open(&args.results, root, trusted)?;
    let found = arguments::collect(&args.paths, args.all, root);
    // These are told at once, though they change the exit code only at the end.
    for Refused { argument, reason } in &found.refused {
        say!("{argument}: {reason}");
    }
    if !args.json {
        for Left { file, advice } in &found.left {
            chat(&mut io::stdout(), format!("LEFT  {file}: {advice}\n").as_bytes())?;
        }
    }
    let fulls = found.fulls;
    let report = check_all(found, open, args, &notes)?;
    let told = match args.json {
        true => serde_json::to_string(&report)?,
        false => report.summary(fulls),
    };
    chat(&mut io::stdout(), format!("{told}\n").as_bytes())?;
    Ok(report.exit(fulls).into())
}

/// The result of a run, as JSON has it.
#[derive(Debug, Serialize)]
struct Report {
    /// Number of backups that are good.
    ok: usize,
    /// Number of backups that cannot be restored.
    failed: usize,
    /// Number of backups that were removed before they were checked.
    gone: usize,
    /// Number of backups that were not checked, as they were found good before.
    skipped: usize,
    unfinished: Vec<Left>,
    /// The arguments that could not be checked, or not completely.
    refused: Vec<Refused>,
}

/// The result of one backup, as JSON has it.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    /// `ok`, `failed`, `gone` (removed meanwhile), or `skipped` (found good before).
    result: &'static str,
    /// The time when it was found good, in seconds since 1970, if it was not checked now.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<u64>,
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
        let base = base(task);
        let (result, error, bytes, content): (_, _, _, Option<Content>) = match verdict {
            Verdict::Good { bytes, content } => ("ok", None, Some(bytes), Some(content)),
            Verdict::Bad(reason) => ("failed", Some(reason), None, None),
            Verdict::Gone => ("gone", None, None, None),
        };
        let content = content.map(|c| c.to_string());
        let seconds = took.as_secs_f64();
        Finding { file: task.name.clone(), base, result, verified: None, error, bytes, content, seconds }
    }

    fn skipped(task: &Task, at: u64) -> Self {
        Finding {
            file: task.name.clone(),
            base: base(task),
            result: "skipped",
            verified: Some(at),
            error: None,
            bytes: None,
            content: None,
            seconds: 0.0,
        }
    }

    /// Writes the result as one line for people.
    fn line(&self) -> String {
        let name = &self.file;
        match self {
            Finding { bytes: Some(bytes), content: Some(content), seconds, .. } => {
                format!("OK    {name} ({content}, {}, {seconds:.1} s)", DecimalBytes(*bytes))
            }
            Finding { error: Some(error), .. } => format!("FAIL  {name}: {error}"),
            Finding { verified: Some(at), .. } => {
                let ago =
                    HumanDuration(Outcome { at: *at, good: true }.age(SystemTime::now()).unwrap_or_default());
                format!("SKIP  {name}: unchanged, found good {ago} ago")
            }
            _ => format!("GONE  {name}: removed meanwhile"),
        }
    }
}

/// The name of the full backup that a differential needs.
fn base(task: &Task) -> Option<String> {
    let base = task.source.as_ref().ok().and_then(|source| source.base.as_deref());
    base.and_then(Path::file_name).map(shown)
}

impl Report {
    fn summary(&self, fulls: usize) -> String {
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

    fn exit(&self, fulls: usize) -> Exit {
        match self {
            Report { failed: 1.., .. } => Exit::Failure,
            // If nothing at all was checked, the place is more likely wrong than the backups good.
            Report { ok: 0, skipped: 0, gone, .. } if *gone > 0 || fulls == 0 => Exit::Usage,
            Report { refused, .. } if !refused.is_empty() => Exit::Usage,
            _ => Exit::Success,
        }
    }
}

/// Checks one backup after the other, and prints a line for each as soon as its result is known.
fn check_all(found: Found, open: Open, args: &Args, notes: &Notes) -> anyhow::Result<Report> {
    let Found { work, left: unfinished, refused, .. } = found;
    let sizes: Vec<u64> = work.iter().map(expected).collect();
    let progress = Progress::new(!args.quiet, Some(sizes.iter().sum()));
    let mut report = Report { ok: 0, failed: 0, gone: 0, skipped: 0, unfinished, refused };
    let throttle = Throttle::new(args.bwlimit);
    let mut end = 0;
    for ((task, number), size) in work.iter().zip(1..).zip(sizes) {
        progress.at(&task.name, Some((number, work.len())));
        end += size;
        let start = Instant::now();
        // The expected length is an estimate: the bar of a larger backup stays at its end until the backup is done.
        let count = |n: u64| {
            progress.add(n.min(end.saturating_sub(progress.position())));
            throttle.passed(n);
        };
        let subject = || task.source.as_ref().ok().and_then(Source::subject);
        let before = subject();
        let finding = match notes.good_before(before.as_ref()) {
            Some(at) => Finding::skipped(task, at),
            None => {
                let verdict = check(task, open, &count);
                notes.add(before.as_ref(), subject().as_ref(), &verdict);
                Finding::new(task, verdict, start.elapsed())
            }
        };
        progress.reached(end);
        match finding.result {
            "ok" => report.ok += 1,
            "failed" => report.failed += 1,
            "skipped" => report.skipped += 1,
            _ => report.gone += 1,
        }
        let line = if args.json { serde_json::to_string(&finding)? } else { finding.line() };
        progress.suspend(|| chat(&mut io::stdout(), format!("{line}\n").as_bytes()))?;
    }
    progress.end();
    Ok(report)
}

/// Waits where decoding goes faster than is allowed.
struct Throttle {
    /// The number of bytes that may be decoded in a second.
    limit: Option<u64>,
    begun: Instant,
    bytes: Cell<u64>,
}

impl Throttle {
    fn new(kib: Option<u64>) -> Self {
        Throttle {
            limit: kib.map(|kib| kib.saturating_mul(1024)),
            begun: Instant::now(),
            bytes: Cell::new(0),
        }
    }

    fn passed(&self, bytes: u64) {
        let Some(limit) = self.limit else { return };
        self.bytes.set(self.bytes.get() + bytes);
        std::thread::sleep(time_of(self.bytes.get(), limit).saturating_sub(self.begun.elapsed()));
    }
}

/// Computes the shortest time in which so many bytes may be decoded.
fn time_of(bytes: u64, limit: u64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / limit as f64).unwrap_or(Duration::MAX)
}

/// Estimates how many bytes a backup holds: as many as its full backup, if that file tells, else twice the length of
/// that file.
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
    fn bytes_take_their_time() {
        assert_eq!(time_of(0, 1024), Duration::ZERO);
        assert_eq!(time_of(10 << 20, 4 << 20), Duration::from_millis(2500));
        assert!(time_of(u64::MAX, 1) > Duration::from_secs(1 << 60));
    }

    #[test]
    fn what_was_removed_meanwhile_is_not_called_good() {
        let report =
            |ok, gone| Report { ok, failed: 0, gone, skipped: 0, unfinished: vec![], refused: vec![] };
        let told = |ok, gone, fulls| (report(ok, gone).summary(fulls), report(ok, gone).exit(fulls));
        assert_eq!(told(0, 2, 1), ("nothing checked: 2 removed meanwhile".into(), Exit::Usage));
        assert_eq!(told(3, 2, 1), ("3 checked, all of them restorable".into(), Exit::Success));
        assert_eq!(told(0, 0, 0), ("no backups here".into(), Exit::Usage));
        assert_eq!(told(0, 0, 1).1, Exit::Success);
    }
}
