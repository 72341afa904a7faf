//! Reads backups to their last byte, as a restore would, and checks what comes out.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::chain::Directory;
use super::disk::{Disk, Probe};
use super::names::{self, BackupName, Format, Full};
use super::tar::{self, TarSummary};
use super::verified::Subject;
use crate::container::{ByReading, Skip};
use crate::text::shown;
use crate::vma;

/// Opens a backup as its uncompressed VMA or tar stream. A differential is decoded against the full backup that is
/// given second. The stream must end in an error unless it is proven to be complete.
pub type Open<'a> = &'a (dyn Fn(&Path, Option<&Path>) -> anyhow::Result<Opened> + Sync);

/// The uncompressed stream of a backup.
pub type Opened = Box<dyn Skip + Send>;

/// One backup that is to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The name of the file, made printable.
    pub name: String,
    /// What to read, or why the check cannot even be tried.
    pub source: Result<Source, String>,
}

/// Where a backup's stream comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The full backup that a differential needs.
    pub base: Option<PathBuf>,
    /// The format that the stream must have.
    pub format: Format,
    /// The chain to which the backup belongs.
    pub chain: ChainId,
    /// The folder in which the file was seen.
    folder: Option<Folder>,
}

/// Identifies a chain: by the directory and by the content of its full, however that is compressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChainId {
    directory: PathBuf,
    full: names::Content,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backup can be restored.
    Good {
        /// Length of the stream in bytes.
        bytes: u64,
        /// What the stream consists of.
        content: Content,
        /// What a restore would give, if that was asked for.
        holds: Option<Holds>,
    },
    /// The backup cannot be restored, for this reason.
    Bad(String),
    /// The file was removed while this program ran.
    Gone,
}

/// What a stream consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A virtual machine.
    Vma {
        /// Number of disks.
        disks: usize,
    },
    /// A container.
    Tar {
        /// The number of files, directories, links and so on.
        members: u64,
    },
}

/// What a restore of a backup gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The disks of a virtual machine. All their clusters came, each once.
    Disks(Vec<Disk>),
    /// The files of a container.
    Tree(TarSummary),
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holds::Disks(disks) if disks.is_empty() => f.write_str("no disks"),
            Holds::Disks(disks) => {
                let disks: Vec<_> = disks.iter().map(Disk::to_string).collect();
                f.write_str(&disks.join("; "))
            }
            Holds::Tree(summary) => summary.fmt(f),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Vma { disks: 1 } => f.write_str("VMA, 1 disk"),
            Content::Vma { disks } => write!(f, "VMA, {disks} disks"),
            Content::Tar { members: 1 } => f.write_str("tar, 1 member"),
            Content::Tar { members } => write!(f, "tar, {members} members"),
        }
    }
}

/// Lists the checks for a directory: its differentials, and with `all` the fulls too, each before its differentials.
pub fn tasks(directory: &Directory, all: bool) -> Vec<Task> {
    let mut tasks = Vec::new();
    for chain in &directory.chains {
        if all {
            tasks.push(full(&directory.path, &chain.full));
        }
        for differential in &chain.differentials {
            tasks.push(task(&directory.path, &BackupName::Differential(differential.clone())));
        }
    }
    for orphan in &directory.orphans {
        let reason = format!("its full backup {} is not there", orphan.base().as_str());
        tasks.push(Task { name: orphan.as_str().to_owned(), source: Err(reason) });
    }
    for unusable in &directory.unusable {
        let name = shown(&unusable.name);
        tasks.push(Task { name, source: Err(unusable.reason.to_owned()) });
    }
    tasks
}

/// The check of one backup in `dir`.
pub fn task(dir: &Path, name: &BackupName) -> Task {
    match name {
        BackupName::Full(name) => full(dir, name),
        BackupName::Differential(differential) => {
            let base = Some(dir.join(differential.base().as_str()));
            let source = Source::new(dir, name.as_str(), base, differential.base());
            Task { name: name.as_str().to_owned(), source: Ok(source) }
        }
    }
}

