//! Reads dpkg's database from its files: which packages are installed, and what their files should hold.
//!
//! The files are read directly and not through `dpkg-query`, for two reasons: a mounted disk or a tree needs no dpkg then,
//! and a file trigger, which dpkg runs while it holds its lock, sees what dpkg sees. As dpkg itself does when it starts, the
//! records in `updates/`, which are not merged yet, count more than those in `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::root::{Root, RootError};
use super::version::{Version, VersionError};

/// The largest file that is read. A desktop with everything has some 20 MiB.
const MAX_DATABASE: u64 = 256 << 20;

/// The list of packages, relative to the root.
const STATUS: &str = "var/lib/dpkg/status";
/// Records that are not in it yet.
const UPDATES: &str = "var/lib/dpkg/updates";
const DIVERSIONS: &str = "var/lib/dpkg/diversions";
/// What is known of each package.
const INFO: &str = "var/lib/dpkg/info";

/// The packages of one host.
#[derive(Debug)]
pub struct Dpkg {
    root: Root,
    packages: BTreeMap<String, Package>,
    diversions: Vec<Diversion>,
}

/// An installed package.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The installed version.
    pub version: Version,
    /// Its architecture, which may be part of the names of its lists.
    pub architecture: String,
    /// dpkg's state: `installed`, or one of those that also mean that its files are in place
    /// (`triggers-awaited`, `triggers-pending`, `half-configured`, `unpacked`).
    pub state: String,
}

/// A file moved aside with dpkg-divert(1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diversion {
    /// The name in the package, without leading slash.
    pub from: String,
    /// Where the package's file really lies, without leading slash.
    pub to: String,
    /// The package whose file has taken the name; `None` where the administrator did it (`--local`).
    pub by: Option<String>,
}

/// How a file compares with what its package shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Its md5 is the one dpkg recorded.
    Pristine,
    /// It differs: somebody else edited or replaced it.
    Modified,
    /// dpkg recorded no md5 for it.
    Unknown,
}

/// dpkg's database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DpkgError {
    /// There is none: not a Debian host.
    #[error(
        "{}: not there, so this is no Debian host; give the host's root folder with --root", path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A folder of it cannot be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A package's version is no Debian version.
    #[error("{}: package {package}: {cause}; repair it with dpkg --configure -a or reinstall it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The package.
        package: String,
        /// What is wrong.
        cause: VersionError,
    },
    /// `diversions` does not hold three lines per entry.
    #[error("{}: {lines} lines, which is no multiple of three: the file is damaged", path.display())]
    Diversions {
        /// The file.
        path: PathBuf,
        /// Lines found.
        lines: usize,
    },
    /// A path of it cannot be followed.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl Origin {
    /// Where `content` comes from, by the md5 that `sums` (the text of a package's `md5sums`) has for `file`.
    pub fn of(sums: &str, file: &str, content: &[u8]) -> Self {
        let mut lines = sums.lines().filter_map(|line| line.split_once(char::is_whitespace));
        match lines.find(|(_, name)| name.trim_start().trim_start_matches("./") == file) {
            None => Self::Unknown,
            Some((md5, _)) if md5.eq_ignore_ascii_case(&md5_hex(content)) => Self::Pristine,
            Some(_) => Self::Modified,
        }
    }
}

impl Dpkg {
    /// Reads the database below `root`, keeping only the packages in `wanted`.
    ///
    /// # Errors
    /// [`DpkgError`]; a package that is not installed is no error.
    pub fn open(root: &Root, wanted: &BTreeSet<&str>) -> Result<Self, DpkgError> {
        require(root)?;
        let mut packages = BTreeMap::new();
        let mut files = vec![STATUS.to_owned()];
        files.extend(pending_updates(root)?);
        for path in files {
            if let Some(text) = read(root, &path)? {
                merge(&mut packages, &root.dir().join(&path), &text, wanted)?;
            }
        }
        let packages = packages.into_iter().filter_map(|(name, package)| Some((name, package?))).collect();
        let diversions = parse_diversions(root)?;
        Ok(Self { root: root.clone(), packages, diversions })
    }

