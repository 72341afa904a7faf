//! Unpacks a container's backup as a restore would, into a temporary folder that does not stay.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use indicatif::BinaryBytes;
use walkdir::WalkDir;

use crate::host::{Program, Scratch};

/// Room that file systems take for each file beyond its content, and for the folders; with this share of all there is some
/// to spare.
const SPARE: u64 = 16;

/// How long tar may take to end once it has got everything.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    entries: u64,
    files: u64,
    bytes: u64,
}

impl fmt::Display for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries, {} of them files of {}", self.entries, self.files, BinaryBytes(self.bytes))
    }
}

/// Why nothing was unpacked.
#[derive(Debug)]
pub enum NotUnpacked {
    /// This host cannot do it: that says nothing about the backup.
    Here(String),
    /// The backup cannot be unpacked.
    Refused(String),
}

/// Unpacks an archive by tar with the options that Proxmox VE uses, apart from the node's own devices in `/dev`, and counts
/// what is there then. `bytes` is the length of the archive, by which the free space is checked before. The folder is made
/// below `scratch`, or else in our own.
///
/// # Errors
/// [`NotUnpacked`].
pub fn tar(
    open: impl FnOnce() -> anyhow::Result<Box<dyn Read + Send>>,
    bytes: u64,
    scratch: Option<&Path>,
) -> Result<Unpacked, NotUnpacked> {
    let here = |reason: String| NotUnpacked::Here(reason);
    let folder = match scratch {
        Some(below) => Scratch::below(below),
        None => Scratch::new(),
    };
    let folder = folder.map_err(|error| here(format!("cannot make a temporary folder: {error}")))?;
    let space = rustix::fs::statvfs(folder.path())
        .map_err(|error| here(format!("cannot tell how much space is free: {error}")))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let needed = bytes.saturating_add(bytes / SPARE);
    if free < needed {
        return Err(here(format!(
            "it needs up to {} in {}, where {} are free: name another folder with --scratch",
            BinaryBytes(needed),
            folder.path().parent().unwrap_or(folder.path()).display(),
            BinaryBytes(free)
        )));
    }
    let unpacked = run(open, folder.path());
    // Whatever became of it, nothing is to stay.
    let path = folder.path().to_owned();
    folder.close().map_err(|error| here(format!("cannot remove {}: {error}", path.display())))?;
    unpacked
}

fn run(
    open: impl FnOnce() -> anyhow::Result<Box<dyn Read + Send>>,
    folder: &Path,
) -> Result<Unpacked, NotUnpacked> {
    let mut stream = open().map_err(|error| NotUnpacked::Refused(format!("{error:#}")))?;
    let options = ["-x", "-p", "-f", "-", "--sparse", "--numeric-owner", "--acls", "--xattrs"];
    let attributes = ["--xattrs-include=user.*", "--xattrs-include=security.capability"];
    let devices = ["--anchored", "--exclude=./dev/*"];
    let program = Program::new("tar", options.into_iter().chain(attributes).chain(devices)).dir(folder);
    let mut broken = None;
    let fed = program.limit(PATIENCE).keep(4096).run_fed(|tar| {
        let mut part = vec![0; 256 << 10];
        loop {
            let n = match stream.read(&mut part) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    broken = Some(error.to_string());
                    return Err(error);
                }
            };
            io::Write::write_all(tar, &part[..n])?;
        }
    });
    let (ran, fed) = fed.map_err(|error| NotUnpacked::Here(error.to_string()))?;
    if let Some(reason) = broken {
        return Err(NotUnpacked::Refused(reason));
    }
    if !ran.succeeded() {
        let said = ran.err();
        let said = said.lines().next().unwrap_or("it says nothing").trim().to_owned();
        // Where the disk is full, or a right is missing, the backup may well be good.
        let is_ours =
            ["No space left", "Operation not permitted", "Disk quota exceeded", "Read-only file system"];
        return Err(match is_ours.iter().any(|it| ran.err().contains(it)) {
            true => NotUnpacked::Here(said),
            false => NotUnpacked::Refused(said),
        });
    }
    fed.map_err(|error| NotUnpacked::Here(format!("tar ended early: {error}")))?;
    let mut unpacked = Unpacked { entries: 0, files: 0, bytes: 0 };
    for entry in WalkDir::new(folder).min_depth(1) {
        let found = entry.and_then(|entry| entry.metadata());
        let found = found.map_err(|error| NotUnpacked::Here(error.to_string()))?;
        unpacked.entries += 1;
        if found.is_file() {
            unpacked.files += 1;
            unpacked.bytes += found.len();
        }
    }
    Ok(unpacked)
}
