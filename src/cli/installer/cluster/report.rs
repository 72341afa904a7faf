//! Prints how the nodes stand, for people and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::say::{count, say};
use crate::host::PACKAGES;
use crate::host::cluster::NodeName;
use crate::host::cluster::jobs::Source;
use crate::service::cluster::report::{Action, Failure, JobReport, NodeReport, Problem, Report};
use crate::text::harmless;

/// What is printed as JSON.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    report: &'a Report,
    exit: u8,
    problem: Option<&'a str>,
}

/// Prints a report: as JSON, or as tables.
pub(super) fn show(report: &Report, exit: Exit, json: bool) -> anyhow::Result<()> {
    let problem = report.problem.as_ref().map(words);
    let mut out = io::stdout().lock();
    if json {
        let told = Told { report, exit: exit as u8, problem: problem.as_deref() };
        writeln!(out, "{:#}", serde_json::to_value(&told)?)?;
    } else {
        print_nodes(report, &mut out)?;
        print_jobs(&report.jobs, &mut out)?;
    }
    out.flush()?;
    if let Some(problem) = problem {
        say!("{}", harmless(&problem));
    }
    Ok(())
}

/// Prints the table of nodes and what must be said about some.
pub(super) fn print_nodes(report: &Report, out: &mut impl Write) -> io::Result<()> {
    match &report.cluster {
        Some(name) => writeln!(out, "cluster {}, {}", harmless(name), count(report.nodes.len(), "node"))?,
        None => writeln!(out, "this host is in no cluster")?,
    }
    if !report.quorate {
        writeln!(out, "this node's part of the cluster has no majority: others may only look offline")?;
    }
    let actions = report.nodes.iter().any(|node| node.action.is_some());
    let mut table = vec![heading(actions)];
    table.extend(report.nodes.iter().map(|node| row(node, actions)));
    let widths: Vec<usize> = (0..table[0].len())
        .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &table {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    for node in &report.nodes {
        for note in notes(node) {
            writeln!(out, "{}: {}", node.name, harmless(&note))?;
        }
    }
    if report.has_several_versions() {
        writeln!(out, "the nodes have different versions of pve-diff-backup: install the same on all")?;
    }
    Ok(())
}

/// Prints the jobs with Full Backup Every.
fn print_jobs(jobs: &[JobReport], out: &mut impl Write) -> io::Result<()> {
    if jobs.is_empty() {
        return writeln!(out, "no backup job has Full Backup Every");
    }
    writeln!(out, "backup jobs with Full Backup Every:")?;
    for job in jobs {
        let file = match job.file {
            Source::JobsCfg => "",
            Source::VzdumpCron => "vzdump.cron ",
        };
        let place = job.node.as_deref().map_or_else(|| "all nodes".to_owned(), |name| format!("node {name}"));
        let off = if job.enabled { "" } else { ", disabled" };
        let line = format!("  {file}{}: every {} days, {place}{off}", job.id, job.every);
        writeln!(out, "{}{}", harmless(&line), consequence(job))?;
    }
    Ok(())
}

/// What the nodes make of a job that do not know the option.
fn consequence(job: &JobReport) -> String {
    let list = |nodes: &[NodeName]| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    if !job.unpatched.is_empty() {
        text += match job.file {
            Source::JobsCfg => "; only full backups on ",
            Source::VzdumpCron => "; REFUSED, so no backups at all, on ",
        };
        text += &format!("{} (not patched)", list(&job.unpatched));
    }
    if !job.unknown.is_empty() {
        text += &format!("; unknown on {}", list(&job.unknown));
    }
    text
}

/// What went wrong with a change, as a sentence.
fn words(problem: &Problem) -> String {
    match problem {
        Problem::Refused(against) => {
            let against: Vec<String> = against.iter().map(ToString::to_string).collect();
            format!("nothing was changed on any node: {}", against.join("; "))
        }
        Problem::Interrupted(node) => format!("interrupted before {node}"),
        Problem::Stopped(node, failure) => format!("stopped at {node}: {}", reason(failure)),
    }
}

fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Remote(error) if error.may_go_on() => {
            format!("{error}; what it was doing may go on there: look again before you repeat it")
        }
        Failure::Remote(error) => error.to_string(),
        Failure::Ended { command, code } => {
            let known = Exit::TABLE.iter().find(|(known, _)| *known as i32 == *code);
            let meaning = known.map_or("unknown to this version", |(_, meaning)| meaning);
            format!("{command} ended with code {code} ({meaning})")
        }
        Failure::NotAsItShould => "it is not as it should be afterwards".to_owned(),
    }
}

/// The columns of the table of nodes.
fn heading(actions: bool) -> Vec<String> {
    let mut words = vec!["node", "state"];
    words.extend(actions.then_some("change"));
    words.push("program");
    words.extend(PACKAGES.map(|name| name.trim_start_matches("libpve-").trim_end_matches("-perl")));
    words.into_iter().map(str::to_owned).collect()
}

/// A node's line of the table, as [`heading`].
fn row(node: &NodeReport, actions: bool) -> Vec<String> {
    let name = format!("{}{}", node.name, if node.own { " (here)" } else { "" });
    let state = match (&node.status, node.online) {
        (Some(status), _) => status.overall.as_str(),
        (None, true) => "unknown",
        (None, false) => "offline",
    };
    let mut row = vec![name, harmless(state)];
    if actions {
        row.push(node.action.map_or("-", became).to_owned());
    }
    let Some(status) = &node.status else {
        row.resize(row.len() + 1 + PACKAGES.len(), "-".to_owned());
        return row;
    };
    row.push(harmless(status.program.as_deref().unwrap_or("older")));
    row.extend(PACKAGES.iter().map(|name| {
        let package = status.packages.iter().find(|package| package.name == *name);
        harmless(package.and_then(|package| package.version.as_deref()).unwrap_or("-"))
    }));
    row
}

/// What became of a change, in the table.
fn became(action: Action) -> &'static str {
    match action {
        Action::Done => "done",
        Action::Failed => "FAILED",
        Action::NotReached => "not reached",
        Action::Skipped => "left out",
    }
}

/// What the table has no room for.
fn notes(node: &NodeReport) -> Vec<String> {
    let mut notes = Vec::from_iter(node.error.clone().filter(|_| node.online));
    if let Some(status) = &node.status {
        notes.extend(status.refusals.iter().cloned());
        notes.extend(
            status.pending.iter().map(|why| format!("the last automatic apply did not succeed: {why}")),
        );
        // What its files are, the table and the lines above say.
        if node.is_patched() && !status.attention.is_empty() {
            notes.push("not all is as it should be: `pve-diff-backup doctor` there tells what".to_owned());
        }
        if status.set.as_ref().is_some_and(|set| !set.verified) {
            notes.push("a release that the patch set was not verified with".to_owned());
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::cluster::remote::RemoteError;

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let words =
            |failure| words(&Problem::Stopped(NodeName::try_from("pve2".to_owned()).unwrap(), failure));
        assert_eq!(
            words(Failure::Ended { command: "apply", code: 16 }),
            "stopped at pve2: apply ended with code 16 (apt-get failed)"
        );
        assert_eq!(
            words(Failure::Ended { command: "revert", code: 99 }),
            "stopped at pve2: revert ended with code 99 (unknown to this version)"
        );
        assert_eq!(
            words(Failure::Remote(RemoteError::Slow(Duration::from_secs(900)))),
            "stopped at pve2: did not answer within 900 s; what it was doing may go on there: look again before you \
             repeat it"
        );
        assert_eq!(words(Failure::Remote(RemoteError::Offline)), "stopped at pve2: offline");
    }
}
