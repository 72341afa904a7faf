//! Reading and checking `patchset.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Fact, Generation, Hunk, Indent, PackageSpec, PatchSet, Payload, Range, SetError, TAG_WITHIN, is_ours,
};
use crate::host::root::is_inside;
use crate::host::version::Version;
use crate::patching::pattern::Pattern;
use crate::patching::sha256_hex;
use crate::patching::text::{Comment, TAG, is_id};

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
pub(super) fn parse(
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
    match is_inside(&path) {
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
