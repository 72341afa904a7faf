//! `selftest --changed-blocks`: backups of a running VM that read only what QEMU noted as changed, each restored and compared.
//!
//! The VM is paused from before each backup until it is compared, so that its disks are what the backup must hold. What changes
//! in between is the guest's own work, asked for through its agent, or written over a disk that may be destroyed.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::compare::{self, Outcome};
use super::guest::{Guest, words};
use super::shell::{self, Shell};
use super::{Args, INTERRUPTED, restored};
use crate::cli::exit::Exit;
use crate::cli::say::{count, println_quietly};
use crate::host::root::Root;
use crate::host::settings;
use crate::text::shown;

/// Backups that are made: a full one, and enough differentials for an audit among them (`changed-blocks-audit: 2`).
pub(super) const ROUNDS: usize = 6;

/// How long the guest may work by itself where nothing makes it write.
const REST: Duration = Duration::from_secs(10);

/// Places of a disk that are written over between two backups.
const PLACES: u64 = 8;

/// What the guest's agent is asked to run: a few MiB in its own file system. It fails on a guest without a shell.
const WORK: &str = "dd if=/dev/urandom of=/var/tmp/pve-diff-backup-selftest bs=64k count=100 && sync";

/// The words of the trial's commands that are not the same for all.
pub(super) struct Places<'a> {
    /// Storage for the backups.
    pub(super) backups: &'a str,
    /// Storage for fleecing images; the job has no fleecing without it.
    pub(super) fleecing: Option<&'a str>,
    /// Disk of the VM that is written over.
    pub(super) overwrite: Option<&'a str>,
}

impl Places<'_> {
    /// The backup of a VM: full if its storage has none, differential after that.
    fn backup(&self, source: Guest) -> Vec<std::ffi::OsString> {
        let id = source.id.to_string();
        let mut command = words(["vzdump", &id, "--mode", "snapshot", "--storage", self.backups]);
        command.extend(words(["--compress", "zstd", "--fullbackup", "30", "--prune-backups", "keep-all=1"]));
        if let Some(storage) = self.fleecing {
            let fleecing = format!("enabled=1,storage={storage}");
            command.extend(words(["--fleecing", &fleecing]));
        }
        command
    }

    /// Writes over part of a disk, as the guest would: through QEMU, which notes it.
    fn write(&self, source: Guest, disk: &str, at: u64) -> Vec<std::ffi::OsString> {
        let api = format!("/nodes/localhost/qemu/{}/monitor", source.id);
        // what a device of virtio-blk writes through lies below it
        let device = match disk.starts_with("virtio") {
            true => format!("/machine/peripheral/{disk}/virtio-backend"),
            false => disk.to_owned(),
        };
        let line = format!("qemu-io -d {device} \"write -P {} {at} 4k\"", at / 4096 % 255 + 1);
        words(["pvesh", "create", &api, "--command", &line])
    }
}

/// Shows the commands of a whole trial, with a pattern in place of the names that only vzdump knows.
pub(super) fn dry_run(args: &Args, places: &Places, source: Guest, target: Guest) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let archive = format!("{}:backup/vzdump-qemu-{}-*", places.backups, source.id);
    for command in [
        source.pause(true),
        places.backup(source),
        target.restore(Path::new(&archive), args.storage.as_deref()),
        target.destroy(),
        source.pause(false),
    ] {
        writeln!(out, "{}", shell::show_pattern(&command))?;
    }
    writeln!(out, "({ROUNDS} times, with work in the VM in between)")
}

