//! Reads the option in `jobs.cfg` as `PVE::SectionConfig` reads that file, and edits it by whole lines.
//!
//! A section begins with `TYPE: ID` and ends with an empty line (or one that holds just `0`: Perl takes both for
//! false). Its settings are indented. Lines whose first character is `#` are skipped anywhere. Of two sections with
//! one ID the last counts, of two settings with one name the first that is valid.

use std::collections::BTreeMap;

use super::{OPTION, days};

/// The type of the sections that hold backup jobs.
const TYPE: &[u8] = b"vzdump";

/// The option's name, as the file has it.
const OPTION_KEY: &[u8] = OPTION.as_bytes();

/// A backup job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its ID.
    pub id: String,
    /// The option in it.
    pub value: Value,
    /// The only node it runs on; `None`: each node backs up its guests.
    pub node: Option<String>,
    /// Whether it runs at all.
    pub enabled: bool,
    /// Where its backups go, how they are made and with what: `storage`, `mode`, `compress`, `fleecing`, where it says so.
    pub how: BTreeMap<&'static str, String>,
}

/// The settings of [`Job::how`].
const HOW: [&str; 4] = ["storage", "mode", "compress", "fleecing"];

/// What a job says of the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A valid number of days.
    Days(u32),
    /// Something that is no number of days; Proxmox VE ignores it with a warning.
    Odd,
}

/// Finds all backup jobs, in the order of the file. Of several with one ID it gives the one that counts.
pub fn jobs(raw: &[u8]) -> Vec<Job> {
    let sections = sections(raw);
    let counts = |(index, section): &(usize, &Section)| {
        !sections[index + 1..].iter().any(|later| later.id == section.id)
    };
    let job = |(_, section): (usize, &Section)| Job {
        id: section.id.clone(),
        value: section.value,
        node: section.node.clone(),
        enabled: section.enabled.unwrap_or(true),
        how: section.how.clone(),
    };
    sections.iter().enumerate().filter(counts).map(job).collect()
}

/// Gives `raw` with the option added to those jobs of `values` that lack it.
pub fn with(raw: &[u8], values: &[(&str, u32)]) -> Vec<u8> {
    let sections = sections(raw);
    let mut after = Vec::with_capacity(raw.len() + 32 * values.len());
    let mut done = 0;
    for (index, section) in sections.iter().enumerate() {
        let Some((_, days)) = values.iter().find(|(id, _)| *id == section.id) else { continue };
        let counts = !sections[index + 1..].iter().any(|later| later.id == section.id);
        if !counts || section.value != Value::None {
            continue;
        }
        after.extend_from_slice(&raw[done..section.end]);
        done = section.end;
        if after.last().is_some_and(|byte| *byte != b'\n') {
            after.push(b'\n');
        }
        after.extend_from_slice(format!("\t{OPTION} {days}\n").as_bytes());
    }
    after.extend_from_slice(&raw[done..]);
    after
}

/// Gives `raw` with the option taken out of all backup jobs.
pub fn without(raw: &[u8]) -> Vec<u8> {
    let mut after = Vec::with_capacity(raw.len());
    let mut done = 0;
    for (start, end) in sections(raw).iter().flat_map(|section| &section.lines) {
        after.extend_from_slice(&raw[done..*start]);
        done = *end;
    }
    after.extend_from_slice(&raw[done..]);
    after
}

/// A section of our type.
struct Section {
    id: String,
    value: Value,
    node: Option<String>,
    enabled: Option<bool>,
    how: BTreeMap<&'static str, String>,
    /// Where the lines of the option begin and end.
    lines: Vec<(usize, usize)>,
    /// The position behind the section's last setting, or behind its head where it has none.
    end: usize,
}

fn sections(raw: &[u8]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    // Whether the line is inside any section, and whether inside one of a backup job.
    let (mut inside, mut ours) = (false, false);
    let mut position = 0;
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        let start = position;
        position += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if trimmed(line).starts_with(b"#") {
            continue;
        }
        if matches!(line, b"" | b"0") {
            inside = false;
        } else if !inside {
            let head = head(line);
            inside = head.is_some();
            ours = false;
            if let Some((TYPE, id)) = head {
                let Ok(id) = String::from_utf8(id.to_vec()) else { continue };
                ours = true;
                sections.push(Section {
                    id,
                    value: Value::None,
                    node: None,
                    enabled: None,
                    how: BTreeMap::new(),
                    lines: Vec::new(),
                    end: position,
                });
            }
        } else if let (true, Some((key, value)), Some(section)) = (ours, setting(line), sections.last_mut()) {
            section.end = position;
            let text = std::str::from_utf8(value).ok();
            match key {
                OPTION_KEY => {
                    section.lines.push((start, position));
                    section.value = match (section.value, text.and_then(days)) {
                        (Value::Days(first), _) => Value::Days(first),
                        (_, Some(days)) => Value::Days(days),
                        (_, None) => Value::Odd,
                    };
                }
                b"node" => section.node = section.node.take().or(text.map(str::to_owned)),
                b"enabled" => section.enabled = section.enabled.or(text.and_then(boolean)),
                _ => {
                    let name = HOW.into_iter().find(|name| name.as_bytes() == key);
                    if let (Some(name), Some(text)) = (name, text) {
                        section.how.entry(name).or_insert_with(|| text.to_owned());
                    }
                }
            }
        }
    }
    sections
}

