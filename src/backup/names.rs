//! Reads the file names of backups.
//!
//! A full backup has the name that vzdump gives it (pve-storage, `archive_info`). A differential is named after its
//! full as ayufan's pve-patches have done since 2013, so that old archives stay usable:
//!
//! ```text
//! vzdump-qemu-101-2026_11_20-01_00_02.vma.zst
//! vzdump-qemu-101-2026_11_20-01_00_02.vma.zst--differential-2026_11_21-01_00_02.vcdiff.zst
//! ```
//!
//! The test vectors of this grammar are in `tests/data/names.json`, which the Perl side shares.

use std::fmt;

use super::Stamp;

/// The text between the name of a full backup and the time of a differential.
pub const DIFFERENTIAL: &str = "--differential-";
/// The extension of a differential, before that of its compression.
const VCDIFF: &str = ".vcdiff";
/// The extensions that a full may have for its compression. `.tgz` is another name for `.tar.gz`.
const FORMS: [&str; 5] = ["", ".zst", ".lzo", ".gz", ".xz"];

/// The kind of a guest, as it stands in names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuestKind {
    /// A container, Proxmox VE 4 and later.
    Lxc,
    /// A container, Proxmox VE 2 and 3.
    Openvz,
    /// A virtual machine.
    Qemu,
}

impl GuestKind {
    const ALL: [Self; 3] = [Self::Lxc, Self::Openvz, Self::Qemu];

    /// Reads the word that stands in names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == word)
    }
}

impl fmt::Display for GuestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            GuestKind::Lxc => "lxc",
            GuestKind::Openvz => "openvz",
            GuestKind::Qemu => "qemu",
        })
    }
}

/// A guest as names of backups tell it. It is shown as `qemu/101`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guest {
    /// Kind of guest.
    pub kind: GuestKind,
    /// Its number, 100 to 999999999.
    pub vmid: u32,
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.kind, self.vmid))
    }
}

/// The format of an archive, once it is decompressed and decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// It holds a container's files (or those of a very old virtual machine).
    Tar,
    /// It holds a virtual machine's disks; see [`crate::vma`].
    Vma,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Format::Tar => "tar",
            Format::Vma => "vma",
        })
    }
}

/// The compression of a file, by its name. (When a file is read, its content decides.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// The file is not compressed.
    None,
    /// gzip, `.gz` or `.tgz`.
    Gzip,
    /// lzop, `.lzo`.
    Lzo,
    /// xz, `.xz`. vzdump never makes it, but people do.
    Xz,
    /// zstd, `.zst`.
    Zstd,
}

impl Compression {
    /// Reads an extension with its dot; an empty one is [`Compression::None`]. `.bz2` is not known here, as Proxmox VE
    /// restores it but never makes it.
    fn from_extension(extension: &str) -> Option<Self> {
        Some(match extension {
            "" => Compression::None,
            ".gz" => Compression::Gzip,
            ".lzo" => Compression::Lzo,
            ".zst" => Compression::Zstd,
            _ => return None,
        })
    }
}

/// The name of a full backup, which is an ordinary vzdump archive with the name that vzdump gave it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Full {
    text: String,
    stem: usize,
    kind: GuestKind,
    vmid: u32,
    stamp: Stamp,
    format: Format,
    compression: Compression,
}

impl Full {
    /// Reads a name. The result is `None` for anything else, also for the name of a differential.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("vzdump-")?;
        let (kind, rest) = rest.split_once('-')?;
        let kind = GuestKind::parse(kind)?;
        let (vmid, rest) = rest.split_once('-')?;
        let (stamp, extensions) = rest.split_at_checked(Stamp::LEN)?;
        let (format, compression) = match extensions {
            ".tgz" => (Format::Tar, Compression::Gzip),
            _ => {
                let (format, compression) = extensions.split_at_checked(4)?;
                let format = match format {
                    ".tar" => Format::Tar,
                    ".vma" => Format::Vma,
                    _ => return None,
                };
                (format, Compression::from_extension(compression)?)
            }
        };
        if format == Format::Vma && kind != GuestKind::Qemu {
            return None;
        }
        Some(Full {
            text: text.to_owned(),
            stem: text.len() - extensions.len(),
            kind,
            vmid: parse_vmid(vmid)?,
            stamp: Stamp::parse(stamp)?,
            format,
            compression,
        })
    }

    /// Reads the name of a full that may have been compressed anew with xz, which vzdump and Proxmox VE do not know.
    pub fn parse_packed(text: &str) -> Option<Self> {
        Full::parse(text).or_else(|| {
            let plain = Full::parse(text.strip_suffix(".xz")?)?;
            (plain.compression == Compression::None).then(|| Full {
                text: text.to_owned(),
                compression: Compression::Xz,
                ..plain
            })
        })
    }

    /// Tells whether both names stand for the same content, whatever it is compressed with.
    pub fn is_content_of(&self, other: &Full) -> bool {
        self.content() == other.content()
    }

    /// Returns a value that is equal for names that stand for the same content.
    pub fn content(&self) -> Content {
        Content { guest: self.guest(), stamp: self.stamp, format: self.format }
    }

    /// The guest whose backup it is.
    pub fn guest(&self) -> Guest {
        Guest { kind: self.kind, vmid: self.vmid }
    }

    /// The file name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The kind of the guest.
    pub fn kind(&self) -> GuestKind {
        self.kind
    }
    /// The number of the guest, 100 to 999999999.
    pub fn vmid(&self) -> u32 {
        self.vmid
    }
    /// The time when the backup began.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
    /// The format: VMA or tar.
    pub fn format(&self) -> Format {
        self.format
    }
    /// The compression of the file.
    pub fn compression(&self) -> Compression {
        self.compression
    }
    /// The name of vzdump's log of this backup.
    pub fn log_name(&self) -> String {
        format!("{}.log", &self.text[..self.stem])
    }
}

