//! A guest: its configuration and the commands that Proxmox VE has for it.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::shell::Shell;
use crate::backup::GuestKind;

/// Where Proxmox VE keeps the configuration of all nodes.
const NODES: &str = "/etc/pve/nodes";

/// A virtual machine or container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guest {
    /// Virtual machine or container.
    pub(super) kind: GuestKind,
    /// Its number.
    pub(super) id: u32,
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == GuestKind::Qemu { "VM" } else { "container" };
        write!(f, "{kind} {}", self.id)
    }
}

/// Turns words into a command.
pub(super) fn words<T: Into<OsString>>(list: impl IntoIterator<Item = T>) -> Vec<OsString> {
    list.into_iter().map(Into::into).collect()
}

impl Guest {
    fn folder(&self) -> &'static str {
        if self.kind == GuestKind::Qemu { "qemu-server" } else { "lxc" }
    }

    /// Proxmox VE's program for guests of this kind.
    fn tool(&self) -> &'static str {
        if self.kind == GuestKind::Qemu { "qm" } else { "pct" }
    }

    /// The configuration, if the guest lives on this node.
    pub(super) fn config_file(&self) -> PathBuf {
        PathBuf::from(format!("/etc/pve/{}/{}.conf", self.folder(), self.id))
    }

    /// The configuration file of the guest with this number, whatever its kind and node.
    pub(super) fn owner(&self) -> anyhow::Result<Option<PathBuf>> {
        let failed = || format!("cannot read {NODES}");
        for node in fs::read_dir(NODES).with_context(failed)? {
            for folder in ["qemu-server", "lxc"] {
                let file = node
                    .as_ref()
                    .map_err(|e| io::Error::new(e.kind(), e.to_string()))
                    .with_context(failed)?;
                let file = file.path().join(folder).join(format!("{}.conf", self.id));
                if file.exists() {
                    return Ok(Some(file));
                }
            }
        }
        Ok(None)
    }

    /// The configuration as it is now, without snapshots.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        let file = self.config_file();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Config::parse(&text))
    }

    /// A backup into `dir`: full if there is none yet, differential after that. `mode snapshot` neither
    /// stops nor starts a guest for good; nothing is pruned; files in /tmp count too.
    pub(super) fn backup(&self, dir: &Path, compression: &str) -> Vec<OsString> {
        let compress = if compression == "none" { "0" } else { compression };
        let mut command = words(["vzdump", &self.id.to_string(), "--mode", "snapshot", "--dumpdir"]);
        command.push(dir.into());
        command.extend(words(["--compress", compress, "--fullbackup", "7", "--prune-backups", "keep-all=1"]));
        command.extend(words(["--stdexcludes", "0"]));
        command
    }

    /// Opens the folder of a backup as far as its maker needs it: the root of an unprivileged container must get to the files
    /// that vzdump puts there for it. Nobody can list the folder, and for a VM nobody else gets in.
    pub(super) fn let_in(&self, dir: &Path) -> io::Result<()> {
        let mode = if self.kind == GuestKind::Qemu { 0o700 } else { 0o711 };
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))
    }

    /// Restores an archive to this id, with new network addresses for a VM (nothing starts it anyway).
    pub(super) fn restore(&self, archive: &Path, storage: Option<&str>) -> Vec<OsString> {
        let (archive, id) = (archive.as_os_str().to_owned(), OsString::from(self.id.to_string()));
        let mut command = match self.kind {
            GuestKind::Qemu => vec!["qmrestore".into(), archive, id, "--unique".into(), "1".into()],
            _ => vec!["pct".into(), "restore".into(), id, archive, "--unique".into(), "1".into()],
        };
        if let Some(storage) = storage {
            command.extend(words(["--storage", storage]));
        }
        command
    }

    /// Removes the guest with its disks, also where an interrupted restore left it locked.
    pub(super) fn destroy(&self) -> Vec<OsString> {
        let force = if self.kind == GuestKind::Qemu { "--skiplock" } else { "--force" };
        words([self.tool(), "destroy", &self.id.to_string(), force, "1"])
    }

    /// Sets the description, or removes it.
    pub(super) fn describe(&self, text: Option<&str>) -> Vec<OsString> {
        let id = self.id.to_string();
        match text {
            Some(text) => words([self.tool(), "set", &id, "--description", text]),
            None => words([self.tool(), "set", &id, "--delete", "description"]),
        }
    }

    /// Halts a running VM's processors, which flushes its disks, or lets them go on.
    pub(super) fn pause(&self, on: bool) -> Vec<OsString> {
        words([self.tool(), if on { "suspend" } else { "resume" }, &self.id.to_string()])
    }

    /// Makes a container's files visible on the host, or ends that.
    pub(super) fn mount(&self, on: bool) -> Vec<OsString> {
        words([self.tool(), if on { "mount" } else { "unmount" }, &self.id.to_string()])
    }

    /// Whether it is running.
    pub(super) fn is_running(&self, shell: &Shell) -> anyhow::Result<bool> {
        let status = shell.run(&words([self.tool(), "status", &self.id.to_string()]))?;
        Ok(!status.lines().any(|line| line.trim() == "status: stopped"))
    }

    /// The description, exactly.
    pub(super) fn description(&self, shell: &Shell) -> anyhow::Result<Option<String>> {
        let api = format!("/nodes/localhost/{}/{}/config", self.kind, self.id);
        let answer = shell.run(&words(["pvesh", "get", &api, "--output-format", "json"]))?;
        // warnings of Perl modules may stand before or behind it
        let json = answer.lines().find(|line| line.starts_with('{')).unwrap_or(&answer);
        let config: serde_json::Value = serde_json::from_str(json).context("pvesh gave no JSON")?;
        Ok(config["description"].as_str().map(|text| text.trim_end_matches('\n').to_owned()))
    }
}