/// Reads a switch as `PVE::JSONSchema::parse_boolean` does.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// Reads the head of a section, `TYPE: ID`, as `/^(\S+):\s*(\S+)\s*$/` does.
fn head(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = trimmed_end(line);
    let blank = line.iter().position(|byte| is_blank(*byte));
    // Up to the first blank; without one, up to the last colon that has something behind it.
    let colon = match blank {
        Some(blank) => blank.checked_sub(1).filter(|last| line[*last] == b':')?,
        None => line[..line.len().checked_sub(1)?].iter().rposition(|byte| *byte == b':')?,
    };
    let (kind, id) = (&line[..colon], trimmed(&line[colon + 1..]));
    (!kind.is_empty() && !id.is_empty() && !id.iter().any(|byte| is_blank(*byte))).then_some((kind, id))
}

/// Reads a setting, `  KEY VALUE`, as `/^\s+(\S+)(\s+(.*\S))?\s*$/` does.
fn setting(line: &[u8]) -> Option<(&[u8], &[u8])> {
    line.first().filter(|byte| is_blank(**byte))?;
    let text = trimmed(trimmed_end(line));
    let end = text.iter().position(|byte| is_blank(*byte)).unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], trimmed(&text[end..])))
}

/// Whether a byte is white space for Perl's `\s`.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn trimmed(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|byte| !is_blank(*byte)).unwrap_or(line.len());
    &line[start..]
}

fn trimmed_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# by hand\nvzdump: nightly\n\tschedule 02:00\n\tfullbackup 7\n\tx-unknown 1\n\tstorage nas\n\n\
                        realm-sync: r\n\tfullbackup 3\n\nvzdump:weekly\n\tenabled 1\n#\tfullbackup 9\n\tall 1";

    fn list(raw: &str) -> Vec<(String, Value)> {
        jobs(raw.as_bytes()).into_iter().map(|job| (job.id, job.value)).collect()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn jobs_are_read_as_proxmox_reads_them() {
        assert_eq!(list(FILE), [("nightly".into(), Value::Days(7)), ("weekly".into(), Value::None)]);
        let odd = "vzdump: a:b.c-d_é\n  fullbackup  14  \n\tfullbackup 3\n";
        assert_eq!(list(odd), [("a:b.c-d_é".into(), Value::Days(14))]);
        for value in ["x", "366", "-1", "+7", "", "7 8"] {
            let raw = format!("vzdump: j\n\tfullbackup {value}\n");
            assert_eq!(list(&raw), [("j".into(), Value::Odd)], "{value}");
        }
        // A line of blanks does not end a section, an empty one does.
        assert_eq!(list("vzdump: j\n \n\tfullbackup 0\n"), [("j".into(), Value::Days(0))]);
        assert_eq!(list("vzdump: j\n\n\tfullbackup 0\n"), [("j".into(), Value::None)]);
        // The last section of an ID counts, the first valid value in it.
        let twice =
            "vzdump: j\n\tfullbackup 1\n\nvzdump: j\n\tfullbackup x\n\tfullbackup 2\n\tfullbackup 3\n";
        assert_eq!(list(twice), [("j".into(), Value::Days(2))]);
        assert_eq!(list(": j\nvzdump:\nvzdump: a b\nvzdump a: b\n0\n"), []);
        // Where and whether a job runs is read by the same rules.
        let runs = |raw: &str| jobs(raw.as_bytes()).into_iter().map(|job| (job.node, job.enabled)).next();
        assert_eq!(
            runs("vzdump: j\n\tnode pve2\n\tnode pve3\n\tenabled No\n"),
            Some((Some("pve2".into()), false))
        );
        assert_eq!(runs("vzdump: j\n\tenabled often\n\tenabled 0\n\tenabled 1\n"), Some((None, false)));
        assert_eq!(runs("vzdump: j\n\n\tenabled 0\n"), Some((None, true)));
        let how =
            jobs(b"vzdump: j\n\tstorage nas\n\tfleecing 1,storage=local\n\tstorage usb\n").remove(0).how;
        assert_eq!(how, BTreeMap::from([("storage", "nas".into()), ("fleecing", "1,storage=local".into())]));
        assert!(jobs(b"vzdump: \xff\n\tfullbackup 1\n\n\xff\xfe\n\t\n:\n").is_empty());
    }

    #[test]
    fn only_the_option_comes_and_goes() {
        let without_option = FILE.replace("\tfullbackup 7\n", "");
        assert_eq!(text(without(FILE.as_bytes())), without_option);
        let values = [("weekly", 30), ("nightly", 7), ("gone", 1), ("r", 2)];
        assert_eq!(
            text(with(without_option.as_bytes(), &values)),
            without_option.replace("\tstorage nas\n", "\tstorage nas\n\tfullbackup 7\n")
                + "\n\tfullbackup 30\n"
        );
        // A job with a value of its own keeps it, and so does one whose value is odd.
        let own = "vzdump: nightly\n\tfullbackup 1\n\nvzdump: weekly\n\tfullbackup ?\n";
        assert_eq!(text(with(own.as_bytes(), &values)), own);
        assert_eq!(text(with(b"vzdump: weekly", &values)), "vzdump: weekly\n\tfullbackup 30\n");
        assert_eq!(text(without(b"")), "");
    }
}
