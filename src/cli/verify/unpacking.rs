//! Unpacks containers' backups into a temporary folder, if that is wanted.

use std::io::Read;
use std::path::PathBuf;

use super::Args;
use super::finding::Finding;
use crate::backup::Format;
use crate::backup::verify::{Open, Task};
use crate::cli::say::say;
use crate::service::unpack::{self, NotUnpacked};

/// How backups are restored.
pub(super) struct Unpacking {
    /// Whether containers are unpacked.
    extract: bool,
    /// Where temporary folders are made, if not in our own folder.
    scratch: Option<PathBuf>,
}

impl Unpacking {
    pub fn new(args: &Args) -> Self {
        Unpacking { extract: args.extract, scratch: args.scratch.clone() }
    }

    /// Goes on with a backup that was read to its end: unpacks it if it is a container's, and that is wanted. What cannot be
    /// unpacked here is not proved, and what tar refuses is not restorable.
    pub fn go_on(&self, task: &Task, finding: &mut Finding, open: Open) {
        let Ok(source) = &task.source else { return };
        let Some(bytes) = finding.length().filter(|_| self.extract && source.format == Format::Tar) else {
            return;
        };
        let read = || open(&source.path, source.base.as_deref()).map(|stream| stream as Box<dyn Read + Send>);
        match unpack::tar(read, bytes, self.scratch.as_deref()) {
            Ok(unpacked) => {
                if let Some(restores) = &mut finding.restores {
                    restores.push_str(&format!("; unpacked by tar: {unpacked}"));
                }
            }
            Err(NotUnpacked::Here(reason)) => {
                say!("{}: not unpacked: {reason}", finding.file);
                finding.unproved(reason);
            }
            Err(NotUnpacked::Refused(reason)) => finding.fail(format!("it cannot be unpacked: {reason}")),
        }
    }
}
