//! Where the storages of `/etc/pve/storage.cfg` keep their backups.

use std::path::{Path, PathBuf};

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
    folder(&String::from_utf8_lossy(&raw), id).map(|folder| root.resolve(folder)).transpose()
}

/// The folder as the file tells it. Like Proxmox VE: without `path`, network shares are mounted below `/mnt/pve`, and a
/// storage's backups lie in `dump`, unless `content-dirs` says otherwise.
fn folder(config: &str, id: &str) -> Option<PathBuf> {
    let mut found = None;
    let (mut ours, mut path, mut sub) = (false, None, "dump");
    let lines = config.lines().filter(|line| !line.starts_with('#')).chain([""]);
    for line in lines {
        if line.trim().is_empty() {
            if let (true, Some(path)) = (ours, &path) {
                found = Some(Path::new(path).join(sub));
            }
            ours = false;
        } else if !line.starts_with([' ', '\t']) {
            let Some((kind, name)) = line.split_once(':') else { continue };
            let mounted = matches!(kind.trim(), "nfs" | "cifs" | "glusterfs" | "cephfs");
            ours = name.trim() == id && (mounted || matches!(kind.trim(), "dir" | "btrfs"));
            (path, sub) = (mounted.then(|| format!("/mnt/pve/{id}")), "dump");
        } else if let (true, Some((key, value))) = (ours, line.trim().split_once([' ', '\t'])) {
            match key {
                "path" => path = Some(value.trim().to_owned()),
                "content-dirs" => {
                    let wanted = value.trim().split(',').find_map(|one| one.trim().strip_prefix("backup="));
                    sub = wanted.map_or(sub, |folder| folder.trim_start_matches('/'));
                }
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
        let of = |id: &str| folder(config, id);
        assert_eq!(of("local"), Some("/var/lib/vz/dump".into()));
        assert_eq!(of("nas"), Some("/mnt/pve/nas/dump".into()));
        assert_eq!(of("odd"), Some("/mnt/odd/deep/er".into()));
        for id in ["server", "local-lvm", "nobody", ""] {
            assert_eq!(of(id), None, "{id}");
        }
    }
}
