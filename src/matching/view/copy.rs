//! Copies of contents that can be read from their front only, in a form that can be read at any position.
//!
//! A copy is a zstd file with a seek table. Behind its frames, which have checksums, comes a side frame that says what it is
//! a copy of, and whether it is complete:
//!
//! ```text
//! "pvedbCPY"  version u8, key [16], length of the content u64, checksum [16] of what comes behind it, then what the owner
//!             of the copy adds
//! ```
//! The key is a checksum of what identifies the file: device, inode, length, times, and samples of its bytes. Copies lie
//! in a folder that nobody else can write to, else they get no name and go with the program. One that was not used for a
//! week is removed.
//!
//! Until it is complete a copy has no name either, so that it goes with a program that is killed. Where the file system needs a
//! name, its writer holds a lock (flock), and the next program removes those that nobody holds.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock};

use super::Opening;
use super::frames::Streamed;
use crate::container;
use crate::container::ReadAt;
use crate::container::seekable::{ReadOptions, Seekable, Tag, Writer};
use crate::matching::base::Base;
use crate::matching::fingerprint::checksum;
use crate::matching::{BaseProblem, Error};
use crate::text::{hex, shown};

const TAG: Tag = *b"pvedbCPY";
const VERSION: u8 = 1;
const HEAD: usize = 1 + 16 + 8 + 16;
/// The most bytes that the owner of a copy may add in one side frame.
const MAX_ADDED: usize = 8 << 20;
/// Bytes of content in a frame.
const FRAME: usize = 256 << 10;
/// The name of the folder below the user's folder of caches, and what the names in it end in.
const FOLDER: &str = "pve-xdelta3";
const ENDING: &str = ".copy";
/// The names of copies that are not complete.
const NEW: [&str; 2] = ["new-", ".tmp"];
/// A copy that was not used for so long is removed.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);
const LEFT: Duration = Duration::from_secs(24 * 3600);
/// So many bytes of the file system stay free, or this share of a small one: a copy is no reason to fill a disk.
const FREE: u64 = 2 << 30;
const FREE_SHARE: u64 = 20;
/// After so many bytes the room is looked at again.
const LOOK: u64 = 64 << 20;

/// Where copies are kept.
pub struct Store {
    /// The folder; none where no folder is safe: then copies have no names.
    folder: Option<PathBuf>,
}

/// A copy that is complete.
pub(super) struct Copied {
    content: Arc<Seekable>,
    /// Where it lies, if it has a name.
    path: Option<PathBuf>,
    /// What its owner added.
    pub added: Vec<u8>,
}

/// The content of a copy.
pub(super) struct CopyReader {
    content: Box<dyn ReadAt>,
    path: Option<PathBuf>,
}

impl Copied {
    /// Opens the content; so many bytes are kept decompressed.
    pub fn reader(&self, cache: usize) -> CopyReader {
        let options = ReadOptions { cache, checksums: true, fronts: false };
        CopyReader { content: Box::new(self.content.reader(options)), path: self.path.clone() }
    }

    /// As [`Copied::reader`]; whoever reads on is read ahead for.
    pub fn streamed(&self, cache: usize) -> CopyReader {
        let options = ReadOptions { cache, checksums: true, fronts: false };
        CopyReader { content: Box::new(Streamed::new(self.content.reader(options))), path: self.path.clone() }
    }
}

impl ReadAt for CopyReader {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.content.read_at(pos, buf).map_err(|error| match &self.path {
            // It can be made anew, which it is the next time.
            Some(path) if error.kind() == io::ErrorKind::InvalidData => {
                let text = match fs::remove_file(path).or_else(gone) {
                    Ok(()) => "was damaged, and is removed: try again".to_owned(),
                    Err(why) => {
                        format!("is damaged, and cannot be removed ({why}): remove it, and try again")
                    }
                };
                io::Error::new(error.kind(), format!("its copy {} {text} ({error})", shown(path)))
            }
            _ => error,
        })
    }
}

/// Another read may have found the damage first.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// What identifies a file.
pub(super) struct Identity(Vec<u8>);

