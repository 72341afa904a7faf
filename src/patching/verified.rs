//! Knows which contents of Proxmox' files each patch set was tried with: `patches/verified.yaml`.
//!
//! Versions are not enough for that, because the packages of a host come from different days, and a rebuilt or edited file
//! keeps its version. So what was tried is named by content. `pve-diff-backup new-version` writes the file:
//!
//! ```yaml
//! format: 1
//! sets:
//! - name: example
//!   digest: 0123456789ab          # of the set's facts and hunks: data of other ones count for nothing
//!   files:
//!   - package: pve-manager
//!     file: usr/share/perl5/PVE/VZDump.pm
//!     contents:                   # sha256 of the pristine file: the releases that shipped it
//!       e3b0c442...: 7.1-13 to 7.2-3, 7.2-5
//! ```
//!
//! A range stands for all releases between its ends that were published.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::embedded;
use super::patchset::SetError;
use super::plan::{Plan, PlannedFile};
use super::sha256_hex;
use crate::host::root::read_bounded;
use crate::host::version::Version;

/// The name of the file among the patch sets.
pub const FILE: &str = "verified.yaml";

/// The version of the file's form that this program writes.
const FORMAT: u32 = 1;

/// Largest file read.
const MAX: u64 = 8 << 20;

/// What was tried, by set.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    sets: BTreeMap<String, Tried>,
    /// Sets that have changed since they were tried.
    outdated: Vec<String>,
}

/// What one set was tried with.
#[derive(Debug, Clone, Default)]
struct Tried {
    digest: String,
    /// The releases with each content, by package and file, then by sha256.
    files: BTreeMap<(String, String), BTreeMap<String, Vec<Span>>>,
}

/// Releases that follow one another, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    from: Version,
    to: Version,
}

