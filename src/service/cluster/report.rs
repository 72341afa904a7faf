//! How the nodes of a cluster stand, what became of a change, and which backup jobs that concerns.
//!
//! All of it follows from what the nodes answered: nothing here reads a host.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Operation;
use crate::host::cluster::jobs::{Job, Source};
use crate::host::cluster::remote::{Answer, RemoteError};
use crate::host::cluster::{Members, Node, NodeName};

/// Everything that is told; as JSON in this form.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The cluster's name; `None` outside a cluster.
    pub cluster: Option<String>,
    /// Whether this node's part of the cluster has the majority.
    pub quorate: bool,
    /// What went wrong with a change, and where it stopped.
    #[serde(skip)]
    pub problem: Option<Problem>,
    /// The nodes, this one first.
    pub nodes: Vec<NodeReport>,
    /// The backup jobs with Full Backup Every.
    pub jobs: Vec<JobReport>,
}

/// How one node stands.
#[derive(Debug, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: NodeName,
    /// Whether it is the node that this ran on.
    pub own: bool,
    /// Whether the cluster sees it.
    pub online: bool,
    /// What it says of itself; `None` where it said nothing.
    pub status: Option<NodeStatus>,
    /// Why it said nothing.
    pub error: Option<String>,
    /// What became of a change.
    pub action: Option<Action>,
}

/// What became of a change of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
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
pub struct NodeStatus {
    /// Version of our program; the first ones did not tell it.
    pub program: Option<String>,
    /// How the node's files stand, in a word.
    pub overall: String,
    /// The patch set that is for it.
    pub set: Option<NodeSet>,
    /// The packages of Proxmox VE.
    pub packages: Vec<NodePackage>,
    /// What speaks against patching it.
    #[serde(default)]
    pub refusals: Vec<String>,
    /// Whether any line or file of ours is there.
    #[serde(default)]
    pub holds_ours: bool,
    /// Why the package's last hook could not do what it should.
    pub pending: Option<String>,
    /// What is not as it should be, as `doctor` tells it there.
    #[serde(default)]
    pub attention: Vec<String>,
}

/// The patch set that is for a node.
#[derive(Debug, Deserialize, Serialize)]
pub struct NodeSet {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Whether it was tried with that node's files.
    #[serde(default)]
    pub verified: bool,
}

/// A package of Proxmox VE on a node.
#[derive(Debug, Deserialize, Serialize)]
pub struct NodePackage {
    /// Its name.
    pub name: String,
    /// Its version; `None` where it is not installed.
    pub version: Option<String>,
}

/// A job with Full Backup Every, and the nodes that make other backups for it.
#[derive(Debug, Serialize)]
pub struct JobReport {
    /// The job's name in its file.
    pub id: String,
    /// Which file holds it.
    pub file: Source,
    /// The number of days after which a full backup is made.
    pub every: u32,
    /// The only node it runs on; `None`: all.
    pub node: Option<String>,
    /// Whether it runs at all.
    pub enabled: bool,
    /// Nodes it runs on that are not patched.
    pub unpatched: Vec<NodeName>,
    /// Nodes it runs on that could not be asked.
    pub unknown: Vec<NodeName>,
}

/// How all nodes stand, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All are patched and current.
    Good,
    /// So they are, but on one of them something else is not as it should be.
    Attention,
    /// One of them is not, or could not be asked.
    Wrong,
}

/// Why a change was not made on all nodes.
#[derive(Debug)]
pub enum Problem {
    /// These nodes cannot be changed, so none was.
    Refused(Vec<Objection>),
    /// Somebody stopped it before this node.
    Interrupted(NodeName),
    /// It failed on this node, and none was changed after it.
    Stopped(NodeName, Failure),
}

/// What speaks against a change of a node before it begins.
#[derive(Debug)]
pub struct Objection {
    node: NodeName,
    reason: String,
}

/// Why the change of a node counts as failed.
#[derive(Debug)]
pub enum Failure {
    /// Our program there came to no end that is known here.
    Remote(RemoteError),
    /// It ended with an exit code other than 0.
    Ended {
        /// The command that ran there.
        command: &'static str,
        /// Its exit code.
        code: i32,
    },
    /// It said that all is done, and the node does not stand so.
    NotAsItShould,
}

impl Report {
    /// Puts together what the nodes and jobs are.
    pub(super) fn new(members: &Members, nodes: Vec<NodeReport>, jobs: Vec<Job>) -> Self {
        let (cluster, quorate) = (members.cluster.clone(), members.quorate);
        let mut report = Self { cluster, quorate, problem: None, nodes, jobs: Vec::new() };
        report.set_jobs(jobs);
        report
    }

    /// Takes the jobs as they are now, and finds the nodes that make other backups for them.
    pub(super) fn set_jobs(&mut self, jobs: Vec<Job>) {
        self.jobs = jobs.into_iter().map(|job| JobReport::new(job, &self.nodes)).collect();
    }

    /// Leaves out the nodes that are offline.
    pub(super) fn skip_offline(&mut self) {
        self.nodes
            .iter_mut()
            .filter(|node| !node.online)
            .for_each(|node| node.action = Some(Action::Skipped));
    }

    /// Indices of the nodes that are to be changed.
    pub(super) fn todo(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].action != Some(Action::Skipped))
    }

    /// Marks all nodes as not changed yet.
    pub(super) fn leave_all(&mut self) {
        self.nodes
            .iter_mut()
            .filter(|node| node.action.is_none())
            .for_each(|node| node.action = Some(Action::NotReached));
    }

    /// How all nodes stand that are not left out; as `status` says it of one.
    pub fn verdict(&self) -> Verdict {
        let mut nodes = self.nodes.iter().filter(|node| node.action != Some(Action::Skipped));
        match () {
            () if !nodes.clone().all(NodeReport::is_patched) => Verdict::Wrong,
            () if nodes.any(NodeReport::needs_attention) => Verdict::Attention,
            () => Verdict::Good,
        }
    }

    /// Whether the nodes that answered have different versions of our program.
    pub fn has_several_versions(&self) -> bool {
        let status = self.nodes.iter().filter_map(|node| node.status.as_ref());
        status.map(|status| status.program.as_deref()).collect::<BTreeSet<_>>().len() > 1
    }
}

