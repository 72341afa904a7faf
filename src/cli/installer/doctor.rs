//! `doctor`: everything that is not as it should be, and what to do about it.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use super::options::{self, Seen};
use super::status::utc;
use super::{Host, View, hook};
use crate::cli::Global;
use crate::cli::exit::{Exit, Refused};
use crate::jobs::OPTION;
use crate::patching::plan::Overall;

/// Examines the host and the settings of its backup jobs; changes nothing.
///
/// # Errors
/// Where the host cannot be read.
pub fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let host = Host::open(global)?;
    host.settle()?;
    let view = host.view()?;
    let mut advice = Vec::new();
    if let Some(note) = hook::read_note(&host)? {
        advice.push(format!(
            "The last installation or upgrade could not patch this host: {note}\nOnce that is put right: \
             pve-diff-backup apply"
        ));
    }
    advice.extend(complaint(&host, &view));
    let mut out = BufWriter::new(io::stdout().lock());
    match options::look(&host) {
        Err(error) => advice.push(format!("The settings of backup jobs cannot be seen: {error}")),
        Ok(None) => writeln!(out, "No cluster file system is mounted at /etc/pve, or it is for root only.")?,
        Ok(Some(seen)) => {
            print(&seen, &mut out)?;
            advice.extend(advise(&seen));
        }
    }
    if !options::knows_option(&host.root) {
        advice.extend(options::elsewhere(&host.root));
    }
    match advice.is_empty() {
        true => writeln!(out, "Nothing is to be done.")?,
        false => writeln!(out, "To be done:")?,
    }
    for advice in &advice {
        writeln!(out, "* {}", advice.replace('\n', "\n  "))?;
    }
    out.flush()?;
    Ok(if advice.is_empty() { Exit::Success } else { Exit::Failure }.into())
}

/// What is wrong with the files, and what to do.
fn complaint(host: &Host, view: &View) -> Option<String> {
    let plan = host.plan(view);
    let refusals = match &plan {
        Ok(plan) => &plan.refusals,
        Err(Refused(refusals)) => refusals,
    };
    if !refusals.is_empty() {
        let reasons = refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        return Some(format!(
            "This host cannot be patched, backups run as full ones. A newer pve-diff-backup may know this release:\n\
             {reasons}"
        ));
    }
    match plan.ok()?.overall() {
        Overall::Patched => None,
        Overall::Unpatched => Some("This host is not patched: pve-diff-backup apply".to_owned()),
        Overall::Mixed | Overall::Unsupported => {
            Some("This host is patched in part, or by an older version: pve-diff-backup apply".to_owned())
        }
    }
}

/// The settings as they are and as they are remembered, and the nodes.
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
                    &utc(node.since)[..10]
                ),
                node.program
            )?,
        }
    }
    Ok(())
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