/// Checks what must hold for the trial before anything is touched.
pub(super) fn preflight(shell: &Shell, places: &Places, source: Guest) -> anyhow::Result<()> {
    let Places { backups, overwrite, .. } = places;
    ensure!(
        source.is_running(shell)?,
        "{source} does not run, and what changes is noted of running ones only: start it"
    );
    if settings::value(&Root::open(Path::new("/"))?, backups, settings::CHANGED_BLOCKS) == "off" {
        bail!(
            "{0} is off for storage '{backups}': write the line '{0}: fleecing' into /{1}",
            settings::CHANGED_BLOCKS,
            settings::PATHS[0]
        );
    }
    if let Some(first) = volumes(shell, backups, source)?.first() {
        bail!(
            "storage '{backups}' has backups of {source} already, such as {}: take a spare VM or another storage",
            shown(first)
        );
    }
    if let Some(disk) = overwrite {
        let config = source.config()?;
        ensure!(
            config.disks().iter().any(|(key, _)| key == disk),
            "{source} has no disk '{}' that is backed up",
            shown(disk)
        );
    }
    Ok(())
}

/// The volumes of a VM's backups on a storage, oldest first.
fn volumes(shell: &Shell, storage: &str, guest: Guest) -> anyhow::Result<Vec<String>> {
    let id = guest.id.to_string();
    let list = shell.run_always(&words(["pvesm", "list", storage, "--content", "backup", "--vmid", &id]))?;
    let start = format!("{storage}:");
    let first =
        |line: &str| line.split_whitespace().next().filter(|it| it.starts_with(&start)).map(str::to_owned);
    let mut found: Vec<_> = list.lines().filter_map(first).collect();
    found.sort();
    Ok(found)
}

/// Which way a backup went, by its log.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// A full backup.
    Full,
    /// Only what changed was read; how much of how much.
    Changed(String),
    /// Everything was read although it was certain what changed, and QEMU had noted all of it.
    Audited,
    /// Everything was read, and why.
    All(String),
}

impl Way {
    /// Reads a job's log, whose phrases are in docs/task-log.md.
    fn of(log: &str) -> Way {
        let behind = |phrase: &str| {
            log.lines().find_map(|line| line.split_once(phrase).map(|(_, rest)| rest.trim().to_owned()))
        };
        if let Some(missed) = behind("WARN: audit: ") {
            return Way::All(format!("audit: {missed}"));
        }
        match behind("everything is read: ") {
            Some(_) if behind("audit: nothing changed that was not noted").is_some() => Way::Audited,
            Some(why) => Way::All(why),
            None if behind("reading only what changed since ").is_some() => {
                let read = behind("INFO: changed blocks: ").map(|_| {
                    let all = log.lines().filter_map(|line| line.split_once("INFO: changed blocks: "));
                    let sum = all.map(|(_, rest)| rest).find(|rest| rest.contains(" read ("));
                    sum.and_then(|it| it.split(" read (").next()).unwrap_or_default().to_owned()
                });
                Way::Changed(read.unwrap_or_default())
            }
            None => Way::Full,
        }
    }

    /// What is wrong with it that the backup with this number, from 0 on, went this way; `is_written` tells that something
    /// was certainly written since the one before.
    fn fault(&self, number: usize, is_written: bool) -> Option<&'static str> {
        match self {
            Way::Full => (number > 0).then_some("it should be a differential"),
            Way::Changed(read) if is_written && read.starts_with("0 B ") => {
                Some("QEMU noted nothing of what was written")
            }
            Way::Changed(_) | Way::Audited => (number == 0).then_some("it should be a full backup"),
            Way::All(_) => Some("it should read only what changed"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Full => f.write_str("full backup"),
            Way::Changed(read) => write!(f, "only what changed: {read}"),
            Way::Audited => f.write_str("everything, an audit: all was noted"),
            Way::All(why) => write!(f, "everything: {why}"),
        }
    }
}

/// One line of the report.
struct Row {
    way: Option<Way>,
    time: Duration,
    outcome: anyhow::Result<Outcome>,
}

/// A trial under way: what has to be put back at its end.
pub(super) struct Trial<'a> {
    args: &'a Args,
    places: Places<'a>,
    shell: &'a Shell,
    source: Guest,
    target: Guest,
    description: Option<String>,
    /// Volumes of the backups, oldest first.
    made: Vec<String>,
    is_paused: bool,
    /// How the VM was made to write.
    work: &'static str,
}

