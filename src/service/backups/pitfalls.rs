//! What kinds of storages and of mounts do to backups that people do not expect.

use std::path::Path;

use crate::host::mounts::{Mount, Mounts};
use crate::host::storage::Storage;

/// Folders in which file systems of the system itself are mounted, by the installer and at each start.
const OF_THE_SYSTEM: [&str; 4] = ["/var", "/home", "/usr", "/etc"];

/// Folders in which people mount what can be away.
const CAN_BE_AWAY: [&str; 3] = ["/mnt", "/media", "/run/media"];

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pitfalls {
    /// The kind of file system.
    pub filesystem: Option<String>,
    /// What keeps backups from being made.
    pub complaints: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Looks at a storage whose backups lie in `real`, a path without links.
pub(super) fn of(storage: &Storage, real: &Path, mounts: &Mounts) -> Pitfalls {
    let mut found = Pitfalls::default();
    if let Some(at) = storage.mount.as_ref().filter(|at| !mounts.has_point(at)) {
        found.notes.push(format!(
            "nothing is mounted at {}, so that its backups are not there, and jobs fail until it is. Mount it, or see why it is \
             not: pvesm status",
            at.display()
        ));
        return found;
    }
    let Some(mount) = mounts.of(real) else { return found };
    found.filesystem = Some(mount.kind.clone());
    if mount.has("ro") {
        found.complaints.push(format!(
            "{} is mounted read-only, so that nothing can be written there. The kernel's log may tell why: dmesg",
            mount.point.display()
        ));
    }
    found.notes.extend(mountpoint(storage, mount));
    found.notes.extend(by_kind(mount).map(str::to_owned));
    found
}

/// A folder of the root disk that is taken for a disk or share, or may be once.
fn mountpoint(storage: &Storage, mount: &Mount) -> Option<String> {
    if storage.mount.is_some() || !matches!(&*storage.kind, "dir" | "btrfs") {
        return None;
    }
    let (id, path) = (&storage.id, storage.path.display());
    let is_of_system =
        mount.point == Path::new("/") || OF_THE_SYSTEM.iter().any(|it| mount.point.starts_with(it));
    if !is_of_system {
        return Some(format!(
            "{} is mounted, and the storage does not say that it must be: while it is not, backups go to the disk below. Let \
             it say so: pvesm set {id} --is_mountpoint {}",
            mount.point.display(),
            if mount.point == storage.path { "yes".to_owned() } else { mount.point.display().to_string() }
        ));
    }
    CAN_BE_AWAY.iter().any(|it| storage.path.starts_with(it)).then(|| {
        format!(
            "{path} lies on the disk of {}. If a disk or share belongs there, it is not mounted: mount it, and pvesm set {id} \
             --is_mountpoint yes",
            mount.point.display()
        )
    })
}

/// What the file system or its options mean.
fn by_kind(mount: &Mount) -> impl Iterator<Item = &'static str> {
    let is_nfs = mount.kind.starts_with("nfs");
    let is_cifs = matches!(&*mount.kind, "cifs" | "smb3");
    [
        (
            is_nfs && (mount.has("soft") || mount.has("softerr")),
            "a soft NFS mount: where the server is slow, a backup or a restore fails in the middle. Mount it hard (without `soft` \
             in the storage's options)",
        ),
        (
            is_cifs && mount.has("vers=1.0"),
            "SMB 1, which cannot rename over a file at once and whose times are coarse. Let the storage use a newer one: pvesm set \
             ID --smbversion 3",
        ),
        (
            is_cifs && mount.has("noserverino"),
            "a CIFS mount without the server's inode numbers (noserverino): results of verifications are forgotten with each \
             mount. Leave that option out, if the server allows it",
        ),
        (
            mount.kind.starts_with("fuse.") || mount.kind == "fuse",
            "a file system of FUSE: differentials and restores read their full backup here and there, which can be slow on such \
             a one. If they are, keep the newest chain on a plain disk or share",
        ),
        (
            matches!(&*mount.kind, "vfat" | "msdos"),
            "FAT, on which no file can have more than 4 GiB: larger backups fail at the end. Use another file system",
        ),
        (
            mount.has("sync"),
            "mounted with `sync`, so that each write waits for the disk. Leave that option out: backups are written out \
             when they are done",
        ),
    ]
    .into_iter()
    .filter_map(|(is_so, text)| is_so.then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(kind: &str, path: &str, mount: Option<&str>) -> Storage {
        Storage {
            id: "s".into(),
            kind: kind.into(),
            path: path.into(),
            dir: Path::new(path).join("dump"),
            mount: mount.map(Into::into),
        }
    }

    #[track_caller]
    fn says(storage: &Storage, mounted: &str, words: &[&str]) {
        let table = format!(
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 1 8:2 / /var/lib/vz rw - zfs rpool/vz rw\n{mounted}"
        );
        let found = of(storage, &storage.dir, &Mounts::of_table(&table));
        let told: Vec<_> = found.complaints.into_iter().chain(found.notes).collect();
        assert_eq!(told.len(), words.len(), "{told:#?}");
        for (told, word) in told.iter().zip(words) {
            assert!(told.contains(word), "no {word:?} in {told:?}");
        }
    }

    #[test]
    fn each_is_told_where_it_is() {
        let nfs = |options: &str| format!("30 1 0:5 / /mnt/pve/s rw - nfs4 s:/e {options}");
        let cifs = |options: &str| format!("30 1 0:5 / /mnt/pve/s rw - cifs //s/e {options}");
        let share = storage("nfs", "/mnt/pve/s", Some("/"));
        says(&share, &nfs("rw,hard"), &[]);
        says(&share, &nfs("rw,soft"), &["a soft NFS mount"]);
        says(&share, &cifs("rw,vers=1.0,username=joe,noserverino"), &["SMB 1", "noserverino"]);
        says(&share, &nfs("ro,hard").replace("rw -", "ro -"), &["is mounted read-only"]);
        says(&storage("nfs", "/mnt/pve/s", Some("/nowhere")), "", &["nothing is mounted at /nowhere"]);
        says(&storage("dir", "/var/lib/vz", None), "", &[]);
        says(&storage("dir", "/backup", None), "", &[]);
        says(
            &storage("dir", "/mnt/usb", None),
            "",
            &["/mnt/usb lies on the disk of /. If a disk or share belongs there"],
        );
        let usb = "30 1 8:9 / /mnt/usb rw - vfat /dev/sdb1 rw,sync";
        says(&storage("dir", "/mnt/usb", None), usb, &["--is_mountpoint yes", "FAT", "`sync`"]);
        says(&storage("dir", "/mnt/usb/a", None), usb, &["--is_mountpoint /mnt/usb", "FAT", "`sync`"]);
        says(
            &storage("dir", "/mnt/usb", Some("/")),
            "30 1 0:9 / /mnt/usb rw - fuse.sshfs x rw",
            &["of FUSE"],
        );
    }
}
