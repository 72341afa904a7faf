//! The cluster file system below `/etc/pve` (pmxcfs). Only this file writes to it.
//!
//! It is no ordinary file system: it has no hard links and no fsync, and its owners and modes are fixed. A rename replaces a
//! file atomically on all nodes. Without quorum every write is refused (EACCES). A lock is a folder in `priv/lock`, which only
//! one node can make. Another node that wants it asks for its release by setting the folder's time to 0, and pmxcfs removes
//! the folder when it is two minutes old (`PVE::Cluster`, pmxcfs' README).

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::members::{self, MemberList};
use super::root::{Root, RootError, read_bounded};

/// Where it is mounted, relative to the root.
const MOUNT: &str = "etc/pve";

/// The largest file that is read. pmxcfs takes none that is larger.
const MAX_FILE: u64 = 4 << 20;

/// The largest file with the name of a host that is read.
const MAX_NAME: u64 = 4096;

/// How long to wait for a lock; as Proxmox' own code does.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How often to ask for it.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);

/// The mounted cluster file system.
#[derive(Debug, Clone)]
pub struct Pmxcfs {
    root: Root,
    dir: PathBuf,
    node: String,
    members: BTreeSet<String>,
}

/// Why something cannot be done there.
#[derive(Debug, thiserror::Error)]
pub enum PmxcfsError {
    /// Something cannot be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// pmxcfs refuses to write.
    #[error("{}: {cause}: {}", path.display(), advice(cause))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Somebody else holds a lock.
    #[error("{}: held by another process or node for {} seconds: try again later", path.display(), LOCK_PATIENCE.as_secs())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// It does not answer, as happens when corosync hangs.
    #[error("/{MOUNT} did not answer in {} seconds: see systemctl status pve-cluster corosync", .0.as_secs())]
    Silent(Duration),
    /// A path cannot be followed.
    #[error(transparent)]
    Root(#[from] RootError),
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the cluster has no quorum, or this is not root; nothing was changed"
        }
        _ => "nothing was changed",
    }
}

impl PmxcfsError {
    /// Whether only root may look.
    pub fn is_denied(&self) -> bool {
        let (Self::Read { cause, .. } | Self::Write { cause, .. }) = self else { return false };
        cause.kind() == io::ErrorKind::PermissionDenied
    }
}

impl Pmxcfs {
    /// The cluster file system of `root`; `None` where it is not mounted (a chroot, a mounted disk, early boot).
    ///
    /// # Errors
    /// Where it is there but cannot be read.
    pub fn find(root: &Root) -> Result<Option<Self>, PmxcfsError> {
        let dir = root.resolve(MOUNT)?;
        let mut found = Self { root: root.clone(), dir, node: String::new(), members: BTreeSet::new() };
        // Without the list it is not mounted. Nothing may be written to the empty folder then, as pmxcfs would not start.
        let Some(members) = found.read(members::NAME)? else { return Ok(None) };
        let MemberList { nodename, nodelist, .. } = MemberList::parse(&members).unwrap_or_default();
        found.node = nodename.unwrap_or_else(|| host_name(root));
        found.members.insert(found.node.clone());
        found.members.extend(nodelist.into_keys());
        // Until corosync runs, the list above lacks all others.
        if let Some(corosync) = found.read("corosync.conf")? {
            found.members.extend(node_names(&String::from_utf8_lossy(&corosync)));
        }
        Ok(Some(found))
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The cluster's members; this node alone where there is no cluster.
    pub fn members(&self) -> &BTreeSet<String> {
        &self.members
    }

    /// Reads a file; `None` where there is none.
    ///
    /// # Errors
    /// [`PmxcfsError::Read`]
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, PmxcfsError> {
        let path = self.root.resolve(format!("{MOUNT}/{name}"))?;
        match read_bounded(&path, MAX_FILE) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(PmxcfsError::Read { path, cause }),
        }
    }

