//! Patch sets: data that says for which file contents it is meant, and which lines go where.
//!
//! A set is a folder `patches/<set>/` with `patchset.yaml`; the files its hunks call lie in
//! `patches/payload/`. All paths are relative to the host's root. Unknown keys are errors.
//!
//! ```yaml
//! name: example                 # the folder's name
//! version: 1                    # raised whenever hunks change; part of every marker
//! title: Proxmox VE 7.2 to 9.2
//! packages:                     # releases the set was verified with, both ends included
//!   pve-manager:   {from: "7.1-13", to: "9.2.11"}
//!   pve-container:
//!     optional: true            # not installed: its hunks are skipped
//!     generations:              # a package whose files changed their shape: exactly one of these must hold
//!       - {from: "2.0-4", to: "3.0-20", facts: [{file: usr/share/perl5/PVE/LXC/Create.pm, lacks: '^sub restore_tar_archive {'}]}
//!       - {from: "3.0-21", to: "6.1.10", facts: [{file: usr/share/perl5/PVE/LXC/Create.pm, has: '^sub restore_tar_archive {'}]}
//! facts:                        # must hold of the contents (without our lines), or the set is not meant
//!   - {package: pve-manager, file: usr/share/perl5/PVE/VZDump.pm, has: 'sub exec_backup_task {'}
//!   - {package: pve-manager, file: usr/share/perl5/PVE/VZDump.pm, lacks: '... $maxfiles ...'}
//! payload:                      # files of ours, installed 0644
//!   - {source: PVE/VZDump/Differential.pm, target: usr/share/perl5/PVE/VZDump/Differential.pm}
//! hunks:
//!   - id: choose
//!     package: pve-manager
//!     file: usr/share/perl5/PVE/VZDump.pm
//!     since: "7.1-13"                    # optional: first and last generation (by their `from`) that need it
//!     until: "7.1-13"
//!     within: 'sub exec_backup_task {'   # optional: the block from the one line that matches to the next
//!                                        # line with its indentation that begins with } ] or )
//!     anchor: '$task->{vmtype} = $vmtype;'  # one pattern or a list; exactly one line must match
//!     indent: anchor                     # as the anchor line, or as the `next` line (the default)
//!     comment: perl                      # perl, html or js; by default the file's ending tells
//!     insert: |
//!       PVE::VZDump::Differential::backup_task($self, $task, $vmid, \$comp);
//! ```
//!
//! Packages of a host come from different days, so each one's generation is found by its own files, never by a
//! version: any mix of generations is a plan. A generation decides which hunks there are; each of these must then
//! find its anchor. `needs` of a generation names packages that must be installed beside it.
//!
//! Patterns are those of [`Pattern`]. In `insert`, `@hash:SOURCE@` becomes the first 12 hex digits of the sha256 of
//! that payload file (a URL that changes with the content), `@version@` this program's version.

mod parse;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::embedded;
use super::pattern::Pattern;
use super::text::{Comment, TAG};
use crate::host::version::Version;
use parse::parse;

/// A payload file must name us this early, so that it is known as ours where our record is lost.
const TAG_WITHIN: usize = 4096;

/// Largest patch set or payload file read from a folder.
const MAX_FILE: u64 = 8 << 20;

/// A patch set, checked, with its payload.
#[derive(Debug, Clone)]
pub struct PatchSet {
    /// Its name.
    pub name: String,
    /// Its version, part of every marker.
    pub version: u32,
    /// For people: which releases it is for.
    pub title: String,
    /// The packages it deals with.
    pub packages: BTreeMap<String, PackageSpec>,
    /// What must hold of the files, whatever the generations.
    pub facts: Vec<Fact>,
    /// Files of ours.
    pub payload: Vec<Payload>,
    /// Insertions, in the order in which they are made.
    pub hunks: Vec<Hunk>,
}

/// A package as a set knows it.
#[derive(Debug, Clone)]
pub struct PackageSpec {
    /// Whether a host may do without the package.
    pub optional: bool,
    /// The shapes its files have had, oldest first; at least one.
    pub generations: Vec<Generation>,
}

impl PackageSpec {
    /// Whether `version` is among the releases that the set was verified with.
    pub fn contains(&self, version: &Version) -> bool {
        self.generations.iter().any(|generation| generation.range.contains(version))
    }
}

/// Releases of a package whose files take the same hunks.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The releases it was verified with. The first one names the generation.
    pub range: Range,
    /// What tells its files from those of the other generations.
    pub facts: Vec<Fact>,
    /// Packages that must be installed beside it.
    pub needs: Vec<String>,
}

