//! Does `status`, `apply` and `revert` on all nodes (`--cluster`).
//!
//! Our program runs on each node, and nothing but its exit code and its `status --json` is believed. All nodes are asked
//! first, and where one of them cannot be changed, none is. Then they are changed one after another, this node first, up to
//! the first failure. Whatever happens, the table at the end tells how every node stands.

mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::report::{Action, NodeReport, Report};
use super::confirmed;
use crate::cli::Global;
use crate::cli::exit::{Exit, Stop};
use crate::cli::say::{self, say};
use crate::host::Root;
use crate::host::cluster::remote::{self, Purpose, RemoteError};
use crate::host::cluster::{Members, Node, jobs};
use crate::text::harmless;

/// Options of the commands that can do all nodes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClusterArgs {
    /// Do it for all nodes of the cluster, over root's SSH
    ///
    /// The nodes are those the cluster lists, and SSH is used as Proxmox VE itself uses it between them. Each node needs
    /// pve-diff-backup installed. apply and revert ask all nodes first, and change nothing where one of them does not
    /// answer or could not be patched; then they do this node and the others one after another, and stop at the first
    /// failure. Ctrl-C stops after the node that is being done. The table at the end tells how every node stands.
    #[arg(long)]
    pub cluster: bool,
    /// With --cluster: leave out the nodes that are offline
    #[arg(long, requires = "cluster")]
    pub skip_offline: bool,
}

/// Options of those that change them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ChangeArgs {
    /// The nodes to work on.
    #[command(flatten)]
    pub nodes: ClusterArgs,
    /// With --cluster: print the result as JSON
    #[arg(long, requires = "cluster")]
    pub json: bool,
}

/// What is done to all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `apply --cluster`
    Apply,
    /// `revert --cluster`
    Revert,
}

/// How a change of all nodes is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// What to do.
    pub operation: Operation,
    /// Whether nodes that are offline are left out.
    pub skip_offline: bool,
    /// Whether no question is asked.
    pub yes: bool,
    /// Whether services keep the code that they run.
    pub no_restart: bool,
    /// Whether the result is printed as JSON on standard output. Everything else then goes to standard error.
    pub json: bool,
}

/// Prints how all nodes stand and which backup jobs that concerns.
///
/// # Errors
/// Where the cluster's members cannot be read; a node that does not answer is no error but told.
pub fn status(global: &Global, args: &ClusterArgs, json: bool) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::open(global)?;
    let mut report = cluster.ask_all(args.skip_offline)?;
    report.exit = report.verdict();
    report.show(json)?;
    Ok(report.exit.into())
}

/// Changes all nodes, and prints how they stand.
///
/// # Errors
/// Where the members cannot be read, or the question is answered with no. What goes wrong on a node is told in the
/// report, with an exit code of its own.
pub fn change(global: &Global, change: &Change) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::open(global)?;
    let mut report = cluster.ask_all(change.skip_offline)?;
    let against: Vec<String> =
        report.nodes.iter().filter_map(|node| node.against(change.operation)).collect();
    if !against.is_empty() {
        report.leave_all();
        report.exit = Exit::Nodes;
        report.problem = Some(format!("nothing was changed on any node: {}", against.join("; ")));
    } else {
        if !change.yes {
            report.print_nodes(&mut std::io::stderr())?;
        }
        let names: Vec<&str> =
            report.todo().map(|index| cluster.members.nodes[index].name.as_str()).collect();
        confirmed(&change.operation.question(&names), change.yes)?;
        cluster.change_each(&mut report, change)?;
    }
    report.show(change.json)?;
    Ok(report.exit.into())
}

/// The cluster of the running host.
struct Cluster {
    root: Root,
    members: Members,
}

impl Cluster {
    fn open(global: &Global) -> anyhow::Result<Self> {
        let root = Root::open(&global.root)?;
        if !root.is_running_host() || global.patches.is_some() {
            let text = "--cluster deals with running nodes, each by its own program: neither --root nor --patches goes \
                        with it";
            return Err(Stop(Exit::Usage, text.to_owned()).into());
        }
        let members = Members::read(&root)?;
        Ok(Self { root, members })
    }

