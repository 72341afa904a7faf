//! `pve-diff-backup consolidate` makes differentials full backups of their own.

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
use crate::backup::consolidate::{self, Spare, Work};
use crate::backup::offsite::Wanted;
use crate::backup::writing::{Done, Tools};
use crate::backup::{BackupName, Differential, Full};
use crate::container;
use crate::text::{shown, told};
use crate::vma::Made;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The differentials; with --all-of: one directory with backups, or the name of a storage (/etc/pve/storage.cfg)
    #[arg(required = true, value_name = "FILE|DIR|STORAGE", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// All differentials of this guest, the oldest first
    ///
    /// VMID is its number, or qemu/NUMBER or lxc/NUMBER. Room is looked for before each of them; the first failure does not
    /// keep the others from being made.
    #[arg(long, value_name = "VMID", value_parser = wanted)]
    all_of: Option<Wanted>,
    /// Remove the old full backups that no differential needs any more, unless they are protected
    #[arg(long)]
    remove_full: bool,
    /// Print JSON: a line for each differential as soon as it is done, and one with the counts at the end
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

fn wanted(text: &str) -> Result<Wanted, &'static str> {
    Wanted::parse(text).ok_or("not the number of a guest, such as 101, qemu/101 or lxc/101")
}

/// A differential that is to be made a full backup.
struct Job {
    dir: PathBuf,
    differential: Differential,
}

impl Job {
    fn full(&self) -> PathBuf {
        self.dir.join(self.differential.base().as_str())
    }

    /// Estimates how many bytes are decoded and read back.
    fn expected(&self) -> u64 {
        let own = || self.full().metadata().map_or(0, |it| it.len() * 2);
        container::content_size(&self.full()).unwrap_or_else(own) * 2
    }
}

/// What is printed of one differential.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    /// `ok` or `failed`.
    result: &'static str,
    /// The name of the full backup that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    full: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The length of its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// The size of its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
    warnings: Vec<String>,
    seconds: f64,
}

impl Finding {
    fn new(job: &Job, result: anyhow::Result<Done>, seconds: f64) -> Finding {
        let file = job.differential.as_str().to_owned();
        match result {
            Ok(Done { full, bytes, content, stored, warnings }) => Finding {
                file,
                result: "ok",
                full: Some(full.as_str().to_owned()),
                error: None,
                bytes: Some(bytes),
                content: Some(content.to_string()),
                stored: Some(stored),
                warnings,
                seconds,
            },
            Err(error) => Finding {
                file,
                result: "failed",
                full: None,
                error: Some(told(error.as_ref())),
                bytes: None,
                content: None,
                stored: None,
                warnings: Vec::new(),
                seconds,
            },
        }
    }

    fn line(&self) -> String {
        let Finding { file, seconds, .. } = self;
        match self {
            Finding { full: Some(full), bytes: Some(bytes), content: Some(content), stored, .. } => format!(
                "OK    {full} ({content}, {}, stored {}, {seconds:.1} s) in place of {file}",
                DecimalBytes(*bytes),
                DecimalBytes(stored.unwrap_or(0))
            ),
            Finding { error, .. } => format!("FAIL  {file}: {}", error.as_deref().unwrap_or_default()),
        }
    }
}

/// What is printed of a full backup that nothing needs any more.
#[derive(Debug, Serialize)]
struct Unneeded {
    file: String,
    size: u64,
    protected: bool,
    removed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Unneeded {
    fn line(&self) -> String {
        let Unneeded { file, size, protected, removed, error } = self;
        let size = DecimalBytes(*size);
        match error {
            _ if *removed => format!("GONE  {file} ({size}): removed, as no differential needed it any more"),
            Some(error) => format!("STAYS {file} ({size}): {error}"),
            None if *protected => {
                format!("SPARE {file} ({size}): no differential needs it any more, but it is protected")
            }
            None => format!(
                "SPARE {file} ({size}): no differential needs it any more; it stays as the backup of its own day \
                 (--remove-full removes it)"
            ),
        }
    }
}

/// The counts, as JSON has them.
#[derive(Debug, Serialize)]
struct Report {
    ok: usize,
    failed: usize,
    unneeded: Vec<Unneeded>,
}

impl Report {
    fn summary(&self) -> String {
        let done = count(self.ok, "differential");
        match self.failed {
            0 => format!("{done} made full backups"),
            failed => format!("{done} made full backups, {failed} NOT"),
        }
    }

