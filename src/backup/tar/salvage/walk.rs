//! Walks over what is left of an archive, member by member.

use std::io;
use std::ops::Range;

use super::feed::{Chunk, Feed, Taken};
use crate::backup::tar::{Header, decimal};
use crate::container::salvage::Piece;
use crate::tar::{self, BLOCK};

/// The most bytes of headers that may stand before a member: names, attributes, lists of access rights.
const MAX_FRONT: usize = 4 << 20;

/// A member of which the header is there.
pub(super) struct Member {
    /// The headers before its own that belong to it, with their content, as they are.
    pub front: Vec<u8>,
    /// Its own header.
    pub block: [u8; BLOCK],
    /// Its name.
    pub name: Vec<u8>,
    /// Where it leads, if it is a hard link.
    pub link: Option<Vec<u8>>,
    /// Whether the headers before its own are whole.
    pub is_named: bool,
    /// Whether its content is stored with its holes left out.
    pub is_sparse: bool,
    /// How many times the structure was lost before it.
    pub breaks: u32,
}

/// What was found of a member's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The bytes that are lost.
    pub lost: Vec<Range<u64>>,
    /// How many bytes were passed on, if it breaks off.
    pub cut: Option<u64>,
    /// Whether a checksum vouches for all the rest.
    pub proved: bool,
}

/// Takes what is found.
pub(super) trait Visitor {
    /// A member begins.
    fn begin(&mut self, member: &Member) -> io::Result<()>;
    /// A part of its content, padding included.
    fn content(&mut self, chunk: Chunk) -> io::Result<()>;
    /// It ends.
    fn end(&mut self, member: &Member, found: Found) -> io::Result<()>;
    /// All members so far are in doubt.
    fn doubt(&mut self);
}

/// Walks over an archive. The result is how many times the structure was lost.
pub(super) fn walk(
    feed: &mut Feed<impl Iterator<Item = io::Result<Piece>>>,
    visitor: &mut dyn Visitor,
) -> io::Result<u32> {
    let mut breaks = 0;
    loop {
        feed.doubted = false;
        let next = member(feed, breaks, visitor)?;
        if std::mem::take(&mut feed.doubted_before) {
            visitor.doubt();
        }
        match next {
            Next::Member => {}
            Next::End => return Ok(breaks),
            Next::Search { aligned } => {
                breaks += 1;
                if !feed.search(aligned, is_header)? {
                    feed.because("the archive has no end any more");
                    return Ok(breaks);
                }
            }
        }
    }
}

/// What comes behind a member.
enum Next {
    Member,
    End,
    /// Nobody knows where the next header is.
    Search {
        aligned: bool,
    },
}

fn is_header(block: &[u8; BLOCK]) -> bool {
    tar::begins(block) && Header::parse(block).is_ok()
}

/// What the headers before a member's own say.
#[derive(Default)]
struct Said {
    front: Vec<u8>,
    whole: bool,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

fn member(
    feed: &mut Feed<impl Iterator<Item = io::Result<Piece>>>,
    breaks: u32,
    visitor: &mut dyn Visitor,
) -> io::Result<Next> {
    let mut said = Said { whole: true, ..Said::default() };
    loop {
        let (block, taken) = feed.exact(BLOCK)?;
        let block = match (block, taken) {
            (Some(block), _) => block.first_chunk().copied().unwrap_or([0; BLOCK]),
            (None, Taken::All) => return Ok(Next::Search { aligned: true }),
            (None, Taken::Lost(_)) => return Ok(Next::Search { aligned: false }),
            (None, Taken::Ended(_)) => {
                feed.because("the archive ends too early");
                return Ok(Next::End);
            }
        };
        if block == [0; BLOCK] && said.front.is_empty() {
            return end(feed);
        }
        let Ok(header) = Header::parse(&block) else {
            feed.because("a header of the archive is damaged");
            return Ok(Next::Search { aligned: true });
        };
        if matches!(header.kind, b'x' | b'X' | b'g' | b'L' | b'K') {
            let padded =
                header.size.checked_next_multiple_of(BLOCK as u64).and_then(|it| usize::try_from(it).ok());
            let Some(padded) = padded.filter(|it| said.front.len() + it + BLOCK <= MAX_FRONT) else {
                feed.because("a header of the archive is longer than any that is real");
                return Ok(Next::Search { aligned: true });
            };
            let (content, taken) = feed.exact(padded)?;
            match (content, taken) {
                (Some(content), _) => {
                    said.front.extend_from_slice(&block);
                    said.front.extend_from_slice(&content);
                    said.read(header.kind, &content[..header.size as usize]);
                }
                (None, Taken::All) => said.whole = false,
                (None, Taken::Lost(_)) => return Ok(Next::Search { aligned: false }),
                (None, Taken::Ended(_)) => {
                    feed.because("the archive ends too early");
                    return Ok(Next::End);
                }
            }
            continue;
        }
        return content(feed, header, block, said, breaks, visitor);
    }
}

impl Said {
    /// Reads a header that stands before a member's own.
    fn read(&mut self, kind: u8, content: &[u8]) {
        let text = || content.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            b'L' => self.name = Some(text()),
            b'K' => self.link = Some(text()),
            b'x' | b'X' => {
                for (key, value) in records(content) {
                    match key {
                        b"path" => self.name = Some(value.to_vec()),
                        b"linkpath" => self.link = Some(value.to_vec()),
                        b"size" => self.size = decimal(value),
                        _ => self.is_sparse |= key.starts_with(b"GNU.sparse."),
                    }
                }
            }
            _ => {}
        }
    }
}

