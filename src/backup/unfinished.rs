//! Recognises the files of backups that are being made, and those that killed backups left behind.
//!
//! vzdump writes a backup into a file whose name ends in `.dat`, and renames it at the end. Our names also say which
//! node writes the file. So a node can tell that nobody will ever finish it: the file is its own, and none of its
//! processes has it open for writing. What another node writes cannot be known here.
//!
//! ```text
//! FULL--differential-2026_11_22-01_00_00.vcdiff.pve1-0badcafe.dat
//! ```
//!
//! Beside it vzdump makes a folder for the time of the backup, `vzdump-qemu-101-2026_11_22-01_00_00.tmp`. A file of ours in
//! that folder holds the name of the unfinished file, so that the folder counts as long as that does.
//!
//! `PVE/VZDump/Differential/Unfinished.pm` has the same rule, and says why.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use md5::{Digest, Md5};

use super::Stamp;
use super::names::{DIFFERENTIAL, Full, Guest};
use crate::container::source::{Found, open};

/// The files that hold a node's identity: the first for good, the second until the next boot.
const IDENTITIES: [&str; 2] = ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"];

/// The file in a backup's folder that says for which unfinished file the folder is there.
const MARK: &str = "pve-diff-backup.unfinished";

/// The number of bytes that are read of it.
const MARK_MAX: u64 = 1000;

/// The name of an unfinished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name.
    pub name: String,
    /// The guest whose backup it would have become.
    pub guest: Guest,
    /// The full backup that it needs, if it is a differential.
    pub base: Option<Full>,
    /// The node that writes it, if its name says so: the node's name and 8 hexadecimal digits.
    pub node: Option<String>,
}

/// Whether an unfinished backup will be finished, as far as this node can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A process of this node is writing it.
    Written,
    /// Nobody will finish it.
    Left,
    /// Another node writes it, so only that node can tell.
    Unknown,
}

impl Unfinished {
    /// Reads a name. The result is `None` for any other file.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_suffix(".dat")?;
        let (rest, node) = match rest.rsplit_once('.') {
            Some((rest, node)) if is_node(node) => (rest, Some(node.to_owned())),
            _ => (rest, None),
        };
        let (guest, base) = match rest.split_once(DIFFERENTIAL) {
            Some((base, rest)) => {
                Stamp::parse(rest.strip_suffix(".vcdiff").unwrap_or(rest))?;
                let base = Full::parse(base)?;
                (base.guest(), Some(base))
            }
            None => {
                let stem = [".vma", ".tar"].iter().find_map(|it| rest.strip_suffix(it)).unwrap_or(rest);
                // A tar archive may belong to any kind of guest.
                (Full::parse(&format!("{stem}.tar"))?.guest(), None)
            }
        };
        Some(Unfinished { name: name.to_owned(), guest, base, node })
    }
}

/// A folder that vzdump made for the time of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its name.
    pub name: String,
    /// The guest whose backup was made, or is.
    pub guest: Guest,
    /// It tells whether that backup is still being made, was killed, or cannot be known.
    pub state: State,
}

impl Folder {
    /// Tells what this folder is and what to do about it. It is `None` where the backup is being made.
    pub fn advice(&self, dir: &Path) -> Option<String> {
        let remove = format!("rm -r '{}'", dir.join(&self.name).display());
        match self.state {
            State::Written => None,
            State::Left => Some(format!(
                "a killed backup left this folder; the guest's next job with differentials removes it, or: {remove}"
            )),
            State::Unknown => Some(format!(
                "a folder in which vzdump keeps what it needs for one backup; if no backup of this guest goes on, on any node, \
                 a killed one left it: {remove}"
            )),
        }
    }
}

/// Reads the name of a folder. The result is the guest; it is `None` for any other folder.
pub(super) fn guest_of_folder(name: &str) -> Option<Guest> {
    let stem = name.strip_suffix(".tmp")?;
    // A tar archive may belong to any kind of guest.
    Some(Full::parse(&format!("{stem}.tar"))?.guest())
}

/// Tells of each folder in `dir` whether its backup will be finished, in the order of the folders.
pub(super) fn look_at_folders(dir: &Path, folders: Vec<(String, Guest)>) -> Vec<Folder> {
    if folders.is_empty() {
        return Vec::new();
    }
    let files: Vec<Vec<Unfinished>> =
        folders.iter().map(|(name, guest)| files_of(&dir.join(name), name, *guest)).collect();
    let states = states(&files.concat());
    let mut states = states.into_iter();
    let folders = folders.into_iter().zip(&files);
    folders
        .map(|((name, guest), files)| {
            let of_files: Vec<_> = states.by_ref().take(files.len()).collect();
            let state = match of_files[..] {
                _ if of_files.contains(&State::Written) => State::Written,
                [marked] => marked,
                _ => State::Unknown,
            };
            Folder { name, guest, state }
        })
        .collect()
}

