//! Tells from Proxmox VE's log of tasks how backup jobs ended.
//!
//! `/var/log/pve/tasks/index` has a line for each task that ended, `UPID END STATUS`, and a task's own log lies beside it in a
//! folder named by the last digit of its start (PVE::Tools, upid_decode). An index of more than 50000 bytes is renamed to
//! `index.1`, over the one before, and a new one is begun (PVE::RESTEnvironment, active_workers).

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::Root;
use crate::text::escaped;

/// Where the logs lie, relative to the root.
const TASKS: &str = "var/log/pve/tasks";

/// How much of each of the two indexes is read, from its end, in bytes. Proxmox VE keeps them below some 50000 bytes each, a
/// thousand tasks or so together.
const MAX_INDEX: u64 = 2 << 20;

/// How much of a task's log is read, in bytes.
const MAX_LOG: u64 = 256 << 10;

/// How much of a task's log is read where all of its guests are asked for, in bytes: the log of a hundred guests has less.
const MAX_LONG_LOG: u64 = 4 << 20;

/// How much of all logs is read, in bytes: a node that backs up 500 guests every day writes half of it in a month.
pub const MAX_LOGS: u64 = 256 << 20;

/// The words before a job's command line in its log.
const STARTS: &str = "starting new backup job: ";

/// A backup task that ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The command line of the job.
    pub job: String,
    /// When it ended, in seconds since 1970.
    pub end: u64,
    /// How Proxmox VE says it ended.
    pub status: String,
    /// The first error in its log.
    pub error: Option<String>,
    /// Its log, relative to the root.
    pub log: String,
}

/// Finds the jobs whose last run since `since` (seconds since 1970) failed. Only those are looked at for whose command line
/// `concerns` is true. Logs that cannot be read are passed over.
pub fn failed(root: &Root, since: u64, concerns: impl Fn(&str) -> bool) -> Vec<Failed> {
    let index = index(root);
    let mut seen = BTreeSet::new();
    let mut failed = Vec::new();
    // The newest comes last.
    for task in index.lines().rev().filter_map(parse).take_while(|task| task.end >= since) {
        let log = format!("{TASKS}/{}/{}", task.folder, task.upid);
        let Ok(bytes) = read_begin(root, &log, MAX_LOG) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let Some((_, job)) = text.lines().find_map(|line| line.split_once(STARTS)) else { continue };
        if !concerns(job) || !seen.insert(in_order(job)) || is_good(task.status) {
            continue;
        }
        failed.push(Failed {
            job: shown(job),
            end: task.end,
            status: shown(task.status),
            error: text.lines().find(|line| line.starts_with("ERROR: ")).map(shown),
            log,
        });
    }
    failed
}

/// The log of a backup task that ended.
#[derive(Debug)]
pub struct Log {
    /// When the task ended, in seconds since 1970.
    pub end: u64,
    /// How Proxmox VE says the task ended, in a text that is fit to be shown.
    pub status: String,
    /// The log itself, relative to the root.
    pub path: String,
    /// What the log says, up to its 4 MiB-th byte.
    pub text: String,
    /// Whether the log says more than that.
    pub is_cut: bool,
}

/// Passes the logs of the backup tasks that ended since `since` (seconds since 1970) to `look`, the newest first, as long as it
/// returns true and no more than [`MAX_LOGS`] bytes were read. Logs that cannot be read are passed over. The result is the number
/// of logs that were not read since there were that many bytes.
pub fn logs(root: &Root, since: u64, look: impl FnMut(Log) -> bool) -> usize {
    logs_within(MAX_LOGS, root, since, look)
}

fn logs_within(mut left: u64, root: &Root, since: u64, mut look: impl FnMut(Log) -> bool) -> usize {
    let index = index(root);
    let mut tasks = index.lines().rev().filter_map(parse).take_while(|task| task.end >= since);
    while let Some(task) = tasks.next() {
        let path = format!("{TASKS}/{}/{}", task.folder, task.upid);
        let max = MAX_LONG_LOG.min(left);
        // One byte more tells whether there is more.
        let Ok(mut bytes) = read_begin(root, &path, max + 1) else { continue };
        let is_cut = bytes.len() as u64 > max;
        bytes.truncate(max as usize);
        left -= bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if !look(Log { end: task.end, status: shown(task.status), path, text, is_cut }) {
            return 0;
        }
        if left == 0 {
            return tasks.count();
        }
    }
    0
}

/// Reads the lines of the tasks that ended, the newest last.
fn index(root: &Root) -> String {
    let read = |name: &str| read_end(root, &format!("{TASKS}/{name}"), MAX_INDEX).unwrap_or_default();
    // In this order nothing is missed where the index is renamed in between; then it is in both.
    let index = read("index");
    let before = read("index.1");
    if before.starts_with(&index) { before } else { format!("{before}\n{index}") }
}

/// The options of a job in a fixed order. Proxmox VE writes them in an order that differs from run to run.
fn in_order(job: &str) -> Vec<String> {
    let mut words: Vec<String> = job.split(" --").map(|option| option.trim().to_owned()).collect();
    words[1..].sort();
    words
}

