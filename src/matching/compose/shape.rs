//! The shape of a VM's full backup: its disks, and where each of their clusters lies in the stream.
//!
//! It is made from the side frames of the full backup ([`crate::matching::map`]) and from the header of its archive, so
//! the data of the disks is not read. It takes 16 bytes of memory for each cluster, which is 256 KiB for a GiB of disk.

use crate::container::ReadAt;
use crate::matching::map::{MapReader, Slots};
use crate::matching::{BaseProblem, Error};
use crate::vma::{Cluster, Device, EXTENT_HEADER, ExtentHeader, Header};

use std::io;
use std::path::Path;

/// The shape of a full backup; see the module's text.
pub(super) struct Shape {
    /// The header of the archive.
    pub header: Header,
    /// The extents of the archive, and their slots.
    pub slots: Slots,
    /// For each device and number of a cluster, the position of its blocks (above [`MASK_BITS`]) and its mask, in one
    /// number.
    places: Vec<Vec<u64>>,
}

/// The number of bits that the mask takes in a place.
const MASK_BITS: u32 = 16;
const UNSEEN: u64 = u64::MAX;

impl Shape {
    /// Makes the shape of a base. Its disks must be these (name, and size in bytes). An `Err` within `Ok` says why it
    /// cannot serve.
    ///
    /// # Errors
    /// Fails where the base cannot be read, or is damaged.
    pub fn of(map: &MapReader, path: &Path, disks: &[(&str, u64)]) -> Result<Result<Shape, String>, Error> {
        let io = |source| Error::base(path, BaseProblem::Io(source));
        let Some((header, len)) = header(map.content()).map_err(io)? else {
            return Ok(Err("the full backup is not a VM's".into()));
        };
        if let Some(why) = other_disks(&header.devices, disks) {
            return Ok(Err(why));
        }
        let clusters = header.devices.iter().map(Device::clusters).sum();
        let Some(slots) = map.slots(clusters)? else {
            return Ok(Err(
                "the full backup does not tell where its clusters lie: it was made by an older version, or \
                           is of an unusual form"
                    .into(),
            ));
        };
        let damaged = |what: &str| Error::base(path, BaseProblem::Damaged(what.into()));
        if slots.extents.first().is_none_or(|first| first.at != len) {
            return Err(damaged("its list of clusters does not fit its header"));
        }
        let places =
            places(&header, &slots).ok_or_else(|| damaged("its list of clusters does not fit its disks"))?;
        Ok(Ok(Shape { header, slots, places }))
    }

    /// Returns the position of a cluster's blocks in the stream, and its mask. It is `None` where there is no such
    /// cluster.
    pub fn place(&self, device: u8, number: u32) -> Option<(u64, u16)> {
        let place = *self.places[usize::from(device)].get(number as usize)?;
        Some((place >> MASK_BITS, place as u16))
    }

    /// Returns the number of the extent that begins at this position.
    pub fn extent_at(&self, at: u64) -> Option<usize> {
        let n = self.slots.extents.binary_search_by_key(&at, |e| e.at).ok()?;
        (n < self.slots.count()).then_some(n)
    }

    /// Returns the length of extent `n` in bytes, which is that of its header and its data.
    pub fn extent_len(&self, n: usize) -> u64 {
        self.slots.extents[n + 1].at - self.slots.extents[n].at
    }

    /// Reads bytes of the base. The header of an extent is made anew instead of being read: it is known exactly, as
    /// only plain archives have a shape.
    ///
    /// # Errors
    /// Fails where the file cannot be read.
    pub fn read(&self, base: &dyn ReadAt, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let n = self.slots.extents.partition_point(|e| e.at <= at).checked_sub(1);
        if let Some(n) = n.filter(|n| *n < self.slots.count()) {
            let from = (at - self.slots.extents[n].at) as usize;
            if from < EXTENT_HEADER && buf.len() <= EXTENT_HEADER - from {
                let header = ExtentHeader::new(self.header.uuid, self.slots.of(n)).encode();
                buf.copy_from_slice(&header[from..from + buf.len()]);
                return Ok(());
            }
        }
        base.read_at(at, buf)
    }
}