impl<'a> Trial<'a> {
    pub(super) fn start(
        args: &'a Args,
        places: Places<'a>,
        shell: &'a Shell,
        source: Guest,
        target: Guest,
    ) -> anyhow::Result<Self> {
        let description = source.description(shell)?;
        let work = "by what the guest did by itself";
        Ok(Trial {
            args,
            places,
            shell,
            source,
            target,
            description,
            made: Vec::new(),
            is_paused: false,
            work,
        })
    }

    /// Makes all backups, puts everything back, and reports.
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        let facts = self.facts();
        let mut rows = Vec::new();
        for number in 0..ROUNDS {
            if self.shell.interrupted() {
                break;
            }
            let row = self.round(number);
            let is_over = row.way.is_none();
            rows.push(row);
            if is_over {
                break;
            }
        }
        let left = self.clean_up();
        report(&facts, self.work, &rows, &left, self.shell.interrupted())
    }

    /// One backup: work, pause, back up, restore, compare, resume.
    fn round(&mut self, number: usize) -> Row {
        let start = Instant::now();
        let mut way = None;
        let outcome = self.backed_up(number, &mut way);
        let resumed = self.pause(false);
        let outcome = outcome.and_then(|outcome| resumed.map(|()| outcome));
        Row { way, time: start.elapsed(), outcome }
    }

    fn backed_up(&mut self, number: usize, way: &mut Option<Way>) -> anyhow::Result<Outcome> {
        if number > 0 {
            self.make_it_write(number)?;
        }
        let marker = format!("pve-diff-backup selftest {} round {}", self.target.id, number + 1);
        let text: Vec<_> = self.description.iter().map(String::as_str).chain([marker.as_str()]).collect();
        self.shell.run(&self.source.describe(Some(&text.join("\n"))))?;
        self.pause(true)?;
        let log = self.shell.run(&self.places.backup(self.source))?;
        let mut now = volumes(self.shell, self.places.backups, self.source)?;
        now.retain(|volume| !self.made.contains(volume));
        let [volume] = now.as_slice() else { bail!("vzdump made {} backups instead of one", now.len()) };
        self.made.push(volume.clone());
        let found = way.insert(Way::of(&log));
        let fault = found.fault(number, self.places.overwrite.is_some());
        let outcome = restored(self.shell, self.args, self.target, Path::new(volume), |shell| {
            compare::guests(shell, self.source, self.target, &marker, true)
        })?;
        match fault {
            None => Ok(outcome),
            Some(fault) => bail!("{outcome}, but {fault}"),
        }
    }

    fn pause(&mut self, on: bool) -> anyhow::Result<()> {
        if self.is_paused != on {
            self.shell.run_always(&self.source.pause(on))?;
            self.is_paused = on;
        }
        Ok(())
    }

    /// Has something written in the VM: over the disk that was named, else by the guest's agent, else by nobody.
    fn make_it_write(&mut self, number: usize) -> anyhow::Result<()> {
        if let Some(disk) = self.places.overwrite {
            self.work = "by writing over the disk";
            for place in 0..PLACES {
                // within the first 2 MiB, so that any disk will do
                let at = (place * 7 + number as u64 * 13) % 512 * 4096;
                let said = self.shell.run(&self.places.write(self.source, disk, at))?;
                let complains = ["failed", "rror", "not found"].iter().any(|word| said.contains(word));
                ensure!(!complains, "QEMU does not write over {disk}: {}", shown(said.trim()));
            }
            return Ok(());
        }
        let id = self.source.id.to_string();
        let asked = self.shell.status(&words(["qm", "guest", "exec", &id, "--", "/bin/sh", "-c", WORK]))?;
        if asked.0 == Some(0) && asked.1.contains("\"exitcode\" : 0") {
            self.work = "through the guest's agent";
        } else {
            println_quietly("No agent answers in the guest, so what changes is what it does by itself.");
            std::thread::sleep(REST);
        }
        Ok(())
    }

    /// What this host is, and what the VM has that a report should tell.
    fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        let wanted = ["pve-manager:", "qemu-server:", "pve-qemu-kvm:", "libpve-storage-perl:"];
        if let Ok((Some(0), text)) = self.shell.status(&words(["pveversion", "-v"])) {
            let lines = text.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
            facts.push(lines.map(str::trim).collect::<Vec<_>>().join(", "));
        }
        let id = self.source.id.to_string();
        if let Ok((Some(0), text)) = self.shell.status(&words(["qm", "status", &id, "--verbose"])) {
            facts.extend(text.lines().find(|line| line.starts_with("running-qemu:")).map(str::to_owned));
        }
        if let Ok(config) = self.source.config() {
            for (key, value) in config.disk_lines() {
                let storage = value.split(':').next().unwrap_or_default();
                let thread = if value.contains("iothread=1") { ", with an iothread" } else { "" };
                facts.push(format!("{key}: on {}{thread}", self.storage(storage)));
            }
        }
        facts.push(match self.places.fleecing {
            Some(storage) => format!("fleecing: on {}", self.storage(storage)),
            None => "fleecing: none in the job".to_owned(),
        });
        facts.push(format!("backups: on {}", self.storage(self.places.backups)));
        facts
    }

    /// A storage and its type.
    fn storage(&self, id: &str) -> String {
        let asked =
            self.shell.status(&words(["pvesh", "get", &format!("/storage/{id}"), "--output-format", "json"]));
        let kind = asked.ok().and_then(|(_, text)| {
            let json = text.lines().find(|line| line.starts_with('{'))?;
            let value: serde_json::Value = serde_json::from_str(json).ok()?;
            value["type"].as_str().map(str::to_owned)
        });
        format!(
            "{} ({})",
            shown(id),
            shown(kind.as_deref().unwrap_or("of a type that Proxmox VE does not tell"))
        )
    }

    /// Puts everything back; tells what could not be.
    fn clean_up(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        if let Err(error) = self.pause(false) {
            left.push(format!("{} is paused still: {error:#}", self.source));
        }
        if let Err(error) = self.shell.run_always(&self.source.describe(self.description.as_deref())) {
            left.push(format!("the description of {} could not be put back: {error:#}", self.source));
        }
        if let Ok(Some(owner)) = self.target.owner() {
            left.push(format!("{} is still there ({})", self.target, owner.display()));
        }
        if self.args.keep {
            println_quietly(&format!(
                "The backups are on storage {}: {}",
                self.places.backups,
                self.made.join(" ")
            ));
            return left;
        }
        // differentials first
        for volume in self.made.iter().rev() {
            if let Err(error) = self.shell.run_always(&words(["pvesm", "free", volume])) {
                left.push(format!("{volume} could not be removed: {error:#}"));
            }
        }
        // There was none before, but another job may have made one meanwhile: it is named, not removed.
        for volume in volumes(self.shell, self.places.backups, self.source).unwrap_or_default() {
            if !self.made.contains(&volume) {
                left.push(format!(
                    "{} is a backup of {} that this test did not count",
                    shown(&volume),
                    self.source
                ));
            }
        }
        left
    }
}

