//! What the headers of a member say.

use super::Error;
use crate::tar::{self, BLOCK, number};

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A further name of a file that comes before it.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device with its numbers.
    Character(u32, u32),
    /// A block device with its numbers.
    Block(u32, u32),
    /// A folder.
    Folder,
    /// A FIFO.
    Fifo,
}

/// How the content of a sparse file is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Layout {
    /// All of it, as it is.
    #[default]
    Plain,
    /// These stretches (position in the file, length), one behind the other.
    Map(Vec<(u64, u64)>),
    /// The map stands at the front of the content (GNU's pax format 1.0).
    MapInFront,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The components of its name; empty for the folder that was archived.
    pub name: Vec<u8>,
    /// Whether the name leads upwards, so that it is no place below a folder.
    pub escapes: bool,
    /// What it is.
    pub kind: Kind,
    /// Where a link leads: for a hard link the components of a name.
    pub link: Vec<u8>,
    /// Its mode, without its kind.
    pub mode: u32,
    /// The number of its owner.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Length of a file in bytes.
    pub size: u64,
    /// Position of its first header in the archive.
    pub(super) at: u64,
    /// Position of its stored content, and the length of that.
    pub(super) data: u64,
    pub(super) stored: u64,
    pub(super) sparse: bool,
}

impl Member {
    /// How many bytes of a file are no holes, about: the map of a sparse file may be counted in.
    pub fn held(&self) -> u64 {
        if self.kind == Kind::File { self.stored.min(self.size) } else { 0 }
    }
}

/// Names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What is not kept in memory for each member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub layout: Layout,
    pub xattrs: Xattrs,
    /// POSIX ACLs as text: of access, and by default.
    pub acls: [Option<Vec<u8>>; 2],
}

/// The fields that pax records set; those of a global header hold for all members behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pub size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    sparse: bool,
    in_front: bool,
    real_size: Option<u64>,
    map: Vec<(u64, u64)>,
    offset: Option<u64>,
    details: Details,
}

/// The most stretches of a sparse file that a header may list. The format that lists them there is one of before 2008.
const MAX_STRETCHES: usize = 1 << 16;

impl Pax {
    /// Takes over the records of a pax header, `LENGTH KEY=VALUE
    /// ` each.
    pub fn read(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let space = records.iter().take(20).position(|b| *b == b' ');
            let len = space.and_then(|n| decimal(&records[..n])).and_then(|n| usize::try_from(n).ok());
            let (Some(space), Some(len)) = (space, len) else { return Err("a pax record's length is wrong") };
            let record = records.get(space + 1..len).ok_or("a pax record's length is wrong")?;
            let record = record.strip_suffix(b"\n").ok_or("a pax record does not end where it says")?;
            let equals = record.iter().position(|b| *b == b'=').ok_or("a pax record has no value")?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[len..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let wrong = "a pax record's number is none";
        let count = || decimal(value).ok_or(wrong);
        let small = || decimal(value).and_then(|n| u32::try_from(n).ok()).ok_or(wrong);
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(count()?),
            b"uid" => self.uid = Some(small()?),
            b"gid" => self.gid = Some(small()?),
            b"mtime" => self.mtime = Some(time(value).ok_or(wrong)?),
            b"GNU.sparse.name" => self.path = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse = true;
                self.real_size = Some(count()?);
            }
            b"GNU.sparse.major" => self.in_front = value != b"0",
            b"GNU.sparse.offset" => self.offset = Some(count()?),
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take().ok_or("a sparse map is incomplete")?;
                self.map.push((offset, count()?));
            }
            b"GNU.sparse.map" => {
                let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
                let numbers =
                    numbers.filter(|list| list.len() % 2 == 0).ok_or("a sparse map is incomplete")?;
                self.map = numbers.chunks_exact(2).map(|two| (two[0], two[1])).collect();
            }
            b"SCHILY.acl.access" => self.details.acls[0] = Some(value.to_vec()),
            b"SCHILY.acl.default" => self.details.acls[1] = Some(value.to_vec()),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.details.xattrs.push((decoded(name), value.to_vec()));
                }
            }
        }
        if self.map.len() > MAX_STRETCHES { Err("a sparse map is too long") } else { Ok(()) }
    }
}

/// The headers of a member, one behind the other, as they stand in the archive.
pub(super) struct Headers<'a> {
    /// Position of the first of them.
    pub at: u64,
    pub bytes: &'a [u8],
}

