//! Looks how all nodes of the cluster stand, and changes them one after another (`--cluster`).
//!
//! Our program runs on each node, and nothing but its exit code and its `status --json` is believed. All nodes are asked
//! first, and where one of them cannot be changed, none is. Then they are changed one after another, this node first, up to
//! the first failure. Whatever happens, the [`Report`] tells how every node stands.

pub mod report;

use self::report::{Action, Failure, NodeReport, Problem, Report};
use crate::host::Root;
use crate::host::cluster::remote::{self, Answer, Purpose, RemoteError};
use crate::host::cluster::{Members, Node, NodeName, jobs};

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
    /// Whether services keep the code that they run.
    pub no_restart: bool,
}

/// Follows a change of all nodes, and decides whether it goes on.
pub trait Watcher {
    /// Says whether `nodes` may be changed, of those in `report`. It is called once, before the first of them.
    ///
    /// # Errors
    /// Where they may not; then nothing is changed.
    fn confirm(&self, report: &Report, nodes: &[&NodeName]) -> anyhow::Result<()>;

    /// Hears that `node` is being changed from now on.
    fn begins(&self, node: &NodeName);

    /// Hears what our program said on the node that was changed.
    fn answered(&self, answer: &Answer);

    /// Says whether no further node is to be changed. It is called before each.
    fn is_interrupted(&self) -> bool;
}

/// Runs our program on a node with the given arguments.
type Run<'a> = dyn Fn(&Node, &[&str], Purpose) -> Result<Answer, RemoteError> + Sync + 'a;

/// The cluster of a host.
pub struct Cluster<'a> {
    root: &'a Root,
    members: Members,
    run: Box<Run<'a>>,
}

impl<'a> Cluster<'a> {
    /// Reads which nodes the cluster of the running host has.
    ///
    /// # Errors
    /// Where its list of members cannot be read.
    pub fn open(root: &'a Root) -> anyhow::Result<Self> {
        Self::reached_by(root, Box::new(|node, words, purpose| remote::run(root, node, words, purpose)))
    }

    fn reached_by(root: &'a Root, run: Box<Run<'a>>) -> anyhow::Result<Self> {
        Ok(Self { root, members: Members::read(root)?, run })
    }

    /// Looks how all nodes stand and which backup jobs that concerns.
    ///
    /// # Errors
    /// Where the jobs cannot be read; a node that does not answer is no error but told.
    pub fn status(&self, skip_offline: bool) -> anyhow::Result<Report> {
        let nodes = std::thread::scope(|scope| {
            let asked: Vec<_> =
                self.members.nodes.iter().map(|node| scope.spawn(|| self.ask(node))).collect();
            asked
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Vec<_>>()
        });
        let mut report = Report::new(&self.members, nodes, jobs::read(self.root)?);
        if skip_offline {
            report.skip_offline();
        }
        Ok(report)
    }

    /// Changes all nodes, and tells how they stand then.
    ///
    /// # Errors
    /// Where the jobs cannot be read, or `watcher` does not confirm. What goes wrong on a node is the report's
    /// [`problem`](Report::problem).
    pub fn change(&self, change: &Change, watcher: &dyn Watcher) -> anyhow::Result<Report> {
        let mut report = self.status(change.skip_offline)?;
        let against: Vec<_> = report.nodes.iter().filter_map(|node| node.against(change.operation)).collect();
        if !against.is_empty() {
            report.leave_all();
            report.problem = Some(Problem::Refused(against));
            return Ok(report);
        }
        let todo: Vec<usize> = report.todo().collect();
        let names: Vec<&NodeName> = todo.iter().map(|index| &self.members.nodes[*index].name).collect();
        watcher.confirm(&report, &names)?;
        report.leave_all();
        report.problem = self.change_each(&todo, &mut report.nodes, change, watcher);
        // apply and revert look after the option in them.
        report.set_jobs(jobs::read(self.root)?);
        Ok(report)
    }

    /// Changes one node after another, up to the first failure, which it gives back.
    fn change_each(
        &self,
        todo: &[usize],
        reports: &mut [NodeReport],
        change: &Change,
        watcher: &dyn Watcher,
    ) -> Option<Problem> {
        for &index in todo {
            let node = &self.members.nodes[index];
            if watcher.is_interrupted() {
                return Some(Problem::Interrupted(node.name.clone()));
            }
            watcher.begins(&node.name);
            let changed = self.change_one(node, change, watcher);
            let mut after = self.ask(node);
            let changed = changed.and_then(|()| match after.is_after(change.operation) {
                true => Ok(()),
                false => Err(Failure::NotAsItShould),
            });
            after.action = Some(if changed.is_ok() { Action::Done } else { Action::Failed });
            reports[index] = after;
            if let Err(failure) = changed {
                return Some(Problem::Stopped(node.name.clone(), failure));
            }
        }
        None
    }

