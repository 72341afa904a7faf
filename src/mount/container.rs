//! A container's backup as the files that are in it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::FileType;

use super::{Attributes, Node, Source};
use crate::container::{ReadAt, Sparse};
use crate::files::{FileContent, Kind, Member, Tree, Xattrs, xattrs};
use crate::text::told;

/// The files of a container's backup. Their numbers are those of the tree's nodes; a hard link has that of its file.
pub struct Container {
    archive: Arc<dyn ReadAt>,
    tree: Tree,
    /// How many names the files have that have more than one.
    links: HashMap<Node, u32>,
    /// The owner of folders that the archive does not have.
    owner: (u32, u32),
}

impl Container {
    /// Takes an archive and its members.
    pub fn new(archive: Arc<dyn ReadAt>, tree: Tree) -> Container {
        let mut links = HashMap::new();
        for node in 0..tree.nodes() {
            let target = tree.member(node).filter(|m| m.kind == Kind::HardLink).and_then(|m| tree.target(m));
            if let Some((target, _)) = target {
                *links.entry(target).or_insert(1) += 1;
            }
        }
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Container { archive, tree, links, owner }
    }

    /// The node of the file that a node is a name of.
    fn real(&self, node: Node) -> Option<Node> {
        match self.tree.member(node) {
            Some(member) if member.kind == Kind::HardLink => {
                self.tree.target(member).map(|(target, _)| target)
            }
            _ => Some(node),
        }
    }
}

fn time((seconds, nanos): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(whole),
        false => SystemTime::UNIX_EPOCH.checked_add(whole),
    };
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(nanos.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn kind(member: &Member) -> (FileType, (u32, u32)) {
    match member.kind {
        Kind::File | Kind::HardLink => (FileType::RegularFile, (0, 0)),
        Kind::Symlink => (FileType::Symlink, (0, 0)),
        Kind::Character(major, minor) => (FileType::CharDevice, (major, minor)),
        Kind::Block(major, minor) => (FileType::BlockDevice, (major, minor)),
        Kind::Folder => (FileType::Directory, (0, 0)),
        Kind::Fifo => (FileType::NamedPipe, (0, 0)),
    }
}

impl Source for Container {
    fn attributes(&self, node: Node) -> Option<Attributes> {
        if node >= self.tree.nodes() {
            return None;
        }
        let Some(member) = self.tree.member(node) else {
            let (uid, gid) = self.owner;
            let (kind, mtime) = (FileType::Directory, SystemTime::UNIX_EPOCH);
            return Some(Attributes {
                kind,
                mode: 0o755,
                uid,
                gid,
                size: 0,
                held: 0,
                mtime,
                links: 1,
                device: (0, 0),
            });
        };
        let (kind, device) = kind(member);
        let size = if member.kind == Kind::Symlink { member.link.len() as u64 } else { member.size };
        Some(Attributes {
            kind,
            mode: member.mode as u16,
            uid: member.uid,
            gid: member.gid,
            size,
            held: member.held(),
            mtime: time(member.mtime),
            links: self.links.get(&node).copied().unwrap_or(1),
            device,
        })
    }

    fn child(&self, folder: Node, name: &[u8]) -> Option<Node> {
        (folder < self.tree.nodes())
            .then(|| self.tree.child(folder, name))
            .flatten()
            .and_then(|node| self.real(node))
    }

    fn parent(&self, folder: Node) -> Node {
        if folder < self.tree.nodes() { self.tree.parent(folder) } else { 0 }
    }

    fn list(&self, folder: Node) -> Vec<(Vec<u8>, Node)> {
        if folder >= self.tree.nodes() {
            return Vec::new();
        }
        let within = self.tree.within(folder).into_iter();
        within.filter_map(|(name, node)| Some((name.to_vec(), self.real(node)?))).collect()
    }

    fn link(&self, node: Node) -> Option<Vec<u8>> {
        let member = (node < self.tree.nodes()).then(|| self.tree.member(node)).flatten()?;
        (member.kind == Kind::Symlink).then(|| member.link.clone())
    }

    fn open(&self, node: Node) -> io::Result<Arc<dyn Sparse>> {
        let member = (node < self.tree.nodes()).then(|| self.tree.member(node)).flatten();
        let member = member.filter(|m| m.kind == Kind::File).ok_or(io::ErrorKind::InvalidInput)?;
        let content = FileContent::open(&self.archive, member);
        content
            .map(|content| Arc::new(content) as Arc<dyn Sparse>)
            .map_err(|error| io::Error::other(told(&error)))
    }

    fn xattrs(&self, node: Node) -> io::Result<Xattrs> {
        match (node < self.tree.nodes()).then(|| self.tree.member(node)).flatten() {
            Some(member) if matches!(member.kind, Kind::File | Kind::Folder) => {
                xattrs(&*self.archive, member).map_err(|error| io::Error::other(told(&error)))
            }
            _ => Ok(Vec::new()),
        }
    }
}
