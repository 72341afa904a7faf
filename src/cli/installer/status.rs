//! `status`: what is installed, which patch set is for it, and how every file stands.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::cluster::{self, ClusterArgs};
use super::options::{self, Seen};
use super::{Host, STALE, View};
use crate::cli::Global;
use crate::cli::exit::{Exit, Refused};
use crate::cli::say::say;
use crate::host::{Origin, PACKAGES};
use crate::patching::plan::{Change, FileState, Overall, Plan};

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Prints how the host stands. The exit code tells the same in short.
///
/// # Errors
/// Where the host cannot be read; that it is not supported is no error but a status.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    if args.cluster.cluster {
        return cluster::status(global, &args.cluster, args.json);
    }
    let host = Host::open(global)?;
    host.settle()?;
    let view = host.view()?;
    let (status, exit) = assess(&host, &view)?;
    let mut out = BufWriter::new(io::stdout().lock());
    match args.json {
        true => writeln!(out, "{:#}", serde_json::to_value(&status)?)?,
        false => status.print(&mut out)?,
    }
    out.flush()?;
    Ok(exit.into())
}

/// Everything `status` tells; as JSON in this form.
#[derive(Debug, Serialize)]
struct Status {
    root: String,
    /// Version of this program.
    program: &'static str,
    overall: Overall,
    exit: u8,
    set: Option<SetStatus>,
    packages: Vec<PackageStatus>,
    files: Vec<FileStatus>,
    refusals: Vec<String>,
    /// Whether any line or file of ours is there.
    holds_ours: bool,
    /// When and by which version the record says it was applied.
    applied: Option<Applied>,
    /// Why the package's last hook could not do what it should.
    pending: Option<String>,
    /// What backup jobs say of full backups, where that can be seen.
    settings: Option<Seen>,
}

#[derive(Debug, Serialize)]
struct SetStatus {
    name: String,
    version: u32,
    title: String,
    /// Whether it was tried with exactly these files, or (where no contents are known) with these releases.
    verified: bool,
    /// Whether `verified` speaks of contents.
    by_content: bool,
}

