//! A zip file as a stream: what is not known when a file begins follows behind it.
//!
//! The rules are those of APPNOTE.TXT 6.3 (4.3.9: the data descriptor, 4.5.3: zip64) and, for modes and times, of Info-ZIP.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use super::super::member::{Kind, Member};
use super::{Form, Item, copy};
use crate::container::ReadAt;

/// From this length on a file's numbers have 64 bits: deflate makes nothing longer by so much that those below would need them.
const LARGE: u64 = 0xf000_0000;
/// In place of a number that does not fit.
const ELSEWHERE: u32 = u32::MAX;
/// Flags: numbers follow behind the content; the name is UTF-8.
const BEHIND: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;

/// A zip file that is being written.
pub(super) struct Zip<'a> {
    archive: &'a Arc<dyn ReadAt>,
    out: Counted<'a>,
    /// The directory, which comes last.
    directory: Vec<u8>,
    entries: u64,
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    count: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Passes a content on, and sums it up.
struct Summed<W> {
    inner: W,
    crc: Crc,
    count: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.crc.update(&bytes[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What an entry says of itself.
struct Entry {
    name: Vec<u8>,
    flags: u16,
    deflated: bool,
    large: bool,
    mode: u32,
    mtime: i64,
    crc: u32,
    packed: u64,
    size: u64,
}

impl<'a> Zip<'a> {
    pub fn new(archive: &'a Arc<dyn ReadAt>, out: &'a mut dyn Write) -> Zip<'a> {
        Zip { archive, out: Counted { out, count: 0 }, directory: Vec::new(), entries: 0 }
    }

    /// Writes the header in front of an entry; the result is where it begins.
    fn begin(&mut self, entry: &Entry) -> io::Result<u64> {
        let at = self.out.count;
        let mut extra = times(entry.mtime);
        let (packed, size) = match entry.large {
            true => {
                // Both follow behind the content.
                extra.extend([1, 0, 16, 0]);
                extra.extend([0; 16]);
                (ELSEWHERE, ELSEWHERE)
            }
            false => (entry.packed as u32, entry.size as u32),
        };
        let mut header = b"PK\x03\x04".to_vec();
        header.extend(entry.common());
        header.extend(entry.crc.to_le_bytes());
        header.extend(packed.to_le_bytes());
        header.extend(size.to_le_bytes());
        header.extend((entry.name.len() as u16).to_le_bytes());
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(&entry.name);
        header.extend(extra);
        self.out.write_all(&header)?;
        Ok(at)
    }

    /// Notes an entry that begins at a position for the directory.
    fn note(&mut self, entry: &Entry, at: u64) {
        let mut extra = times(entry.mtime);
        let mut long = Vec::new();
        let mut number = |number: u64| {
            u32::try_from(number).ok().filter(|n| *n != ELSEWHERE).unwrap_or_else(|| {
                long.extend(number.to_le_bytes());
                ELSEWHERE
            })
        };
        let (size, packed, at) = (number(entry.size), number(entry.packed), number(at));
        if !long.is_empty() {
            extra.extend([1, 0, long.len() as u8, 0]);
            extra.extend(long);
        }
        let is_folder = entry.name.ends_with(b"/");
        let directory = &mut self.directory;
        // Made by a system whose modes are those of Unix.
        directory.extend(b"PK\x01\x02\x2d\x03");
        directory.extend(entry.common());
        directory.extend(entry.crc.to_le_bytes());
        directory.extend(packed.to_le_bytes());
        directory.extend(size.to_le_bytes());
        directory.extend((entry.name.len() as u16).to_le_bytes());
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 6]); // no comment, the first disk, no text
        directory.extend((entry.mode << 16 | if is_folder { 0x10 } else { 0 }).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(&entry.name);
        directory.extend(extra);
        self.entries += 1;
    }

    /// Writes an entry whose content is in memory.
    fn small(&mut self, mut entry: Entry, content: &[u8]) -> io::Result<()> {
        let mut crc = Crc::new();
        crc.update(content);
        (entry.crc, entry.packed, entry.size) = (crc.sum(), content.len() as u64, content.len() as u64);
        let at = self.begin(&entry)?;
        self.out.write_all(content)?;
        self.note(&entry, at);
        Ok(())
    }

    fn file(&mut self, mut entry: Entry, file: &Member) -> io::Result<()> {
        entry.flags |= BEHIND;
        (entry.deflated, entry.large) = (true, file.size >= LARGE);
        let at = self.begin(&entry)?;
        let from = self.out.count;
        (entry.crc, entry.size) = {
            let deflate = DeflateEncoder::new(&mut self.out, Compression::fast());
            let mut content = Summed { inner: deflate, crc: Crc::new(), count: 0 };
            copy(self.archive, file, &mut content)?;
            let Summed { inner, crc, count } = content;
            inner.finish()?;
            (crc.sum(), count)
        };
        entry.packed = self.out.count - from;
        let mut behind = b"PK\x07\x08".to_vec();
        behind.extend(entry.crc.to_le_bytes());
        for number in [entry.packed, entry.size] {
            match entry.large {
                true => behind.extend(number.to_le_bytes()),
                false => behind.extend((number as u32).to_le_bytes()),
            }
        }
        self.out.write_all(&behind)?;
        self.note(&entry, at);
        Ok(())
    }
}

impl Entry {
    /// Makes what both headers of an entry begin with.
    fn common(&self) -> Vec<u8> {
        let (time, date) = dos(self.mtime);
        let version: u16 = if self.large { 45 } else { 20 };
        let method: u16 = if self.deflated { 8 } else { 0 };
        [version, self.flags, method, time, date].into_iter().flat_map(u16::to_le_bytes).collect()
    }
}

impl Form for Zip<'_> {
    fn put(&mut self, name: &[u8], item: &Item, member: Option<&Member>) -> io::Result<Option<&'static str>> {
        // The folder that was archived is where all of it is unpacked.
        if name == b"." {
            return Ok(None);
        }
        let mut name = harmless(name);
        if matches!(item, Item::Folder) {
            name.push(b'/');
        }
        if name.len() > usize::from(u16::MAX) {
            return Ok(Some("a zip file cannot hold so long a name"));
        }
        let kind = match item {
            Item::Folder => 0o040_000,
            Item::Special(_) => 0o120_000,
            Item::File(_) | Item::Link(_) => 0o100_000,
        };
        let entry = Entry {
            flags: if std::str::from_utf8(&name).is_ok() { UTF8 } else { 0 },
            name,
            deflated: false,
            large: false,
            mode: kind | member.map_or(0o755, |member| member.mode),
            mtime: member.map_or(0, |member| member.mtime.0),
            crc: 0,
            packed: 0,
            size: 0,
        };
        match item {
            Item::Folder => self.small(entry, b"")?,
            Item::File(file) => self.file(entry, file)?,
            Item::Special(link) if link.kind == Kind::Symlink => self.small(entry, &link.link)?,
            Item::Special(_) => return Ok(Some("a zip file cannot hold a device or a FIFO")),
            Item::Link(_) => return Ok(Some("a zip file cannot hold another name of a file")),
        }
        Ok(None)
    }

    fn finish(mut self) -> io::Result<()> {
        let (at, len) = (self.out.count, self.directory.len() as u64);
        self.out.write_all(&self.directory)?;
        let end = self.out.count;
        let mut tail = Vec::new();
        if self.entries >= u64::from(u16::MAX) || end >= u64::from(ELSEWHERE) {
            tail.extend(b"PK\x06\x06");
            tail.extend(44u64.to_le_bytes());
            tail.extend([45, 3, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for number in [self.entries, self.entries, len, at] {
                tail.extend(number.to_le_bytes());
            }
            tail.extend(b"PK\x06\x07\0\0\0\0");
            tail.extend(end.to_le_bytes());
            tail.extend(1u32.to_le_bytes());
        }
        let short = |number: u64| u32::try_from(number).unwrap_or(ELSEWHERE).to_le_bytes();
        let entries = u16::try_from(self.entries).unwrap_or(u16::MAX).to_le_bytes();
        tail.extend(b"PK\x05\x06\0\0\0\0");
        tail.extend([entries, entries].concat());
        tail.extend([short(len), short(at)].concat());
        tail.extend([0, 0]);
        self.out.write_all(&tail)?;
        self.out.flush()
    }
}

/// Takes away what would lead upwards, or to another disk, where a backslash parts names.
fn harmless(name: &[u8]) -> Vec<u8> {
    let leads = |part: &[u8]| part == b".." || part.len() == 2 && part[1] == b':';
    let parts = name.split(|b| *b == b'/').map(|part| {
        let is_bad = part.starts_with(b"\\") || part.split(|b| *b == b'\\').any(leads);
        part.iter().map(|b| if is_bad && matches!(b, b'\\' | b':') { b'_' } else { *b }).collect::<Vec<u8>>()
    });
    parts.collect::<Vec<_>>().join(&b'/')
}

/// Makes the extra field of a time in seconds since 1970, where that fits.
fn times(mtime: i64) -> Vec<u8> {
    match i32::try_from(mtime) {
        Ok(mtime) => [&b"UT\x05\0\x01"[..], &mtime.to_le_bytes()].concat(),
        Err(_) => Vec::new(),
    }
}

/// Makes a time and a date as MS-DOS has them, from 1980 to 2107, of a time in UTC.
fn dos(mtime: i64) -> (u16, u16) {
    // 1980-01-01 and the last even second of 2107.
    let at = mtime.clamp(315_532_800, 4_354_819_198);
    let (mut days, seconds) = (at / 86400, at % 86400);
    let time = (seconds / 3600) << 11 | (seconds / 60 % 60) << 5 | ((seconds % 60) / 2);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + i64::from(is_leap(year));
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    (time as u16, ((year - 1980) << 9 | month << 5 | (days + 1)) as u16)
}

#[cfg(test)]
mod tests {
    use super::{dos, harmless};

    #[test]
    fn a_date_is_that_of_the_calendar() {
        let parts = |at| {
            let (time, date) = dos(at);
            (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
        };
        assert_eq!(parts(1_793_498_584), (2026, 11, 1, 2, 3, 4));
        assert_eq!(parts(1_709_164_800), (2024, 2, 29, 0, 0, 0));
        assert_eq!(parts(1_798_761_599), (2026, 12, 31, 23, 59, 58));
        assert_eq!(parts(0), (1980, 1, 1, 0, 0, 0));
        assert_eq!(parts(i64::MAX), (2107, 12, 31, 23, 59, 58));
    }

    #[test]
    fn a_backslash_leads_nowhere() {
        assert_eq!(harmless(b"a/system-b\\x2dc.slice"), b"a/system-b\\x2dc.slice");
        assert_eq!(harmless(b"a/..\\..\\evil"), b"a/.._.._evil");
        assert_eq!(harmless(b"a/b\\..\\evil"), b"a/b_.._evil");
        assert_eq!(harmless(b"C:\\evil/b"), b"C__evil/b");
        assert_eq!(harmless(b"man3/B::Deparse.3perl"), b"man3/B::Deparse.3perl");
        assert_eq!(harmless(b"\\\\server\\share"), b"__server_share");
    }
}
