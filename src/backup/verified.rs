//! Keeps the results of verifications in a file: one result a line, as JSON. The last result of a backup counts.
//!
//! A result holds for the very files that were read: the backup's and those of its full, known by directory, name,
//! size, inode and time of change. If any of these differs, the result does not count.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::names::full_forms;

/// The number of bytes of the file that are read, enough for the results of some 200000 backups.
const MAX: u64 = 64 << 20;
/// The number of lines that no longer count which the file may have before it is written anew.
const SPARE: usize = 2000;
/// The age of a result at which it is dropped when the file is written anew.
const KEPT: Duration = Duration::from_secs(400 * 86_400);

/// What identifies a file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    name: String,
    size: u64,
    inode: u64,
    /// The time of change in seconds and nanoseconds.
    mtime: (i64, i64),
}

impl Seen {
    /// Looks at a file. The result is `None` where there is no regular file.
    fn of(dir: &Path, name: &str) -> Option<Seen> {
        let metadata = dir.join(name).symlink_metadata().ok().filter(|it| it.is_file())?;
        Some(Seen {
            name: name.to_owned(),
            size: metadata.len(),
            inode: metadata.ino(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// A backup and the fulls that it needs, as they lie in their directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    directory: String,
    file: Seen,
    /// The full that it needs, in each compression that is there.
    fulls: Vec<Seen>,
}

impl Subject {
    /// Looks at the backup of this name and at the full that it needs. The result is `None` where the backup is not
    /// there, or the path of its directory is not UTF-8.
    pub fn of(dir: &Path, name: &str, full: Option<&str>) -> Option<Subject> {
        let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let directory = here.canonicalize().ok()?.into_os_string().into_string().ok()?;
        Subject::within(here, directory, name, full)
    }

    fn within(dir: &Path, directory: String, name: &str, full: Option<&str>) -> Option<Subject> {
        let forms = full.map(full_forms).unwrap_or_default();
        let fulls = forms.iter().filter_map(|form| Seen::of(dir, form)).collect();
        Some(Subject { directory, file: Seen::of(dir, name)?, fulls })
    }
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The time of the verification, in seconds since 1970.
    pub at: u64,
    /// Whether the backup can be restored.
    pub good: bool,
    /// What a restore gives, if that was looked at then or before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
}

/// The proof that a backup restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The time of the proof, in seconds since 1970.
    pub at: u64,
    /// What the restore gave, in words.
    pub gave: String,
}

impl Outcome {
    /// Makes a result with the present time.
    pub fn now(good: bool) -> Outcome {
        Outcome { at: seconds(SystemTime::now()), good, restored: None }
    }

    /// Adds what a restore gave now.
    #[must_use]
    pub fn restored(self, gave: String) -> Outcome {
        Outcome { restored: Some(Restored { at: self.at, gave }), ..self }
    }

    /// Tells how long ago that was. It is `None` where the time lies in the future, because a clock was wrong.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        seconds(now).checked_sub(self.at).map(Duration::from_secs)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(flatten)]
    subject: Subject,
}

/// All results that are known.
#[derive(Debug, Default)]
pub struct Results {
    /// The results, by directory and then by the name of the backup.
    known: HashMap<String, HashMap<String, (Subject, Outcome)>>,
    lines: usize,
}

impl Results {
    /// Reads the file. Where there is none, no result is known. Lines that are no results are passed over.
    ///
    /// # Errors
    /// Fails where the file cannot be read.
    pub fn read(path: &Path) -> io::Result<Results> {
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MAX).read_to_end(&mut text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Results::default()),
            Err(error) => return Err(error),
        };
        let mut results = Results::default();
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            results.lines += 1;
            if let Ok(Line { subject, outcome }) = serde_json::from_slice(line) {
                let of_directory = results.known.entry(subject.directory.clone()).or_default();
                of_directory.insert(subject.file.name.clone(), (subject, outcome));
            }
        }
        Ok(results)
    }

    /// Returns the result for a backup whose files have not changed since.
    pub fn of(&self, subject: &Subject) -> Option<&Outcome> {
        let (known, outcome) = self.known.get(&subject.directory)?.get(&subject.file.name)?;
        (known == subject).then_some(outcome)
    }

    /// Serves the same for many backups of one directory. Only backups with a result are looked at.
    pub fn in_directory(&self, dir: &Path) -> OfDirectory<'_> {
        let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let directory = here.canonicalize().ok().and_then(|it| it.into_os_string().into_string().ok());
        OfDirectory { known: directory.and_then(|it| self.known.get(&it)) }
    }

    /// Writes the file anew where most of its lines no longer count.
    ///
    /// # Errors
    /// Fails where the file cannot be written. It is then as it was.
    pub fn tidy(&self, path: &Path) -> io::Result<()> {
        let all = || self.known.values().flat_map(HashMap::values);
        if self.lines < 2 * all().count() + SPARE {
            return Ok(());
        }
        let now = SystemTime::now();
        let mut text = Vec::new();
        for (subject, outcome) in all().filter(|(_, outcome)| outcome.age(now).is_some_and(|age| age < KEPT))
        {
            text.extend(line(subject, outcome)?);
        }
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path))
    }
}

