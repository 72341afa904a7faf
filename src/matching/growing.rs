//! A base without a map, which is fingerprinted while the new stream is read.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::Error;
use super::cut::{Layout, SEGMENT, Segment, Segmenter, Span};
use super::index::Index;
use super::map::Chunk;
use super::print::Secret;
use super::sliding::{Ring, WINDOW, keep};
use super::spare::Spare;
use crate::container::ReadAt;
use crate::vma::{CLUSTER, Device, Header};

/// A base without a map is known this far back: what is further is found no more. Its fingerprints take 6 MiB for
/// every GiB.
const REACH: u64 = 4 << 30;

/// When nothing is found any more, a one-way base is read on this fast and so much further, for so many bytes of the new
/// stream, if what is passed over can be copied all the same: so the place behind a part that was removed is found.
const SEARCH: u64 = 256 << 20;
const SEARCH_PACE: u64 = 4;

/// A base without a map.
pub(super) struct Growing {
    /// What is known of it.
    pub index: Index,
    feed: Receiver<Result<(Segment, Chunk), Error>>,
    ring: Ring,
    keep: u64,
    /// How far the base is read ahead of the place where the next match is expected: half of what is kept, which is
    /// more than the 16 MiB whose clusters QEMU mixes. Half of what is known, where there are no clusters to go by
    /// and the base can be read anywhere.
    lead: u64,
    spare: Spare<Vec<u8>>,
    /// Can be read anywhere: what has left the ring can still be had.
    content: Option<Arc<dyn ReadAt>>,
    /// How much may be copied from before the ring, where that cannot be read.
    far: u64,
    /// Where the base's bytes lie relative to the new stream's, as seen last.
    drift: i64,
    /// Bytes of the new stream since something was found, and how far the base was to be read for what was found.
    lost: u64,
    front: u64,
    /// Of each disk in a VMA base: its last cluster, and the highest one read.
    disks: HashMap<u8, (u32, u32)>,
    exhausted: bool,
}

impl Growing {
    /// A base that can be read anywhere; also tells the key of the fingerprints.
    ///
    /// # Errors
    /// [`Error::Io`] where there are no random numbers or threads.
    pub fn anywhere(content: Arc<dyn ReadAt>) -> Result<(Secret, Growing), Error> {
        let stream = Box::new(Sequential { content: Arc::clone(&content), at: 0 });
        Growing::new(stream, Some(content), WINDOW, 0)
    }

    /// A base that can be read from the front only, of which the last `window` bytes are kept. Up to `far` bytes may
    /// be copied from before these.
    ///
    /// # Errors
    /// As [`Growing::anywhere`].
    pub fn one_way(stream: Box<dyn Read + Send>, window: u64, far: u64) -> Result<(Secret, Growing), Error> {
        Growing::new(stream, None, window, far)
    }

