//! The members of an archive as a tree of names.

use std::collections::HashMap;

use super::Error;
use super::member::{Kind, Member, clean};
use crate::budget::Budget;

/// The number of a node; that of the folder that was archived is 0.
pub type Node = usize;

/// The members of an archive. Where several have the same name, the last one counts, as for `tar -x`.
pub struct Tree {
    members: Vec<Member>,
    budget: Budget,
    /// For each node: its member, if it is one, and the nodes in it by their names.
    nodes: Vec<Entry>,
    /// Members whose names lead out of the archive's folder. They are in no folder.
    astray: Vec<usize>,
}

#[derive(Default)]
struct Entry {
    member: Option<usize>,
    /// The member that has the content; for a hard link the one that bore the name which it leads to when it came.
    file: Option<usize>,
    parent: Node,
    name: Vec<u8>,
    within: HashMap<Vec<u8>, Node>,
}

/// The bytes of memory that a member takes beside its name, and a node. Lists grow by doubling.
const MEMBER: u64 = 2 * size_of::<Member>() as u64 + 64;
const NODE: u64 = 2 * size_of::<Entry>() as u64 + 112;
/// Members may take so many bytes of memory, and so many times the length of the files that are read: nothing compresses a header
/// to less than some 20 bytes.
const MOST: u64 = 160 << 20;
const TIMES: u64 = 64;
/// The most components of a name.
const MAX_DEPTH: usize = 1024;

impl Tree {
    /// Begins a tree for an archive of `size` bytes, which is read from files of `stored` bytes.
    pub(super) fn new(size: u64, stored: u64) -> Tree {
        // A member takes at least 512 bytes of the archive, and all that takes less memory than this.
        Tree {
            members: Vec::new(),
            budget: Budget::of(size.saturating_mul(4).min(MOST.saturating_add(stored.saturating_mul(TIMES)))),
            nodes: vec![Entry::default()],
            astray: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, member: Member) -> Result<(), Error> {
        let depth = member.name.iter().filter(|b| **b == b'/').count() + 1;
        // Folders that have no member of their own take memory, too.
        let room = MEMBER + (member.name.len() + member.link.len()) as u64;
        let malformed = |what| Error::Malformed { offset: member.at, what };
        self.budget
            .take(room)
            .map_err(|_| malformed("there are too many members for the archive's length"))?;
        let n = self.members.len();
        if member.escapes || depth > MAX_DEPTH {
            self.astray.push(n);
            self.members.push(member);
            return Ok(());
        }
        let mut node = 0;
        for part in member.name.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            node = match self.nodes[node].within.get(part) {
                Some(next) => *next,
                None => {
                    self.budget
                        .take(NODE + 2 * part.len() as u64)
                        .map_err(|_| malformed("there are too many folders for the archive's length"))?;
                    let next = self.nodes.len();
                    self.nodes.push(Entry { parent: node, name: part.to_vec(), ..Entry::default() });
                    self.nodes[node].within.insert(part.to_vec(), next);
                    next
                }
            };
        }
        self.nodes[node].file = match member.kind {
            Kind::HardLink => self.find(&member.link).and_then(|target| self.nodes[target].file),
            _ => Some(n),
        };
        self.nodes[node].member = Some(n);
        self.members.push(member);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Tree, Error> {
        match self.members.is_empty() {
            true => Err(Error::Malformed { offset: 0, what: "the archive is empty" }),
            false => Ok(self),
        }
    }

    /// All members, in the order of the archive.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Members whose names lead out of the folder that was archived.
    pub fn astray(&self) -> impl Iterator<Item = &Member> {
        self.astray.iter().map(|n| &self.members[*n])
    }

    /// The member at a node; none where a folder has no member of its own.
    pub fn member(&self, node: Node) -> Option<&Member> {
        self.nodes[node].member.map(|n| &self.members[n])
    }

    /// The node that a node is in.
    pub fn parent(&self, node: Node) -> Node {
        self.nodes[node].parent
    }

    /// The nodes in a folder, in the order of their names.
    pub fn within(&self, node: Node) -> Vec<(&[u8], Node)> {
        let mut list: Vec<_> =
            self.nodes[node].within.iter().map(|(name, node)| (&name[..], *node)).collect();
        list.sort_unstable();
        list
    }

    /// Whether a node is a folder: it has a member that is one, or other nodes are in it.
    pub fn is_folder(&self, node: Node) -> bool {
        match self.member(node) {
            Some(member) => member.kind == Kind::Folder,
            None => true,
        }
    }

    /// Whether there are names below a node that is no folder.
    pub fn has_more(&self, node: Node) -> bool {
        !self.nodes[node].within.is_empty()
    }

    /// Finds the node of a name in a folder.
    pub fn child(&self, node: Node, name: &[u8]) -> Option<Node> {
        self.nodes[node].within.get(name).copied()
    }

    /// The last component of a node's name.
    pub fn name(&self, node: Node) -> &[u8] {
        &self.nodes[node].name
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Finds a node by its name, with or without `./` or `/` in front.
    pub fn find(&self, name: &[u8]) -> Option<Node> {
        let mut name = name.to_vec();
        if clean(&mut name) {
            return None;
        }
        let parts = name.split(|b| *b == b'/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(0, |node, part| self.child(node, part))
    }

    /// The file that a node is a name of: the number of its member, and the member. It is the node's own member but for a hard
    /// link, which may come before another file of the name that it leads to. None where that is not in the archive.
    pub fn file(&self, node: Node) -> Option<(usize, &Member)> {
        let n = self.nodes[node].file?;
        Some((n, &self.members[n]))
            .filter(|(_, file)| self.nodes[node].member == Some(n) || file.kind != Kind::Folder)
    }
}
