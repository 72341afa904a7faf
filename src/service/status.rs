//! Tells what is installed on a host, which patch set is for it, and how every file stands.

use serde::{Serialize, Serializer};

use super::health::complaints;
use super::host::{Host, View};
use super::listener::Listener;
use super::options::{self, Seen};
use super::standing::Standing;
use super::{backups, pending};
use crate::host::{Origin, PACKAGES};
use crate::patching::change::Change;
use crate::patching::plan::{FileState, Overall, Plan};
use crate::patching::refusal::Refusal;

/// Everything `status` tells; as JSON in this form.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The folder that holds its files.
    pub root: String,
    /// How it stands, in a sentence.
    #[serde(skip)]
    pub words: String,
    /// Version of this program.
    pub program: &'static str,
    /// The same in a word.
    pub overall: Overall,
    /// The patch set that is for it.
    pub set: Option<SetStatus>,
    /// The packages of Proxmox VE.
    pub packages: Vec<PackageStatus>,
    /// The files that the set deals with, and those that an older version left.
    pub files: Vec<FileStatus>,
    /// What speaks against patching it.
    #[serde(serialize_with = "as_text")]
    pub refusals: Vec<Refusal>,
    /// All that is not as it should be, as `doctor` tells it.
    pub attention: Vec<String>,
    /// Whether any line or file of ours is there.
    pub holds_ours: bool,
    /// When and by which version the record says it was applied.
    pub applied: Option<Applied>,
    /// Why the package's last hook could not do what it should.
    pub pending: Option<String>,
    /// What backup jobs say of full backups, where that can be seen.
    pub settings: Option<Seen>,
}

/// The patch set that is for a host.
#[derive(Debug, Serialize)]
pub struct SetStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// What it is for.
    pub title: String,
    /// Whether it was tried with exactly these files, or (where no contents are known) with these releases.
    pub verified: bool,
    /// Whether `verified` speaks of contents.
    pub by_content: bool,
}

/// A package of Proxmox VE.
#[derive(Debug, Serialize)]
pub struct PackageStatus {
    /// Its name.
    pub name: String,
    /// Its version; `None` where it is not installed.
    pub version: Option<String>,
    /// dpkg's state.
    pub state: Option<String>,
    /// Whether its release, or (where contents are known) exactly these files were tried; `None`: nothing of it is patched.
    pub verified: Option<bool>,
    /// Hunks that are left out, as it is not installed.
    pub skipped_hunks: Vec<String>,
}

/// A file that takes lines of ours, or is ours.
#[derive(Debug, Serialize)]
pub struct FileStatus {
    /// Where it lies, relative to the root.
    pub path: String,
    /// The package that ships it; `None` for ours.
    pub package: Option<String>,
    /// How it stands.
    pub state: FileState,
    /// Whether it is, without our lines, as its package shipped it.
    pub origin: Option<Origin>,
    /// Whether the set was tried with exactly this content; `None`: our own file, or nothing is known.
    pub verified: Option<bool>,
    /// Where dpkg-divert moved the package's own.
    pub diverted_to: Option<String>,
    /// The hunks that go into it.
    pub hunks: Vec<String>,
    /// Whether an older version of ours left it, and this one has no use for it.
    pub stale: bool,
}

/// What the record says of the last `apply`.
#[derive(Debug, Serialize)]
pub struct Applied {
    /// When, in seconds since 1970.
    pub time: u64,
    /// By which version of this program.
    pub program: String,
    /// With which patch set.
    pub set: String,
    /// Which version of that.
    pub set_version: u32,
}

/// Looks how the host stands; changes nothing.
///
/// # Errors
/// Where the host cannot be read; that it is not supported is no error but a status.
pub fn assess(host: &Host, listener: &dyn Listener) -> anyhow::Result<Status> {
    let view = &host.view(listener)?;
    let standing = Standing::of(host, view);
    let seen = options::look(host.root());
    let storages = backups::look_at_all(host.root());
    let attention = complaints(host, view, &standing, &seen, &storages)?;
    let plan = standing.plan.as_ref();
    Ok(Status {
        root: host.root().dir().display().to_string(),
        program: env!("CARGO_PKG_VERSION"),
        words: standing.words(view),
        overall: standing.overall,
        set: plan.map(|plan| SetStatus {
            name: plan.set.name.clone(),
            version: plan.set.version,
            title: plan.set.title.clone(),
            verified: host.is_verified(plan),
            by_content: host.verified().knows(&plan.set.name),
        }),
        packages: packages(host, view, plan),
        files: plan.map(|plan| files(host, plan, &standing.stale)).unwrap_or_default(),
        attention,
        holds_ours: view.survey.holds_ours(),
        applied: view.record.as_ref().map(|record| Applied {
            time: record.time,
            program: record.program.clone(),
            set: record.set.clone(),
            set_version: record.set_version,
        }),
        pending: pending::read(host)?,
        settings: seen.unwrap_or_else(|error| {
            listener.warn(&format!("warning: the settings of backup jobs cannot be seen: {error}"));
            None
        }),
        refusals: standing.refusals,
    })
}

fn as_text<S: Serializer>(refusals: &[Refusal], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(refusals.iter().map(ToString::to_string))
}

fn packages(host: &Host, view: &View, plan: Option<&Plan>) -> Vec<PackageStatus> {
    let verdicts = plan.and_then(|plan| host.verified().judge(plan));
    PACKAGES
        .iter()
        .map(|name| {
            let package = view.survey.packages.get(*name);
            let range = plan.and_then(|plan| plan.generations.get(*name)).map(|generation| &generation.range);
            PackageStatus {
                name: (*name).to_owned(),
                version: package.map(|package| package.version.to_string()),
                state: package.map(|package| package.state.clone()),
                verified: match &verdicts {
                    Some(verdicts) => {
                        let verdict = verdicts.iter().find(|verdict| verdict.package == *name);
                        verdict.map(|verdict| verdict.unknown.is_empty())
                    }
                    None => package.zip(range).map(|(package, range)| range.contains(&package.version)),
                },
                skipped_hunks: plan.and_then(|plan| plan.skipped.get(*name)).cloned().unwrap_or_default(),
            }
        })
        .collect()
}

fn files(host: &Host, plan: &Plan, stale: &[Change]) -> Vec<FileStatus> {
    let planned = plan.files.iter().map(|file| FileStatus {
        path: file.path.clone(),
        package: file.package.clone(),
        state: file.state,
        origin: file.origin,
        verified: host.verified().knows_file(&plan.set.name, file),
        diverted_to: file.diverted_to.clone(),
        hunks: file.hunks.clone(),
        stale: false,
    });
    let stale = stale.iter().map(|change| FileStatus {
        path: change.path.clone(),
        package: None,
        state: FileState::Outdated,
        origin: None,
        verified: None,
        diverted_to: None,
        hunks: Vec::new(),
        stale: true,
    });
    planned.chain(stale).collect()
}
