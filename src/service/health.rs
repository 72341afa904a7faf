//! Finds what is not as it should be on a host, and what to do about it. `doctor` prints it, `status` counts it.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use super::backups::{Round, StorageHealth};
use super::host::{Host, OUR_PACKAGES, View};
use super::listener::Listener;
use super::options::{self, Seen};
pub use super::runs::GuestRuns;
use super::standing::Standing;
use super::{backups, pending, runs};
use crate::backup::Stamp;
use crate::host::{Program, ProgramError, Root, hint, settings, tasks};
use crate::jobs::OPTION;

/// The program that backups and restores run, relative to the root, and the package that brings it.
const HELPER: (&str, &str) = ("usr/bin/pve-xdelta3", OUR_PACKAGES[0]);

/// The program by which people check backups. It is there only where our packages are installed.
const VERIFIER: (&str, &str) = ("usr/bin/pve-verify-backups", OUR_PACKAGES[1]);

/// Version of this program, and of those that belong to it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a failed job is told of, where it was not run since.
const RECENT: Duration = Duration::from_secs(31 * 86_400);

/// What `doctor` tells.
pub struct Health {
    /// The settings of backup jobs; `None` where there are none to be seen, or why they cannot be.
    pub seen: Result<Option<Seen>, String>,
    /// All that is not as it should be, and what to do about it.
    pub complaints: Vec<String>,
    /// The last backups of each guest.
    pub guests: Vec<GuestRuns>,
    /// The storages that keep backups.
    pub storages: Vec<StorageHealth>,
    /// What is worth knowing, though nothing is wrong with this product.
    pub notes: Vec<String>,
}

/// Examines the host, its programs, its backup jobs and their settings; changes nothing.
///
/// # Errors
/// Where the host cannot be read.
pub fn examine(host: &Host, listener: &dyn Listener) -> anyhow::Result<Health> {
    let view = host.view(listener)?;
    let standing = Standing::of(host, &view);
    let seen = options::look(host.root());
    let storages = backups::look_at_all(host.root());
    let complaints = complaints(host, &view, &standing, &seen, &storages)?;
    let (guests, unread) = runs::last(host.root(), recent());
    let storages = storages.unwrap_or_default();
    let mut notes = runs::notes(&guests);
    notes.extend(unread);
    notes.extend(storages.iter().flat_map(|storage| storage.notes.clone()));
    Ok(Health { seen, complaints, guests, storages, notes })
}

/// All that is not as it should be. `seen` are the settings of backup jobs, and `storages` those that keep backups, or why they
/// cannot be seen.
pub(super) fn complaints(
    host: &Host,
    view: &View,
    standing: &Standing,
    seen: &Result<Option<Seen>, String>,
    storages: &Result<Vec<StorageHealth>, String>,
) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    if let Some(note) = pending::read(host)? {
        all.push(format!(
            "The last installation or upgrade could not patch this host: {note}\nOnce that is put right: {}",
            hint::ours("apply")
        ));
    }
    all.extend(standing.complaint(host, view));
    // What is of no use to a host without our lines is no complaint there.
    if view.survey.holds_ours() {
        all.extend(programs(host.root(), view));
        all.extend(failed_jobs(host.root()));
    }
    match seen {
        Err(error) => all.push(format!("The settings of backup jobs cannot be seen: {error}")),
        Ok(Some(seen)) => all.extend(advise(seen)),
        Ok(None) => {}
    }
    if !options::knows_option(host.root()) {
        all.extend(options::elsewhere(host.root()));
    }
    all.extend(settings::complaints(host.root()));
    all.extend(backups::advice(storages));
    Ok(all)
}

/// Finds what is wrong with the programs that our lines and people run.
fn programs(root: &Root, view: &View) -> Vec<String> {
    let version = |name: &str| Some(view.ours.get(name)?.without_epoch().to_owned());
    let mut wrong = Vec::new();
    for (path, package) in [HELPER, VERIFIER] {
        // Who copied the programs may have left this one out.
        if package == VERIFIER.1 && version(package).is_none() {
            continue;
        }
        if let Some(what) = fault(root, path) {
            let needed =
                if package == HELPER.1 { ": no differential backup can be made or restored" } else { "" };
            wrong.push(format!(
                "/{path} {what}{needed}. Install it anew: {}",
                hint::inside(&format!("apt install --reinstall {package}"))
            ));
        }
    }
    if let (Some(helper), Some(own)) = (version(HELPER.1), version(VERIFIER.1))
        && helper != own
    {
        wrong.push(format!(
            "The packages {} {helper} and {} {own} belong to different versions. Install the same of both: {}",
            HELPER.1,
            VERIFIER.1,
            hint::inside(&format!("apt install {} {}", HELPER.1, VERIFIER.1))
        ));
    }
    wrong
}

