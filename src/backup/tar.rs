//! Checks the structure of a tar archive as a stream, without unpacking it.
//!
//! The rules are those of POSIX (pax and ustar) and of GNU tar's manual, "Basic Tar Format" and "Storing Sparse Files".
//! The archives come from vzdump's `tar`, which is GNU tar in its pax or GNU format.

pub mod salvage;

use std::fmt;
use std::io;

use crate::container::{Skip, read_full};
use crate::tar::{self, BLOCK, number};
use crate::text::shown;

/// A defect of a tar archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading failed, for instance because the file is damaged.
    #[error("reading the tar stream failed at byte {offset}")]
    Read {
        /// The offset up to which all was read.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive ends too early.
    #[error("the tar stream is truncated: it ends at byte {offset}, {place}")]
    Truncated {
        /// The length of the stream in bytes.
        offset: u64,
        /// The place in the archive's structure.
        place: String,
    },
    /// A part of the archive is malformed.
    #[error("{what} (tar stream, byte {offset}{})", after(.member))]
    Malformed {
        /// The offset of the header concerned.
        offset: u64,
        /// What is wrong.
        what: &'static str,
        /// The name of the last good member. It is empty before the first.
        member: String,
    },
}

fn after(member: &str) -> String {
    if member.is_empty() { String::new() } else { format!(", after \"{}\"", shown(member)) }
}

/// The counts of a checked archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TarSummary {
    /// The uncompressed length in bytes.
    pub bytes: u64,
    /// The number of files, directories, links and so on.
    pub members: u64,
    /// The number of regular files.
    pub files: u64,
    /// The number of directories.
    pub directories: u64,
    /// The number of hard and symbolic links.
    pub links: u64,
}

/// Counts what is in the archive: `3 files, 2 directories, 1 link`, and devices, pipes and so on as others.
impl fmt::Display for TarSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TarSummary { members, files, directories, links, .. } = *self;
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        let directories_end = if directories == 1 { "y" } else { "ies" };
        write!(
            f,
            "{files} file{}, {directories} director{directories_end}, {links} link{}",
            plural(files),
            plural(links)
        )?;
        match members.saturating_sub(files + directories + links) {
            0 => Ok(()),
            others => write!(f, ", {others} other{}", plural(others)),
        }
    }
}

/// Checks a whole archive: the checksum and numbers of every header, that all data is there, that two blocks of zeros
/// end it, and that nothing but zeros follows them. An archive without any member is refused, as no guest is empty.
pub fn check(input: impl Skip) -> Result<TarSummary, TarError> {
    let mut walk =
        Walk { input, offset: 0, summary: TarSummary::default(), member: String::new(), global_size: None };
    walk.run()?;
    Ok(TarSummary { bytes: walk.offset, ..walk.summary })
}

struct Walk<R> {
    input: R,
    offset: u64,
    summary: TarSummary,
    member: String,
    /// The `size` of a global pax header, which counts until the next one.
    global_size: Option<u64>,
}

impl<R: Skip> Walk<R> {
    fn run(&mut self) -> Result<(), TarError> {
        // These hold what pax or GNU headers say about the member that must follow.
        let (mut announced, mut size) = (false, None);
        loop {
            let at = self.offset;
            let block =
                self.block(if announced { "before an announced member" } else { "where a header is due" })?;
            if block == [0; BLOCK] {
                return match announced {
                    true => Err(self.malformed(at, "the archive ends where an announced member is due")),
                    false => self.end(),
                };
            }
            let header = Header::parse(&block).map_err(|what| self.malformed(at, what))?;
            match header.kind {
                b'x' | b'X' => {
                    size = self.pax(at, header.size)?.or(size);
                    announced = true;
                }
                b'g' => self.global_size = self.pax(at, header.size)?.or(self.global_size),
                b'L' | b'K' => {
                    self.skip(header.size)?;
                    announced = true;
                }
                kind => {
                    self.summary.members += 1;
                    match kind {
                        b'0' | 0 | b'7' | b'S' => self.summary.files += 1,
                        b'5' | b'D' => self.summary.directories += 1,
                        b'1' | b'2' => self.summary.links += 1,
                        _ => {}
                    }
                    self.member = header.name;
                    let mut extended = header.extended;
                    while extended {
                        extended = self.block("in a sparse map")?[504] != 0;
                    }
                    // The size of a hard link is that of the file it leads to: no data follows.
                    let linked = kind == b'1';
                    self.skip(if linked {
                        0
                    } else {
                        size.take().or(self.global_size).unwrap_or(header.size)
                    })?;
                    (announced, size) = (false, None);
                }
            }
        }
    }

    /// Checks what follows the first block of zeros: a second one, and no data up to the end of the stream.
    fn end(&mut self) -> Result<(), TarError> {
        let at = self.offset;
        if self.summary.members == 0 {
            return Err(self.malformed(at, "the archive is empty"));
        }
        if self.block("between the two blocks of zeros at the end")? != [0; BLOCK] {
            return Err(self.malformed(at, "a single block of zeros, but no end"));
        }
        let mut buffer = [0; 65536];
        loop {
            let at = self.offset;
            match self.fill(&mut buffer)? {
                0 => return Ok(()),
                n if buffer[..n].iter().all(|b| *b == 0) => {}
                _ => return Err(self.malformed(at, "data behind the end of the archive")),
            }
        }
    }