/// What the headers of a member say. The global header that holds is in `global`. The result is `None` where the headers
/// are those of no member: a global header, which is taken over, or a volume's label.
pub(super) fn parse(headers: &Headers, global: &mut Pax) -> Result<Option<(Member, Details)>, Error> {
    let malformed = |what| Error::Malformed { offset: headers.at, what };
    let mut rest = headers.bytes;
    let mut pax = global.clone();
    loop {
        let short = || malformed("its headers are not complete");
        let (block, behind) = rest.split_first_chunk::<BLOCK>().ok_or_else(short)?;
        check(block).map_err(malformed)?;
        let size = tar::size(block).ok_or_else(|| malformed("a member's size is no number"))?;
        let mut content = || {
            let len =
                usize::try_from(size).ok().and_then(|len| Some((len, len.checked_next_multiple_of(BLOCK)?)));
            let (len, padded) = len.filter(|(_, padded)| *padded <= behind.len()).ok_or_else(short)?;
            rest = &behind[padded..];
            Ok::<_, Error>(&behind[..len])
        };
        let text = |bytes: &[u8]| bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        match tar::kind(block) {
            b'x' | b'X' => pax.read(content()?).map_err(malformed)?,
            b'g' => {
                global.read(content()?).map_err(malformed)?;
                // What belongs to one file is no business of a global header.
                *global = Pax {
                    path: None,
                    link: None,
                    map: Vec::new(),
                    details: Details::default(),
                    ..global.clone()
                };
                return Ok(None);
            }
            b'L' => pax.path = Some(text(content()?)),
            b'K' => pax.link = Some(text(content()?)),
            _ => return member(block, behind, pax, headers).map_err(malformed),
        }
    }
}

fn member(
    block: &[u8; BLOCK],
    mut behind: &[u8],
    mut pax: Pax,
    headers: &Headers,
) -> Result<Option<(Member, Details)>, &'static str> {
    let field = |range: std::ops::Range<usize>| {
        let bytes = &block[range];
        bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())].to_vec()
    };
    let small = |range: std::ops::Range<usize>| number(&block[range]).and_then(|n| u32::try_from(n).ok());
    let mut name = pax.path.take().unwrap_or_else(|| {
        // The prefix is POSIX' own; in GNU's format other fields stand there.
        match (&block[257..263], field(345..500)) {
            (b"ustar\0", prefix) if !prefix.is_empty() => [&prefix[..], b"/", &field(0..100)].concat(),
            _ => field(0..100),
        }
    });
    let stored = pax.size.or_else(|| tar::size(block)).ok_or("a member's size is no number")?;
    let device = || {
        Ok::<_, &'static str>((
            small(329..337).ok_or("a device has no number")?,
            small(337..345).ok_or("a device has no number")?,
        ))
    };
    let is_folder_name = name.ends_with(b"/");
    let kind = match tar::kind(block) {
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => device().map(|(major, minor)| Kind::Character(major, minor))?,
        b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
        b'5' | b'D' => Kind::Folder,
        b'6' => Kind::Fifo,
        b'V' | b'M' => return Ok(None),
        // Old archives have no kind for folders.
        b'0' | 0 if is_folder_name => Kind::Folder,
        _ => Kind::File,
    };
    let mut size = stored;
    if tar::kind(block) == b'S' {
        let mut list = &block[386..482];
        let mut more = block[482] != 0;
        loop {
            for entry in list.chunks_exact(24).filter(|entry| entry[0] != 0) {
                let both =
                    number(&entry[..12]).zip(number(&entry[12..])).ok_or("a sparse map has no numbers")?;
                pax.map.push(both);
            }
            if !more {
                break;
            }
            let (block, rest) = behind.split_first_chunk::<BLOCK>().ok_or("a sparse map is incomplete")?;
            (list, more, behind) = (&block[..504], block[504] != 0, rest);
        }
        pax.real_size = Some(number(&block[483..495]).ok_or("a sparse file has no size")?);
        pax.sparse = true;
    }
    if pax.sparse && kind == Kind::File {
        size = pax.real_size.ok_or("a sparse file has no size")?;
        pax.details.layout =
            if pax.in_front { Layout::MapInFront } else { Layout::Map(std::mem::take(&mut pax.map)) };
    }
    let link = pax.link.take().unwrap_or_else(|| field(157..257));
    let escapes = clean(&mut name);
    let mut member = Member {
        name,
        escapes,
        kind,
        link,
        mode: small(100..108).unwrap_or(0) & 0o7777,
        uid: pax.uid.or_else(|| small(108..116)).ok_or("a member's owner is no number of 32 bits")?,
        gid: pax.gid.or_else(|| small(116..124)).ok_or("a member's group is no number of 32 bits")?,
        mtime: pax.mtime.or_else(|| Some((tar::signed(&block[136..148])?, 0))).unwrap_or((0, 0)),
        size,
        at: headers.at,
        data: headers.at + headers.bytes.len() as u64,
        stored,
        sparse: pax.sparse,
    };
    match kind {
        Kind::HardLink => member.escapes |= clean(&mut member.link),
        Kind::File => {}
        _ => (member.size, member.link) = (0, if kind == Kind::Symlink { member.link } else { Vec::new() }),
    }
    if kind != Kind::File {
        // No content follows: the size of a hard link is that of the file it leads to.
        (member.size, member.stored) = (0, if kind == Kind::HardLink { 0 } else { stored });
    }
    Ok(Some((member, pax.details)))
}

