//! Cutting a stream into segments, and segments into pieces that can be found again in another stream.
//!
//! A VMA stream is cut into its 4096-byte blocks, known by device, cluster and number: extents only
//! align to 512 bytes, carry a fresh UUID each time and hold clusters in no certain order, so a block's
//! place in the stream says little. Of an extent's header the list of its clusters is a piece, which is the same from
//! day to day where nothing changed; the UUID and the checksum in front of it are not. Everything else is cut by content (a gear hash), so that pieces
//! are found again whatever was inserted before them; a tar archive also where its members begin.

use std::io::Read;
use std::iter::Peekable;

use super::spare::Spare;
use super::{Error, members};
use crate::vma::{BLOCK, BLOCKS_PER_CLUSTER, EXTENT_FRONT, EXTENT_HEADER, ExtentHeader, Header};

/// The longest segment. A segment is the unit of work and becomes one VCDIFF window or a few; 8 MiB
/// is the window that xdelta3 writes by default (it reads windows of up to 16 MiB).
pub const SEGMENT: usize = 8 << 20;

/// Shortest and longest content-defined piece, in bytes.
const MIN_PIECE: usize = 2 << 10;
const MAX_PIECE: usize = 32 << 10;
/// A cut falls where these bits of the gear hash are zero: every 4 KiB on average, past the minimum.
const CUT_MASK: u64 = ((1 << 12) - 1) << 48;

/// Most pieces that a segment can have, gaps not counted: no more than one begins in 512 bytes, but for the ends.
pub const MAX_PIECES: usize = SEGMENT / 512 + 2;

/// Which block of a virtual machine's disk a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Device id in the archive.
    pub device: u8,
    /// Number of the 64-KiB cluster on the device.
    pub number: u32,
    /// Bit n: block n of the cluster is stored (others are zeros).
    pub mask: u16,
}

/// A stretch of a VMA stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The archive's header: bytes that are never found again.
    Gap(u32),
    /// The header of an extent.
    Header,
    /// The stored blocks of a cluster.
    Cluster(Cluster),
}

/// What a segment's bytes are known to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Any bytes: to be cut by content.
    Bytes,
    /// Whole extents of a VMA archive, or its header.
    Vma(Vec<Span>),
}

/// A part of a stream, with at most [`SEGMENT`] bytes.
#[derive(Debug)]
pub struct Segment {
    /// Place of the first byte in the stream.
    pub start: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// How they are to be cut.
    pub layout: Layout,
}

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Place in the segment.
    pub at: usize,
    /// Bytes.
    pub len: usize,
    /// What it is.
    pub part: Part,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes of any kind.
    Bytes,
    /// A block of a disk: its cluster, and its number in there (0 to 15).
    Block(Cluster, u8),
    /// The list of clusters in an extent's header.
    Clusters,
    /// What precedes that list, most of which is new in every archive.
    Front,
    /// An archive's header.
    Gap,
}

/// Bytes of the list of clusters in an extent's header.
pub const CLUSTERS_LEN: usize = EXTENT_HEADER - EXTENT_FRONT;

impl Piece {
    fn new(at: usize, len: usize) -> Piece {
        Piece { at, len, part: Part::Bytes }
    }

    /// Whether it is worth a fingerprint: it may be found again.
    pub fn is_known_again(&self) -> bool {
        !matches!(self.part, Part::Front | Part::Gap)
    }
}

impl Segment {
    /// The clusters of a VMA archive that it holds, those of zeros too.
    pub fn clusters(&self) -> impl Iterator<Item = Cluster> + '_ {
        let spans = match &self.layout {
            Layout::Vma(spans) => &spans[..],
            Layout::Bytes => &[],
        };
        spans.iter().filter_map(|span| match span {
            Span::Cluster(cluster) => Some(*cluster),
            Span::Gap(_) | Span::Header => None,
        })
    }

    /// Cuts the segment; the pieces cover it without holes, in order.
    pub fn pieces(&self) -> Pieces<'_> {
        let cuts = match &self.layout {
            Layout::Bytes => {
                let headers = members::headers(self.start, &self.data).into_iter();
                let ends: Vec<_> = headers.flat_map(|h| [h.start, h.end]).chain([self.data.len()]).collect();
                Cuts::ByContent(ends.into_iter().peekable())
            }
            Layout::Vma(spans) => Cuts::Blocks(blocks(spans).into_iter()),
        };
        Pieces { data: &self.data, at: 0, cuts }
    }
}