/// Tells why a program of ours cannot be used.
fn fault(root: &Root, path: &str) -> Option<String> {
    let real = match root.resolve(path) {
        Ok(real) => real,
        Err(error) => return Some(format!("cannot be found ({error})")),
    };
    match std::fs::metadata(&real) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some("is missing".to_owned()),
        Err(error) => return Some(format!("cannot be looked at ({error})")),
        Ok(metadata) if !metadata.is_file() => return Some("is no file".to_owned()),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            return Some("is not executable".to_owned());
        }
        Ok(_) => {}
    }
    // A foreign host's programs are not run: see `Trust`.
    if !root.is_running_host() {
        return None;
    }
    match Program::new(real, ["--version"]).limit(PATIENCE).merged().run() {
        Ok(ran) => {
            let said: String = ran.out().lines().next().unwrap_or_default().chars().take(80).collect();
            let same = ran.succeeded() && said.split_whitespace().last() == Some(VERSION);
            (!same).then(|| {
                format!("is not of version {VERSION}, as this program is (it says `{}`)", said.escape_debug())
            })
        }
        Err(ProgramError::Start { cause, .. }) => Some(format!("does not start ({cause})")),
        Err(ProgramError::Slow { limit, .. }) => {
            Some(format!("does not tell its version within {} s", limit.as_secs()))
        }
    }
}

/// The time from which on tasks are looked at, in seconds since 1970.
fn recent() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(RECENT).as_secs()
}

/// Backup jobs with the option whose last run failed.
fn failed_jobs(root: &Root) -> Vec<String> {
    let by_default = options::has_default(root);
    let concerns = |job: &str| by_default || job.contains(&format!("--{OPTION}"));
    tasks::failed(root, recent(), concerns)
        .into_iter()
        .map(|task| {
            let error = task.error.map(|error| format!("\n{error}")).unwrap_or_default();
            format!(
                "The last run of `{}` failed on {} ({}).{error}\nIts log: {}",
                without_people(&task.job),
                Stamp::shown_utc(task.end),
                task.status,
                hint::file(&task.log)
            )
        })
        .collect()
}

/// A job's command line without addresses and notes, which are nobody's business in a report.
fn without_people(job: &str) -> String {
    let is_private = |option: &&str| {
        ["mailto", "notes-template", "notification-target"].iter().any(|it| option.starts_with(it))
    };
    let mut options = job.split(" --");
    let command = options.next().unwrap_or_default().to_owned();
    options.filter(|option| !is_private(option)).fold(command, |job, option| job + " --" + option)
}

fn advise(seen: &Seen) -> Vec<String> {
    let mut advice = seen.notes.clone();
    let without: Vec<&str> = seen
        .nodes
        .iter()
        .filter(|(name, node)| **name != seen.node && !node.as_ref().is_some_and(|node| node.patched))
        .map(|(name, _)| name.as_str())
        .collect();
    let in_use = !seen.jobs.is_empty() || !seen.waiting.is_empty();
    if in_use && !without.is_empty() {
        advice.push(format!(
            "{} without our lines: jobs make full backups there, and each job saved there drops `{OPTION}` from all. \
             Install pve-diff-backup there: apt install pve-diff-backup",
            without.join(", ")
        ));
    }
    for line in &seen.waiting {
        advice.push(format!(
            "vzdump.cron: `{}` makes full backups until all nodes that run it are patched; then --{OPTION} {} comes \
             back by itself",
            line.line, line.days
        ));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::without_people;

    #[test]
    fn addresses_and_notes_are_left_out() {
        let job = "vzdump 101 --mailto joe@example.com,amy@example.com --fullbackup 7 --notes-template '{{guestname}}' --quiet 1";
        assert_eq!(without_people(job), "vzdump 101 --fullbackup 7 --quiet 1");
        assert_eq!(without_people("vzdump 101"), "vzdump 101");
    }
}
