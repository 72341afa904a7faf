//! A VM's backup as files: an image of each disk, and the configuration files.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::FileType;

use super::{Attributes, Node, Source};
use crate::container::{ReadAt, Sparse};
use crate::files::Xattrs;
use crate::vma::{Disk, Header};

/// The disks and configuration files of a VM's backup, under the names that unpacking gives them.
pub struct Disks {
    files: Vec<File>,
    mtime: SystemTime,
    owner: (u32, u32),
    /// Whether users other than the owner may read them.
    others: bool,
}

struct File {
    name: Vec<u8>,
    content: Arc<dyn Sparse>,
    /// How many bytes of it are no holes.
    held: u64,
}

/// Bytes in memory, which have no holes.
struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(pos, buf)
    }
}

impl Sparse for Bytes {
    fn run(&self, pos: u64, most: u64) -> (bool, u64) {
        (true, (self.size() - pos).min(most))
    }
}

impl Disks {
    /// Takes the disks of an archive with this header. `others` tells whether users other than the owner may read them.
    pub fn new(header: &Header, disks: Vec<Disk>, others: bool) -> Disks {
        let configs = header.configs.iter().map(|config| {
            let bytes = Arc::new(Bytes(config.data.clone())) as Arc<dyn Sparse>;
            (config.name.clone().into_bytes(), bytes)
        });
        let images = disks.into_iter().map(|disk| {
            (format!("disk-{}.raw", disk.name()).into_bytes(), Arc::new(disk) as Arc<dyn Sparse>)
        });
        let seconds = Duration::from_secs(header.ctime.unsigned_abs());
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // A name that a disk and a configuration file share is that of the disk.
        let mut names = HashSet::new();
        let files =
            images.chain(configs).filter(|(name, _)| !name.contains(&b'/') && names.insert(name.clone()));
        let files = files.map(|(name, content)| File { name, held: held(&*content), content }).collect();
        Disks { files, mtime: SystemTime::UNIX_EPOCH + seconds, owner, others }
    }
}

/// Counts the bytes of a content that are no holes.
fn held(content: &dyn Sparse) -> u64 {
    let (mut at, mut held) = (0, 0);
    while at < content.size() {
        let (is_data, len) = content.run(at, content.size() - at);
        held += if is_data { len } else { 0 };
        at += len;
    }
    held
}

impl Source for Disks {
    fn attributes(&self, node: Node) -> Option<Attributes> {
        let (kind, mode, size, held) = match node.checked_sub(1) {
            None => (FileType::Directory, 0o500, 0, 0),
            Some(n) => {
                let file = self.files.get(n)?;
                (FileType::RegularFile, 0o400, file.content.size(), file.held)
            }
        };
        let (uid, gid) = self.owner;
        let mode = if self.others { mode | mode >> 3 | mode >> 6 } else { mode };
        Some(Attributes { kind, mode, uid, gid, size, held, mtime: self.mtime, links: 1, device: (0, 0) })
    }

    fn child(&self, folder: Node, name: &[u8]) -> Option<Node> {
        (self.files.iter().position(|file| file.name == name)).filter(|_| folder == 0).map(|n| n + 1)
    }

    fn parent(&self, _: Node) -> Node {
        0
    }

    fn list(&self, folder: Node) -> Vec<(Vec<u8>, Node)> {
        let files = self.files.iter().enumerate().filter(|_| folder == 0);
        files.map(|(n, file)| (file.name.clone(), n + 1)).collect()
    }

    fn link(&self, _: Node) -> Option<Vec<u8>> {
        None
    }

    fn open(&self, node: Node) -> io::Result<Arc<dyn Sparse>> {
        let file = node.checked_sub(1).and_then(|n| self.files.get(n));
        file.map(|file| Arc::clone(&file.content)).ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    fn xattrs(&self, _: Node) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }
}