/// Prints what was proved, fit to be sent to us.
fn report(
    facts: &[String],
    work: &str,
    rows: &[Row],
    left: &[String],
    interrupted: bool,
) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    writeln!(out, "\npve-diff-backup {}, selftest --changed-blocks", env!("CARGO_PKG_VERSION"))?;
    for fact in facts {
        writeln!(out, "  {fact}")?;
    }
    writeln!(out, "  changed between the backups: {work}\n\nbackup     time  result; what was read")?;
    for (number, row) in rows.iter().enumerate() {
        writeln!(out, "{}", row.line(number + 1))?;
    }
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    let audited = rows.iter().any(|row| row.way == Some(Way::Audited));
    writeln!(out, "{}, {failed} failed", count(rows.len(), "backup"))?;
    if !audited {
        writeln!(
            out,
            "There was no audit among them: that takes the line 'changed-blocks-audit: 2' in /{}",
            settings::PATHS[0]
        )?;
    }
    for line in left {
        writeln!(out, "LEFT BEHIND: {line}")?;
    }
    Ok(match (interrupted, failed + left.len()) {
        (true, _) => INTERRUPTED.into(),
        (false, 0) if rows.len() == ROUNDS => Exit::Success.into(),
        _ => Exit::Failure.into(),
    })
}