/// Names the unfinished file for which a folder is there: the one that a file in it names, else those that vzdump by itself
/// would write.
fn files_of(folder: &Path, name: &str, guest: Guest) -> Vec<Unfinished> {
    let mark = open(&folder.join(MARK), Found::ByName).ok();
    let mut text = String::new();
    let read = mark.and_then(|file| file.take(MARK_MAX).read_to_string(&mut text).ok());
    let marked = read.and_then(|_| Unfinished::parse(text.trim_end()));
    if let Some(marked) = marked.filter(|it| it.guest == guest) {
        return vec![marked];
    }
    let stem = name.strip_suffix(".tmp").unwrap_or(name);
    [".vma", ".tar"].iter().filter_map(|kind| Unfinished::parse(&format!("{stem}{kind}.dat"))).collect()
}

fn is_node(text: &str) -> bool {
    let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    text.rsplit_once('-').is_some_and(|(host, hash)| {
        !host.is_empty() && host.bytes().all(plain) && hash.len() == 8 && hash.bytes().all(hex)
    })
}

/// An unfinished backup in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The name of the file, taken apart.
    pub file: Unfinished,
    /// Whether somebody will finish it.
    pub state: State,
}

impl Leftover {
    /// Tells people what this file is and what to do about it. It is `None` where the backup is being made.
    pub fn advice(&self, dir: &Path) -> Option<String> {
        let remove = format!("rm '{}'", dir.join(&self.file.name).display());
        match (self.state, &self.file.node) {
            (State::Written, _) => None,
            (State::Left, _) => Some(format!(
                "a killed backup left it unfinished; the guest's next job with differentials removes it, or: {remove}"
            )),
            (State::Unknown, node) => {
                let who = node.as_deref().map_or("an unknown program".into(), |node| format!("node {node}"));
                let kept = if self.file.base.is_some() { ", and its full backup is kept for it" } else { "" };
                Some(format!(
                    "unfinished, of {who}; whether a backup goes on there cannot be known here{kept}. If none does: \
                     {remove}"
                ))
            }
        }
    }
}

/// Tells of each file whether it will be finished, in the order of the files.
pub fn look_at(files: Vec<Unfinished>) -> Vec<Leftover> {
    if files.is_empty() {
        return Vec::new();
    }
    let states = states(&files);
    files.into_iter().zip(states).map(|(file, state)| Leftover { file, state }).collect()
}

fn states(files: &[Unfinished]) -> Vec<State> {
    let names = files.iter().map(|file| file.name.as_str()).collect();
    let (here, open) = (this_node(), open_for_writing(&names).ok());
    let state = |file: &Unfinished| match &open {
        Some(open) if open.contains(file.name.as_str()) => State::Written,
        Some(_) if file.node.is_some() && file.node == here => State::Left,
        _ => State::Unknown,
    };
    files.iter().map(state).collect()
}

/// The part that this node adds to the names of files that it writes.
fn this_node() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let host: String = name.chars().take_while(plain).take(63).collect();
    let host = if host.is_empty() { "node" } else { &host };
    let is_id = |text: &str| {
        (32..=36).contains(&text.len()) && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f' | b'-'))
    };
    let ids = IDENTITIES.iter().filter_map(|path| fs::read_to_string(path).ok());
    let id = ids.map(|id| id.lines().next().unwrap_or_default().to_owned()).find(|id| is_id(id))?;
    let hash = Md5::digest(format!("pve-diff-backup {id}"));
    let hash = crate::text::hex(&hash[..4]);
    Some(format!("{host}-{hash}"))
}

/// Makes the name under which this node writes a backup until it is complete. `stem` is the name of a full backup without
/// its compression.
pub(super) fn name_here(stem: &str) -> String {
    let node = this_node().map(|node| format!(".{node}")).unwrap_or_default();
    format!("{stem}{node}.dat")
}

/// Finds those of the names that a process of this node has open for writing, in any directory.
///
/// # Errors
/// Fails where not all processes can be looked at.
fn open_for_writing<'a>(names: &HashSet<&'a str>) -> io::Result<HashSet<&'a str>> {
    let mut found = HashSet::new();
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        let pid = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        // Process 1 (init) makes no backups, and in a container it may not be allowed to look at it.
        if pid.is_none_or(|pid| pid == 1) {
            continue;
        }
        let Some(descriptors) = unless_gone(&process, fs::read_dir(process.join("fd")))? else { continue };
        for descriptor in descriptors {
            let Some(descriptor) = unless_gone(&process, descriptor)? else { break };
            let path = descriptor.path();
            let Some(target) = unless_gone(&path, fs::read_link(&path))? else { continue };
            let name = target.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| names.get(name)) else { continue };
            let info = process.join("fdinfo").join(descriptor.file_name());
            if is_for_writing(&info) {
                found.insert(*name);
            }
        }
    }
    Ok(found)
}