/// The pieces of spans: their blocks.
fn blocks(spans: &[Span]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for span in spans {
        match *span {
            Span::Gap(len) => {
                pieces.push(Piece { part: Part::Gap, ..Piece::new(at, len as usize) });
                at += len as usize;
            }
            Span::Header => {
                let clusters = at + EXTENT_FRONT;
                pieces.push(Piece { part: Part::Front, ..Piece::new(at, EXTENT_FRONT) });
                pieces.push(Piece { part: Part::Clusters, ..Piece::new(clusters, CLUSTERS_LEN) });
                at += EXTENT_HEADER;
            }
            Span::Cluster(c) => {
                for n in (0..BLOCKS_PER_CLUSTER as u8).filter(|n| c.mask >> n & 1 == 1) {
                    pieces.push(Piece { part: Part::Block(c, n), ..Piece::new(at, BLOCK) });
                    at += BLOCK;
                }
            }
        }
    }
    pieces
}

/// Cuts a segment, one piece after the other.
pub struct Pieces<'a> {
    data: &'a [u8],
    at: usize,
    cuts: Cuts,
}

enum Cuts {
    Blocks(std::vec::IntoIter<Piece>),
    /// Where there is a cut in any case; the end of the segment is the last of these places.
    ByContent(Peekable<std::vec::IntoIter<usize>>),
}

impl Pieces<'_> {
    /// A piece of the length that `guess` tells, in the place of the next one, which is not taken; `None` where cuts do
    /// not depend on the content, or it would not fit. What follows the same bytes as in the base is probably cut as
    /// there: to look is quicker than to cut.
    pub fn guess(&self, guess: impl FnOnce() -> Option<usize>) -> Option<Piece> {
        let Cuts::ByContent(_) = self.cuts else { return None };
        let len = guess().filter(|len| *len <= self.data.len() - self.at)?;
        Some(Piece::new(self.at, len))
    }

    /// Takes a piece that was a good guess.
    pub fn accept(&mut self, guess: Piece) {
        debug_assert_eq!(guess.at, self.at);
        self.at += guess.len;
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let piece = match &mut self.cuts {
            Cuts::Blocks(blocks) => blocks.next()?,
            Cuts::ByContent(ends) => {
                while ends.next_if(|end| *end <= self.at).is_some() {}
                Piece::new(self.at, cut(&self.data[self.at..*ends.peek()?]))
            }
        };
        debug_assert_eq!(piece.at, self.at);
        self.at += piece.len;
        Some(piece)
    }
}

/// Random 64-bit numbers of the gear hash, one per byte value (splitmix64).
pub(super) static GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0u64;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
};

/// Length of the first piece of `data`. The hash reaches 64 bytes back at most, so equal bytes give
/// equal cuts soon after a difference.
fn cut(data: &[u8]) -> usize {
    if data.len() <= MIN_PIECE {
        return data.len();
    }
    let end = data.len().min(MAX_PIECE);
    let mut hash = 0u64;
    for &b in &data[MIN_PIECE - 64..MIN_PIECE] {
        hash = (hash << 1).wrapping_add(GEAR[b as usize]);
    }
    for (n, &b) in data[MIN_PIECE..end].iter().enumerate() {
        hash = (hash << 1).wrapping_add(GEAR[b as usize]);
        if hash & CUT_MASK == 0 {
            return MIN_PIECE + n + 1;
        }
    }
    end
}

/// Reads a stream and hands it out in segments.
pub struct Segmenter<R> {
    reader: R,
    position: u64,
    state: State,
    /// Bytes that were read but belong to the next segment.
    held: Vec<u8>,
    spare: Spare<Vec<u8>>,
    seen: Watcher,
}

/// Is shown what is read.
type Watcher = Box<dyn FnMut(&[u8]) + Send>;

/// Bytes that are read at once: what is done with them next finds them in the processor's cache.
const READ: usize = 128 << 10;

#[derive(PartialEq)]
enum State {
    Start,
    Extents,
    Bytes,
    End,
}

impl<R: Read> Segmenter<R> {
    /// Cuts what `reader` gives.
    pub fn new(reader: R) -> Segmenter<R> {
        let (held, spare, seen) = (Vec::new(), Spare::default(), Box::new(|_: &[u8]| ()));
        Segmenter { reader, position: 0, state: State::Start, held, spare, seen }
    }

    /// Shows all that is read to `seen`, once and in order.
    pub(super) fn watched(self, seen: impl FnMut(&[u8]) + Send + 'static) -> Segmenter<R> {
        Segmenter { seen: Box::new(seen), ..self }
    }

