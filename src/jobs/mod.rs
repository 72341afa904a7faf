//! The option `fullbackup` in the settings of backup jobs, which Proxmox VE's own code does not know.
//!
//! Where it stands, and what code without our lines makes of it (`/etc/pve` is shared by all nodes of a cluster):
//!
//! | file | when it is read | when it is written |
//! |---|---|---|
//! | `/etc/pve/jobs.cfg` | a warning; the job makes full backups | **the option is gone from all jobs** |
//! | `/etc/pve/vzdump.cron` | `vzdump` refuses it: **no backup at all** | the line stays as it is |
//! | `/etc/vzdump.conf` | tolerated | |
//!
//! So a copy of ours ([`Memory`], `/etc/pve/pve-diff-backup.json`) holds each job's value, what was taken out of
//! `vzdump.cron`, and which nodes are patched. [`plan`] decides from these alone, by four rules:
//!
//! 1. **A value counts, its absence does not.** A value in jobs.cfg (0 too) is copied. A missing value means nothing,
//!    because code without our lines may have dropped it at any time; so the job gets back the value of the copy. People
//!    who remove the option do that through our lines (API, web interface, command line), which make the copy forget the
//!    job first (`PVE::VZDump::Differential::Jobs`). Creating and deleting a job does the same. In an editor, write 0.
//! 2. **No job stops.** A line of vzdump.cron loses the option as soon as a node that runs it does not know it, and
//!    gets it back once all of them do.
//! 3. **jobs.cfg keeps the option** as long as any node is patched, because code without our lines only warns of it. The
//!    last node that reverts removes it. The copy stays even then, for the case that a node is patched again.
//! 4. **Nothing else is touched**: order, comments, unknown keys, other sections, the rest of a line.

pub mod cron;
pub mod memory;
pub mod sections;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use memory::{Line, Memory, Node};

/// The option's name.
pub const OPTION: &str = "fullbackup";

/// The largest number of days that the option takes; the least is 0.
pub const MAX_DAYS: u32 = 365;

/// Reads `value` as the option takes it; `None` where the option refuses it.
pub fn days(value: &str) -> Option<u32> {
    let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|days| plain && *days <= MAX_DAYS)
}

/// What the caller wants to happen to the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Jobs are looked at and their values copied; no other file is changed.
    Observe,
    /// This node is meant to be patched, whether it is or not.
    Keep,
    /// Our lines are about to be taken out of this node.
    Leave,
}

/// Everything that [`plan`] decides from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What the caller wants to happen to the option.
    pub mode: Mode,
    /// This node's name.
    pub node: &'a str,
    /// The cluster's members, this node among them.
    pub members: &'a BTreeSet<String>,
    /// Whether this node's vzdump knows the option, and will.
    pub patched: bool,
    /// The present time, in seconds since 1970.
    pub now: u64,
    /// This program's version.
    pub program: &'a str,
    /// The content of jobs.cfg, where there is one.
    pub jobs: Option<&'a [u8]>,
    /// The content of vzdump.cron, where there is one.
    pub cron: Option<&'a [u8]>,
    /// The copy.
    pub memory: &'a Memory,
}

/// What is to be written, and what to tell people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The copy as it should be.
    pub memory: Memory,
    /// jobs.cfg, where it changes.
    pub jobs: Option<Vec<u8>>,
    /// vzdump.cron, where it changes.
    pub cron: Option<Vec<u8>>,
    /// What happens to which job.
    pub notes: Vec<Note>,
}

/// Something people should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// A job of jobs.cfg got its value back.
    #[error(
        "job {id}: its Full Backup Every {days} is back; a node without our lines had dropped it. (To end it: 0, or \
         remove it in the web interface.)"
    )]
    Restored {
        /// The job.
        id: String,
        /// Its value.
        days: u32,
    },
    /// A job of jobs.cfg lost its value, and this run may not give it back.
    #[error(
        "job {id}: its Full Backup Every {days} was dropped by a node without our lines; `apply` brings it back"
    )]
    Dropped {
        /// The job.
        id: String,
        /// Its value.
        days: u32,
    },
    /// The option left jobs.cfg.
    #[error(
        "job {id}: Full Backup Every {days} taken out of jobs.cfg, it makes full backups now; a later `apply` brings \
         it back"
    )]
    Stripped {
        /// The job.
        id: String,
        /// Its value.
        days: u32,
    },
    /// The option left a line of vzdump.cron.
    #[error(
        "vzdump.cron: --fullbackup {days} taken out of `{line}`: {} would refuse it and make no backup. It makes full \
         backups now, on all nodes; once they are patched, the option comes back", nodes.join(", ")
    )]
    CronStripped {
        /// The line as it is now.
        line: String,
        /// The value it had.
        days: u32,
        /// The nodes in question.
        nodes: Vec<String>,
    },
    /// A line of vzdump.cron got the option back.
    #[error("vzdump.cron: --fullbackup {days} is back in `{line}`")]
    CronRestored {
        /// The line as it was.
        line: String,
        /// Its value.
        days: u32,
    },
    /// A line whose option is kept is not there any more.
    #[error(
        "vzdump.cron: `{line}` had --fullbackup {days}, but was changed or removed since: set it anew where you want it"
    )]
    CronGone {
        /// The line.
        line: String,
        /// Its value.
        days: u32,
    },
    /// A line of vzdump.cron that cannot be understood.
    #[error(
        "vzdump.cron: `{line}`: an open quote: not touched; where it holds --fullbackup, {} will make no backup",
        nodes.join(", ")
    )]
    CronOdd {
        /// The line.
        line: String,
        /// The nodes in question.
        nodes: Vec<String>,
    },
}