    /// Reads the records of a pax header, `LENGTH KEY=VALUE
    /// ` each. Returns the value of `size`.
    fn pax(&mut self, at: u64, mut left: u64) -> Result<Option<u64>, TarError> {
        let padding = left.wrapping_neg() % BLOCK as u64;
        let mut size = None;
        while left > 0 {
            // Only the beginning of a record matters, and the newline at its end.
            let (mut start, mut used, mut space) = ([0u8; 64], 0, None);
            while space.is_none() && used < 21 && (used as u64) < left {
                self.exact(&mut start[used..used + 1], "in a pax header")?;
                if start[used] == b' ' {
                    space = Some(used);
                }
                used += 1;
            }
            let length = space.and_then(|n| decimal(&start[..n]));
            let length = length.filter(|n| *n <= left && *n > used as u64 + 2);
            let Some((digits, length)) = space.zip(length) else {
                return Err(self.malformed(at, "a pax record's length is wrong"));
            };
            let end = start.len().min(length as usize);
            self.exact(&mut start[used..end], "in a pax header")?;
            let last = match length as usize - end {
                0 => start[end - 1],
                more => self.skip_bytes(more as u64)?,
            };
            if last != b'\n' {
                return Err(self.malformed(at, "a pax record does not end where it says"));
            }
            if let Some(value) = start[digits + 1..end].strip_prefix(b"size=") {
                let value = value.strip_suffix(b"\n").and_then(decimal);
                size = Some(value.ok_or_else(|| self.malformed(at, "a pax record's size is no number"))?);
            }
            left -= length;
        }
        self.skip_bytes(padding)?;
        Ok(size)
    }

    /// Skips a member's data with its padding.
    fn skip(&mut self, size: u64) -> Result<(), TarError> {
        let Some(padded) = size.checked_next_multiple_of(BLOCK as u64) else {
            return Err(self.malformed(self.offset, "a member's size is impossible"));
        };
        let got = self.input.skip(padded).map_err(|source| TarError::Read { offset: self.offset, source })?;
        self.offset += got;
        match got == padded {
            true => Ok(()),
            false => Err(self.truncated("in the data of a member")),
        }
    }

    /// Skips bytes and returns the last of them, or 0 if there is none.
    fn skip_bytes(&mut self, mut count: u64) -> Result<u8, TarError> {
        let mut buffer = [0; 65536];
        let mut last = 0;
        while count > 0 {
            let n = buffer.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.exact(&mut buffer[..n], "in the data of a member")?;
            last = buffer[n - 1];
            count -= n as u64;
        }
        Ok(last)
    }

    fn block(&mut self, place: &'static str) -> Result<[u8; BLOCK], TarError> {
        let mut block = [0; BLOCK];
        self.exact(&mut block, place)?;
        Ok(block)
    }

    fn exact(&mut self, buffer: &mut [u8], place: &'static str) -> Result<(), TarError> {
        match self.fill(buffer)? < buffer.len() {
            true => Err(self.truncated(place)),
            false => Ok(()),
        }
    }

    fn truncated(&self, place: &str) -> TarError {
        TarError::Truncated { offset: self.offset, place: format!("{place}{}", after(&self.member)) }
    }

    /// Reads until `buffer` is full or the stream ends. Returns the number of bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let got = read_full(&mut self.input, buffer)
            .map_err(|source| TarError::Read { offset: self.offset, source })?;
        self.offset += got as u64;
        Ok(got)
    }

    fn malformed(&self, offset: u64, what: &'static str) -> TarError {
        TarError::Malformed { offset, what, member: self.member.clone() }
    }
}

/// The fields of a header block that the structure depends on.
struct Header {
    name: String,
    size: u64,
    kind: u8,
    /// Further blocks with parts of a sparse map follow (GNU's old sparse format).
    extended: bool,
}

impl Header {
    fn parse(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        let declared =
            number(&block[148..156]).ok_or("a header's checksum is no number: not a tar header")?;
        // The sum counts its own field as blanks. Some old programs summed signed bytes.
        let others = block[..148].iter().chain(&block[156..]);
        let unsigned = others.clone().map(|b| i64::from(*b)).sum::<i64>() + 8 * 32;
        let signed = others.map(|b| i64::from(b.cast_signed())).sum::<i64>() + 8 * 32;
        if ![unsigned, signed].contains(&declared.cast_signed()) {
            return Err("a header does not match its checksum");
        }
        let kind = tar::kind(block);
        let name = block[..100].split(|b| *b == 0).next().unwrap_or_default();
        Ok(Header {
            name: String::from_utf8_lossy(name).into_owned(),
            size: tar::size(block).ok_or("a member's size is no number")?,
            kind,
            extended: kind == b'S' && block[482] != 0,
        })
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