    /// Where the memory of segments that are done with is to be left.
    pub(super) fn spare(&self) -> Spare<Vec<u8>> {
        self.spare.clone()
    }

    /// The next segment; `None` at the end of the stream.
    ///
    /// # Errors
    /// Those of reading.
    pub fn next_segment(&mut self) -> Result<Option<Segment>, Error> {
        let mut data = self.spare.take();
        data.clear();
        data.reserve_exact(SEGMENT);
        data.append(&mut self.held);
        let layout = match self.state {
            State::End => return Ok(None),
            State::Bytes => self.bytes(&mut data)?,
            State::Extents => self.extents(&mut data, Vec::new())?,
            State::Start => self.start(&mut data)?,
        };
        if data.is_empty() {
            self.state = State::End;
            return Ok(None);
        }
        let start = self.position;
        self.position += data.len() as u64;
        Ok(Some(Segment { start, data, layout }))
    }

    /// Appends up to `want` bytes; tells whether all of them were there.
    fn fill(&mut self, data: &mut Vec<u8>, want: usize) -> Result<bool, Error> {
        let end = data.len() + want;
        while data.len() < end {
            let at = data.len();
            let part = READ.min(end - at);
            // Unlike `read_full` it need not clear the memory before.
            let n = (self.reader.by_ref().take(part as u64).read_to_end(data))
                .map_err(|source| Error::Io { what: "cannot read the stream".into(), source })?;
            (self.seen)(&data[at..]);
            if n < part {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn bytes(&mut self, data: &mut Vec<u8>) -> Result<Layout, Error> {
        self.state = State::Bytes;
        self.fill(data, SEGMENT - data.len())?;
        Ok(Layout::Bytes)
    }

    fn start(&mut self, data: &mut Vec<u8>) -> Result<Layout, Error> {
        self.fill(data, Header::PREFIX)?;
        let Ok(Some(len)) = Header::measure(data) else {
            return self.bytes(data);
        };
        if len > SEGMENT - EXTENT_HEADER
            || !self.fill(data, len - data.len())?
            || Header::parse(data).is_err()
        {
            return self.bytes(data);
        }
        self.extents(data, vec![Span::Gap(len as u32)])
    }

    /// Collects whole extents. What is no extent (damage, or something behind the archive) is left to
    /// the cutting by content.
    fn extents(&mut self, data: &mut Vec<u8>, mut spans: Vec<Span>) -> Result<Layout, Error> {
        self.state = State::Extents;
        // `data` may begin with the extent header that did not fit into the last segment.
        let mut at = if spans.is_empty() { 0 } else { data.len() };
        loop {
            if data.len() == at && !self.fill(data, EXTENT_HEADER)? && data.len() == at {
                break;
            }
            let head = data[at..].first_chunk::<EXTENT_HEADER>().and_then(|h| ExtentHeader::parse(h).ok());
            let Some(head) = head else {
                if at == 0 {
                    return self.bytes(data);
                }
                self.state = State::Bytes;
                self.held = data.split_off(at);
                break;
            };
            let len = head.data_len();
            if at + EXTENT_HEADER + len > SEGMENT {
                self.held = data.split_off(at);
                break;
            }
            if !self.fill(data, len)? {
                self.state = State::Bytes;
                self.held = data.split_off(at);
                break;
            }
            spans.push(Span::Header);
            spans.extend(
                head.clusters()
                    .map(|c| Span::Cluster(Cluster { device: c.device, number: c.number, mask: c.mask })),
            );
            at = data.len();
        }
        if data.is_empty() && !self.held.is_empty() {
            // Nothing but a cut extent was there.
            std::mem::swap(data, &mut self.held);
            return self.bytes(data);
        }
        Ok(Layout::Vma(spans))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vma::{Device, Order, write_archive};

    fn random(len: usize) -> Vec<u8> {
        (0..len as u64)
            .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8 ^ (n >> 9) as u8)
            .collect()
    }

    fn segments(stream: &[u8]) -> Vec<Segment> {
        // Read in odd bits, as from a pipe.
        struct Bits<'a>(&'a [u8]);
        impl Read for Bits<'_> {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                let n = buf.len().min(77_777);
                self.0.read(&mut buf[..n])
            }
        }
        let (send, seen) = std::sync::mpsc::channel();
        let mut cutter = Segmenter::new(Bits(stream)).watched(move |part| send.send(part.to_vec()).unwrap());
        let all: Vec<_> = std::iter::from_fn(|| cutter.next_segment().unwrap()).collect();
        assert!(seen.try_iter().flatten().eq(stream.iter().copied()), "it was not seen as it is");
        let joined: Vec<u8> = all.iter().flat_map(|s| s.data.clone()).collect();
        assert!(joined == stream, "the segments are not the stream");
        let mut at = 0;
        for s in &all {
            assert_eq!(s.start, at);
            assert!((1..=SEGMENT).contains(&s.data.len()));
            at += s.data.len() as u64;
            let mut end = 0;
            for p in s.pieces() {
                assert_eq!(p.at, end);
                end += p.len;
            }
            assert_eq!(end, s.data.len());
            assert!(s.pieces().filter(Piece::is_known_again).count() <= MAX_PIECES);
        }
        all
    }

