//! Writing members below a folder.
//!
//! Every component of a name is opened or made by itself, below the folder before it, and no link is followed. So whatever an
//! archive holds, nothing is made or changed outside of the folder. Nothing that is there already is replaced.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, fstat, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::acl;
use super::content::FileContent;
use super::member::{Details, Kind, Member};
use super::tree::{Node, Tree};
use super::walk::details;
use crate::container::{ReadAt, Sparse};

/// How many bytes are copied at once.
const PART: usize = 1 << 20;

/// What could not be written as it is in the archive.
#[derive(Debug)]
pub struct Problem {
    /// The name of the member.
    pub name: Vec<u8>,
    /// What went wrong.
    pub what: String,
}

/// What to write, and how.
pub struct Extraction<'a> {
    /// The content of the archive.
    pub archive: &'a Arc<dyn ReadAt>,
    /// Its members.
    pub tree: &'a Tree,
    /// The folder to write to.
    pub into: BorrowedFd<'a>,
    /// Whether that folder was made for this, so that it gets the owner and mode of the folder that was archived.
    pub is_new: bool,
    /// Whether owners, special modes, capabilities and ACLs are set, which only root can.
    pub as_root: bool,
    /// Whether device files are made.
    pub devices: bool,
}

/// Writes these nodes, and all that is in them. Each member that is written is named to `done`, and what goes wrong to
/// `problem`; the other members are written all the same.
pub fn extract(
    extraction: &Extraction,
    nodes: &[Node],
    done: &mut dyn FnMut(&[u8]),
    problem: &mut dyn FnMut(Problem),
) {
    let mut work = Work {
        e: extraction,
        links: Vec::new(),
        folders: Vec::new(),
        written: HashMap::new(),
        done,
        problem,
    };
    let mut seen = HashSet::new();
    for &node in nodes {
        // A folder may be named beside what is in it.
        let above =
            std::iter::successors(Some(node), |node| (*node != 0).then(|| extraction.tree.parent(*node)));
        if above.into_iter().any(|node| seen.contains(&node)) {
            continue;
        }
        seen.insert(node);
        match work.folder_of(node) {
            Ok(folder) => work.node(folder.as_fd(), node),
            Err(error) => work.failed(node, &error),
        }
    }
    work.links();
    work.folders();
}

struct Work<'a, 'b> {
    e: &'a Extraction<'a>,
    /// Hard links, which are made last.
    links: Vec<Node>,
    /// Folders that were made, each behind the one that it is in. What they are beside folders is set last of all: what is made in
    /// them changes their times, and they may be read-only.
    folders: Vec<Node>,
    /// Where the files lie that were written, by the numbers of their members.
    written: HashMap<usize, Node>,
    done: &'b mut dyn FnMut(&[u8]),
    problem: &'b mut dyn FnMut(Problem),
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Opens a folder that is a folder itself, no link to one.
fn open_folder(parent: BorrowedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, os(name), flags, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => io::Error::other(
            "where its folder should be lies a symbolic link or a file, which is not followed",
        ),
        errno => errno.into(),
    })
}

/// Makes a folder, if it is not there, and opens it. The result also tells whether it was made.
fn make_folder(parent: BorrowedFd, name: &[u8], mode: u32) -> io::Result<(OwnedFd, bool)> {
    match mkdirat(parent, os(name), Mode::from_raw_mode(mode)) {
        Ok(()) => Ok((open_folder(parent, name)?, true)),
        Err(Errno::EXIST) => Ok((open_folder(parent, name)?, false)),
        Err(errno) => Err(errno.into()),
    }
}