/// What is known of the files of one package of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The package.
    pub package: String,
    /// Files whose content the set was tried with.
    pub known: Vec<String>,
    /// Files whose content it was never tried with.
    pub unknown: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVerified {
    format: u32,
    sets: Vec<RawSet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSet {
    name: String,
    digest: String,
    files: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    package: String,
    file: String,
    contents: BTreeMap<String, String>,
}

/// A digest of the facts and hunks of a `patchset.yaml`. Comments, ranges and payload do not count, because they decide
/// neither which lines go where nor what is around them.
///
/// # Errors
/// [`SetError::Yaml`]
pub fn digest(set: &str, yaml: &[u8]) -> Result<String, SetError> {
    let fail = |cause| SetError::Yaml { set: set.to_owned(), cause };
    let whole: serde_yaml::Value = serde_yaml::from_slice(yaml).map_err(fail)?;
    let mut text = String::new();
    for key in ["facts", "hunks"] {
        text += &serde_yaml::to_string(&whole.get(key)).map_err(fail)?;
    }
    // Facts may also stand with the packages.
    let packages = whole.get("packages").and_then(serde_yaml::Value::as_mapping);
    for (name, package) in packages.into_iter().flatten() {
        let Some(generations) = package.get("generations").and_then(serde_yaml::Value::as_sequence) else {
            continue;
        };
        for generation in generations {
            let about = (name, generation.get("from"), generation.get("facts"), generation.get("needs"));
            text += &serde_yaml::to_string(&about).map_err(fail)?;
        }
    }
    Ok(sha256_hex(text.as_bytes())[..12].to_owned())
}

impl Verified {
    /// What is known of the sets inside the program.
    ///
    /// # Errors
    /// [`SetError`]; the tests see to it that there is none.
    pub fn embedded() -> Result<Self, SetError> {
        let read = |path: &str| {
            embedded::FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| bytes.to_vec())
        };
        match read(FILE) {
            Some(yaml) => Self::parse(&yaml)?.current(|set| read(&format!("{set}/patchset.yaml"))),
            None => Ok(Self::default()),
        }
    }

    /// What is known of the sets in the folder `dir`; nothing where it has no such file.
    ///
    /// # Errors
    /// [`SetError`]
    pub fn from_dir(dir: &Path) -> Result<Self, SetError> {
        let path = dir.join(FILE);
        match read_bounded(&path, MAX) {
            Ok(yaml) => Self::parse(&yaml)?
                .current(|set| read_bounded(&dir.join(set).join("patchset.yaml"), MAX).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(SetError::Io { path, cause }),
        }
    }

    fn parse(yaml: &[u8]) -> Result<Self, SetError> {
        let raw: RawVerified =
            serde_yaml::from_slice(yaml).map_err(|cause| SetError::Yaml { set: FILE.to_owned(), cause })?;
        let invalid = |what: String| SetError::Invalid { set: FILE.to_owned(), what };
        if raw.format != FORMAT {
            return Err(invalid(format!("form {} is unknown to this version", raw.format)));
        }
        let mut verified = Self::default();
        for set in raw.sets {
            let tried = verified.sets.entry(set.name).or_default();
            tried.digest = set.digest;
            for file in set.files {
                let contents = tried.files.entry((file.package, file.file)).or_default();
                for (sha256, releases) in file.contents {
                    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                        return Err(invalid(format!("'{sha256}' is no sha256")));
                    }
                    let spans = releases
                        .split(", ")
                        .map(|span| Span::parse(span).map_err(|error| invalid(error.to_string())));
                    contents.insert(sha256, spans.collect::<Result<_, _>>()?);
                }
            }
        }
        Ok(verified)
    }

    /// Drops what is known of sets that have changed since. `yaml` gives a set's file.
    fn current(mut self, yaml: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Self, SetError> {
        for (name, tried) in &self.sets {
            match yaml(name) {
                Some(yaml) if digest(name, &yaml)? == tried.digest => {}
                _ => self.outdated.push(name.clone()),
            }
        }
        self.outdated.iter().for_each(|name| _ = self.sets.remove(name));
        Ok(self)
    }

    /// Forgets all that is known of a set and says what it is now.
    pub fn begin(&mut self, set: &str, digest: String) {
        self.sets.insert(set.to_owned(), Tried { digest, ..Tried::default() });
    }

    /// Whether anything is known of `set` as it is now.
    pub fn knows(&self, set: &str) -> bool {
        self.sets.contains_key(set)
    }

    /// Whether `set` has changed since it was tried, so that all it was tried with counts for nothing.
    pub fn is_outdated(&self, set: &str) -> bool {
        self.outdated.iter().any(|name| name == set)
    }

    /// Whether `set` was tried with this content of `file`; `None` where nothing is known of the set.
    pub fn has(&self, set: &str, package: &str, file: &str, sha256: &str) -> Option<bool> {
        let tried = self.sets.get(set)?;
        let contents = tried.files.get(&(package.to_owned(), file.to_owned()));
        Some(contents.is_some_and(|contents| contents.contains_key(sha256)))
    }

    /// Notes that `set` was tried with a file of a release. Does nothing before [`Verified::begin`].
    pub fn add(&mut self, set: &str, package: &str, file: &str, sha256: &str, version: &Version) {
        let Some(tried) = self.sets.get_mut(set) else { return };
        let contents = tried.files.entry((package.to_owned(), file.to_owned())).or_default();
        let spans = contents.entry(sha256.to_owned()).or_default();
        if !spans.iter().any(|span| span.contains(version)) {
            spans.push(Span { from: version.clone(), to: version.clone() });
        }
    }

    /// Joins releases of the same content between which none of another content was published.
    pub fn compact(&mut self) {
        for contents in self.sets.values_mut().flat_map(|tried| tried.files.values_mut()) {
            let mut all: Vec<(Span, String)> = Vec::new();
            for (sha256, spans) in std::mem::take(contents) {
                all.extend(spans.into_iter().map(|span| (span, sha256.clone())));
            }
            all.sort_by(|(one, _), (other, _)| one.from.cmp(&other.from));
            let mut last: Option<String> = None;
            for (span, sha256) in all {
                let spans = contents.entry(sha256.clone()).or_default();
                match spans.last_mut() {
                    Some(before) if last.as_ref() == Some(&sha256) => {
                        before.to = before.to.clone().max(span.to);
                    }
                    _ => spans.push(span),
                }
                last = Some(sha256);
            }
        }
    }

    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let mut text = format!(
            "# Which contents of Proxmox' files each patch set was tried with: applied, checked, taken out again.\n\
             # Written by `pve-diff-backup new-version`; src/patching/verified.rs says how to read it.\n\
             format: {FORMAT}\nsets:\n"
        );
        for (name, tried) in &self.sets {
            let _ = write!(text, "- name: {name}\n  digest: {}\n  files:\n", quoted(&tried.digest));
            for ((package, file), contents) in &tried.files {
                let _ = write!(text, "  - package: {package}\n    file: {file}\n    contents:\n");
                let mut contents: Vec<_> = contents.iter().collect();
                contents.sort_by(|(_, one), (_, other)| {
                    one.first().map(|span| &span.from).cmp(&other.first().map(|span| &span.from))
                });
                for (sha256, spans) in contents {
                    let releases = spans.iter().map(Span::to_string).collect::<Vec<_>>().join(", ");
                    let _ = writeln!(text, "      {}: {}", quoted(sha256), quoted(&releases));
                }
            }
        }
        text
    }

    /// What is known of the files of a plan, by package; `None` where nothing is known of its set.
    pub fn judge(&self, plan: &Plan) -> Option<Vec<Verdict>> {
        let set = &plan.set.name;
        if !self.knows(set) {
            return None;
        }
        let mut verdicts: BTreeMap<&str, Verdict> = BTreeMap::new();
        for file in &plan.files {
            let (Some(package), Some(known)) = (&file.package, self.knows_file(set, file)) else { continue };
            let verdict = verdicts.entry(package).or_insert_with(|| Verdict {
                package: package.clone(),
                known: Vec::new(),
                unknown: Vec::new(),
            });
            if known { &mut verdict.known } else { &mut verdict.unknown }.push(file.path.clone());
        }
        Some(verdicts.into_values().collect())
    }

    /// Whether `set` was tried with exactly this file; `None` where nothing can be said.
    pub fn knows_file(&self, set: &str, file: &PlannedFile) -> Option<bool> {
        let (package, pristine) = file.package.as_ref().zip(file.pristine.as_ref())?;
        self.has(set, package, &file.path, &sha256_hex(pristine))
    }
}

