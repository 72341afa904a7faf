//! The commands that deal with a host's files: what they share.

pub mod apply;
mod backups;
pub mod cluster;
pub mod doctor;
mod health;
pub mod hook;
pub mod new_version;
mod options;
mod preflight;
pub mod preview;
pub mod reinstall;
pub mod revert;
pub mod status;
pub mod upcoming;

use std::os::unix::fs::MetadataExt;

use anyhow::Context as _;

use super::Global;
use super::exit::{Exit, Refused, Stop};
use crate::cli::say::{println_quietly, say};
use crate::host::services::{self, Reload};
use crate::host::{Dpkg, Origin, Root, hint, scratch};
use crate::patching::change::{Change, in_order};
use crate::patching::check::Trust;
use crate::patching::diff;
use crate::patching::originals::{self, Found};
use crate::patching::patchset::{self, PatchSet};
use crate::patching::plan::{self, Plan};
use crate::patching::record::{self, Record, RecordError};
use crate::patching::recording;
use crate::patching::refusal::Refusal;
use crate::patching::revert as reverting;
use crate::patching::survey::{Survey, packages};
use crate::patching::transaction::{self, Recovery, Session};
use crate::patching::verified::Verified;

/// Larger than any file in our folder.
const MAX_OWN: u64 = 64 << 20;

/// Said where a host cannot be patched but still is, in part.
fn stale_lines() -> String {
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

/// Whether code of a host that is not the running one may run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LoadArgs {
    /// With --root or package files: also load the changed Perl modules, which runs their code
    ///
    /// Loading a module is the sharpest check, and runs what the module and all it uses hold, as the user who calls this. The
    /// modules of the running host are always loaded: their code runs anyway. Those below another root, and those of package
    /// files, are loaded only with this option. Give it where you would run programs of that host or package, too. Without
    /// it, the lines that ours hang on must be there exactly once, in code, and all else is checked as ever.
    #[arg(long)]
    pub load_modules: bool,
    /// With --load-modules: let Perl look for modules in DIR first
    ///
    /// For stand-ins of what is missing there. PERL5LIB and the like are not passed on to Perl.
    #[arg(long, value_name = "DIR", requires = "load_modules")]
    pub perl_lib: Vec<std::path::PathBuf>,
}

impl LoadArgs {
    /// What perl may do.
    ///
    /// # Errors
    /// Where a folder's absolute path cannot be told.
    fn trust(&self) -> anyhow::Result<Trust> {
        let libs = self.perl_lib.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
        Ok(Trust { foreign: self.load_modules, libs })
    }
}

/// A host as it was found, for planning.
pub struct View {
    survey: Survey,
    record: Option<Record>,
    originals: Vec<Found>,
}

impl Host {
    /// What the global options speak of.
    ///
    /// # Errors
    /// Where there is no such folder, or a patch set is faulty.
    pub fn open(global: &Global) -> anyhow::Result<Self> {
        let root = Root::open(&global.root)?;
        hint::aim_at(&root);
        let (sets, verified) = match &global.patches {
            Some(dir) => (patchset::from_dir(dir)?, Verified::from_dir(dir)?),
            None => (patchset::embedded()?, Verified::embedded()?),
        };
        Ok(Self { root, sets, verified })
    }

    /// The right to change the host; what an interrupted run left is dealt with first. Also tells whether that
    /// changed files.
    fn session(&self) -> anyhow::Result<(Session<'_>, bool)> {
        let session = Session::open(&self.root)?;
        scratch::sweep(&self.root.resolve(scratch::STATE_DIR)?);
        let changed = self.recover(&session)?;
        let files = self.sets.iter().flat_map(|set| set.hunks.iter().map(|hunk| hunk.file.as_str()));
        let ours = || self.sets.iter().flat_map(|set| set.payload.iter().map(|file| file.target.as_str()));
        let state = [record::PATH, record::PATCH_PATH, hook::NOTE];
        session.sweep(files.chain(ours()).chain(state), ours())?;
        Ok((session, changed))
    }

    /// For commands that only read: no lock, unless there is something to recover.
    fn settle(&self) -> anyhow::Result<()> {
        scratch::sweep(&self.root.resolve(scratch::STATE_DIR)?);
        if !transaction::is_interrupted(&self.root)? {
            return Ok(());
        }
        let (_session, changed) =
            self.session().context("an interrupted run must be finished or undone first")?;
        let daemons = services::existing(&self.root);
        if changed && self.root.is_running_host() && !daemons.is_empty() {
            say!("Let the services load the files: systemctl reload-or-try-restart {}", daemons.join(" "));
        }
        Ok(())
    }

    /// Tells whether files were changed.
    fn recover(&self, session: &Session) -> anyhow::Result<bool> {
        match session.recover()? {
            Recovery::Nothing => return Ok(false),
            Recovery::Completed(operation) => {
                say!("An earlier `{operation}` was interrupted: it is now complete.");
            }
            Recovery::Undone(operation) => {
                say!("An earlier `{operation}` was interrupted: it is undone, all files are as before it.");
            }
            Recovery::Overtaken(operation, files) => {
                say!(
                    "An earlier `{operation}` was interrupted, and somebody else changed these files since: {}. \
                     Everything of ours is taken out again.",
                    files.join(", ")
                );
                let view = self.view()?;
                session.commit("revert", &self.revert_changes(&view)?)?;
            }
        }
        Ok(true)
    }