/// The lines of a guest's configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// Key and value, up to the first snapshot.
    lines: Vec<(String, String)>,
    /// Comment lines: the description, percent-encoded where it must be.
    comments: Vec<String>,
}

impl Config {
    fn parse(text: &str) -> Self {
        let (mut lines, mut comments) = (Vec::new(), Vec::new());
        for line in text.lines().take_while(|line| !line.starts_with('[')) {
            if let Some(comment) = line.strip_prefix('#') {
                comments.push(comment.to_owned());
            } else if let Some((key, value)) = line.split_once(": ") {
                lines.push((key.to_owned(), value.trim().to_owned()));
            }
        }
        Config { lines, comments }
    }

    /// Whether the description has this line. (Proxmox encodes only what is no plain ASCII.)
    pub(super) fn mentions(&self, text: &str) -> bool {
        self.comments.iter().any(|line| line.trim() == text)
    }

    /// The disks of a VM that a backup contains: key and volume.
    pub(super) fn disks(&self) -> Vec<(&str, &str)> {
        self.disk_lines().into_iter().map(|(key, value)| (key, volume(value))).collect()
    }

    /// The disks of a VM that a backup contains: key, and volume with options.
    pub(super) fn disk_lines(&self) -> Vec<(&str, &str)> {
        let backed_up = |(key, value): &&(String, String)| {
            let bus = key.trim_end_matches(|c: char| c.is_ascii_digit());
            bus.len() < key.len()
                && ["ide", "sata", "scsi", "virtio", "efidisk", "tpmstate"].contains(&bus)
                && !has_option(value, &["media=cdrom", "backup=0", "backup=no"])
        };
        let disks = self.lines.iter().filter(backed_up);
        disks
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .filter(|(_, value)| volume(value) != "none")
            .collect()
    }

