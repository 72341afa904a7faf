//! Compares a restored guest with the original.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::guest::{Guest, words};
use super::shell::Shell;
use crate::backup::GuestKind;

/// What a comparison found; a difference that must not be is an error instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is the same; what was compared.
    Same(String),
    /// It cannot be told, because the original is running; what differs.
    Unknown(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Same(what) => write!(f, "identical: {what}"),
            Outcome::Unknown(what) => write!(f, "restored, not comparable: {what}"),
        }
    }
}

/// Compares a restored guest with the original; `marker` is the line that the description had when the
/// backup was made, and no other backup has. `is_still` tells that a running guest was paused before the backup.
pub(super) fn guests(
    shell: &Shell,
    source: Guest,
    target: Guest,
    marker: &str,
    is_still: bool,
) -> anyhow::Result<Outcome> {
    ensure!(target.config()?.mentions(marker), "the restored configuration is that of another backup");
    match source.kind {
        GuestKind::Qemu => machines(shell, source, target, is_still),
        _ => containers(shell, source, target),
    }
}

/// Compares two VMs disk by disk, with qemu-img, which reads all formats and storages of Proxmox VE.
fn machines(shell: &Shell, source: Guest, target: Guest, is_still: bool) -> anyhow::Result<Outcome> {
    let (old, new) = (source.config()?, target.config()?);
    let running = source.is_running(shell)?;
    let disks = old.disks();
    let mut pairs = Vec::new();
    for (key, volume) in &disks {
        let restored = new.disks().into_iter().find(|(name, _)| name == key);
        let (_, restored) = restored.with_context(|| format!("the restored VM has no {key}"))?;
        pairs.push((*key, *volume, restored.to_owned()));
    }
    let volumes: Vec<_> = pairs.iter().map(|(_, _, restored)| restored.as_str()).collect();
    let originals: Vec<_> = disks.iter().map(|(_, volume)| *volume).collect();
    activate(shell, true, &volumes)?;
    if !running {
        activate(shell, true, &originals)?;
    }
    let mut differ = Ok(Vec::new());
    for (key, volume, restored) in &pairs {
        match (&mut differ, same_image(shell, volume, restored)) {
            (Ok(_), Ok(true)) => {}
            (Ok(keys), Ok(false)) => keys.push(*key),
            (_, Err(error)) => {
                differ = Err(error);
                break;
            }
            (Err(_), _) => break,
        }
    }
    if !running {
        activate(shell, false, &originals)?;
    }
    let differ = differ?.join(", ");
    match (differ.is_empty(), running && !is_still) {
        (true, _) => Ok(Outcome::Same(counted(pairs.len(), "disk"))),
        (false, true) => Ok(Outcome::Unknown(format!("{differ} of the running VM changed"))),
        (false, false) => bail!("{differ} differs from the original"),
    }
}

/// Makes volumes readable (LVM and others hide those of stopped guests), or ends that.
fn activate(shell: &Shell, on: bool, volumes: &[&str]) -> anyhow::Result<()> {
    let volumes: Vec<_> = volumes.iter().filter(|volume| !volume.starts_with('/')).collect();
    if volumes.is_empty() {
        return Ok(());
    }
    let what = if on { "activate" } else { "deactivate" };
    let script = format!("PVE::Storage::{what}_volumes(PVE::Storage::config(), \\@ARGV)");
    let mut command = words(["perl", "-MPVE::Storage", "-e", &script]);
    command.extend(volumes.iter().map(OsString::from));
    shell.run_always(&command).map(|_| ())
}

fn same_image(shell: &Shell, a: &str, b: &str) -> anyhow::Result<bool> {
    let (a, b) = (path(shell, a)?, path(shell, b)?);
    // formats are given, since a guest may write anything to the beginning of its raw disk
    let command = words([
        "qemu-img",
        "compare",
        "-U",
        "-f",
        image_format(&a),
        "-F",
        image_format(&b),
        a.as_str(),
        b.as_str(),
    ]);
    match shell.status(&command)? {
        (Some(0), _) => Ok(true),
        (Some(1), _) => Ok(false),
        (_, output) => bail!("qemu-img could not compare {a} and {b}: {}", output.trim()),
    }
}