/// The results for the backups of one directory; see [`Results::in_directory`].
pub struct OfDirectory<'a> {
    known: Option<&'a HashMap<String, (Subject, Outcome)>>,
}

impl OfDirectory<'_> {
    /// Returns the result for a backup, if it and its full have not changed since.
    pub fn of(&self, dir: &Path, name: &str, full: Option<&str>) -> Option<Outcome> {
        let (known, outcome) = self.known?.get(name)?;
        let subject = Subject::within(dir, known.directory.clone(), name, full)?;
        (subject == *known).then(|| outcome.clone())
    }
}

/// Appends a result to the file. Several programs may do so at the same time.
///
/// # Errors
/// Fails where the file cannot be written.
pub fn note(path: &Path, subject: &Subject, outcome: &Outcome) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    file.write_all(&line(subject, outcome)?)
}

fn line(subject: &Subject, outcome: &Outcome) -> io::Result<Vec<u8>> {
    let line = Line { outcome: outcome.clone(), subject: subject.clone() };
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst";
    const DIFF: &str =
        "vzdump-qemu-101-2026_11_20-01_00_02.vma.zst--differential-2026_11_21-01_00_02.vcdiff.zst";

    #[test]
    fn a_result_holds_for_the_files_that_were_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, dump) = (dir.path().join("verified"), dir.path().join("dump"));
        fs::create_dir(&dump).unwrap();
        fs::write(dump.join(FULL), "full").unwrap();
        fs::write(dump.join(DIFF), "diff").unwrap();
        let subject = || Subject::of(&dump, DIFF, Some(FULL)).unwrap();
        let read = || Results::read(&file).unwrap();
        let known = || read().of(&subject()).map(|it| it.good);
        assert_eq!(known(), None);
        note(&file, &subject(), &Outcome::now(false)).unwrap();
        assert_eq!(known(), Some(false));
        note(&file, &subject(), &Outcome::now(true)).unwrap();
        assert_eq!(known(), Some(true));
        fs::write(&file, [&b"{\"at\": 1}\nno JSON\n"[..], &fs::read(&file).unwrap(), b"{cut"].concat())
            .unwrap();
        assert_eq!(known(), Some(true));
        let of_directory = |name| read().in_directory(&dump).of(&dump, name, Some(FULL)).map(|it| it.good);
        assert_eq!((of_directory(DIFF), of_directory(FULL)), (Some(true), None));

        // Another full of the same name and size; then the same content beside it in another form; then another differential.
        let was = fs::metadata(dump.join(FULL)).unwrap().modified().unwrap();
        let back = |name: &str| {
            File::options().write(true).open(dump.join(name)).unwrap().set_modified(was).unwrap()
        };
        fs::rename(dump.join(FULL), dir.path().join("old")).unwrap();
        fs::write(dump.join(FULL), "full").unwrap();
        back(FULL);
        assert_eq!((known(), of_directory(DIFF)), (None, None));
        fs::rename(dir.path().join("old"), dump.join(FULL)).unwrap();
        assert_eq!(known(), Some(true));
        let packed = dump.join(FULL.replace(".zst", ".gz"));
        fs::write(&packed, "full").unwrap();
        assert_eq!(known(), None);
        fs::remove_file(packed).unwrap();
        assert_eq!(known(), Some(true));
        fs::write(dump.join(DIFF), "diff!").unwrap();
        assert_eq!(known(), None);
        assert_eq!(Subject::of(&dump, "nothing", None), None);
    }

    #[test]
    fn what_no_longer_counts_goes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("verified");
        fs::write(dir.path().join(FULL), "full").unwrap();
        let subject = Subject::of(dir.path(), FULL, None).unwrap();
        let one = line(&subject, &Outcome::now(true)).unwrap();
        for (lines, left) in [(SPARE, SPARE), (SPARE + 10, 1)] {
            fs::write(&file, one.repeat(lines)).unwrap();
            let results = Results::read(&file).unwrap();
            results.tidy(&file).unwrap();
            let now = Results::read(&file).unwrap();
            assert_eq!((now.lines, now.of(&subject).is_some()), (left, true));
        }
        let old = Outcome { at: 1, good: true, restored: None };
        fs::write(&file, line(&subject, &old).unwrap().repeat(SPARE + 10)).unwrap();
        Results::read(&file).unwrap().tidy(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"");
    }
}
