//! Backups as read-only file systems, through FUSE.
//!
//! A [`Source`] says which files there are and what they hold: the disks of a VM's backup ([`disks`]), or the files of a
//! container's ([`container`]). [`Mount`] connects it with the kernel: `fuser` speaks the protocol without libfuse, and `fusermount3`
//! mounts for those who are not root. Only the user who mounted it sees what is inside, unless others were allowed to.

mod container;
mod disks;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request, Session, SessionACL,
};

use rustix::fs::{AtFlags, StatxFlags};
use rustix::mount::UnmountFlags;

pub use container::Container;
pub use disks::Disks;

use crate::container::Sparse;
use crate::files::Xattrs;

/// How long the kernel may rely on what it was told: nothing ever changes.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// How many bytes the kernel may read ahead.
const READ_AHEAD: u32 = 1 << 20;
/// The length of a block in the counts of blocks.
const BLOCK: u64 = 512;
/// Ways to seek, as in lseek(2).
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// The number of a file; that of the mounted folder is 0.
pub type Node = usize;

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// What it is.
    pub kind: FileType,
    /// Its mode, without its kind.
    pub mode: u16,
    /// The number of its owner.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Its length in bytes.
    pub size: u64,
    /// How many of them are no holes.
    pub held: u64,
    /// When it was changed last.
    pub mtime: SystemTime,
    /// How many names it has.
    pub links: u32,
    /// The numbers of a device.
    pub device: (u32, u32),
}

/// What is mounted. Files are known by numbers below the number of all files.
pub trait Source: Send + Sync {
    /// Tells what is known of a file.
    fn attributes(&self, node: Node) -> Option<Attributes>;
    /// Finds a file in a folder by its name.
    fn child(&self, folder: Node, name: &[u8]) -> Option<Node>;
    /// The folder that a folder is in.
    fn parent(&self, folder: Node) -> Node;
    /// Lists the files in a folder.
    fn list(&self, folder: Node) -> Vec<(Vec<u8>, Node)>;
    /// Where a symbolic link leads.
    fn link(&self, node: Node) -> Option<Vec<u8>>;
    /// Opens a file.
    ///
    /// # Errors
    /// Fails where the backup cannot be read.
    fn open(&self, node: Node) -> io::Result<Arc<dyn Sparse>>;
    /// Lists a file's extended attributes, with their values.
    ///
    /// # Errors
    /// Fails where the backup cannot be read.
    fn xattrs(&self, node: Node) -> io::Result<Xattrs>;
}

/// How to mount.
pub struct How<'a> {
    /// The folder to mount at.
    pub at: &'a Path,
    /// The name of the backup, for lists of mounts.
    pub name: &'a str,
    /// Whether other users may look inside, as far as owners and modes let them.
    pub others: bool,
    /// How many requests are worked on at a time.
    pub threads: usize,
}

/// A mounted backup.
pub struct Mount {
    session: Session<Files>,
}

/// Ends a mount from elsewhere.
pub struct Unmount {
    at: PathBuf,
    /// The device of the mount, which no other one has while this one is served.
    device: (u32, u32),
}

impl Mount {
    /// Mounts a backup. `trouble` is told what cannot be read.
    ///
    /// # Errors
    /// Fails where the system does not let this user mount there.
    pub fn new(
        source: impl Source + 'static,
        how: &How,
        trouble: impl Fn(&str) + Send + Sync + 'static,
    ) -> io::Result<(Mount, Unmount)> {
        let files = Files { source: Box::new(source), trouble: Box::new(trouble), open: Mutex::default() };
        let mut config = Config::default();
        // A comma would begin another option.
        let name = how.name.replace([',', '\\', '\n'], "_");
        config.mount_options = vec![
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoAtime,
            MountOption::FSName(name),
            MountOption::Subtype("pve-xdelta3".into()),
        ];
        config.n_threads = Some(how.threads.max(1));
        if how.others {
            config.acl = SessionACL::All;
            config.mount_options.push(MountOption::DefaultPermissions);
        }
        let at = how.at.canonicalize()?;
        let session = Session::new(files, &at, &config)?;
        let device = device(&at)?;
        Ok((Mount { session }, Unmount { at, device }))
    }

    /// Answers the kernel until it is unmounted, by whomever.
    ///
    /// # Errors
    /// Fails where the connection with the kernel does.
    pub fn run(self) -> io::Result<()> {
        let mut session = self.session.spawn()?;
        let nothing = std::thread::Builder::new().spawn(|| Ok(()))?;
        let serves = std::mem::replace(&mut session.guard, nothing);
        // Dropped, it would unmount whatever is at the path then: somebody's next mount.
        std::mem::forget(session);
        serves.join().map_err(|_| io::Error::other("a thread that answers the kernel has failed"))?
    }
}

impl Unmount {
    /// Unmounts; where files are still open there, the mount vanishes at once and ends with the last of them. What others have
    /// mounted over it stays. `by_helper` unmounts for users other than root.
    ///
    /// # Errors
    /// Fails where the system does not let this user, or something else lies over the mount.
    pub fn unmount(self, by_helper: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        // The system unmounts whatever is at a path.
        if device(&self.at)? != self.device {
            let text = "something else is mounted over it, and stays; what lies below can be read no more (umount twice)";
            return Err(io::Error::other(text));
        }
        match rustix::mount::unmount(&self.at, UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::PERM) => by_helper(&self.at),
            Err(_) => Ok(rustix::mount::unmount(&self.at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?),
        }
    }
}

