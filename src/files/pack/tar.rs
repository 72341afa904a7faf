//! A tar archive in POSIX' format (pax), sparse files as GNU tar has them in its format 1.0.

use std::io::{self, Write};
use std::sync::Arc;

use super::super::member::{Details, Kind, Member};
use super::super::walk::details;
use super::{Form, Item, PART, content, copy};
use crate::container::{ReadAt, Sparse};
use crate::tar::BLOCK;
use crate::text::told;

/// A tar archive that is being written.
pub(super) struct Tar<'a> {
    archive: &'a Arc<dyn ReadAt>,
    out: &'a mut dyn Write,
}

impl<'a> Tar<'a> {
    pub fn new(archive: &'a Arc<dyn ReadAt>, out: &'a mut dyn Write) -> Tar<'a> {
        Tar { archive, out }
    }

    /// Writes the headers of a member that has `stored` bytes of content behind them.
    fn headers(&mut self, head: Head, mut records: Vec<u8>, stored: u64) -> io::Result<()> {
        let mut block = [0; BLOCK];
        let Head { name, kind, link, member } = head;
        let default = (0o755, 0, 0, (0, 0));
        let (mode, uid, gid, mtime) = member.map_or(default, |m| (m.mode, m.uid, m.gid, m.mtime));
        if !text(&mut block[..100], name) {
            record(&mut records, b"path", name);
        }
        if !text(&mut block[157..257], link) {
            record(&mut records, b"linkpath", link);
        }
        octal(&mut block[100..108], mode.into());
        for (range, key, id) in [(108..116, &b"uid"[..], uid), (116..124, b"gid", gid)] {
            if !octal(&mut block[range], id.into()) {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if !octal(&mut block[124..136], stored) {
            record(&mut records, b"size", stored.to_string().as_bytes());
        }
        let whole = u64::try_from(mtime.0).ok().filter(|_| mtime.1 == 0);
        if !whole.is_some_and(|seconds| octal(&mut block[136..148], seconds)) {
            octal(&mut block[136..148], u64::try_from(mtime.0).unwrap_or(0).min((1 << 33) - 1));
            record(&mut records, b"mtime", seconds(mtime).as_bytes());
        }
        block[156] = kind;
        if let Some(Kind::Character(major, minor) | Kind::Block(major, minor)) =
            member.map(|m| m.kind).filter(|_| matches!(kind, b'3' | b'4'))
        {
            octal(&mut block[329..337], major.into());
            octal(&mut block[337..345], minor.into());
        }
        if !records.is_empty() {
            let mut pax = [0; BLOCK];
            text(&mut pax[..100], b"./PaxHeaders/member");
            octal(&mut pax[100..108], 0o644);
            octal(&mut pax[108..116], 0);
            octal(&mut pax[116..124], 0);
            octal(&mut pax[124..136], records.len() as u64);
            octal(&mut pax[136..148], 0);
            pax[156] = b'x';
            self.block(pax)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.block(block)
    }

    /// Writes a header with its magic and its checksum.
    fn block(&mut self, mut block: [u8; BLOCK]) -> io::Result<()> {
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        octal(&mut block[148..155], sum);
        self.out.write_all(&block)
    }

    fn pad(&mut self, len: u64) -> io::Result<()> {
        let over = (len % BLOCK as u64) as usize;
        self.out.write_all(&[0; BLOCK][..if over == 0 { 0 } else { BLOCK - over }])
    }

    fn sparse(&mut self, head: Head, mut records: Vec<u8>, file: &Member) -> io::Result<()> {
        let content = content(self.archive, file)?;
        let (mut runs, mut at) = (Vec::new(), 0);
        while at < file.size {
            let (is_data, len) = content.run(at, file.size - at);
            if is_data {
                runs.push((at, len));
            }
            at += len;
        }
        let stored: u64 = runs.iter().map(|(_, len)| len).sum();
        // A hole at the end is told by an empty stretch there.
        if runs.last().is_none_or(|(at, len)| at + len < file.size) {
            runs.push((file.size, 0));
        }
        let mut map = format!("{}\n", runs.len()).into_bytes();
        for (at, len) in &runs {
            write!(map, "{at}\n{len}\n")?;
        }
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        record(&mut records, b"GNU.sparse.major", b"1");
        record(&mut records, b"GNU.sparse.minor", b"0");
        record(&mut records, b"GNU.sparse.name", head.name);
        record(&mut records, b"GNU.sparse.realsize", file.size.to_string().as_bytes());
        // Whoever does not know sparse files finds a file of another name.
        let name = b"GNUSparseFile.0/content".as_slice();
        let stored = stored + map.len() as u64;
        self.headers(Head { name, ..head }, records, stored)?;
        self.out.write_all(&map)?;
        let mut buf = vec![0; PART];
        for (mut at, mut len) in runs {
            while len > 0 {
                let part = &mut buf[..len.min(PART as u64) as usize];
                content.read_at(at, part)?;
                self.out.write_all(part)?;
                at += part.len() as u64;
                len -= part.len() as u64;
            }
        }
        self.pad(stored)
    }
}

/// What a header says of a member.
#[derive(Clone, Copy)]
struct Head<'a> {
    name: &'a [u8],
    kind: u8,
    link: &'a [u8],
    member: Option<&'a Member>,
}

impl Form for Tar<'_> {
    fn put(&mut self, name: &[u8], item: &Item, member: Option<&Member>) -> io::Result<Option<&'static str>> {
        let records = match (item, member) {
            (Item::Link(_), _) | (_, None) => Vec::new(),
            (_, Some(member)) => beside(&**self.archive, member)?,
        };
        let head = Head { name, kind: b'0', link: b"", member };
        match item {
            Item::Folder => {
                let name = [name, b"/"].concat();
                self.headers(Head { name: &name, kind: b'5', ..head }, records, 0)?;
            }
            Item::Link(first) => self.headers(Head { kind: b'1', link: first, ..head }, records, 0)?,
            Item::Special(special) => {
                let kind = match special.kind {
                    Kind::Symlink => b'2',
                    Kind::Character(..) => b'3',
                    Kind::Block(..) => b'4',
                    Kind::Fifo => b'6',
                    Kind::File | Kind::HardLink | Kind::Folder => {
                        return Ok(Some("the file that it is another name of is not in the archive"));
                    }
                };
                self.headers(Head { kind, link: &special.link, ..head }, records, 0)?;
            }
            Item::File(file) if file.sparse => self.sparse(head, records, file)?,
            Item::File(file) => {
                self.headers(head, records, file.size)?;
                copy(self.archive, file, self.out)?;
                self.pad(file.size)?;
            }
        }
        Ok(None)
    }

    fn finish(self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])
    }
}

