//! Writing members to a stream: a folder as a tar archive or as a zip file, a file as its content.
//!
//! Names in the stream begin with that of the file or folder that was asked for; none leads upwards. What cannot be read ends it
//! all, since whoever reads the stream must not take it for whole.

mod tar;
mod zip;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::sync::Arc;

use super::content::FileContent;
use super::extract::Problem;
use super::member::{Kind, Member};
use super::tree::{Node, Tree};
use crate::container::ReadAt;
use crate::text::told;

/// How many bytes are copied at once.
const PART: usize = 256 << 10;

/// What is written.
pub struct Packing<'a> {
    /// The content of the archive.
    pub archive: &'a Arc<dyn ReadAt>,
    /// Its members.
    pub tree: &'a Tree,
    /// The file or folder to write.
    pub node: Node,
}

/// A member as it is written.
enum Item<'a> {
    Folder,
    /// Its content is that of this member.
    File(&'a Member),
    /// It is the same file as the one that was written under this name.
    Link(Vec<u8>),
    /// A symbolic link, a device, a FIFO.
    Special(&'a Member),
}

/// A form of stream.
trait Form {
    /// Writes an item under a name. `member` has what is known beside the content; a folder may have none. The result tells why
    /// it was left out, if it was.
    fn put(&mut self, name: &[u8], item: &Item, member: Option<&Member>) -> io::Result<Option<&'static str>>;

    /// Writes the end.
    fn finish(self) -> io::Result<()>;
}

/// Writes the content of a file; its holes are zeros.
///
/// # Errors
/// Fails where it is no file, and where it cannot be read or written.
pub fn pack_file(packing: &Packing, out: &mut dyn Write) -> io::Result<()> {
    match packing.tree.file(packing.node) {
        Some((_, file)) if file.kind == Kind::File => copy(packing.archive, file, out),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    }
}

/// Writes a folder, or a file, as a tar archive in POSIX' format, with all that the backup has. What cannot be written is named
/// to `left_out`.
///
/// # Errors
/// Fails where something cannot be read or written.
pub fn pack_tar(packing: &Packing, out: &mut dyn Write, left_out: &mut dyn FnMut(Problem)) -> io::Result<()> {
    pack(packing, tar::Tar::new(packing.archive, out), true, left_out)
}

/// Writes a folder, or a file, as a zip file: files, folders and symbolic links, with their modes and times. What it cannot hold
/// is named to `left_out`. Hard links become files of their own.
///
/// # Errors
/// Fails where something cannot be read or written.
pub fn pack_zip(packing: &Packing, out: &mut dyn Write, left_out: &mut dyn FnMut(Problem)) -> io::Result<()> {
    pack(packing, zip::Zip::new(packing.archive, out), false, left_out)
}

fn pack(
    packing: &Packing,
    mut form: impl Form,
    links: bool,
    left_out: &mut dyn FnMut(Problem),
) -> io::Result<()> {
    let tree = packing.tree;
    let mut linked = HashSet::new();
    if links {
        walk(tree, packing.node, &mut |node, _| {
            let is_link = tree.member(node).is_some_and(|member| member.kind == Kind::HardLink);
            linked.extend(tree.file(node).filter(|_| is_link).map(|(n, _)| n));
            Ok(())
        })?;
    }
    let mut written: HashMap<usize, Vec<u8>> = HashMap::new();
    walk(tree, packing.node, &mut |node, name| {
        let member = tree.member(node);
        let mut leave = |what: &str| left_out(Problem { name: name.to_vec(), what: what.to_owned() });
        if !tree.is_folder(node) && tree.has_more(node) {
            leave("it is no folder, so what the archive has below its name is left out");
        }
        let (item, member) = match (member, tree.file(node)) {
            (None, _) | (Some(Member { kind: Kind::Folder, .. }), _) => (Item::Folder, member),
            (Some(_), None) => {
                leave("the file that it is another name of is not in the archive");
                return Ok(());
            }
            (Some(_), Some((n, file))) => match written.get(&n) {
                Some(first) => (Item::Link(first.clone()), Some(file)),
                None => {
                    if linked.contains(&n) {
                        written.insert(n, name.to_vec());
                    }
                    match file.kind {
                        Kind::File => (Item::File(file), Some(file)),
                        _ => (Item::Special(file), Some(file)),
                    }
                }
            },
        };
        let shown = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", crate::text::shown_bytes(name)))
        };
        if let Some(why) = form.put(name, &item, member).map_err(shown)? {
            leave(why);
        }
        Ok(())
    })?;
    if packing.node == 0 {
        for member in tree.astray() {
            let what = "its name leads out of the folder, so it is left out".to_owned();
            left_out(Problem { name: member.name.clone(), what });
        }
    }
    form.finish()
}

/// Calls a function with a node and all that are in it, and their names from that node on; a folder comes before what is in it.
fn walk(tree: &Tree, node: Node, call: &mut dyn FnMut(Node, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut name = tree.name(node).to_vec();
    call(node, if name.is_empty() { b"." } else { &name })?;
    let nodes = |node| tree.within(node).into_iter().map(|(_, node)| node).collect::<Vec<_>>().into_iter();
    if !tree.is_folder(node) {
        return Ok(());
    }
    let mut open = vec![(nodes(node), name.len())];
    while let Some((rest, len)) = open.last_mut() {
        name.truncate(*len);
        let Some(node) = rest.next() else {
            open.pop();
            continue;
        };
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(tree.name(node));
        call(node, &name)?;
        if tree.is_folder(node) {
            let len = name.len();
            open.push((nodes(node), len));
        }
    }
    Ok(())
}

fn content(archive: &Arc<dyn ReadAt>, file: &Member) -> io::Result<FileContent> {
    FileContent::open(archive, file).map_err(|error| io::Error::other(told(&error)))
}

/// Copies the content of a file, with zeros for its holes.
fn copy(archive: &Arc<dyn ReadAt>, file: &Member, out: &mut dyn Write) -> io::Result<()> {
    let content = content(archive, file)?;
    let mut buf = vec![0; PART.min(usize::try_from(file.size).unwrap_or(PART))];
    let mut at = 0;
    while at < file.size {
        let part = &mut buf[..(file.size - at).min(PART as u64) as usize];
        content.read_at(at, part)?;
        out.write_all(part)?;
        at += part.len() as u64;
    }
    Ok(())
}
