//! What apt is about to install: a warning before it does, where backups may become full ones.
//!
//! apt runs `hook preflight` through `DPkg::Pre-Install-Pkgs` (apt.conf(5)) with one package file per line on standard
//! input. Nothing here stops it.

use std::io::{self, BufRead};
use std::path::Path;

use super::Host;
use crate::host::PACKAGES;
use crate::host::version::Version;

/// Names each package among those on standard input that no patch set was verified with.
pub(super) fn run(host: &Host) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let Some((package, version)) = package_of(Path::new(line.trim())) else { continue };
        let mut ranges = host.sets.iter().filter_map(|set| set.packages.get(package)).peekable();
        if ranges.peek().is_some() && !ranges.any(|range| range.contains(&version)) {
            eprintln!(
                "pve-diff-backup: {package} {version} is coming, and this version was not verified with it. Should its \
                 files not match, backups go on as full ones until a newer pve-diff-backup is installed; `pve-diff-backup \
                 status` tells afterwards."
            );
        }
    }
}

/// The package in a file, where it is one of Proxmox' that concern us; the file's name tells that without opening it.
fn package_of(file: &Path) -> Option<(&'static str, Version)> {
    let name = file.file_name()?.to_str()?.split('_').next()?;
    let package = PACKAGES.into_iter().find(|package| *package == name)?;
    let version =
        duct::cmd("dpkg-deb", ["--field".as_ref(), file.as_os_str(), "Version".as_ref()]).read().ok()?;
    Some((package, Version::parse(version.trim()).ok()?))
}
