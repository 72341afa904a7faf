//! The base's bytes with which changed stretches are compared.

use std::io;
use std::ops::Range;

use crate::container::{Extent, ReadAt};

/// Bytes of the base from several places, one behind the other. The matcher compares a changed stretch with them.
#[derive(Default)]
pub(super) struct Reference {
    /// The bytes.
    pub bytes: Vec<u8>,
    parts: Vec<Part>,
}

/// A part of a reference; it ends where the next one begins.
struct Part {
    /// Position of its first byte in `Reference::bytes`.
    at: usize,
    /// Position of its first byte in the base.
    base: u64,
}

impl Reference {
    /// Reads these extents of the base, as far as the base reaches. What cannot be read is left out; the last error is
    /// returned.
    pub fn fetch(&mut self, content: &dyn ReadAt, extents: &[Extent]) -> Option<io::Error> {
        self.bytes.clear();
        self.parts.clear();
        let mut error = None;
        for extent in extents {
            let len = extent.len.min(content.size().saturating_sub(extent.pos)) as usize;
            if len == 0 {
                continue;
            }
            let at = self.bytes.len();
            self.bytes.resize(at + len, 0);
            match content.read_at(extent.pos, &mut self.bytes[at..]) {
                Ok(()) => self.parts.push(Part { at, base: extent.pos }),
                Err(e) => {
                    self.bytes.truncate(at);
                    error = Some(e);
                }
            }
        }
        error
    }

    /// Where in the base the `len` bytes from `at` on lie: one place, or several where they go over the end of a part. Each
    /// is a position and a length in bytes.
    pub fn origins(&self, at: usize, len: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
        let ends = self.parts.iter().skip(1).map(|part| part.at).chain([self.bytes.len()]);
        self.parts.iter().zip(ends).filter_map(move |(part, end)| {
            let (first, last) = (at.max(part.at), (at + len).min(end));
            (first < last).then(|| (part.base + (first - part.at) as u64, last - first))
        })
    }
}

/// Bytes of the base that are read beforehand, for several stretches of a segment. They are read in the order of the base,
/// so that what has to be decompressed for them is decompressed once.
#[derive(Default)]
pub(super) struct Prefetch {
    bytes: Vec<u8>,
    parts: Vec<Fetched>,
    /// Whether the last ones were read from the back of the base to its front.
    backward: bool,
    /// Why some of them could not be read.
    pub errors: Vec<io::Error>,
}

/// An extent of the base that was read.
struct Fetched {
    /// Position of its first byte in the base.
    base: u64,
    /// Where its bytes are; the range is empty if they could not be read.
    bytes: Range<usize>,
}

impl Prefetch {
    /// Bytes that are enough for one call of [`Prefetch::read`].
    const ENOUGH: u64 = 16 << 20;

    /// Reads the extents of the next stretches, as far as they can be read, and returns for how many stretches it did so:
    /// for one at least. `zone` tells the number of the zone at a position of the base; a zone is decompressed from its
    /// front.
    pub fn read<'a>(
        &mut self,
        content: &dyn ReadAt,
        zone: impl Fn(u64) -> u64,
        stretches: impl Iterator<Item = &'a [Extent]>,
    ) -> usize {
        self.bytes.clear();
        self.parts.clear();
        self.errors.clear();
        let mut extents = Vec::new();
        let (mut served, mut wanted) = (0, 0);
        for stretch in stretches {
            wanted += stretch.iter().map(|extent| extent.len).sum::<u64>();
            if served > 0 && wanted > Self::ENOUGH {
                break;
            }
            served += 1;
            let there = stretch.iter().filter(|extent| extent.len > 0 && extent.pos < content.size());
            extents.extend(there.map(|extent| Extent::between(extent.pos, extent.end().min(content.size()))));
        }
        extents.sort_unstable();
        extents.dedup_by(|next, joined| {
            let touches = next.pos <= joined.end();
            if touches {
                *joined = Extent::between(joined.pos, joined.end().max(next.end()));
            }
            touches
        });
        for extent in extents {
            let at = self.bytes.len();
            self.bytes.resize(at + extent.len as usize, 0);
            self.parts.push(Fetched { base: extent.pos, bytes: at..self.bytes.len() });
        }
        // The next stretches want much of the same. If they begin with what was read last, it is still decompressed.
        self.backward = !self.backward;
        let Prefetch { bytes, parts, errors, .. } = self;
        let read = |part: &mut Fetched| {
            if let Err(e) = content.read_at(part.base, &mut bytes[part.bytes.clone()]) {
                part.bytes.end = part.bytes.start;
                errors.push(e);
            }
        };
        // Within a zone, the last extent is read first: so the zone is decompressed once, as far as it is wanted.
        let zone = |part: &Fetched| zone(part.base + part.bytes.len() as u64 - 1);
        let mut zones: Vec<_> = parts.chunk_by_mut(|a, b| zone(a) == zone(b)).collect();
        if self.backward {
            zones.reverse();
        }
        zones.into_iter().flat_map(|parts| parts.iter_mut().rev()).for_each(read);
        served
    }
}

