//! The commands that deal with a host's files: what they share.

pub mod apply;
pub mod diff;
pub mod hook;
mod preflight;
pub mod reinstall;
pub mod revert;
pub mod status;

use anyhow::Context as _;

use super::Global;
use super::exit::{Exit, Refused, Stop};
use crate::host::services::{self, Reload};
use crate::host::{Root, RootError};
use crate::patching::patchset::{self, PatchSet};
use crate::patching::plan::{self, Change, Plan};
use crate::patching::record::{self, Record, RecordError};
use crate::patching::survey::Survey;
use crate::patching::transaction::{self, Recovery, Session};

/// A host and the patch sets that may be for it.
pub struct Host {
    root: Root,
    sets: Vec<PatchSet>,
}

/// A host as it was found, for planning.
pub struct View {
    survey: Survey,
    record: Option<Record>,
}

impl Host {
    /// What the global options speak of.
    ///
    /// # Errors
    /// Where there is no such folder, or a patch set is faulty.
    pub fn open(global: &Global) -> anyhow::Result<Self> {
        let root = Root::open(&global.root)?;
        let sets = match &global.patches {
            Some(dir) => patchset::from_dir(dir)?,
            None => patchset::embedded()?,
        };
        Ok(Self { root, sets })
    }

    /// The right to change the host; what an interrupted run left is dealt with first.
    fn session(&self) -> anyhow::Result<Session<'_>> {
        let session = Session::open(&self.root)?;
        self.recover(&session)?;
        Ok(session)
    }

    /// For commands that only read: no lock, unless there is something to recover.
    fn settle(&self) -> anyhow::Result<()> {
        if transaction::is_interrupted(&self.root)? {
            self.session().context("an interrupted run must be finished or undone first")?;
        }
        Ok(())
    }

    fn recover(&self, session: &Session) -> anyhow::Result<()> {
        match session.recover()? {
            Recovery::Nothing => {}
            Recovery::Completed(operation) => {
                eprintln!("An earlier `{operation}` was interrupted: it is now complete.");
                self.reload_hint();
            }
            Recovery::Undone(operation) => {
                eprintln!(
                    "An earlier `{operation}` was interrupted: it is undone, all files are as before it."
                );
            }
            Recovery::Overtaken(operation, files) => {
                eprintln!(
                    "An earlier `{operation}` was interrupted, and somebody else changed these files since: {}. \
                     Everything of ours is taken out again.",
                    files.join(", ")
                );
                let view = self.view()?;
                session.commit("revert", &self.revert_changes(&view)?)?;
                self.reload_hint();
            }
        }
        Ok(())
    }

    /// Files were changed by a command that may only have been meant to look.
    fn reload_hint(&self) {
        let daemons = services::existing(&self.root);
        if self.root.is_running_host() && !daemons.is_empty() {
            eprintln!("Let the services load them: systemctl reload-or-try-restart {}", daemons.join(" "));
        }
    }

    /// Reads the host.
    fn view(&self) -> anyhow::Result<View> {
        let record = match Record::read(&self.root) {
            Ok(record) => record,
            Err(error @ RecordError::Damaged { .. }) => {
                eprintln!("warning: {error}");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let survey = Survey::read(&self.root, &self.sets, record.as_ref())?;
        Ok(View { survey, record })
    }

    /// The plan for what was read.
    fn plan<'a>(&'a self, view: &View) -> Result<Plan<'a>, Refused> {
        let set = plan::choose(&self.sets, &view.survey).map_err(|refusal| Refused(vec![refusal]))?;
        Ok(Plan::new(set, &view.survey))
    }

    /// All that a revert changes, the record last.
    fn revert_changes(&self, view: &View) -> anyhow::Result<Vec<Change>> {
        let mut changes = in_order(plan::revert(&view.survey, view.record.as_ref()));
        changes.extend(self.record_change(None)?);
        Ok(changes)
    }

    /// The change of the record's own file to what `record` says; `None` where it is no change.
    fn record_change(&self, record: Option<&Record>) -> Result<Option<Change>, anyhow::Error> {
        let path = self.root.resolve(record::PATH)?;
        let before = match std::fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(RootError::Io { path, cause }.into()),
        };
        let after = record.map(Record::to_json);
        let change = Change { path: record::PATH.to_owned(), before, after, mtime: None };
        Ok((change.before != change.after).then_some(change))
    }

    /// Lets the running host's services load what changed.
    fn reload(&self, no_restart: bool) {
        if no_restart || !self.root.is_running_host() {
            return;
        }
        match services::reload(&self.root) {
            Reload::NothingToDo | Reload::Deferred => {}
            Reload::Done(daemons) => println_quietly(&format!("reloaded: {}", daemons.join(", "))),
            Reload::Failed { command, reason } => {
                eprintln!("warning: the services still run the old code ({reason}). Run by hand: {command}");
            }
        }
    }
}

/// New files first and deletions last: at no moment does a line of ours refer to a file that is not there.
fn in_order(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by_key(|change| match (&change.before, &change.after) {
        (None, _) => 0,
        (Some(_), Some(_)) => 1,
        (Some(_), None) => 2,
    });
    changes
}

/// Asks a question that can be answered with yes or no. `yes` answers it; without a terminal nobody can.
fn confirmed(question: &str, yes: bool) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    if yes {
        return Ok(());
    }
    let stop = |text: &str| Err(Stop(Exit::Declined, text.to_owned()).into());
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return stop(
            "there is no terminal to ask on: nothing was changed; give --yes to go ahead without a question",
        );
    }
    match dialoguer::Confirm::new().with_prompt(question).default(false).interact()? {
        true => Ok(()),
        false => stop("nothing was changed"),
    }
}

/// Prints a line; a reader that has gone is no reason to fail after the work is done.
fn println_quietly(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
