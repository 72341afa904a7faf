//! Opening files of storages that others can write to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// How the path of a backup was found. It decides what may lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A person gave the path. Links are followed, and a block device is allowed.
    ByPerson,
    /// The path is the name of a backup on a storage. Whoever can write there could put a link to any file of this host in
    /// its place, or a pipe that never ends. So it must be a regular file itself.
    ByName,
}

/// Why [`open`] does not open a file.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is a symbolic link, and links are not followed here.
    #[error("is a symbolic link, which is not followed on a storage: put the file itself there")]
    Link,
    /// It is a directory, a pipe, a device or the like.
    #[error("is no regular file")]
    NoFile,
}

/// Opens a backup for reading. It never waits, whatever lies at `path`.
///
/// # Errors
/// See [`Refused`].
pub fn open(path: &Path, found: Found) -> Result<File, Refused> {
    // NONBLOCK keeps a pipe without a writer from making us wait, and changes nothing for files and disks.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if found == Found::ByName {
        flags |= OFlags::NOFOLLOW;
    }
    let file = open_with(path, flags)?;
    // The opened file is asked what it is: between two looks at a path, somebody could change what it leads to.
    let kind = file.metadata()?.file_type();
    match found {
        _ if kind.is_file() => Ok(file),
        Found::ByPerson if kind.is_block_device() => Ok(file),
        _ => Err(Refused::NoFile),
    }
}

/// A file that [`open_any`] opened.
#[derive(Debug)]
pub enum Any {
    /// A regular file or a block device, which can be read more than once.
    File(File),
    /// A FIFO or a character device, which can be read only once, from its start.
    Once(File),
}

/// Opens whatever can be read and was named by a person. It waits for the writer of a FIFO.
///
/// # Errors
/// See [`Refused`].
pub fn open_any(path: &Path) -> Result<Any, Refused> {
    let file = open_with(path, OFlags::NOCTTY)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_block_device() {
        Ok(Any::File(file))
    } else if kind.is_fifo() || kind.is_char_device() {
        Ok(Any::Once(file))
    } else {
        Err(Refused::NoFile)
    }
}

fn open_with(path: &Path, flags: OFlags) -> Result<File, Refused> {
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) if flags.contains(OFlags::NOFOLLOW) => Refused::Link,
        // The path leads to a socket, or to a device without a driver.
        Some(libc::ENXIO) => Refused::NoFile,
        _ => Refused::Io(error),
    })
}

/// A pass over an open file, from some position to its end. It does not move the file's own position, so several passes
/// can read the same file. None of them opens the path again, where another file may lie by then.
#[derive(Debug)]
pub struct Pass {
    file: File,
    at: u64,
}

impl Pass {
    /// Begins at the start of the file.
    ///
    /// # Errors
    /// Fails where the file descriptor cannot be duplicated.
    pub fn from_start(file: &File) -> io::Result<Pass> {
        Ok(Pass { file: file.try_clone()?, at: 0 })
    }

    /// Begins at the file's own position; `None` for what cannot be read twice, such as a pipe.
    pub fn from_here(file: &File) -> Option<Pass> {
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return None;
        }
        let at = (&mut &*file).stream_position().ok()?;
        Some(Pass { file: file.try_clone().ok()?, at })
    }

    /// Length of the file in bytes; 0 where it is not known.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Makes another pass from the position where this one is.
    ///
    /// # Errors
    /// Fails where the file descriptor cannot be duplicated.
    pub fn again(&self) -> io::Result<Pass> {
        Ok(Pass { file: self.file.try_clone()?, at: self.at })
    }
}

impl Read for Pass {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_regular_file_has_the_name_of_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "content").unwrap();
        symlink("file", at("beside")).unwrap();
        symlink("/etc/hostname", at("away")).unwrap();
        symlink("/nowhere", at("dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        let what = |name: &str, found| match open(&at(name), found) {
            Ok(_) => "opened",
            Err(Refused::Link) => "link",
            Err(Refused::NoFile) => "no file",
            Err(Refused::Io(_)) => "error",
        };
        for (name, by_name, by_person) in [
            ("file", "opened", "opened"),
            ("beside", "link", "opened"),
            ("away", "link", "opened"),
            ("dangling", "link", "error"),
            ("pipe", "no file", "no file"),
            ("socket", "no file", "no file"),
            (".", "no file", "no file"),
            ("/dev/null", "no file", "no file"),
            ("missing", "error", "error"),
        ] {
            assert_eq!(what(name, Found::ByName), by_name, "{name}");
            assert_eq!(what(name, Found::ByPerson), by_person, "{name}");
        }
    }

    #[test]
    fn a_source_may_be_read_once_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "content").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let open = |name: &str| open_any(&dir.path().join(name));
        assert!(matches!((open("file"), open("link")), (Ok(Any::File(_)), Ok(Any::File(_)))));
        assert!(matches!(open("/dev/null"), Ok(Any::Once(_))));
        assert!(matches!((open("."), open("socket")), (Err(Refused::NoFile), Err(Refused::NoFile))));
        assert!(matches!(open("missing"), Err(Refused::Io(_))));
    }

    #[test]
    fn passes_read_the_same_file_on_their_own() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        file.seek(io::SeekFrom::Start(4)).unwrap();
        let all = |mut pass: Pass| {
            let mut text = String::new();
            pass.read_to_string(&mut text).map(|_| text).unwrap()
        };
        let here = Pass::from_here(&file).unwrap();
        assert_eq!(all(Pass::from_start(&file).unwrap()), "0123456789");
        assert_eq!(all(here.again().unwrap()), "456789");
        assert_eq!(all(here), "456789");
        assert_eq!(file.stream_position().unwrap(), 4);
    }
}
