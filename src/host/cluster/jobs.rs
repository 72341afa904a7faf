//! The backup jobs that ask for differentials, read from the cluster's configuration.
//!
//! Two files hold jobs: `jobs.cfg` (since pve-manager 7.0-15), which pvescheduler reads, and `vzdump.cron` before it, which
//! cron still runs where it was not converted. What does not read as a job is passed over, as Proxmox does.

use super::NodeName;
use crate::host::root::{Root, RootError};
use crate::jobs::cron;
use crate::jobs::sections::{self, Value};

/// The jobs of pvescheduler, in Proxmox' section format (PVE::SectionConfig).
const JOBS_CFG: &str = "etc/pve/jobs.cfg";

/// The jobs of cron: lines of a crontab that run vzdump.
const VZDUMP_CRON: &str = "etc/pve/vzdump.cron";

/// The limit of pmxcfs for one file.
const MAX_FILE: u64 = 1 << 20;

/// A backup job with the option `fullbackup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name in jobs.cfg, or `line N` of vzdump.cron.
    pub id: String,
    /// Which file holds it.
    pub source: Source,
    /// The number of days after which a full backup is made, never 0.
    pub every: u32,
    /// The only node it runs on; `None`: each node backs up its guests.
    pub node: Option<String>,
    /// Whether it runs at all.
    pub enabled: bool,
}

/// The file that holds a job. It decides what a node does that does not know the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Source {
    /// Such a node drops the option and makes full backups.
    #[serde(rename = "jobs.cfg")]
    JobsCfg,
    /// Such a node's vzdump refuses the option: no backup is made.
    #[serde(rename = "vzdump.cron")]
    VzdumpCron,
}

impl Job {
    /// Whether it backs up guests of this node.
    pub fn runs_on(&self, node: &NodeName) -> bool {
        self.node.as_deref().is_none_or(|name| name == node.as_str())
    }
}

/// Reads the jobs of the host below `root`; a file that is not there holds none.
///
/// # Errors
/// Where a file cannot be read.
pub fn read(root: &Root) -> Result<Vec<Job>, RootError> {
    let mut jobs = parse_jobs_cfg(&root.read(JOBS_CFG, MAX_FILE)?.unwrap_or_default());
    jobs.extend(parse_vzdump_cron(&String::from_utf8_lossy(
        &root.read(VZDUMP_CRON, MAX_FILE)?.unwrap_or_default(),
    )));
    Ok(jobs)
}

/// The jobs of the scheduler, as [`sections::jobs`] reads them; a value that Proxmox refuses counts for none.
fn parse_jobs_cfg(raw: &[u8]) -> Vec<Job> {
    let job = |job: sections::Job| match job.value {
        Value::Days(every) if every > 0 => {
            Some(Job { id: job.id, source: Source::JobsCfg, every, node: job.node, enabled: job.enabled })
        }
        Value::Days(_) | Value::None | Value::Odd => None,
    };
    sections::jobs(raw).into_iter().filter_map(job).collect()
}

/// A crontab's lines; a job that is switched off reads `root #vzdump`.
fn parse_vzdump_cron(text: &str) -> Vec<Job> {
    let job = |(number, line): (usize, &str)| {
        let job = cron::parse(line.as_bytes()).ok()??;
        let every = job.days.filter(|days| *days > 0)?;
        let (id, enabled) = (format!("line {}", number + 1), !line.contains("#vzdump"));
        Some(Job { id, source: Source::VzdumpCron, every, node: job.node, enabled })
    };
    text.lines().enumerate().filter_map(job).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: &str = "\
# comment
vzdump: backup-1
\tschedule 02:00
\tfullbackup 7
\tenabled 1
\tcomment a fullbackup 9 in words

vzdump: backup-2
\tenabled 0
\tnode pve2
\tfullbackup 30

vzdump: backup-3
\tfullbackup 0
\tnode pve1

vzdump: backup-4
\tnode pve1

realmsync: sync
\tfullbackup 7

vzdump: backup-5
\tfullbackup often

vzdump: backup-6
\tfullbackup 400

vzdump: backup-7
\tfullbackup 1

vzdump: backup-7
\tfullbackup 3
";

    #[test]
    fn jobs_of_the_scheduler() {
        // A number of days that Proxmox refuses is none; of two sections with one ID the last counts.
        let jobs = parse_jobs_cfg(CFG.as_bytes());
        let job = |id: &str, every, node: Option<&str>, enabled| Job {
            id: id.to_owned(),
            source: Source::JobsCfg,
            every,
            node: node.map(str::to_owned),
            enabled,
        };
        assert_eq!(
            jobs,
            [
                job("backup-1", 7, None, true),
                job("backup-2", 30, Some("pve2"), false),
                job("backup-7", 3, None, true)
            ]
        );
        assert_eq!(parse_jobs_cfg(CFG.trim_end().as_bytes()), jobs);
    }

    #[test]
    fn jobs_of_cron() {
        let cron = "\
# cluster wide vzdump cron schedule
PATH=\"/usr/sbin:/usr/bin\"

0 2 * * 6           root vzdump 100 --quiet 1 --fullbackup 7 --node pve1 --storage nas
30 3 * * *          root #vzdump --all 1 --fullbackup=14
0 4 * * *           root vzdump --all 1 --script '/x y --fullbackup 3' --mailto \"a b\"
0 5 * * *           root vzdump 101 -fullbackup 0
0 6 * * *           root /usr/bin/vzdump 101 -fullbackup 2
0 7 * * *           root echo --fullbackup 2
#0 8 * * *          root vzdump 101 --fullbackup 2
0 9 * * *           root vzdump 101 --fullbackup
";
        let found: Vec<_> = parse_vzdump_cron(cron)
            .into_iter()
            .map(|job| (job.id, job.every, job.node, job.enabled))
            .collect();
        assert_eq!(
            found,
            [
                ("line 4".to_owned(), 7, Some("pve1".to_owned()), true),
                ("line 5".to_owned(), 14, None, false),
                ("line 8".to_owned(), 2, None, true),
            ]
        );
    }

    #[test]
    fn no_files_are_no_jobs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&Root::open(dir.path()).unwrap()).unwrap(), []);
    }
}
