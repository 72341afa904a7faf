//! Finds the patches that this program succeeds (`ayufan/pve-patches`, 2013-2021) on a host.
//!
//! They rewrite the very lines that ours are inserted below, and both together would make differentials of differentials.
//! So a host that still holds them is refused, and the message tells how to get Proxmox' own files back. A file holds them
//! where it is not what its package shipped and has a word in it that no release of Proxmox has there.

use super::text::strip;
use crate::host::{Dpkg, DpkgError, Origin, Root, hint};

/// The files that any of the 30 versions of their scripts edited, each with the package that ships it.
const FILES: [(&str, &str); 14] = [
    ("libpve-guest-common-perl", "usr/share/perl5/PVE/VZDump/Common.pm"),
    ("libpve-storage-perl", "usr/share/perl5/PVE/Storage.pm"),
    ("libpve-storage-perl", "usr/share/perl5/PVE/Storage/Plugin.pm"),
    ("pve-container", "usr/share/perl5/PVE/LXC/Create.pm"),
    ("pve-container", "usr/share/perl5/PVE/VZDump/LXC.pm"),
    ("pve-manager", "usr/share/perl5/PVE/API2/OpenVZ.pm"),
    ("pve-manager", "usr/share/perl5/PVE/VZDump.pm"),
    ("pve-manager", "usr/share/perl5/PVE/VZDump/OpenVZ.pm"),
    ("pve-manager", "usr/share/pve-manager/ext4/pvemanagerlib.js"),
    ("pve-manager", "usr/share/pve-manager/ext6/pvemanagerlib.js"),
    ("pve-manager", "usr/share/pve-manager/js/pvemanagerlib.js"),
    ("qemu-server", "usr/share/perl5/PVE/QemuServer.pm"),
    ("qemu-server", "usr/share/perl5/PVE/VZDump/QemuServer.pm"),
    // Where some of their versions put it by mistake.
    ("pve-container", "usr/share/perl5/PVE/LXC/LXC/Create.pm"),
];

/// Words by which their lines are known: the helper they call, the ending of their files, and their option.
const WORDS: [&str; 3] = ["pve-xdelta3", "vcdiff", "fullbackup"];

/// The largest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// A file that holds lines of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The package that ships it.
    pub package: &'static str,
    /// Its installed version.
    pub version: String,
    /// The file, relative to the root.
    pub file: &'static str,
    /// The first line of theirs, from 1.
    pub line: usize,
}

/// All files below `root`, whose packages are in `dpkg`, that hold lines of theirs, our own lines aside.
///
/// # Errors
/// [`DpkgError`]; files and packages that are not there are none.
pub fn find(root: &Root, dpkg: &Dpkg) -> Result<Vec<Found>, DpkgError> {
    let mut found = Vec::new();
    for (package, file) in FILES {
        let Some(installed) = dpkg.package(package) else { continue };
        let Some(content) = root.read(file, MAX_FILE)? else { continue };
        let content = strip(&content).rest;
        let Some(line) = first_line(&content) else { continue };
        if dpkg.origin(package, file, &content)? != Origin::Pristine {
            found.push(Found { package, version: installed.version.to_string(), file, line });
        }
    }
    Ok(found)
}

/// The number of the first line that has one of [`WORDS`].
fn first_line(content: &[u8]) -> Option<usize> {
    let holds = |line: &[u8]| {
        WORDS.iter().any(|word| line.windows(word.len()).any(|window| window == word.as_bytes()))
    };
    content.split(|byte| *byte == b'\n').position(holds).map(|index| index + 1)
}

/// The command that gives back what the packages of `found` shipped.
pub fn remedy(found: &[Found]) -> String {
    let mut packages: Vec<String> =
        found.iter().map(|found| format!("{}={}", found.package, found.version)).collect();
    packages.sort();
    packages.dedup();
    hint::inside(&format!("apt install --reinstall {}", packages.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_and_packages_named_once() {
        assert_eq!(first_line(b"a\nb\n  my $x = 'vma|vcdiff';\n"), Some(3));
        assert_eq!(first_line(b"full backup, diff\n\xff"), None);
        let found = |package, file| Found { package, version: "1".to_owned(), file, line: 1 };
        let all = [found("qemu-server", "a"), found("pve-manager", "b"), found("pve-manager", "c")];
        assert_eq!(remedy(&all), "apt install --reinstall pve-manager=1 qemu-server=1");
    }
}
