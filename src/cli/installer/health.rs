//! What is not as it should be on a host, and what to do about it: what `doctor` prints, and `status` counts.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::options::{self, Seen};
use super::{Host, View, backups, hook, stale_lines};
use crate::cli::exit::{Exit, Refused};
use crate::host::{Dpkg, hint, tasks, without_perl_variables};
use crate::jobs::OPTION;
use crate::patching::change::Change;
use crate::patching::plan::{Overall, Plan};
use crate::patching::refusal::Refusal;

/// What backups and their restores run, relative to the root, and the package that brings it.
const HELPER: (&str, &str) = ("usr/bin/pve-xdelta3", "pve-xdelta3");

/// What people run to check backups; it is there only where packages are installed.
const VERIFIER: (&str, &str) = ("usr/bin/pve-verify-backups", "pve-diff-backup");

/// Version of this program, and of those that belong to it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Jobs that failed longer ago, and were not run since, are past.
const RECENT: Duration = Duration::from_secs(31 * 86_400);

/// How a host's files stand.
pub(super) struct Standing<'a> {
    /// The plan, where there is one.
    pub plan: Option<Plan<'a>>,
    /// In a word.
    pub overall: Overall,
    /// What speaks against patching it.
    pub refusals: Vec<Refusal>,
    /// What an older version left.
    pub stale: Vec<Change>,
}

impl<'a> Standing<'a> {
    /// How the files of `host` stand.
    pub fn of(host: &'a Host, view: &View) -> Self {
        let (plan, overall, refusals) = match host.plan(view) {
            Ok(plan) => {
                let (overall, refusals) = (plan.overall(), plan.refusals.clone());
                (Some(plan), overall, refusals)
            }
            Err(Refused(refusals)) => (None, Overall::Unsupported, refusals),
        };
        let stale = plan.as_ref().map(|plan| host.stale(plan, view)).unwrap_or_default();
        let overall = match overall {
            Overall::Patched | Overall::Unpatched if !stale.is_empty() => Overall::Mixed,
            overall => overall,
        };
        Self { plan, overall, refusals, stale }
    }

    /// The exit code of `status` for the files.
    pub fn exit(&self) -> Exit {
        match (self.overall, self.refusals.first()) {
            (_, Some(refusal)) => Exit::of_refusal(refusal),
            (Overall::Patched, None) => Exit::Success,
            (Overall::Unpatched, None) => Exit::Unpatched,
            (Overall::Mixed, None) => Exit::Mixed,
            (Overall::Unsupported, None) => Exit::Unsupported,
        }
    }

    /// In a sentence, and what to do; what speaks against patching is said below it.
    pub fn words(&self, view: &View) -> String {
        match self.overall {
            Overall::Patched => "patched and current".to_owned(),
            Overall::Unpatched => format!("not patched; `{}` does it", hint::ours("apply")),
            Overall::Mixed => {
                format!(
                    "partly patched, or by an older version; `{}` brings it up to date",
                    hint::ours("apply")
                )
            }
            Overall::Unsupported if matches!(self.refusals[..], [Refusal::NotInstalled { .. }]) => {
                "nothing is there to be patched, for the reason below".to_owned()
            }
            Overall::Unsupported if view.survey.holds_ours() => {
                "cannot be patched anew, for the reasons below".to_owned()
            }
            Overall::Unsupported => {
                "cannot be patched, for the reasons below; backups run as full ones".to_owned()
            }
        }
    }

    /// The same with all reasons, where something is to be done.
    fn complaint(&self, host: &Host, view: &View) -> Option<String> {
        if self.overall == Overall::Patched {
            return None;
        }
        let mut lines = vec![format!("{}: {}", host.root.dir().display(), self.words(view))];
        lines.extend(self.refusals.iter().map(ToString::to_string));
        if !self.refusals.is_empty() && view.survey.holds_ours() {
            lines.push(stale_lines());
        }
        Some(lines.join("\n"))
    }
}

/// All that is not as it should be. `seen` are the settings of backup jobs, or why they cannot be seen.
pub(super) fn complaints(
    host: &Host,
    view: &View,
    standing: &Standing,
    seen: &Result<Option<Seen>, String>,
) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    if let Some(note) = hook::read_note(host)? {
        all.push(format!(
            "The last installation or upgrade could not patch this host: {note}\nOnce that is put right: {}",
            hint::ours("apply")
        ));
    }
    all.extend(standing.complaint(host, view));
    // What is of no use to a host without our lines is no complaint there.
    if view.survey.holds_ours() {
        all.extend(programs(host));
        all.extend(failed_jobs(host));
    }
    match seen {
        Err(error) => all.push(format!("The settings of backup jobs cannot be seen: {error}")),
        Ok(Some(seen)) => all.extend(advise(seen)),
        Ok(None) => {}
    }
    if !options::knows_option(&host.root) {
        all.extend(options::elsewhere(&host.root));
    }
    all.extend(backups::advice(host));
    Ok(all)
}

/// What is wrong with the programs that our lines and people run.
fn programs(host: &Host) -> Vec<String> {
    let names = std::collections::BTreeSet::from([HELPER.1, VERIFIER.1]);
    let dpkg = Dpkg::open(&host.root, &names).ok();
    let version = |name: &str| Some(dpkg.as_ref()?.package(name)?.version.without_epoch().to_owned());
    let mut wrong = Vec::new();
    for (path, package) in [HELPER, VERIFIER] {
        // Who copied the programs may have left this one out.
        if package == VERIFIER.1 && version(package).is_none() {
            continue;
        }
        if let Some(what) = fault(host, path) {
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

/// Why a program of ours is none that can be used.
fn fault(host: &Host, path: &str) -> Option<String> {
    let real = match host.root.resolve(path) {
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
    if !host.root.is_running_host() {
        return None;
    }
    let started = without_perl_variables(duct::cmd!(real, "--version"))
        .stdin_null()
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .start();
    let handle = match started {
        Ok(handle) => handle,
        Err(error) => return Some(format!("does not start ({error})")),
    };
    match handle.wait_timeout(PATIENCE) {
        Ok(Some(output)) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let said: String = said.lines().next().unwrap_or_default().chars().take(80).collect();
            let same = output.status.success() && said.split_whitespace().last() == Some(VERSION);
            (!same).then(|| {
                format!("is not of version {VERSION}, as this program is (it says `{}`)", said.escape_debug())
            })
        }
        Ok(None) => {
            let _ = handle.kill();
            Some(format!("does not tell its version within {} s", PATIENCE.as_secs()))
        }
        Err(error) => Some(format!("does not tell its version ({error})")),
    }
}

/// Backup jobs with the option whose last run failed.
fn failed_jobs(host: &Host) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(RECENT).as_secs();
    let by_default = options::has_default(&host.root);
    let concerns = |job: &str| by_default || job.contains(&format!("--{OPTION}"));
    tasks::failed(&host.root, since, concerns)
        .into_iter()
        .map(|task| {
            let error = task.error.map(|error| format!("\n{error}")).unwrap_or_default();
            format!(
                "The last run of `{}` failed on {} ({}).{error}\nIts log: {}",
                task.job,
                utc(task.end),
                task.status,
                hint::file(&task.log)
            )
        })
        .collect()
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

/// Seconds since 1970 as a date and time in UTC (days to civil date by Howard Hinnant's algorithm).
pub(super) fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59 UTC");
    }
}