    /// The package `name`, where it is installed.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.get(name)
    }

    /// All installed packages among those asked for, by name.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// The diversion by which `file` (relative to the root) is no longer the one that `package` ships.
    pub fn diversion(&self, package: &str, file: &str) -> Option<&Diversion> {
        self.diversions.iter().find(|d| d.from == file && d.by.as_deref() != Some(package))
    }

    /// Whether `content` is what `package` shipped as `file` (relative to the root).
    ///
    /// # Errors
    /// [`DpkgError::Io`] where the package's list of checksums cannot be read.
    pub fn origin(&self, package: &str, file: &str, content: &[u8]) -> Result<Origin, DpkgError> {
        Ok(Origin::of(&self.info(package, "md5sums")?.unwrap_or_default(), file, content))
    }

    /// Whether `package` lists `file` (relative to the root) as its own.
    ///
    /// # Errors
    /// [`DpkgError::Io`] where the package's list of files cannot be read.
    pub fn owns(&self, package: &str, file: &str) -> Result<bool, DpkgError> {
        let list = self.info(package, "list")?.unwrap_or_default();
        Ok(list.lines().any(|line| line.trim_start_matches('/') == file))
    }

    /// The text of `info/PACKAGE.KIND`, or of `info/PACKAGE:ARCH.KIND` for packages that can be installed for
    /// several architectures at once.
    fn info(&self, package: &str, kind: &str) -> Result<Option<String>, DpkgError> {
        let Some(installed) = self.packages.get(package) else { return Ok(None) };
        match read(&self.root, &format!("{INFO}/{package}.{kind}"))? {
            Some(text) => Ok(Some(text)),
            None => read(&self.root, &format!("{INFO}/{package}:{}.{kind}", installed.architecture)),
        }
    }
}

/// The md5 of `content` in lower-case hex, as dpkg writes it.
pub fn md5_hex(content: &[u8]) -> String {
    use md5::Digest;
    crate::text::hex(&md5::Md5::digest(content))
}

/// Whether `root` is the root folder of a host with dpkg. To be asked before anything is made in it: its path may be
/// mistyped.
///
/// # Errors
/// [`DpkgError::Missing`] where it is not; [`DpkgError::Root`] where that cannot be told.
pub fn require(root: &Root) -> Result<(), DpkgError> {
    match root.resolve(STATUS)? {
        path if path.exists() => Ok(()),
        _ => Err(DpkgError::Missing { path: root.dir().join(STATUS) }),
    }
}

/// Reads a file of the database; `None` where it does not exist. Bytes that are not UTF-8 (a maintainer's
/// name in an old package) become replacement characters: no field used here holds any.
fn read(root: &Root, path: &str) -> Result<Option<String>, DpkgError> {
    Ok(root.read(path, MAX_DATABASE)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The records dpkg has not merged into `status` yet: files named by numbers only, in their order.
fn pending_updates(root: &Root) -> Result<Vec<String>, DpkgError> {
    let dir = root.resolve(UPDATES)?;
    let fail = |cause| DpkgError::Io { path: dir.clone(), cause };
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(fail(cause)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(fail)?.file_name();
        names.extend(name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned));
    }
    names.sort();
    Ok(names.into_iter().map(|name| format!("{UPDATES}/{name}")).collect())
}

/// Adds the stanzas of `text` to `packages`; a later one replaces an earlier one of the same package.
/// `None` stands for a package that is known but whose files are not in place.
fn merge(
    packages: &mut BTreeMap<String, Option<Package>>,
    path: &Path,
    text: &str,
    wanted: &BTreeSet<&str>,
) -> Result<(), DpkgError> {
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let Some(name) = field("Package").filter(|name| wanted.contains(*name)) else { continue };
        let state = field("Status").and_then(|s| s.split_whitespace().nth(2)).unwrap_or_default();
        let in_place = ["installed", "triggers-awaited", "triggers-pending", "half-configured", "unpacked"]
            .contains(&state);
        let package = if in_place {
            let version = Version::parse(field("Version").unwrap_or_default()).map_err(|cause| {
                DpkgError::Version { path: path.to_owned(), package: name.to_owned(), cause }
            })?;
            let architecture = field("Architecture").unwrap_or_default().to_owned();
            Some(Package { name: name.to_owned(), version, architecture, state: state.to_owned() })
        } else {
            None
        };
        packages.insert(name.to_owned(), package);
    }
    Ok(())
}

