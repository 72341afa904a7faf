//! Reading a stream and handing it out in segments.

use std::io::Read;

use super::{Cluster, Layout, SEGMENT, Segment, Span};
use crate::matching::Error;
use crate::matching::free_list::FreeList;
use crate::vma::{EXTENT_HEADER, ExtentHeader, Header};

/// Bytes that are read at once. They are few enough to be in the processor's cache still when they are hashed next.
const READ: usize = 128 << 10;

/// Reads a stream and hands it out in segments.
pub struct Segmenter<R> {
    reader: R,
    position: u64,
    state: State,
    /// Bytes that were read but belong to the next segment.
    held: Vec<u8>,
    buffers: FreeList<Vec<u8>>,
    watcher: Watcher,
}

/// A function that is shown all bytes that are read.
type Watcher = Box<dyn FnMut(&[u8]) + Send>;

#[derive(PartialEq)]
enum State {
    /// Nothing was read yet.
    Start,
    /// The next bytes are the header of a VMA extent.
    Extents,
    /// The stream is no VMA archive, or no longer a good one.
    Bytes,
    /// The stream has ended.
    End,
}

impl<R: Read> Segmenter<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Segmenter<R> {
        let (held, buffers, watcher) = (Vec::new(), FreeList::default(), Box::new(|_: &[u8]| ()));
        Segmenter { reader, position: 0, state: State::Start, held, buffers, watcher }
    }

    /// Shows all bytes that are read to `watcher`, once and in order.
    pub(in crate::matching) fn watched(self, watcher: impl FnMut(&[u8]) + Send + 'static) -> Segmenter<R> {
        Segmenter { watcher: Box::new(watcher), ..self }
    }

    /// The list from which the memory of new segments is taken. Whoever is done with a segment returns its memory there.
    pub(in crate::matching) fn buffers(&self) -> FreeList<Vec<u8>> {
        self.buffers.clone()
    }

    /// Reads the next segment; `None` at the end of the stream.
    ///
    /// # Errors
    /// Fails where the stream cannot be read.
    pub fn next_segment(&mut self) -> Result<Option<Segment>, Error> {
        let mut data = self.buffers.take();
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

    /// Appends up to `want` bytes to `data`. The result tells whether all of them were there.
    fn fill(&mut self, data: &mut Vec<u8>, want: usize) -> Result<bool, Error> {
        let end = data.len() + want;
        while data.len() < end {
            let at = data.len();
            let part = READ.min(end - at);
            // Unlike `read_full`, this need not fill the memory with zeros before.
            let n = (self.reader.by_ref().take(part as u64).read_to_end(data))
                .map_err(|source| Error::Io { what: "cannot read the stream".into(), source })?;
            (self.watcher)(&data[at..]);
            if n < part {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills up a segment of any bytes.
    fn bytes(&mut self, data: &mut Vec<u8>) -> Result<Layout, Error> {
        self.state = State::Bytes;
        self.fill(data, SEGMENT - data.len())?;
        Ok(Layout::Bytes)
    }

    /// Reads the first segment: it begins with the header of a VMA archive, or the stream is no such archive.
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

    /// Fills up a segment with whole VMA extents. Where something else follows (damage, or data behind the archive), the
    /// rest of the stream is cut by content.
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
            // There was nothing but an extent that is cut short.
            std::mem::swap(data, &mut self.held);
            return self.bytes(data);
        }
        Ok(Layout::Vma(spans))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_PIECES, Piece, PieceKind};
    use super::*;
    use crate::vma::{BLOCK, Device, Header, Order, write_archive};

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
            assert!(s.pieces().filter(Piece::has_fingerprint).count() <= MAX_PIECES);
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
                let PieceKind::Block(cluster, n) = p.kind else { continue };
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
