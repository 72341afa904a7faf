//! Walking over the frames of a zstd file by their headers, without decompressing anything.

use std::fs::File;
use std::io;

use super::super::skim::{Skim, read_full_at};
use super::{MAX_FRAME, SIDE_MAGIC, TABLE_MAGIC, Tag, le32};

/// How many blocks without content may follow one another. No encoder writes two of them. Where a file system filled a
/// lost end with zeros, the zeros read as an endless row of them.
const MAX_EMPTY: u32 = 1 << 16;

/// Reads the tag of the side frame right behind the first data frame, if there is one. It tells that a file was written
/// by us, even where its end is missing.
///
/// # Errors
/// Fails where the file cannot be read.
pub fn first_side_tag(file: &File) -> io::Result<Option<Tag>> {
    // The first frame of our files is small. A larger one is somebody else's, which need not be walked over.
    let Some(at) = frame_end(&mut Skim::new(file), 0, u64::from(MAX_FRAME))? else { return Ok(None) };
    let mut side = [0; 16];
    let n = read_full_at(file, &mut side, at)?;
    Ok((n == 16 && le32(&side) == SIDE_MAGIC).then(|| side[8..].try_into().expect("8 bytes")))
}

/// How far the frames of a zstd file reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// The last one ends where the file does.
    Whole,
    /// The frame that begins at this position is not complete.
    Cut(u64),
    /// The last one ends at this position, and something follows that does not begin as a frame.
    Behind(u64),
}

/// Tells how far the frames of a zstd file reach. Only the headers of its blocks (128 KiB of content each) are read.
///
/// # Errors
/// Fails where the file cannot be read.
pub fn frames(file: &File) -> io::Result<Frames> {
    let size = file.metadata()?.len();
    let (mut skim, mut at) = (Skim::new(file), 0);
    while at < size {
        match frame_end(&mut skim, at, size)? {
            Some(end) => at = end,
            None if at == 0 || begins_frame(&mut skim, at)? => return Ok(Frames::Cut(at)),
            None => return Ok(Frames::Behind(at)),
        }
    }
    Ok(Frames::Whole)
}

/// Tells whether what lies at a position is the beginning of a frame, as far as the file goes on.
fn begins_frame(skim: &mut Skim<'_>, at: u64) -> io::Result<bool> {
    let mut magic = [0; 4];
    let n = skim.read_at(at, &mut magic)?;
    let is_content = zstd::zstd_safe::MAGICNUMBER.to_le_bytes().starts_with(&magic[..n]);
    Ok(is_content || n == magic.len() && is_skippable(le32(&magic)))
}

/// Walks over whole frames.
pub(super) struct Whole<'a> {
    skim: Skim<'a>,
    size: u64,
}

impl<'a> Whole<'a> {
    pub fn new(file: &'a File) -> Self {
        Whole { skim: Skim::new(file), size: file.metadata().map_or(0, |m| m.len()) }
    }

    /// Finds the end of the frame that begins at `at`; `None` where no whole frame begins there.
    pub fn frame_end(&mut self, at: u64) -> io::Result<Option<u64>> {
        frame_end(&mut self.skim, at, self.size)
    }
}

/// How a zstd file ends, seen from its first seek table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has no whole seek table: the file is cut short.
    Missing,
    /// The first seek table ends at this position. If anything follows, it is skippable frames, which hold no content.
    Table(u64),
    /// The first seek table ends at this position, and further content follows.
    More(u64),
    /// The first seek table ends at this position, and something follows that is no zstd frame, or no whole one.
    Other(u64),
}

/// Tells how a zstd file with a seek table ends, by the headers of its blocks. This takes as many reads as the file has
/// blocks, so it is for files that do not end in a seek table that fits them.
///
/// # Errors
/// Fails where the file cannot be read.
pub fn end(file: &File) -> io::Result<End> {
    let size = file.metadata()?.len();
    let (mut skim, mut at, mut table) = (Skim::new(file), 0, None);
    while at < size {
        let mut magic = [0; 4];
        skim.read_at(at, &mut magic)?;
        let end = frame_end(&mut skim, at, size)?;
        match (table, end) {
            (None, None) => return Ok(End::Missing),
            (None, Some(end)) if le32(&magic) == TABLE_MAGIC => table = Some(end),
            (Some(table), None) => return Ok(End::Other(table)),
            (Some(table), Some(_)) if !is_skippable(le32(&magic)) => return Ok(End::More(table)),
            _ => {}
        }
        at = end.unwrap_or(size);
    }
    Ok(table.map_or(End::Missing, End::Table))
}

