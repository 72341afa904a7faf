//! Proxmox' repositories: which package each one makes, which of its releases belong together, and where its
//! files go on a host.

use crate::host::version::Version;

/// A repository that has files on a Proxmox VE host.
#[derive(Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its name.
    pub name: &'static str,
    /// The package whose files are looked at.
    pub package: &'static str,
    /// The first version of each major release of Proxmox VE, oldest first.
    starts: &'static [(u32, &'static str)],
}

const fn repository(
    name: &'static str,
    package: &'static str,
    starts: &'static [(u32, &'static str)],
) -> Repository {
    Repository { name, package, starts }
}

/// The repositories whose Perl modules take part in backups, or are needed to load a module that does. Their releases are
/// looked at from 2.3 on, the first with VMA archives; those of pve-container from the beta of 4.0 on that brought a module
/// for restores.
pub const REPOSITORIES: [Repository; 13] = [
    repository(
        "pve-manager",
        "pve-manager",
        &[(2, "2.3~"), (3, "3~"), (4, "4~"), (5, "5~"), (6, "6~"), (7, "7~"), (8, "8~"), (9, "9~")],
    ),
    repository(
        "pve-storage",
        "libpve-storage-perl",
        &[(2, "2.3~"), (3, "3~"), (4, "4~"), (5, "5~"), (6, "6~"), (7, "7~"), (8, "8~"), (9, "9~")],
    ),
    repository(
        "qemu-server",
        "qemu-server",
        &[(2, "2.3~"), (3, "3~"), (4, "4~"), (5, "5~"), (6, "6~"), (7, "7~"), (8, "8~"), (9, "9~")],
    ),
    repository(
        "pve-container",
        "pve-container",
        &[(4, "0.9-11~"), (5, "2~"), (6, "3~"), (7, "4~"), (8, "5~"), (9, "6~")],
    ),
    repository(
        "pve-guest-common",
        "libpve-guest-common-perl",
        &[(4, "1~"), (5, "2~"), (6, "3~"), (7, "4~"), (8, "5~"), (9, "6~")],
    ),
    repository(
        "pve-common",
        "libpve-common-perl",
        &[(2, "1~"), (3, "3~"), (4, "4~"), (5, "5~"), (6, "6~"), (7, "7~"), (8, "8~"), (9, "9~")],
    ),
    repository(
        "pve-cluster",
        "libpve-cluster-perl",
        &[(2, "1~"), (3, "3~"), (4, "4~"), (5, "5~"), (6, "6~"), (7, "7~"), (8, "8~"), (9, "9~")],
    ),
    repository(
        "pve-access-control",
        "libpve-access-control",
        &[(2, "1~"), (3, "3~"), (4, "4~"), (5, "5~"), (6, "6~"), (7, "7~"), (8, "7.99~"), (9, "9~")],
    ),
    repository(
        "pve-http-server",
        "libpve-http-server-perl",
        &[(4, "1~"), (5, "2~"), (6, "3~"), (7, "4~"), (8, "5~"), (9, "6~")],
    ),
    repository(
        "pve-ha-manager",
        "pve-ha-manager",
        &[(4, "0"), (5, "2~"), (6, "3~"), (7, "3.2~"), (8, "4~"), (9, "5~")],
    ),
    repository(
        "pve-firewall",
        "pve-firewall",
        &[(3, "1~"), (4, "2~"), (5, "3~"), (6, "4.0~"), (7, "4.2~"), (8, "5~"), (9, "6~")],
    ),
    repository(
        "pve-apiclient",
        "libpve-apiclient-perl",
        &[(5, "2~"), (6, "3~"), (7, "3.2~"), (8, "3.3~"), (9, "3.4~")],
    ),
    repository("pve-network", "libpve-network-perl", &[(6, "0"), (7, "0.6~"), (8, "0.8~"), (9, "1~")]),
];

impl Repository {
    /// The major release of Proxmox VE that `version` of the package belongs to; `None` for older ones.
    pub fn series(&self, version: &Version) -> Option<u32> {
        self.starts
            .iter()
            .rev()
            .find(|(_, first)| Version::parse(first).is_ok_and(|first| first <= *version))
            .map(|(series, _)| *series)
    }

    /// Where a file of the repository lies on a host, relative to its root; `None` for one that is not installed or
    /// does not matter here.
    pub fn target(&self, path: &str) -> Option<String> {
        if self.name == "pve-manager" && path == "www/index.html.tpl" {
            return Some("usr/share/pve-manager/index.html.tpl".to_owned());
        }
        if !path.ends_with(".pm") {
            return None;
        }
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().any(|part| NOT_INSTALLED.contains(part)) {
            return None;
        }
        let top = parts.iter().position(|part| *part == "PVE" || *part == "Proxmox")?;
        Some(format!("usr/share/perl5/{}", parts[top..].join("/")))
    }
}

/// Folders of tests and examples. They hold modules that are called like installed ones.
const NOT_INSTALLED: [&str; 8] =
    ["test", "tests", "regress", "simdebian", "debian", "examples", "simulator", "demo"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_belongs_to_one_series() {
        let of = |name: &str, version: &str| {
            let repository = REPOSITORIES.iter().find(|repository| repository.name == name).unwrap();
            repository.series(&Version::parse(version).unwrap())
        };
        assert_eq!(of("pve-manager", "9.2.11"), Some(9));
        assert_eq!(of("pve-manager", "7.0-0+1"), Some(7));
        assert_eq!(of("pve-manager", "1.9-24"), None);
        assert_eq!(of("pve-container", "2.0-4"), Some(5));
        assert_eq!(of("pve-container", "1.0-93"), Some(4));
        assert_eq!(of("pve-container", "0.9-10"), None);
        assert_eq!((of("pve-manager", "2.2-32"), of("pve-manager", "2.3-1")), (None, Some(2)));
        assert_eq!(of("pve-ha-manager", "3.1-1"), Some(6));
        assert_eq!(of("pve-ha-manager", "3.3-4"), Some(7));
    }

    #[test]
    fn modules_go_where_perl_finds_them() {
        let target = |path: &str| REPOSITORIES[0].target(path);
        assert_eq!(target("PVE/VZDump.pm").as_deref(), Some("usr/share/perl5/PVE/VZDump.pm"));
        assert_eq!(target("src/PVE/Storage.pm").as_deref(), Some("usr/share/perl5/PVE/Storage.pm"));
        assert_eq!(target("data/PVE/Tools.pm").as_deref(), Some("usr/share/perl5/PVE/Tools.pm"));
        assert_eq!(target("src/test/PVE/Fake.pm"), None);
        assert_eq!(target("www/index.html.tpl").as_deref(), Some("usr/share/pve-manager/index.html.tpl"));
        assert_eq!(target("Makefile"), None);
    }
}