impl Row {
    fn line(&self, number: usize) -> String {
        let result = match &self.outcome {
            Ok(outcome) => outcome.to_string(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        let way = self.way.as_ref().map_or("nothing".to_owned(), Way::to_string);
        format!("{number:>6} {:>6.1} s  {result}; {}", self.time.as_secs_f64(), shown(&way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_which_way_a_backup_went() {
        let changed = "INFO: reading only what changed since 'x'\nINFO: changed blocks: drive-scsi0: 1.1 MiB of 96.0 MiB read\n\
                       INFO: changed blocks: 1.2 MiB of 100.0 MiB read (1.2%), 3 MiB changed since the full backup, at 9/s\n";
        assert_eq!(Way::of(changed), Way::Changed("1.2 MiB of 100.0 MiB".into()));
        assert_eq!(Way::of("INFO: full backup: there is none\n"), Way::Full);
        let all = "INFO: everything is read: the job has no fleecing (switch it on)\n";
        assert_eq!(Way::of(all), Way::All("the job has no fleecing (switch it on)".into()));
        let audit =
            "INFO: everything is read: 2 backups in a row\nINFO: audit: nothing changed that was not noted\n";
        assert_eq!(Way::of(audit), Way::Audited);
        let missed =
            "INFO: everything is read: 2 backups\nWARN: audit: QEMU did not note all that changed (x)\n";
        assert!(matches!(Way::of(missed), Way::All(why) if why.contains("did not note")));
        // tried, and given up
        let cut = "INFO: reading only what changed since 'x'\nWARN: everything is read: reading failed\n";
        assert_eq!(Way::of(cut), Way::All("reading failed".into()));
    }

    #[test]
    fn only_the_first_backup_may_be_full_and_none_may_read_all_without_an_audit() {
        let fine = |way: &Way, number, is_written| way.fault(number, is_written).is_none();
        assert!(fine(&Way::Full, 0, true) && !fine(&Way::Full, 1, true));
        let (some, none) = (Way::Changed("4 KiB of 1 GiB".into()), Way::Changed("0 B of 1 GiB".into()));
        assert!(fine(&Way::Audited, 3, true) && fine(&some, 1, true) && !fine(&some, 0, true));
        assert!(fine(&none, 1, false) && !fine(&none, 1, true));
        assert!(!fine(&Way::All("x".into()), 1, false));
    }

    #[test]
    fn commands_are_those_of_proxmox() {
        let places = Places { backups: "nas", fleecing: Some("local-lvm"), overwrite: Some("scsi1") };
        let vm = Guest { kind: crate::backup::GuestKind::Qemu, id: 500 };
        assert_eq!(
            shell::show(&places.backup(vm)),
            "vzdump 500 --mode snapshot --storage nas --compress zstd --fullbackup 30 --prune-backups keep-all=1 \
             --fleecing enabled=1,storage=local-lvm"
        );
        assert_eq!(
            shell::show(&places.write(vm, "scsi1", 8192)),
            "pvesh create /nodes/localhost/qemu/500/monitor --command 'qemu-io -d scsi1 \"write -P 3 8192 4k\"'"
        );
        assert_eq!(shell::show(&vm.pause(true)), "qm suspend 500");
        assert_eq!(shell::show(&vm.pause(false)), "qm resume 500");
    }
}