/// Parses `diversions`: three lines each, the name, where it went, and by whom (`:` is the administrator).
fn parse_diversions(root: &Root) -> Result<Vec<Diversion>, DpkgError> {
    let text = read(root, DIVERSIONS)?.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    if !lines.len().is_multiple_of(3) {
        return Err(DpkgError::Diversions { path: root.dir().join(DIVERSIONS), lines: lines.len() });
    }
    let strip = |line: &str| line.trim_start_matches('/').to_owned();
    Ok(lines
        .chunks_exact(3)
        .map(|entry| Diversion {
            from: strip(entry[0]),
            to: strip(entry[1]),
            by: (entry[2] != ":").then(|| entry[2].to_owned()),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with the given files below `var/lib/dpkg`.
    fn database(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Dpkg, DpkgError>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join("var/lib/dpkg").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let opened = Dpkg::open(&Root::open(dir.path()).unwrap(), &BTreeSet::from(["a", "b", "c"]));
        (dir, opened)
    }

    fn stanza(name: &str, status: &str, version: &str) -> String {
        format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\n\n")
    }

    #[test]
    fn only_packages_whose_files_are_in_place_count() {
        let status = stanza("a", "install ok installed", "1")
            + &stanza("b", "deinstall ok config-files", "1")
            + &stanza("c", "install ok triggers-pending", "2-1")
            + &stanza("d", "install ok installed", "1");
        let (_dir, dpkg) = database(&[("status", &status)]);
        let dpkg = dpkg.unwrap();
        assert_eq!(dpkg.packages().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn updates_replace_older_records_in_their_order() {
        let (_dir, dpkg) = database(&[
            (
                "status",
                &(stanza("a", "install ok installed", "1") + &stanza("b", "install ok installed", "1")),
            ),
            ("updates/0001", &stanza("a", "install ok installed", "3")),
            ("updates/0000", &stanza("a", "install ok unpacked", "2")),
            ("updates/0002", &stanza("b", "deinstall ok not-installed", "1")),
            ("updates/tmp.i", &stanza("a", "install ok installed", "9")),
        ]);
        let dpkg = dpkg.unwrap();
        assert_eq!(dpkg.package("a").unwrap().version.as_str(), "3");
        assert!(dpkg.package("b").is_none());
    }

    #[test]
    fn lists_are_found_by_architecture_too() {
        let (_dir, dpkg) = database(&[
            (
                "status",
                &(stanza("a", "install ok installed", "1") + &stanza("b", "install ok installed", "1")),
            ),
            ("info/a:amd64.md5sums", "900150983cd24fb0d6963f7d28e17f72  usr/x y\n"),
            ("info/b.list", "/.\n/usr\n/usr/z\n"),
        ]);
        let dpkg = dpkg.unwrap();
        assert_eq!(dpkg.origin("a", "usr/x y", b"abc").unwrap(), Origin::Pristine);
        assert_eq!(dpkg.origin("a", "usr/x y", b"abd").unwrap(), Origin::Modified);
        assert_eq!(dpkg.origin("b", "usr/x y", b"abc").unwrap(), Origin::Unknown);
        assert!(dpkg.owns("b", "usr/z").unwrap() && !dpkg.owns("b", "usr/y").unwrap());
    }

    #[test]
    fn a_diversion_by_the_package_itself_is_none() {
        let (_dir, dpkg) = database(&[
            ("status", &stanza("a", "install ok installed", "1")),
            ("diversions", "/usr/f\n/usr/f.distrib\n:\n/usr/g\n/usr/g.a\na\n"),
        ]);
        let dpkg = dpkg.unwrap();
        assert_eq!(dpkg.diversion("a", "usr/f").unwrap().to, "usr/f.distrib");
        assert_eq!(dpkg.diversion("a", "usr/g"), None);
        assert_eq!(dpkg.diversion("b", "usr/g").unwrap().by.as_deref(), Some("a"));
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        use std::os::unix::fs::symlink;
        let outside = tempfile::tempdir().unwrap();
        let inside = "900150983cd24fb0d6963f7d28e17f72  usr/x\n";
        std::fs::write(outside.path().join("file"), stanza("b", "install ok installed", "1") + inside)
            .unwrap();
        let (dir, _) = database(&[
            ("real", &stanza("a", "install ok installed", "1")),
            ("info/real", inside),
            ("info/b.list", "/usr/x\n"),
            ("updates/real", ""),
        ]);
        let link = |target: &Path, name: &str| {
            let name = dir.path().join("var/lib/dpkg").join(name);
            let _ = std::fs::remove_file(&name);
            symlink(target, name).unwrap();
        };
        let open = || Dpkg::open(&Root::open(dir.path()).unwrap(), &BTreeSet::from(["a", "b"]));
        let out = outside.path().join("file");
        link(&out, "status");
        assert!(matches!(open(), Err(DpkgError::Missing { .. })));
        // Inside it means what it means to the host itself.
        link(Path::new("/var/lib/dpkg/real"), "status");
        link(Path::new("real"), "info/a.md5sums");
        link(&out, "updates/0001");
        link(&out, "diversions");
        let dpkg = open().unwrap();
        assert_eq!(dpkg.packages().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(dpkg.origin("a", "usr/x", b"abc").unwrap(), Origin::Pristine);
        link(&out, "info/a.md5sums");
        assert_eq!(dpkg.origin("a", "usr/x", b"abc").unwrap(), Origin::Unknown);
    }

    #[test]
    fn damage_is_reported() {
        assert!(matches!(database(&[]).1, Err(DpkgError::Missing { .. })));
        let (_dir, dpkg) = database(&[("status", ""), ("diversions", "/usr/f\n")]);
        assert!(matches!(dpkg, Err(DpkgError::Diversions { lines: 1, .. })));
        let (_dir, dpkg) = database(&[("status", &stanza("a", "install ok installed", ""))]);
        assert!(matches!(dpkg, Err(DpkgError::Version { .. })));
    }
}
