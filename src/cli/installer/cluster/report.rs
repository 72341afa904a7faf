//! Tells how the nodes stand, to people and as JSON.

use std::io::{self, Write};

use serde::{Deserialize, Serialize, Serializer};

use super::Operation;
use crate::cli::exit::Exit;
use crate::cli::say::{count, say};
use crate::host::PACKAGES;
use crate::host::cluster::jobs::{Job, Source};
use crate::host::cluster::remote::{Answer, RemoteError};
use crate::host::cluster::{Members, Node, NodeName};
use crate::text::harmless;

/// Everything that is told; as JSON in this form.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The cluster's name.
    cluster: Option<String>,
    quorate: bool,
    /// The exit code.
    #[serde(serialize_with = "code")]
    pub exit: Exit,
    /// What went wrong with a change, and where it stopped.
    pub problem: Option<String>,
    pub nodes: Vec<NodeReport>,
    jobs: Vec<JobReport>,
}

/// How one node stands.
#[derive(Debug, Serialize)]
pub(super) struct NodeReport {
    name: NodeName,
    /// Whether it is the node that this ran on.
    own: bool,
    /// Whether the cluster sees it.
    online: bool,
    /// What it says of itself; `None` where it said nothing.
    status: Option<NodeStatus>,
    /// Why it said nothing.
    error: Option<String>,
    /// What became of a change.
    pub action: Option<Action>,
}

/// What became of a change of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    /// It was made, or there was nothing to do.
    Done,
    /// It failed there.
    Failed,
    /// It had not got that far.
    NotReached,
    /// The node is offline, and was to be left out.
    Skipped,
}

/// What `status --json` prints, as far as it is used here. Another version may say less or more.
#[derive(Debug, Deserialize, Serialize)]
struct NodeStatus {
    /// Version of our program.
    program: Option<String>,
    overall: String,
    set: Option<SetStatus>,
    packages: Vec<PackageStatus>,
    #[serde(default)]
    refusals: Vec<String>,
    #[serde(default)]
    holds_ours: bool,
    pending: Option<String>,
    /// What is not as it should be, as `doctor` tells it there.
    #[serde(default)]
    attention: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SetStatus {
    name: String,
    version: u32,
    #[serde(default)]
    verified: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct PackageStatus {
    name: String,
    version: Option<String>,
}

/// A job with Full Backup Every, and the nodes that make other backups for it.
#[derive(Debug, Serialize)]
struct JobReport {
    id: String,
    file: Source,
    every: u32,
    node: Option<String>,
    enabled: bool,
    /// Nodes it runs on that are not patched.
    unpatched: Vec<NodeName>,
    /// Nodes it runs on that could not be asked.
    unknown: Vec<NodeName>,
}

impl Report {
    pub fn new(members: &Members, nodes: Vec<NodeReport>, jobs: Vec<Job>) -> Self {
        let mut report = Self {
            cluster: members.cluster.clone(),
            quorate: members.quorate,
            exit: Exit::Success,
            problem: None,
            nodes,
            jobs: Vec::new(),
        };
        report.set_jobs(jobs);
        report
    }

    /// Takes the jobs as they are now, and finds the nodes that make other backups for them.
    pub fn set_jobs(&mut self, jobs: Vec<Job>) {
        let jobs = jobs.into_iter().map(|Job { id, source, every, node, enabled }| JobReport {
            id,
            file: source,
            every,
            node,
            enabled,
            unpatched: Vec::new(),
            unknown: Vec::new(),
        });
        self.jobs = jobs.collect();
        self.judge_jobs();
    }

    /// Leaves out the nodes that are offline.
    pub fn skip_offline(&mut self) {
        self.nodes
            .iter_mut()
            .filter(|node| !node.online)
            .for_each(|node| node.action = Some(Action::Skipped));
    }

    /// Indices of the nodes that are to be changed.
    pub fn todo(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].action != Some(Action::Skipped))
    }

    /// Marks all nodes as not changed yet.
    pub fn leave_all(&mut self) {
        self.nodes
            .iter_mut()
            .filter(|node| node.action.is_none())
            .for_each(|node| node.action = Some(Action::NotReached));
    }

    /// How all nodes stand that are not left out; as `status` says it of one.
    pub fn verdict(&self) -> Exit {
        let mut nodes = self.nodes.iter().filter(|node| node.action != Some(Action::Skipped));
        match () {
            () if !nodes.clone().all(NodeReport::is_patched) => Exit::Nodes,
            () if nodes.any(NodeReport::needs_attention) => Exit::Attention,
            () => Exit::Success,
        }
    }

