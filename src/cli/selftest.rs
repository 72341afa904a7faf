//! `pve-diff-backup selftest`: backs up a real guest, restores it beside itself, compares.
//!
//! The original's `selftest-qemu` and `selftest-lxc`, but nothing is destroyed: archives go to a directory of
//! their own, restores to a guest id that must be free, and all is taken away again.

mod changed;
mod compare;
mod guest;
mod shell;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::DecimalBytes;

use super::exit::{Exit, Stop};
use super::say::{count, println_quietly};
use crate::backup::{BackupName, GuestKind};
use crate::host::scratch;
use guest::Guest;
use shell::Shell;

/// Exit code after a signal, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Back up a real guest with each compression, restore it beside itself, compare.
///
/// For each compression one full and one differential backup are made by vzdump, both are restored to the
/// (unused) target id, compared with the original, and removed. Backups of the guest elsewhere are not
/// touched. In between, a line is added to the guest's description and taken away at the end.
///
/// A stopped guest is compared completely. A running one keeps running; where its disks change meanwhile,
/// they cannot be compared, which is said.
///
/// With --changed-blocks, a spare VM that runs is backed up six times to a storage, by what QEMU notes of its changes; it is
/// paused for each backup, which is restored and compared while the VM stands still. Between the backups the guest's agent is
/// asked to write a file, or the disk given with --overwrite is written over. The report tells what was proved on this host,
/// and is fit to be sent to us.
///
/// Exit code: 0 all is well, 1 something failed or was left behind, 15 declined, 130 interrupted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Virtual machine to back up
    #[arg(long, value_name = "ID", required_unless_present = "lxc", conflicts_with = "lxc", value_parser = guest_id())]
    qemu: Option<u32>,
    /// Container to back up
    #[arg(long, value_name = "ID", value_parser = guest_id())]
    lxc: Option<u32>,
    /// Unused id to restore to
    #[arg(long, value_name = "ID", value_parser = guest_id())]
    target: u32,
    /// Storage for the restored disks (default: that of the original)
    #[arg(long, value_name = "STORAGE")]
    storage: Option<String>,
    /// Try the backups of a running VM that read only what changed
    #[arg(long, requires = "backups", conflicts_with_all = ["lxc", "dir", "compress"])]
    changed_blocks: bool,
    /// With --changed-blocks: storage for the backups, which has none of this VM
    #[arg(long, value_name = "STORAGE", requires = "changed_blocks")]
    backups: Option<String>,
    /// With --changed-blocks: storage for fleecing images
    #[arg(long, value_name = "STORAGE", requires = "changed_blocks")]
    fleecing: Option<String>,
    /// With --changed-blocks: disk of the VM (such as scsi1) whose content may be DESTROYED
    #[arg(long, value_name = "DISK", requires = "changed_blocks")]
    overwrite: Option<String>,
    /// Directory with room for two backups of the guest
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,
    /// Compressions to try
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ["zstd", "lzo", "gzip", "none"],
          value_parser = ["zstd", "lzo", "gzip", "none"])]
    compress: Vec<String>,
    /// Leave the backups where they were made
    #[arg(long)]
    keep: bool,
    /// Show the commands, run nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

fn guest_id() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(100..=999_999_999)
}

impl Args {
    fn guest(&self) -> Guest {
        let (kind, id) = match (self.qemu, self.lxc) {
            (Some(id), _) => (GuestKind::Qemu, id),
            (None, id) => (GuestKind::Lxc, id.unwrap_or_default()),
        };
        Guest { kind, id }
    }