impl Identity {
    pub fn of(base: &Base) -> io::Result<Identity> {
        let file = base.file().ok_or_else(|| io::Error::other("it can be read only once"))?;
        let m = file.metadata()?;
        let times = [m.mtime() as u64, m.mtime_nsec() as u64, m.ctime() as u64, m.ctime_nsec() as u64];
        let numbers = [m.dev(), m.ino(), m.len()].into_iter().chain(times);
        let mut all: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        all.extend(base.identity);
        all.extend(base.head);
        Ok(Identity(all))
    }

    /// Makes the key of a copy of this kind: one with another key is of another file, or of another kind.
    fn key(&self, kind: &str) -> Key {
        Key(checksum(&[kind.as_bytes(), &self.0].concat()).to_le_bytes())
    }
}

#[derive(Clone, Copy)]
struct Key([u8; 16]);

impl Store {
    /// Takes the folder `XDG_CACHE_HOME` or `~/.cache` of the user. Where there is none, or others could write to it, copies
    /// get no names and go with the program.
    pub fn of_user() -> Store {
        let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
        let folder = caches.map(|caches| caches.join(FOLDER)).filter(|folder| is_private(folder));
        let store = Store { folder };
        store.sweep();
        store
    }

    /// The folder, as it is named in messages, and how another one is chosen.
    fn place(&self) -> (PathBuf, &'static str) {
        match &self.folder {
            Some(folder) => (folder.clone(), "XDG_CACHE_HOME"),
            None => (temporary(), "TMPDIR"),
        }
    }

    /// Copies the content of a full backup that can be read from its front only, or finds the copy that was made before.
    ///
    /// # Errors
    /// Fails where it cannot be read to its end, or there is no room for the copy.
    pub(super) fn copy_of(&self, base: &Base, opening: &Opening) -> Result<Copied, Error> {
        let io = |source| Error::base(&base.path, BaseProblem::Io(source));
        self.get(base, "full", |out| {
            let content = base.content().map_err(io)?;
            let content = content.ok_or_else(|| io(io::Error::other("it can be read only once")))?;
            let mut content = (opening.whole)(&base.path, content);
            let mut buf = vec![0; FRAME];
            loop {
                let n = container::read_full(&mut content, &mut buf).map_err(io)?;
                if n == 0 {
                    return Ok(Vec::new());
                }
                out(&buf[..n])?;
            }
        })
    }

    /// Finds the copy of this kind of a file, or has it made: `make` passes the content to the function that it gets, and
    /// returns what is added to the copy.
    ///
    /// # Errors
    /// Those of `make`, and where there is no room for the copy.
    pub(super) fn get(
        &self,
        base: &Base,
        kind: &str,
        make: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<Vec<u8>, Error>,
    ) -> Result<Copied, Error> {
        let identity =
            Identity::of(base).map_err(|source| Error::base(&base.path, BaseProblem::Io(source)))?;
        let key = identity.key(kind);
        if let Some(copied) = self.find(key) {
            return Ok(copied);
        }
        let (place, variable) = self.place();
        let failed = |source: io::Error| Error::Io {
            what: format!(
                "{} can be read from its front only, and no copy that can be read at any place could be made in {} (set \
                 {variable} to a folder with more room, or make a full backup with a map of it: pve-xdelta3 full)",
                shown(&base.path),
                shown(&place)
            ),
            source,
        };
        let file = New::begin(self.folder.as_deref()).map_err(failed)?;
        let room = Room::of(file.as_file()).map_err(failed)?;
        let added = write(&file, key, room, &failed, make)?;
        let done = file.as_file().try_clone().map_err(failed)?;
        // What does not get its name serves this program alone.
        let named = self.folder.as_ref().map(|folder| folder.join(name(key)));
        let path = named.filter(|path| file.persist(path).is_ok());
        let content =
            Seekable::open(done).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        Ok(Copied { content: Arc::new(content), path, added })
    }

