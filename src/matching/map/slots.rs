//! Tells where each cluster of a VM's disks lies in its full backup, by side frames that are stored with the map.
//!
//! A differential of what QEMU's dirty bitmaps mark is made without reading the full backup. Its map ([`super`]) holds
//! the fingerprints, but these are many. The frames of this module tell which part of the map is needed, and what the
//! unchanged extents hold. They follow one another behind the last part of the map:
//!
//! ```text
//! "pvedbSLT"  place u64 of the first extent, extents u32, slots u32, segments u32, length u32,
//!             checksum [16] of the numbers before and the lists, then the lists, compressed with zstd:
//!     per run of segments: extents, how many such segments, varints
//!     per run of extents:  slots, how many such extents, varints
//!     per run of slots:    varint: bit 0 the device is another: it follows (u8)
//!                                  bits 1 and 2: mask 0, mask 0xffff, the mask of the last run with neither, or another: it follows (u16)
//!                                  bit 3 the number is not the device's last one and 1 more: the difference follows (zigzag)
//!                                  the rest: slots of the run beyond the first, each with the same mask and the next number
//! ```
//! Numbers are little endian, and a varint is that of VCDIFF. A slot is an entry of an extent's header: the device, the
//! number of the cluster, and the mask of its stored blocks. No frame depends on the one before it. The extents fill
//! the archive without gaps from its header to its end. If the header of any extent holds something else than these
//! three, has unused slots before used ones, or another UUID than the first, the archive has no such frames.

use std::mem;

use crate::container::seekable::Tag;
use crate::matching::chunker::{Layout, Segment, Span};
use crate::matching::fingerprint::checksum;
use crate::vcdiff::varint;
use crate::vma::{BLOCK, CLUSTERS_PER_EXTENT, Cluster, EXTENT_HEADER, EXTENT_UUID, ExtentHeader, Uuid};

/// The tag of these side frames.
pub const SLOTS: Tag = *b"pvedbSLT";
/// The number of slots in a frame at most. The disks of one frame then have 64 GiB together.
const MAX_SLOTS: usize = 1 << 20;
/// The largest length of a frame in bytes: a slot takes at most a head of 1 byte, a device, a mask, and a number of 5
/// bytes.
pub const MAX_FRAME: u32 = 16 << 20;
const HEAD: usize = 40;

/// The place of an extent in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The position in the stream at which it begins.
    pub at: u64,
    /// The index of its first slot.
    pub first: u32,
}

/// The content of all frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The position of each segment of the map.
    pub segments: Vec<u64>,
    /// The extents in order. One without slots follows, which stands where the archive ends.
    pub extents: Vec<Extent>,
    /// The slots of all extents in order.
    pub slots: Vec<Cluster>,
}

/// Tells whether the frames can describe all extents of a segment. Their UUID must be `uuid`; if that is `None`, the
/// first header sets it.
pub fn is_plain(segment: &Segment, uuid: &mut Option<Uuid>) -> bool {
    let Layout::Vma(spans) = &segment.layout else { return false };
    let mut at = 0;
    spans.iter().all(|span| {
        let here = at;
        match span {
            Span::Gap(len) => at += *len as usize,
            Span::Cluster(cluster) => at += cluster.mask.count_ones() as usize * BLOCK,
            Span::Header => {
                at += EXTENT_HEADER;
                let Some(header) = segment.data.get(here..).and_then(|rest| rest.first_chunk()) else {
                    return false;
                };
                let own = uuid.get_or_insert_with(|| header[EXTENT_UUID].try_into().expect("16 bytes"));
                return header[EXTENT_UUID] == own[..] && ExtentHeader::is_plain(header);
            }
        }
        true
    })
}

/// Makes the frames of an archive from its segments, one after the other.
#[derive(Default)]
pub struct SlotsBuilder {
    /// The position at which the next extent begins.
    at: u64,
    frame: Frame,
}

#[derive(Default)]
struct Frame {
    start: u64,
    segments: Runs,
    extents: Runs,
    slots: Vec<u8>,
    run: Option<Run>,
    last: Last,
    count: usize,
}

/// A list of numbers, stored as runs of equal ones.
#[derive(Default)]
struct Runs {
    out: Vec<u8>,
    count: usize,
    value: u64,
    times: u64,
}

