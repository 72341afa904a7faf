//! `doctor` tells everything that is not as it should be, what to do about it, and how the last backups went.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use indicatif::DecimalBytes;
use serde::Serialize;

use super::{Console, open, status};
use crate::backup::Stamp;
use crate::backup::tasklog::{Made, Run};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::say::ForPeople;
use crate::service::health::{GuestRuns, Health, StorageHealth, examine};
use crate::service::options::Seen;

/// The arguments of the command.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// All of it, as JSON has it.
#[derive(Debug, Serialize)]
struct Told<'a> {
    /// Version of this program.
    program: &'static str,
    /// What backup jobs say of full backups, where that can be seen.
    settings: Option<&'a Seen>,
    guests: &'a [GuestRuns],
    storages: &'a [StorageHealth],
    to_do: &'a [String],
    notes: &'a [String],
}

/// Examines the host, its programs, its backup jobs and their settings, its last backups and storages; changes nothing.
///
/// # Errors
/// Where the host cannot be read.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let health = examine(&open(global)?, &Console::new())?;
    let mut out = ForPeople(BufWriter::new(io::stdout().lock()));
    let Health { seen, complaints, guests, storages, notes } = &health;
    if args.json {
        let settings = seen.as_ref().ok().and_then(Option::as_ref);
        let program = env!("CARGO_PKG_VERSION");
        let told = Told { program, settings, guests, storages, to_do: complaints, notes };
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
    } else {
        print_all(&health, &mut out)?;
    }
    out.flush()?;
    Ok(if complaints.is_empty() { Exit::Success } else { Exit::Failure }.into())
}

fn print_all(health: &Health, out: &mut impl Write) -> io::Result<()> {
    let Health { seen, complaints, guests, storages, notes } = health;
    match seen {
        Ok(None) => writeln!(out, "No cluster file system is mounted at /etc/pve, or it is for root only.")?,
        Ok(Some(seen)) => print(seen, out)?,
        Err(_) => {}
    }
    if !guests.is_empty() {
        writeln!(out, "\nThe last backup of each guest, as the tasks' logs of 31 days tell:")?;
        writeln!(out, "{}", Row::head().line())?;
        for GuestRuns { guest, runs } in guests {
            for run in runs.iter().take(1) {
                writeln!(out, "{}", Row::of(guest, run).line())?;
            }
        }
        writeln!(out)?;
    }
    if !storages.is_empty() {
        writeln!(
            out,
            "{:<14} {:<10} {:<10} {:>10} {:>10} {:>6} {:>6} {:>10} {:>10}",
            "storage", "type", "on", "free", "of", "fulls", "diffs", "next", "all full"
        )?;
        for it in storages {
            let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |it| DecimalBytes(it).to_string());
            writeln!(
                out,
                "{:<14} {:<10} {:<10} {:>10} {:>10} {:>6} {:>6} {:>10} {:>10}",
                it.storage,
                it.kind,
                it.filesystem.as_deref().unwrap_or("-"),
                size(it.free),
                size(it.size),
                it.fulls,
                it.differentials,
                size(Some(it.round.next)),
                size(Some(it.round.all_full))
            )?;
        }
        writeln!(
            out,
            "(next: what one more backup of each guest takes, as the last two differentials tell; all full: if each is a full one)\n"
        )?;
    }
    list(out, "Worth knowing:", notes)?;
    match complaints.is_empty() {
        true => writeln!(out, "Nothing is to be done."),
        false => list(out, "To be done:", complaints),
    }
}

fn list(out: &mut impl Write, head: &str, texts: &[String]) -> io::Result<()> {
    if !texts.is_empty() {
        writeln!(out, "{head}")?;
    }
    texts.iter().try_for_each(|text| writeln!(out, "* {}", text.replace('\n', "\n  ")))
}

/// A line of the table of backups.
struct Row<'a>([&'a str; 8], String);

impl<'a> Row<'a> {
    fn head() -> Row<'static> {
        Row(["guest", "began", "made", "stored", "of full", "changed", "speed", "took"], "why".into())
    }

    fn of(guest: &'a str, run: &'a Run) -> Row<'a> {
        let text = |text: &'a Option<String>| text.as_deref().unwrap_or("-");
        let mut why = match (&run.error, &run.reason) {
            (Some(error), _) => error.clone(),
            (None, Some(reason)) => reason.clone(),
            (None, None) => "no differentials are asked for (Full Every is not set)".to_owned(),
        };
        if let (None, Some(all_read)) = (&run.error, &run.all_read) {
            why = format!("{why}; everything was read: {all_read}");
        }
        let made = if run.error.is_some() { "FAILED" } else { Made::word(run.made) };
        let numbers = [&run.stored, &run.share, &run.changed, &run.speed, &run.took].map(text);
        let [stored, share, changed, speed, took] = numbers;
        Row([guest, text(&run.started), made, stored, share, changed, speed, took], why)
    }

    fn line(&self) -> String {
        let Row([guest, began, made, stored, share, changed, speed, took], why) = self;
        format!(
            "{guest:<13} {began:<19} {made:<12} {stored:>10} {share:>7} {changed:>7} {speed:>11} {took:>8}  {why}"
        )
    }
}

/// Prints the settings as they are and as they are remembered, and the nodes.
fn print(seen: &Seen, out: &mut impl Write) -> io::Result<()> {
    let text = |days: Option<u32>| days.map_or("-".to_owned(), |days| days.to_string());
    if !seen.jobs.is_empty() {
        writeln!(out, "{:<30} {:>8} {:>10}", "job", "jobs.cfg", "remembered")?;
    }
    for (id, job) in &seen.jobs {
        writeln!(out, "{id:<30} {:>8} {:>10}{}", text(job.days), text(job.copy), status::reads(job))?;
    }
    writeln!(out, "{:<30} {:<20} with", "node", "our lines")?;
    for (name, node) in &seen.nodes {
        match node {
            None => writeln!(out, "{name:<30} {:<20}", "never heard of")?,
            Some(node) => writeln!(
                out,
                "{name:<30} {:<20} {}",
                format!(
                    "{} {}",
                    if node.patched { "since" } else { "not since" },
                    // The day is enough.
                    &Stamp::shown_utc(node.since)[..10]
                ),
                node.program
            )?,
        }
    }
    Ok(())
}
