//! Lays out one host after the other: a tree of the files that Proxmox' packages ship, which is brought up to date release
//! by release.
//!
//! It holds what matters for patching and for loading Perl modules: the modules, the web page's template, and dpkg's
//! database. Files are written only where they change, so a history of a thousand releases takes a minute.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use super::git::Clone;
use super::releases::Release;
use super::repositories::{REPOSITORIES, Repository};
use crate::host::Scratch;
use crate::host::dpkg::md5_hex;

/// A tree in a temporary folder.
pub struct History {
    dir: Scratch,
    /// What is installed, by package.
    installed: BTreeMap<&'static str, Installed>,
}

struct Installed {
    version: String,
    /// The blob and the md5 of each file, by its path on the host.
    files: BTreeMap<String, (String, String)>,
}

impl History {
    /// A host on which nothing is installed.
    ///
    /// # Errors
    /// Where the temporary folder cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { dir: Scratch::new()?, installed: BTreeMap::new() })
    }

    /// The root of the tree.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The version of `package`, where it is installed.
    pub fn version(&self, package: &str) -> Option<&str> {
        self.installed.get(package).map(|installed| installed.version.as_str())
    }

    /// Installs a release in place of the package's present one.
    ///
    /// # Errors
    /// Where the clone cannot be read, or the tree cannot be written.
    pub fn install(
        &mut self,
        clone: &mut Clone,
        repository: &Repository,
        release: &Release,
    ) -> anyhow::Result<()> {
        let mut old = self.installed.remove(repository.package).map(|old| old.files).unwrap_or_default();
        let mut files = BTreeMap::new();
        for (path, blob) in clone.files(&release.commit)? {
            let Some(target) = repository.target(&path) else { continue };
            let known = old.remove(&target).filter(|(known, _)| *known == blob);
            let md5 = match known {
                Some((_, md5)) => md5,
                None => {
                    let content =
                        clone.read(&blob)?.with_context(|| format!("blob {blob} ({path}) is missing"))?;
                    self.write(&target, &content)?;
                    md5_hex(&content)
                }
            };
            files.insert(target, (blob, md5));
        }
        for path in old.keys() {
            // A file may have moved to another package that is installed already.
            if !self.installed.values().any(|other| other.files.contains_key(path)) {
                fs_err::remove_file(self.root().join(path))?;
            }
        }
        let list: String = files.keys().map(|path| format!("/{path}\n")).collect();
        let sums: String = files.iter().map(|(path, (_, md5))| format!("{md5}  {path}\n")).collect();
        self.write(&format!("var/lib/dpkg/info/{}.list", repository.package), list.as_bytes())?;
        self.write(&format!("var/lib/dpkg/info/{}.md5sums", repository.package), sums.as_bytes())?;
        self.installed.insert(repository.package, Installed { version: release.version.to_string(), files });
        let status: String = self
            .installed
            .iter()
            .map(|(name, installed)| {
                let version = &installed.version;
                format!(
                    "Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n\n"
                )
            })
            .collect();
        self.write("var/lib/dpkg/status", status.as_bytes())
    }

    fn write(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.root().join(path);
        if let Some(dir) = path.parent() {
            fs_err::create_dir_all(dir)?;
        }
        Ok(fs_err::write(path, content)?)
    }
}

/// The clones of [`REPOSITORIES`] that are there, with their releases.
pub struct Clones(Vec<(&'static Repository, Clone, Vec<Release>)>);

impl Clones {
    /// Opens what lies below `dir`.
    ///
    /// # Errors
    /// Where a clone cannot be read, or there is none of pve-manager.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let mut clones = Vec::new();
        for repository in &REPOSITORIES {
            if let Some(mut clone) = Clone::find(dir, repository.name)? {
                let releases = super::releases::of(&mut clone, repository)?;
                clones.push((repository, clone, releases));
            }
        }
        let missing = REPOSITORIES[..5]
            .iter()
            .find(|repository| !clones.iter().any(|(found, ..)| found.name == repository.name));
        match missing {
            None => Ok(Self(clones)),
            Some(repository) => anyhow::bail!(
                "{}: no clone of {} there (NAME/.git, NAME.git or NAME)",
                dir.display(),
                repository.name
            ),
        }
    }

    /// All releases of all repositories in `series`, oldest first, each with its repository's place here.
    pub fn releases(&self, series: u32) -> Vec<(usize, Release)> {
        let mut all: Vec<(usize, Release)> = Vec::new();
        for (index, (_, _, releases)) in self.0.iter().enumerate() {
            let of_series = releases.iter().filter(|release| release.series == series);
            all.extend(of_series.map(|release| (index, release.clone())));
        }
        all.sort_by(|(_, one), (_, other)| (one.time, &one.version).cmp(&(other.time, &other.version)));
        all
    }

    /// The repository at a place, and its clone.
    pub fn get(&mut self, index: usize) -> (&'static Repository, &mut Clone) {
        let (repository, clone, _) = &mut self.0[index];
        (repository, clone)
    }
}
