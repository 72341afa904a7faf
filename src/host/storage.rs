//! Where the storages of `/etc/pve/storage.cfg` keep their backups.

use std::path::{Path, PathBuf};

use super::pmxcfs::{Pmxcfs, PmxcfsError};
use super::root::{Root, RootError, read_bounded};

/// The file, relative to the root.
pub const PATH: &str = "etc/pve/storage.cfg";

/// Largest file read: pmxcfs keeps none that is larger.
const MAX: u64 = 1 << 20;

/// The folder in which the storage named `id` keeps its backups, as it is reached from here. `None` where there is no such
/// storage, or it is not one of plain files.
///
/// # Errors
/// Where the file is there but cannot be read.
pub fn backups(root: &Root, id: &str) -> Result<Option<PathBuf>, RootError> {
    let path = root.resolve(PATH)?;
    let raw = match read_bounded(&path, MAX) {
        Ok(raw) => raw,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(RootError::Io { path, cause }),
    };
    let found = parse(&String::from_utf8_lossy(&raw)).into_iter().rfind(|storage| storage.id == id);
    found.map(|storage| root.resolve(storage.dir)).transpose()
}

/// The storages of plain files that this node keeps backups on.
///
/// # Errors
/// Where the cluster's files cannot be read.
pub fn for_backups(cluster: &Pmxcfs) -> Result<Vec<Storage>, PmxcfsError> {
    let config = cluster.read("storage.cfg")?.unwrap_or_default();
    let mut storages = parse(&String::from_utf8_lossy(&config));
    storages.retain(|storage| storage.serves(cluster.node()));
    Ok(storages)
}

/// A storage of plain files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// Its name.
    pub id: String,
    /// Where its backups lie.
    pub dir: PathBuf,
    disabled: bool,
    /// What it holds.
    content: Vec<String>,
    /// The nodes that use it; none: all of them.
    nodes: Vec<String>,
}

impl Storage {
    fn serves(&self, node: &str) -> bool {
        let has = |list: &[String], item: &str| list.iter().any(|it| it == item);
        !self.disabled && has(&self.content, "backup") && (self.nodes.is_empty() || has(&self.nodes, node))
    }
}

/// The storages as the file tells them. Like Proxmox VE: without `path`, network shares are mounted below `/mnt/pve`, and
/// a storage's backups lie in `dump`, unless `content-dirs` says otherwise.
fn parse(config: &str) -> Vec<Storage> {
    let mut found = Vec::new();
    let (mut storage, mut path, mut sub): (Option<Storage>, Option<String>, &str) = (None, None, "dump");
    let list = |value: &str| value.split(',').map(|one| one.trim().to_owned()).collect();
    let lines = config.lines().filter(|line| !line.starts_with('#')).chain([""]);
    for line in lines {
        if line.trim().is_empty() {
            if let (Some(storage), Some(path)) = (storage.take(), &path) {
                found.push(Storage { dir: Path::new(path).join(sub), ..storage });
            }
        } else if !line.starts_with([' ', '\t']) {
            let Some((kind, id)) = line.split_once(':') else { continue };
            let (kind, id) = (kind.trim(), id.trim());
            let mounted = matches!(kind, "nfs" | "cifs" | "glusterfs" | "cephfs");
            let ours = mounted || matches!(kind, "dir" | "btrfs");
            storage = ours.then(|| Storage { id: id.to_owned(), ..Storage::default() });
            (path, sub) = (mounted.then(|| format!("/mnt/pve/{id}")), "dump");
        } else if let Some(storage) = &mut storage {
            let line = line.trim();
            let (key, value) =
                line.split_once([' ', '\t']).map_or((line, ""), |(key, value)| (key, value.trim()));
            match key {
                "path" => path = Some(value.to_owned()),
                "content-dirs" => {
                    let wanted = value.split(',').find_map(|one| one.trim().strip_prefix("backup="));
                    sub = wanted.map_or(sub, |folder| folder.trim_start_matches('/'));
                }
                "content" => storage.content = list(value),
                "nodes" => storage.nodes = list(value),
                "disable" => storage.disabled = value != "0",
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_storage_of_files_is_found() {
        let config = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,backup\n\n# a share\nnfs: nas\n\texport /volume1\n\t\
                      server 192.0.2.1\n\ncifs: odd\n\tpath /mnt/odd\n\tcontent-dirs iso=images,backup=/deep/er\n\n\
                      pbs: server\n\tdatastore d\n\tserver 192.0.2.2\n\nlvmthin: local-lvm\n\tvgname pve";
        let of = |id: &str| parse(config).into_iter().find(|it| it.id == id).map(|it| it.dir);
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
        let of = |node: &str| parse(config).into_iter().filter(|it| it.serves(node)).collect::<Vec<_>>();
        let found: Vec<_> = of("pve1").iter().map(|it| format!("{} {}", it.id, it.dir.display())).collect();
        assert_eq!(found, ["local /var/lib/vz/dump", "nas /mnt/pve/nas/dump", "share /mnt/share/vz/b"]);
        assert_eq!(of("pve3").len(), 4);
    }
}
