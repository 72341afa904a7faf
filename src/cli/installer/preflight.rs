//! What apt is about to install: a warning before it does, where backups may become full ones.
//!
//! apt runs `hook preflight` through `DPkg::Pre-Install-Pkgs` (apt.conf(5)) with one package file per line on standard
//! input. Those of Proxmox that take lines of ours are unpacked into a temporary folder and planned for, all together;
//! no code of theirs runs. Nothing here stops apt.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use super::{Host, upcoming};
use crate::host::PACKAGES;

/// Warns of what speaks against patching the host after this upgrade.
pub(super) fn run(host: &Host) {
    let files: Vec<PathBuf> = io::stdin()
        .lock()
        .lines()
        .map_while(Result::ok)
        .map(|line| PathBuf::from(line.trim()))
        .filter(|file| concerns(host, file))
        .collect();
    if files.is_empty() {
        return;
    }
    match upcoming::warnings(host, &files) {
        Ok(warnings) => warnings.iter().for_each(|warning| eprintln!("pve-diff-backup: {warning}")),
        Err(error) => eprintln!("pve-diff-backup: cannot look at what is about to be installed: {error:#}"),
    }
}

/// Whether a package file is of one of Proxmox' packages that a set deals with; its name tells that without opening it.
fn concerns(host: &Host, file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('_').next());
    name.is_some_and(|name| {
        PACKAGES.contains(&name) && host.sets.iter().any(|set| set.packages.contains_key(name))
    })
}