fn is_good(status: &str) -> bool {
    status == "OK" || status.starts_with("WARNINGS: ")
}

/// A line of the index.
struct Task<'a> {
    upid: &'a str,
    folder: char,
    end: u64,
    status: &'a str,
}

/// Reads a line of the index; `None` where it is of no backup.
fn parse(line: &str) -> Option<Task<'_>> {
    let (upid, rest) = line.split_once(' ')?;
    let (end, status) = rest.split_once(' ')?;
    // UPID:NODE:PID:PSTART:START:TYPE:ID:USER:
    let fields: Vec<&str> = upid.split(':').collect();
    let [_, _, _, _, start, "vzdump", ..] = fields[..] else { return None };
    let plain = |c: char| c.is_ascii_alphanumeric() || ":@._-!+".contains(c);
    let folder = start.chars().last().filter(char::is_ascii_hexdigit)?;
    (fields[0] == "UPID" && upid.chars().all(plain)).then_some(Task {
        upid,
        folder,
        end: u64::from_str_radix(end, 16).ok()?,
        status,
    })
}

/// A line of a log for people: it has a bounded length and no characters that could command a terminal.
fn shown(text: &str) -> String {
    escaped(text.trim().chars().take(255).collect::<String>().as_bytes())
}

fn open(root: &Root, path: &str) -> io::Result<std::fs::File> {
    let path = root.resolve(Path::new(path)).map_err(io::Error::other)?;
    if !std::fs::metadata(&path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    std::fs::File::open(path)
}

fn read_begin(root: &Root, path: &str, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(root, path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_end(root: &Root, path: &str, max: u64) -> io::Result<String> {
    let mut file = open(root, path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(max)))?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_of_each_job_counts() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = dir.path().join(TASKS);
        let mut index = String::new();
        for (number, (kind, job, status)) in [
            ("vzdump", "vzdump 1 --fullbackup 7", "job errors"),
            ("vzdump", "vzdump 2 --fullbackup 7", "OK"),
            ("vzdump", "vzdump 5 --mode stop --fullbackup 7 --quiet 1", "job errors"),
            ("vzdump", "vzdump 5 --quiet 1 --fullbackup 7 --mode stop", "OK"),
            ("vzdump", "vzdump 1 --fullbackup 7", "WARNINGS: 1"),
            ("vzdump", "vzdump 2 --fullbackup 7", "job \u{1b}errors\u{202e}"),
            ("vzdump", "vzdump 3", "job errors"),
            ("qmstart", "vzdump 4 --fullbackup 7", "failed"),
        ]
        .into_iter()
        .enumerate()
        {
            let upid = format!("UPID:pve:00000001:00000002:6000000{number}:{kind}:1:root@pam:");
            let folder = tasks.join(number.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let text = format!("INFO: {STARTS}{job}\nERROR: Backup of VM 2 failed - no room\n");
            std::fs::write(folder.join(&upid), text).unwrap();
            index += &format!("{upid} 6000000{number} {status}\n");
        }
        index += "UPID:pve:00000001:00000002:60000009:vzdump:../../x:root@pam: 60000009 x\nnonsense\n\n";
        std::fs::write(tasks.join("index"), index).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let found = failed(&root, 0, |job| job.contains("--fullbackup"));
        let [failed_job] = &found[..] else { panic!("{found:?}") };
        assert_eq!(failed_job.job, "vzdump 2 --fullbackup 7");
        assert_eq!(failed_job.status, r"job \x1berrors\xe2\x80\xae");
        assert_eq!(failed_job.error.as_deref(), Some("ERROR: Backup of VM 2 failed - no room"));
        assert!(dir.path().join(&failed_job.log).exists());
        assert_eq!(failed(&root, 0x6000_0006, |_| true).len(), 1, "vzdump 3");
        // What Proxmox VE renames is remembered, alone and with a new index behind it.
        std::fs::rename(tasks.join("index"), tasks.join("index.1")).unwrap();
        assert_eq!(failed(&root, 0, |job| job.contains("--fullbackup")), found);
        let upid = "UPID:pve:00000001:00000002:60000008:vzdump:1:root@pam:";
        let text = format!("INFO: {STARTS}vzdump 2 --fullbackup 7\n");
        std::fs::create_dir_all(tasks.join("8")).unwrap();
        std::fs::write(tasks.join("8").join(upid), text).unwrap();
        std::fs::write(tasks.join("index"), format!("{upid} 60000008 OK\n")).unwrap();
        assert_eq!(failed(&root, 0, |job| job.contains("--fullbackup")), []);
        let mut count = 0;
        logs(&root, 0, |_| {
            count += 1;
            true
        });
        assert_eq!(count, 8, "each backup once");
        let mut cut = Vec::new();
        let older = logs_within(100, &root, 0, |log| {
            cut.push(log.is_cut);
            true
        });
        assert_eq!((cut, older), (vec![false, true], 6), "what is not read is counted");
    }
}
