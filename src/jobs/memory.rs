//! Our copy of the option's values: `/etc/pve/pve-diff-backup.json`, shared by all nodes of a cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MAX_DAYS;

/// The version of the file's form that this program writes. A file of another form is not touched.
const FORMAT: u32 = 1;

/// A text in the file for people who find it.
const ABOUT: &str =
    "What pve-diff-backup remembers of backup jobs, because Proxmox VE without its lines drops it.";

/// The copy as it stands in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Days between full backups, by the ID of a job in jobs.cfg.
    #[serde(default)]
    pub jobs: BTreeMap<String, u32>,
    /// Lines of vzdump.cron from which the option was taken.
    #[serde(default)]
    pub cron: Vec<Line>,
    /// Nodes that know the option or once knew it.
    #[serde(default)]
    pub nodes: BTreeMap<String, Node>,
    /// Fields that this version does not know. They are written back as they were.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// A line of vzdump.cron.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The line without the option and without its line end.
    pub line: String,
    /// The value the option had.
    pub days: u32,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Whether its vzdump knows the option.
    pub patched: bool,
    /// The time since which that is so, in seconds since 1970.
    pub since: u64,
    /// The version of this program there.
    pub program: String,
}

/// Why a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A newer version wrote it.
    #[error("form {0} is unknown to this version: install the newest pve-diff-backup on all nodes")]
    Newer(u64),
    /// It is damaged.
    #[error("{0}")]
    Damaged(String),
}

impl Memory {
    /// Reads the copy from the content of its file.
    ///
    /// # Errors
    /// [`MemoryError`]
    pub fn parse(raw: &[u8]) -> Result<Self, MemoryError> {
        let damaged = |error: serde_json::Error| MemoryError::Damaged(error.to_string());
        let value: serde_json::Value = serde_json::from_slice(raw).map_err(damaged)?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(MemoryError::Newer(format)),
            None => return Err(MemoryError::Damaged("no \"format\" in it".to_owned())),
        }
        let mut memory: Self = serde_json::from_value(value).map_err(damaged)?;
        // Somebody edited the file: no vzdump would take such a value.
        memory.jobs.retain(|_, days| *days <= MAX_DAYS);
        memory.cron.retain(|line| line.days <= MAX_DAYS);
        Ok(memory)
    }

    /// The content of its file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut memory = self.clone();
        memory.others.insert("format".to_owned(), FORMAT.into());
        memory.others.insert("about".to_owned(), ABOUT.into());
        let mut json = serde_json::to_vec_pretty(&memory).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Whether both say the same of jobs and nodes.
    pub fn same_as(&self, other: &Self) -> bool {
        (&self.jobs, &self.cron, &self.nodes) == (&other.jobs, &other.cron, &other.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let node = Node { patched: true, since: 1_700_000_000, program: "1.0".into() };
        let memory = Memory {
            jobs: [("a".to_owned(), 7)].into(),
            cron: vec![Line { line: "0 2 * * * root vzdump 1".into(), days: 3 }],
            nodes: [("pve1".to_owned(), node)].into(),
            others: [("later".to_owned(), 1.into())].into(),
        };
        let read = Memory::parse(&memory.to_json()).unwrap();
        assert!(read.same_as(&memory));
        assert_eq!(read.others["later"], 1);
        assert_eq!(read.to_json(), memory.to_json());
        // The package's postrm looks for these words.
        assert!(String::from_utf8(read.to_json()).unwrap().contains("\"patched\": true"));
    }

    #[test]
    fn anything_else_is_refused() {
        for raw in ["", "[]", "{}", "{\"format\": 1, \"jobs\": {\"a\": -1}}", "{\"format\": 1", "\u{0}"] {
            assert!(matches!(Memory::parse(raw.as_bytes()), Err(MemoryError::Damaged(_))), "{raw}");
        }
        assert!(matches!(Memory::parse(b"{\"format\": 2}"), Err(MemoryError::Newer(2))));
        let odd = b"{\"format\": 1, \"jobs\": {\"a\": 366, \"b\": 365}, \"cron\": [{\"line\": \"x\", \"days\": 400}]}";
        let memory = Memory::parse(odd).unwrap();
        assert_eq!((memory.jobs.len(), memory.cron.len()), (1, 0));
    }
}