impl Runs {
    fn push(&mut self, value: u64) {
        if self.times > 0 && self.value != value {
            self.end();
        }
        self.value = value;
        self.times += 1;
        self.count += 1;
    }

    fn end(&mut self) {
        if self.times > 0 {
            varint::write(&mut self.out, self.value);
            varint::write(&mut self.out, mem::take(&mut self.times));
        }
    }
}

/// Slots with the same mask whose numbers follow one another.
struct Run {
    first: Cluster,
    len: u64,
}

/// The values relative to which the next run is stored.
struct Last {
    device: u8,
    mask: u16,
    /// For each device, the number that comes next.
    next: Box<[u64; 256]>,
}

impl Default for Last {
    fn default() -> Self {
        Last { device: 0, mask: 0, next: Box::new([0; 256]) }
    }
}

const ZEROS: u64 = 0;
const FULL: u64 = 1;
const SAME: u64 = 2;
const OTHER: u64 = 3;

impl Frame {
    fn slot(&mut self, slot: Cluster) {
        self.count += 1;
        if let Some(run) = &mut self.run
            && run.first.device == slot.device
            && run.first.mask == slot.mask
            && u64::from(run.first.number) + run.len == u64::from(slot.number)
        {
            run.len += 1;
            return;
        }
        self.end_run();
        self.run = Some(Run { first: slot, len: 1 });
    }

    fn end_run(&mut self) {
        let Some(Run { first, len }) = self.run.take() else { return };
        let Last { device, mask, next } = &mut self.last;
        let next = &mut next[usize::from(first.device)];
        let kind = match first.mask {
            0 => ZEROS,
            u16::MAX => FULL,
            same if same == *mask => SAME,
            _ => OTHER,
        };
        let other_device = u64::from(mem::replace(device, first.device) != first.device);
        let other_number = u64::from(*next != u64::from(first.number));
        varint::write(&mut self.slots, (len - 1) << 4 | other_number << 3 | kind << 1 | other_device);
        if other_device == 1 {
            self.slots.push(first.device);
        }
        if kind == OTHER {
            *mask = first.mask;
            self.slots.extend(mask.to_le_bytes());
        }
        if other_number == 1 {
            let difference = i64::from(first.number) - *next as i64;
            varint::write(&mut self.slots, (difference << 1 ^ difference >> 63) as u64);
        }
        *next = u64::from(first.number) + len;
    }

    fn encode(mut self) -> Vec<u8> {
        self.end_run();
        self.segments.end();
        self.extents.end();
        let lists = [self.segments.out, self.extents.out, self.slots].concat();
        let mut out = self.start.to_le_bytes().to_vec();
        for n in [self.extents.count, self.count, self.segments.count, lists.len()] {
            out.extend((n as u32).to_le_bytes());
        }
        let sum = checksum(&[&out[..], &lists].concat());
        out.extend(sum.to_le_bytes());
        // Compressing fails only if memory is short. The lists are then stored as they are.
        out.extend(zstd::bulk::compress(&lists, 3).unwrap_or(lists));
        out
    }
}

impl SlotsBuilder {
    /// Adds the layout of the next segment. Returns a frame if one is full.
    pub fn push(&mut self, spans: &[Span]) -> Option<Vec<u8>> {
        let (mut extents, mut open) = (0, None);
        for span in spans {
            match *span {
                Span::Gap(len) => {
                    self.at += u64::from(len);
                    self.frame.start = self.at;
                }
                Span::Header => {
                    if let Some(slots) = open.replace(0) {
                        self.frame.extents.push(slots);
                    }
                    extents += 1;
                    self.at += EXTENT_HEADER as u64;
                }
                Span::Cluster(c) => {
                    let slot = Cluster { device: c.device, number: c.number, mask: c.mask };
                    self.frame.slot(slot);
                    open = open.map(|n| n + 1);
                    self.at += slot.data_len() as u64;
                }
            }
        }
        if let Some(slots) = open {
            self.frame.extents.push(slots);
        }
        self.frame.segments.push(extents);
        (self.frame.count >= MAX_SLOTS / 2).then(|| self.cut())
    }

    fn cut(&mut self) -> Vec<u8> {
        let next = Frame { start: self.at, ..Frame::default() };
        mem::replace(&mut self.frame, next).encode()
    }