/// Turns the error of a process or descriptor that has vanished meanwhile into `None`. For a process that has ended,
/// the kernel may also say that access is denied.
fn unless_gone<T>(path: &Path, result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(_) if fs::symlink_metadata(path).is_err() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Tells whether a descriptor is open for writing, by its file in `/proc/PID/fdinfo`. Where that cannot be told, the
/// answer is yes.
fn is_for_writing(info: &Path) -> bool {
    let info = fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok()).is_none_or(|flags| flags & 3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    const FULL: &str = "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst";

    #[test]
    fn names_tell_what_and_who() {
        let parse = |name: &str| {
            Unfinished::parse(name).map(|it| (it.base.map(|base| base.as_str().to_owned()), it.node))
        };
        let stamp = "2026_11_21-01_00_02";
        let node = Some("pve-1-0badcafe".to_owned());
        for (end, node) in [(".pve-1-0badcafe.dat", &node), (".dat", &None)] {
            for kind in ["", ".vma", ".tar"] {
                let full = parse(&format!("vzdump-qemu-101-{stamp}{kind}{end}"));
                assert_eq!(full, Some((None, node.clone())), "{kind}{end}");
            }
            for kind in ["", ".vcdiff"] {
                let differential = parse(&format!("{FULL}--differential-{stamp}{kind}{end}"));
                assert_eq!(differential, Some((Some(FULL.to_owned()), node.clone())), "{kind}{end}");
            }
        }
        for other in
            ["x.dat", "vzdump-qemu-101.dat", FULL, "vzdump-qemu-101-2026_11_21-01_00_02.vma.PVE.dat", ".dat"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn whoever_has_it_open_for_writing_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = this_node().expect("a node with an identity");
        let name = |node: &str| {
            format!("vzdump-lxc-{}-2026_11_20-01_00_02.tar.{node}.dat", 100 + std::process::id() % 10000)
        };
        let [ours, others] = [name(&here), name("pve9-0badcafe")];
        let look = |name: &str| states(&[Unfinished::parse(name).unwrap()])[0];
        let file = File::create(dir.path().join(&ours)).unwrap();
        assert_eq!((look(&ours), look(&others)), (State::Written, State::Unknown));
        drop(file);
        let _reader = File::open(dir.path().join(&ours)).unwrap();
        assert_eq!((look(&ours), look(&others)), (State::Left, State::Unknown));
    }

    #[test]
    fn a_folder_counts_as_long_as_its_file_does() {
        let dir = tempfile::tempdir().unwrap();
        let vmid = 20000 + std::process::id() % 10000;
        let stem = format!("vzdump-qemu-{vmid}-2026_11_20-01_00_00");
        let (ours, others) = (name_here(&format!("{stem}.vma")), format!("{stem}.vma.pve9-0badcafe.dat"));
        let folder = format!("{stem}.tmp");
        let guest = guest_of_folder(&folder).unwrap();
        fs::create_dir(dir.path().join(&folder)).unwrap();
        let look = |mark: Option<&str>| {
            let path = dir.path().join(&folder).join(MARK);
            match mark {
                Some(mark) => fs::write(path, format!("{mark}\n")).unwrap(),
                None => fs::remove_file(path).unwrap_or_default(),
            }
            look_at_folders(dir.path(), vec![(folder.clone(), guest)])[0].state
        };
        assert_eq!(
            [look(None), look(Some(&ours)), look(Some(&others))],
            [State::Unknown, State::Left, State::Unknown]
        );
        // of another guest, or no name at all
        assert_eq!(look(Some(&ours.replace("qemu", "lxc"))), State::Unknown);
        assert_eq!(look(Some("x")), State::Unknown);
        let written = File::create(dir.path().join(&ours)).unwrap();
        assert_eq!(look(Some(&ours)), State::Written);
        drop(written);
        // vzdump by itself
        let written = File::create(dir.path().join(format!("{stem}.vma.dat"))).unwrap();
        assert_eq!(look(None), State::Written);
        drop(written);
        assert_eq!(look(None), State::Unknown);
        for other in ["vzdump-lxc-x.tmp", "other.tmp", FULL] {
            assert_eq!(guest_of_folder(other), None, "{other}");
        }
    }
}
