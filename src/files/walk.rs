//! Walking over an archive by the headers of its members.
//!
//! What was walked over is kept as the headers alone: for each member the position of the first of them (u64), their length
//! (u32), and they themselves, little endian. [`read`] makes the same of that as [`walk`] does of the archive.

use std::io::{Read, Write};

use super::member::{Details, Headers, Member, Pax, Xattrs, parse};
use super::{Error, Tree, acl};
use crate::container::ReadAt;
use crate::tar::{self, BLOCK};

/// The most bytes of the headers of a member. Its extended attributes are the longest part of them.
const MAX_HEADERS: u64 = 8 << 20;

/// Walks over an archive, which is read from files of `stored` bytes. Headers are passed to `keep`, for [`read`]; what it fails with is not kept.
///
/// # Errors
/// Fails where the archive cannot be read, is cut short or malformed, or has too many members.
pub fn walk(content: &dyn ReadAt, stored: u64, mut keep: impl Write) -> Result<Tree, Error> {
    let (mut tree, mut global, mut at) = (Tree::new(content.size(), stored), Pax::default(), 0);
    let mut keeps = true;
    while let Some(bytes) = gather(content, at)? {
        let headers = Headers { at, bytes: &bytes };
        at += bytes.len() as u64;
        if let Some((member, _)) = parse(&headers, &mut global)? {
            let padded = member.stored.checked_next_multiple_of(BLOCK as u64).and_then(|n| at.checked_add(n));
            at = padded
                .filter(|end| *end <= content.size())
                .ok_or(Error::Truncated { offset: content.size(), place: "in the content of a member" })?;
            tree.push(member)?;
        }
        let head = [&headers.at.to_le_bytes()[..], &(bytes.len() as u32).to_le_bytes()].concat();
        keeps = keeps && keep.write_all(&head).and_then(|()| keep.write_all(&bytes)).is_ok();
    }
    tree.finish()
}

/// Makes the tree of an archive of `size` bytes, which is read from files of `stored` bytes, from the headers that [`walk`] kept.
///
/// # Errors
/// Fails where they are not what was kept.
pub fn read(mut kept: impl Read, size: u64, stored: u64) -> Result<Tree, Error> {
    let (mut tree, mut global) = (Tree::new(size, stored), Pax::default());
    let damaged = || Error::Malformed { offset: 0, what: "the kept headers are not what was kept" };
    let mut bytes = Vec::new();
    loop {
        let mut head = [0; 12];
        match crate::container::read_full(&mut kept, &mut head) {
            Ok(0) => return tree.finish(),
            Ok(12) => {}
            _ => return Err(damaged()),
        }
        let at = u64::from_le_bytes(*head.first_chunk().expect("8 bytes"));
        let len = u32::from_le_bytes(*head.last_chunk().expect("4 bytes"));
        if u64::from(len) > MAX_HEADERS + BLOCK as u64 {
            return Err(damaged());
        }
        bytes.resize(len as usize, 0);
        kept.read_exact(&mut bytes).map_err(|_| damaged())?;
        if let Some((member, _)) = parse(&Headers { at, bytes: &bytes }, &mut global)? {
            tree.push(member)?;
        }
    }
}

/// Reads what is not kept in memory of a member.
///
/// # Errors
/// Fails where the archive cannot be read.
pub(super) fn details(content: &dyn ReadAt, member: &Member) -> Result<Details, Error> {
    let bytes = gather(content, member.at)?.unwrap_or_default();
    let read = parse(&Headers { at: member.at, bytes: &bytes }, &mut Pax::default())?;
    let changed = Error::Malformed { offset: member.at, what: "it changed while it was read" };
    read.filter(|(again, _)| again.name == member.name).map(|(_, details)| details).ok_or(changed)
}

/// Reads the extended attributes of a member: their names and values. ACLs are among them, as the file system has them.
///
/// # Errors
/// Fails where the archive cannot be read.
pub fn xattrs(content: &dyn ReadAt, member: &Member) -> Result<Xattrs, Error> {
    let Details { mut xattrs, acls, .. } = details(content, member)?;
    for (text, name) in acls.iter().zip(acl::NAMES) {
        let value = text.as_ref().and_then(|text| acl::attribute(text));
        xattrs.extend(value.map(|value| (name.as_bytes().to_vec(), value)));
    }
    Ok(xattrs)
}

/// Reads the headers of the member that begins at a position; `None` at the end of the archive.
fn gather(content: &dyn ReadAt, start: u64) -> Result<Option<Vec<u8>>, Error> {
    let malformed = |offset, what| Error::Malformed { offset, what };
    let (mut bytes, mut at) = (Vec::new(), start);
    let block = |at: u64, bytes: &mut Vec<u8>, len: u64, place| {
        if content.size().checked_sub(at).is_none_or(|left| left < len) {
            return Err(Error::Truncated { offset: content.size(), place });
        }
        let from = bytes.len();
        bytes.resize(from + len as usize, 0);
        content.read_at(at, &mut bytes[from..]).map_err(|source| Error::Read { offset: at, source })
    };
    loop {
        block(at, &mut bytes, BLOCK as u64, "where a header is due")?;
        let header: &[u8; BLOCK] = bytes.last_chunk().expect("a block was read");
        if *header == [0; BLOCK] {
            return match bytes.len() {
                BLOCK => Ok(None),
                _ => Err(malformed(at, "the archive ends where an announced member is due")),
            };
        }
        let (kind, size) = (tar::kind(header), tar::size(header));
        let mut more = kind == b'S' && header[482] != 0;
        at += BLOCK as u64;
        match kind {
            b'x' | b'X' | b'g' | b'L' | b'K' => {
                let size = size.ok_or_else(|| malformed(at, "a member's size is no number"))?;
                if size.saturating_add(bytes.len() as u64) > MAX_HEADERS {
                    return Err(malformed(at, "a member's headers are too long"));
                }
                let padded = size.next_multiple_of(BLOCK as u64);
                block(at, &mut bytes, padded, "in a pax header")?;
                at += padded;
                if kind == b'g' {
                    return Ok(Some(bytes));
                }
            }
            _ => {
                while more {
                    if bytes.len() as u64 > MAX_HEADERS {
                        return Err(malformed(at, "a member's headers are too long"));
                    }
                    block(at, &mut bytes, BLOCK as u64, "in a sparse map")?;
                    more = bytes[bytes.len() - BLOCK + 504] != 0;
                    at += BLOCK as u64;
                }
                return Ok(Some(bytes));
            }
        }
    }
}
