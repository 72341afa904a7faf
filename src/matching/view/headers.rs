//! The headers of the extents of a VM's full backup, made from its map instead of being read.

use crate::container::ReadAt;
use crate::matching::Error;
use crate::matching::map::{MapReader, Slots};
use crate::vma::{Device, EXTENT_HEADER, ExtentHeader, Header, Uuid};

/// The bytes of memory of a slot, with its share of an extent, while the lists grow. All may take so many, and so many times the
/// length of the full backup's file: those of honest files take less, as each header has a checksum that nothing compresses.
const SLOT: u64 = 2 * 9;
const MOST: u64 = 64 << 20;
const TIMES: u64 = 32;

/// The headers of all extents of a full backup.
pub(super) struct Headers {
    slots: Slots,
    uuid: Uuid,
}

impl Headers {
    /// Makes them of a full backup with a map, whose file has `stored` bytes; `None` where its map does not tell, or too much
    /// memory would be needed: then they are read.
    ///
    /// # Errors
    /// Fails where the map is damaged.
    pub fn of(map: &MapReader, stored: u64) -> Result<Option<Headers>, Error> {
        let Ok((header, len)) = Header::read_at(map.content()) else { return Ok(None) };
        let clusters = header.devices.iter().map(Device::clusters).fold(0, u64::saturating_add);
        if clusters > (MOST.saturating_add(stored.saturating_mul(TIMES))) / SLOT {
            return Ok(None);
        }
        let slots = map.slots(clusters)?;
        let fits = |slots: &Slots| slots.extents.first().is_some_and(|first| first.at == len);
        Ok(slots.filter(fits).map(|slots| Headers { slots, uuid: header.uuid }))
    }

    /// Reads bytes of the base, if all of them are in the header of an extent. The result tells whether they are.
    pub fn read(&self, pos: u64, buf: &mut [u8]) -> bool {
        let extents = &self.slots.extents;
        let Some(n) = extents.partition_point(|extent| extent.at <= pos).checked_sub(1) else { return false };
        let from = (pos - extents[n].at) as usize;
        if n >= self.slots.count() || from >= EXTENT_HEADER || buf.len() > EXTENT_HEADER - from {
            return false;
        }
        let header = ExtentHeader::new(self.uuid, self.slots.of(n)).encode();
        buf.copy_from_slice(&header[from..from + buf.len()]);
        true
    }
}

/// Reads a part of a content: all of it through the headers, where they have it.
pub(super) fn read_through(
    headers: Option<&Headers>,
    base: &dyn ReadAt,
    pos: u64,
    buf: &mut [u8],
) -> std::io::Result<()> {
    match headers {
        Some(headers) if headers.read(pos, buf) => Ok(()),
        _ => base.read_at(pos, buf),
    }
}