/// Identifies the content of a full backup by its name, however the file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content {
    guest: Guest,
    stamp: Stamp,
    format: Format,
}

/// Reads a guest's number as Proxmox VE allows it: 100 to 999999999, without leading zeros.
fn parse_vmid(text: &str) -> Option<u32> {
    let digits = (3..=9).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    if digits && !text.starts_with('0') { text.parse().ok() } else { None }
}

/// The name of a differential backup, which holds the name of the full that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Differential {
    text: String,
    stem: usize,
    base: Full,
    stamp: Stamp,
    compression: Compression,
}

impl Differential {
    /// Reads a name. The result is `None` for anything else. A differential always needs a full, never another
    /// differential.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, rest) = text.split_once(DIFFERENTIAL)?;
        let (stamp, extensions) = rest.split_at_checked(Stamp::LEN)?;
        let compression = Compression::from_extension(extensions.strip_prefix(VCDIFF)?)?;
        Some(Differential {
            text: text.to_owned(),
            stem: text.len() - extensions.len(),
            base: Full::parse(base)?,
            stamp: Stamp::parse(stamp)?,
            compression,
        })
    }

    /// The file name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The full backup that it needs, which lies in the same directory.
    pub fn base(&self) -> &Full {
        &self.base
    }
    /// The time when this backup (not its full) began.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
    /// The compression of this file.
    pub fn compression(&self) -> Compression {
        self.compression
    }
    /// The name of vzdump's log of this backup.
    pub fn log_name(&self) -> String {
        format!("{}.log", &self.text[..self.stem])
    }
}

/// The name of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackupName {
    /// A full backup.
    Full(Full),
    /// A differential backup.
    Differential(Differential),
}