    fn judge_jobs(&mut self) {
        for job in &mut self.jobs {
            let runs = |node: &&NodeReport| job.node.as_deref().is_none_or(|name| name == node.name.as_str());
            let names = |wanted: &dyn Fn(&NodeReport) -> bool| {
                let nodes = self.nodes.iter().filter(runs).filter(|node| wanted(node));
                nodes.map(|node| node.name.clone()).collect::<Vec<_>>()
            };
            (job.unpatched, job.unknown) = (
                names(&|node| node.status.is_some() && !node.is_patched()),
                names(&|node| node.status.is_none()),
            );
        }
    }

    /// Prints it: as JSON, or as tables.
    pub fn show(&self, json: bool) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{:#}", serde_json::to_value(self)?)?;
        } else {
            self.print_nodes(&mut out)?;
            self.print_jobs(&mut out)?;
        }
        out.flush()?;
        if let Some(problem) = &self.problem {
            say!("{}", harmless(problem));
        }
        Ok(())
    }

    /// The table of nodes and what must be said about some.
    pub fn print_nodes(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.cluster {
            Some(name) => writeln!(out, "cluster {}, {}", harmless(name), count(self.nodes.len(), "node"))?,
            None => writeln!(out, "this host is in no cluster")?,
        }
        if !self.quorate {
            writeln!(out, "this node's part of the cluster has no majority: others may only look offline")?;
        }
        let actions = self.nodes.iter().any(|node| node.action.is_some());
        let mut table = vec![heading(actions)];
        table.extend(self.nodes.iter().map(|node| node.row(actions)));
        let widths: Vec<usize> = (0..table[0].len())
            .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in &table {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for node in &self.nodes {
            for note in node.notes() {
                writeln!(out, "{}: {}", node.name, harmless(&note))?;
            }
        }
        let mut programs: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|node| Some(node.status.as_ref()?.program.as_deref().unwrap_or("older")))
            .collect();
        programs.sort_unstable();
        programs.dedup();
        if programs.len() > 1 {
            writeln!(out, "the nodes have different versions of pve-diff-backup: install the same on all")?;
        }
        Ok(())
    }

    /// The jobs with Full Backup Every.
    fn print_jobs(&self, out: &mut impl Write) -> io::Result<()> {
        if self.jobs.is_empty() {
            return writeln!(out, "no backup job has Full Backup Every");
        }
        writeln!(out, "backup jobs with Full Backup Every:")?;
        for job in &self.jobs {
            let file = match job.file {
                Source::JobsCfg => "",
                Source::VzdumpCron => "vzdump.cron ",
            };
            let place =
                job.node.as_deref().map_or_else(|| "all nodes".to_owned(), |name| format!("node {name}"));
            let off = if job.enabled { "" } else { ", disabled" };
            let line = format!("  {file}{}: every {} days, {place}{off}", job.id, job.every);
            writeln!(out, "{}{}", harmless(&line), job.consequence())?;
        }
        Ok(())
    }
}

impl JobReport {
    /// What the nodes make of it that do not know the option.
    fn consequence(&self) -> String {
        let list = |nodes: &[NodeName]| nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        let mut text = String::new();
        if !self.unpatched.is_empty() {
            text += match self.file {
                Source::JobsCfg => "; only full backups on ",
                Source::VzdumpCron => "; REFUSED, so no backups at all, on ",
            };
            text += &format!("{} (not patched)", list(&self.unpatched));
        }
        if !self.unknown.is_empty() {
            text += &format!("; unknown on {}", list(&self.unknown));
        }
        text
    }
}

impl NodeReport {
    /// What `node` answered to `status --json`.
    pub fn new(node: &Node, answer: Result<Answer, RemoteError>) -> Self {
        let (status, error) =
            match answer.map_err(|error| error.to_string()).and_then(|answer| parse(&answer)) {
                Ok(status) => (Some(status), None),
                Err(error) => (None, Some(error)),
            };
        Self { name: node.name.clone(), own: node.own, online: node.online, status, error, action: None }
    }