    /// Asks all nodes at the same time how they stand.
    fn ask_all(&self, skip_offline: bool) -> anyhow::Result<Report> {
        let nodes = std::thread::scope(|scope| {
            let asked: Vec<_> =
                self.members.nodes.iter().map(|node| scope.spawn(|| self.ask(node))).collect();
            asked
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Vec<_>>()
        });
        let mut report = Report::new(&self.members, nodes, jobs::read(&self.root)?);
        if skip_offline {
            report.skip_offline();
        }
        Ok(report)
    }

    fn ask(&self, node: &Node) -> NodeReport {
        NodeReport::new(node, remote::run(&self.root, node, &["status", "--json"], Purpose::Look))
    }

    /// Changes one node after another, up to the first failure.
    fn change_each(&self, report: &mut Report, change: &Change) -> anyhow::Result<()> {
        let interrupted = stop_after_node()?;
        say!("Ctrl-C stops after the node that is being done.");
        let todo: Vec<usize> = report.todo().collect();
        report.leave_all();
        for index in todo {
            let node = &self.members.nodes[index];
            if interrupted.load(Ordering::Relaxed) {
                report.exit = Exit::Nodes;
                report.problem = Some(format!("interrupted before {}", node.name));
                break;
            }
            say!("{}:", node.name);
            let failure = self.change_one(node, change);
            let mut after = self.ask(node);
            let failure = failure.or_else(|| {
                (!after.is_after(change.operation)).then(|| "it is not as it should be afterwards".to_owned())
            });
            after.action = Some(if failure.is_some() { Action::Failed } else { Action::Done });
            report.nodes[index] = after;
            if let Some(reason) = failure {
                report.exit = Exit::Nodes;
                report.problem = Some(format!("stopped at {}: {reason}", node.name));
                break;
            }
        }
        // apply and revert look after the option in them.
        report.set_jobs(jobs::read(&self.root)?);
        Ok(())
    }

    /// Changes a node; gives the reason where that failed.
    fn change_one(&self, node: &Node, change: &Change) -> Option<String> {
        let mut words = vec![change.operation.command(), "--yes"];
        if change.no_restart {
            words.push("--no-restart");
        }
        let answer = match remote::run(&self.root, node, &words, Purpose::Change) {
            Ok(answer) => answer,
            Err(error @ (RemoteError::Slow(_) | RemoteError::BrokeOff(_))) => {
                return Some(format!(
                    "{error}; what it was doing may go on there: look again before you repeat it"
                ));
            }
            Err(error) => return Some(error.to_string()),
        };
        for line in answer.out.lines().chain(answer.err.lines()) {
            say::text(format_args!("  {}\n", harmless(line)));
        }
        let reason = Exit::TABLE.iter().find(|(code, _)| *code as i32 == answer.code);
        let reason = reason.map_or("unknown to this version", |(_, meaning)| meaning);
        (answer.code != 0)
            .then(|| format!("{} ended with code {} ({reason})", change.operation.command(), answer.code))
    }
}

impl ChangeArgs {
    /// The change of all nodes that is asked for; `None`: only this one is meant.
    pub fn change(&self, operation: Operation, yes: bool, no_restart: bool) -> Option<Change> {
        let ClusterArgs { cluster, skip_offline } = self.nodes;
        cluster.then_some(Change { operation, skip_offline, yes, no_restart, json: self.json })
    }
}

impl Operation {
    fn command(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
        }
    }

    fn question(self, names: &[&str]) -> String {
        let verb = match self {
            Self::Apply => "Patch",
            Self::Revert => "Take everything of ours out of",
        };
        format!("{verb} {}, one after another?", names.join(", "))
    }
}

/// Lets the first Ctrl-C (or the like) only be noted from now on. A second one ends the program.
fn stop_after_node() -> std::io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}
