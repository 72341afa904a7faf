//! `pve-diff-backup add-map` gives full backups a map.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use indicatif::DecimalBytes;
use serde::Serialize;

use super::archive::{self, processors};
use super::exit::Exit;
use super::fulls::{fits, has_map, note, passed, with_map};
use super::places::{backup_name, directory, missing, needs_root, scan};
use super::progress::Progress;
use super::results::ResultsFile;
use super::say::{chat, count, say};
use super::signals::remove_on_signals;
use crate::backup::add_map::add_map;
use crate::backup::names::Compression;
use crate::backup::writing::{Done, Tools};
use crate::backup::{BackupName, Full};
use crate::text::{shown, told};
use crate::vma::Made;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Full backups (.zst); or directories with backups, or names of storages (/etc/pve/storage.cfg): all full backups there
    /// whose names end in .zst
    #[arg(required = true, value_name = "FILE|DIR|STORAGE", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Print JSON: a line for each full backup as soon as it is done, and one with the counts at the end
    #[arg(long)]
    json: bool,
    /// Read no more than this many KiB a second of what is decoded; each backup is decoded, and then read back
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(1..))]
    bwlimit: Option<u64>,
    #[command(flatten)]
    results: ResultsFile,
    /// Show no progress (there is some on a terminal only)
    #[arg(long, short)]
    quiet: bool,
}

/// A full backup that is to have a map.
struct Job {
    dir: PathBuf,
    full: Full,
}

/// What is printed of one full backup.
#[derive(Debug, Default, Serialize)]
struct Finding {
    file: String,
    /// `ok`, `had` (it had a map already), or `failed`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The length of its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// The size of its file, before and now.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
    warnings: Vec<String>,
    seconds: f64,
}

impl Finding {
    fn new(job: &Job, before: Option<u64>, result: anyhow::Result<Option<Done>>, seconds: f64) -> Finding {
        let finding = Finding { file: job.full.as_str().to_owned(), seconds, ..Finding::default() };
        match result {
            Ok(Some(Done { bytes, content, stored, warnings, .. })) => Finding {
                result: "ok",
                bytes: Some(bytes),
                content: Some(content.to_string()),
                before,
                stored: Some(stored),
                warnings,
                ..finding
            },
            Ok(None) => Finding { result: "had", ..finding },
            Err(error) => Finding { result: "failed", error: Some(told(error.as_ref())), ..finding },
        }
    }

    fn line(&self) -> String {
        let Finding { file, seconds, content, bytes, before, stored, error, .. } = self;
        let size = |bytes: &Option<u64>| DecimalBytes(bytes.unwrap_or(0)).to_string();
        match self.result {
            "ok" => format!(
                "OK    {file} ({}, {}, stored {}, before {}, {seconds:.1} s)",
                content.as_deref().unwrap_or_default(),
                size(bytes),
                size(stored),
                size(before)
            ),
            "had" => format!("HAD   {file}: it has a map already"),
            _ => format!("FAIL  {file}: {}", error.as_deref().unwrap_or_default()),
        }
    }
}

/// The counts, as JSON has them.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: usize,
    had: usize,
    failed: usize,
}

/// Runs the command. `root` is the host whose storages may be named.
pub fn run(args: &Args, root: &Path) -> anyhow::Result<ExitCode> {
    needs_root(&args.paths, root)?;
    let jobs = match jobs(args, root) {
        Ok(jobs) => jobs,
        Err(error) => {
            say!("{error:#}");
            return Ok(Exit::Usage.into());
        }
    };
    let made = Made::default();
    remove_on_signals(&made)?;
    let results = args.results.path(root);
    // How long the content is, nobody knows: it is read to its end, and then read back.
    let progress = Progress::new(!args.quiet, None);
    let tools = Tools {
        open: &archive::open,
        compress: &with_map(processors()),
        has_map: &has_map,
        fits: &fits,
        passed: passed(&progress, args.bwlimit),
        made: &made,
    };
    let mut report = Report::default();
    for (job, number) in jobs.iter().zip(1..) {
        progress.at(job.full.as_str(), Some((number, jobs.len())));
        let begun = Instant::now();
        let before = job.dir.join(job.full.as_str()).metadata().ok().map(|it| it.len());
        let result = add_map(&job.dir, &job.full, &tools);
        if let (Ok(Some(_)), Some(results)) = (&result, &results) {
            note(results, &job.dir, &job.full);
        }
        let finding = Finding::new(job, before, result, begun.elapsed().as_secs_f64());
        match finding.result {
            "ok" => report.ok += 1,
            "had" => report.had += 1,
            _ => report.failed += 1,
        }
        for warning in finding.warnings.iter().filter(|_| !args.json) {
            progress.suspend(|| say!("{}: warning: {warning}", finding.file));
        }
        let line = if args.json { serde_json::to_string(&finding)? } else { finding.line() };
        progress.suspend(|| chat(&mut io::stdout(), format!("{line}\n").as_bytes()))?;
    }
    progress.end();
    let Report { ok, had, failed } = report;
    let text = match args.json {
        true => serde_json::to_string(&report)?,
        false if failed > 0 => format!("{} got a map, {had} had one, {failed} NOT", count(ok, "full backup")),
        false => format!("{} got a map, {had} had one", count(ok, "full backup")),
    };
    chat(&mut io::stdout(), format!("{text}\n").as_bytes())?;
    Ok(if failed > 0 { Exit::Failure } else { Exit::Success }.into())
}

/// Finds the full backups that the arguments name.
fn jobs(args: &Args, root: &Path) -> anyhow::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for path in &args.paths {
        match backup_name(path) {
            Some(BackupName::Full(full)) => {
                if let Err(error) = path.symlink_metadata() {
                    bail!("{}: {}", shown(path), missing(path, &error));
                }
                let dir = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
                jobs.push(Job { dir: dir.to_owned(), full });
            }
            Some(BackupName::Differential(_)) => bail!("{}: a differential needs no map", shown(path)),
            None => jobs.extend(in_directory(path, root)?),
        }
    }
    Ok(jobs)
}

fn in_directory(path: &Path, root: &Path) -> anyhow::Result<Vec<Job>> {
    let dir = directory(path, root)?;
    let found = scan(&dir).map_err(|error| anyhow::anyhow!("{}: {}", shown(&dir), missing(&dir, &error)))?;
    let fulls = found.chains.into_iter().map(|chain| chain.full);
    let zstd = fulls.filter(|full| full.compression() == Compression::Zstd);
    let jobs: Vec<Job> = zstd.map(|full| Job { dir: found.path.clone(), full }).collect();
    if jobs.is_empty() {
        bail!("{}: there are no full backups whose names end in .zst", shown(&found.path));
    }
    Ok(jobs)
}
