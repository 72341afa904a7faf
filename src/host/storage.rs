//! Tells where the storages of `/etc/pve/storage.cfg` keep their backups.

use std::path::{Path, PathBuf};

use super::mounts::Mounts;
use super::pmxcfs::{Pmxcfs, PmxcfsError};
use super::root::{Root, RootError};

/// The file, relative to the root.
pub const PATH: &str = "etc/pve/storage.cfg";

/// Largest file read: pmxcfs keeps none that is larger.
const MAX: u64 = 1 << 20;

/// Where a storage keeps its backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It keeps them in a folder.
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Where its share or disk must be mounted, but nothing is.
        unmounted: Option<PathBuf>,
    },
    /// It keeps them in no files.
    NoFiles {
        /// The type of the storage.
        kind: String,
    },
}

/// Where the storage named `id` keeps its backups. `None` where there is no such storage.
///
/// # Errors
/// Where the file is there but cannot be read.
pub fn backups(root: &Root, id: &str) -> Result<Option<Place>, RootError> {
    let Some(raw) = root.read(PATH, MAX)? else { return Ok(None) };
    let sections = parse(&String::from_utf8_lossy(&raw));
    let Some(section) = sections.into_iter().rfind(|section| section.id == id) else { return Ok(None) };
    let Some(dir) = section.dir() else { return Ok(Some(Place::NoFiles { kind: section.kind })) };
    // What is mounted where is known of the running host alone.
    let unmounted =
        section.mount().filter(|mount| root.is_running_host() && !Mounts::read().has_point(mount));
    Ok(Some(Place::Folder { dir: root.resolve(dir)?, unmounted }))
}

/// The storages of plain files that this node keeps backups on.
///
/// # Errors
/// Where the cluster's files cannot be read.
pub fn for_backups(cluster: &Pmxcfs) -> Result<Vec<Storage>, PmxcfsError> {
    let config = cluster.read("storage.cfg")?.unwrap_or_default();
    let sections = parse(&String::from_utf8_lossy(&config)).into_iter();
    let serving = sections.filter(|section| section.serves(cluster.node()));
    let storage = |it: Section| {
        let (dir, mount) = (it.dir()?, it.mount());
        Some(Storage { path: it.path?, id: it.id, kind: it.kind, dir, mount })
    };
    Ok(serving.filter_map(storage).collect())
}

/// A storage of plain files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its name.
    pub id: String,
    /// Its type: `dir`, `nfs`, `cifs` and so on.
    pub kind: String,
    /// Where all of it lies.
    pub path: PathBuf,
    /// Where its backups lie.
    pub dir: PathBuf,
    /// Where something must be mounted for it to be there, if anywhere.
    pub mount: Option<PathBuf>,
}

/// The storages as the file tells them, whatever holds them.
fn parse(config: &str) -> Vec<Section> {
    let (mut found, mut section) = (Vec::new(), None);
    for line in config.lines().filter(|line| !line.starts_with('#')).chain([""]) {
        if line.trim().is_empty() {
            found.extend(section.take());
        } else if !line.starts_with([' ', '\t']) {
            section = line.split_once(':').map(|(kind, id)| Section::new(kind.trim(), id.trim()));
        } else if let Some(section) = &mut section {
            let line = line.trim();
            let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            section.set(key, value.trim());
        }
    }
    found
}

/// What the file says of one storage.
#[derive(Debug)]
struct Section {
    id: String,
    kind: String,
    path: Option<PathBuf>,
    /// Where backups lie below the path.
    folder: String,
    /// Whether something must be mounted at the path; or at what other folder.
    mountpoint: String,
    disabled: bool,
    /// What it holds.
    content: Vec<String>,
    /// The nodes that use it; none: all of them.
    nodes: Vec<String>,
}