    /// What --changed-blocks needs, where it is given.
    fn places(&self) -> Option<changed::Places<'_>> {
        let backups = self.backups.as_deref().filter(|_| self.changed_blocks)?;
        let (fleecing, overwrite) = (self.fleecing.as_deref(), self.overwrite.as_deref());
        Some(changed::Places { backups, fleecing, overwrite })
    }

    /// What is about to be done, for people.
    fn warning(&self, source: Guest) -> String {
        let Some(changed::Places { backups, overwrite, .. }) = self.places() else {
            return format!(
                "This self-test backs up {source} {} times into a new directory below {},\n\
                 restores it as often as VM or container {} (which does not exist now), and destroys that again.\n\
                 It needs room for two backups and for the disks of {source}, and takes its time.\n\
                 The description of {source} gets a line more while it runs.",
                2 * self.compress.len(),
                self.dir.display(),
                self.target
            );
        };
        let text = format!(
            "This self-test backs up {source} {} times to storage {backups}, pauses it for each backup,\n\
             restores it as often as VM {} (which does not exist now), destroys that, and removes the backups.\n\
             The description of {source} gets a line more while it runs.",
            changed::ROUNDS,
            self.target
        );
        text + &overwrite
            .map_or_else(String::new, |disk| format!("\nThe content of its disk {disk} is DESTROYED."))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = args.guest();
    let target = Guest { kind: source.kind, id: args.target };
    if args.dry_run {
        let shown = match args.places() {
            Some(places) => changed::dry_run(args, &places, source, target),
            None => dry_run(args, source, target),
        };
        return shown.map(|()| ExitCode::SUCCESS).map_err(Into::into);
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let shell = Shell::new(Arc::clone(&interrupted));
    preflight(args, &shell, source, target)?;
    if let Some(places) = args.places() {
        changed::preflight(&shell, &places, source)?;
    }
    confirm(args, source)?;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    if let Some(places) = args.places() {
        return changed::Trial::start(args, places, &shell, source, target)?.run();
    }
    let test = Test::start(args, &shell, source, target)?;
    let mut rows = Vec::new();
    for compression in &args.compress {
        if shell.interrupted() {
            break;
        }
        test.cycle(compression, &mut rows);
    }
    let left = test.clean_up();
    report(&rows, left, shell.interrupted())
}

/// All that must hold before anything is touched.
fn preflight(args: &Args, shell: &Shell, source: Guest, target: Guest) -> anyhow::Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the self-test must be run as root");
    ensure!(source.id != target.id, "the target must be another id than the guest's");
    let config = source.config_file();
    ensure!(config.is_file(), "there is no {source} on this node ({} does not exist)", config.display());
    if let Some(owner) = target.owner()? {
        bail!("the target id {} is in use ({}); name a free one", target.id, owner.display());
    }
    ensure!(args.dir.is_dir(), "{}: no such directory", args.dir.display());
    let help = shell.run(&guest::words(["vzdump", "help"]))?;
    if !help.contains("-fullbackup") {
        bail!(
            "vzdump does not know --fullbackup: this host is not patched, run `pve-diff-backup apply` first"
        );
    }
    Ok(())
}

/// The warning, and a question.
fn confirm(args: &Args, source: Guest) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", args.warning(source))?;
    if args.yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Stop(Exit::Declined, "not a terminal, so nobody can be asked: use --yes".into()).into());
    }
    let go = dialoguer::Confirm::new().with_prompt("Go on?").default(false).interact()?;
    if go { Ok(()) } else { Err(Stop(Exit::Declined, "nothing was done".into()).into()) }
}

/// The commands of a whole run, with patterns in place of names that only vzdump knows.
fn dry_run(args: &Args, source: Guest, target: Guest) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for compression in &args.compress {
        let dir = args.dir.join("pve-diff-backup-selftest").join(compression);
        let full = format!("vzdump-{}-{}-*", source.kind, source.id);
        for archive in [full.clone(), format!("{full}--differential-*")] {
            writeln!(out, "{}", shell::show(&source.backup(&dir, compression)))?;
            let restore = target.restore(&dir.join(archive), args.storage.as_deref());
            writeln!(out, "{}", shell::show_pattern(&restore))?;
            writeln!(out, "{}", shell::show(&target.destroy()))?;
        }
    }
    Ok(())
}

/// One line of the report.
struct Row {
    compression: String,
    what: &'static str,
    size: u64,
    backup: Duration,
    restore: Duration,
    outcome: anyhow::Result<compare::Outcome>,
}

