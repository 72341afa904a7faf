//! `demo`: the whole way of a backup on an example, with the commands that a Proxmox VE host would run.
//!
//! A small host is laid out in a temporary folder ([`tree`]) with a VM ([`vm`]) and a container
//! ([`container`]). From `apply` to `revert` everything is done by programs: ours, and the host's own `vzdump`,
//! `pvesm`, `qmrestore` and `pct`, which find our lines in their modules. This module only tells them to, looks at
//! what they did ([`compare`]) and prints it.

mod compare;
mod container;
mod content;
mod stage;
mod table;
mod tree;
mod vm;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::compare::{Snapshot, Times};
use self::container::Container;
use self::stage::{Stage, say};
use self::table::Row;
use self::vm::Vm;
use super::Global;
use crate::backup::BackupName;
use crate::host::Scratch;

/// One full backup and three differentials.
const NIGHTS: u64 = 4;
/// The time of the first backup, 2026-01-05 01:00:00 UTC. It is fixed, so that each run is the same.
const FIRST_NIGHT: u64 = 1_767_574_800;
const DAY: u64 = 86_400;
/// Where the host of the demo keeps its backups.
const DUMP: &str = "host/var/lib/vz/dump";
/// What belongs to the guests on a host: backups, data, configurations. All else is the host's own.
const OF_GUESTS: [&str; 3] = ["etc/pve", "var/lib/lxc", "var/lib/vz"];