    /// Returns the last frame, if there is one.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        (self.frame.segments.count > 0).then(|| self.cut())
    }
}

impl Slots {
    /// Adds the next frame. The result is `None` where it is damaged, does not follow the last one, or makes more than
    /// `most` slots in all.
    pub fn push(&mut self, frame: &[u8], most: u64) -> Option<()> {
        let (head, lists) = frame.split_at_checked(HEAD)?;
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let start = u64::from(u32_at(4) as u32) << 32 | u64::from(u32_at(0) as u32);
        let [extents, slots, segments, len] = [8, 12, 16, 20].map(u32_at);
        let room = most.saturating_sub(self.slots.len() as u64).min(2 * MAX_SLOTS as u64);
        if slots as u64 > room || extents > slots || segments > extents + 1 || len > MAX_FRAME as usize {
            return None;
        }
        let lists = match zstd::bulk::decompress(lists, len) {
            Ok(lists) if lists.len() == len => lists,
            _ => return None,
        };
        let sum = checksum(&[&head[..24], &lists].concat());
        if head[24..] != sum.to_le_bytes() {
            return None;
        }
        match self.extents.pop() {
            Some(end) if end.at != start => return None,
            _ => {}
        }
        let mut lists = &lists[..];
        let of_segments = runs(&mut lists, segments)?;
        let of_extents = runs(&mut lists, extents)?;
        let first = self.slots.len();
        read_slots(&mut lists, slots, &mut self.slots)?;
        let mut rest = &self.slots[first..];
        if !lists.is_empty() || of_segments.iter().sum::<u64>() != extents as u64 {
            return None;
        }

        let (mut at, mut slot) = (start, first as u32);
        let mut counts = of_extents.into_iter();
        for in_segment in of_segments {
            // The first segment begins with the archive's header, before the first extent.
            self.segments.push(if self.segments.is_empty() { 0 } else { at });
            for count in counts.by_ref().take(in_segment as usize) {
                let count = usize::try_from(count).ok().filter(|n| (1..=CLUSTERS_PER_EXTENT).contains(n))?;
                let (own, others) = rest.split_at_checked(count)?;
                rest = others;
                self.extents.push(Extent { at, first: slot });
                at += (EXTENT_HEADER + own.iter().map(Cluster::data_len).sum::<usize>()) as u64;
                slot += count as u32;
            }
        }
        self.extents.push(Extent { at, first: slot });
        rest.is_empty().then_some(())
    }

    /// Forgets all extents and slots, so that the next frame can be added without them.
    pub fn forget(&mut self) {
        let end = self.end();
        self.slots.clear();
        self.extents.clear();
        self.extents.push(Extent { at: end, first: 0 });
    }

    /// Returns the number of extents.
    pub fn count(&self) -> usize {
        self.extents.len().saturating_sub(1)
    }

    /// Returns the position at which the archive ends.
    pub fn end(&self) -> u64 {
        self.extents.last().map_or(0, |end| end.at)
    }

    /// Returns the slots of extent `n`.
    pub fn of(&self, n: usize) -> &[Cluster] {
        &self.slots[self.extents[n].first as usize..self.extents[n + 1].first as usize]
    }
}

/// Reads `count` numbers that are stored as runs.
fn runs(lists: &mut &[u8], count: usize) -> Option<Vec<u64>> {
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        let (value, times) = (varint::read(lists).ok()?, varint::read(lists).ok()?);
        let times = usize::try_from(times).ok().filter(|n| *n > 0 && *n <= count - out.len())?;
        out.resize(out.len() + times, value);
    }
    Some(out)
}

