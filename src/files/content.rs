//! The content of a file, with its holes.

use std::io;
use std::sync::Arc;

use super::Error;
use super::member::{Layout, Member};
use super::walk::details;
use crate::budget::Budget;
use crate::container::{ReadAt, Sparse};
use crate::tar::BLOCK;

/// The content of a file in an archive, which can be read at any position.
pub struct FileContent {
    archive: Arc<dyn ReadAt>,
    size: u64,
    /// Where each stretch begins in the file, its length, and where it is stored. They are in order.
    stretches: Vec<(u64, u64, u64)>,
}

impl FileContent {
    /// Opens the content of a member. It is empty for all but files.
    ///
    /// # Errors
    /// Fails where the archive cannot be read, or the map of a sparse file is wrong.
    pub fn open(archive: &Arc<dyn ReadAt>, member: &Member) -> Result<FileContent, Error> {
        let size = member.size;
        let (map, data, stored) = match member.sparse {
            false => (vec![(0, size)], member.data, member.stored),
            true => match details(&**archive, member)?.layout {
                Layout::Plain => (vec![(0, size)], member.data, member.stored),
                Layout::Map(map) => (map, member.data, member.stored),
                Layout::MapInFront => map_in_front(&**archive, member)?,
            },
        };
        let wrong = || Error::Malformed { offset: member.at, what: "the map of a sparse file is wrong" };
        let (mut stretches, mut from, mut last) = (Vec::new(), data, 0);
        for (at, len) in map.into_iter().filter(|(_, len)| *len > 0) {
            let end = at.checked_add(len).filter(|end| at >= last && *end <= size).ok_or_else(wrong)?;
            stretches.push((at, len, from));
            from = from.checked_add(len).filter(|from| *from <= data + stored).ok_or_else(wrong)?;
            last = end;
        }
        Ok(FileContent { archive: Arc::clone(archive), size, stretches })
    }

    /// The number of the last stretch that begins at a position or before it.
    fn stretch(&self, pos: u64) -> Option<usize> {
        self.stretches.partition_point(|(at, ..)| *at <= pos).checked_sub(1)
    }
}

/// The map of a sparse file, where its content begins, and how long that is.
type Mapped = (Vec<(u64, u64)>, u64, u64);

/// Reads the map at the front of a file's content: decimal numbers, a line each: how many stretches there are, then position and
/// length of each one.
fn map_in_front(archive: &dyn ReadAt, member: &Member) -> Result<Mapped, Error> {
    let malformed = |what| Error::Malformed { offset: member.at, what };
    let (mut budget, mut map) = (Budget::of(member.stored), Vec::new());
    let (mut used, mut buf, mut next) = (0u64, Vec::new(), 0);
    let mut number = || loop {
        if let Some(len) = buf[next..].iter().position(|b| *b == b'\n') {
            let text: &[u8] = &buf[next..next + len];
            next += len + 1;
            let digits =
                std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let number = digits.and_then(|text| text.parse::<u64>().ok());
            return number.ok_or_else(|| malformed("a sparse map has no numbers"));
        }
        buf.drain(..next);
        next = 0;
        if used + BLOCK as u64 > member.stored || buf.len() > BLOCK {
            return Err(malformed("a sparse map is incomplete"));
        }
        let from = buf.len();
        buf.resize(from + BLOCK, 0);
        let at = member.data + used;
        archive.read_at(at, &mut buf[from..]).map_err(|source| Error::Read { offset: at, source })?;
        used += BLOCK as u64;
    };
    for _ in 0..number()? {
        let stretch = (number()?, number()?);
        budget.push(&mut map, stretch).map_err(|_| malformed("a sparse map is too long"))?;
    }
    Ok((map, member.data + used, member.stored - used))
}

impl ReadAt for FileContent {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, pos: u64, mut buf: &mut [u8]) -> io::Result<()> {
        if pos.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = pos;
        while !buf.is_empty() {
            let (is_data, len) = self.run(at, buf.len() as u64);
            let (now, later) = buf.split_at_mut(len as usize);
            match self.stretch(at).filter(|_| is_data) {
                Some(n) => self.archive.read_at(self.stretches[n].2 + (at - self.stretches[n].0), now)?,
                None => now.fill(0),
            }
            at += len;
            buf = later;
        }
        Ok(())
    }
}

impl Sparse for FileContent {
    fn run(&self, pos: u64, most: u64) -> (bool, u64) {
        let n = self.stretch(pos);
        if let Some((at, len, _)) = n.map(|n| self.stretches[n])
            && pos < at + len
        {
            return (true, (at + len - pos).min(most));
        }
        let next = self.stretches.get(n.map_or(0, |n| n + 1)).map_or(self.size, |(at, ..)| *at);
        (false, (next - pos).min(most))
    }
}