    fn exit(&self) -> Exit {
        let stays = self.unneeded.iter().any(|it| it.error.is_some());
        if self.failed > 0 || stays { Exit::Failure } else { Exit::Success }
    }
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
    let sizes: Vec<u64> = jobs.iter().map(Job::expected).collect();
    let progress = Progress::new(!args.quiet, Some(sizes.iter().sum()));
    let tools = Tools {
        open: &archive::open,
        compress: &with_map(processors()),
        has_map: &has_map,
        fits: &fits,
        passed: passed(&progress, args.bwlimit),
        made: &made,
    };
    let mut report = Report { ok: 0, failed: 0, unneeded: Vec::new() };
    let mut end = 0;
    let (mut replaced, mut failed) = (Vec::new(), Vec::new());
    for ((job, size), number) in jobs.iter().zip(sizes).zip(1..) {
        progress.at(job.differential.as_str(), Some((number, jobs.len())));
        let begun = Instant::now();
        let result = Work::new(&job.dir, &job.differential).and_then(|work| work.run(&tools));
        if let (Ok(done), Some(results)) = (&result, &results) {
            note(results, &job.dir, &done.full);
        }
        if result.is_ok() { &mut replaced } else { &mut failed }.push(job);
        end += size;
        progress.reached(end);
        let finding = Finding::new(job, result, begun.elapsed().as_secs_f64());
        *if finding.error.is_none() { &mut report.ok } else { &mut report.failed } += 1;
        for warning in finding.warnings.iter().filter(|_| !args.json) {
            progress.suspend(|| say!("{}: warning: {warning}", finding.file));
        }
        let line = if args.json { serde_json::to_string(&finding)? } else { finding.line() };
        progress.suspend(|| chat(&mut io::stdout(), format!("{line}\n").as_bytes()))?;
    }
    progress.end();
    report.unneeded = unneeded(&replaced, &failed, args.remove_full);
    let text = match args.json {
        true => serde_json::to_string(&report)? + "\n",
        false => {
            let lines = report.unneeded.iter().map(|it| it.line() + "\n");
            lines.chain([report.summary() + "\n"]).collect()
        }
    };
    chat(&mut io::stdout(), text.as_bytes())?;
    Ok(report.exit().into())
}

/// Finds the full backups that no differential needs any more, and removes them if that is wanted. Those of differentials that
/// could not be `replaced` are left out.
fn unneeded(replaced: &[&Job], failed: &[&Job], remove: bool) -> Vec<Unneeded> {
    let mut dirs: Vec<&Path> = replaced.iter().map(|job| job.dir.as_path()).collect();
    dirs.dedup();
    let mut found = Vec::new();
    for dir in dirs {
        let of_dir = replaced.iter().filter(|job| job.dir == dir).map(|job| job.differential.base());
        // A directory may be named in two ways, so that the one of a failure is not asked for.
        let has_failed = |full: &Full| failed.iter().any(|job| job.differential.base().is_content_of(full));
        let needed: Vec<Full> = of_dir.filter(|full| !has_failed(full)).cloned().collect();
        let spare = match consolidate::spare(dir, &needed) {
            Ok(spare) => spare,
            Err(error) => {
                say!("{}: cannot tell which full backups are needed: {error}", shown(dir));
                continue;
            }
        };
        for Spare { full, size, is_protected, doubt } in spare {
            let file = full.as_str().to_owned();
            if let Some(doubt) = doubt {
                // Where nothing is to be removed, it is no news that it stays.
                if remove {
                    let error = Some(doubt.to_string());
                    found.push(Unneeded { file, size, protected: is_protected, removed: false, error });
                }
                continue;
            }
            let result = (remove && !is_protected).then(|| consolidate::remove(dir, &full));
            let removed = matches!(result, Some(Ok(())));
            let error = result.and_then(Result::err).map(|error| told(error.as_ref()));
            found.push(Unneeded { file, size, protected: is_protected, removed, error });
        }
    }
    found
}

/// Finds the differentials that the arguments name.
fn jobs(args: &Args, root: &Path) -> anyhow::Result<Vec<Job>> {
    let Some(wanted) = args.all_of else {
        return args.paths.iter().map(|path| one(path)).collect();
    };
    let [path] = &args.paths[..] else {
        bail!(
            "--all-of: name one directory or storage; several may have backups of another guest of that number"
        )
    };
    let dir = directory(path, root)?;
    let directory =
        scan(&dir).map_err(|error| anyhow::anyhow!("{}: {}", shown(&dir), missing(&dir, &error)))?;
    let chains = directory.chains.iter().filter(|chain| wanted.is(chain.full.guest()));
    let of_chains = chains.flat_map(|chain| &chain.differentials);
    // Those whose full is missing are refused one by one, so that people learn of them.
    let stranded = directory.orphans.iter().filter(|it| wanted.is(it.base().guest()));
    let mut found: Vec<Differential> = of_chains.chain(stranded).cloned().collect();
    found.sort_by_key(|it| (it.base().guest(), it.stamp()));
    if found.is_empty() {
        bail!("{}: there is no differential of that guest", shown(&directory.path));
    }
    let job = |differential| Job { dir: directory.path.clone(), differential };
    Ok(found.into_iter().map(job).collect())
}

/// The differential at a path.
fn one(path: &Path) -> anyhow::Result<Job> {
    if let Err(error) = path.symlink_metadata() {
        bail!("{}: {}", shown(path), missing(path, &error));
    }
    let dir = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match backup_name(path) {
        Some(BackupName::Differential(differential)) => Ok(Job { dir: dir.to_owned(), differential }),
        Some(BackupName::Full(_)) => bail!("{}: a full backup already", shown(path)),
        None if path.is_dir() => {
            bail!("{}: a directory: which guest's differentials are meant? --all-of VMID tells", shown(path))
        }
        None => bail!(
            "{}: not the name of a differential (FULL--differential-DATE.vcdiff…), from which its full and date are known",
            shown(path)
        ),
    }
}
