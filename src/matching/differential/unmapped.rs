//! A base without a map. It is read alongside the new stream, and fingerprinted on the way.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::stretch::Reach;
use crate::container::{ReadAt, Sequential};
use crate::matching::Error;
use crate::matching::chunker::{Layout, SEGMENT, Segment, Segmenter, Span};
use crate::matching::fingerprint::Secret;
use crate::matching::free_list::FreeList;
use crate::matching::map::{Index, SegmentMap};
use crate::matching::sliding_window::{SlidingWindow, WINDOW};
use crate::vma::{CLUSTER, Device, Header};

/// The index knows so many bytes of the base. What is further back is no longer found. The fingerprints take 6 MiB of
/// memory for each GiB.
const KNOWN: u64 = 4 << 30;

/// When nothing is found any more, something may have been removed from the stream, and the base goes on behind it. So the
/// base is then read faster: SEARCH_PACE bytes for each byte of the new stream, for SEARCH bytes of the new stream, and up
/// to SEARCH bytes further. This is done only where what is passed over can still be copied.
const SEARCH: u64 = 256 << 20;
const SEARCH_PACE: u64 = 4;

/// A base without a map.
pub(super) struct UnmappedBase {
    /// Finds pieces in the part of the base that is known.
    pub index: Index,
    /// The next segments of the base, which a thread reads and fingerprints.
    feed: Receiver<Result<(Segment, SegmentMap), Error>>,
    /// The last bytes of the base that were read.
    window: SlidingWindow,
    /// How many bytes stay in the window.
    keep: u64,
    /// How many bytes the base is read ahead of the place where the next match is expected: half of what the window keeps,
    /// which is more than the 16 MiB among which QEMU mixes the clusters. If the base can be read at any position, and
    /// there are no clusters to go by, it is half of what the index knows.
    lead: u64,
    /// Takes back the memory of segments.
    buffers: FreeList<Vec<u8>>,
    /// The content, if it can be read at any position. What has left the window is then read again.
    content: Option<Arc<dyn ReadAt>>,
    /// How many bytes may still be copied from before the window, if they cannot be read.
    copyable: u64,
    /// The distance from the new stream's bytes to the equal bytes of the base, as it was seen last.
    drift: i64,
    /// Bytes of the new stream since something was found last.
    lost: u64,
    /// How far the base was to be read when something was found last.
    front: u64,
    /// The disks of a VMA archive, by device id.
    disks: HashMap<u8, Disk>,
    /// The base was read to its end, or cannot be read further.
    exhausted: bool,
}

/// A disk in a base that is a VMA archive.
struct Disk {
    /// Number of its last cluster.
    last: u32,
    /// The highest cluster that was read.
    highest: u32,
}

impl UnmappedBase {
    /// Takes a base that can be read at any position. Also returns the key of its fingerprints.
    ///
    /// # Errors
    /// [`Error::Io`] where there are no random numbers, no threads, or no memory.
    pub fn random(content: Arc<dyn ReadAt>) -> Result<(Secret, UnmappedBase), Error> {
        let stream = Box::new(Sequential::new(Arc::clone(&content)));
        UnmappedBase::new(stream, Some(content), WINDOW, 0)
    }

    /// Takes a base that can be read from its front only. Its last `window` bytes are kept. Up to `far` bytes may be copied
    /// from before these.
    ///
    /// # Errors
    /// As [`UnmappedBase::random`].
    pub fn one_way(
        stream: Box<dyn Read + Send>,
        window: u64,
        far: u64,
    ) -> Result<(Secret, UnmappedBase), Error> {
        UnmappedBase::new(stream, None, window, far)
    }

