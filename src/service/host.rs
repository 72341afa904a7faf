//! The host that a command works on. A run opens it once, reads it once, and locks it where it changes something.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context as _;

use super::listener::Listener;
use crate::host::services::{self, Reload};
use crate::host::{Dpkg, Origin, Root, Version, hint, scratch};
use crate::patching::change::{Change, in_order};
use crate::patching::diff;
use crate::patching::originals::{self, Found};
use crate::patching::patchset::{self, PatchSet};
use crate::patching::plan::{self, Plan};
use crate::patching::record::{self, Record, RecordError};
use crate::patching::refusal::Refusal;
use crate::patching::survey::{self, Survey};
use crate::patching::transaction::{self, Recovery, Session};
use crate::patching::verified::Verified;
use crate::patching::{recording, revert};

/// The largest file in our folder that is read.
const MAX_OWN: u64 = 64 << 20;

/// The note that our lines are owed to this host, and why, relative to the root. Only hooks write it; `apply` and `revert`
/// delete it.
pub(super) const NOTE: &str = "var/lib/pve-diff-backup/pending";

/// The packages of ours.
pub(super) const OUR_PACKAGES: [&str; 2] = ["pve-xdelta3", "pve-diff-backup"];

/// All that speaks against a plan.
#[derive(Debug, thiserror::Error)]
#[error("refused, nothing was changed:\n{}", .0.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Refused(pub Vec<Refusal>);

/// The warning for a host that cannot be patched but still holds lines of ours.
pub fn stale_lines() -> String {
    format!(
        "Some files still hold lines of ours, which only work together: `{}` takes them out, and backups run as Proxmox \
         ships them",
        hint::ours("revert")
    )
}

/// A host and the patch sets that may be for it.
pub struct Host {
    root: Root,
    sets: Vec<PatchSet>,
    verified: Verified,
}

/// A host as it was found, for planning.
pub struct View {
    /// The packages and files that matter.
    pub survey: Survey,
    /// What an earlier `apply` noted.
    pub record: Option<Record>,
    /// Lines of the patches that this program succeeds.
    pub originals: Vec<Found>,
    /// The versions of our own packages that are installed.
    pub ours: BTreeMap<String, Version>,
}

/// A host that no other run changes as long as this lives, as it was found then.
pub struct Locked<'a> {
    pub(super) host: &'a Host,
    session: Session<'a>,
    /// What it holds.
    pub view: View,
    /// Whether files were changed to finish or undo an interrupted run.
    pub(super) recovered: bool,
}

impl Host {
    /// Opens the host whose files lie in `root`, with the patch sets in the folder `patches` or else our own.
    ///
    /// # Errors
    /// Where there is no such folder, or a patch set is faulty.
    pub fn open(root: &Path, patches: Option<&Path>) -> anyhow::Result<Self> {
        let root = Root::open(root)?;
        hint::aim_at(&root, patches);
        let (sets, verified) = match patches {
            Some(dir) => (patchset::from_dir(dir)?, Verified::from_dir(dir)?),
            None => (patchset::embedded()?, Verified::embedded()?),
        };
        Ok(Self { root, sets, verified })
    }

    /// The folder that holds its files.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The patch sets.
    pub fn sets(&self) -> &[PatchSet] {
        &self.sets
    }

    /// What the patch sets were tried with.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Takes the right to change the host, and deals with what an interrupted run left. Also tells whether that changed files.
    pub(super) fn session(&self, listener: &dyn Listener) -> anyhow::Result<(Session<'_>, bool)> {
        let session = Session::open(&self.root)?;
        scratch::sweep(&self.root.resolve(scratch::STATE_DIR)?);
        let changed = self.recover(&session, listener)?;
        let files = self.sets.iter().flat_map(|set| set.hunks.iter().map(|hunk| hunk.file.as_str()));
        let ours = || self.sets.iter().flat_map(|set| set.payload.iter().map(|file| file.target.as_str()));
        let state = [record::PATH, record::PATCH_PATH, NOTE];
        session.sweep(files.chain(ours()).chain(state), ours())?;
        Ok((session, changed))
    }