#[derive(Debug, Serialize)]
struct PackageStatus {
    name: String,
    version: Option<String>,
    /// dpkg's state.
    state: Option<String>,
    /// Whether its release, or (where contents are known) exactly these files were tried; `None`: nothing of it is patched.
    verified: Option<bool>,
    skipped_hunks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct FileStatus {
    path: String,
    package: Option<String>,
    state: FileState,
    origin: Option<Origin>,
    /// Whether the set was tried with exactly this content; `None`: our own file, or nothing is known.
    verified: Option<bool>,
    diverted_to: Option<String>,
    hunks: Vec<String>,
    /// Whether an older version of ours left it, and this one has no use for it.
    stale: bool,
}

#[derive(Debug, Serialize)]
struct Applied {
    time: u64,
    program: String,
    set: String,
    set_version: u32,
}

fn assess(host: &Host, view: &View) -> anyhow::Result<(Status, Exit)> {
    let plan = host.plan(view);
    let (overall, refusals) = match &plan {
        Ok(plan) => (plan.overall(), &plan.refusals[..]),
        Err(Refused(refusals)) => (Overall::Unsupported, &refusals[..]),
    };
    let stale = plan.as_ref().map(|plan| host.stale(plan, view)).unwrap_or_default();
    let overall = match overall {
        Overall::Patched | Overall::Unpatched if !stale.is_empty() => Overall::Mixed,
        overall => overall,
    };
    let exit = match (overall, refusals.first()) {
        (_, Some(refusal)) => Exit::of_refusal(refusal),
        (Overall::Patched, None) => Exit::Success,
        (Overall::Unpatched, None) => Exit::Unpatched,
        (Overall::Mixed, None) => Exit::Mixed,
        (Overall::Unsupported, None) => Exit::Unsupported,
    };
    let refusals = refusals.iter().map(ToString::to_string).collect();
    let plan = plan.as_ref().ok();
    let status = Status {
        root: host.root.dir().display().to_string(),
        program: env!("CARGO_PKG_VERSION"),
        overall,
        exit: exit as u8,
        set: plan.map(|plan| SetStatus {
            name: plan.set.name.clone(),
            version: plan.set.version,
            title: plan.set.title.clone(),
            verified: host.is_verified(plan),
            by_content: host.verified.knows(&plan.set.name),
        }),
        packages: packages(host, view, plan),
        files: plan.map(|plan| files(host, plan, &stale)).unwrap_or_default(),
        refusals,
        holds_ours: view.survey.holds_ours(),
        applied: view.record.as_ref().map(|record| Applied {
            time: record.time,
            program: record.program.clone(),
            set: record.set.clone(),
            set_version: record.set_version,
        }),
        pending: super::hook::read_note(host)?,
        settings: options::look(host).unwrap_or_else(|error| {
            say!("warning: the settings of backup jobs cannot be seen: {error}");
            None
        }),
    };
    Ok((status, exit))
}

fn packages(host: &Host, view: &View, plan: Option<&Plan>) -> Vec<PackageStatus> {
    let verdicts = plan.and_then(|plan| host.verified.judge(plan));
    PACKAGES
        .iter()
        .map(|name| {
            let package = view.survey.packages.get(*name);
            let range = plan.and_then(|plan| plan.generations.get(*name)).map(|generation| &generation.range);
            PackageStatus {
                name: (*name).to_owned(),
                version: package.map(|package| package.version.to_string()),
                state: package.map(|package| package.state.clone()),
                verified: match &verdicts {
                    Some(verdicts) => {
                        let verdict = verdicts.iter().find(|verdict| verdict.package == *name);
                        verdict.map(|verdict| verdict.unknown.is_empty())
                    }
                    None => package.zip(range).map(|(package, range)| range.contains(&package.version)),
                },
                skipped_hunks: plan.and_then(|plan| plan.skipped.get(*name)).cloned().unwrap_or_default(),
            }
        })
        .collect()
}

fn files(host: &Host, plan: &Plan, stale: &[Change]) -> Vec<FileStatus> {
    let planned = plan.files.iter().map(|file| FileStatus {
        path: file.path.clone(),
        package: file.package.clone(),
        state: file.state,
        origin: file.origin,
        verified: host.verified.knows_file(&plan.set.name, file),
        diverted_to: file.diverted_to.clone(),
        hunks: file.hunks.clone(),
        stale: false,
    });
    let stale = stale.iter().map(|change| FileStatus {
        path: change.path.clone(),
        package: None,
        state: FileState::Outdated,
        origin: None,
        verified: None,
        diverted_to: None,
        hunks: Vec::new(),
        stale: true,
    });
    planned.chain(stale).collect()
}

impl Status {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let overall = match self.overall {
            Overall::Patched => "patched and current",
            Overall::Unpatched => "not patched; `pve-diff-backup apply` does it",
            Overall::Mixed => {
                "partly patched, or by an older version; `pve-diff-backup apply` brings it up to date"
            }
            Overall::Unsupported => "cannot be patched, for the reasons below; backups run as full ones",
        };
        writeln!(out, "{}: {overall}", self.root)?;
        match &self.set {
            Some(set) => {
                let verified = if set.verified { "verified" } else { "unverified: see the packages" };
                writeln!(out, "patch set {} {} ({}), {verified}", set.name, set.version, set.title)?;
            }
            None => writeln!(out, "patch set: none matches")?,
        }
        if let Some(applied) = &self.applied {
            let when = utc(applied.time);
            writeln!(
                out,
                "applied {when} by version {} ({} {})",
                applied.program, applied.set, applied.set_version
            )?;
        }
        if let Some(pending) = &self.pending {
            writeln!(out, "the last automatic apply did not succeed: {pending}")?;
        }
        let by_content = self.set.as_ref().is_some_and(|set| set.by_content);
        writeln!(out, "packages:")?;
        for package in &self.packages {
            let mut notes = Vec::new();
            match package.verified {
                Some(true) if by_content => notes.push("verified for exactly these files".to_owned()),
                Some(true) => notes.push("verified release".to_owned()),
                Some(false) => notes.push("unverified: matching, but never tried".to_owned()),
                None => {}
            }
            if let Some(state) = package.state.as_deref().filter(|state| *state != "installed") {
                notes.push(state.to_owned());
            }
            if !package.skipped_hunks.is_empty() {
                notes.push(format!("left out: {}", package.skipped_hunks.join(", ")));
            }
            let version = package.version.as_deref().unwrap_or("not installed");
            writeln!(
                out,
                "{}",
                format!("  {:<26}{version:<16}{}", package.name, notes.join("; ")).trim_end()
            )?;
        }
        if !self.files.is_empty() {
            writeln!(out, "files:")?;
        }
        for file in &self.files {
            let mut notes = Vec::new();
            match (&file.package, file.origin) {
                _ if file.stale => notes.push("of an older version: apply takes ours out".to_owned()),
                (None, _) => notes.push("ours".to_owned()),
                (Some(_), Some(Origin::Modified)) => notes.push("edited by somebody else".to_owned()),
                (Some(_), Some(Origin::Unknown)) => notes.push("no checksum recorded".to_owned()),
                (Some(_), Some(Origin::Pristine) | None) => {}
            }
            if file.verified == Some(false) {
                notes.push("never tried with exactly this content".to_owned());
            }
            if let Some(to) = &file.diverted_to {
                notes.push(format!("diverted, the package's own is /{to}"));
            }
            let state = match file.state {
                FileState::Patched => "patched",
                FileState::Unpatched => "unpatched",
                FileState::Outdated => "outdated",
                FileState::Missing => "missing",
                FileState::Foreign => "foreign",
            };
            writeln!(out, "{}", format!("  {state:<10} /{}  {}", file.path, notes.join("; ")).trim_end())?;
        }
        if let Some(settings) = &self.settings {
            settings.print(out)?;
        }
        for refusal in &self.refusals {
            writeln!(out, "{refusal}")?;
        }
        if !self.refusals.is_empty() && self.holds_ours {
            writeln!(out, "{STALE}")?;
        }
        Ok(())
    }
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