    /// Whether it is patched and current.
    pub fn is_patched(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.overall == "patched")
    }

    /// Whether something else than its files is not as it should be.
    fn needs_attention(&self) -> bool {
        self.status.as_ref().is_some_and(|status| !status.attention.is_empty())
    }

    /// Whether it stands as it should after `operation`.
    pub fn is_after(&self, operation: Operation) -> bool {
        match operation {
            Operation::Apply => self.is_patched(),
            Operation::Revert => self.status.as_ref().is_some_and(|status| !status.holds_ours),
        }
    }

    /// What speaks against `operation` before it begins.
    pub fn against(&self, operation: Operation) -> Option<String> {
        let reason = match (&self.status, operation) {
            _ if self.action == Some(Action::Skipped) => return None,
            (None, _) => self.error.clone().unwrap_or_default(),
            (Some(status), Operation::Apply) if status.overall == "unsupported" => {
                "cannot be patched".to_owned()
            }
            (Some(_), _) => return None,
        };
        Some(format!("{} ({reason})", self.name))
    }

    /// Its line of the table, as [`heading`].
    fn row(&self, actions: bool) -> Vec<String> {
        let name = format!("{}{}", self.name, if self.own { " (here)" } else { "" });
        let state = match (&self.status, self.online) {
            (Some(status), _) => status.overall.as_str(),
            (None, true) => "unknown",
            (None, false) => "offline",
        };
        let mut row = vec![name, harmless(state)];
        if actions {
            row.push(self.action.map_or("-", Action::words).to_owned());
        }
        let Some(status) = &self.status else {
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

    /// What the table has no room for.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::from_iter(self.error.clone().filter(|_| self.online));
        if let Some(status) = &self.status {
            notes.extend(status.refusals.iter().cloned());
            notes.extend(
                status.pending.iter().map(|why| format!("the last automatic apply did not succeed: {why}")),
            );
            // What its files are, the table and the lines above say.
            if status.overall == "patched" && !status.attention.is_empty() {
                notes
                    .push("not all is as it should be: `pve-diff-backup doctor` there tells what".to_owned());
            }
            if status.set.as_ref().is_some_and(|set| !set.verified) {
                notes.push("a release that the patch set was not verified with".to_owned());
            }
        }
        notes
    }
}

impl Action {
    fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "FAILED",
            Self::NotReached => "not reached",
            Self::Skipped => "left out",
        }
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

/// Finds the status in what a node printed. A login script may have printed something before it.
fn parse(answer: &Answer) -> Result<NodeStatus, String> {
    let begin = if answer.out.starts_with('{') { Some(0) } else { answer.out.find("\n{").map(|at| at + 1) };
    match begin.map(|at| serde_json::Deserializer::from_str(&answer.out[at..]).into_iter().next()) {
        Some(Some(Ok(status))) => Ok(status),
        _ => {
            let said = [&answer.err, &answer.out].into_iter().flat_map(|text| text.lines());
            let said = said.map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing");
            let said: String = said.chars().take(200).collect();
            Err(format!("pve-diff-backup status there ended with code {} and said: {said}", answer.code))
        }
    }
}

fn code<S: Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*exit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(nodes: &[(&str, &[&str])]) -> Report {
        let node = |&(overall, attention): &(&str, &[&str])| {
            let status = serde_json::json!({"overall": overall, "packages": [], "attention": attention});
            let status = serde_json::from_value(status).unwrap();
            let name = serde_json::from_value("pve1".into()).unwrap();
            NodeReport { name, own: false, online: true, status: Some(status), error: None, action: None }
        };
        Report {
            cluster: None,
            quorate: true,
            exit: Exit::Success,
            problem: None,
            nodes: nodes.iter().map(node).collect(),
            jobs: Vec::new(),
        }
    }

    #[test]
    fn one_node_that_needs_attention_is_enough() {
        let verdict = |nodes: &[(&str, &[&str])]| report(nodes).verdict();
        assert_eq!(verdict(&[("patched", &[]), ("patched", &[])]), Exit::Success);
        assert_eq!(verdict(&[("patched", &[]), ("patched", &["a job failed"])]), Exit::Attention);
        assert_eq!(verdict(&[("patched", &["x"]), ("unpatched", &["x"])]), Exit::Nodes);
        let mut left_out = report(&[("patched", &[]), ("patched", &["x"]), ("mixed", &[])]);
        left_out.nodes[1..].iter_mut().for_each(|node| node.action = Some(Action::Skipped));
        assert_eq!(left_out.verdict(), Exit::Success);
    }
}
