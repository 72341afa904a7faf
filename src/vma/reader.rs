//! Walking an archive from its first to its last byte.

use std::io::Read;

use super::coverage::{Coverage, Partial};
use super::{BLOCK, CLUSTER, Cluster, Defect, Device, EXTENT_HEADER, Error, ExtentHeader, Header};
use crate::container::{Skip, read_full};

/// What [`Reader::next`] returns, in the order of the stream.
#[derive(Debug)]
pub enum Event<'a> {
    /// An extent begins; its clusters follow.
    Extent(&'a ExtentHeader),
    /// A cluster of a device.
    Cluster {
        /// The device it belongs to.
        device: &'a Device,
        /// Number and mask.
        cluster: Cluster,
        /// The stored blocks, one behind the other. The mask tells their positions in the cluster.
        data: &'a [u8],
    },
}

/// What was read, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Length of the archive in bytes, uncompressed.
    pub bytes: u64,
    /// Number of extents.
    pub extents: u64,
    /// Number of clusters, those of zeros included.
    pub clusters: u64,
    /// Number of stored 4096-byte blocks.
    pub blocks: u64,
}

/// Reads an archive as a stream. One extent (at most 3.9 MB) is in memory.
///
/// It returns only what belongs to the archive and to a device. It ends without an error only if every device is complete:
/// each cluster came exactly once, and the guest's memory came in order. Proxmox's `vma extract` demands the same; its
/// `vma verify` does not look for missing clusters.
pub struct Reader<R> {
    input: R,
    offset: u64,
    header: Header,
    /// One for each device of the header.
    coverage: Vec<Coverage>,
    partial: Partial,
    vmstate: u64,
    extent: Option<Extent>,
    data: Vec<u8>,
    summary: Summary,
}

/// The extent whose clusters are being returned.
struct Extent {
    head: ExtentHeader,
    offset: u64,
    announced: bool,
    next: usize,
    used: usize,
}

impl<R: Read> Reader<R> {
    /// Reads the archive's header.
    pub fn new(mut input: R) -> Result<Self, Error> {
        let header = |defect| Error::Format { offset: 0, defect };
        let mut bytes = Vec::new();
        let mut more = |wanted: usize, bytes: &mut Vec<u8>| {
            (&mut input)
                .take((wanted - bytes.len()) as u64)
                .read_to_end(bytes)
                .map_err(|source| Error::Read { offset: bytes.len() as u64, source })
        };
        more(Header::PREFIX, &mut bytes)?;
        let what = "the header";
        let length = Header::measure(&bytes)
            .map_err(header)?
            .ok_or(Error::Truncated { offset: bytes.len() as u64, what })?;
        more(length, &mut bytes)?;
        if bytes.len() < length {
            return Err(Error::Truncated { offset: bytes.len() as u64, what });
        }
        let header = Header::parse(&bytes).map_err(header)?;
        Ok(Reader {
            input,
            offset: length as u64,
            coverage: header.devices.iter().map(|d| Coverage::new(d.clusters())).collect(),
            header,
            partial: Partial::default(),
            vmstate: 0,
            extent: None,
            data: Vec::new(),
            summary: Summary::default(),
        })
    }

    /// The archive's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns what was read so far, in numbers.
    pub fn summary(&self) -> Summary {
        Summary { bytes: self.offset, ..self.summary }
    }