/// A run under way: what has to be put back at its end.
struct Test<'a> {
    args: &'a Args,
    shell: &'a Shell,
    source: Guest,
    target: Guest,
    dir: tempfile::TempDir,
    description: Option<String>,
}

impl<'a> Test<'a> {
    fn start(args: &'a Args, shell: &'a Shell, source: Guest, target: Guest) -> anyhow::Result<Self> {
        let dir = scratch::private(&args.dir, "pve-diff-backup-selftest-")
            .with_context(|| format!("cannot make a directory in {}", args.dir.display()))?;
        source.let_in(dir.path())?;
        let description = source.description(shell)?;
        Ok(Test { args, shell, source, target, dir, description })
    }

    /// A full and a differential backup with one compression, restored and compared.
    fn cycle(&self, compression: &str, rows: &mut Vec<Row>) {
        let (source, target) = (self.source, self.target);
        let dir = self.dir.path().join(compression);
        let mut backups = Vec::new();
        for what in ["full", "differential"] {
            let start = Instant::now();
            let made = self.back_up(&dir, compression, what);
            backups.push((what, made, start.elapsed()));
        }
        for (what, made, backup) in backups {
            let start = Instant::now();
            let size = made.as_ref().ok().and_then(|path| fs::metadata(path).ok()).map_or(0, |m| m.len());
            let marker = self.marker(compression, what);
            let outcome = made.and_then(|path| {
                restored(self.shell, self.args, target, &path, |shell| {
                    compare::guests(shell, source, target, &marker, false)
                })
            });
            let restore = start.elapsed();
            rows.push(Row { compression: compression.to_owned(), what, size, backup, restore, outcome });
        }
        if !self.args.keep {
            // the next compression needs the room; clean_up tries again and reports
            let _ = fs::remove_dir_all(&dir);
        }
    }

    /// What the description says in one of the backups, to tell them apart.
    fn marker(&self, compression: &str, what: &str) -> String {
        format!("pve-diff-backup selftest {} {compression} {what}", self.target.id)
    }

    /// Changes the guest's configuration, has vzdump make a backup, and finds it.
    fn back_up(&self, dir: &Path, compression: &str, what: &str) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(dir)?;
        self.source.let_in(dir)?;
        let before = archives(dir)?;
        let marker = self.marker(compression, what);
        let text = self
            .description
            .iter()
            .map(String::as_str)
            .chain([marker.as_str()])
            .collect::<Vec<_>>()
            .join("\n");
        self.shell.run(&self.source.describe(Some(&text)))?;
        self.shell.run(&self.source.backup(dir, compression))?;
        let mut made = archives(dir)?;
        made.retain(|name| !before.contains(name));
        let [name] = made.as_slice() else { bail!("vzdump made {} archives instead of one", made.len()) };
        let found = match name {
            BackupName::Full(_) => "full",
            BackupName::Differential(_) => "differential",
        };
        ensure!(found == what, "vzdump made a {found} backup instead of a {what} one: {name}");
        let path = dir.join(name.as_str());
        // vzdump leaves that to the umask
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Puts everything back; tells what could not be.
    fn clean_up(self) -> Vec<String> {
        let mut left = Vec::new();
        if let Err(error) = self.shell.run_always(&self.source.describe(self.description.as_deref())) {
            left.push(format!("the description of {} could not be put back: {error:#}", self.source));
        }
        if let Ok(Some(owner)) = self.target.owner() {
            left.push(format!("{} is still there ({})", self.target, owner.display()));
        }
        let path = self.dir.path().to_owned();
        if self.args.keep {
            println_quietly(&format!("The backups are in {}", self.dir.keep().display()));
        } else if let Err(error) = self.dir.close() {
            left.push(format!("{} could not be removed: {error}", path.display()));
        }
        left
    }
}