/// The device of what is mounted at a path. The one who serves it is not asked.
fn device(path: &Path) -> io::Result<(u32, u32)> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let told = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::empty())?;
    Ok((told.stx_dev_major, told.stx_dev_minor))
}

/// What the kernel asks.
struct Files {
    source: Box<dyn Source>,
    trouble: Box<dyn Fn(&str) + Send + Sync>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    files: HashMap<u64, Arc<dyn Sparse>>,
    /// What is in the folders that are being read: their list is made once for each reader.
    folders: HashMap<u64, Arc<List>>,
    next: u64,
}

impl Open {
    fn handle(&mut self) -> FileHandle {
        self.next += 1;
        FileHandle(self.next)
    }
}

/// Names, and their files.
type List = Vec<(Vec<u8>, Node)>;

fn node(ino: INodeNo) -> Node {
    (ino.0 - 1) as Node
}

fn number(node: Node) -> INodeNo {
    INodeNo(node as u64 + 1)
}

impl Files {
    fn attr(&self, node: Node) -> Option<FileAttr> {
        let a = self.source.attributes(node)?;
        Some(FileAttr {
            ino: number(node),
            size: a.size,
            blocks: a.held.div_ceil(BLOCK),
            atime: a.mtime,
            mtime: a.mtime,
            ctime: a.mtime,
            crtime: a.mtime,
            kind: a.kind,
            perm: a.mode,
            nlink: a.links,
            uid: a.uid,
            gid: a.gid,
            rdev: rustix::fs::makedev(a.device.0, a.device.1) as u32,
            blksize: 4096,
            flags: 0,
        })
    }

    fn state(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, handle: FileHandle) -> Option<Arc<dyn Sparse>> {
        self.state().files.get(&handle.0).cloned()
    }

    fn failed(&self, error: &io::Error) -> Errno {
        (self.trouble)(&error.to_string());
        Errno::EIO
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What the kernel is too old for it does without.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.set_max_readahead(READ_AHEAD);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.source.child(node(parent), name.as_bytes()).and_then(|node| self.attr(node));
        match found {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(node(ino)) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.source.link(node(ino)) {
            Some(link) => reply.data(&link),
            None => reply.error(Errno::EINVAL),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.source.open(node(ino)) {
            Ok(file) => {
                let mut open = self.state();
                let handle = open.handle();
                open.files.insert(handle.0, file);
                reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(self.failed(&error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state().files.remove(&handle.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = self.opened(handle) else { return reply.error(Errno::EBADF) };
        let left = file.size().saturating_sub(offset);
        let mut buf = vec![0; left.min(size.into()) as usize];
        match file.read_at(offset, &mut buf) {
            Ok(()) => reply.data(&buf),
            Err(error) => reply.error(self.failed(&error)),
        }
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(file) = self.opened(handle) else { return reply.error(Errno::EBADF) };
        let (size, Ok(mut at)) = (file.size(), u64::try_from(offset)) else {
            return reply.error(Errno::ENXIO);
        };
        let wanted = match whence {
            SEEK_DATA => true,
            SEEK_HOLE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        if at >= size {
            return reply.error(Errno::ENXIO);
        }
        while at < size {
            let (is_data, len) = file.run(at, size - at);
            if is_data == wanted {
                return reply.offset(at as i64);
            }
            at += len;
        }
        // Behind the end there is a hole.
        if wanted { reply.error(Errno::ENXIO) } else { reply.offset(size as i64) }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let folder = node(ino);
        let mut list = vec![(b".".to_vec(), folder), (b"..".to_vec(), self.source.parent(folder))];
        list.extend(self.source.list(folder));
        let mut open = self.state();
        let handle = open.handle();
        open.folders.insert(handle.0, Arc::new(list));
        reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.state().folders.remove(&handle.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let list = self.state().folders.get(&handle.0).cloned();
        let Some(list) = list else { return reply.error(Errno::EBADF) };
        for (n, (name, node)) in list.iter().enumerate().skip(offset as usize) {
            let Some(attributes) = self.source.attributes(*node) else { continue };
            if reply.add(number(*node), n as u64 + 1, attributes.kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.source.xattrs(node(ino)) {
            Ok(list) => match list.into_iter().find(|(own, _)| own == name.as_bytes()) {
                Some((_, value)) => xattr(&value, size, reply),
                None => reply.error(Errno::ENODATA),
            },
            Err(error) => reply.error(self.failed(&error)),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.source.xattrs(node(ino)) {
            Ok(list) => {
                let names: Vec<u8> = list.iter().flat_map(|(name, _)| [&name[..], &[0]].concat()).collect();
                xattr(&names, size, reply);
            }
            Err(error) => reply.error(self.failed(&error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, BLOCK as u32, 255, BLOCK as u32);
    }
}

/// Answers a question about extended attributes, which may be one for the length alone.
fn xattr(value: &[u8], size: u32, reply: ReplyXattr) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}