    /// Replaces a file, as `PVE::Tools::file_set_contents` does. The caller must hold its lock.
    ///
    /// # Errors
    /// [`PmxcfsError::Write`]; then the file is as it was.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), PmxcfsError> {
        let path = self.dir.join(name);
        let staged = self.dir.join(format!("{name}.tmp.{}", std::process::id()));
        let written = (|| {
            // Left by a process of the same number.
            match fs::remove_file(&staged) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).open(&staged)?;
            file.write_all(content)?;
            drop(file);
            fs::rename(&staged, &path)
        })();
        written.map_err(|cause| {
            let _ = fs::remove_file(&staged);
            PmxcfsError::Write { path, cause }
        })
    }

    /// Takes the locks under which Proxmox' own code changes these files, in the order given.
    ///
    /// # Errors
    /// [`PmxcfsError::Locked`], [`PmxcfsError::Write`]
    pub fn lock(&self, files: &[&str]) -> Result<Lock, PmxcfsError> {
        let mut lock = Lock { dirs: Vec::new() };
        let folder = self.root.resolve(format!("{MOUNT}/priv/lock"))?;
        // There is no harm where it exists, and what else is wrong shows below.
        let _ = fs::create_dir(&folder);
        for file in files {
            let dir = folder.join(format!("file-{}", file.replace(['.', '/'], "_")));
            acquire(&dir)?;
            lock.dirs.push(dir);
        }
        Ok(lock)
    }
}

/// Whether `root` is a host of Proxmox VE whose cluster file system is not mounted: its folder is there, and empty.
pub fn is_unmounted(root: &Root) -> bool {
    let entries = root.resolve(MOUNT).ok().and_then(|dir| fs::read_dir(dir).ok());
    entries.is_some_and(|mut entries| entries.next().is_none())
}

/// Locks that are held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    dirs: Vec<PathBuf>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        for dir in self.dirs.iter().rev() {
            // It expires by itself otherwise.
            let _ = fs::remove_dir(dir);
        }
    }
}

fn acquire(dir: &Path) -> Result<(), PmxcfsError> {
    let begin = Instant::now();
    loop {
        match fs::create_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(PmxcfsError::Write { path: dir.to_owned(), cause }),
        }
        if begin.elapsed() >= LOCK_PATIENCE {
            return Err(PmxcfsError::Locked { path: dir.to_owned() });
        }
        ask_for_release(dir);
        thread::sleep(LOCK_INTERVAL);
    }
}

/// Asks pmxcfs to release a lock. It does so only where the lock is old; the next attempt to take it tells.
fn ask_for_release(dir: &Path) {
    let zero = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: zero, last_modification: zero };
    let _ = rustix::fs::utimensat(rustix::fs::CWD, dir, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
}

/// Runs what uses the cluster file system for at most `limit`: it may hang where corosync does. What hangs is left to
/// end with this process.
///
/// # Errors
/// [`PmxcfsError::Silent`]
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PmxcfsError> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).map_err(|_| PmxcfsError::Silent(limit))
}

/// The name as `PVE::INotify::nodename` has it: without a domain.
fn host_name(root: &Root) -> String {
    let path = match root.is_running_host() {
        true => "proc/sys/kernel/hostname",
        false => "etc/hostname",
    };
    let name =
        root.resolve(path).ok().and_then(|path| read_bounded(&path, MAX_NAME).ok()).unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    name.trim().split('.').next().filter(|name| !name.is_empty()).unwrap_or("localhost").to_owned()
}