    /// Where a container has mount points that a backup leaves out, relative to its root.
    pub(super) fn left_out(&self) -> Vec<PathBuf> {
        let outside = |(key, value): &(String, String)| {
            let number = key.strip_prefix("mp")?;
            let path = value.split(',').find_map(|option| option.strip_prefix("mp="))?;
            let inside = has_option(value, &["backup=1", "backup=yes"]) && !value.starts_with('/');
            (number.parse::<u32>().is_ok() && !inside).then(|| path.trim_start_matches('/').into())
        };
        self.lines.iter().filter_map(outside).collect()
    }
}

fn has_option(value: &str, options: &[&str]) -> bool {
    value.split(',').any(|option| options.contains(&option))
}

fn volume(value: &str) -> &str {
    let first = value.split(',').next().unwrap_or_default();
    first.strip_prefix("file=").unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::selftest::shell::show;

    const VM: Guest = Guest { kind: GuestKind::Qemu, id: 500 };
    const CT: Guest = Guest { kind: GuestKind::Lxc, id: 501 };

    #[test]
    fn commands_are_those_of_proxmox() {
        let dir = Path::new("/var/tmp/x");
        let backup = "vzdump 500 --mode snapshot --dumpdir /var/tmp/x --compress 0 --fullbackup 7 \
                      --prune-backups keep-all=1 --stdexcludes 0";
        assert_eq!(show(&VM.backup(dir, "none")), backup);
        assert_eq!(
            show(&CT.backup(dir, "zstd")),
            backup.replace("500", "501").replace("compress 0", "compress zstd")
        );
        let archive = Path::new("/var/tmp/x/vzdump-qemu-500-2026_11_21-23_00_00.vma.zst");
        let restore = show(&Guest { id: 510, ..VM }.restore(archive, None));
        assert_eq!(restore, format!("qmrestore {} 510 --unique 1", archive.display()));
        let restore = show(&Guest { id: 511, ..CT }.restore(archive, Some("local-zfs")));
        assert_eq!(restore, format!("pct restore 511 {} --unique 1 --storage local-zfs", archive.display()));
        assert_eq!(show(&CT.destroy()), "pct destroy 501 --force 1");
        assert_eq!(show(&VM.destroy()), "qm destroy 500 --skiplock 1");
        assert_eq!(show(&VM.describe(None)), "qm set 500 --delete description");
    }

    #[test]
    fn disks_are_those_a_backup_contains() {
        let config = Config::parse(
            "#a note\n#two\nboot: order=scsi0\nefidisk0: local-zfs:vm-500-disk-0,efitype=4m,size=1M\n\
             ide2: local:iso/debian.iso,media=cdrom,size=600M\nscsi0: file=local-zfs:vm-500-disk-1,size=32G\n\
             scsi1: local:500/vm-500-disk-2.qcow2,backup=0,size=8G\nscsihw: virtio-scsi-pci\n\
             sata3: none,media=cdrom\ntpmstate0: local-zfs:vm-500-disk-3,size=4M,version=v2.0\nvirtio0: /dev/sdx\n\
             \n[snap]\nscsi9: local:500/vm-500-disk-9.raw\n",
        );
        assert_eq!(
            config.disks(),
            [
                ("efidisk0", "local-zfs:vm-500-disk-0"),
                ("scsi0", "local-zfs:vm-500-disk-1"),
                ("tpmstate0", "local-zfs:vm-500-disk-3"),
                ("virtio0", "/dev/sdx"),
            ]
        );
        assert!(config.mentions("two"));
        assert!(!config.mentions("not"));
    }

    #[test]
    fn mount_points_without_backup_are_left_out() {
        let config = Config::parse(
            "rootfs: local:501/vm-501-disk-0.raw,size=8G\nmp0: local:501/vm-501-disk-1.raw,mp=/srv,backup=1,size=8G\n\
             mp1: local:501/vm-501-disk-2.raw,mp=/scratch/big,size=8G\nmp2: /mnt/host,mp=/host,backup=1\nmpx: a,mp=/b\n",
        );
        assert_eq!(config.left_out(), [PathBuf::from("scratch/big"), PathBuf::from("host")]);
    }
}
