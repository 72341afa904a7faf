//! Looks after the option `fullbackup` in the settings of backup jobs; [`crate::jobs`] has the rules.
//!
//! `apply`, `revert` and each hook do that, and each backup when it starts. It never fails its caller: what cannot be done is
//! told, and done the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::listener::Listener;
use crate::host::notify::{self, Severity};
use crate::host::pmxcfs::{self, Pmxcfs, PmxcfsError};
use crate::host::root::read_bounded;
use crate::host::{Root, settings};
use crate::jobs::memory::{Memory, MemoryError};
use crate::jobs::sections::{self, Value};
use crate::jobs::{self, Line, Mode, Node, Situation, cron};

/// The files in the cluster file system.
const JOBS: &str = "jobs.cfg";
const CRON: &str = "vzdump.cron";
const MEMORY: &str = "pve-diff-backup.json";

/// How long the cluster file system may take: longer than it takes to wait for both locks.
const LIMIT: Duration = Duration::from_secs(30);

/// Where vzdump's options are defined, by the release of Proxmox VE.
const DEFINITIONS: [&str; 2] = ["usr/share/perl5/PVE/VZDump/Common.pm", "usr/share/perl5/PVE/VZDump.pm"];

/// Where the default for all jobs is set.
const DEFAULTS: &str = "etc/vzdump.conf";

/// Crontabs of the host itself, which belong to the administrator. A folder stands for the files in it.
const CRONTABS: [&str; 3] = ["etc/crontab", "etc/cron.d", "var/spool/cron/crontabs"];

/// Largest of these files read.
const MAX_FILE: u64 = 4 << 20;

/// Told where our lines leave a host whose backup jobs cannot be seen.
const UNSEEN: &str = "/etc/pve is not mounted, so backup jobs were not looked after: where vzdump.cron holds \
                      --fullbackup, no backup would be made. Run `pve-diff-backup revert` once more on this host \
                      itself when it runs";

/// Why the settings cannot be looked after.
#[derive(Debug, thiserror::Error)]
enum OptionsError {
    #[error(transparent)]
    Pmxcfs(#[from] PmxcfsError),
    #[error("/etc/pve/{MEMORY}: {0}")]
    Memory(MemoryError),
}

/// Does what `mode` asks for, and tells the listener and the journal what was done to which job.
pub(super) fn settle(root: &Root, mode: Mode, listener: &dyn Listener) {
    let notes = match work(root, mode) {
        Ok(Some(seen)) => seen.notes,
        Ok(None) if mode == Mode::Leave && pmxcfs::is_unmounted(root) => vec![UNSEEN.to_owned()],
        Ok(None) => Vec::new(),
        Err(error) => {
            listener
                .warn(&format!("warning: the settings of backup jobs could not be looked after: {error}"));
            notify::journal(root, Severity::Error, &error.to_string());
            Vec::new()
        }
    };
    for note in notes {
        listener.done(&note);
        notify::journal(root, Severity::Notice, &note);
    }
    if mode == Mode::Leave {
        elsewhere(root).iter().for_each(|note| listener.done(note));
    }
}

/// How the settings stand, for `status` and `doctor`; what is new in them is remembered. `None` where there are none
/// to be seen.
pub(super) fn look(root: &Root) -> Result<Option<Seen>, String> {
    match work(root, Mode::Observe) {
        Err(OptionsError::Pmxcfs(error)) if error.is_denied() => Ok(None),
        seen => seen.map_err(|error| error.to_string()),
    }
}

/// Whether this host's vzdump knows the option, whoever taught it that.
pub(super) fn knows_option(root: &Root) -> bool {
    DEFINITIONS.iter().any(|path| {
        let content = root.read(path, MAX_FILE).ok().flatten();
        content.is_some_and(|content| {
            content.split(|byte| *byte == b'\n').any(|line| {
                let rest = line.trim_ascii_start().strip_prefix(jobs::OPTION.as_bytes());
                rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"=>"))
            })
        })
    })
}