/// The names in corosync.conf(5)'s node sections; `name` stands nowhere else in it.
fn node_names(corosync: &str) -> impl Iterator<Item = String> {
    corosync.lines().filter_map(|line| Some(line.trim().strip_prefix("name:")?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(members: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/pve/priv")).unwrap();
        fs::write(dir.path().join("etc/pve/.members"), members).unwrap();
        fs::write(dir.path().join("etc/hostname"), "box.example.org\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn it_is_there_only_where_it_is_mounted() {
        let (dir, root) = mounted("{}");
        assert!(Pmxcfs::find(&root).unwrap().is_some());
        fs::remove_file(dir.path().join("etc/pve/.members")).unwrap();
        assert!(Pmxcfs::find(&root).unwrap().is_none());
        assert!(!is_unmounted(&root));
        fs::remove_dir(dir.path().join("etc/pve/priv")).unwrap();
        assert!(is_unmounted(&root));
        fs::remove_dir_all(dir.path().join("etc/pve")).unwrap();
        assert!(Pmxcfs::find(&root).unwrap().is_none());
    }

    #[test]
    fn members_are_those_of_the_cluster() {
        let names = |fs: &Pmxcfs| fs.members().iter().cloned().collect::<Vec<_>>();
        let (_dir, root) = mounted("{}");
        let alone = Pmxcfs::find(&root).unwrap().unwrap();
        assert_eq!((alone.node(), names(&alone)), ("box", vec!["box".to_owned()]));
        let (_dir, root) = mounted(
            "{\"nodename\": \"pve2\", \"version\": 4, \"nodelist\": {\"pve1\": {\"id\": 1, \"online\": 0}, \
             \"pve2\": {\"id\": 2, \"online\": 1}}}",
        );
        let two = Pmxcfs::find(&root).unwrap().unwrap();
        assert_eq!((two.node(), names(&two)), ("pve2", vec!["pve1".to_owned(), "pve2".to_owned()]));
        let (dir, root) = mounted("{\"nodename\": \"pve2\", \"version\": 0}");
        let corosync = "nodelist {\n  node {\n    name: pve1\n    nodeid: 1\n  }\n  node {\n    name:pve2\n  }\n}\n\
                        totem {\n  cluster_name: c\n}\n";
        fs::write(dir.path().join("etc/pve/corosync.conf"), corosync).unwrap();
        assert_eq!(names(&Pmxcfs::find(&root).unwrap().unwrap()), ["pve1", "pve2"]);
    }

    #[test]
    fn files_are_replaced_and_locks_released() {
        let (dir, root) = mounted("{}");
        let fs = Pmxcfs::find(&root).unwrap().unwrap();
        assert_eq!(fs.read("jobs.cfg").unwrap(), None);
        let lock = fs.lock(&["vzdump.cron", "jobs.cfg"]).unwrap();
        let held = dir.path().join("etc/pve/priv/lock/file-jobs_cfg");
        assert!(held.is_dir());
        fs.replace("jobs.cfg", b"one").unwrap();
        fs.replace("jobs.cfg", b"two").unwrap();
        drop(lock);
        assert!(!held.exists());
        assert_eq!(fs.read("jobs.cfg").unwrap().unwrap(), b"two");
        let left: Vec<_> = std::fs::read_dir(dir.path().join("etc/pve")).unwrap().collect();
        assert_eq!(left.len(), 3, "{left:?}");
        std::fs::create_dir(dir.path().join("etc/pve/vzdump.cron")).unwrap();
        let error = fs.replace("vzdump.cron", b"x").unwrap_err();
        assert!(matches!(error, PmxcfsError::Write { .. }), "{error}");
        assert_eq!(std::fs::read_dir(dir.path().join("etc/pve")).unwrap().count(), 4);
    }

    #[test]
    fn no_name_in_it_leads_out_of_the_root() {
        use std::os::unix::fs::symlink;
        let (dir, root) = mounted("{}");
        let outside = tempfile::tempdir().unwrap();
        let of_another = outside.path().join("jobs.cfg");
        fs::write(&of_another, "another host's").unwrap();
        symlink(&of_another, dir.path().join("etc/pve/jobs.cfg")).unwrap();
        symlink(outside.path(), dir.path().join("etc/pve/priv/lock")).unwrap();
        let pmxcfs = Pmxcfs::find(&root).unwrap().unwrap();
        assert_eq!(pmxcfs.read("jobs.cfg").unwrap(), None);
        // The lock's folder would have to be made where the link leads to within the root.
        assert!(pmxcfs.lock(&["jobs.cfg"]).is_err());
        pmxcfs.replace("jobs.cfg", b"ours").unwrap();
        assert_eq!(fs::read(&of_another).unwrap(), b"another host's");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(pmxcfs.read("jobs.cfg").unwrap().unwrap(), b"ours");
    }

    #[test]
    fn a_lock_is_waited_for_and_its_release_asked_for() {
        let (dir, root) = mounted("{}");
        let pmxcfs = Pmxcfs::find(&root).unwrap().unwrap();
        let held = dir.path().join("etc/pve/priv/lock/file-jobs_cfg");
        fs::create_dir_all(&held).unwrap();
        let other = held.clone();
        let holder = thread::spawn(move || {
            // As pmxcfs: the request shows as a time of 0.
            while fs::metadata(&other).unwrap().modified().unwrap() != std::time::UNIX_EPOCH {
                thread::sleep(Duration::from_millis(5));
            }
            fs::remove_dir(&other).unwrap();
        });
        drop(pmxcfs.lock(&["jobs.cfg"]).unwrap());
        holder.join().unwrap();
        assert!(!held.exists());
    }

    #[test]
    fn what_hangs_is_left_alone() {
        let (_sender, never) = mpsc::channel::<()>();
        let limit = Duration::from_millis(20);
        assert!(matches!(within(limit, move || never.recv()), Err(PmxcfsError::Silent(_))));
        assert_eq!(within(Duration::from_secs(60), || 7).unwrap(), 7);
    }
}