fn full(dir: &Path, name: &Full) -> Task {
    let source = Source::new(dir, name.as_str(), None, name);
    Task { name: name.as_str().to_owned(), source: Ok(source) }
}

/// Reads a backup to its last byte, and if `look`, looks at what a restore would give. `progress` is called with the number of
/// bytes whenever some were read.
pub fn check(task: &Task, open: Open, look: bool, progress: &dyn Fn(u64)) -> Verdict {
    let source = match &task.source {
        Ok(source) => source,
        Err(reason) => return Verdict::Bad(reason.clone()),
    };
    match read(source, open, look, progress) {
        Ok(good) => good,
        // pruned meanwhile; a full alone that vanishes still is a failure of its differential
        Err(_) if source.is_gone() => Verdict::Gone,
        Err(error) => Verdict::Bad(one_line(&error)),
    }
}

impl Source {
    fn new(dir: &Path, name: &str, base: Option<PathBuf>, full: &Full) -> Source {
        let chain = ChainId { directory: dir.to_owned(), full: full.content() };
        Source { path: dir.join(name), base, format: full.format(), chain, folder: Folder::at(dir) }
    }

    /// The files that a check reads, with what tells whether they change.
    pub fn subject(&self) -> Option<Subject> {
        let name = self.path.file_name()?.to_str()?;
        let full = self.base.as_ref().map(|base| base.file_name().and_then(|it| it.to_str()));
        Subject::of(self.path.parent().unwrap_or(Path::new("")), name, full.flatten())
    }

    /// Tells whether the file was certainly removed. Where the storage fails, or the folder may not be searched, that
    /// is not certain. Nor is it where another folder now lies in the place of the one in which the file was seen: then
    /// a share was unmounted or moved.
    fn is_gone(&self) -> bool {
        let is_missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        let dir = self.path.parent().unwrap_or(Path::new(""));
        self.path.symlink_metadata().is_err_and(is_missing)
            && self.folder.is_some()
            && self.folder == Folder::at(dir)
    }
}

/// Identifies a folder, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Folder {
    device: u64,
    inode: u64,
}

impl Folder {
    fn at(path: &Path) -> Option<Folder> {
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let metadata = here.metadata().ok()?;
        Some(Folder { device: metadata.dev(), inode: metadata.ino() })
    }
}

fn read(source: &Source, open: Open, look: bool, progress: &dyn Fn(u64)) -> anyhow::Result<Verdict> {
    let opened = || -> anyhow::Result<_> {
        Ok(Watched { inner: open(&source.path, source.base.as_deref())?, progress })
    };
    let stream = opened()?;
    match source.format {
        Format::Vma if !look => {
            let reader = vma::Reader::new(stream)?;
            let content = Content::Vma { disks: reader.header().devices.len() };
            Ok(Verdict::Good { bytes: reader.skim()?.bytes, content, holds: None })
        }
        Format::Vma => {
            let mut reader = vma::Reader::new(stream)?;
            let devices = reader.header().devices.clone();
            let mut probes: Vec<_> = devices.iter().map(Probe::new).collect();
            probe_all(&mut reader, &mut probes)?;
            let bytes = reader.summary().bytes;
            // A partition was known only when its beginning had passed: that is rare, as archives begin with the front of disks.
            if probes.iter().flatten().any(Probe::has_missed) {
                probes.iter_mut().flatten().for_each(Probe::again);
                probe_all(&mut vma::Reader::new(opened()?)?, &mut probes)?;
            }
            let disks = probes.into_iter().flatten().map(Probe::finish).collect();
            let content = Content::Vma { disks: devices.len() };
            Ok(Verdict::Good { bytes, content, holds: Some(Holds::Disks(disks)) })
        }
        Format::Tar => {
            let summary = tar::check(stream)?;
            let content = Content::Tar { members: summary.members };
            Ok(Verdict::Good { bytes: summary.bytes, content, holds: look.then_some(Holds::Tree(summary)) })
        }
    }
}