impl JobReport {
    fn new(job: Job, nodes: &[NodeReport]) -> Self {
        let names = |wanted: &dyn Fn(&NodeReport) -> bool| {
            let nodes = nodes.iter().filter(|node| job.runs_on(&node.name) && wanted(node));
            nodes.map(|node| node.name.clone()).collect::<Vec<_>>()
        };
        let unpatched = names(&|node| node.status.is_some() && !node.is_patched());
        let unknown = names(&|node| node.status.is_none());
        let Job { id, source, every, node, enabled } = job;
        Self { id, file: source, every, node, enabled, unpatched, unknown }
    }
}

impl NodeReport {
    /// What `node` answered to `status --json`.
    pub(super) fn new(node: &Node, answer: Result<Answer, RemoteError>) -> Self {
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
    pub(super) fn is_after(&self, operation: Operation) -> bool {
        match operation {
            Operation::Apply => self.is_patched(),
            Operation::Revert => self.status.as_ref().is_some_and(|status| !status.holds_ours),
        }
    }

    /// What speaks against `operation` before it begins.
    pub(super) fn against(&self, operation: Operation) -> Option<Objection> {
        let reason = match (&self.status, operation) {
            _ if self.action == Some(Action::Skipped) => return None,
            (None, _) => self.error.clone().unwrap_or_default(),
            (Some(status), Operation::Apply) if status.overall == "unsupported" => {
                "cannot be patched".to_owned()
            }
            (Some(_), _) => return None,
        };
        Some(Objection { node: self.name.clone(), reason })
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.node, self.reason)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> NodeName {
        NodeName::try_from(name.to_owned()).unwrap()
    }

    fn report(nodes: &[(&str, &[&str])]) -> Report {
        let node = |(number, &(overall, attention)): (usize, &(&str, &[&str]))| {
            let status = serde_json::json!({"overall": overall, "packages": [], "attention": attention});
            let status = serde_json::from_value(status).unwrap();
            let name = named(&format!("pve{}", number + 1));
            NodeReport { name, own: false, online: true, status: Some(status), error: None, action: None }
        };
        let nodes = nodes.iter().enumerate().map(node).collect();
        Report { cluster: None, quorate: true, problem: None, nodes, jobs: Vec::new() }
    }

    #[test]
    fn one_node_that_needs_attention_is_enough() {
        let verdict = |nodes: &[(&str, &[&str])]| report(nodes).verdict();
        assert_eq!(verdict(&[("patched", &[]), ("patched", &[])]), Verdict::Good);
        assert_eq!(verdict(&[("patched", &[]), ("patched", &["a job failed"])]), Verdict::Attention);
        assert_eq!(verdict(&[("patched", &["x"]), ("unpatched", &["x"])]), Verdict::Wrong);
        let mut left_out = report(&[("patched", &[]), ("patched", &["x"]), ("mixed", &[])]);
        left_out.nodes[1..].iter_mut().for_each(|node| node.action = Some(Action::Skipped));
        assert_eq!(left_out.verdict(), Verdict::Good);
    }

    #[test]
    fn jobs_name_the_nodes_that_make_other_backups_for_them() {
        let mut report = report(&[("patched", &[]), ("mixed", &[]), ("unpatched", &[]), ("patched", &[])]);
        report.nodes[3].status = None;
        let job = |node: Option<&str>| Job {
            id: "backup-1".to_owned(),
            source: Source::JobsCfg,
            every: 7,
            node: node.map(str::to_owned),
            enabled: true,
        };
        report.set_jobs([None, Some("pve1"), Some("pve3"), Some("pve4"), Some("gone")].map(job).into());
        let found: Vec<_> = report.jobs.iter().map(|job| (&job.unpatched[..], &job.unknown[..])).collect();
        let [two, three, four] = ["pve2", "pve3", "pve4"].map(named);
        assert_eq!(
            found,
            [
                (&[two, three.clone()][..], &[four.clone()][..]),
                (&[], &[]),
                (&[three], &[]),
                (&[], &[four]),
                (&[], &[])
            ]
        );
    }

    #[test]
    fn a_status_is_found_behind_what_a_login_script_says() {
        let answer = |out: &str, err: &str| Answer { code: 3, out: out.to_owned(), err: err.to_owned() };
        let status = r#"{"overall": "patched", "packages": []}"#;
        for out in [status.to_owned(), format!("welcome {{\n{status}\nbye")] {
            assert_eq!(parse(&answer(&out, "")).unwrap().overall, "patched", "{out}");
        }
        for out in ["", "{", "welcome", "{}", "[1]", r#"{"overall": 1, "packages": []}"#] {
            let error = parse(&answer(out, " \n lost \n")).unwrap_err();
            assert_eq!(error, "pve-diff-backup status there ended with code 3 and said: lost", "{out}");
        }
    }

    #[test]
    fn versions_differ_where_one_tells_none() {
        let mut report = report(&[("patched", &[]), ("patched", &[])]);
        assert!(!report.has_several_versions());
        report.nodes[0].status.as_mut().unwrap().program = Some("0.1.0".to_owned());
        assert!(report.has_several_versions());
        report.nodes[1].status = None;
        assert!(!report.has_several_versions());
    }
}