/// The releases of a package that a set was verified with.
#[derive(Debug, Clone)]
pub struct Range {
    /// The oldest.
    pub from: Version,
    /// The newest.
    pub to: Version,
}

impl Range {
    /// Whether `version` lies in the range.
    pub fn contains(&self, version: &Version) -> bool {
        (&self.from..=&self.to).contains(&version)
    }
}

/// Something that must hold of a file's content.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The package that ships the file.
    pub package: String,
    /// The file.
    pub file: String,
    /// What is looked for.
    pub pattern: Pattern,
    /// Whether a line must match (`has`) or none may (`lacks`).
    pub present: bool,
}

/// A file of ours.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Its path below `patches/payload/`.
    pub source: String,
    /// Where it is installed.
    pub target: String,
    /// What it holds.
    pub content: Vec<u8>,
}

/// Whole lines inserted below one anchor line.
#[derive(Debug, Clone)]
pub struct Hunk {
    /// Its id, part of the marker.
    pub id: String,
    /// The package that ships the file.
    pub package: String,
    /// The file.
    pub file: String,
    /// The generations of the package that need it, by their places in [`PackageSpec::generations`].
    pub generations: std::ops::RangeInclusive<usize>,
    /// The line that opens the block in which the anchor is looked for.
    pub within: Option<Pattern>,
    /// The patterns of which exactly one line must match one.
    pub anchors: Vec<Pattern>,
    /// Whose indentation the lines get.
    pub indent: Indent,
    /// How the marker is written.
    pub comment: Comment,
    /// The lines, without line ends, markers and outer indentation.
    pub lines: Vec<String>,
}

/// Whose indentation inserted lines get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Indent {
    /// The anchor line's.
    Anchor,
    /// That of the next line that is not blank; the anchor's where that line closes a block.
    #[default]
    Next,
}

/// A patch set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// It cannot be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is no YAML, or not of this form.
    #[error("patch set {set}: {cause}")]
    Yaml {
        /// The set.
        set: String,
        /// What is wrong, with line and column.
        cause: serde_yaml::Error,
    },
    /// It contradicts itself or a rule.
    #[error("patch set {set}: {what}")]
    Invalid {
        /// The set.
        set: String,
        /// What is wrong.
        what: String,
    },
    /// A folder given with --patches holds none.
    #[error("{}: no patch set there (a folder with patchset.yaml)", path.display())]
    None {
        /// The folder.
        path: PathBuf,
    },
}

/// The sets inside the program, by name.
///
/// # Errors
/// [`SetError`]; the tests see to it that there is none.
pub fn embedded() -> Result<Vec<PatchSet>, SetError> {
    let read =
        |path: &str| embedded::FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| bytes.to_vec());
    let mut sets = Vec::new();
    for (path, yaml) in embedded::FILES {
        if let Some(set) = path.strip_suffix("/patchset.yaml") {
            sets.push(parse(set, yaml, &|source| {
                read(&format!("payload/{source}")).ok_or_else(|| SetError::Io {
                    path: format!("payload/{source}").into(),
                    cause: io::ErrorKind::NotFound.into(),
                })
            })?);
        }
    }
    Ok(sets)
}

/// The sets in the folder `dir`, laid out as `patches/` is, by name.
///
/// # Errors
/// [`SetError`]
pub fn from_dir(dir: &Path) -> Result<Vec<PatchSet>, SetError> {
    let entries = std::fs::read_dir(dir).map_err(|cause| SetError::Io { path: dir.to_owned(), cause })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| dir.join(name).join("patchset.yaml").is_file())
        .collect();
    if names.is_empty() {
        return Err(SetError::None { path: dir.to_owned() });
    }
    names.sort();
    names
        .iter()
        .map(|name| {
            let yaml = read(&dir.join(name).join("patchset.yaml"))?;
            parse(name, &yaml, &|source| read(&dir.join("payload").join(source)))
        })
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, SetError> {
    crate::host::root::read_bounded(path, MAX_FILE)
        .map_err(|cause| SetError::Io { path: path.to_owned(), cause })
}

