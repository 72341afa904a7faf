//! The host of the demo: the small tree that also serves the tests, inside the program.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::Context;

macro_rules! files {
    ($($path:literal)*) => {
        &[$(($path, include_bytes!(concat!("../../../tests/tree/", $path)) as &[u8])),*]
    };
}

/// Every file below `tests/tree`, by its path there. A test compares this list with the directory.
static FILES: &[(&str, &[u8])] = files! {
    "usr/bin/vzdump"
    "usr/sbin/pct"
    "usr/sbin/pvesm"
    "usr/sbin/qmrestore"
    "usr/share/perl5/PVE/API2/Backup.pm"
    "usr/share/perl5/PVE/API2/Storage/FileRestore.pm"
    "usr/share/perl5/PVE/Jobs.pm"
    "usr/share/perl5/PVE/LXC/Create.pm"
    "usr/share/perl5/PVE/QemuServer.pm"
    "usr/share/perl5/PVE/Storage.pm"
    "usr/share/perl5/PVE/Storage/Plugin.pm"
    "usr/share/perl5/PVE/Tools.pm"
    "usr/share/perl5/PVE/VZDump.pm"
    "usr/share/perl5/PVE/VZDump/Common.pm"
    "usr/share/perl5/PVE/VZDump/LXC.pm"
    "usr/share/perl5/PVE/VZDump/QemuServer.pm"
    "usr/share/pve-manager/index.html.tpl"
    "var/lib/dpkg/info/libpve-common-perl.list"
    "var/lib/dpkg/info/libpve-common-perl.md5sums"
    "var/lib/dpkg/info/libpve-guest-common-perl.list"
    "var/lib/dpkg/info/libpve-guest-common-perl.md5sums"
    "var/lib/dpkg/info/libpve-storage-perl.list"
    "var/lib/dpkg/info/libpve-storage-perl.md5sums"
    "var/lib/dpkg/info/pve-container.list"
    "var/lib/dpkg/info/pve-container.md5sums"
    "var/lib/dpkg/info/pve-manager.list"
    "var/lib/dpkg/info/pve-manager.md5sums"
    "var/lib/dpkg/info/qemu-server.list"
    "var/lib/dpkg/info/qemu-server.md5sums"
    "var/lib/dpkg/status"
};

/// Lays the tree out in the new folder `host`. Its `pve-xdelta3` is a link to `helper`.
pub fn unpack(host: &Path, helper: &Path) -> anyhow::Result<()> {
    for (name, content) in FILES {
        let path = host.join(name);
        write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let link = host.join("usr/bin/pve-xdelta3");
    symlink(helper, &link).with_context(|| format!("cannot write {}", link.display()))
}

/// Programs may be executed, other files not.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    std::fs::write(path, content)?;
    let mode = if content.starts_with(b"#!") { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::compare::{Snapshot, Times};

    #[test]
    fn the_tree_is_that_of_the_tests() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tree");
        let dir = tempfile::tempdir().unwrap();
        unpack(dir.path(), Path::new("/nowhere")).unwrap();
        let mut listed: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        listed.sort();
        let mut there: Vec<_> = walkdir::WalkDir::new(&source)
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.file_type().is_dir())
            .map(|entry| entry.path().strip_prefix(&source).unwrap().to_str().unwrap().to_owned())
            .collect();
        there.sort();
        assert_eq!(listed, there);
        for name in &there {
            assert_eq!(
                std::fs::read(source.join(name)).unwrap(),
                std::fs::read(dir.path().join(name)).unwrap()
            );
            let may_run = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o100 != 0;
            assert_eq!(may_run(&source.join(name)), may_run(&dir.path().join(name)), "{name}");
        }
        assert_eq!(Snapshot::take(dir.path(), &[], Times::Files).unwrap().files(), FILES.len());
    }
}