    /// Reads what was kept of a file under this name, if it has at most `most` bytes.
    pub(super) fn load(&self, identity: &Identity, name: &str, most: u64) -> Option<Vec<u8>> {
        let content = self.find(identity.key(name))?.reader(0);
        let mut bytes = vec![0; usize::try_from(content.size()).ok().filter(|len| *len as u64 <= most)?];
        content.read_at(0, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Keeps something of a file under this name, if there is a folder with room for it.
    pub(super) fn save(&self, identity: &Identity, named: &str, bytes: &[u8]) {
        let Some(folder) = &self.folder else { return };
        let key = identity.key(named);
        let failed = |source| Error::Io { what: "cannot keep it".into(), source };
        let write = || {
            let file = New::begin(Some(folder)).map_err(failed)?;
            let room = Room::of(file.as_file()).map_err(failed)?;
            write(&file, key, room, &failed, |out| out(bytes).map(|()| Vec::new()))?;
            Ok::<_, Error>(file)
        };
        if let Ok(file) = write() {
            let _ = file.persist(&folder.join(name(key)));
        }
    }

    /// Finds a copy that is complete.
    fn find(&self, key: Key) -> Option<Copied> {
        let path = self.folder.as_ref()?.join(name(key));
        let named = path.clone();
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::options().read(true).custom_flags(flags.bits() as i32).open(path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.uid() != own_id() || metadata.mode() & 0o022 != 0 {
            return None;
        }
        let content = Seekable::open(file.try_clone().ok()?).ok()??;
        let mut added = Vec::new();
        for n in 0..content.sides() {
            let (tag, mut bytes) = content.side(n, (MAX_ADDED + HEAD) as u32).ok()?;
            let rest = (bytes.len() >= HEAD).then(|| bytes.split_off(HEAD))?;
            let last = n + 1 == content.sides();
            if tag != TAG || bytes != head(key, content.size(), &rest, last) {
                return None;
            }
            added.extend(rest);
        }
        // It was used now.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        let _ = rustix::fs::futimens(&file, &times);
        (content.sides() > 0).then_some(Copied { content: Arc::new(content), path: Some(named), added })
    }

    /// Removes copies that were not used for long, and what killed programs left.
    fn sweep(&self) {
        let Some(entries) = self.folder.as_ref().and_then(|folder| fs::read_dir(folder).ok()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let goes = match () {
                () if name.ends_with(ENDING) => is_older(&entry.path(), UNUSED),
                () if name.starts_with(NEW[0]) && name.ends_with(NEW[1]) => is_left(&entry.path()),
                () => false,
            };
            if goes {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn is_older(path: &Path, limit: Duration) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|m| m.modified());
    let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
    age.is_some_and(|age| age > limit)
}

/// Whether nobody writes a copy any more.
fn is_left(path: &Path) -> bool {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Some network file systems lock only what is open for writing.
    let file = File::options().read(true).write(true).custom_flags(flags.bits() as i32).open(path);
    file.is_ok_and(|file| match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => true,
        Err(rustix::io::Errno::WOULDBLOCK) => false,
        // Where nothing can be locked, time tells.
        Err(_) => is_older(path, LEFT),
    })
}

/// A file that is being written.
enum New {
    /// It has no name, and goes with the program.
    Nameless(File),
    /// Its name goes with this, or with the next program. It is locked.
    Named(tempfile::NamedTempFile),
}

impl New {
    /// Begins a file in a folder, or one that will never have a name.
    fn begin(folder: Option<&Path>) -> io::Result<New> {
        let Some(folder) = folder else { return Ok(New::Nameless(tempfile::tempfile_in(temporary())?)) };
        let (flags, mode) = (OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600));
        match rustix::fs::open(folder, flags, mode) {
            Ok(file) => Ok(New::Nameless(file.into())),
            // Not every file system has files without names.
            Err(_) => New::named(folder),
        }
    }

    fn named(folder: &Path) -> io::Result<New> {
        loop {
            let file = tempfile::Builder::new().prefix(NEW[0]).suffix(NEW[1]).tempfile_in(folder)?;
            // Where nothing can be locked, others cannot either, and leave it alone for a day.
            let _ = flock(file.as_file(), FlockOperation::NonBlockingLockExclusive);
            // Another program may have taken it for one that was left, before it was locked.
            if file.as_file().metadata()?.nlink() > 0 {
                return Ok(New::Named(file));
            }
        }
    }

    fn as_file(&self) -> &File {
        match self {
            New::Named(file) => file.as_file(),
            New::Nameless(file) => file,
        }
    }

    /// Gives it its name, in the folder where it was begun. What had that name before goes.
    fn persist(self, path: &Path) -> io::Result<()> {
        let file = match self {
            New::Named(file) => return file.persist(path).map(drop).map_err(|error| error.error),
            New::Nameless(file) => file,
        };
        // A name that is taken cannot be given, only to what has another one already.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let folder = path.parent().unwrap_or(Path::new("."));
        let named = tempfile::Builder::new().prefix(NEW[0]).suffix(NEW[1]).make_in(folder, |name| {
            Ok(rustix::fs::linkat(rustix::fs::CWD, &own, rustix::fs::CWD, name, AtFlags::SYMLINK_FOLLOW)?)
        })?;
        named.into_temp_path().persist(path).map_err(|error| error.error)
    }
}

/// Watches over the room that a copy takes.
struct Room<'a> {
    file: &'a File,
    looked: u64,
}

impl Room<'_> {
    fn of(file: &File) -> io::Result<Room<'_>> {
        let room = Room { file, looked: 0 };
        room.look().map(|()| room)
    }

