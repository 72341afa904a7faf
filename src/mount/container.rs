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

/// The files of a container's backup. Their numbers are those of the tree's nodes; all names of a file have the same.
pub struct Container {
    archive: Arc<dyn ReadAt>,
    tree: Tree,
    /// The names of the files that have more than one, by the numbers of their members.
    links: HashMap<usize, Names>,
    /// The owner of folders that the archive does not have.
    owner: (u32, u32),
}

struct Names {
    count: u32,
    /// The one whose number all of them have.
    node: Node,
}

impl Container {
    /// Takes an archive and its members.
    pub fn new(archive: Arc<dyn ReadAt>, tree: Tree) -> Container {
        let mut links = HashMap::new();
        let is_link = |node| tree.member(node).is_some_and(|member| member.kind == Kind::HardLink);
        let nodes = |links| (0..tree.nodes()).filter(move |node| is_link(*node) == links);
        for (node, (file, _)) in nodes(true).filter_map(|node| Some((node, tree.file(node)?))) {
            links.entry(file).or_insert(Names { count: 0, node }).count += 1;
        }
        for (node, (file, _)) in nodes(false).filter_map(|node| Some((node, tree.file(node)?))) {
            if let Some(names) = links.get_mut(&file) {
                *names = Names { count: names.count + 1, node };
            }
        }
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Container { archive, tree, links, owner }
    }

    fn names(&self, node: Node) -> Option<&Names> {
        self.tree.file(node).and_then(|(file, _)| self.links.get(&file))
    }

    /// The node whose number the file has that a node is a name of.
    fn real(&self, node: Node) -> Node {
        self.names(node).map_or(node, |names| names.node)
    }

    /// The member with what a node is; a hard link to nothing is a file that cannot be read.
    fn file(&self, node: Node) -> Option<&Member> {
        self.tree.file(node).map(|(_, file)| file).or_else(|| self.tree.member(node))
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
        let Some(member) = self.file(node) else {
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
            links: self.names(node).map_or(1, |names| names.count),
            device,
        })
    }

    fn child(&self, folder: Node, name: &[u8]) -> Option<Node> {
        (folder < self.tree.nodes())
            .then(|| self.tree.child(folder, name))
            .flatten()
            .map(|node| self.real(node))
    }

    fn parent(&self, folder: Node) -> Node {
        if folder < self.tree.nodes() { self.tree.parent(folder) } else { 0 }
    }

    fn list(&self, folder: Node) -> Vec<(Vec<u8>, Node)> {
        if folder >= self.tree.nodes() {
            return Vec::new();
        }
        let within = self.tree.within(folder).into_iter();
        within.map(|(name, node)| (name.to_vec(), self.real(node))).collect()
    }

    fn link(&self, node: Node) -> Option<Vec<u8>> {
        let member = (node < self.tree.nodes()).then(|| self.tree.member(node)).flatten()?;
        (member.kind == Kind::Symlink).then(|| member.link.clone())
    }

    fn open(&self, node: Node) -> io::Result<Arc<dyn Sparse>> {
        let member = (node < self.tree.nodes()).then(|| self.file(node)).flatten();
        let member = member.filter(|m| m.kind == Kind::File);
        let member =
            member.ok_or_else(|| io::Error::other("what it is another name of is not in the backup"))?;
        let content = FileContent::open(&self.archive, member);
        content
            .map(|content| Arc::new(content) as Arc<dyn Sparse>)
            .map_err(|error| io::Error::other(told(&error)))
    }

    fn xattrs(&self, node: Node) -> io::Result<Xattrs> {
        match (node < self.tree.nodes()).then(|| self.file(node)).flatten() {
            Some(member) if matches!(member.kind, Kind::File | Kind::Folder) => {
                xattrs(&*self.archive, member).map_err(|error| io::Error::other(told(&error)))
            }
            _ => Ok(Vec::new()),
        }
    }
}
