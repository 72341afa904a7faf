//! Finds the files that must be copied together, so that every backup in the copy can be restored.

use super::Stamp;
use super::chain::{DAMAGED, Directory};
use super::names::{BackupName, Guest, GuestKind};

/// The guests whose backups are meant: those with a number, as it stands in names, of any kind or of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    kind: Option<GuestKind>,
    vmid: u32,
}

impl Wanted {
    /// Reads `101`, `qemu/101` or `lxc/101`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, vmid) = match text.split_once('/') {
            Some((kind, vmid)) => (Some(GuestKind::parse(kind)?), vmid),
            None => (None, text),
        };
        let is_plain = !vmid.is_empty() && vmid.bytes().all(|c| c.is_ascii_digit());
        is_plain.then(|| vmid.parse().ok()).flatten().map(|vmid| Wanted { kind, vmid })
    }

    /// Tells whether this guest is meant.
    pub fn is(self, guest: Guest) -> bool {
        guest.vmid == self.vmid && self.kind.is_none_or(|kind| guest.kind == kind)
    }
}

/// The files that must be copied together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copies {
    /// The names of the files: all fulls with the files beside them, then the differentials. If a copy made in this
    /// order is interrupted, it holds no differential without its full.
    pub files: Vec<String>,
    /// The names of the differentials of that time whose full is not there.
    pub stranded: Vec<String>,
}

/// Finds the files of a guest's backups made at `since` or later (of all, without it), and those of the fulls that they
/// need.
pub fn copies(directory: &Directory, wanted: Wanted, since: Option<Stamp>) -> Copies {
    let is_meant = |stamp: Stamp| since.is_none_or(|since| stamp >= since);
    let mut copies = Copies::default();
    let mut differentials = Vec::new();
    for chain in directory.chains.iter().filter(|chain| wanted.is(chain.full.guest())) {
        let meant: Vec<_> = chain.differentials.iter().filter(|it| is_meant(it.stamp())).collect();
        if is_meant(chain.full.stamp()) || !meant.is_empty() {
            copies.files.extend(with_beside(directory, &BackupName::Full(chain.full.clone())));
            differentials.extend(meant);
        }
    }
    for differential in differentials {
        copies.files.extend(with_beside(directory, &BackupName::Differential(differential.clone())));
    }
    let stranded = directory.orphans.iter().filter(|it| wanted.is(it.base().guest()) && is_meant(it.stamp()));
    copies.stranded = stranded.map(|it| it.as_str().to_owned()).collect();
    copies
}

/// Lists a backup's file and the files that lie beside it.
fn with_beside(directory: &Directory, backup: &BackupName) -> Vec<String> {
    let damaged = format!("{}{DAMAGED}", backup.as_str());
    let mut files = vec![backup.log_name(), backup.notes_name(), backup.protected_name(), damaged];
    files.retain(|name| directory.has_beside(name));
    files.insert(0, backup.as_str().to_owned());
    files
}

/// Reads the time from which on backups are meant: `2026-11-20`, with ` 13:30` or ` 13:30:05` behind it, or as names
/// have it (`2026_11_20-13_30_05`). It is the time of day of the node that made the backups.
pub fn parse_since(text: &str) -> Option<Stamp> {
    let digits: Vec<&str> = text.split(['-', '_', ':', ' ', 'T']).collect();
    let time = match digits.len() {
        3 => "-00_00_00",
        5 => "_00",
        6 => "",
        _ => return None,
    };
    let (date, rest) = (digits[..3].join("_"), digits[3..].join("_"));
    let text = if rest.is_empty() { date } else { format!("{date}-{rest}") };
    Stamp::parse(&format!("{text}{time}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const OLD: &str = "vzdump-qemu-101-2026_11_13-01_00_02";
    const NEW: &str = "vzdump-qemu-101-2026_11_20-01_00_02";

    #[test]
    fn fulls_come_first_and_only_what_belongs_together() {
        let dir = tempfile::tempdir().unwrap();
        let full = |stem: &str| format!("{stem}.vma.zst");
        let diff = |stem: &str, day: u32| format!("{stem}.vma.zst--differential-2026_11_{day}-01_00_02");
        let gone = "vzdump-qemu-101-2026_11_01-01_00_02.vma.zst--differential-2026_11_21-01_00_02.vcdiff";
        let write = |name: &str| fs::write(dir.path().join(name), "x").unwrap();
        for name in [
            full(OLD),
            format!("{}.vcdiff.zst", diff(OLD, 14)),
            format!("{}.vcdiff.zst", diff(OLD, 19)),
            full(NEW),
            format!("{NEW}.log"),
            format!("{}.notes", full(NEW)),
            format!("{}.protected", full(NEW)),
            format!("{}.damaged", full(NEW)),
            format!("{}.vcdiff.zst", diff(NEW, 21)),
            format!("{}.log", diff(NEW, 21)),
            format!("{}.vcdiff.zst.notes", diff(NEW, 21)),
            format!("{}.vcdiff.pve1-0badcafe.dat", diff(NEW, 22)),
            gone.into(),
            full(&NEW.replace("101", "1010")),
            full(&NEW.replace("qemu", "lxc")).replace("vma", "tar"),
        ] {
            write(&name);
        }
        symlink("/etc/hostname", dir.path().join(format!("{OLD}.log"))).unwrap();
        let scanned = Directory::scan(dir.path()).unwrap();
        let files =
            |wanted: &str, since: &str| copies(&scanned, Wanted::parse(wanted).unwrap(), parse_since(since));
        let of_new = [
            full(NEW),
            format!("{NEW}.log"),
            format!("{}.notes", full(NEW)),
            format!("{}.protected", full(NEW)),
            format!("{}.damaged", full(NEW)),
        ];
        let diff_of_new = [
            format!("{}.vcdiff.zst", diff(NEW, 21)),
            format!("{}.log", diff(NEW, 21)),
            format!("{}.vcdiff.zst.notes", diff(NEW, 21)),
        ];
        let found = files("qemu/101", "2026-11-20");
        assert_eq!(found.files, [&of_new[..], &diff_of_new].concat());
        assert_eq!(found.stranded, [gone]);
        // A differential of that time brings its older full along, not that full's older differentials.
        let found = files("qemu/101", "2026-11-19");
        let expected = [&[full(OLD)], &of_new[..], &[format!("{}.vcdiff.zst", diff(OLD, 19))], &diff_of_new];
        assert_eq!(found.files, expected.concat());
        assert_eq!(files("qemu/101", "2026-11-21 01:00:02").files, [&of_new[..], &diff_of_new].concat());
        assert_eq!(files("qemu/101", "2026-11-21 01:00:03").files, [""; 0]);
        assert_eq!(files("lxc/101", "2026-11-20").files.len(), 1);
        assert_eq!(files("101", "2026-11-20").files.len(), 9);
    }

    #[test]
    fn times_and_guests_are_read_strictly() {
        for text in ["2026-11-20", "2026-11-20 00:00", "2026-11-20T00:00:00", "2026_11_20-00_00_00"] {
            assert_eq!(parse_since(text), Stamp::parse("2026_11_20-00_00_00"), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-11",
            "2026-13-01",
            "2026-11-20 1:00",
            "2026-11-20 01:00:00.5",
            "20.11.2026",
        ] {
            assert_eq!(parse_since(text), None, "{text}");
        }
        for text in ["", "vm/101", "+101", "qemu/", "qemu/1/2", "99999999999"] {
            assert_eq!(Wanted::parse(text), None, "{text}");
        }
    }
}