/// Reads the header of an archive, and returns it with its length in bytes. It is `None` where there is no such header.
fn header(base: &dyn ReadAt) -> io::Result<Option<(Header, u64)>> {
    let mut bytes = vec![0; Header::PREFIX];
    if base.size() < bytes.len() as u64 {
        return Ok(None);
    }
    base.read_at(0, &mut bytes)?;
    let Ok(Some(len)) = Header::measure(&bytes) else { return Ok(None) };
    if base.size() < len as u64 {
        return Ok(None);
    }
    bytes.resize(len, 0);
    base.read_at(0, &mut bytes)?;
    Ok(Header::parse(&bytes).ok().map(|header| (header, len as u64)))
}

/// Tells how the disks of a base differ from the present ones, if they do.
fn other_disks(then: &[Device], now: &[(&str, u64)]) -> Option<String> {
    if then.iter().any(Device::is_vmstate) {
        return Some("the full backup holds the guest's memory".into());
    }
    for device in then {
        match now.iter().find(|(name, _)| *name == device.name) {
            None => {
                return Some(format!("the disk {} of the full backup is not there any more", device.name));
            }
            Some((name, size)) if *size != device.size => {
                return Some(format!(
                    "the disk {name} has {size} bytes now, the full backup's has {}",
                    device.size
                ));
            }
            Some(_) => {}
        }
    }
    let new = now.iter().enumerate().find(|(n, (name, _))| {
        !then.iter().any(|device| device.name == *name) || now[..*n].iter().any(|(other, _)| other == name)
    });
    new.map(|(_, (name, _))| format!("the disk {name} is not in the full backup"))
}

/// Finds the place of each cluster. The result is `None` unless each cluster of every device is there exactly once.
fn places(header: &Header, slots: &Slots) -> Option<Vec<Vec<u64>>> {
    let mut places: Vec<Vec<u64>> = vec![Vec::new(); 256];
    for device in &header.devices {
        places[usize::from(device.id)] = vec![UNSEEN; usize::try_from(device.clusters()).ok()?];
    }
    let mut left = slots.slots.len();
    for n in 0..slots.count() {
        let mut at = slots.extents[n].at + EXTENT_HEADER as u64;
        for slot in slots.of(n) {
            let place = places[usize::from(slot.device)].get_mut(slot.number as usize)?;
            if *place != UNSEEN || at >= UNSEEN >> MASK_BITS {
                return None;
            }
            *place = at << MASK_BITS | u64::from(slot.mask);
            at += slot.data_len() as u64;
            left -= 1;
        }
    }
    let all: usize = places.iter().map(Vec::len).sum();
    (left == 0 && all == slots.slots.len()).then_some(places)
}

/// A set of clusters, with one bit for each cluster of an archive's disks.
pub(super) struct Bits(Vec<Vec<u64>>);

impl Bits {
    /// Makes an empty set.
    pub fn of(devices: &[Device]) -> Bits {
        let mut bits = vec![Vec::new(); 256];
        for device in devices {
            bits[usize::from(device.id)] = vec![0; device.clusters().div_ceil(64) as usize];
        }
        Bits(bits)
    }

    /// Adds a cluster. Returns whether it was new, or `None` where the disks have no such cluster.
    pub fn set(&mut self, device: u8, number: u32) -> Option<bool> {
        let word = self.0[usize::from(device)].get_mut(number as usize / 64)?;
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        Some(new)
    }

    /// Tells whether a cluster is in the set.
    pub fn has(&self, cluster: &Cluster) -> bool {
        let word = self.0[usize::from(cluster.device)].get(cluster.number as usize / 64);
        word.is_some_and(|word| word >> (cluster.number % 64) & 1 == 1)
    }
}