    /// Locks the host, deals with what an interrupted run left, and reads it.
    ///
    /// # Errors
    /// Where another run holds the lock, the interrupted run can be neither finished nor undone, or the host cannot be
    /// read.
    pub fn lock(&self, listener: &dyn Listener) -> anyhow::Result<Locked<'_>> {
        let (session, recovered) = self.session(listener)?;
        Ok(Locked { host: self, session, view: self.read(listener)?, recovered })
    }

    /// Reads the host for a command that changes nothing. It takes no lock, unless there is an interrupted run to deal
    /// with first.
    ///
    /// # Errors
    /// As [`Host::lock`].
    pub fn view(&self, listener: &dyn Listener) -> anyhow::Result<View> {
        scratch::sweep(&self.root.resolve(scratch::STATE_DIR)?);
        if transaction::is_interrupted(&self.root)? {
            let (_session, changed) =
                self.session(listener).context("an interrupted run must be finished or undone first")?;
            let daemons = services::existing(&self.root);
            if changed && self.root.is_running_host() && !daemons.is_empty() {
                listener.warn(&format!(
                    "Let the services load the files: systemctl reload-or-try-restart {}",
                    daemons.join(" ")
                ));
            }
        }
        self.read(listener)
    }

    /// Finishes or undoes what an interrupted run left; tells whether files were changed.
    fn recover(&self, session: &Session, listener: &dyn Listener) -> anyhow::Result<bool> {
        match session.recover()? {
            Recovery::Nothing => return Ok(false),
            Recovery::Completed(operation) => {
                listener.warn(&format!("An earlier `{operation}` was interrupted: it is now complete."));
            }
            Recovery::Undone(operation) => {
                listener.warn(&format!(
                    "An earlier `{operation}` was interrupted: it is undone, all files are as before it."
                ));
            }
            Recovery::Overtaken(operation, files) => {
                listener.warn(&format!(
                    "An earlier `{operation}` was interrupted, and somebody else changed these files since: {}. \
                     Everything of ours is taken out again.",
                    files.join(", ")
                ));
                let view = self.read(listener)?;
                session.commit("revert", &self.revert_changes(&view)?)?;
            }
        }
        Ok(true)
    }

    /// Reads the host: dpkg's database, the files that matter, our record. It neither locks the host nor looks for an
    /// interrupted run.
    pub(super) fn read(&self, listener: &dyn Listener) -> anyhow::Result<View> {
        let record = match Record::read(&self.root) {
            Ok(record) => record,
            Err(error @ RecordError::Damaged { .. }) => {
                listener.warn(&format!("warning: {error}"));
                None
            }
            Err(error) => return Err(error.into()),
        };
        let mut wanted = survey::packages(&self.sets);
        wanted.extend(OUR_PACKAGES);
        let dpkg = Dpkg::open(&self.root, &wanted)?;
        let survey = Survey::read(&self.root, &dpkg, &self.sets, record.as_ref())?;
        let originals = originals::find(&self.root, &dpkg)?;
        let ours = OUR_PACKAGES.iter().filter_map(|name| dpkg.package(name));
        let ours = ours.map(|package| (package.name.clone(), package.version.clone())).collect();
        Ok(View { survey, record, originals, ours })
    }

    /// The plan for what was read.
    ///
    /// # Errors
    /// [`Refused`] where no patch set is for this host, or the originals' lines are still there.
    pub fn plan<'a>(&'a self, view: &View) -> Result<Plan<'a>, Refused> {
        if !view.originals.is_empty() {
            return Err(Refused(vec![Refusal::OriginalPatches { found: view.originals.clone() }]));
        }
        let set = plan::choose(&self.sets, &view.survey).map_err(|refusal| Refused(vec![refusal]))?;
        Ok(Plan::new(set, &view.survey))
    }

    /// The plan and its changes in the order in which they are made.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn plan_changes<'a>(
        &'a self,
        view: &View,
        listener: &dyn Listener,
    ) -> Result<(Plan<'a>, Vec<Change>), Refused> {
        let planned = self.plan(view).and_then(|plan| match plan.changes() {
            Ok(mut changes) => {
                changes.extend(self.stale(&plan, view));
                Ok((in_order(changes), plan))
            }
            Err(refusals) => Err(Refused(refusals.to_vec())),
        });
        if planned.is_err() && view.survey.holds_ours() {
            listener.warn(&format!("warning: {}", stale_lines()));
        }
        planned.map(|(changes, plan)| (plan, changes))
    }

    /// Whether the plan's set was tried with exactly these files; by the packages' versions where nothing is known of
    /// the contents.
    pub fn is_verified(&self, plan: &Plan) -> bool {
        match self.verified.judge(plan) {
            Some(verdicts) => verdicts.iter().all(|verdict| verdict.unknown.is_empty()),
            None => plan.unverified.is_empty(),
        }
    }

    /// Tells what must not go unnoticed before anything is written.
    pub fn announce(&self, plan: &Plan, view: &View, listener: &dyn Listener) {
        let version = |name: &str| {
            view.survey.packages.get(name).map(|package| package.version.to_string()).unwrap_or_default()
        };
        match self.verified.judge(plan) {
            Some(verdicts) => {
                for verdict in verdicts.iter().filter(|verdict| !verdict.unknown.is_empty()) {
                    listener.warn(&format!(
                        "warning: unverified: {} {}: its files match the patch set, which was never tried with exactly \
                         these: {}. It will most likely work: test a backup and a restore.",
                        verdict.package,
                        version(&verdict.package),
                        verdict.unknown.iter().map(|file| format!("/{file}")).collect::<Vec<_>>().join(", ")
                    ));
                }
            }
            None => {
                for (package, version, verified) in &plan.unverified {
                    listener.warn(&format!(
                        "warning: unverified: {package} {version} is not among the releases this patch set was verified \
                         with ({verified}). Its files match, so it will most likely work: test a backup and a restore."
                    ));
                }
            }
        }
        for (package, hunks) in &plan.skipped {
            listener.warn(&format!("{package} is not installed: left out: {}", hunks.join(", ")));
        }
        for file in plan.files.iter().filter(|file| file.origin == Some(Origin::Modified)) {
            let diverted = file
                .diverted_to
                .as_ref()
                .map(|to| format!(" (dpkg-divert: the package's own file is /{to})"));
            listener.warn(&format!(
                "warning: /{}: somebody else edited it{}; these edits stay",
                file.path,
                diverted.unwrap_or_default()
            ));
        }
    }

    /// What an older version of ours put into files, or as files, that the plan has no use for.
    pub(super) fn stale(&self, plan: &Plan, view: &View) -> Vec<Change> {
        let mut changes = revert::changes(&view.survey, view.record.as_ref());
        changes.retain(|change| !plan.files.iter().any(|file| file.path == change.path));
        changes
    }

    /// All that a revert changes, the record last.
    pub(super) fn revert_changes(&self, view: &View) -> anyhow::Result<Vec<Change>> {
        let mut changes = in_order(revert::changes(&view.survey, view.record.as_ref()));
        changes.extend(self.own_file(record::PATCH_PATH, None)?);
        changes.extend(self.own_file(record::PATH, None)?);
        Ok(changes)
    }

    /// The changes that record `plan`, where that is news.
    pub(super) fn record_changes(&self, plan: &Plan, view: &View) -> anyhow::Result<Vec<Change>> {
        let mtime = |path: &str| {
            let metadata = std::fs::metadata(self.root.resolve(path).ok()?).ok()?;
            Some((metadata.mtime(), metadata.mtime_nsec()))
        };
        let mut patch = Vec::new();
        for change in in_order(plan.from_pristine()) {
            diff::write_proven(&mut patch, &change)?;
        }
        let mut changes = Vec::from_iter(self.own_file(record::PATCH_PATH, Some(patch))?);
        let mut record = recording::record(plan, &view.survey, view.record.as_ref(), &mtime);
        record.verified = self.is_verified(plan);
        if !view.record.as_ref().is_some_and(|old| old.same_as(&record)) {
            changes.extend(self.own_file(record::PATH, Some(record.to_json()))?);
        }
        Ok(changes)
    }

    /// The change of a file in our folder; `None` where it is none.
    pub(super) fn own_file(&self, path: &str, after: Option<Vec<u8>>) -> anyhow::Result<Option<Change>> {
        let before = self.root.read(path, MAX_OWN)?;
        let change = Change { path: path.to_owned(), before, after, mtime: None };
        Ok((change.before != change.after).then_some(change))
    }

    /// Lets the running host's services load what changed.
    pub(super) fn reload(&self, listener: &dyn Listener) {
        if !self.root.is_running_host() {
            return;
        }
        match services::reload(&self.root) {
            Reload::NothingToDo | Reload::Deferred => {}
            Reload::Done(daemons) => listener.done(&format!("reloaded: {}", daemons.join(", "))),
            Reload::Failed { command, reason } => {
                listener.warn(&format!(
                    "warning: the services still run the old code ({reason}). Run by hand: {command}"
                ));
            }
        }
    }
}

impl Locked<'_> {
    /// Carries out all `changes` or none.
    pub(super) fn commit(&self, operation: &str, changes: &[Change]) -> anyhow::Result<()> {
        Ok(self.session.commit(operation, changes)?)
    }
}
