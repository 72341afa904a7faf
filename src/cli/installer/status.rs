//! `status`: what is installed, which patch set is for it, and how every file stands.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::cluster::{self, ClusterArgs};
use super::health::{self, Standing, utc};
use super::options::{self, Seen};
use super::{Host, View, stale_lines};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::say::{ForPeople, say};
use crate::host::{Origin, PACKAGES, hint};
use crate::patching::change::Change;
use crate::patching::plan::{FileState, Overall, Plan};

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
        false => status.print(&mut ForPeople(&mut out))?,
    }
    out.flush()?;
    Ok(exit.into())
}

/// Everything `status` tells; as JSON in this form.
#[derive(Debug, Serialize)]
struct Status {
    root: String,
    /// How it stands, in a sentence.
    #[serde(skip)]
    words: String,
    /// Version of this program.
    program: &'static str,
    overall: Overall,
    exit: u8,
    set: Option<SetStatus>,
    packages: Vec<PackageStatus>,
    files: Vec<FileStatus>,
    refusals: Vec<String>,
    /// All that is not as it should be, as `doctor` tells it.
    attention: Vec<String>,
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
    let standing = Standing::of(host, view);
    let seen = options::look(host);
    let complaints = health::complaints(host, view, &standing, &seen)?;
    let exit = match standing.exit() {
        Exit::Success if !complaints.is_empty() => Exit::Attention,
        exit => exit,
    };
    let plan = standing.plan.as_ref();
    let status = Status {
        root: host.root.dir().display().to_string(),
        program: env!("CARGO_PKG_VERSION"),
        words: standing.words(view),
        overall: standing.overall,
        exit: exit as u8,
        set: plan.map(|plan| SetStatus {
            name: plan.set.name.clone(),
            version: plan.set.version,
            title: plan.set.title.clone(),
            verified: host.is_verified(plan),
            by_content: host.verified.knows(&plan.set.name),
        }),
        packages: packages(host, view, plan),
        files: plan.map(|plan| files(host, plan, &standing.stale)).unwrap_or_default(),
        refusals: standing.refusals.iter().map(ToString::to_string).collect(),
        attention: complaints,
        holds_ours: view.survey.holds_ours(),
        applied: view.record.as_ref().map(|record| Applied {
            time: record.time,
            program: record.program.clone(),
            set: record.set.clone(),
            set_version: record.set_version,
        }),
        pending: super::hook::read_note(host)?,
        settings: seen.unwrap_or_else(|error| {
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
        writeln!(out, "{}: {}", self.root, self.words)?;
        if self.exit == Exit::Attention as u8 {
            writeln!(
                out,
                "ATTENTION: {} not as it should be; `{}` tells what, and what to do",
                match self.attention.len() {
                    1 => "one thing is".to_owned(),
                    count => format!("{count} things are"),
                },
                hint::ours("doctor")
            )?;
        }
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
            writeln!(out, "{}", stale_lines())?;
        }
        Ok(())
    }
}