/// Makes the records of what a member has beside its content.
fn beside(archive: &dyn ReadAt, member: &Member) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    let Details { xattrs, acls, .. } =
        details(archive, member).map_err(|error| io::Error::other(told(&error)))?;
    for (name, value) in xattrs {
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in name {
            match byte {
                b'%' => key.extend_from_slice(b"%25"),
                b'=' => key.extend_from_slice(b"%3D"),
                byte => key.push(byte),
            }
        }
        record(&mut records, &key, &value);
    }
    for (text, key) in acls.iter().zip([&b"SCHILY.acl.access"[..], b"SCHILY.acl.default"]) {
        if let Some(text) = text {
            record(&mut records, key, text);
        }
    }
    Ok(records)
}

/// Adds a record, `LENGTH KEY=VALUE` and a newline; the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(format!("{len} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Fills a field with text, as much as fits; tells whether that is all of it, and plain ASCII.
fn text(field: &mut [u8], text: &[u8]) -> bool {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
    len == text.len() && text.is_ascii()
}

/// Fills a field with octal digits and a NUL; tells whether the number fits. Zeros where it does not.
fn octal(field: &mut [u8], number: u64) -> bool {
    let (digits, fits) = (field.len() - 1, number < 1 << (3 * (field.len() - 1)));
    let text = format!("{:0digits$o}\0", if fits { number } else { 0 });
    field.copy_from_slice(text.as_bytes());
    fits
}

/// Writes a time as a decimal number.
fn seconds((seconds, nanos): (i64, u32)) -> String {
    let whole = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let (sign, whole) = if whole < 0 { ("-", -whole) } else { ("", whole) };
    format!("{sign}{}.{:09}", whole / 1_000_000_000, whole % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::{octal, record, seconds};

    #[test]
    fn a_records_length_counts_its_own_digits() {
        for value in [0, 1, 87, 88, 89, 90, 91, 92, 93, 984, 985, 986, 987, 5000] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; value]);
            let text = String::from_utf8(records.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), records.len());
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_told() {
        let mut field = [0; 8];
        assert!(octal(&mut field, 0o7777777) && field == *b"7777777\0");
        assert!(!octal(&mut field, 0o10000000) && field == *b"0000000\0");
    }

    #[test]
    fn times_before_1970_are_negative() {
        assert_eq!(seconds((1, 500_000_000)), "1.500000000");
        assert_eq!(seconds((-2, 500_000_000)), "-1.500000000");
        assert_eq!(seconds((0, 0)), "0.000000000");
    }
}
