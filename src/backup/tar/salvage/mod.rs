//! What is left of a damaged archive, as an archive that tar unpacks.
//!
//! The damaged one is read twice: first to learn which members are not whole (`walk`, on what `feed` hands out), then to write
//! it anew. A member that is whole stays as it is. One whose content is not gets another name, `NAME.incomplete`, and zeros for
//! what is lost. Where a header is lost, nobody knows where the next one is, and what looks like one may belong to an archive
//! that lies in a file. So everything from there on goes into a folder of its own, `unproved-1`: its content is as it was, but
//! its place is not proved.

mod feed;
mod rename;
mod walk;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::ops::Range;

use self::feed::{Chunk, Feed};
use self::rename::renamed;
use self::walk::{Found, Member, Visitor, walk};
use crate::container::salvage::Pieces;
use crate::tar::BLOCK;

/// The most members that are not whole which are listed. Where there are more, nothing is salvaged.
const MOST: usize = 1 << 20;

/// What was salvaged of an archive.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// The number of members that are whole and in their places.
    pub whole: u64,
    /// The members of which something is lost.
    pub partial: Vec<Partial>,
    /// The folders with what was found behind damage, and the number of members in each.
    pub unproved: BTreeMap<String, u64>,
    /// What is wrong with the archive, in the order of its bytes; only the first of many.
    pub reasons: Vec<String>,
    /// The paths, in what was written, of members for which no checksum vouches any more: some may be other than they were.
    pub doubtful: Vec<Vec<u8>>,
}

/// A member of which something is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Its name.
    pub name: Vec<u8>,
    /// Its name in what was written; `None` where it was left out, as nothing of use is left.
    pub written: Option<Vec<u8>>,
    /// The bytes of its content that are lost; in what was written they are zeros, unless it ends before them.
    pub lost: Vec<Range<u64>>,
    /// Its length in what was written, if it breaks off.
    pub cut: Option<u64>,
    /// Why it was left out.
    pub why: Option<&'static str>,
}

impl Salvaged {
    /// Whether nothing is lost or in doubt.
    pub fn is_whole(&self) -> bool {
        self.partial.is_empty()
            && self.unproved.is_empty()
            && self.reasons.is_empty()
            && self.doubtful.is_empty()
    }
}

/// Writes to `out` what is left of an archive, as an archive. `open` opens the damaged one; it is called twice.
///
/// # Errors
/// Fails where nothing can be read or written, where too much is damaged to be listed, and where the file changes meanwhile.
pub fn salvage(
    open: &mut dyn FnMut() -> anyhow::Result<Pieces>,
    out: &mut dyn Write,
) -> anyhow::Result<Salvaged> {
    let mut survey = Survey::default();
    let mut feed = Feed::new(open()?);
    walk(&mut feed, &mut survey)?;
    if survey.count == 0 {
        anyhow::bail!("nothing of the archive can be read: no header of a file is left");
    }
    let mut writer = Writer {
        survey,
        out,
        count: 0,
        current: Vec::new(),
        written: 0,
        skipping: false,
        salvaged: Salvaged::default(),
    };
    let mut again = Feed::new(open()?);
    walk(&mut again, &mut writer)?;
    if writer.count != writer.survey.count {
        anyhow::bail!("the file was changed while it was read, or its disk gives other bytes each time");
    }
    // As many blocks as GNU tar writes at the least.
    writer.out.write_all(&[0; 2 * BLOCK])?;
    let mut salvaged = writer.salvaged;
    salvaged.partial = writer.survey.partial.into_values().collect();
    salvaged.reasons = again.reasons;
    Ok(salvaged)
}

/// The most files that are remembered for the sake of hard links to them.
const MOST_TARGETS: usize = 8 << 20;

/// Finds the members that are not whole, by their numbers.
#[derive(Default)]
struct Survey {
    count: u64,
    partial: BTreeMap<u64, Partial>,
    /// The members for which no checksum vouches, and the number of the first that are all in doubt.
    doubtful: BTreeSet<u64>,
    doubted: u64,
    hasher: RandomState,
    /// Where the whole members are to which hard links can lead: by the hashes of their names, how many times the structure
    /// was lost before them.
    targets: HashMap<u64, u32>,
}

impl Survey {
    /// Finds where the target of a hard link is; `None` where it is not whole, or not there.
    fn target(&self, link: &[u8]) -> Option<u32> {
        self.targets.get(&self.hasher.hash_one(link)).copied()
    }
}

