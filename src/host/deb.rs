//! Opens package files that are not installed: dpkg-deb(1) unpacks them into a temporary folder.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::dpkg::Origin;
use super::program::{Program, ProgramError};
use super::root::{Root, RootError};
use super::scratch::Scratch;
use super::version::{Version, VersionError};

/// Largest list of checksums read.
const MAX_LIST: u64 = 64 << 20;

/// An unpacked package file.
#[derive(Debug)]
pub struct Deb {
    /// The package.
    pub package: String,
    /// Its version.
    pub version: Version,
    /// Its architecture.
    pub architecture: String,
    file: PathBuf,
    root: Root,
    sums: String,
    _dir: Scratch,
}

/// A package file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// dpkg-deb does not start.
    #[error("{0}; it unpacks package files, and every Debian has it")]
    NoDpkg(ProgramError),
    /// dpkg-deb refuses the file.
    #[error("{}: no package file that dpkg-deb can unpack: {said}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// What it said.
        said: String,
    },
    /// The package does not tell its name or version.
    #[error("{}: its control file is incomplete", file.display())]
    Control {
        /// The file.
        file: PathBuf,
    },
    /// Its version is no Debian version.
    #[error("{}: {cause}", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: VersionError,
    },
    /// It contradicts itself.
    #[error(
        "{}: what it has as /{path} is not what its own checksums (md5sums) say: it is damaged, or somebody changed it after it \
         was built. Whatever is said of it may be wrong: get it anew", file.display()
    )]
    Sums {
        /// The file.
        file: PathBuf,
        /// The file in it, relative to the root of a host.
        path: String,
    },
    /// Something cannot be written or read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A path in the package cannot be followed.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl Deb {
    /// Unpacks `file`.
    ///
    /// # Errors
    /// [`DebError`]
    pub fn unpack(file: &Path) -> Result<Self, DebError> {
        let file =
            std::path::absolute(file).map_err(|cause| DebError::Io { path: file.to_owned(), cause })?;
        let dir = Scratch::new().map_err(|cause| DebError::Io { path: std::env::temp_dir(), cause })?;
        let about = dpkg_deb(&file, dir.path(), &["--field".as_ref(), file.as_os_str()])?;
        let field = |name: &str| {
            about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        let (Some(package), Some(version)) = (field("Package"), field("Version")) else {
            return Err(DebError::Control { file });
        };
        let version =
            Version::parse(version).map_err(|cause| DebError::Version { file: file.clone(), cause })?;
        let unpacked = dir.path().join("package");
        dpkg_deb(&file, dir.path(), &["--raw-extract".as_ref(), file.as_os_str(), unpacked.as_os_str()])?;
        tame(&unpacked)?;
        let root = Root::open(&unpacked)?;
        let sums = root.read("DEBIAN/md5sums", MAX_LIST)?.unwrap_or_default();
        Ok(Self {
            file: file.clone(),
            package: package.to_owned(),
            version,
            architecture: field("Architecture").unwrap_or_default().to_owned(),
            root,
            sums: String::from_utf8_lossy(&sums).into_owned(),
            _dir: dir,
        })
    }

    /// What the package has as `path` (relative to the root of a host); `None` where it has no such file.
    ///
    /// # Errors
    /// [`DebError`]; beyond `max` bytes too.
    pub fn read(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, DebError> {
        Ok(self.root.read(path, max)?)
    }

    /// What dpkg will say of `content`, which [`Deb::read`] gave for `path`.
    ///
    /// # Errors
    /// [`DebError::Sums`]: once installed, it would pass for somebody's edit.
    pub fn origin(&self, path: &str, content: &[u8]) -> Result<Origin, DebError> {
        match Origin::of(&self.sums, path, content) {
            Origin::Modified => Err(DebError::Sums { file: self.file.clone(), path: path.to_owned() }),
            origin => Ok(origin),
        }
    }

    /// Its files, as the root of a host.
    pub fn root(&self) -> &Root {
        &self.root
    }
}

/// Takes from an unpacked package what only an installed one needs: set-id bits and everybody's rights, devices and
/// pipes. The folder is private already; this is for the case that it lies on a file system where others get in.
fn tame(dir: &Path) -> Result<(), DebError> {
    for entry in walkdir::WalkDir::new(dir) {
        let io = |path: &Path, cause| DebError::Io { path: path.to_owned(), cause };
        let entry = entry.map_err(|error| io(dir, error.into()))?;
        let (path, kind) = (entry.path(), entry.file_type());
        let done = match () {
            () if kind.is_symlink() => Ok(()),
            () if kind.is_dir() => fs::set_permissions(path, fs::Permissions::from_mode(0o700)),
            () if kind.is_file() => fs::set_permissions(path, fs::Permissions::from_mode(0o600)),
            () => fs::remove_file(path),
        };
        done.map_err(|cause| io(path, cause))?;
    }
    Ok(())
}

/// Runs dpkg-deb; gives what it printed. What it unpacks for itself, with the modes that the package asks for, goes into
/// `private` as well, where nobody else gets in.
fn dpkg_deb(file: &Path, private: &Path, arguments: &[&std::ffi::OsStr]) -> Result<String, DebError> {
    let refused = |said: String| DebError::Refused { file: file.to_owned(), said };
    let ran = match Program::new("dpkg-deb", arguments).env("TMPDIR", private).run() {
        Ok(ran) => ran,
        Err(error @ ProgramError::Start { .. }) => return Err(DebError::NoDpkg(error)),
        Err(error) => return Err(refused(error.to_string())),
    };
    match (ran.succeeded(), ran.whole) {
        (true, true) => Ok(ran.out()),
        (true, false) => Err(refused("it has more to say of it than is read".to_owned())),
        (false, _) => Err(refused(ran.err().trim().replace('\n', "; "))),
    }
}