    /// Returns the next event; `None` at the end of a complete archive.
    // This is no `Iterator`, because the event borrows the buffer of the extent.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, Error> {
        loop {
            if self.extent.is_none() && !self.read_extent()? {
                return Ok(None);
            }
            // It is borrowed anew where it is returned: a borrow that is returned in one branch would hold in the other
            // branches too.
            let Some(extent) = &mut self.extent else { continue };
            if !extent.announced {
                extent.announced = true;
                return Ok(self.extent.as_ref().map(|e| Event::Extent(&e.head)));
            }
            let Some(found) = extent.head.entries[extent.next..].iter().position(|c| c.device != 0) else {
                self.extent = None;
                continue;
            };
            let cluster = extent.head.entries[extent.next + found];
            extent.next += found + 1;
            let start = extent.used;
            extent.used += cluster.data_len();
            let (range, offset) = (start..extent.used, extent.offset);
            let index = self.admit(cluster).map_err(|defect| Error::Format { offset, defect })?;
            let device = &self.header.devices[index];
            return Ok(Some(Event::Cluster { device, cluster, data: &self.data[range] }));
        }
    }

    /// Reads the next extent with its data. The result is `false` at the end of a complete archive.
    fn read_extent(&mut self) -> Result<bool, Error> {
        let offset = self.offset;
        let Some(head) = self.read_head()? else { return Ok(false) };
        let mut data = std::mem::take(&mut self.data);
        data.resize(head.data_len(), 0);
        let got = self.fill(&mut data)?;
        if got < data.len() {
            return Err(Error::Truncated { offset: self.offset, what: "an extent" });
        }
        self.data = data;
        self.summary.extents += 1;
        self.extent = Some(Extent { head, offset, announced: false, next: 0, used: 0 });
        Ok(true)
    }

    /// Reads the header of the next extent. The result is `None` at the end of a complete archive.
    fn read_head(&mut self) -> Result<Option<ExtentHeader>, Error> {
        let offset = self.offset;
        let format = |defect| Error::Format { offset, defect };
        let mut head = [0; EXTENT_HEADER];
        match self.fill(&mut head)? {
            0 => return self.finish().map(|()| None),
            EXTENT_HEADER => {}
            _ => return Err(Error::Truncated { offset: self.offset, what: "an extent header" }),
        }
        let head = ExtentHeader::parse(&head).map_err(format)?;
        if head.uuid != self.header.uuid {
            return Err(format(Defect::ForeignExtent));
        }
        Ok(Some(head))
    }

    /// Reads until `buffer` is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let got = read_full(&mut self.input, buffer)
            .map_err(|source| Error::Read { offset: self.offset, source })?;
        self.offset += got as u64;
        Ok(got)
    }

    /// Checks a cluster against the header and the clusters before it. The result is the index of its device.
    fn admit(&mut self, cluster: Cluster) -> Result<usize, Defect> {
        let devices = &self.header.devices;
        let index = devices
            .binary_search_by_key(&cluster.device, |d| d.id)
            .map_err(|_| Defect::UnknownDevice(cluster.device))?;
        let device = &devices[index];
        let number = cluster.number;
        if device.is_vmstate() {
            if u64::from(number) != self.vmstate {
                return Err(Defect::VmstateOrder { found: number, expected: self.vmstate });
            }
            self.vmstate += 1;
        } else {
            let behind =
                || Defect::BehindEnd { device: device.name.clone(), cluster: number, size: device.size };
            let start = u64::from(number) * CLUSTER as u64;
            if start >= device.size {
                return Err(behind());
            }
            // The last cluster may reach behind the end of the device, but none of its blocks may begin there.
            let blocks = (device.size - start).div_ceil(BLOCK as u64);
            if blocks < 16 && cluster.mask >> blocks != 0 {
                return Err(behind());
            }
            if !self.coverage[index].insert(number, &mut self.partial)? {
                return Err(Defect::Duplicate { device: device.name.clone(), cluster: number });
            }
        }
        self.summary.clusters += 1;
        self.summary.blocks += u64::from(cluster.mask.count_ones());
        Ok(index)
    }

    /// Checks that every device is complete.
    fn finish(&self) -> Result<(), Error> {
        for (device, coverage) in self.header.devices.iter().zip(&self.coverage) {
            if !device.is_vmstate()
                && let Some((missing, first)) = coverage.missing()
            {
                let defect = Defect::Incomplete {
                    device: device.name.clone(),
                    missing,
                    total: device.clusters(),
                    first,
                };
                return Err(Error::Format { offset: self.offset, defect });
            }
        }
        Ok(())
    }
}

impl<R: Skip> Reader<R> {
    /// Reads the archive to its end, and passes over the data. All else is checked as [`Reader::next`] does.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn skim(mut self) -> Result<Summary, Error> {
        while let Some(head) = self.read_head()? {
            let offset = self.offset - EXTENT_HEADER as u64;
            let len = head.data_len() as u64;
            let got = self.input.skip(len).map_err(|source| Error::Read { offset: self.offset, source })?;
            self.offset += got;
            if got < len {
                return Err(Error::Truncated { offset: self.offset, what: "an extent" });
            }
            self.summary.extents += 1;
            for cluster in head.clusters() {
                self.admit(cluster).map_err(|defect| Error::Format { offset, defect })?;
            }
        }
        Ok(self.summary())
    }
}

/// Checks a whole archive: its structure up to the last byte, all checksums, and that every device is complete.
pub fn verify(input: impl Read) -> Result<Summary, Error> {
    let mut reader = Reader::new(input)?;
    while reader.next()?.is_some() {}
    Ok(reader.summary())
}
