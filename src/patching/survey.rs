//! Reads what a host holds: its packages, and every file that patch sets name.

use std::collections::{BTreeMap, BTreeSet};

use super::patchset::{PatchSet, is_ours};
use super::record::Record;
use super::text::{Stripped, strip};
use crate::host::dpkg::{Diversion, Package};
use crate::host::{Dpkg, DpkgError, Origin, PACKAGES, Root};

/// The largest file that is read. The largest that is patched, a bundle of scripts, has some 3 MiB.
pub(super) const MAX_FILE: u64 = 64 << 20;

/// A host as plans see it.
#[derive(Debug)]
pub struct Survey {
    /// The installed packages among those that sets deal with, by name.
    pub packages: BTreeMap<String, Package>,
    /// The files, by path relative to the root.
    pub files: BTreeMap<String, FileView>,
}

/// One file.
#[derive(Debug, Default)]
pub struct FileView {
    /// What it holds; `None` where it does not exist.
    pub content: Option<Vec<u8>>,
    /// The content without our lines.
    pub stripped: Option<Stripped>,
    /// The package that ships it; `None` for payload and for files that only our record knows.
    pub package: Option<String>,
    /// Whether it is a file of ours rather than one we insert lines into.
    pub payload: bool,
    /// Whether it is, without our lines, as its package shipped it.
    pub origin: Option<Origin>,
    /// Whether its package lists it; false where a release ships it in another package, or not at all.
    pub listed: bool,
    /// The diversion by which another file has taken its name.
    pub diverted: Option<Diversion>,
}

impl Survey {
    /// Reads what the sets and our own record (which may be of an older set) speak of below `root`, whose packages are in
    /// `dpkg`.
    ///
    /// # Errors
    /// [`DpkgError`]; a missing file or package is none.
    pub fn read(
        root: &Root,
        dpkg: &Dpkg,
        sets: &[PatchSet],
        record: Option<&Record>,
    ) -> Result<Self, DpkgError> {
        let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
        for file in record.iter().flat_map(|record| &record.files) {
            kinds.insert(&file.path, if file.before.is_none() { Kind::Payload } else { Kind::Recorded });
        }
        for set in sets {
            kinds.extend(set.payload.iter().map(|file| (file.target.as_str(), Kind::Payload)));
            let generations = set.packages.values().flat_map(|package| &package.generations);
            let facts = generations.flat_map(|generation| &generation.facts).chain(&set.facts);
            kinds.extend(facts.map(|fact| (fact.file.as_str(), Kind::Shipped(&fact.package))));
            kinds.extend(set.hunks.iter().map(|hunk| (hunk.file.as_str(), Kind::Shipped(&hunk.package))));
        }
        let mut files = BTreeMap::new();
        for (path, kind) in kinds {
            files.insert(path.to_owned(), view(root, dpkg, path, kind)?);
        }
        let wanted = packages(sets);
        let concerned = dpkg.packages().filter(|package| wanted.contains(package.name.as_str()));
        let packages = concerned.map(|package| (package.name.clone(), package.clone())).collect();
        Ok(Self { packages, files })
    }

    /// Whether any line or file of ours is there.
    pub fn holds_ours(&self) -> bool {
        self.files.values().any(|file| match (&file.content, &file.stripped) {
            (Some(content), _) if file.payload => is_ours(content),
            (_, Some(stripped)) => !stripped.markers.is_empty(),
            _ => false,
        })
    }
}

/// The packages that patch sets deal with.
pub fn packages(sets: &[PatchSet]) -> BTreeSet<&str> {
    let named = sets.iter().flat_map(|set| set.packages.keys().map(String::as_str));
    PACKAGES.into_iter().chain(named).collect()
}

/// What a file is to us.
#[derive(Clone, Copy)]
enum Kind<'a> {
    /// It is a file of ours.
    Payload,
    /// A package ships it, and lines of ours may go into it.
    Shipped(&'a str),
    /// An older version put lines into it.
    Recorded,
}

fn view(root: &Root, dpkg: &Dpkg, path: &str, kind: Kind) -> Result<FileView, DpkgError> {
    let package = match kind {
        Kind::Shipped(package) => Some(package),
        Kind::Payload | Kind::Recorded => None,
    };
    let content = root.read(path, MAX_FILE)?;
    let stripped = content.as_deref().map(strip);
    let origin = match (package, &stripped) {
        (Some(package), Some(stripped)) => Some(dpkg.origin(package, path, &stripped.rest)?),
        _ => None,
    };
    let diverted = package.and_then(|package| dpkg.diversion(package, path)).cloned();
    let listed = package.map_or(Ok(false), |package| dpkg.owns(package, path))?;
    let payload = matches!(kind, Kind::Payload);
    Ok(FileView { content, stripped, package: package.map(str::to_owned), payload, origin, listed, diverted })
}