    /// Reads the host.
    fn view(&self) -> anyhow::Result<View> {
        let record = match Record::read(&self.root) {
            Ok(record) => record,
            Err(error @ RecordError::Damaged { .. }) => {
                say!("warning: {error}");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let dpkg = Dpkg::open(&self.root, &packages(&self.sets))?;
        let survey = Survey::read(&self.root, &dpkg, &self.sets, record.as_ref())?;
        let originals = originals::find(&self.root, &dpkg)?;
        Ok(View { survey, record, originals })
    }

    /// The plan for what was read.
    fn plan<'a>(&'a self, view: &View) -> Result<Plan<'a>, Refused> {
        if !view.originals.is_empty() {
            return Err(Refused(vec![Refusal::OriginalPatches { found: view.originals.clone() }]));
        }
        let set = plan::choose(&self.sets, &view.survey).map_err(|refusal| Refused(vec![refusal]))?;
        Ok(Plan::new(set, &view.survey))
    }

    /// Whether the plan's set was tried with exactly these files; by the packages' versions where nothing is known of
    /// the contents.
    fn is_verified(&self, plan: &Plan) -> bool {
        match self.verified.judge(plan) {
            Some(verdicts) => verdicts.iter().all(|verdict| verdict.unknown.is_empty()),
            None => plan.unverified.is_empty(),
        }
    }

    /// Says what must not go unnoticed before anything is written.
    fn announce(&self, plan: &Plan, view: &View) {
        let version = |name: &str| {
            view.survey.packages.get(name).map(|package| package.version.to_string()).unwrap_or_default()
        };
        match self.verified.judge(plan) {
            Some(verdicts) => {
                for verdict in verdicts.iter().filter(|verdict| !verdict.unknown.is_empty()) {
                    say!(
                        "warning: unverified: {} {}: its files match the patch set, which was never tried with exactly \
                         these: {}. It will most likely work: test a backup and a restore.",
                        verdict.package,
                        version(&verdict.package),
                        verdict.unknown.iter().map(|file| format!("/{file}")).collect::<Vec<_>>().join(", ")
                    );
                }
            }
            None => {
                for (package, version, verified) in &plan.unverified {
                    say!(
                        "warning: unverified: {package} {version} is not among the releases this patch set was verified \
                         with ({verified}). Its files match, so it will most likely work: test a backup and a restore."
                    );
                }
            }
        }
        for (package, hunks) in &plan.skipped {
            say!("{package} is not installed: left out: {}", hunks.join(", "));
        }
        for file in plan.files.iter().filter(|file| file.origin == Some(Origin::Modified)) {
            let diverted = file
                .diverted_to
                .as_ref()
                .map(|to| format!(" (dpkg-divert: the package's own file is /{to})"));
            say!(
                "warning: /{}: somebody else edited it{}; these edits stay",
                file.path,
                diverted.unwrap_or_default()
            );
        }
    }

    /// The plan and its changes in the order in which they are made.
    fn plan_changes<'a>(&'a self, view: &View) -> Result<(Plan<'a>, Vec<Change>), Refused> {
        let planned = self.plan(view).and_then(|plan| match plan.changes() {
            Ok(mut changes) => {
                changes.extend(self.stale(&plan, view));
                Ok((in_order(changes), plan))
            }
            Err(refusals) => Err(Refused(refusals.to_vec())),
        });
        if planned.is_err() && view.survey.holds_ours() {
            say!("warning: {}", stale_lines());
        }
        planned.map(|(changes, plan)| (plan, changes))
    }

    /// What an older version of ours put into files, or as files, that the plan has no use for.
    fn stale(&self, plan: &Plan, view: &View) -> Vec<Change> {
        let mut changes = reverting::changes(&view.survey, view.record.as_ref());
        changes.retain(|change| !plan.files.iter().any(|file| file.path == change.path));
        changes
    }

    /// All that a revert changes, the record last.
    fn revert_changes(&self, view: &View) -> anyhow::Result<Vec<Change>> {
        let mut changes = in_order(reverting::changes(&view.survey, view.record.as_ref()));
        changes.extend(self.own_file(record::PATCH_PATH, None)?);
        changes.extend(self.own_file(record::PATH, None)?);
        Ok(changes)
    }

    /// The changes that record `plan`, where that is news.
    fn record_changes(&self, plan: &Plan, view: &View) -> anyhow::Result<Vec<Change>> {
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
    fn own_file(&self, path: &str, after: Option<Vec<u8>>) -> anyhow::Result<Option<Change>> {
        let before = self.root.read(path, MAX_OWN)?;
        let change = Change { path: path.to_owned(), before, after, mtime: None };
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
                say!("warning: the services still run the old code ({reason}). Run by hand: {command}");
            }
        }
    }
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
