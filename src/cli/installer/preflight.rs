//! What apt is about to install: a warning before it does, where backups may become full ones.
//!
//! apt runs `hook preflight` through `DPkg::Pre-Install-Pkgs` (apt.conf(5)) with one package file per line on standard
//! input. Those of Proxmox that take lines of ours are unpacked into a temporary folder and planned for, all together;
//! no code of theirs runs: it will soon enough, when dpkg installs it, and what is told before that comes from reading alone. Nothing here stops
//! apt.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{Host, upcoming};
use crate::cli::say::say;
use crate::host::PACKAGES;

/// The package files that concern us, of those that apt names. All of its input is read: apt must not find the pipe
/// closed.
pub(super) fn coming(host: &Host) -> Vec<PathBuf> {
    io::stdin()
        .lock()
        .split(b'\n')
        .map_while(Result::ok)
        .map(|line| PathBuf::from(OsString::from_vec(line)))
        .filter(|file| concerns(host, file))
        .collect()
}

/// Warns of what speaks against patching the host after this upgrade.
pub(super) fn warn(host: &Host, files: &[PathBuf]) {
    if files.is_empty() {
        return;
    }
    match upcoming::warnings(host, files) {
        Ok(warnings) => warnings.iter().for_each(|warning| say!("{warning}")),
        Err(error) => say!("cannot look at what is about to be installed: {error:#}"),
    }
}

/// Whether a package file is of one of Proxmox' packages that a set deals with; its name tells that without opening it.
fn concerns(host: &Host, file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('_').next());
    name.is_some_and(|name| {
        PACKAGES.contains(&name) && host.sets.iter().any(|set| set.packages.contains_key(name))
    })
}