    fn change_one(&self, node: &Node, change: &Change, watcher: &dyn Watcher) -> Result<(), Failure> {
        let command = change.operation.command();
        let mut words = vec![command, "--yes"];
        if change.no_restart {
            words.push("--no-restart");
        }
        let answer = (self.run)(node, &words, Purpose::Change).map_err(Failure::Remote)?;
        watcher.answered(&answer);
        match answer.code {
            0 => Ok(()),
            code => Err(Failure::Ended { command, code }),
        }
    }

    fn ask(&self, node: &Node) -> NodeReport {
        NodeReport::new(node, (self.run)(node, &["status", "--json"], Purpose::Look))
    }
}

impl Operation {
    /// The command that does it on one node.
    fn command(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    /// Three nodes that are not patched. This is pve2, and pve3 is offline where a test says so.
    struct Lab {
        dir: tempfile::TempDir,
        /// How each node stands.
        overall: Mutex<BTreeMap<String, &'static str>>,
        /// What was run to change nodes, and where.
        changes: Mutex<Vec<String>>,
        /// How a change ends on some nodes.
        ends: BTreeMap<&'static str, fn() -> Result<i32, RemoteError>>,
    }

    impl Lab {
        fn new(third_online: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let members = serde_json::json!({
                "nodename": "pve2",
                "cluster": {"name": "lab", "quorate": 1},
                "nodelist": {
                    "pve1": {"online": 1, "ip": "10.0.0.1"},
                    "pve2": {"online": 1, "ip": "10.0.0.2"},
                    "pve3": {"online": u8::from(third_online), "ip": "10.0.0.3"},
                },
            });
            fs_err::create_dir_all(dir.path().join("etc/pve")).unwrap();
            fs_err::write(dir.path().join("etc/pve/.members"), members.to_string()).unwrap();
            let overall = ["pve1", "pve2", "pve3"].map(|name| (name.to_owned(), "unpatched"));
            let overall = Mutex::new(overall.into_iter().collect());
            Self { dir, overall, changes: Mutex::default(), ends: BTreeMap::new() }
        }

        fn run(&self, node: &Node, words: &[&str]) -> Result<Answer, RemoteError> {
            if !node.online {
                return Err(RemoteError::Offline);
            }
            let name = node.name.as_str();
            let mut overall = self.overall.lock().unwrap();
            let mut answer = Answer { code: 0, out: String::new(), err: String::new() };
            if words == ["status", "--json"] {
                let status = serde_json::json!({
                    "overall": overall[name],
                    "packages": [],
                    "holds_ours": overall[name] == "patched",
                });
                answer.out = status.to_string();
                return Ok(answer);
            }
            self.changes.lock().unwrap().push(format!("{name}: {}", words.join(" ")));
            answer.code = self.ends.get(name).map_or(Ok(0), |end| end())?;
            if answer.code == 0 {
                let after = if words[0] == "apply" { "patched" } else { "unpatched" };
                overall.insert(name.to_owned(), after);
            }
            Ok(answer)
        }

        fn change(
            &self,
            operation: Operation,
            skip_offline: bool,
            watcher: &Recorder,
        ) -> anyhow::Result<Report> {
            let root = Root::open(self.dir.path()).unwrap();
            let cluster =
                Cluster::reached_by(&root, Box::new(|node, words, _| self.run(node, words))).unwrap();
            cluster.change(&Change { operation, skip_offline, no_restart: true }, watcher)
        }

        fn changes(&self) -> Vec<String> {
            self.changes.lock().unwrap().clone()
        }
    }

    /// Confirms or does not, notes what it hears, and interrupts before a certain node.
    #[derive(Default)]
    struct Recorder {
        declines: bool,
        asked: RefCell<Vec<String>>,
        begun: RefCell<Vec<String>>,
        stop_after: Option<usize>,
    }

    impl Watcher for Recorder {
        fn confirm(&self, _: &Report, nodes: &[&NodeName]) -> anyhow::Result<()> {
            self.asked.borrow_mut().extend(nodes.iter().map(ToString::to_string));
            anyhow::ensure!(!self.declines, "no");
            Ok(())
        }

        fn begins(&self, node: &NodeName) {
            self.begun.borrow_mut().push(node.to_string());
        }

        fn answered(&self, _: &Answer) {}

        fn is_interrupted(&self) -> bool {
            self.stop_after.is_some_and(|number| self.begun.borrow().len() >= number)
        }
    }

    fn actions(report: &Report) -> Vec<(&str, Option<Action>)> {
        report.nodes.iter().map(|node| (node.name.as_str(), node.action)).collect()
    }

    #[test]
    fn this_node_comes_first_and_then_the_others() {
        let (lab, watcher) = (Lab::new(true), Recorder::default());
        let report = lab.change(Operation::Apply, false, &watcher).unwrap();
        assert_eq!(*watcher.asked.borrow(), ["pve2", "pve1", "pve3"]);
        assert_eq!(*watcher.begun.borrow(), ["pve2", "pve1", "pve3"]);
        assert_eq!(
            lab.changes(),
            ["pve2", "pve1", "pve3"].map(|name| format!("{name}: apply --yes --no-restart"))
        );
        assert!(report.problem.is_none());
        assert_eq!(actions(&report), ["pve2", "pve1", "pve3"].map(|name| (name, Some(Action::Done))));
        let report = lab.change(Operation::Revert, false, &Recorder::default()).unwrap();
        assert!(report.problem.is_none() && report.nodes.iter().all(|node| !node.is_patched()));
        assert_eq!(lab.changes()[3], "pve2: revert --yes --no-restart");
    }

    #[test]
    fn where_one_node_cannot_be_changed_none_is() {
        let (lab, watcher) = (Lab::new(false), Recorder::default());
        let report = lab.change(Operation::Revert, false, &watcher).unwrap();
        let Some(Problem::Refused(against)) = &report.problem else { panic!("{:?}", report.problem) };
        assert_eq!(against.iter().map(ToString::to_string).collect::<Vec<_>>(), ["pve3 (offline)"]);
        assert_eq!(actions(&report), ["pve2", "pve1", "pve3"].map(|name| (name, Some(Action::NotReached))));
        let lab = Lab::new(true);
        lab.overall.lock().unwrap().insert("pve1".to_owned(), "unsupported");
        let report = lab.change(Operation::Apply, false, &watcher).unwrap();
        let Some(Problem::Refused(against)) = &report.problem else { panic!("{:?}", report.problem) };
        assert_eq!(against[0].to_string(), "pve1 (cannot be patched)");
        assert!(lab.changes().is_empty() && watcher.asked.borrow().is_empty());
        // It can be reverted, though.
        assert!(lab.change(Operation::Revert, false, &watcher).unwrap().problem.is_none());
    }

    #[test]
    fn nodes_that_are_offline_are_left_out_where_that_is_asked_for() {
        let (lab, watcher) = (Lab::new(false), Recorder::default());
        let report = lab.change(Operation::Apply, true, &watcher).unwrap();
        assert!(report.problem.is_none());
        assert_eq!(*watcher.asked.borrow(), ["pve2", "pve1"]);
        assert_eq!(actions(&report)[2], ("pve3", Some(Action::Skipped)));
    }

    #[test]
    fn without_a_yes_nothing_is_changed() {
        let (lab, watcher) = (Lab::new(true), Recorder { declines: true, ..Recorder::default() });
        assert!(lab.change(Operation::Apply, false, &watcher).is_err());
        assert!(lab.changes().is_empty());
    }

    #[test]
    fn the_first_failure_is_the_end() {
        let ends: [fn() -> Result<i32, RemoteError>; 2] =
            [|| Ok(13), || Err(RemoteError::Slow(Duration::from_secs(1)))];
        for end in ends {
            let mut lab = Lab::new(true);
            lab.ends.insert("pve1", end);
            let report = lab.change(Operation::Apply, false, &Recorder::default()).unwrap();
            let Some(Problem::Stopped(node, failure)) = &report.problem else {
                panic!("{:?}", report.problem)
            };
            assert_eq!(node.as_str(), "pve1");
            assert!(
                matches!(
                    failure,
                    Failure::Ended { command: "apply", code: 13 } | Failure::Remote(RemoteError::Slow(_))
                ),
                "{failure:?}"
            );
            assert_eq!(
                actions(&report),
                [
                    ("pve2", Some(Action::Done)),
                    ("pve1", Some(Action::Failed)),
                    ("pve3", Some(Action::NotReached))
                ]
            );
            assert_eq!(lab.changes().len(), 2);
        }
    }

    #[test]
    fn an_interruption_stops_before_the_next_node() {
        let (lab, watcher) = (Lab::new(true), Recorder { stop_after: Some(1), ..Recorder::default() });
        let report = lab.change(Operation::Apply, false, &watcher).unwrap();
        assert!(matches!(&report.problem, Some(Problem::Interrupted(node)) if node.as_str() == "pve1"));
        assert_eq!(lab.changes().len(), 1);
        assert_eq!(actions(&report)[0], ("pve2", Some(Action::Done)));
        assert_eq!(actions(&report)[1], ("pve1", Some(Action::NotReached)));
    }

    #[test]
    fn success_that_the_node_does_not_show_is_a_failure() {
        // A program that says it is done, and did nothing.
        let lab = Lab::new(true);
        let root = Root::open(lab.dir.path()).unwrap();
        let idle = |node: &Node, words: &[&str], _| match words[0] {
            "status" => lab.run(node, words),
            _ => Ok(Answer { code: 0, out: String::new(), err: String::new() }),
        };
        let cluster = Cluster::reached_by(&root, Box::new(idle)).unwrap();
        let change = Change { operation: Operation::Apply, skip_offline: false, no_restart: false };
        let report = cluster.change(&change, &Recorder::default()).unwrap();
        assert!(
            matches!(&report.problem, Some(Problem::Stopped(node, Failure::NotAsItShould)) if node.as_str() == "pve2")
        );
    }
}
