//! `/etc/pve-diff-backup.conf`: what an administrator sets for a node's backups, and what of it is not understood.
//!
//! The modules within Proxmox VE read it for each backup and leave out what they do not understand
//! (`PVE/VZDump/Differential/Chain.pm`, `parse_settings`). `tests/data/settings.json` holds what both sides agree upon.

use super::root::{Root, read_bounded};
use super::storage;
use crate::text::shown;

/// The file, relative to the root.
pub const PATH: &str = "etc/pve-diff-backup.conf";

/// Bytes of it that are read.
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
const SETTINGS: [Setting; 2] = [
    Setting {
        name: "base-without-map",
        values: "replace or use",
        default: "replace",
        is_right: |value| matches!(value, "replace" | "use"),
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

/// What is wrong with the file of a host, a text each.
pub fn complaints(root: &Root) -> Vec<String> {
    let path = match root.resolve(PATH) {
        Ok(path) => path,
        Err(error) => return vec![format!("/{PATH}: {error}")],
    };
    let raw = match read_bounded(&path, MAX) {
        Ok(raw) => raw,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![format!("/{PATH} cannot be read, so the defaults hold: {error}")],
    };
    let Read { complaints, sections } = read(&String::from_utf8_lossy(&raw));
    let mut told: Vec<_> = complaints.into_iter().map(|it| format!("/{PATH}, {it}")).collect();
    // Whether there is a storage is only known where the list of storages is.
    let is_missing = |id: &str| matches!(storage::backups(root, id), Ok(None));
    let has_storages = root.resolve(storage::PATH).is_ok_and(|path| path.exists());
    for Section { line, id } in sections.into_iter().filter(|it| has_storages && is_missing(&it.id)) {
        told.push(format!(
            "/{PATH}, line {line}: there is no storage '{id}', so what is set for it has no effect"
        ));
    }
    told
}

/// What the text of the file says.
struct Read {
    complaints: Vec<String>,
    sections: Vec<Section>,
}

/// A line from which on settings are for one storage.
struct Section {
    line: usize,
    id: String,
}

fn read(text: &str) -> Read {
    let mut found = Read { complaints: Vec::new(), sections: Vec::new() };
    for (line, number) in text.split('\n').zip(1..) {
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line
            .split_once(':')
            .map(|(key, value)| (key.trim_matches(is_space), value.trim_matches(is_space)));
        match pair.filter(|(_, value)| !value.is_empty() && !value.contains(is_space)) {
            Some(("storage", id)) if is_storage(id) => {
                found.sections.push(Section { line: number, id: shown(id) });
            }
            Some(("storage", _)) => found
                .complaints
                .push(format!("line {number}: not the name of a storage, so what is below is left out")),
            pair => found.complaints.extend(
                wrong(pair)
                    .map(|right| format!("line {number}: not understood, so it is left out ({right})")),
            ),
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
    fn what_is_not_understood_is_what_perl_does_not() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/settings.json")).unwrap();
        let cases = file["settings"].as_array().unwrap();
        assert!(cases.len() > 8);
        for case in cases {
            let found = read(case["text"].as_str().unwrap()).complaints;
            assert_eq!(serde_json::json!(found), case["complaints"], "{}", case["why"]);
        }
    }

    #[test]
    fn a_storage_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/pve")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(complaints(&root), [""; 0]);
        let text = "storage: nas\nlargest-differential: 30%\nstorage: nsa\nlargest-differential: 30\n";
        std::fs::write(dir.path().join(PATH), text).unwrap();
        let bad = "/etc/pve-diff-backup.conf, line 4: not understood, so it is left out (largest-differential is a share \
                   such as 50%, or off)";
        assert_eq!(complaints(&root), [bad]);
        std::fs::write(dir.path().join(storage::PATH), "nfs: nas\n\tserver s\n\texport /e\n").unwrap();
        let lost = "/etc/pve-diff-backup.conf, line 3: there is no storage 'nsa', so what is set for it has no effect";
        assert_eq!(complaints(&root), [bad, lost]);
    }
}
