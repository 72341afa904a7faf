//! `--cluster` of `status`, `apply` and `revert`: asks, and tells what becomes of the nodes.

mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::report::{print_nodes, show};
use super::confirmed;
use crate::cli::Global;
use crate::cli::exit::{Exit, Stop};
use crate::cli::say::{self, say};
use crate::host::Root;
use crate::host::cluster::NodeName;
use crate::host::cluster::remote::Answer;
use crate::service::cluster::report::{Report, Verdict};
use crate::service::cluster::{self, Cluster, Operation, Watcher};
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

/// A change of all nodes that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// What is to be done.
    what: cluster::Change,
    /// Whether no question is asked.
    yes: bool,
    /// Whether the result is printed as JSON on standard output. Everything else then goes to standard error.
    json: bool,
}

/// Prints how all nodes stand and which backup jobs that concerns.
///
/// # Errors
/// Where the cluster's members cannot be read; a node that does not answer is no error but told.
pub fn status(global: &Global, args: &ClusterArgs, json: bool) -> anyhow::Result<ExitCode> {
    let report = Cluster::open(&running(global)?)?.status(args.skip_offline)?;
    let exit = match report.verdict() {
        Verdict::Good => Exit::Success,
        Verdict::Attention => Exit::Attention,
        Verdict::Wrong => Exit::Nodes,
    };
    show(&report, exit, json)?;
    Ok(exit.into())
}

/// Changes all nodes, and prints how they stand.
///
/// # Errors
/// Where the members cannot be read, or the question is answered with no. What goes wrong on a node is told in the
/// report, with an exit code of its own.
pub fn change(global: &Global, change: &Change) -> anyhow::Result<ExitCode> {
    let dialogue =
        Dialogue { operation: change.what.operation, yes: change.yes, interrupted: Arc::default() };
    let report = Cluster::open(&running(global)?)?.change(&change.what, &dialogue)?;
    let exit = if report.problem.is_some() { Exit::Nodes } else { Exit::Success };
    show(&report, exit, change.json)?;
    Ok(exit.into())
}

/// The running host, the only one whose cluster can be asked.
fn running(global: &Global) -> anyhow::Result<Root> {
    let root = Root::open(&global.root)?;
    if !root.is_running_host() || global.patches.is_some() {
        let text = "--cluster deals with running nodes, each by its own program: neither --root nor --patches goes with it";
        return Err(Stop(Exit::Usage, text.to_owned()).into());
    }
    Ok(root)
}

impl ChangeArgs {
    /// The change of all nodes that is asked for; `None`: only this one is meant.
    pub fn change(&self, operation: Operation, yes: bool, no_restart: bool) -> Option<Change> {
        let ClusterArgs { cluster, skip_offline } = self.nodes;
        let what = cluster::Change { operation, skip_offline, no_restart };
        cluster.then_some(Change { what, yes, json: self.json })
    }
}

/// Asks before all nodes are changed, tells what becomes of them, and notes a Ctrl-C.
struct Dialogue {
    operation: Operation,
    yes: bool,
    interrupted: Arc<AtomicBool>,
}

impl Watcher for Dialogue {
    fn confirm(&self, report: &Report, nodes: &[&NodeName]) -> anyhow::Result<()> {
        if !self.yes {
            print_nodes(report, &mut std::io::stderr())?;
        }
        confirmed(&question(self.operation, nodes), self.yes)?;
        self.stop_after_node()?;
        say!("Ctrl-C stops after the node that is being done.");
        Ok(())
    }

    fn begins(&self, node: &NodeName) {
        say!("{node}:");
    }

    fn answered(&self, answer: &Answer) {
        for line in answer.out.lines().chain(answer.err.lines()) {
            say::text(format_args!("  {}\n", harmless(line)));
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Dialogue {
    /// Lets the first Ctrl-C (or the like) only be noted from now on. A second one ends the program.
    fn stop_after_node(&self) -> std::io::Result<()> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&self.interrupted))?;
            signal_hook::flag::register(signal, Arc::clone(&self.interrupted))?;
        }
        Ok(())
    }
}

fn question(operation: Operation, nodes: &[&NodeName]) -> String {
    let verb = match operation {
        Operation::Apply => "Patch",
        Operation::Revert => "Take everything of ours out of",
    };
    let names: Vec<&str> = nodes.iter().map(|name| name.as_str()).collect();
    format!("{verb} {}, one after another?", names.join(", "))
}