    fn new(
        stream: Box<dyn Read + Send>,
        content: Option<Arc<dyn ReadAt>>,
        window: u64,
        far: u64,
    ) -> Result<(Secret, UnmappedBase), Error> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let seed = Secret::draw().map_err(io("cannot read random numbers from /dev/urandom"))?;
        let secret = Secret::new(&seed);
        let known = match &content {
            Some(content) => content.size().min(KNOWN),
            // What is further back than the window is rarely copied, so a table of half the size will do.
            None if far > 0 => KNOWN / 2,
            // This leaves some room.
            None => 2 * window,
        };
        let mut segments = Segmenter::new(stream);
        let buffers = segments.buffers();
        let (send, feed) = bounded(1);
        let key = secret.clone();
        std::thread::Builder::new()
            .name("base".into())
            .spawn(move || {
                while let Some(next) = segments.next_segment().transpose() {
                    let failed = next.is_err();
                    let next = next.map(|segment| {
                        let map = SegmentMap::new(&segment, &key);
                        (segment, map)
                    });
                    if send.send(next).is_err() || failed {
                        break;
                    }
                }
            })
            .map_err(io("cannot start a thread"))?;
        let base = UnmappedBase {
            index: Index::unmapped(known)?,
            feed,
            window: SlidingWindow::default(),
            // A segment is added before the oldest one goes.
            keep: window.max(2 * SEGMENT as u64) - SEGMENT as u64,
            lead: window / 2,
            buffers,
            content,
            copyable: far,
            drift: 0,
            lost: 0,
            front: 0,
            disks: HashMap::new(),
            exhausted: false,
        };
        Ok((secret, base))
    }

    /// Reads the base as far as a segment of the new stream may need it. In a VMA archive, the numbers of the clusters
    /// tell how far that is, however much was inserted or removed.
    ///
    /// # Errors
    /// Fails where the base cannot be read.
    pub fn advance(&mut self, segment: &Segment) -> Result<(), Error> {
        if self.window.end() == 0 {
            self.read()?;
        }
        let want = self.wanted(segment);
        let mut reach = HashMap::new();
        for cluster in segment.clusters() {
            let highest = reach.entry(cluster.device).or_insert(cluster.number);
            *highest = cluster.number.max(*highest);
        }
        let lead = (self.lead / CLUSTER as u64) as u32;
        loop {
            let wanted = if self.disks.is_empty() || reach.is_empty() {
                self.window.end() < want
            } else {
                reach.iter().any(|(device, number)| {
                    let disk = self.disks.get(device);
                    disk.is_some_and(|disk| disk.highest < number.saturating_add(lead).min(disk.last))
                })
            };
            if !wanted || self.exhausted {
                return Ok(());
            }
            self.read()?;
        }
    }

    /// Tells up to which position the base is to be read for a segment, where clusters do not tell. The last match tells
    /// it. Since the last match, something was inserted into the new stream, or removed from it. So the base is first read
    /// faster (see [`SEARCH`]), then half as fast as the new stream. It is not read so far that what was expected next is
    /// forgotten, unless very much of the new stream matches nothing.
    fn wanted(&mut self, segment: &Segment) -> u64 {
        let (len, read) = (segment.data.len() as u64, self.window.end());
        if self.lost == 0 {
            let next = (segment.start + len).saturating_add_signed(self.drift).saturating_add(self.lead);
            self.front = self.front.max(next);
            return next;
        }
        let forgets = self.remembers() && read >= self.front + KNOWN / 2 && self.lost < KNOWN;
        match self.lost {
            ..=SEARCH if self.copyable > 2 * SEARCH => {
                (read + SEARCH_PACE * len).min(self.front + self.lost + SEARCH)
            }
            _ if forgets => read,
            _ => read + len / 2,
        }
    }

    /// Whether the index knows more of the base than the window holds.
    fn remembers(&self) -> bool {
        self.content.is_some() || self.copyable > 0
    }

    /// Learns from a segment that was encoded. `drift` is the distance from its bytes to the equal bytes of the base, if
    /// any were found; `copyable` is how many bytes may still be copied from before the window.
    pub fn encoded(&mut self, segment: &Segment, drift: Option<i64>, copyable: u64) {
        self.lost = if drift.is_some() { 0 } else { self.lost + segment.data.len() as u64 };
        self.drift = drift.unwrap_or(self.drift);
        self.copyable = copyable;
    }

    /// How far back the base can be read and copied from.
    pub fn reach(&self) -> Reach {
        let readable_from = if self.content.is_some() { 0 } else { self.window.start() };
        Reach { readable_from, copyable: self.copyable }
    }

    /// Reads the next segment of the base.
    fn read(&mut self) -> Result<(), Error> {
        let (segment, map) = match self.feed.recv() {
            Ok(Ok(next)) => next,
            Ok(Err(e)) => {
                self.exhausted = true;
                return Err(e);
            }
            Err(_) => {
                self.exhausted = true;
                return Ok(());
            }
        };
        if let (0, Layout::Vma(spans)) = (segment.start, &segment.layout)
            && let Some(Span::Gap(len)) = spans.first()
            && let Ok(header) = Header::parse(&segment.data[..*len as usize])
        {
            let last = |d: &Device| u32::try_from(d.clusters()).unwrap_or(u32::MAX).saturating_sub(1);
            self.disks = header.devices.iter().map(|d| (d.id, Disk { last: last(d), highest: 0 })).collect();
        } else if segment.start == 0 && self.content.is_some() {
            self.lead = KNOWN / 2;
            self.keep = 0;
        }
        for cluster in segment.clusters() {
            if let Some(disk) = self.disks.get_mut(&cluster.device) {
                disk.highest = cluster.number.max(disk.highest);
            }
        }
        self.index.push(map);
        debug_assert_eq!(segment.start, self.window.end());
        self.window.push(segment.data);
        for gone in self.window.trim(self.keep) {
            self.buffers.give(gone);
        }
        let known = self.window.end().saturating_sub(KNOWN);
        self.index.forget(if self.remembers() { known } else { self.window.start() });
        Ok(())
    }
}

impl ReadAt for UnmappedBase {
    /// Length of what was read until now.
    fn size(&self) -> u64 {
        self.window.end()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match (self.window.get(pos, buf), &self.content) {
            (Some(()), _) => Ok(()),
            (None, Some(content)) => content.read_at(pos, buf),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