/// Restores a backup, given by path or volume, to the target id, compares, and destroys the target.
fn restored(
    shell: &Shell,
    args: &Args,
    target: Guest,
    archive: &Path,
    compare: impl FnOnce(&Shell) -> anyhow::Result<compare::Outcome>,
) -> anyhow::Result<compare::Outcome> {
    if let Some(owner) = target.owner()? {
        bail!("the target id {} came into use: {}", target.id, owner.display());
    }
    let result = shell.run(&target.restore(archive, args.storage.as_deref())).and_then(|_| compare(shell));
    // whatever has this id now was made by the restore
    let destroyed = match target.owner() {
        Ok(Some(_)) => shell.run_always(&target.destroy()).map(|_| ()),
        other => other.map(|_| ()),
    };
    let outcome = result?;
    destroyed?;
    Ok(outcome)
}

/// The backups in a directory.
fn archives(dir: &Path) -> io::Result<Vec<BackupName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(BackupName::parse(entry?.file_name().as_bytes()));
    }
    Ok(names)
}

/// Prints the table and all that went wrong.
fn report(rows: &[Row], left: Vec<String>, interrupted: bool) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", Row::HEADING)?;
    for row in rows {
        writeln!(out, "{}", row.line())?;
    }
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    let open = rows.iter().filter(|row| matches!(row.outcome, Ok(compare::Outcome::Unknown(_)))).count();
    writeln!(out, "{}, {failed} failed", count(rows.len(), "backup"))?;
    if open > 0 {
        writeln!(
            out,
            "{open} could not be compared because the guest is running: stop it for a complete test"
        )?;
    }
    for line in &left {
        writeln!(out, "LEFT BEHIND: {line}")?;
    }
    Ok(match (interrupted, failed + left.len()) {
        (true, _) => INTERRUPTED.into(),
        (false, 0) if !rows.is_empty() => Exit::Success.into(),
        _ => Exit::Failure.into(),
    })
}

impl Row {
    const HEADING: &str = "compress  backup              size    backup   restore  result";

    fn line(&self) -> String {
        let Row { compression, what, size, backup, restore, outcome } = self;
        let result = match outcome {
            Ok(outcome) => outcome.to_string(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        let (backup, restore) = (backup.as_secs_f64(), restore.as_secs_f64());
        let size = DecimalBytes(*size).to_string();
        format!("{compression:<9} {what:<13} {size:>10} {backup:>7.1} s {restore:>7.1} s  {result}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches};

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let command = Args::augment_args(clap::Command::new("selftest"));
        Args::from_arg_matches(&command.try_get_matches_from(line.split(' '))?)
    }

    #[test]
    fn exactly_one_guest_and_a_target_are_needed() {
        let args = parse("selftest --qemu 500 --target 510").unwrap();
        assert_eq!((args.guest().kind, args.guest().id, args.target), (GuestKind::Qemu, 500, 510));
        assert_eq!(args.compress, ["zstd", "lzo", "gzip", "none"]);
        let args = parse("selftest --lxc 501 --target 511 --compress zstd,none").unwrap();
        assert_eq!((args.guest().kind, args.compress.len()), (GuestKind::Lxc, 2));
        for bad in [
            "selftest --target 510",
            "selftest --qemu 500",
            "selftest --qemu 500 --lxc 501 --target 510",
            "selftest --qemu 99 --target 510",
            "selftest --qemu 500 --target 510 --compress xz",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_line_up_under_their_heading() {
        let row = |size, outcome| Row {
            compression: "zstd".into(),
            what: "differential",
            size,
            backup: Duration::from_millis(1234),
            restore: Duration::from_secs(100),
            outcome,
        };
        let line = row(12_345_678, Ok(compare::Outcome::Same("2 disks".into()))).line();
        assert_eq!(line, "zstd      differential    12.35 MB     1.2 s   100.0 s  identical: 2 disks");
        let failed = row(0, Err(anyhow::anyhow!("no"))).line();
        assert_eq!(failed.find("FAILED: no"), Row::HEADING.find("result"));
    }
}