fn read_slots(lists: &mut &[u8], count: usize, out: &mut Vec<Cluster>) -> Option<()> {
    let end = out.len() + count;
    out.reserve_exact(count);
    let Last { mut device, mask: mut other, mut next } = Last::default();
    while out.len() < end {
        let head = varint::read(lists).ok()?;
        if head & 1 == 1 {
            device = take::<1>(lists)?[0];
        }
        let mask = match head >> 1 & 3 {
            ZEROS => 0,
            FULL => u16::MAX,
            SAME => other,
            _ => {
                other = u16::from_le_bytes(take(lists)?);
                other
            }
        };
        let next = &mut next[usize::from(device)];
        if head & 8 != 0 {
            let zigzag = varint::read(lists).ok()?;
            *next = next.wrapping_add_signed((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
        let len = usize::try_from(head >> 4).ok()?.checked_add(1).filter(|n| *n <= end - out.len())?;
        let first = u32::try_from(*next).ok()?;
        first.checked_add(len as u32 - 1)?;
        out.extend((0..len as u32).map(|n| Cluster { device, number: first + n, mask }));
        *next += len as u64;
    }
    Some(())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::chunker;
    use proptest::prelude::*;

    fn span(slot: Cluster) -> Span {
        Span::Cluster(chunker::Cluster { device: slot.device, number: slot.number, mask: slot.mask })
    }

    /// The slots of each extent of each segment.
    type Archive = Vec<Vec<Vec<Cluster>>>;

    fn frames(archive: &Archive) -> Vec<Vec<u8>> {
        let mut builder = SlotsBuilder::default();
        let mut frames = Vec::new();
        for (n, segment) in archive.iter().enumerate() {
            let mut spans = if n == 0 { vec![Span::Gap(13_312)] } else { Vec::new() };
            for extent in segment {
                spans.push(Span::Header);
                spans.extend(extent.iter().copied().map(span));
            }
            frames.extend(builder.push(&spans));
        }
        frames.extend(builder.finish());
        frames
    }

    fn read(frames: &[Vec<u8>]) -> Option<Slots> {
        let mut slots = Slots::default();
        frames.iter().try_for_each(|frame| slots.push(frame, u64::MAX))?;
        Some(slots)
    }

    fn check(archive: &Archive) {
        let slots = read(&frames(archive)).unwrap();
        let extents: Vec<_> = archive.iter().flatten().collect();
        assert_eq!(slots.count(), extents.len());
        let mut at = 13_312;
        for (n, extent) in extents.into_iter().enumerate() {
            assert_eq!((slots.of(n), slots.extents[n].at), (&extent[..], at));
            at += 512 + extent.iter().map(|c| c.data_len() as u64).sum::<u64>();
        }
        assert_eq!(slots.end(), at);
        assert_eq!(slots.segments.len(), archive.len());
    }

    fn disk(clusters: std::ops::Range<u32>, mask: u16) -> Vec<Cluster> {
        clusters.map(|number| Cluster { device: 1, number, mask }).collect()
    }

    #[test]
    fn a_thin_disk_takes_next_to_nothing() {
        let thin: Archive = (0..3)
            .map(|s| (0..16_000).map(|e| disk((s * 16_000 + e) * 58..(s * 16_000 + e + 1) * 58, 0)).collect())
            .collect();
        let frames = frames(&thin);
        assert_eq!(frames.len(), 3);
        let bytes: usize = frames.iter().map(Vec::len).sum();
        assert!(bytes < 3 * 100, "{bytes} bytes for 165 GiB");
        check(&thin);
        let lost = [&frames[..1], &frames[2..]].concat();
        assert_eq!(read(&lost), None);
        // The frame has more slots than the disks can have clusters.
        assert_eq!(Slots::default().push(&frames[0], 1000), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_archive(
            archive in prop::collection::vec(prop::collection::vec(prop::collection::vec(
                (1..4u8, prop_oneof![0..20u32, Just(u32::MAX), any::<u32>()],
                 prop_oneof![Just(0u16), Just(u16::MAX), Just(7), any::<u16>()]), 1..60), 1..4), 1..4),
        ) {
            let archive: Archive = archive.into_iter().map(|segment| segment.into_iter().map(|extent|
                extent.into_iter().take(59).map(|(device, number, mask)| Cluster { device, number, mask }).collect()
            ).collect()).collect();
            check(&archive);
        }

        #[test]
        fn damage_is_noticed(at: prop::sample::Index, bit in 0..8u32, cut: bool) {
            let mixed: Archive = vec![vec![disk(5..63, 0xffff), disk(3..5, 1)], vec![disk(100..158, 0)]];
            let mut frame = frames(&mixed).concat();
            let at = at.index(frame.len());
            if cut { frame.truncate(at) } else { frame[at] ^= 1 << bit }
            let good = read(&frames(&mixed));
            let read = read(&[frame]);
            // A change that zstd itself does not notice may pass.
            prop_assert!(read.is_none() || read == good);
        }
    }
}
