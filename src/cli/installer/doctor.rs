//! `doctor` tells everything that is not as it should be, and what to do about it.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use super::{Console, open};
use crate::backup::Stamp;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::say::ForPeople;
use crate::service::health::{Health, examine};
use crate::service::options::Seen;

/// Examines the host, its programs, its backup jobs and their settings; changes nothing.
///
/// # Errors
/// Where the host cannot be read.
pub fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let Health { seen, complaints } = examine(&open(global)?, &Console::new())?;
    let mut out = ForPeople(BufWriter::new(io::stdout().lock()));
    match &seen {
        Ok(None) => writeln!(out, "No cluster file system is mounted at /etc/pve, or it is for root only.")?,
        Ok(Some(seen)) => print(seen, &mut out)?,
        Err(_) => {}
    }
    match complaints.is_empty() {
        true => writeln!(out, "Nothing is to be done.")?,
        false => writeln!(out, "To be done:")?,
    }
    for advice in &complaints {
        writeln!(out, "* {}", advice.replace('\n', "\n  "))?;
    }
    out.flush()?;
    Ok(if complaints.is_empty() { Exit::Success } else { Exit::Failure }.into())
}

/// Prints the settings as they are and as they are remembered, and the nodes.
fn print(seen: &Seen, out: &mut impl Write) -> io::Result<()> {
    let text = |days: Option<u32>| days.map_or("-".to_owned(), |days| days.to_string());
    if !seen.jobs.is_empty() {
        writeln!(out, "{:<30} {:>8} {:>10}", "job", "jobs.cfg", "remembered")?;
    }
    for (id, job) in &seen.jobs {
        writeln!(out, "{id:<30} {:>8} {:>10}", text(job.days), text(job.copy))?;
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