/// Whether `content` is a payload file of ours, of whatever version.
pub fn is_ours(content: &[u8]) -> bool {
    content[..content.len().min(TAG_WITHIN)].windows(TAG.len()).any(|window| window == TAG.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patching::sha256_hex;

    const GOOD: &str = r#"
name: t
version: 2
title: A test
packages:
  a: {from: "1", to: "2.0-1"}
facts:
  - {package: a, file: usr/a.pm, has: 'sub f {'}
payload:
  - {source: js/x.js, target: usr/x.js}
hunks:
  - id: one
    package: a
    file: usr/a.pm
    anchor: ['sub f {', 'sub g {']
    insert: |
      if (x) {
          return '@hash:js/x.js@';
      }
"#;

    fn parsed(yaml: &str) -> Result<PatchSet, SetError> {
        parse("t", yaml.as_bytes(), &|_| Ok(b"// pve-diff-backup\n".to_vec()))
    }

    #[test]
    fn a_good_set() {
        let set = parsed(GOOD).unwrap();
        let hash = &sha256_hex(b"// pve-diff-backup\n")[..12];
        assert_eq!(
            set.hunks[0].lines,
            ["if (x) {".to_owned(), format!("    return '{hash}';"), "}".to_owned()]
        );
        assert!(set.packages["a"].contains(&Version::parse("2.0-1").unwrap()));
        assert!(!set.packages["a"].contains(&Version::parse("2.0-1+b1").unwrap()));
    }

    #[test]
    fn mistakes_are_named() {
        let mistakes = [
            ("name: t", "name: u", "is called 'u' inside"),
            ("version: 2", "version: 2\nverison: 3", "unknown field"),
            ("package: a\n    file", "package: b\n    file", "package 'b' is not in"),
            ("file: usr/a.pm\n", "file: /usr/a.pm\n", "must be relative"),
            ("target: usr/x.js", "target: usr/../x.js", "must be relative"),
            ("has: 'sub f {'", "hsa: 'sub f {'", "unknown field"),
            (", has: 'sub f {'", "", "either `has` or `lacks`"),
            ("id: one", "id: One", "hunk id 'One'"),
            ("@hash:js/x.js@", "@hash:js/y.js@", "no such payload file"),
            ("to: \"2.0-1\"", "to: \"x\"", "no Debian package version"),
            ("if (x) {", "if (x) { # pve-diff-backup:1 one", "must not hold the marker"),
            ("['sub f {', 'sub g {']", "'...'", "hunk one: the pattern '...' holds nothing"),
        ];
        for (from, to, want) in mistakes {
            let yaml = GOOD.replacen(from, to, 1);
            assert_ne!(yaml, GOOD, "{from}");
            let error = parsed(&yaml).expect_err(to).to_string();
            assert!(error.contains(want), "{to}: {error}");
        }
    }

    const GENERATIONS: &str = "
  a:
    generations:
      - {from: '1', to: '1.5', facts: [{file: usr/a.pm, lacks: 'sub f {'}]}
      - {from: '1.6', to: '2.0-1', facts: [{file: usr/a.pm, has: 'sub f {'}], needs: [b]}
  b: {from: '1', to: '9', optional: true}
";

    #[test]
    fn generations_limit_hunks() {
        let yaml = GOOD.replacen("\n  a: {from: \"1\", to: \"2.0-1\"}\n", GENERATIONS, 1).replacen(
            "    anchor: [",
            "    since: '1.6'\n    anchor: [",
            1,
        );
        let set = parsed(&yaml).unwrap();
        assert_eq!(set.hunks[0].generations, 1..=1);
        let names: Vec<String> = set.packages["a"]
            .generations
            .iter()
            .map(|generation| generation.range.from.to_string())
            .collect();
        assert_eq!(names, ["1", "1.6"]);
        assert!(!set.packages["a"].contains(&Version::parse("1.5.1").unwrap()));
        let mistakes = [
            ("since: '1.6'", "since: '1.7'", "no generation begins with 1.7"),
            ("since: '1.6'", "since: '1.6'\n    until: '1'", "`until` comes before `since`"),
            ("to: '1.5'", "to: '1.6'", "must not overlap"),
            ("needs: [b]", "needs: [c]", "package 'c' is not in"),
            ("[{file: usr/a.pm, has", "[{package: a, file: usr/a.pm, has", "about its own package"),
            ("  a:\n", "  a:\n    from: '1'\n", "either `from` and `to`, or `generations`"),
            ("from: '1', to: '9'", "from: '9', to: '1'", "is no range"),
        ];
        for (from, to, want) in mistakes {
            let wrong = yaml.replacen(from, to, 1);
            assert_ne!(wrong, yaml, "{from}");
            let error = parsed(&wrong).expect_err(to).to_string();
            assert!(error.contains(want), "{to}: {error}");
        }
    }

    #[test]
    fn a_payload_file_must_be_recognisable() {
        let error = parse("t", GOOD.as_bytes(), &|_| Ok(b"// something".to_vec())).unwrap_err();
        assert!(error.to_string().contains("does not occur"), "{error}");
    }
}