impl Section {
    /// Like Proxmox VE: without `path`, network shares are mounted below `/mnt/pve`, and a storage's backups lie in `dump`,
    /// unless `content-dirs` says otherwise.
    fn new(kind: &str, id: &str) -> Section {
        let is_share = matches!(kind, "nfs" | "cifs" | "glusterfs" | "cephfs");
        Section {
            id: id.to_owned(),
            kind: kind.to_owned(),
            path: is_share.then(|| Path::new("/mnt/pve").join(id)),
            folder: "dump".into(),
            mountpoint: if is_share { "yes" } else { "no" }.into(),
            disabled: false,
            content: Vec::new(),
            nodes: Vec::new(),
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let list = || value.split(',').map(|one| one.trim().to_owned()).collect();
        match key {
            "path" => self.path = Some(value.into()),
            "content-dirs" => {
                let wanted = value.split(',').find_map(|one| one.trim().strip_prefix("backup="));
                if let Some(folder) = wanted {
                    self.folder = folder.trim_start_matches('/').to_owned();
                }
            }
            "content" => self.content = list(),
            "nodes" => self.nodes = list(),
            "disable" => self.disabled = value != "0",
            "is_mountpoint" => self.mountpoint = value.to_owned(),
            _ => {}
        }
    }

    fn serves(&self, node: &str) -> bool {
        let has = |list: &[String], item: &str| list.iter().any(|it| it == item);
        !self.disabled && has(&self.content, "backup") && (self.nodes.is_empty() || has(&self.nodes, node))
    }

    /// Where its backups lie, if it is a storage of plain files. (Others have a path, too.)
    fn dir(&self) -> Option<PathBuf> {
        let of_files = matches!(&*self.kind, "nfs" | "cifs" | "glusterfs" | "cephfs" | "dir" | "btrfs");
        let path = self.path.as_ref().filter(|_| of_files)?;
        Some(path.join(&self.folder))
    }

    /// Where something must be mounted for it to be there.
    fn mount(&self) -> Option<PathBuf> {
        match &*self.mountpoint {
            "no" | "off" | "0" | "false" => None,
            "yes" | "on" | "1" | "true" => self.path.clone(),
            other => Some(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_storage_of_files_is_found() {
        let config = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,backup\n\n# a share\nnfs: nas\n\texport /volume1\n\t\
                      server 192.0.2.1\n\ncifs: odd\n\tpath /mnt/odd\n\tcontent-dirs iso=images,backup=/deep/er\n\n\
                      pbs: server\n\tdatastore d\n\tserver 192.0.2.2\n\nlvmthin: local-lvm\n\tvgname pve";
        let of = |id: &str| parse(config).into_iter().find(|it| it.id == id).and_then(|it| it.dir());
        assert_eq!(of("local"), Some("/var/lib/vz/dump".into()));
        assert_eq!(of("nas"), Some("/mnt/pve/nas/dump".into()));
        assert_eq!(of("odd"), Some("/mnt/odd/deep/er".into()));
        for id in ["server", "local-lvm", "nobody", ""] {
            assert_eq!(of(id), None, "{id}");
        }
    }

    #[test]
    fn a_node_keeps_backups_on_some_of_them() {
        let config = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,backup\n\n\
            nfs: nas\n\texport /srv\n\tserver nas\n\tcontent backup\n\tprune-backups keep-all=1\n\n\
            cifs: share\n\tpath /mnt/share\n\tserver x\n\tcontent backup\n\tcontent-dirs iso=a,backup=/vz/b\n\n\
            dir: images\n\tpath /srv/images\n\tcontent images\n\n\
            dir: off\n\tdisable\n\tpath /srv/off\n\tcontent backup\n\n\
            dir: elsewhere\n\tpath /srv/elsewhere\n\tcontent backup\n\tnodes pve2,pve3\n\n\
            pbs: pbs\n\tserver x\n\tcontent backup\n";
        let of = |node: &str| {
            parse(config).into_iter().filter(|it| it.serves(node) && it.dir().is_some()).collect::<Vec<_>>()
        };
        let found: Vec<_> =
            of("pve1").iter().map(|it| format!("{} {}", it.id, it.dir().unwrap().display())).collect();
        assert_eq!(found, ["local /var/lib/vz/dump", "nas /mnt/pve/nas/dump", "share /mnt/share/vz/b"]);
        assert_eq!(of("pve3").len(), 4);
    }

    #[test]
    fn a_share_that_is_not_mounted_is_told_from_one_that_is() {
        let config = "nfs: nas\n\tserver s\n\ndir: usb\n\tpath /mnt/usb/a\n\tis_mountpoint /mnt/usb\n\n\
                      dir: disk\n\tpath /mnt/disk\n\tis_mountpoint yes\n\ndir: local\n\tpath /var/lib/vz\n";
        let mounts: Vec<_> = parse(config).iter().map(Section::mount).collect();
        assert_eq!(
            mounts,
            [Some("/mnt/pve/nas".into()), Some("/mnt/usb".into()), Some("/mnt/disk".into()), None]
        );
    }
}
