//! Looks up paths so that they stay inside one root folder.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// The number of symbolic links that Linux follows in one look-up (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// The folder that holds a host's files: `/`, or a mounted disk, a chroot, a tree under test.
#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
}

/// Why a path below the root cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The root folder itself cannot be used.
    #[error("{}: {cause}: --root must name an existing folder", path.display())]
    Root {
        /// What was given.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// More links than the kernel would follow: most likely a loop.
    #[error("{}: too many symbolic links", path.display())]
    Loop {
        /// What was looked up.
        path: PathBuf,
    },
    /// A part of the path cannot be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The part in question.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl Root {
    /// Opens `dir`, which must be an existing folder.
    ///
    /// # Errors
    /// [`RootError::Root`] where it is not.
    pub fn open(dir: &Path) -> Result<Self, RootError> {
        let fail = |cause| RootError::Root { path: dir.to_owned(), cause };
        let dir = std::fs::canonicalize(dir).map_err(fail)?;
        if !dir.is_dir() {
            return Err(fail(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        Ok(Self { dir })
    }

    /// The folder itself, absolute and without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True for the running host's own `/`.
    pub fn is_running_host(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// Tells where `path` (relative to the root, or absolute as seen from inside it) really lies.
    ///
    /// All symbolic links are followed as a process chrooted into the root would: an absolute target starts
    /// at the root again and `..` does not leave it. Parts that do not exist are taken as they are, so a
    /// file yet to be created can be located.
    ///
    /// # Errors
    /// [`RootError::Loop`], or [`RootError::Io`] where a part is unreadable or not a folder.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<PathBuf, RootError> {
        let path = path.as_ref();
        let mut todo: Vec<OsString> = reversed_parts(path);
        let mut real: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            let here = self.join(&real).join(&part);
            match std::fs::symlink_metadata(&here) {
                Ok(meta) if meta.file_type().is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(RootError::Loop { path: self.dir.join(relative(path)) });
                    }
                    let target =
                        std::fs::read_link(&here).map_err(|cause| RootError::Io { path: here, cause })?;
                    if target.is_absolute() {
                        real.clear();
                    }
                    todo.extend(reversed_parts(&target));
                }
                Ok(_) => real.push(part),
                Err(error) if error.kind() == io::ErrorKind::NotFound => real.push(part),
                Err(cause) => return Err(RootError::Io { path: here, cause }),
            }
        }
        Ok(self.join(&real))
    }

    /// Reads the regular file `path`, which is looked up as [`Root::resolve`] does; `None` where it does not exist.
    ///
    /// # Errors
    /// [`RootError`]; a file of more than `max` bytes is one too, as in [`read_bounded`].
    pub fn read(&self, path: impl AsRef<Path>, max: u64) -> Result<Option<Vec<u8>>, RootError> {
        let path = self.resolve(path)?;
        match read_bounded(&path, max) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(RootError::Io { path, cause }),
        }
    }

    /// `path` (as [`Root::resolve`] gave it) as seen from inside the root, without a leading slash.
    pub fn inside<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.dir).unwrap_or_else(|_| relative(path))
    }

    fn join(&self, parts: &[OsString]) -> PathBuf {
        let mut path = self.dir.clone();
        path.extend(parts);
        path
    }
}

/// Reads the regular file `path` of at most `max` bytes.
///
/// # Errors
/// What the system says; `FileTooLarge` beyond `max`, `InvalidInput` for anything but a regular file (a FIFO
/// would block for ever).
pub fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

/// Whether a path that a file of ours names is relative and leads to a place below the root.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// `path` without a leading slash.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The parts of `path` to be walked, last one first; `.` and the leading slash dropped.
fn reversed_parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn usr_merged_and_absolute_links_stay_inside() {
        let (_dir, root) = tree();
        symlink("usr/lib", root.dir().join("lib")).unwrap();
        symlink("/usr/lib", root.dir().join("abs")).unwrap();
        symlink("../../../../../../../etc", root.dir().join("usr/up")).unwrap();
        let lib = root.dir().join("usr/lib/x");
        assert_eq!(root.resolve("lib/x").unwrap(), lib);
        assert_eq!(root.resolve("/abs/x").unwrap(), lib);
        assert_eq!(root.resolve("usr/up/passwd").unwrap(), root.dir().join("etc/passwd"));
        assert_eq!(root.inside(&lib), Path::new("usr/lib/x"));
    }

    #[test]
    fn a_link_that_is_the_file_itself_is_followed() {
        let (_dir, root) = tree();
        symlink("/usr/lib/real", root.dir().join("usr/name")).unwrap();
        assert_eq!(root.resolve("usr/name").unwrap(), root.dir().join("usr/lib/real"));
    }

    #[test]
    fn only_paths_below_the_root_are_inside() {
        assert!(is_inside("usr/lib/x") && is_inside("x"));
        for path in ["", "/usr", "../x", "usr/../x", ".", "./usr"] {
            assert!(!is_inside(path), "{path}");
        }
    }

    #[test]
    fn a_missing_file_is_none_and_other_failures_are_errors() {
        let (_dir, root) = tree();
        std::fs::write(root.dir().join("usr/file"), "four").unwrap();
        assert_eq!(root.read("usr/file", 4).unwrap().as_deref(), Some(&b"four"[..]));
        assert_eq!(root.read("usr/nothing", 4).unwrap(), None);
        for path in ["usr/lib", "usr/file/x"] {
            assert!(matches!(root.read(path, 4), Err(RootError::Io { .. })), "{path}");
        }
        assert!(matches!(root.read("usr/file", 3), Err(RootError::Io { .. })));
    }

    #[test]
    fn a_loop_ends() {
        let (_dir, root) = tree();
        symlink("b", root.dir().join("a")).unwrap();
        symlink("a", root.dir().join("b")).unwrap();
        assert!(matches!(root.resolve("a/c"), Err(RootError::Loop { .. })));
    }

    #[test]
    fn a_file_used_as_a_folder_is_an_error() {
        let (_dir, root) = tree();
        std::fs::write(root.dir().join("usr/file"), "").unwrap();
        assert!(matches!(root.resolve("usr/file/x"), Err(RootError::Io { .. })));
    }
}