/// Reads an archive to its last byte and checks its structure. The result holds its length in bytes.
///
/// # Errors
/// Fails where reading fails, and where the archive is not whole.
pub(super) fn walk(stream: impl Read, format: Format) -> anyhow::Result<(u64, Content)> {
    match format {
        Format::Vma => {
            let mut reader = vma::Reader::new(stream)?;
            while reader.next()?.is_some() {}
            Ok((reader.summary().bytes, Content::Vma { disks: reader.header().devices.len() }))
        }
        Format::Tar => {
            let summary = tar::check(ByReading::new(stream))?;
            Ok((summary.bytes, Content::Tar { members: summary.members }))
        }
    }
}

/// Reads a VM's archive to its end. Each probe takes the clusters of the device at its place in the header.
fn probe_all(reader: &mut vma::Reader<impl Read>, probes: &mut [Option<Probe>]) -> Result<(), vma::Error> {
    let ids: Vec<u8> = reader.header().devices.iter().map(|it| it.id).collect();
    while let Some(event) = reader.next()? {
        let vma::Event::Cluster { device, cluster, data } = event else { continue };
        let place = ids.iter().position(|id| *id == device.id);
        if let Some(Some(probe)) = place.and_then(|place| probes.get_mut(place)) {
            probe.take(cluster, data);
        }
    }
    Ok(())
}

/// Writes an error with its causes on one line.
fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bytes that are passed over before somebody is told.
const STEP: u64 = 1 << 20;

/// A stream that tells how much was read of it.
struct Watched<'a, R> {
    inner: R,
    progress: &'a dyn Fn(u64),
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        (self.progress)(n as u64);
        Ok(n)
    }
}