/// The records of a pax header, keys and values; up to the first that is malformed.
pub(super) fn records(mut content: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut records = Vec::new();
    while let Some(blank) = content.iter().position(|byte| *byte == b' ') {
        let len = decimal(&content[..blank]).and_then(|it| usize::try_from(it).ok());
        let Some(record) = len.and_then(|len| content.get(blank + 1..len)) else { break };
        let Some(equals) = record.iter().position(|byte| *byte == b'=') else { break };
        records.push((&record[..equals], record[equals + 1..].strip_suffix(b"\n").unwrap_or_default()));
        content = &content[blank + 1 + record.len()..];
    }
    records
}

/// Passes on a member whose header was read.
fn content(
    feed: &mut Feed<impl Iterator<Item = io::Result<Piece>>>,
    header: Header,
    block: [u8; BLOCK],
    said: Said,
    breaks: u32,
    visitor: &mut dyn Visitor,
) -> io::Result<Next> {
    // No data follows a hard link.
    let is_link = header.kind == b'1';
    let size = if is_link { 0 } else { said.size.unwrap_or(header.size) };
    let until_nul = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let own_name = || match (tar::begins(&block), until_nul(&block[345..500])) {
        (true, prefix) if !prefix.is_empty() && &block[257..263] == b"ustar\0" => {
            [&prefix[..], b"/", &until_nul(&block[..100])].concat()
        }
        _ => until_nul(&block[..100]),
    };
    let Some(padded) = size.checked_next_multiple_of(BLOCK as u64) else {
        feed.because("a header of the archive is damaged");
        return Ok(Next::Search { aligned: true });
    };
    let member = Member {
        name: said.name.unwrap_or_else(own_name),
        link: is_link.then(|| said.link.unwrap_or_else(|| until_nul(&block[157..257]))),
        front: said.front,
        block,
        is_named: said.whole,
        is_sparse: said.is_sparse || header.kind == b'S',
        breaks,
    };
    visitor.begin(&member)?;
    let mut extended = header.extended;
    while extended {
        let (map, taken) = feed.exact(BLOCK)?;
        let Some(map) = map else {
            let mut lost = Vec::new();
            add(&mut lost, 0..size);
            visitor.end(&member, Found { lost, cut: Some(0), proved: false })?;
            return Ok(Next::Search { aligned: taken == Taken::All });
        };
        extended = map[504] != 0;
        visitor.content(Chunk::Bytes(&map))?;
    }
    let (mut lost, mut at) = (Vec::<Range<u64>>::new(), 0);
    let taken = feed.take(padded, &mut |chunk| {
        let len = match &chunk {
            Chunk::Bytes(bytes) => bytes.len() as u64,
            Chunk::Hole(len) => {
                add(&mut lost, at..(at + len).min(size));
                *len
            }
        };
        at += len;
        visitor.content(chunk)
    })?;
    add(&mut lost, at.min(size)..size);
    // What is lost behind this is not made up by zeros: a size may be as wrong as anything.
    let cut = (at < padded).then_some(at);
    visitor.end(&member, Found { lost, cut, proved: !feed.doubted })?;
    Ok(match taken {
        Taken::All => Next::Member,
        Taken::Lost(_) => Next::Search { aligned: false },
        Taken::Ended(_) => {
            feed.because("the archive ends too early");
            Next::End
        }
    })
}

fn add(lost: &mut Vec<Range<u64>>, range: Range<u64>) {
    match lost.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end == range.start => last.end = range.end,
        _ => lost.push(range),
    }
}

/// Reads what follows the first block of zeros: an archive ends there, and one that lies within another does too.
fn end(feed: &mut Feed<impl Iterator<Item = io::Result<Piece>>>) -> io::Result<Next> {
    loop {
        let (block, taken) = feed.exact(BLOCK)?;
        match (block, taken) {
            (Some(block), _) if block.iter().all(|byte| *byte == 0) => {}
            (Some(block), _) => {
                feed.because("data behind the end of an archive");
                feed.unread(block, !feed.doubted);
                return Ok(Next::Search { aligned: true });
            }
            (None, Taken::Ended(_)) => return Ok(Next::End),
            (None, Taken::All) => return Ok(Next::Search { aligned: true }),
            (None, Taken::Lost(_)) => return Ok(Next::Search { aligned: false }),
        }
    }
}