/// The path in what is written of a member with this name, before which the structure was lost so many times.
fn place(breaks: u32, name: &[u8]) -> Vec<u8> {
    match folder(breaks) {
        Some(folder) => [folder.as_bytes(), b"/", name.strip_prefix(b"./").unwrap_or(name)].concat(),
        None => name.to_vec(),
    }
}

/// The folder of members that were found behind damage.
fn folder(breaks: u32) -> Option<String> {
    (breaks > 0).then(|| format!("./unproved-{breaks}"))
}

impl Visitor for Survey {
    fn begin(&mut self, _: &Member) -> io::Result<()> {
        self.count += 1;
        Ok(())
    }

    fn content(&mut self, _: Chunk) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, member: &Member, Found { lost, cut, proved }: Found) -> io::Result<()> {
        if !proved {
            self.doubtful.insert(self.count);
        }
        if self.doubtful.len() > MOST {
            self.doubt();
        }
        let leads_nowhere = member.link.as_ref().is_some_and(|link| self.target(link).is_none());
        let why = match () {
            () if !member.is_named => Some("its name or its attributes are lost"),
            () if member.is_sparse && !lost.is_empty() => {
                Some("its content is stored with holes, and cannot be put in its places")
            }
            () if leads_nowhere => Some("a hard link to a file that is lost, or not whole"),
            () if lost.is_empty() => {
                if self.targets.len() < MOST_TARGETS {
                    self.targets.insert(self.hasher.hash_one(&member.name[..]), member.breaks);
                }
                return Ok(());
            }
            () => None,
        };
        if self.partial.len() >= MOST {
            return Err(io::Error::other("too many files are damaged"));
        }
        let written =
            why.is_none().then(|| place(member.breaks, &[&member.name[..], b".incomplete"].concat()));
        self.partial.insert(self.count, Partial { name: member.name.clone(), written, lost, cut, why });
        Ok(())
    }

    fn doubt(&mut self) {
        self.doubtful.clear();
        self.doubted = self.count;
    }
}

/// Writes the archive anew.
struct Writer<'a> {
    survey: Survey,
    out: &'a mut dyn Write,
    count: u64,
    /// The bytes that are lost of the present member, as the survey found them.
    current: Vec<Range<u64>>,
    /// How many bytes of the present member's content were written.
    written: u64,
    /// Whether the present member is left out.
    skipping: bool,
    salvaged: Salvaged,
}

impl Visitor for Writer<'_> {
    fn begin(&mut self, member: &Member) -> io::Result<()> {
        self.count += 1;
        self.written = 0;
        let partial = self.survey.partial.get(&self.count);
        self.current = partial.map(|it| it.lost.clone()).unwrap_or_default();
        self.skipping = partial.is_some_and(|it| it.written.is_none());
        if self.skipping {
            return Ok(());
        }
        if let Some(folder) = folder(member.breaks) {
            *self.salvaged.unproved.entry(folder).or_default() += 1;
        } else if partial.is_none() {
            self.salvaged.whole += 1;
        }
        let path =
            partial.and_then(|it| it.written.clone()).unwrap_or_else(|| place(member.breaks, &member.name));
        if self.count <= self.survey.doubted || self.survey.doubtful.contains(&self.count) {
            self.salvaged.doubtful.push(path.clone());
        }
        // A hard link leads to where its target is now.
        let link = member.link.as_deref().map(|link| place(self.survey.target(link).unwrap_or(0), link));
        let is_moved = link.as_ref().is_some_and(|link| Some(link) != member.link.as_ref());
        if path == member.name && !is_moved {
            self.out.write_all(&member.front)?;
            return self.out.write_all(&member.block);
        }
        let cut = partial.and_then(|it| it.cut);
        self.out.write_all(&renamed(member, &path, link.as_deref(), cut))
    }

    fn content(&mut self, chunk: Chunk) -> io::Result<()> {
        match chunk {
            _ if self.skipping => Ok(()),
            Chunk::Bytes(bytes) => {
                self.written += bytes.len() as u64;
                self.out.write_all(bytes)
            }
            Chunk::Hole(len) => {
                self.written += len;
                io::copy(&mut io::Read::take(io::repeat(0), len), &mut self.out).map(drop)
            }
        }
    }

    fn end(&mut self, _: &Member, found: Found) -> io::Result<()> {
        match found.lost == self.current {
            // Where it breaks off, this fills its last block.
            true if !self.skipping => {
                let rest = self.written.next_multiple_of(BLOCK as u64) - self.written;
                self.out.write_all(&[0; BLOCK][..rest as usize])
            }
            true => Ok(()),
            false => Err(io::Error::other("the disk gives other bytes each time it is read")),
        }
    }

    fn doubt(&mut self) {}
}
