//! Tells what is mounted where on the running host, as proc(5) describes mountinfo.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::root::read_bounded;

/// The table of mounts of this process.
const TABLE: &str = "/proc/self/mountinfo";

/// Largest table read: a host with thousands of mounts has less.
const MAX: u64 = 16 << 20;

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// The kind of file system: `ext4`, `nfs4`, `cifs` and so on.
    pub kind: String,
    /// The options of the mount and of the file system.
    pub options: Vec<String>,
}

impl Mount {
    /// Tells whether an option is set: `soft`, or `vers=1.0`.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|it| it == option)
    }
}

/// What is mounted. It is `None` where the table cannot be read.
#[derive(Debug, Clone)]
pub struct Mounts(Option<Vec<Mount>>);

impl Mounts {
    /// Reads the table.
    pub fn read() -> Mounts {
        Mounts(read_bounded(Path::new(TABLE), MAX).ok().map(|table| parse(&table)))
    }

    /// Tells whether something is mounted at this very path. Where that cannot be told, the answer is yes.
    pub fn has_point(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        self.0.as_ref().is_none_or(|mounts| mounts.iter().any(|it| it.point == path))
    }

    /// Finds the mount on which a path lies, whose links are resolved already.
    pub fn of(&self, path: &Path) -> Option<&Mount> {
        let mounts = self.0.as_ref()?.iter().filter(|it| path.starts_with(&it.point));
        // Of several mounts at one point the last one counts.
        mounts.max_by_key(|it| it.point.as_os_str().len())
    }
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&b| b == b'\n').filter_map(line).collect()
}

/// Reads a line: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn line(line: &[u8]) -> Option<Mount> {
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let end = words.iter().position(|word| *word == b"-")?;
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let lists = [words.get(5)?, words.get(end + 3)?];
    let options = lists.iter().flat_map(|list| list.split(|&b| b == b',')).map(text).collect();
    let point = PathBuf::from(OsStr::from_bytes(&unescaped(words.get(4)?)));
    Some(Mount { point, kind: text(words.get(end + 1)?), options })
}

/// A name of that table, in which white space and backslashes stand as `\040`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let octal =
            tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
impl Mounts {
    /// The mounts of a table.
    pub fn of_table(table: &str) -> Mounts {
        Mounts(Some(parse(table.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_innermost_mount() {
        let mounts = Mounts::of_table(
            "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
             35 22 0:42 / /mnt/pve/my\\040nas rw,noatime shared:7 master:1 - nfs4 s:/e rw,vers=4.2,soft,timeo=600\n\
             36 22 0:43 / /mnt/pve rw - tmpfs none rw\nnonsense\n\n",
        );
        let nas = mounts.of(Path::new("/mnt/pve/my nas/dump")).unwrap();
        assert_eq!((nas.kind.as_str(), nas.point.to_str().unwrap()), ("nfs4", "/mnt/pve/my nas"));
        assert!(nas.has("soft") && nas.has("noatime") && !nas.has("timeo"));
        assert_eq!(mounts.of(Path::new("/mnt/pve/my nasty")).unwrap().kind, "tmpfs");
        assert_eq!(mounts.of(Path::new("/srv")).unwrap().kind, "ext4");
        assert!(mounts.has_point(Path::new("/")) && !mounts.has_point(Path::new("/usr")));
        assert!(!Mounts::of_table("").has_point(Path::new("/")));
        let real = Mounts::read();
        assert!(real.has_point(Path::new("/proc")) && !real.has_point(Path::new("/nowhere")));
        assert_eq!(real.of(Path::new("/proc/1")).unwrap().kind, "proc");
    }
}