/// Whether the option is set for all jobs.
pub(super) fn has_default(root: &Root) -> bool {
    let defaults = root.read(DEFAULTS, MAX_FILE).ok().flatten();
    let defaults = String::from_utf8_lossy(&defaults.unwrap_or_default()).into_owned();
    defaults.lines().any(|line| line.trim_start().starts_with(&format!("{}:", jobs::OPTION)))
}

/// Finds what else on this host asks for the option, and must be changed by the administrator.
pub(super) fn elsewhere(root: &Root) -> Vec<String> {
    let mut notes = Vec::new();
    if has_default(root) {
        notes.push(format!(
            "/{DEFAULTS}: the default `{}` stays: Proxmox VE ignores what it does not know",
            jobs::OPTION
        ));
    }
    for path in crontabs(root) {
        let Ok(content) = read_bounded(&path, MAX_FILE) else { continue };
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            if cron::parse(line).is_ok_and(|job| job.is_some_and(|job| job.days.is_some())) {
                notes.push(format!(
                    "/{}:{}: calls vzdump with --{}, which makes no backup without our lines: take the option out there",
                    root.inside(&path).display(),
                    index + 1,
                    jobs::OPTION
                ));
            }
        }
    }
    notes
}

/// The files of [`CRONTABS`]; those that are links into the cluster file system are dealt with there.
fn crontabs(root: &Root) -> Vec<std::path::PathBuf> {
    let resolved = |path: &Path| root.resolve(path).ok();
    let mut files = Vec::new();
    for path in CRONTABS {
        let Some(found) = resolved(Path::new(path)) else { continue };
        match std::fs::read_dir(&found) {
            Ok(entries) => {
                let inside = |entry: std::fs::DirEntry| resolved(root.inside(&entry.path()));
                files.extend(entries.filter_map(Result::ok).filter_map(inside));
            }
            Err(_) => files.push(found),
        }
    }
    files.retain(|path| !root.inside(path).starts_with("etc/pve"));
    files.sort();
    files.dedup();
    files
}

/// How the settings stand; as JSON in this form.
#[derive(Debug, Serialize)]
pub struct Seen {
    /// This node's name.
    pub node: String,
    /// Backup jobs with the option, or with one in our copy, by ID.
    pub jobs: BTreeMap<String, SeenJob>,
    /// Lines of vzdump.cron that wait for their option.
    pub waiting: Vec<Line>,
    /// The cluster's nodes; `None`: never heard of.
    pub nodes: BTreeMap<String, Option<Node>>,
    /// What happened, and what people should do.
    pub notes: Vec<String>,
}

/// A backup job.
#[derive(Debug, Serialize)]
pub struct SeenJob {
    /// Its value in jobs.cfg.
    pub days: Option<u32>,
    /// Its value in our copy.
    pub copy: Option<u32>,
    /// Why its differentials of running VMs read everything; `None`: only what changed, where that is certain.
    pub everything_read: Option<String>,
}

fn work(root: &Root, mode: Mode) -> Result<Option<Seen>, OptionsError> {
    let root = root.clone();
    let patched = mode != Mode::Leave && knows_option(&root);
    pmxcfs::within(LIMIT, move || {
        let Some(pmxcfs) = Pmxcfs::find(&root)? else { return Ok(None) };
        let files = Files::read(&pmxcfs)?;
        let plan = files.plan(&pmxcfs, mode, patched);
        if !files.changes(&plan) {
            return Ok(Some(files.seen(&root, &pmxcfs, plan)));
        }
        // The order in which Proxmox' own code takes them.
        let _lock = pmxcfs.lock(&[CRON, JOBS])?;
        let files = Files::read(&pmxcfs)?;
        let plan = files.plan(&pmxcfs, mode, patched);
        // What is taken out must have been remembered.
        if !plan.memory.same_as(&files.memory) {
            pmxcfs.replace(MEMORY, &plan.memory.to_json())?;
        }
        for (name, content) in [(CRON, &plan.cron), (JOBS, &plan.jobs)] {
            if let Some(content) = content {
                pmxcfs.replace(name, content)?;
            }
        }
        Ok(Some(files.seen(&root, &pmxcfs, plan)))
    })?
}

/// The module that has a place for it in releases that can give what changed.
const VZDUMP: &str = "usr/share/perl5/PVE/VZDump/QemuServer.pm";