impl Work<'_, '_> {
    fn name(&self, node: Node) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = node;
        while at != 0 {
            parts.push(self.e.tree.name(at));
            at = self.e.tree.parent(at);
        }
        parts.reverse();
        parts.join(&b'/')
    }

    fn failed(&mut self, node: Node, error: &dyn std::error::Error) {
        let what = crate::text::told(error);
        let name = self.name(node);
        (self.problem)(Problem { name, what });
    }

    /// Opens the folder that a node lies in, and makes what is missing of it.
    fn folder_of(&self, node: Node) -> io::Result<OwnedFd> {
        let tree = self.e.tree;
        let mut folder = self.e.into.try_clone_to_owned()?;
        let above = std::iter::successors(Some(tree.parent(node)), |at| (*at != 0).then(|| tree.parent(*at)));
        let mut above: Vec<Node> = above.filter(|at| *at != 0).collect();
        above.reverse();
        for at in above {
            (folder, _) = make_folder(folder.as_fd(), tree.name(at), 0o777)?;
        }
        Ok(folder)
    }

    /// Writes a node and what is in it. `folder` is the one that it lies in.
    fn node(&mut self, folder: BorrowedFd, node: Node) {
        let tree = self.e.tree;
        let name = tree.name(node);
        let Some(member) = tree.member(node) else { return self.within(folder, node, None) };
        if member.kind != Kind::Folder && tree.has_more(node) {
            let what = "it is no folder, so what the archive has below its name is not written";
            self.failed(node, &io::Error::other(what));
        }
        let result = match member.kind {
            Kind::Folder => return self.within(folder, node, Some(member)),
            Kind::HardLink => {
                self.links.push(node);
                return;
            }
            Kind::File => self.file(folder, name, member),
            Kind::Symlink => symlinkat(os(&member.link), folder, os(name))
                .map(|()| Made::from(self.attributes_at(folder, name, member)))
                .map_err(io::Error::from),
            Kind::Fifo => self.special(folder, name, member, FileType::Fifo, (0, 0)),
            Kind::Character(..) | Kind::Block(..) if !self.e.devices => {
                Err(io::Error::other("it is a device file, which is made with --devices only"))
            }
            Kind::Character(major, minor) => {
                self.special(folder, name, member, FileType::CharacterDevice, (major, minor))
            }
            Kind::Block(major, minor) => {
                self.special(folder, name, member, FileType::BlockDevice, (major, minor))
            }
        };
        if let Some((file, _)) = tree.file(node) {
            self.ended(node, file, result);
        }
    }

    /// Notes where a file lies, and tells how its writing ended.
    fn ended(&mut self, node: Node, file: usize, result: io::Result<Made>) {
        match result {
            Ok(made) => {
                self.written.entry(file).or_insert(node);
                match made {
                    Made::Whole => {
                        let name = self.name(node);
                        (self.done)(&name);
                    }
                    Made::Without(error) => self.failed(node, &error),
                }
            }
            Err(error) => self.failed(node, &error),
        }
    }

    /// Writes a folder and what is in it.
    fn within(&mut self, parent: BorrowedFd, node: Node, member: Option<&Member>) {
        let tree = self.e.tree;
        let own = match node {
            0 => parent.try_clone_to_owned().map(|own| (own, self.e.is_new)),
            _ => make_folder(parent, tree.name(node), if member.is_some() { 0o700 } else { 0o777 }),
        };
        let (own, is_new) = match own {
            Ok(own) => own,
            Err(error) => return self.failed(node, &error),
        };
        // What was there already is not replaced, nor is what it has beside its content.
        if member.is_some() && is_new {
            self.folders.push(node);
        }
        for (_, child) in tree.within(node) {
            self.node(own.as_fd(), child);
        }
    }

    /// Sets what folders have beside what is in them, the innermost first.
    fn folders(&mut self) {
        let tree = self.e.tree;
        for node in std::mem::take(&mut self.folders).into_iter().rev() {
            let Some(member) = tree.member(node) else { continue };
            let own = match node {
                0 => self.e.into.try_clone_to_owned(),
                _ => self.folder_of(node).and_then(|parent| open_folder(parent.as_fd(), tree.name(node))),
            };
            match own.and_then(|own| self.attributes(own.as_fd(), member)) {
                Ok(()) => (self.done)(&member.name),
                Err(error) => self.failed(node, &error),
            }
        }
    }

    fn file(&self, folder: BorrowedFd, name: &[u8], member: &Member) -> io::Result<Made> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(folder, os(name), flags, Mode::RUSR | Mode::WUSR)?);
        // What is not whole is no file of the backup.
        self.copy(&file, member).inspect_err(|_| {
            let _ = unlinkat(folder, os(name), AtFlags::empty());
        })?;
        Ok(Made::from(self.attributes(file.as_fd(), member)))
    }

    fn copy(&self, file: &File, member: &Member) -> io::Result<()> {
        let content =
            FileContent::open(self.e.archive, member).map_err(|e| io::Error::other(crate::text::told(&e)))?;
        file.set_len(member.size)?;
        let (mut at, mut buf) = (0, Vec::new());
        while at < member.size {
            let (is_data, len) = content.run(at, member.size - at);
            let len = if is_data { len.min(PART as u64) } else { len };
            if is_data {
                buf.resize(len as usize, 0);
                content.read_at(at, &mut buf)?;
                file.write_all_at(&buf, at)?;
            }
            at += len;
        }
        Ok(())
    }

    /// Sets what a file or folder has beside its content. What cannot be set does not keep the rest from being set.
    fn attributes(&self, file: BorrowedFd, member: &Member) -> io::Result<()> {
        let mut wrong = Wrong::default();
        // A change of the owner takes special modes and capabilities away.
        if self.e.as_root {
            wrong.owner(fchown(file, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid))));
        }
        // Other owners' programs shall not run with the rights of ours.
        wrong.note("its mode cannot be set", fchmod(file, self.mode(member, wrong.is_empty())));
        match details(&**self.e.archive, member) {
            Ok(Details { xattrs, acls, .. }) => {
                for (name, value) in xattrs.iter().filter(|(name, _)| self.is_set(name)) {
                    let what =
                        || format!("its extended attribute {} cannot be set", crate::text::shown_bytes(name));
                    wrong.note(&what(), fsetxattr(file, os(name), value, XattrFlags::empty()));
                }
                for (text, name) in acls.iter().zip(acl::NAMES) {
                    let Some(text) = text.as_ref().filter(|_| self.e.as_root) else { continue };
                    match acl::attribute(text) {
                        Some(value) => {
                            let set = fsetxattr(file, name, &value, XattrFlags::empty());
                            wrong.note("its ACL cannot be set", set);
                        }
                        None => wrong.0.push("its ACL cannot be understood".to_owned()),
                    }
                }
            }
            Err(error) => wrong.0.push(crate::text::told(&error)),
        }
        wrong.note("its time cannot be set", futimens(file, &times(member)));
        wrong.told()
    }

    /// Whether an extended attribute is set: those that Proxmox VE's own restore sets. Others of `security` and `trusted` are of
    /// the host that they were made on.
    fn is_set(&self, name: &[u8]) -> bool {
        name.starts_with(b"user.") || self.e.as_root && name == b"security.capability"
    }

    fn mode(&self, member: &Member, is_owned: bool) -> Mode {
        // Whoever is not root would give others the rights of his own.
        Mode::from_raw_mode(member.mode & if self.e.as_root && is_owned { 0o7777 } else { 0o777 })
    }

    fn special(
        &self,
        folder: BorrowedFd,
        name: &[u8],
        member: &Member,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> io::Result<Made> {
        mknodat(folder, os(name), kind, Mode::RUSR | Mode::WUSR, makedev(major, minor))?;
        Ok(Made::from(self.special_attributes(folder, name, member, kind)))
    }

    /// Sets the owner, the mode and the time of a FIFO or device. Its own descriptor is used, since its owner might put a link
    /// to something else under its name.
    fn special_attributes(
        &self,
        folder: BorrowedFd,
        name: &[u8],
        member: &Member,
        kind: FileType,
    ) -> io::Result<()> {
        let own = openat(folder, os(name), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&own)?.st_mode) != kind {
            return Err(io::Error::other("somebody put something else in its place"));
        }
        let mut wrong = Wrong::default();
        let mode = Mode::from_raw_mode(member.mode & 0o777);
        let set = chmodat(CWD, format!("/proc/self/fd/{}", own.as_raw_fd()), mode, AtFlags::empty());
        wrong.note("its mode cannot be set", set);
        if self.e.as_root {
            let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
            wrong.owner(chownat(&own, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH));
        }
        let set = utimensat(folder, os(name), &times(member), AtFlags::SYMLINK_NOFOLLOW);
        wrong.note("its time cannot be set", set);
        wrong.told()
    }

    /// Sets the owner and the time of a symbolic link.
    fn attributes_at(&self, folder: BorrowedFd, name: &[u8], member: &Member) -> io::Result<()> {
        let (name, link) = (os(name), AtFlags::SYMLINK_NOFOLLOW);
        let mut wrong = Wrong::default();
        if self.e.as_root {
            let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
            wrong.owner(chownat(folder, name, Some(uid), Some(gid), link));
        }
        wrong.note("its time cannot be set", utimensat(folder, name, &times(member), link));
        wrong.told()
    }

    /// Makes the hard links. Where the file that they lead to was not asked for, the first of them becomes that file.
    fn links(&mut self) {
        for node in std::mem::take(&mut self.links) {
            let tree = self.e.tree;
            let Some((target, file)) = tree.file(node) else {
                self.failed(
                    node,
                    &io::Error::other("the file that it is another name of is not in the archive"),
                );
                continue;
            };
            let result = self.folder_of(node).and_then(|folder| {
                let name = tree.name(node);
                match self.written.get(&target) {
                    Some(there) => {
                        let from = self.folder_of(*there)?;
                        linkat(from, os(tree.name(*there)), folder, os(name), AtFlags::empty())?;
                        Ok(Made::Whole)
                    }
                    None if file.kind == Kind::File => self.file(folder.as_fd(), name, file),
                    None => Err(io::Error::other("what it is another name of was not made")),
                }
            });
            self.ended(node, target, result);
        }
    }
}

/// How the writing of a file ended.
enum Made {
    /// It is as in the archive.
    Whole,
    /// Its content is, but this could not be set.
    Without(io::Error),
}

impl From<io::Result<()>> for Made {
    fn from(attributes: io::Result<()>) -> Made {
        attributes.map_or_else(Made::Without, |()| Made::Whole)
    }
}

/// What could not be set of a file.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, what: &str, result: rustix::io::Result<()>) {
        self.0.extend(result.err().map(|errno| format!("{what}: {errno}")));
    }

    fn owner(&mut self, result: rustix::io::Result<()>) {
        self.note("its owner cannot be set", result);
    }

    fn told(self) -> io::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(io::Error::other(self.0.join("; "))) }
    }
}

fn times(member: &Member) -> Timestamps {
    let time = Timespec { tv_sec: member.mtime.0, tv_nsec: member.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}
