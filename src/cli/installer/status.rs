//! `status` tells what is installed, which patch set is for it, and how every file stands.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::cluster::{self, ClusterArgs};
use super::{Console, open};
use crate::backup::Stamp;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::say::ForPeople;
use crate::host::{Origin, hint};
use crate::patching::plan::{FileState, Overall};
use crate::service::host::stale_lines;
use crate::service::options::{Seen, SeenJob};
use crate::service::status::{Status, assess};

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
    let status = assess(&open(global)?, &Console::new())?;
    let exit = exit(&status);
    let mut out = BufWriter::new(io::stdout().lock());
    match args.json {
        true => {
            let told = Told { status: &status, exit: exit as u8 };
            writeln!(out, "{:#}", serde_json::to_value(&told)?)?;
        }
        false => print(&status, exit, &mut ForPeople(&mut out))?,
    }
    out.flush()?;
    Ok(exit.into())
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    status: &'a Status,
    exit: u8,
}

fn exit(status: &Status) -> Exit {
    match (status.overall, status.refusals.first()) {
        (_, Some(refusal)) => Exit::of_refusal(refusal),
        (Overall::Patched, None) if !status.attention.is_empty() => Exit::Attention,
        (Overall::Patched, None) => Exit::Success,
        (Overall::Unpatched, None) => Exit::Unpatched,
        (Overall::Mixed, None) => Exit::Mixed,
        (Overall::Unsupported, None) => Exit::Unsupported,
    }
}

fn print(status: &Status, exit: Exit, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}: {}", status.root, status.words)?;
    if exit == Exit::Attention {
        writeln!(
            out,
            "ATTENTION: {} not as it should be; `{}` tells what, and what to do",
            match status.attention.len() {
                1 => "one thing is".to_owned(),
                count => format!("{count} things are"),
            },
            hint::ours("doctor")
        )?;
    }
    match &status.set {
        Some(set) => {
            let verified = if set.verified { "verified" } else { "unverified: see the packages" };
            writeln!(out, "patch set {} {} ({}), {verified}", set.name, set.version, set.title)?;
        }
        None => writeln!(out, "patch set: none matches")?,
    }
    if let Some(applied) = &status.applied {
        let when = Stamp::shown_utc(applied.time);
        writeln!(
            out,
            "applied {when} by version {} ({} {})",
            applied.program, applied.set, applied.set_version
        )?;
    }
    if let Some(pending) = &status.pending {
        writeln!(out, "the last automatic apply did not succeed: {pending}")?;
    }
    let by_content = status.set.as_ref().is_some_and(|set| set.by_content);
    writeln!(out, "packages:")?;
    for package in &status.packages {
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
        writeln!(out, "{}", format!("  {:<26}{version:<16}{}", package.name, notes.join("; ")).trim_end())?;
    }
    if !status.files.is_empty() {
        writeln!(out, "files:")?;
    }
    for file in &status.files {
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
    if let Some(settings) = &status.settings {
        print_settings(settings, out)?;
    }
    for refusal in &status.refusals {
        writeln!(out, "{refusal}")?;
    }
    if !status.refusals.is_empty() && status.holds_ours {
        writeln!(out, "{}", stale_lines())?;
    }
    Ok(())
}

/// Says, for the end of a job's line, whether its differentials of running VMs read only what changed, or why they do not.
pub(super) fn reads(job: &SeenJob) -> String {
    match (job.days.or(job.copy), &job.everything_read) {
        (None | Some(0), _) => String::new(),
        (_, Some(why)) => format!("; everything is read ({why})"),
        (_, None) => "; of running VMs only what changed is read, where that is certain".to_owned(),
    }
}

/// Prints what backup jobs say of full backups; nothing where there is nothing of interest.
fn print_settings(seen: &Seen, out: &mut impl Write) -> io::Result<()> {
    if !seen.jobs.is_empty() || !seen.waiting.is_empty() {
        writeln!(out, "jobs:")?;
    }
    for (id, job) in &seen.jobs {
        let text = match (job.days, job.copy) {
            (Some(0), _) => "always full".to_owned(),
            (Some(days), _) => format!("full backup every {days} days"),
            (None, Some(days)) => {
                format!("full backup every {days} days, dropped by a node without our lines")
            }
            (None, None) => continue,
        };
        writeln!(out, "  {id:<28} {text}{}", reads(job))?;
    }
    for line in &seen.waiting {
        writeln!(out, "  vzdump.cron: without --fullbackup {} for now: {}", line.days, line.line)?;
    }
    Ok(())
}