/// Finds the path of a volume, which is what `pvesm path` prints last.
fn path(shell: &Shell, volume: &str) -> anyhow::Result<String> {
    if volume.starts_with('/') {
        return Ok(volume.to_owned());
    }
    let output = shell.run(&words(["pvesm", "path", volume]))?;
    let found = output.lines().map(str::trim).find(|line| line.starts_with('/') || line.starts_with("rbd:"));
    found.map(str::to_owned).with_context(|| format!("pvesm tells no path of {volume}"))
}

fn image_format(path: &str) -> &'static str {
    match Path::new(path).extension().and_then(|e| e.to_str()) {
        Some("qcow2") if !path.starts_with("/dev/") => "qcow2",
        Some("vmdk") if !path.starts_with("/dev/") => "vmdk",
        _ => "raw",
    }
}

/// Compares two containers file by file.
fn containers(shell: &Shell, source: Guest, target: Guest) -> anyhow::Result<Outcome> {
    if source.is_running(shell)? {
        // `pct mount` would lock a running container
        return Ok(Outcome::Unknown("the container is running".into()));
    }
    let left_out = source.config()?.left_out();
    shell.run(&source.mount(true))?;
    let compared = shell.run(&target.mount(true)).and_then(|_| {
        let root = |guest: Guest| PathBuf::from(format!("/var/lib/lxc/{}/rootfs", guest.id));
        let compared = Tree { old: &root(source), new: &root(target), left_out: &left_out }.compare();
        shell.run_always(&target.mount(false))?;
        compared
    });
    shell.run_always(&source.mount(false))?;
    compared
}

/// Two trees that should be the same.
struct Tree<'a> {
    old: &'a Path,
    new: &'a Path,
    left_out: &'a [PathBuf],
}

impl Tree<'_> {
    fn compare(&self) -> anyhow::Result<Outcome> {
        let (mut files, mut adapted) = (0, 0);
        let mut differences = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for name in names(&self.old.join(&folder))?.union(&names(&self.new.join(&folder))?) {
                let path = folder.join(name);
                if path == Path::new("lost+found") || self.left_out.contains(&path) {
                    continue;
                }
                files += 1;
                match self.difference(&path).with_context(|| format!("cannot compare /{}", path.display()))? {
                    Ok(is_folder) if is_folder => folders.push(path),
                    Ok(_) => {}
                    // restoring adapts a container's configuration: ttys, hosts, services
                    Err(_) if path.starts_with("etc") => adapted += 1,
                    Err(what) => differences.push(format!("/{} {what}", path.display())),
                }
            }
        }
        if let Some(first) = differences.first() {
            bail!(
                "the restored container differs in {}, the first: {first}",
                counted(differences.len(), "file")
            );
        }
        let note =
            if adapted > 0 { format!(", {adapted} in /etc adapted by Proxmox VE") } else { String::new() };
        Ok(Outcome::Same(counted(files, "file") + &note))
    }

    /// How a path differs, or whether it is a directory in both trees.
    fn difference(&self, path: &Path) -> io::Result<Result<bool, &'static str>> {
        let (old_path, new_path) = (self.old.join(path), self.new.join(path));
        let (old, new) = (stat(&old_path)?, stat(&new_path)?);
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            // tar does not store sockets
            (Some(old), None) if old.file_type().is_socket() => return Ok(Ok(false)),
            (Some(_), None) => return Ok(Err("is missing")),
            (None, _) => return Ok(Err("was not there")),
        };
        let kind = old.file_type();
        if kind != new.file_type() {
            return Ok(Err("is of another type"));
        }
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            return Ok(Err("has another owner"));
        }
        if kind.is_symlink() {
            let same = fs::read_link(&old_path)? == fs::read_link(&new_path)?;
            return Ok(if same { Ok(false) } else { Err("leads elsewhere") });
        }
        if old.mode() != new.mode() {
            return Ok(Err("has other permissions"));
        }
        if kind.is_file() {
            if old.mtime() != new.mtime() {
                return Ok(Err("has another time of modification"));
            }
            if old.len() != new.len() || !same_content(&old_path, &new_path)? {
                return Ok(Err("has other content"));
            }
        } else if (kind.is_block_device() || kind.is_char_device()) && old.rdev() != new.rdev() {
            return Ok(Err("is another device"));
        }
        Ok(Ok(kind.is_dir()))
    }
}