impl<R: Skip> Skip for Watched<'_, R> {
    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let mut passed = 0;
        // In small steps, so that whoever counts can hold it back.
        while passed < n {
            let step = (n - passed).min(STEP);
            let got = self.inner.skip(step)?;
            (self.progress)(got);
            passed += got;
            if got < step {
                break;
            }
        }
        Ok(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs::{self, File};

    const VM: &str = "vzdump-qemu-101-2026_11_20-01_00_02.vma";
    const CT: &str = "vzdump-lxc-100-2026_11_20-01_00_02.tar";

    fn difference(of: &str) -> String {
        format!("{of}--differential-2026_11_21-01_00_02.vcdiff")
    }

    /// Takes a differential for what is appended to its full.
    fn append(path: &Path, base: Option<&Path>) -> anyhow::Result<Opened> {
        let file = File::open(path)?;
        Ok(match base {
            Some(base) => Box::new(ByReading::new(File::open(base)?.chain(file))),
            None => Box::new(ByReading::new(file)),
        })
    }

    fn vma(disk: &[u8]) -> Vec<u8> {
        let device = vma::Device { id: 1, name: "drive-scsi0".into(), size: 65536 };
        let header = vma::Header { uuid: [1; 16], ctime: 0, configs: vec![], devices: vec![device] };
        let mut images = [io::Cursor::new(disk.to_vec())];
        vma::write_archive(Vec::new(), header, &mut images, vma::Order::Sequential).unwrap()
    }

    /// A directory whose differentials are the second halves of their archives.
    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let archive = vma(&[1; 5000]);
        fs::write(dir.path().join(VM), &archive[..9000]).unwrap();
        fs::write(dir.path().join(difference(VM)), &archive[9000..]).unwrap();
        let tar =
            std::process::Command::new("tar").args(["c", "-C", "/etc", "hostname"]).output().unwrap().stdout;
        fs::write(dir.path().join(CT), &tar[..700]).unwrap();
        fs::write(dir.path().join(difference(CT)), &tar[700..]).unwrap();
        dir
    }

    fn verdicts(dir: &Path, all: bool) -> Vec<(String, Verdict)> {
        let directory = Directory::scan(dir).unwrap();
        tasks(&directory, all)
            .into_iter()
            .map(|t| (t.name.clone(), check(&t, &append, false, &|_| ())))
            .collect()
    }

    #[test]
    fn differentials_are_read_through_their_fulls() {
        let dir = directory();
        let found = verdicts(dir.path(), false);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, difference(CT));
        assert!(
            matches!(found[0].1, Verdict::Good { content: Content::Tar { members: 1 }, .. }),
            "{found:?}"
        );
        let Verdict::Good { bytes, content, .. } = &found[1].1 else { panic!("{found:?}") };
        assert_eq!((*bytes, content.to_string()), (vma(&[1; 5000]).len() as u64, "VMA, 1 disk".into()));
    }

    #[test]
    fn fulls_are_checked_when_asked_for() {
        let dir = directory();
        fs::write(dir.path().join(VM), vma(&[2; 70])).unwrap();
        let found = verdicts(dir.path(), true);
        assert_eq!(found.len(), 4);
        // the container's is only the first half of an archive
        assert!(matches!(&found[0].1, Verdict::Bad(reason) if reason.contains("truncated")), "{found:?}");
        assert!(matches!(&found[2].1, Verdict::Good { .. }), "{found:?}");
        // and the differential now has another archive before it
        assert!(matches!(&found[3].1, Verdict::Bad(_)), "{found:?}");
    }

    #[test]
    fn what_cannot_be_tried_is_a_failure_with_its_reason() {
        let dir = directory();
        fs::remove_file(dir.path().join(VM)).unwrap();
        fs::write(dir.path().join("my\nbackup.vcdiff.zst"), "").unwrap();
        let found = verdicts(dir.path(), false);
        assert_eq!(found[1], (difference(VM), Verdict::Bad(format!("its full backup {VM} is not there"))));
        let reason = "the name is not that of a differential backup".to_owned();
        assert_eq!(found[2], ("my\\nbackup.vcdiff.zst".into(), Verdict::Bad(reason)));
    }

    #[test]
    fn a_backup_pruned_meanwhile_is_no_failure() {
        let dir = directory();
        let tasks = tasks(&Directory::scan(dir.path()).unwrap(), false);
        fs::remove_file(dir.path().join(difference(VM))).unwrap();
        assert_eq!(check(&tasks[1], &append, false, &|_| ()), Verdict::Gone);
        fs::remove_file(dir.path().join(CT)).unwrap();
        assert!(matches!(check(&tasks[0], &append, false, &|_| ()), Verdict::Bad(_)));
    }

    #[test]
    fn what_cannot_be_seen_any_more_is_not_gone() {
        let outer = directory();
        let here = outer.path().join("storage");
        let seen = || {
            fs::create_dir(&here).unwrap();
            fs::copy(outer.path().join(VM), here.join(VM)).unwrap();
            fs::copy(outer.path().join(difference(VM)), here.join(difference(VM))).unwrap();
            tasks(&Directory::scan(&here).unwrap(), false).remove(0)
        };
        let is_gone = |task: &Task| check(task, &append, false, &|_| ()) == Verdict::Gone;
        let task = seen();
        // Another folder in its place, as after an unmount; none at all; and a file, below which nothing can be looked up.
        fs::rename(&here, outer.path().join("away")).unwrap();
        assert!(!is_gone(&task));
        fs::create_dir(&here).unwrap();
        assert!(!is_gone(&task));
        fs::remove_dir(&here).unwrap();
        fs::write(&here, "").unwrap();
        assert!(!is_gone(&task));
        fs::remove_file(&here).unwrap();
        let task = seen();
        fs::remove_file(here.join(difference(VM))).unwrap();
        assert!(is_gone(&task));
    }

    #[test]
    fn progress_adds_up_to_the_stream() {
        let dir = directory();
        let seen = Cell::new(0);
        let tasks = tasks(&Directory::scan(dir.path()).unwrap(), false);
        let verdict = check(&tasks[1], &append, false, &|n| seen.set(seen.get() + n));
        assert!(matches!(verdict, Verdict::Good { bytes, .. } if bytes == seen.get()));
    }

    #[test]
    fn errors_become_one_line() {
        let cause = io::Error::other("frame 3:\n  checksum wrong");
        let error = anyhow::Error::new(cause).context("cannot read\tx");
        assert_eq!(one_line(&error), "cannot read x: frame 3: checksum wrong");
    }
}