/// Decides what becomes of the option; see the module's four rules.
pub fn plan(at: &Situation) -> Plan {
    let mut plan = Plan { memory: at.memory.clone(), jobs: None, cron: None, notes: Vec::new() };
    if at.mode != Mode::Observe {
        plan.memory.nodes.retain(|name, _| at.members.contains(name));
        record_self(at, &mut plan.memory);
    }
    settle_jobs(at, &mut plan);
    settle_cron(at, &mut plan);
    plan
}

/// Gives this node its entry. A node that never was patched needs none, because nodes without an entry count as
/// unpatched.
fn record_self(at: &Situation, memory: &mut Memory) {
    let known = memory.nodes.get(at.node);
    let since = match known {
        Some(node) if node.patched == at.patched => node.since,
        None if !at.patched => return,
        _ => at.now,
    };
    let node = Node { patched: at.patched, since, program: at.program.to_owned() };
    memory.nodes.insert(at.node.to_owned(), node);
}

fn settle_jobs(at: &Situation, plan: &mut Plan) {
    let Some(raw) = at.jobs else { return };
    let jobs = sections::jobs(raw);
    let keep = &mut plan.memory.jobs;
    if at.mode != Mode::Observe {
        keep.retain(|id, _| jobs.iter().any(|job| job.id == *id));
    }
    for job in &jobs {
        if let sections::Value::Days(days) = job.value {
            keep.insert(job.id.clone(), days);
        }
    }
    let missing = jobs.iter().filter(|job| job.value == sections::Value::None);
    let missing: Vec<(&str, u32)> =
        missing.filter_map(|job| Some((job.id.as_str(), *keep.get(&job.id)?))).collect();
    let others_patched = plan
        .memory
        .nodes
        .iter()
        .any(|(name, node)| name != at.node && node.patched && at.members.contains(name));
    match at.mode {
        Mode::Leave if !at.patched && !others_patched => {
            let with = jobs.iter().filter_map(|job| match job.value {
                sections::Value::Days(days) => Some(Note::Stripped { id: job.id.clone(), days }),
                _ => None,
            });
            plan.notes.extend(with);
            plan.jobs = Some(sections::without(raw)).filter(|after| after != raw);
        }
        Mode::Keep if at.patched => {
            plan.notes.extend(
                missing.iter().map(|(id, days)| Note::Restored { id: (*id).to_owned(), days: *days }),
            );
            plan.jobs = Some(sections::with(raw, &missing)).filter(|after| after != raw);
        }
        Mode::Observe if at.patched => {
            plan.notes
                .extend(missing.iter().map(|(id, days)| Note::Dropped { id: (*id).to_owned(), days: *days }));
        }
        Mode::Leave | Mode::Keep | Mode::Observe => {}
    }
}

fn settle_cron(at: &Situation, plan: &mut Plan) {
    let Some(raw) = at.cron.filter(|_| at.mode != Mode::Observe) else { return };
    let patched = |name: &String| plan.memory.nodes.get(name).is_some_and(|node| node.patched);
    let unpatched: Vec<String> = at.members.iter().filter(|name| !patched(name)).cloned().collect();
    let mut kept = std::mem::take(&mut plan.memory.cron);
    let mut stripped = Vec::new();
    let mut after = Vec::new();
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let job = match cron::parse(line) {
            Ok(Some(job)) => job,
            Ok(None) => {
                after.extend_from_slice(line);
                continue;
            }
            Err(cron::OpenQuote) => {
                after.extend_from_slice(line);
                if !unpatched.is_empty() {
                    let line = String::from_utf8_lossy(line).trim_end().to_owned();
                    plan.notes.push(Note::CronOdd { line, nodes: unpatched.clone() });
                }
                continue;
            }
        };
        // Where a line names its node, no other runs it.
        let runs_on = |name: &&String| job.node.as_ref().is_none_or(|node| node == *name);
        let refusing: Vec<String> = unpatched.iter().filter(runs_on).cloned().collect();
        match job.days {
            Some(days) if !refusing.is_empty() => {
                let line = job.without();
                after.extend_from_slice(&line);
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                plan.notes.push(Note::CronStripped { line: line.clone(), days, nodes: refusing });
                stripped.push(Line { line, days });
            }
            None if refusing.is_empty() => match kept.iter().position(|kept| job.is(&kept.line)) {
                Some(index) => {
                    let Line { line, days } = kept.remove(index);
                    after.extend(job.with(days));
                    plan.notes.push(Note::CronRestored { line, days });
                }
                None => after.extend_from_slice(line),
            },
            _ => after.extend_from_slice(line),
        }
    }
    if unpatched.is_empty() {
        plan.notes.extend(kept.drain(..).map(|Line { line, days }| Note::CronGone { line, days }));
    }
    kept.extend(stripped);
    plan.memory.cron = kept;
    plan.cron = Some(after).filter(|after| after != raw);
}