/// Show it all on an example: a small host, two guests, four nights of backups, restore and revert.
///
/// A small host laid out like Proxmox VE is built in a temporary folder and patched. Its vzdump makes one full
/// and three differential backups of a VM and of a container; the last ones are restored and compared byte for
/// byte, all are verified, the patch is reverted and the host compared with what it was. Nothing outside of that
/// folder is changed. It takes some seconds and 500 MB there, and needs perl and tar.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Work in DIR (new or empty) and leave everything there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
/// Where a command fails, or where something that was restored or reverted differs from what it was.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let result = match &args.keep {
        Some(dir) => std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::read_dir(dir))
            .with_context(|| format!("cannot work in {}", dir.display()))
            .and_then(|mut entries| match entries.next() {
                None => show(dir, global),
                Some(_) => bail!("{} is not empty: --keep needs a new folder", dir.display()),
            }),
        None => {
            let dir = Scratch::below(&std::env::temp_dir()).context("cannot make a temporary folder")?;
            let shown = show(dir.path(), global);
            let removed = dir.close().context("cannot remove the temporary folder");
            shown.context("the demo failed; demo --keep DIR leaves everything there to look at").and(removed)
        }
    };
    result?;
    match &args.keep {
        Some(dir) => say(format_args!("\nAll of it is still in {}.", dir.display()))?,
        None => say("\nThe folder is removed; with --keep DIR it stays.")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A guest of the demo.
trait Guest {
    /// What people call it.
    fn title(&self) -> &str;
    /// The number in Proxmox VE.
    fn id(&self) -> u32;
    /// Bytes of its data.
    fn size(&self) -> anyhow::Result<u64>;
    /// Lets the day before `night` pass: blocks and files change, except before the first. Then the guest is
    /// ready for the backup of that night.
    fn live(&mut self, night: u64) -> anyhow::Result<()>;
    /// Restores `volume` with the host's program and compares the result with the guest as it is now. Gives
    /// what was found equal, for people.
    fn restore(&self, stage: &Stage, volume: &str) -> anyhow::Result<String>;
}

/// Does all steps in the folder `dir`, which is empty.
fn show(dir: &Path, global: &Global) -> anyhow::Result<()> {
    let stage = Stage::open(dir, global.patches.as_deref())?;
    say(format_args!("Everything happens in {}, where these commands run.", stage.dir().display()))?;

    say("\n1. A small host, laid out like Proxmox VE 8.4, with a VM and a container")?;
    let host = stage.path("host");
    tree::unpack(&host, stage.helper())?;
    for folder in ["etc/pve/qemu-server", "etc/pve/lxc", "var/lib/lxc", "var/lib/vz/dump"] {
        fs_err::create_dir_all(host.join(folder))?;
    }
    let mut guests: [Box<dyn Guest>; 2] =
        [Box::new(Vm::create(&stage)?), Box::new(Container::create(&stage)?)];
    for guest in &guests {
        say(format_args!("   {}, {:.0} MiB", guest.title(), table::mib(guest.size()?)))?;
    }
    let pristine = Snapshot::take(&host, &OF_GUESTS, Times::Files)?;

    say("\n2. Patch it: lines of ours are inserted, none of Proxmox' is changed")?;
    let said = stage.us(&["--root", "host", "apply", "--load-modules"])?;
    // The example's modules are short ones of our own: no release has them, so apply says that it never saw them.
    let (expected, said): (Vec<_>, Vec<_>) =
        said.lines().partition(|line| line.contains("warning: unverified: "));
    stage::show(&said.join("\n"))?;
    if !expected.is_empty() {
        say("     (Not shown: it was never tried with exactly these modules, which are the example's own.)")?;
    }

    say("\n3. Four nights: vzdump makes a full backup, then differentials against it")?;
    say("   (the date is given, so that they pass at once: only the vzdump of this example can do that)")?;
    let (rows, last) = back_up(&stage, &mut guests)?;
    say("   What the host's list of backups has (volume, format, size, time):")?;
    let said = stage.host("usr/sbin/pvesm", &["list", "local"])?;
    stage::show(&said)?;
    let listed = said.lines().filter(|line| line.starts_with("local:backup/")).count();
    let expected = guests.len() * NIGHTS as usize;
    ensure!(listed == expected, "the host lists {listed} backups, not {expected}");

    say("\n4. Is every differential restorable?")?;
    let said = stage.us(&["verify", DUMP])?;
    stage::show(&said)?;

    say("\n5. Restore the last ones and compare")?;
    for (guest, name) in guests.iter().zip(&last) {
        let found = guest.restore(&stage, &format!("local:backup/{name}"))?;
        say(format_args!("     {found}"))?;
    }

    say("\n6. Take the patch out again")?;
    let said = stage.us(&["--root", "host", "revert"])?;
    stage::show(&said)?;
    let reverted = Snapshot::take(&host, &OF_GUESTS, Times::Files)?;
    compare::require_none(
        "the host is not as it was before it was patched",
        &pristine.differences(&reverted),
    )?;
    say(format_args!("     all {} files of the host are as before, byte for byte", pristine.files()))?;

    say(format_args!("\n{}", table::render(&rows)))?;
    say("Each restored guest and the reverted host equal the original.")?;
    Ok(())
}

/// Makes the backups of four nights. Gives a row of the table and the last backup's name for each guest.
fn back_up(stage: &Stage, guests: &mut [Box<dyn Guest>]) -> anyhow::Result<(Vec<Row>, Vec<String>)> {
    let mut rows: Vec<Row> = Vec::new();
    let mut last = vec![String::new(); guests.len()];
    for guest in &*guests {
        let title = guest.title().to_owned();
        rows.push(Row { title, data: guest.size()?, backups: Vec::new(), took: Duration::ZERO });
    }
    for night in 0..NIGHTS {
        for ((guest, row), last) in guests.iter_mut().zip(&mut rows).zip(&mut last) {
            guest.live(night)?;
            let before = backups(stage)?;
            let (id, time) = (guest.id().to_string(), time_of(night).to_string());
            let start = Instant::now();
            let said = stage.host(
                "usr/bin/vzdump",
                &[
                    &id,
                    "--storage",
                    "local",
                    "--compress",
                    "zstd",
                    "--fullbackup",
                    "7",
                    "--backup-time",
                    &time,
                ],
            )?;
            row.took += start.elapsed();
            // of the task's log, what was decided and why
            let reason = said.lines().filter(|line| line.contains(" backup: "));
            reason.into_iter().try_for_each(|line| say(format_args!("     {line}")))?;
            let new: Vec<String> = backups(stage)?.difference(&before).cloned().collect();
            let [name] = &new[..] else { bail!("vzdump made {} backups, not one:\n{said}", new.len()) };
            let is_full = matches!(BackupName::parse(name.as_bytes()), Some(BackupName::Full(_)));
            let expected = if night == 0 { "full" } else { "differential" };
            ensure!(is_full == (night == 0), "{name} should be a {expected} backup:\n{said}");
            let path = stage.path(DUMP).join(name);
            row.backups.push(path.metadata().with_context(|| path.display().to_string())?.len());
            last.clone_from(name);
        }
    }
    Ok((rows, last))
}

/// When the backups of a night are made, in seconds since 1970.
fn time_of(night: u64) -> u64 {
    FIRST_NIGHT + night * DAY
}

/// The names of all backups, without logs.
fn backups(stage: &Stage) -> anyhow::Result<BTreeSet<String>> {
    let dir = stage.path(DUMP);
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        if let Ok(name) = entry?.file_name().into_string()
            && BackupName::parse(name.as_bytes()).is_some()
        {
            names.insert(name);
        }
    }
    Ok(names)
}
