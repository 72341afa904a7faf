//! `pve-diff-backup verify`, also called as `pve-verify-backups`, tells whether every differential can be restored.

mod arguments;
mod checks;
mod finding;
mod notes;
mod orphans;
mod proofs;
mod report;
mod schedule;
mod throttle;
mod unpacking;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as _;

use self::arguments::Left;
use self::notes::Notes;
use super::VERIFY_NAME;
use super::exit::Exit;
use super::places::needs_root;
use super::results::ResultsFile;
use super::say::{chat, say};
use crate::host::priority;

/// What is meant where no path is given.
const HERE: &str = ".";

/// The most chains that are checked at the same time.
const JOBS: u64 = 32;

/// Decode every differential backup to its last byte and check the archive that comes out.
///
/// Each differential of the directories is decoded against its full, as a restore would do, and the
/// structure of the VMA or tar stream is checked. One line each is printed: OK or FAIL with the reason.
///
/// Exit code: 0 all are well (those that were found good before included); 1 some cannot be restored, or, with --orphans,
/// something belongs to no chain; 2 nothing was there to check, not all that was named could be, or wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of storages (/etc/pve/storage.cfg), directories with backups, or single backups
    ///
    /// A name without a slash is that of a storage, if there is one: a folder here of the same name is ./NAME. If a
    /// directory has no backups but a folder `dump`, that folder is meant. Logs and notes among the arguments are
    /// passed over. What cannot be checked is named, and all else is checked.
    #[arg(value_name = "PATH", default_value = HERE, value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Check full backups too
    #[arg(long, short)]
    all: bool,
    /// Print JSON: a line for each backup as soon as it is checked, and one with the counts at the end
    #[arg(long)]
    json: bool,
    /// Pass over what was found good within --max-age and is unchanged since: the same file and full, by size, inode
    /// and time
    #[arg(long, group = "resuming")]
    resume: bool,
    /// How many days a good result holds for --resume, and for the runs of --enable
    #[arg(long, value_name = "DAYS", default_value_t = 30, requires = "resuming")]
    max_age: u32,
    /// Decode no more than this many KiB a second; about as much is read at most
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(1..))]
    bwlimit: Option<u64>,
    /// Check so many chains at the same time (a full and its differentials are one)
    ///
    /// The processors are shared among them. Each job takes about 200 MiB of memory. --bwlimit is for all together.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=JOBS))]
    jobs: u64,
    /// Priority on the disk, as vzdump's option: 8 only when nobody else wants it (idle), else 0 (first) to 7
    ///
    /// It counts where the disk's scheduler knows priorities, such as BFQ.
    #[arg(long, value_name = "N", value_parser = levels())]
    ionice: Option<u8>,
    /// Only list what belongs to no chain: leftovers of killed jobs, differentials without their full, unreadable names
    ///
    /// Nothing is decoded, and nothing is removed. Each line says what to do.
    #[arg(long, conflicts_with_all = ["all", "resume", "max_age", "bwlimit", "jobs", "ionice", "results", "quiet", "restore"])]
    orphans: bool,
    /// Prove that they restore, and tell what a restore gives: one line for each guest at the end
    ///
    /// Of a VM, all clusters of each disk are put in their places, and the partition tables and file systems that their
    /// beginnings show are named. Of a container, the files are counted. Nothing is written for that. `chains` shows when
    /// it was proved last, and with --resume it is not proved again within --max-age.
    #[arg(long)]
    restore: bool,
    /// With --restore: unpack containers too, by tar into a temporary folder that is removed again
    ///
    /// The free space is checked before. Files below /dev are left out, and without root, owners are.
    #[arg(long, requires = "restore")]
    extract: bool,
    /// With --extract: where temporary folders are made (else in /var/lib/pve-diff-backup, or where TMPDIR says)
    #[arg(long, value_name = "DIR", requires = "extract", value_hint = clap::ValueHint::DirPath)]
    scratch: Option<PathBuf>,
    /// Have systemd verify the backups on this node's storages every day, fulls included
    ///
    /// The runs take --max-age, --bwlimit, --jobs, --ionice, --restore, --extract and --scratch as they are given here. What was found is in the journal
    /// (journalctl -u pve-diff-backup-verify) and in `chains`; failures, and that all is well, are told by Proxmox VE's
    /// notifications (type pve-diff-backup), before Proxmox VE 8.1 failures by a mail to root. A storage that several nodes
    /// share needs it on one of them. `systemctl edit pve-diff-backup-verify.timer` changes the time.
    #[arg(long, group = "resuming", conflicts_with_all = ["paths", "all", "json", "resume", "results", "quiet", "orphans"])]
    enable: bool,
    /// Have systemd no longer verify backups
    #[arg(long, exclusive = true)]
    disable: bool,
    /// With --enable: look at this storage, not at all of this node; may be given more than once
    #[arg(long, value_name = "ID", requires = "enable")]
    storage: Vec<String>,
    /// Behave as a run that systemd started
    #[arg(long, hide = true, conflicts_with_all = ["json", "enable", "orphans"])]
    scheduled: bool,
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

/// The values of `--ionice`.
fn levels() -> clap::builder::RangedI64ValueParser<u8> {
    let (first, last) = priority::LEVELS.into_inner();
    clap::value_parser!(u8).range(i64::from(first)..=i64::from(last))
}

/// Runs the command. `root` is the host whose storages may be named.
pub fn run(args: &Args, root: &Path) -> anyhow::Result<ExitCode> {
    match args {
        Args { enable: true, .. } => return schedule::enable(args, root),
        Args { disable: true, .. } => return schedule::disable(root),
        _ => needs_root(&args.paths, root)?,
    }
    if args.orphans {
        return orphans::list(arguments::collect(&args.paths, false, root), args.json);
    }
    let trusted = args.resume.then(|| Duration::from_secs(u64::from(args.max_age) * 86_400));
    let notes = Notes::open(&args.results, root, trusted)?;
    // All other threads are started later, and inherit it.
    if let Some(level) = args.ionice {
        priority::set_io_priority(level)
            .unwrap_or_else(|reason| say!("warning: the priority on the disk stays as it was: {reason}"));
    }
    let found = match args.paths.as_slice() {
        [path] if args.scheduled && path == Path::new(HERE) => {
            arguments::collect(&schedule::storages(root)?, args.all, root)
        }
        paths => arguments::collect(paths, args.all, root),
    };
    if !args.json {
        for Left { file, advice } in &found.left {
            chat(&mut io::stdout(), format!("LEFT  {file}: {advice}\n").as_bytes())?;
        }
    }
    let fulls = found.fulls;
    let mut report = checks::all(found, args, &notes)?;
    if !args.restore {
        // Nobody asked what restores give.
        report.guests.clear();
    }
    if !args.json {
        for proof in &report.guests {
            chat(&mut io::stdout(), format!("{}\n", proof.line()).as_bytes())?;
        }
    }
    let told = match args.json {
        true => serde_json::to_string(&report)?,
        false if args.scheduled && !report.is_well() => {
            format!("{}{}", schedule::ERROR, report.summary(fulls))
        }
        false => report.summary(fulls),
    };
    chat(&mut io::stdout(), format!("{told}\n").as_bytes())?;
    if args.scheduled {
        schedule::tell(root, &report, fulls)?;
        // Where there is nothing to verify yet, nothing is wrong.
        return Ok(if report.is_well() { Exit::Success } else { report.exit(fulls) }.into());
    }
    Ok(report.exit(fulls).into())
}