    fn look(&self) -> io::Result<()> {
        let fs = rustix::fs::fstatvfs(self.file)?;
        let least = FREE.min(fs.f_blocks.saturating_mul(fs.f_frsize) / FREE_SHARE);
        if fs.f_bavail.saturating_mul(fs.f_frsize) < least {
            let text = format!("less than {} MiB of the file system would stay free", least >> 20);
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }

    fn written(&mut self, bytes: u64) -> io::Result<()> {
        self.looked += bytes;
        if self.looked >= LOOK {
            self.looked = 0;
            self.look()?;
        }
        Ok(())
    }
}

/// Writes a copy.
fn write(
    file: &New,
    key: Key,
    mut room: Room,
    failed: &dyn Fn(io::Error) -> Error,
    make: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<Vec<u8>, Error>,
) -> Result<Vec<u8>, Error> {
    let mut out = Writer::new(io::BufWriter::with_capacity(1 << 20, file.as_file()));
    let (mut part, mut content) = (Vec::with_capacity(FRAME), 0u64);
    let mut zstd = zstd::bulk::Compressor::new(1).map_err(failed)?;
    zstd.include_checksum(true).map_err(failed)?;
    zstd.include_contentsize(true).map_err(failed)?;
    let mut frame = |part: &[u8], content: &mut u64| -> io::Result<()> {
        let packed = zstd.compress(part)?;
        *content += part.len() as u64;
        room.written(packed.len() as u64)?;
        out.frame(&packed, part.len())
    };
    let added = make(&mut |mut bytes: &[u8]| {
        while !bytes.is_empty() {
            let n = bytes.len().min(FRAME - part.len());
            part.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if part.len() == FRAME {
                frame(&part, &mut content).map_err(failed)?;
                part.clear();
            }
        }
        Ok(())
    })?;
    if !part.is_empty() {
        frame(&part, &mut content).map_err(failed)?;
    }
    let mut parts: Vec<&[u8]> = added.chunks(MAX_ADDED).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    for (n, part) in parts.iter().enumerate() {
        let head = head(key, content, part, n + 1 == parts.len());
        out.side(TAG, &[&head[..], part].concat()).map_err(failed)?;
    }
    out.finish().and_then(|mut out| out.flush()).map_err(failed)?;
    Ok(added)
}

/// Makes the front of a side frame.
fn head(key: Key, content: u64, added: &[u8], last: bool) -> Vec<u8> {
    let sum = checksum(&[&[u8::from(last)], added].concat());
    [&[VERSION][..], &key.0, &content.to_le_bytes(), &sum.to_le_bytes()].concat()
}

fn name(key: Key) -> String {
    hex(&key.0) + ENDING
}

fn own_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a folder for its owner only, if it is not there; tells whether nobody else can write to it.
fn is_private(folder: &Path) -> bool {
    let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let safe = |m: fs::Metadata| m.is_dir() && m.uid() == own_id() && m.mode() & 0o022 == 0;
    fs::symlink_metadata(folder).is_ok_and(safe)
}

fn temporary() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map_or_else(|| "/var/tmp".into(), PathBuf::from)
}