impl BackupName {
    /// Reads a file name as a directory gives it. The result is `None` where the file is no backup: a log, notes, an
    /// unfinished file, or a name that vzdump does not give.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        if let Some(full) = Full::parse(text) {
            return Some(BackupName::Full(full));
        }
        Differential::parse(text).map(BackupName::Differential)
    }

    /// The file name.
    pub fn as_str(&self) -> &str {
        match self {
            BackupName::Full(name) => name.as_str(),
            BackupName::Differential(name) => name.as_str(),
        }
    }

    /// The full backup itself, or the one that a differential needs. The guest and the format of both are the same.
    pub fn full(&self) -> &Full {
        match self {
            BackupName::Full(name) => name,
            BackupName::Differential(name) => name.base(),
        }
    }

    /// The time when this backup began.
    pub fn stamp(&self) -> Stamp {
        match self {
            BackupName::Full(name) => name.stamp(),
            BackupName::Differential(name) => name.stamp(),
        }
    }

    /// The compression of this file.
    pub fn compression(&self) -> Compression {
        match self {
            BackupName::Full(name) => name.compression(),
            BackupName::Differential(name) => name.compression(),
        }
    }

    /// The name of vzdump's log of this backup.
    pub fn log_name(&self) -> String {
        match self {
            BackupName::Full(name) => name.log_name(),
            BackupName::Differential(name) => name.log_name(),
        }
    }

    /// The name of the file with this backup's notes.
    pub fn notes_name(&self) -> String {
        format!("{}.notes", self.as_str())
    }

    /// The name of the file whose existence protects this backup from being removed.
    pub fn protected_name(&self) -> String {
        format!("{}.protected", self.as_str())
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Lists the names under which the content of a full may lie beside its differentials: its own, then the same with each
/// other compression, since a full may be compressed anew. For any other name, the list holds only that name.
pub fn full_forms(name: &str) -> Vec<String> {
    let packed = name.strip_suffix(".tgz").map(|stem| format!("{stem}.tar"));
    let packed = packed.as_deref().unwrap_or(name);
    let content = FORMS.iter().rev().find_map(|form| packed.strip_suffix(form)).unwrap_or(packed);
    let tar = content.strip_suffix(".tar");
    let mut names = vec![name.to_owned()];
    if content.starts_with("vzdump-")
        && (tar.is_some() || content.ends_with(".vma"))
        && !content.contains(DIFFERENTIAL)
    {
        let others = FORMS.iter().map(|form| format!("{content}{form}"));
        names.extend(others.chain(tar.map(|stem| format!("{stem}.tgz"))).filter(|other| other != name));
    }
    names
}

/// Tells whether a name looks like that of a differential, even if it is misspelt. A misspelt one cannot be checked or
/// restored by its name, so whoever looks after the directory should be told.
pub fn looks_like_differential(name: &[u8]) -> bool {
    let text = String::from_utf8_lossy(name);
    let stem = [".zst", ".lzo", ".gz"].iter().find_map(|e| text.strip_suffix(e)).unwrap_or(&text);
    stem.ends_with(VCDIFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const FULL: &str = "vzdump-qemu-101-2013_12_01-00_00_01.vma.lzo";
    const DIFF: &str =
        "vzdump-qemu-101-2013_12_01-00_00_01.vma.lzo--differential-2013_12_02-00_00_01.vcdiff.lzo";

    #[test]
    fn names_of_the_original_are_read() {
        let Some(BackupName::Differential(name)) = BackupName::parse(DIFF.as_bytes()) else { panic!() };
        assert_eq!(name.base().as_str(), FULL);
        assert_eq!((name.base().kind(), name.base().vmid()), (GuestKind::Qemu, 101));
        assert_eq!((name.base().format(), name.base().compression()), (Format::Vma, Compression::Lzo));
        assert_eq!(name.stamp().to_string(), "2013_12_02-00_00_01");
        let stem = DIFF.strip_suffix(".vcdiff.lzo").unwrap();
        assert_eq!(name.log_name(), format!("{stem}.log"));
        let name = BackupName::parse(FULL.as_bytes()).unwrap();
        assert_eq!(name.log_name(), "vzdump-qemu-101-2013_12_01-00_00_01.log");
        assert_eq!(name.protected_name(), format!("{FULL}.protected"));
    }

    #[test]
    fn the_vectors_shared_with_the_perl_side() {
        let file: Value = serde_json::from_str(include_str!("../../tests/data/names.json")).unwrap();
        let vectors = file["names"].as_array().unwrap();
        assert!(vectors.len() > 80);
        for vector in vectors {
            // each character stands for one byte
            let bytes: Vec<u8> = vector["name"].as_str().unwrap().chars().map(|c| c as u8).collect();
            let found = BackupName::parse(&bytes).map_or(Value::Null, |name| {
                let base = match &name {
                    BackupName::Full(_) => None,
                    BackupName::Differential(differential) => Some(differential.base()),
                };
                json!({
                    "type": name.full().kind().to_string(),
                    "vmid": name.full().vmid(),
                    "time": iso(name.stamp()),
                    "format": name.full().format().to_string(),
                    "compression": match name.compression() {
                        Compression::None => None,
                        Compression::Gzip => Some("gz"),
                        Compression::Lzo => Some("lzo"),
                        Compression::Xz => Some("xz"),
                        Compression::Zstd => Some("zst"),
                    },
                    "base": base.map(Full::as_str),
                    "base_time": base.map(|b| iso(b.stamp())),
                })
            });
            assert_eq!(found, vector["expect"], "{}: {}", vector["why"], vector["name"]);
        }
    }

    #[test]
    fn a_full_may_be_compressed_anew() {
        let file: Value = serde_json::from_str(include_str!("../../tests/data/names.json")).unwrap();
        for vector in file["forms"].as_array().unwrap() {
            let name = vector["name"].as_str().unwrap();
            assert_eq!(json!(full_forms(name)), vector["expect"], "{}", vector["why"]);
        }
        let all: Vec<_> = full_forms(FULL).iter().map(|form| Full::parse_packed(form).unwrap()).collect();
        assert!(all.iter().all(|form| form.is_content_of(&all[0])));
        assert_eq!(all.last().unwrap().compression(), Compression::Xz);
        assert_eq!(Full::parse_packed(&format!("{FULL}.xz")), None);
    }

    /// Writes a time as `2013-12-01T00:00:01`.
    fn iso(stamp: Stamp) -> String {
        let text = stamp.to_string();
        format!("{}T{}", text[..10].replace('_', "-"), text[11..].replace('_', ":"))
    }

    #[test]
    fn no_differential_of_a_differential() {
        let nested = format!("{DIFF}--differential-2013_12_03-00_00_01.vcdiff.lzo");
        assert_eq!(BackupName::parse(nested.as_bytes()), None);
        assert!(looks_like_differential(nested.as_bytes()));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic() {
        for cut in 0..DIFF.len() {
            let name = BackupName::parse(&DIFF.as_bytes()[..cut]);
            assert!(
                name.is_none() || cut == FULL.len() || cut == FULL.len() - 4 || cut == DIFF.len() - 4,
                "{cut}"
            );
        }
        for name in
            ["vzdump-qemu-101-é".as_bytes(), b"vzdump-qemu-101-2013_12_01-00_00_0\xff.vma", b"\0", b""]
        {
            assert_eq!(BackupName::parse(name), None);
        }
        // a character across the place where the time must end
        assert_eq!(BackupName::parse("vzdump-qemu-101-2013_12_01-00_00_0é.vma".as_bytes()), None);
    }
}