/// Puts a scalar into quotes where YAML might take it for a number.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

impl Span {
    fn parse(text: &str) -> Result<Self, crate::host::version::VersionError> {
        let (from, to) = text.split_once(" to ").unwrap_or((text, text));
        Ok(Self { from: Version::parse(from)?, to: Version::parse(to)? })
    }

    fn contains(&self, version: &Version) -> bool {
        (&self.from..=&self.to).contains(&version)
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.from == self.to {
            true => write!(f, "{}", self.from),
            false => write!(f, "{} to {}", self.from, self.to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    fn tried(releases: &[(&str, &str)]) -> Verified {
        let mut verified = Verified::default();
        verified.begin("set", "0123".to_owned());
        for (sha256, version) in releases {
            verified.add("set", "package", "usr/a.pm", sha256, &Version::parse(version).unwrap());
        }
        verified.compact();
        verified
    }

    #[test]
    fn releases_of_one_content_become_ranges() {
        let verified =
            tried(&[(ONE, "7.0-2"), (ONE, "7.0-10"), (ONE, "7.0-1"), (TWO, "7.1-1"), (ONE, "7.1-2")]);
        let yaml = verified.to_yaml();
        assert!(yaml.contains(&format!("{ONE}\": \"7.0-1 to 7.0-10, 7.1-2\"\n")), "{yaml}");
        assert!(yaml.contains(&format!("{TWO}\": \"7.1-1\"\n")), "{yaml}");
        let again = Verified::parse(yaml.as_bytes()).unwrap();
        assert_eq!(again.to_yaml(), yaml);
        assert_eq!(again.has("set", "package", "usr/a.pm", TWO), Some(true));
        assert_eq!(again.has("set", "other", "usr/a.pm", TWO), Some(false));
        assert_eq!(again.has("other", "package", "usr/a.pm", TWO), None);
    }

    #[test]
    fn a_new_release_extends_the_last_range() {
        let mut verified = tried(&[(ONE, "9.2.9"), (TWO, "9.2.10"), (TWO, "9.2.11")]);
        verified.add("set", "package", "usr/a.pm", TWO, &Version::parse("9.2.12").unwrap());
        verified.compact();
        assert!(verified.to_yaml().contains("\"9.2.10 to 9.2.12\""));
    }

    #[test]
    fn data_of_a_set_that_changed_count_for_nothing() {
        let set = "facts: [1]\nhunks: [2]\ntitle: x\n";
        let now = digest("set", set.as_bytes()).unwrap();
        let mut verified = tried(&[(ONE, "1")]);
        verified.sets.get_mut("set").unwrap().digest = now.clone();
        let current = |yaml: &str| {
            let bytes = yaml.as_bytes().to_vec();
            verified.clone().current(|_| Some(bytes.clone())).unwrap().knows("set")
        };
        assert!(current(set));
        assert!(current("# a comment\nhunks: [2]\nfacts: [1]\ntitle: y\n"));
        assert!(!current("facts: [1]\nhunks: [3]\n"));
        assert!(!current("facts: [2]\nhunks: [2]\n"));
        assert!(!current("facts: [1]\nhunks: [2]\npackages: {a: {generations: [{facts: [1]}]}}\n"));
    }

    #[test]
    fn damage_is_named() {
        let yaml = tried(&[(ONE, "1")]).to_yaml();
        for (from, to, want) in [
            ("format: 1", "format: 2", "form 2 is unknown"),
            (&ONE[..10], "x", "is no sha256"),
            ("\"1\"\n", "\"1 to\"\n", "no Debian package version"),
            ("contents:", "content:", "unknown field"),
        ] {
            let error = Verified::parse(yaml.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    /// After a change of a set: `pve-diff-backup new-version --clones DIR --write` tries it anew.
    #[test]
    fn every_embedded_set_was_tried_as_it_is() {
        let verified = Verified::embedded().unwrap();
        for set in crate::patching::patchset::embedded().unwrap() {
            assert!(verified.knows(&set.name), "{}: changed since it was tried with the releases", set.name);
        }
    }
}
