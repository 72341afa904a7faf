//! `/etc/pve/pve-diff-backup.conf` and `/etc/pve-diff-backup.conf`: what an administrator sets for backups of all nodes and
//! of this one, and what of it is not understood.
//!
//! The modules within Proxmox VE read it for each backup and leave out what they do not understand
//! (`PVE/VZDump/Differential/Chain.pm`, `parse_settings`). `tests/data/settings.json` holds what both sides agree upon.

use std::collections::BTreeMap;

use super::root::{Root, read_bounded};
use super::storage;
use crate::text::shown;

/// The files, relative to the root. What a later one sets counts more.
pub const PATHS: [&str; 2] = ["etc/pve/pve-diff-backup.conf", "etc/pve-diff-backup.conf"];

/// Whether only what changed is read of running VMs: `fleecing`, `auto` or `off`.
pub const CHANGED_BLOCKS: &str = "changed-blocks";

/// Bytes of a file that are read.
const MAX: u64 = 64 << 10;

/// A setting.
struct Setting {
    name: &'static str,
    /// What it may be, in words.
    values: &'static str,
    default: &'static str,
    is_right: fn(&str) -> bool,
}

/// All there are, by name.
const SETTINGS: [Setting; 4] = [
    Setting {
        name: "base-without-map",
        values: "replace or use",
        default: "replace",
        is_right: |value| matches!(value, "replace" | "use"),
    },
    Setting {
        name: CHANGED_BLOCKS,
        values: "fleecing, auto or off",
        default: "off",
        is_right: |value| matches!(value, "fleecing" | "auto" | "off"),
    },
    Setting {
        name: "changed-blocks-audit",
        values: "a number of backups such as 30, or off",
        default: "30",
        is_right: |value| {
            let number = !value.starts_with('0') && (1..=3).contains(&value.len());
            value == "off" || number && value.bytes().all(|c| c.is_ascii_digit())
        },
    },
    Setting {
        name: "largest-differential",
        values: "a share such as 50%, or off",
        default: "50%",
        is_right: |value| {
            let number =
                value.strip_suffix('%').filter(|it| !it.starts_with('0') && (1..=4).contains(&it.len()));
            value == "off" || number.is_some_and(|it| it.bytes().all(|c| c.is_ascii_digit()))
        },
    },
];

/// What is wrong with the files of a host, a text each.
pub fn complaints(root: &Root) -> Vec<String> {
    PATHS.iter().flat_map(|path| complaints_of(root, path)).collect()
}

fn complaints_of(root: &Root, path: &str) -> Vec<String> {
    let raw = match text(root, path) {
        Ok(Some(raw)) => raw,
        Ok(None) => return Vec::new(),
        Err(why) => return vec![why],
    };
    let found = read(&raw);
    let mut told: Vec<_> = found.complaints.into_iter().map(|it| format!("/{path}, {it}")).collect();
    // Whether there is a storage is only known where the list of storages is.
    let is_missing = |id: &str| matches!(storage::backups(root, id), Ok(None));
    let has_storages = root.resolve(storage::PATH).is_ok_and(|path| path.exists());
    for Section { line, id, .. } in found.sections.into_iter().filter(|it| has_storages && is_missing(&it.id))
    {
        told.push(format!(
            "/{path}, line {line}: there is no storage '{id}', so what is set for it has no effect"
        ));
    }
    told
}

/// What is set for a storage. Files that cannot be read set nothing.
pub fn value(root: &Root, storage: &str, name: &str) -> String {
    let texts: Vec<_> = PATHS.iter().filter_map(|path| text(root, path).ok().flatten()).collect();
    values(texts.iter().map(String::as_str), Some(storage)).remove(name).unwrap_or_default()
}