    fn archive(disk: &[u8]) -> Vec<u8> {
        let header = Header {
            uuid: [3; 16],
            ctime: 0,
            configs: Vec::new(),
            devices: vec![Device { id: 1, name: "drive-scsi0".into(), size: disk.len() as u64 }],
        };
        write_archive(Vec::new(), header, &mut [std::io::Cursor::new(disk)], Order::Workers(1)).unwrap()
    }

    #[test]
    fn an_archive_is_cut_into_blocks_of_its_disk() {
        let mut disk = random(20 << 20);
        disk[5 << 20..6 << 20].fill(0);
        let all = segments(&archive(&disk));
        assert!(all.len() > 2 && all.iter().all(|s| matches!(s.layout, Layout::Vma(_))));
        let mut blocks = 0;
        for s in &all {
            for p in s.pieces() {
                let Part::Block(cluster, n) = p.part else { continue };
                let at = cluster.number as usize * 65536 + usize::from(n) * BLOCK;
                assert_eq!(s.data[p.at..p.at + p.len], disk[at..at + BLOCK]);
                blocks += 1;
            }
        }
        assert_eq!(blocks, (19 << 20) / BLOCK);
    }

    #[test]
    fn damaged_and_cut_archives_lose_no_byte() {
        let good = archive(&random(9 << 20));
        for cut in [0, 1, 4, 500, 12_287, 12_288, 13_000, 4 << 20, good.len() - 1] {
            segments(&good[..cut]);
        }
        for damage in [3, 100, 12_400, 13_000, 5 << 20] {
            let mut bad = good.clone();
            bad[damage..damage + 600].fill(0xee);
            segments(&bad);
        }
        segments(&[&good[..], b"more"].concat());
        segments(&[&good[..], &good[..]].concat());
    }

    #[test]
    fn cuts_follow_the_content() {
        let stream = random(3 << 20);
        let cuts = |stream: &[u8]| -> Vec<u64> {
            let all = segments(stream);
            all.iter().flat_map(|s| s.pieces().map(|p| s.start + p.at as u64)).collect()
        };
        let before = cuts(&stream);
        let mut longer = stream.clone();
        longer.splice(1000..1000, *b"thirteen byte");
        let after = cuts(&longer);
        let kept = before.iter().filter(|&&c| after.binary_search(&(c + 13)).is_ok()).count();
        assert!(kept + 10 > before.len(), "{kept} of {}", before.len());
        let mean = stream.len() / before.len();
        assert!((3000..12_000).contains(&mean), "{mean}");
    }

    #[test]
    fn a_guess_takes_the_place_of_a_cut() {
        let stream = random(100_000);
        let segment = &segments(&stream)[0];
        let mut pieces = segment.pieces();
        assert_eq!(pieces.guess(|| None), None);
        assert_eq!(pieces.guess(|| Some(100_001)), None);
        // A guess that is not taken changes nothing.
        assert!(pieces.guess(|| Some(100_000)).is_some());
        let first = pieces.next();
        assert_eq!(first, segment.pieces().next());
        let guess = pieces.guess(|| Some(5)).unwrap();
        assert_eq!((guess.at, guess.len), (first.unwrap().len, 5));
        pieces.accept(guess);
        assert_eq!(pieces.next().unwrap().at, guess.at + 5);
        assert_eq!(pieces.last().map(|p| p.at + p.len), Some(stream.len()));

        // Blocks are where they are.
        let disk = &segments(&archive(&stream[..1 << 16]))[0];
        assert_eq!(disk.pieces().guess(|| panic!("nobody asks")), None);
    }
}