/// Compares the checksum of a header. It counts its own field as blanks; some old programs summed signed bytes.
fn check(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let declared = number(&block[148..156]).ok_or("a header's checksum is no number: not a tar header")?;
    let others = block[..148].iter().chain(&block[156..]);
    let unsigned = others.clone().map(|b| i64::from(*b)).sum::<i64>() + 8 * 32;
    let signed = others.map(|b| i64::from(b.cast_signed())).sum::<i64>() + 8 * 32;
    match [unsigned, signed].contains(&declared.cast_signed()) {
        true => Ok(()),
        false => Err("a header does not match its checksum"),
    }
}

/// Reduces a name to its components, joined by slashes. The result tells whether one of them leads upwards.
pub(super) fn clean(name: &mut Vec<u8>) -> bool {
    let parts = name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    let escapes = parts.clone().any(|part| part == b"..");
    *name = parts.collect::<Vec<_>>().join(&b'/');
    escapes
}

/// The name of an extended attribute, in which GNU tar writes `%` and `=` as `%25` and `%3D`.
fn decoded(name: &[u8]) -> Vec<u8> {
    let mut rest = name;
    let mut decoded = Vec::new();
    while let Some((&first, behind)) = rest.split_first() {
        let (byte, taken) = match &rest[..rest.len().min(3)] {
            b"%3D" => (b'=', 3),
            b"%25" => (b'%', 3),
            _ => (first, 1),
        };
        decoded.push(byte);
        rest = if taken == 1 { behind } else { &rest[taken..] };
    }
    decoded
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a time in seconds, which may be negative and have a fraction.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_reduced_to_components() {
        for (name, reduced, escapes) in [
            ("./etc//hosts", "etc/hosts", false),
            ("/etc/", "etc", false),
            ("./", "", false),
            ("a/../b", "a/../b", true),
            ("../x", "../x", true),
            ("a..b/...", "a..b/...", false),
        ] {
            let mut bytes = name.as_bytes().to_vec();
            assert_eq!((clean(&mut bytes), &bytes[..]), (escapes, reduced.as_bytes()), "{name}");
        }
    }

    #[test]
    fn times_have_fractions() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-12.25"), Some((-13, 750_000_000)));
        assert_eq!(time(b"12.0000000019"), Some((12, 1)));
        assert!(time(b"x").is_none() && time(b"").is_none() && time(b"1.x").is_none());
    }

    #[test]
    fn records_are_read() {
        let mut pax = Pax::default();
        pax.read(b"12 path=a/b\n33 SCHILY.xattr.user.k%3D%25=v=1\n").unwrap();
        assert_eq!(pax.path, Some(b"a/b".to_vec()));
        assert_eq!(pax.details.xattrs, [(b"user.k=%".to_vec(), b"v=1".to_vec())]);
        for wrong in
            [&b"12 path=a/b"[..], b"99 path=a/b\n", b"x", b"5 ab\n", b"10 size=x\n", b"0 \n", b"1 \n"]
        {
            assert!(Pax::default().read(wrong).is_err(), "{wrong:?}");
        }
    }
}