    fn new(
        stream: Box<dyn Read + Send>,
        content: Option<Arc<dyn ReadAt>>,
        window: u64,
        far: u64,
    ) -> Result<(Secret, Growing), Error> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| Error::Io { what, source }
        };
        let seed = Secret::draw().map_err(io("cannot read random numbers from /dev/urandom"))?;
        let secret = Secret::new(&seed);
        let known = match &content {
            Some(content) => content.size().min(REACH),
            // What is further back serves rarely: a table that is half as large will do.
            None if far > 0 => REACH / 2,
            // With some room.
            None => 2 * window,
        };
        let mut segments = Segmenter::new(stream);
        let spare = segments.spare();
        let (send, feed) = bounded(1);
        let key = secret.clone();
        std::thread::Builder::new()
            .name("base".into())
            .spawn(move || {
                while let Some(next) = segments.next_segment().transpose() {
                    let failed = next.is_err();
                    let next = next.map(|segment| {
                        let chunk = Chunk::new(&segment, &key);
                        (segment, chunk)
                    });
                    if send.send(next).is_err() || failed {
                        break;
                    }
                }
            })
            .map_err(io("cannot start a thread"))?;
        let growing = Growing {
            index: Index::growing(known)?,
            feed,
            ring: Ring::default(),
            // One segment is added before the oldest one goes.
            keep: window.max(2 * SEGMENT as u64) - SEGMENT as u64,
            lead: window / 2,
            spare,
            content,
            far,
            drift: 0,
            lost: 0,
            front: 0,
            disks: HashMap::new(),
            exhausted: false,
        };
        Ok((secret, growing))
    }

    /// Reads the base as far as a segment of the new stream may need it. In VMA archives the numbers of the clusters
    /// tell how far that is, however much was inserted or removed.
    ///
    /// # Errors
    /// Those of reading the base.
    pub fn advance(&mut self, segment: &Segment) -> Result<(), Error> {
        if self.ring.end() == 0 {
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
                self.ring.end() < want
            } else {
                reach.iter().any(|(device, number)| {
                    let disk = self.disks.get(device);
                    disk.is_some_and(|(last, seen)| *seen < number.saturating_add(lead).min(*last))
                })
            };
            if !wanted || self.exhausted {
                return Ok(());
            }
            self.read()?;
        }
    }

    /// How far the base is to be read for a segment, where no clusters tell: the last match does. If there was none,
    /// something was inserted here, or removed there. So what follows in the base is searched for, then it is read on at
    /// half the pace, not so far that what was to come is forgotten; behind very much that is new, all the same.
    fn wanted(&mut self, segment: &Segment) -> u64 {
        let (len, read) = (segment.data.len() as u64, self.ring.end());
        if self.lost == 0 {
            let next = (segment.start + len).saturating_add_signed(self.drift).saturating_add(self.lead);
            self.front = self.front.max(next);
            return next;
        }
        let forgets = self.remembers() && read >= self.front + REACH / 2 && self.lost < REACH;
        match self.lost {
            ..=SEARCH if self.far > 2 * SEARCH => {
                (read + SEARCH_PACE * len).min(self.front + self.lost + SEARCH)
            }
            _ if forgets => read,
            _ => read + len / 2,
        }
    }

    /// Whether more of the base is known than is in the ring.
    fn remembers(&self) -> bool {
        self.content.is_some() || self.far > 0
    }

    /// Learns from a segment that was encoded: where the base's bytes lie relative to it, if that is known, and how much
    /// may still be copied from before the ring.
    pub fn encoded(&mut self, segment: &Segment, drift: Option<i64>, far: u64) {
        self.lost = if drift.is_some() { 0 } else { self.lost + segment.data.len() as u64 };
        self.drift = drift.unwrap_or(self.drift);
        self.far = far;
    }

    /// Places before this one can be copied from, but not read; and how much of that is allowed.
    pub fn far(&self) -> (u64, u64) {
        (if self.content.is_some() { 0 } else { self.ring.start() }, self.far)
    }

    /// Reads the next segment of the base.
    fn read(&mut self) -> Result<(), Error> {
        let (segment, chunk) = match self.feed.recv() {
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
            self.disks = header.devices.iter().map(|d| (d.id, (last(d), 0))).collect();
        } else if segment.start == 0 && self.content.is_some() {
            self.lead = REACH / 2;
            self.keep = 0;
        }
        for cluster in segment.clusters() {
            if let Some((_, seen)) = self.disks.get_mut(&cluster.device) {
                *seen = cluster.number.max(*seen);
            }
        }
        self.index.push(chunk);
        for gone in keep(&mut self.ring, segment, self.keep) {
            self.spare.give(gone);
        }
        let reach = self.ring.end().saturating_sub(REACH);
        self.index.forget(if self.remembers() { reach } else { self.ring.start() });
        Ok(())
    }
}

impl ReadAt for Growing {
    /// As far as it was read.
    fn size(&self) -> u64 {
        self.ring.end()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        match (self.ring.get(pos, buf), &self.content) {
            (Some(()), _) => Ok(()),
            (None, Some(content)) => content.read_at(pos, buf),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Reads any content from its start.
struct Sequential {
    content: Arc<dyn ReadAt>,
    at: u64,
}

impl Read for Sequential {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = (self.content.size() - self.at).min(buf.len() as u64) as usize;
        self.content.read_at(self.at, &mut buf[..n])?;
        self.at += n as u64;
        Ok(n)
    }
}