/// What is in the line of ours there.
const LINE: &[u8] = b"takes->('archive'";

/// Largest module read.
const MAX_MODULE: u64 = 4 << 20;

/// Why a job's differentials of running VMs read everything, as far as that is known beforehand.
fn everything_read(root: &Root, how: &BTreeMap<&'static str, String>) -> Option<String> {
    let has = |name: &str| how.get(name).map(String::as_str);
    let Some(storage) = has("storage") else { return Some("the job names no storage".into()) };
    let switch = settings::value(root, storage, settings::CHANGED_BLOCKS);
    let module = root.read(VZDUMP, MAX_MODULE).ok().flatten().unwrap_or_default();
    let fleecing =
        has("fleecing").unwrap_or_default().split(',').any(|part| matches!(part, "1" | "enabled=1"));
    let why = if switch == "off" {
        "changed-blocks is off, see pve-diff-backup(1)"
    } else if !module.windows(LINE.len()).any(|text| text == LINE) {
        "no line of ours asks for more; that needs Proxmox VE 8.4 or later"
    } else if has("compress") != Some("zstd") {
        "the job does not compress with zstd"
    } else if has("mode") == Some("stop") {
        "mode stop ends QEMU, which notes what changes"
    } else if !fleecing && switch != "auto" {
        "the job has no fleecing"
    } else {
        return None;
    };
    Some(why.into())
}

/// The files as they were read.
struct Files {
    jobs: Option<Vec<u8>>,
    cron: Option<Vec<u8>>,
    memory: Memory,
    /// Why the copy that was there is none.
    damaged: Option<String>,
}

impl Files {
    fn read(pmxcfs: &Pmxcfs) -> Result<Self, OptionsError> {
        let (memory, damaged) = match pmxcfs.read(MEMORY)?.as_deref().map(Memory::parse) {
            None => (Memory::default(), None),
            Some(Ok(memory)) => (memory, None),
            Some(Err(MemoryError::Damaged(what))) => (Memory::default(), Some(what)),
            Some(Err(newer)) => return Err(OptionsError::Memory(newer)),
        };
        Ok(Self { jobs: pmxcfs.read(JOBS)?, cron: pmxcfs.read(CRON)?, memory, damaged })
    }

    fn plan(&self, pmxcfs: &Pmxcfs, mode: Mode, patched: bool) -> jobs::Plan {
        jobs::plan(&Situation {
            mode,
            node: pmxcfs.node(),
            members: pmxcfs.members(),
            patched,
            now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            program: env!("CARGO_PKG_VERSION"),
            jobs: self.jobs.as_deref(),
            cron: self.cron.as_deref(),
            memory: &self.memory,
        })
    }

    fn changes(&self, plan: &jobs::Plan) -> bool {
        plan.jobs.is_some() || plan.cron.is_some() || !plan.memory.same_as(&self.memory)
    }

    /// The settings as they are once `plan` is carried out.
    fn seen(&self, root: &Root, pmxcfs: &Pmxcfs, plan: jobs::Plan) -> Seen {
        let after = plan.jobs.as_deref().or(self.jobs.as_deref()).unwrap_or_default();
        let jobs = sections::jobs(after).into_iter().filter_map(|job| {
            let days = match job.value {
                Value::Days(days) => Some(days),
                Value::None | Value::Odd => None,
            };
            let copy = plan.memory.jobs.get(&job.id).copied();
            let everything_read = everything_read(root, &job.how);
            (days.is_some() || copy.is_some()).then_some((job.id, SeenJob { days, copy, everything_read }))
        });
        let jobs = jobs.collect();
        let nodes: &BTreeSet<String> = pmxcfs.members();
        let damaged = self.damaged.as_ref().map(|what| {
            format!("/etc/pve/{MEMORY} was damaged ({what}): it is made anew from what the jobs say now")
        });
        Seen {
            node: pmxcfs.node().to_owned(),
            jobs,
            nodes: nodes.iter().map(|name| (name.clone(), plan.memory.nodes.get(name).cloned())).collect(),
            waiting: plan.memory.cron,
            notes: damaged.into_iter().chain(plan.notes.iter().map(ToString::to_string)).collect(),
        }
    }
}
