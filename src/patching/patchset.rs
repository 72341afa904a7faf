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

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::pattern::Pattern;
use super::text::{Comment, TAG, is_id};
use super::{embedded, sha256_hex};
use crate::host::version::Version;

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

/// `patchset.yaml` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSet {
    name: String,
    version: u32,
    title: String,
    packages: BTreeMap<String, RawPackage>,
    #[serde(default)]
    facts: Vec<RawFact>,
    #[serde(default)]
    payload: Vec<RawPayload>,
    hunks: Vec<RawHunk>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPackage {
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    generations: Vec<RawGeneration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGeneration {
    from: String,
    to: String,
    #[serde(default)]
    facts: Vec<RawFact>,
    #[serde(default)]
    needs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFact {
    /// Given by the place in a generation.
    package: Option<String>,
    file: String,
    has: Option<Pattern>,
    lacks: Option<Pattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPayload {
    source: String,
    target: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHunk {
    id: String,
    package: String,
    file: String,
    since: Option<String>,
    until: Option<String>,
    within: Option<Pattern>,
    anchor: OneOrMore,
    #[serde(default)]
    indent: Indent,
    comment: Option<Comment>,
    insert: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Parses and checks the set called `set`; `payload` gives the content of a payload file.
fn parse(
    set: &str,
    yaml: &[u8],
    payload: &dyn Fn(&str) -> Result<Vec<u8>, SetError>,
) -> Result<PatchSet, SetError> {
    let raw: RawSet =
        serde_yaml::from_slice(yaml).map_err(|cause| SetError::Yaml { set: set.to_owned(), cause })?;
    let invalid = |what: String| SetError::Invalid { set: set.to_owned(), what };
    if raw.name != set {
        return Err(invalid(format!("is called '{}' inside", raw.name)));
    }
    let known = |package: &String, user: &str| match raw.packages.contains_key(package) {
        true => Ok(()),
        false => Err(invalid(format!("{user}: package '{package}' is not in `packages`"))),
    };
    let mut packages = BTreeMap::new();
    for (name, package) in &raw.packages {
        package.generations.iter().flat_map(|it| &it.needs).try_for_each(|needed| known(needed, name))?;
        let package = checked_package(name, package).map_err(|what| invalid(format!("{name}: {what}")))?;
        packages.insert(name.clone(), package);
    }

    let mut facts = Vec::new();
    for fact in &raw.facts {
        let package = fact.package.as_ref().ok_or_else(|| invalid("fact: needs `package`".to_owned()))?;
        known(package, "fact")?;
        facts.push(checked_fact(package, fact).map_err(invalid)?);
    }
    if facts.is_empty() && !packages.values().flat_map(|it| &it.generations).any(|it| !it.facts.is_empty()) {
        return Err(invalid("has no facts: it would match any host".to_owned()));
    }

    let mut files = Vec::new();
    for entry in raw.payload {
        let source = checked_path(entry.source).map_err(invalid)?;
        let content = payload(&source)?;
        if !is_ours(&content) {
            return Err(invalid(format!(
                "payload {source}: '{TAG}' does not occur in its first {TAG_WITHIN} bytes"
            )));
        }
        files.push(Payload { source, target: checked_path(entry.target).map_err(invalid)?, content });
    }

    let mut hunks: Vec<Hunk> = Vec::new();
    for hunk in raw.hunks {
        known(&hunk.package, &hunk.id)?;
        if !is_id(&hunk.id) || hunks.iter().any(|other| other.id == hunk.id) {
            return Err(invalid(format!("hunk id '{}': not unique, or not of a-z, 0-9 and -", hunk.id)));
        }
        let file = checked_path(hunk.file).map_err(invalid)?;
        let comment = hunk.comment.or_else(|| Comment::of_file(&file)).ok_or_else(|| {
            invalid(format!("hunk {}: the ending of {file} does not tell its kind of `comment`", hunk.id))
        })?;
        let anchors = match hunk.anchor {
            OneOrMore::One(pattern) => vec![pattern],
            OneOrMore::More(patterns) => patterns,
        };
        let generations = checked_generations(&packages[&hunk.package], &hunk.since, &hunk.until)
            .map_err(|what| invalid(format!("hunk {}: {what}", hunk.id)))?;
        let anchors = anchors
            .iter()
            .map(|text| Pattern::parse(text).map_err(|error| invalid(format!("hunk {}: {error}", hunk.id))))
            .collect::<Result<Vec<_>, _>>()?;
        let lines = checked_lines(&hunk.insert, comment, &files)
            .map_err(|what| invalid(format!("hunk {}: {what}", hunk.id)))?;
        if anchors.is_empty() {
            return Err(invalid(format!("hunk {}: no anchor", hunk.id)));
        }
        hunks.push(Hunk {
            id: hunk.id,
            package: hunk.package,
            file,
            generations,
            within: hunk.within,
            anchors,
            indent: hunk.indent,
            comment,
            lines,
        });
    }
    Ok(PatchSet {
        name: raw.name,
        version: raw.version,
        title: raw.title,
        packages,
        facts,
        payload: files,
        hunks,
    })
}

/// A package with its generations; without any it is a single one.
fn checked_package(name: &str, raw: &RawPackage) -> Result<PackageSpec, String> {
    let range = |from: &str, to: &str| {
        let version = |text: &str| Version::parse(text).map_err(|error| error.to_string());
        let range = Range { from: version(from)?, to: version(to)? };
        match range.from <= range.to {
            true => Ok(range),
            false => Err(format!("from {from} to {to} is no range")),
        }
    };
    let mut generations = Vec::new();
    match (&raw.from, &raw.to) {
        (Some(from), Some(to)) if raw.generations.is_empty() => {
            generations.push(Generation { range: range(from, to)?, facts: Vec::new(), needs: Vec::new() });
        }
        (None, None) if !raw.generations.is_empty() => {
            for generation in &raw.generations {
                let facts = generation.facts.iter().map(|fact| match fact.package {
                    None => checked_fact(name, fact),
                    Some(_) => Err("a generation's fact is about its own package".to_owned()),
                });
                generations.push(Generation {
                    range: range(&generation.from, &generation.to)?,
                    facts: facts.collect::<Result<_, _>>()?,
                    needs: generation.needs.clone(),
                });
            }
        }
        _ => return Err("needs either `from` and `to`, or `generations`".to_owned()),
    }
    if !generations.is_sorted_by(|a, b| a.range.to < b.range.from) {
        return Err("generations must not overlap, and the oldest comes first".to_owned());
    }
    Ok(PackageSpec { optional: raw.optional, generations })
}

fn checked_fact(package: &str, fact: &RawFact) -> Result<Fact, String> {
    let file = checked_path(fact.file.clone())?;
    let (pattern, present) = match (&fact.has, &fact.lacks) {
        (Some(pattern), None) => (pattern.clone(), true),
        (None, Some(pattern)) => (pattern.clone(), false),
        _ => return Err(format!("fact about {file}: needs either `has` or `lacks`")),
    };
    Ok(Fact { package: package.to_owned(), file, pattern, present })
}

/// The places of the generations from the one called `since` to the one called `until`.
fn checked_generations(
    package: &PackageSpec,
    since: &Option<String>,
    until: &Option<String>,
) -> Result<std::ops::RangeInclusive<usize>, String> {
    let place = |name: &Option<String>, default: usize| match name {
        None => Ok(default),
        Some(name) => (package.generations.iter())
            .position(|generation| generation.range.from.to_string() == *name)
            .ok_or_else(|| format!("no generation begins with {name}")),
    };
    let range = place(since, 0)?..=place(until, package.generations.len() - 1)?;
    match range.is_empty() {
        false => Ok(range),
        true => Err("`until` comes before `since`".to_owned()),
    }
}

/// A path that stays below the folder it is relative to.
fn checked_path(path: String) -> Result<String, String> {
    let plain = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
    match plain && !path.is_empty() {
        true => Ok(path),
        false => Err(format!("path '{path}' must be relative, without '..'")),
    }
}

/// The lines of `insert` with their placeholders filled in.
fn checked_lines(insert: &str, comment: Comment, payload: &[Payload]) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for line in insert.lines() {
        let mut line = line.trim_end().replace("@version@", env!("CARGO_PKG_VERSION"));
        while let Some((before, rest)) = line.split_once("@hash:") {
            let (source, after) = rest.split_once('@').ok_or("'@hash:' without closing '@'")?;
            let file = payload
                .iter()
                .find(|file| file.source == source)
                .ok_or_else(|| format!("'@hash:{source}@': no such payload file"))?;
            line = format!("{before}{}{after}", &sha256_hex(&file.content)[..12]);
        }
        if line.is_empty() {
            return Err(
                "an inserted line is empty: the marker could not be seen to belong to code".to_owned()
            );
        }
        if line.contains(&format!("{TAG}:")) || (comment == Comment::Html && line.contains("<!--")) {
            return Err(format!("the inserted line '{line}' must not hold the marker or a comment"));
        }
        lines.push(line);
    }
    match lines.is_empty() {
        true => Err("inserts nothing".to_owned()),
        false => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