impl ReadAt for Prefetch {
    fn size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.base + part.bytes.len() as u64)
    }

    /// Reads what was read before; anything else is `NotFound`.
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let n = self.parts.partition_point(|part| part.base <= pos).checked_sub(1);
        let part = &self.parts[n.ok_or(io::ErrorKind::NotFound)?];
        let bytes = self.bytes[part.bytes.clone()].get((pos - part.base) as usize..);
        buf.copy_from_slice(bytes.and_then(|bytes| bytes.get(..buf.len())).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|&(pos, len)| Extent::new(pos, len)).collect()
    }

    struct Bytes(Vec<u8>);
    impl ReadAt for Bytes {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
            if pos == 300 {
                return Err(io::ErrorKind::NotFound.into());
            }
            buf.copy_from_slice(&self.0[pos as usize..][..buf.len()]);
            Ok(())
        }
    }

    #[test]
    fn what_is_prefetched_is_read_once_and_in_order() {
        let content = Bytes((0..=255).cycle().take(20 << 20).collect());
        let mut prefetch = Prefetch::default();
        let zone = |pos| pos >> 20;
        let stretches: [&[(u64, u64)]; 3] =
            [&[(5000, 100), (1000, 50)], &[], &[(1040, 20), (300, 9), (20 << 20, 1)]];
        let stretches = stretches.map(extents);
        assert_eq!(prefetch.read(&content, zone, stretches.iter().map(Vec::as_slice)), 3);
        assert_eq!((prefetch.bytes.len(), prefetch.parts.len(), prefetch.errors.len()), (169, 3, 1));
        let mut buf = [0; 10];
        prefetch.read_at(1050, &mut buf).unwrap();
        assert_eq!(buf, content.0[1050..1060]);
        prefetch.read_at(5090, &mut buf).unwrap();
        for missing in [0, 300, 990, 1051, 4999, 5091, 9000] {
            assert_eq!(prefetch.read_at(missing, &mut buf).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        // No more than is enough, but one in any case.
        let large: [&[(u64, u64)]; 3] = [&[(0, Prefetch::ENOUGH)], &[(1 << 20, 1)], &[]];
        let large = large.map(extents);
        assert_eq!(prefetch.read(&content, zone, large.iter().map(Vec::as_slice)), 1);
        assert_eq!(prefetch.read(&content, zone, std::iter::empty()), 0);
    }

    #[test]
    fn what_was_read_last_is_read_first_and_each_zone_from_the_back() {
        /// Remembers what was read.
        struct Reads(std::sync::Mutex<Vec<u64>>);
        impl ReadAt for Reads {
            fn size(&self) -> u64 {
                1000
            }
            fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
                self.0.lock().unwrap().push(pos);
                buf.fill(pos as u8);
                Ok(())
            }
        }
        let (content, mut prefetch) = (Reads(Default::default()), Prefetch::default());
        for _ in 0..2 {
            // One reaches from one zone into the next.
            let wanted = extents(&[(220, 5), (10, 5), (150, 5), (190, 15), (120, 5)]);
            prefetch.read(&content, |pos| pos / 100, [&wanted[..]].into_iter());
            let mut buf = [0; 5];
            for from in [10u8, 120, 150, 190, 220] {
                prefetch.read_at(from.into(), &mut buf).unwrap();
                assert_eq!(buf, [from; 5]);
            }
        }
        let read = content.0.lock().unwrap();
        assert_eq!(*read, [220, 190, 150, 120, 10, 10, 150, 120, 220, 190]);
    }

    #[test]
    fn bytes_of_several_places_know_where_they_come_from() {
        let content = Bytes((0..=255).cycle().take(1000).collect());
        let mut reference = Reference::default();
        assert!(reference.fetch(&content, &extents(&[(10, 5), (300, 9), (990, 50), (2000, 1)])).is_some());
        assert_eq!(reference.bytes.len(), 15);
        assert_eq!(reference.origins(0, 5).collect::<Vec<_>>(), [(10, 5)]);
        assert_eq!(reference.origins(3, 4).collect::<Vec<_>>(), [(13, 2), (990, 2)]);
        assert_eq!(reference.origins(6, 9).collect::<Vec<_>>(), [(991, 9)]);
    }
}