/// The text of a file, if it is there.
///
/// # Errors
/// Fails with a text that names the file, where it cannot be read.
fn text(root: &Root, path: &str) -> Result<Option<String>, String> {
    let resolved = root.resolve(path).map_err(|error| format!("/{path}: {error}"))?;
    match read_bounded(&resolved, MAX) {
        Ok(raw) => Ok(Some(String::from_utf8_lossy(&raw).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("/{path} cannot be read, so what it sets does not hold: {error}")),
    }
}

/// What holds for a storage, or for a folder that is none, by the texts of the files.
fn values<'a>(texts: impl Iterator<Item = &'a str>, storage: Option<&str>) -> BTreeMap<String, String> {
    let all: Vec<_> = texts.map(read).collect();
    let mut held: BTreeMap<_, _> =
        SETTINGS.iter().map(|it| (it.name.to_owned(), it.default.to_owned())).collect();
    held.extend(all.iter().flat_map(|found| found.common.clone()));
    let own = all.iter().flat_map(|found| &found.sections).filter(|it| Some(it.id.as_str()) == storage);
    held.extend(own.flat_map(|it| it.values.clone()));
    held
}

/// What the text of a file says.
#[derive(Default)]
struct Read {
    complaints: Vec<String>,
    common: Vec<(String, String)>,
    sections: Vec<Section>,
}

/// A line from which on settings are for one storage.
struct Section {
    line: usize,
    id: String,
    values: Vec<(String, String)>,
}

fn read(text: &str) -> Read {
    let mut found = Read::default();
    // Below what is no name of a storage nothing holds.
    let mut is_lost = false;
    for (line, number) in text.split('\n').zip(1..) {
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line
            .split_once(':')
            .map(|(key, value)| (key.trim_matches(is_space), value.trim_matches(is_space)));
        match pair.filter(|(_, value)| !value.is_empty() && !value.contains(is_space)) {
            Some(("storage", id)) => {
                is_lost = !is_storage(id);
                if is_lost {
                    let what = "not the name of a storage, so what is below is left out";
                    found.complaints.push(format!("line {number}: {what}"));
                } else {
                    found.sections.push(Section { line: number, id: shown(id), values: Vec::new() });
                }
            }
            pair => match (wrong(pair), pair) {
                (Some(right), _) => found
                    .complaints
                    .push(format!("line {number}: not understood, so it is left out ({right})")),
                (None, Some((key, value))) if !is_lost => {
                    let held = found.sections.last_mut().map_or(&mut found.common, |it| &mut it.values);
                    held.push((key.to_owned(), value.to_owned()));
                }
                (None, _) => {}
            },
        }
    }
    found
}

/// What would be right, where this is not.
fn wrong(pair: Option<(&str, &str)>) -> Option<String> {
    let known = pair.and_then(|(key, value)| Some((SETTINGS.iter().find(|it| it.name == key)?, value)));
    match known {
        Some((setting, value)) if (setting.is_right)(value) => None,
        Some((setting, _)) => Some(format!("{} is {}", setting.name, setting.values)),
        None => {
            let all = SETTINGS.iter().map(|it| format!("'{}: {}'", it.name, it.default));
            Some(format!("there is {}", all.collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Proxmox VE's names of storages.
fn is_storage(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

/// White space as Perl has it, for bytes.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_what_perl_understands() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/settings.json")).unwrap();
        let cases = file["settings"].as_array().unwrap();
        assert!(cases.len() > 8);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let found = read(text).complaints;
            assert_eq!(serde_json::json!(found), case["complaints"], "{}", case["why"]);
            let texts = [case["cluster"].as_str().unwrap_or_default(), text];
            let held = values(texts.into_iter(), case["storage"].as_str());
            assert_eq!(serde_json::json!(held), case["settings"], "{}", case["why"]);
        }
    }

    #[test]
    fn a_storage_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/pve")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(complaints(&root), [""; 0]);
        let text = "storage: nas\nlargest-differential: 30%\nstorage: nsa\nlargest-differential: 30\n";
        std::fs::write(dir.path().join(PATHS[1]), text).unwrap();
        let bad = "/etc/pve-diff-backup.conf, line 4: not understood, so it is left out (largest-differential is a share \
                   such as 50%, or off)";
        assert_eq!(complaints(&root), [bad]);
        std::fs::write(dir.path().join(storage::PATH), "nfs: nas\n\tserver s\n\texport /e\n").unwrap();
        let lost = "/etc/pve-diff-backup.conf, line 3: there is no storage 'nsa', so what is set for it has no effect";
        assert_eq!(complaints(&root), [bad, lost]);
    }
}