/// Tells whether this is the magic number of a skippable frame (RFC 8878 section 3.1.2).
fn is_skippable(magic: u32) -> bool {
    magic & 0xffff_fff0 == 0x184D_2A50
}

/// Finds the end of the frame that begins at `at`; `None` where no frame begins there, or it ends behind `limit`.
fn frame_end(skim: &mut Skim<'_>, mut at: u64, limit: u64) -> io::Result<Option<u64>> {
    let mut head = [0; 8];
    let n = skim.read_at(at, &mut head)?;
    if n == head.len() && is_skippable(le32(&head)) {
        let end = at + 8 + u64::from(le32(&head[4..]));
        return Ok((end <= limit).then_some(end));
    }
    if n < 6 || le32(&head) != zstd::zstd_safe::MAGICNUMBER {
        return Ok(None);
    }
    // RFC 8878 section 3.1.1.1: descriptor, window descriptor, dictionary id, content size.
    let descriptor = head[4];
    let single = descriptor >> 5 & 1;
    let content_size = match descriptor >> 6 {
        0 => u64::from(single),
        n => 1 << n,
    };
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    at += 5 + u64::from(1 - single) + dictionary + content_size;
    let mut empty = 0;
    loop {
        let mut block = [0; 3];
        if at > limit || empty > MAX_EMPTY || skim.read_at(at, &mut block)? < 3 {
            return Ok(None);
        }
        // Section 3.1.1.2: last block bit, type (1: one byte, repeated), size.
        let word = u32::from_le_bytes([block[0], block[1], block[2], 0]);
        let len = if word >> 1 & 3 == 1 { 1 } else { word >> 3 };
        at += 3 + u64::from(len);
        empty = if len == 0 { empty + 1 } else { 0 };
        if word & 1 == 1 {
            break;
        }
    }
    at += u64::from(descriptor >> 2 & 1) * 4;
    Ok((at <= limit).then_some(at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::tests::sample;
    use super::*;

    #[test]
    fn whole_files_are_told_from_cut_ones() {
        let (content, seekable) = sample();
        let plain = zstd::encode_all(&content[..], 3).unwrap();
        for file in [&seekable, &plain, &[&plain[..], &plain].concat()] {
            let found = |bytes: &[u8]| {
                let mut f = tempfile::tempfile().unwrap();
                f.write_all(bytes).unwrap();
                frames(&f).unwrap()
            };
            assert!(found(file) == Frames::Whole);
            for cut in (1..30).chain([1000, file.len() / 2, file.len() - 3]) {
                let cut_file = &file[..file.len() - cut];
                // A cut between two frames cannot be seen.
                let between = zstd::decode_all(cut_file).is_ok();
                let end = found(cut_file);
                assert_eq!(end == Frames::Whole, between, "{cut} of {}", file.len());
                assert!(!matches!(end, Frames::Behind(_)), "{cut} of {}", file.len());
            }
            let size = file.len() as u64;
            for (behind, end) in [
                (&b"x"[..], Frames::Behind(size)),
                (&[0; 99], Frames::Behind(size)),
                (b"\x53\x2a\x4d\x18\0\0\0\0text", Frames::Behind(size + 8)),
                (&plain[..9], Frames::Cut(size)),
                (&plain[..2], Frames::Cut(size)),
                (b"\x53\x2a\x4d\x18\x05\0\0\0note", Frames::Cut(size)),
            ] {
                assert_eq!(found(&[&file[..], behind].concat()), end, "{behind:?}");
            }
        }
    }

    #[test]
    fn what_follows_a_seek_table_is_told_apart() {
        let seekable = sample().1;
        let size = seekable.len() as u64;
        let more = zstd::encode_all(&b"more"[..], 3).unwrap();
        let note = [&0x184D_2A53u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"note"].concat();
        for (behind, expected) in [
            (&b""[..], End::Table(size)),
            (&note, End::Table(size)),
            (&note.repeat(3), End::Table(size)),
            (&more, End::More(size)),
            (&[&note[..], &more].concat(), End::More(size)),
            (&seekable, End::More(size)),
            (b"garbage", End::Other(size)),
            (&[0; 100], End::Other(size)),
            (&more[..more.len() - 1], End::Other(size)),
            (&note[..9], End::Other(size)),
        ] {
            let mut f = tempfile::tempfile().unwrap();
            f.write_all(&[&seekable, behind].concat()).unwrap();
            assert_eq!(end(&f).unwrap(), expected, "{behind:?}");
        }
        for cut in [1, 9, 50, seekable.len() - 8] {
            let mut f = tempfile::tempfile().unwrap();
            f.write_all(&seekable[..seekable.len() - cut]).unwrap();
            assert_eq!(end(&f).unwrap(), End::Missing, "{cut}");
        }
    }
}