fn names(folder: &Path) -> anyhow::Result<BTreeSet<OsString>> {
    let list = fs::read_dir(folder).and_then(|list| list.map(|entry| Ok(entry?.file_name())).collect());
    list.with_context(|| format!("cannot read {}", folder.display()))
}

fn stat(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(1 << 20).read_to_end(&mut left)?;
        b.by_ref().take(1 << 20).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Two equal trees, the second of which `change` may alter.
    fn compare(change: impl FnOnce(&Path)) -> anyhow::Result<Outcome> {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        for root in [&old, &new] {
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(root.join("srv/left")).unwrap();
            symlink("elsewhere", root.join("link")).unwrap();
            for (name, content) in [("etc/hosts", &b"localhost"[..]), ("srv/data", &[7; 3 << 20])] {
                fs::write(root.join(name), content).unwrap();
                let file = File::options().write(true).open(root.join(name)).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }
        }
        let _socket = std::os::unix::net::UnixListener::bind(old.join("srv/socket")).unwrap();
        change(&new);
        Tree { old: &old, new: &new, left_out: &["srv/left".into()] }.compare()
    }

    #[test]
    fn equal_trees_are_the_same() {
        // etc, hosts, link, srv, data, socket
        assert_eq!(compare(|_| ()).unwrap(), Outcome::Same("6 files".into()));
    }

    #[test]
    fn what_restoring_adapts_or_leaves_out_does_not_count() {
        let outcome = compare(|root| {
            fs::create_dir(root.join("etc/vzdump")).unwrap();
            fs::write(root.join("etc/hosts"), "other").unwrap();
            fs::write(root.join("srv/left/file"), "").unwrap();
        });
        assert_eq!(outcome.unwrap(), Outcome::Same("7 files, 2 in /etc adapted by Proxmox VE".into()));
    }

    #[test]
    fn differences_are_named() {
        let fails = |what: &str, change: &dyn Fn(&Path)| {
            let error = compare(change).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        fails("/srv/data is missing", &|root| fs::remove_file(root.join("srv/data")).unwrap());
        fails("/new was not there", &|root| fs::write(root.join("new"), "").unwrap());
        fails("/srv/data has other content", &|root| {
            let file = File::options().write(true).open(root.join("srv/data")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", 2 << 20).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        });
        fails("/srv/data has other permissions", &|root| {
            fs::set_permissions(root.join("srv/data"), fs::Permissions::from_mode(0o4755)).unwrap();
        });
        fails("/srv/data has another time", &|root| {
            let file = File::options().write(true).open(root.join("srv/data")).unwrap();
            file.set_modified(std::time::SystemTime::now()).unwrap();
        });
        fails("/link leads elsewhere", &|root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("x", root.join("link")).unwrap();
        });
        fails("/link is of another type", &|root| {
            fs::remove_file(root.join("link")).unwrap();
            fs::create_dir(root.join("link")).unwrap();
        });
    }

    #[test]
    fn formats_follow_the_file_name_but_not_that_of_a_device() {
        assert_eq!(image_format("/var/lib/vz/images/500/vm-500-disk-0.qcow2"), "qcow2");
        assert_eq!(image_format("/var/lib/vz/images/500/vm-500-disk-0.raw"), "raw");
        assert_eq!(image_format("/dev/pve/vm-500-disk-0"), "raw");
        assert_eq!(image_format("rbd:rbd/vm-500-disk-0:conf=/etc/pve/ceph.conf"), "raw");
    }
}
