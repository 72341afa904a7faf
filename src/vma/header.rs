//! The archive header: configuration files and devices.

use std::collections::BTreeMap;
use std::ops::Range;

use md5::{Digest, Md5};

use super::{CLUSTER, Defect, FIXED_HEADER, MAX_DEVICE, MAX_HEADER, Uuid, VMSTATE};

const MAGIC: [u8; 4] = *b"VMA\0";
const UUID_AT: usize = 8;
const CTIME_AT: usize = 24;
const MD5_AT: usize = 32;
const BLOB_OFFSET_AT: usize = 48;
const BLOB_SIZE_AT: usize = 52;
const LENGTH_AT: usize = 56;
/// Where the 256 pointers to configuration names and to their data begin.
const NAMES_AT: usize = 2044;
const DATA_AT: usize = 3068;
const CONFIGS: usize = 256;
/// The device table: 256 entries of 32 bytes.
const DEVICES_AT: usize = 4096;
const DEVICE_ENTRY: usize = 32;

/// A configuration file stored in the header, such as `qemu-server.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// File name, without a directory.
    pub name: String,
    /// Content, at most 65535 bytes.
    pub data: Vec<u8>,
}

/// A disk image, or the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Number that the extents use, 1 to 254.
    pub id: u8,
    /// Name, for instance `drive-scsi0`.
    pub name: String,
    /// Size in bytes, never 0.
    pub size: u64,
}

impl Device {
    /// Tells whether this is the guest's memory, which is written in order and has no known length, and not a disk.
    pub fn is_vmstate(&self) -> bool {
        self.name == VMSTATE
    }

    /// Number of clusters of 64 KiB. The last one may reach behind the end of the device.
    pub fn clusters(&self) -> u64 {
        self.size.div_ceil(CLUSTER as u64)
    }
}

/// A parsed archive header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The archive's number, repeated in every extent.
    pub uuid: Uuid,
    /// When the backup began, seconds since 1970.
    pub ctime: i64,
    /// Configuration files, in the order of the archive.
    pub configs: Vec<Config>,
    /// Devices by ascending id.
    pub devices: Vec<Device>,
}

impl Header {
    /// Tells by its first bytes how many bytes the header takes. The result is `Ok(None)` if more bytes are needed to tell;
    /// [`Self::PREFIX`] bytes suffice.
    ///
    /// # Errors
    /// Fails where this is no VMA archive, or the length cannot be right. So a caller never allocates more than
    /// [`MAX_HEADER`].
    pub fn measure(prefix: &[u8]) -> Result<Option<usize>, Defect> {
        let seen = prefix.len().min(MAGIC.len());
        if prefix[..seen] != MAGIC[..seen] {
            let mut magic = [0; 4];
            magic[..seen].copy_from_slice(&prefix[..seen]);
            return Err(Defect::NotVma(magic));
        }
        if prefix.len() < Self::PREFIX {
            return Ok(None);
        }
        let version = be32(prefix, 4);
        if version != 1 {
            return Err(Defect::Version(version));
        }
        let length = be32(prefix, LENGTH_AT);
        match length as usize {
            // Proxmox's reader refuses a header without a blob table.
            n if n > FIXED_HEADER && n <= MAX_HEADER => Ok(Some(n)),
            _ => Err(Defect::HeaderLength(length)),
        }
    }

    /// How many bytes [`Self::measure`] needs.
    pub const PREFIX: usize = LENGTH_AT + 4;

    /// Reads a header. `bytes` may be longer than the header, but not shorter. Magic, version, MD5 sum, and all pointers and
    /// names are checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, Defect> {
        let length = Self::measure(bytes)?.ok_or(Defect::ShortHeader(bytes.len()))?;
        let bytes = bytes.get(..length).ok_or(Defect::ShortHeader(bytes.len()))?;
        if bytes[MD5_AT..BLOB_OFFSET_AT] != digest(bytes) {
            return Err(Defect::HeaderChecksum);
        }
        let mut uuid = Uuid::default();
        uuid.copy_from_slice(&bytes[UUID_AT..CTIME_AT]);
        let mut ctime = [0; 8];
        ctime.copy_from_slice(&bytes[CTIME_AT..MD5_AT]);
        let blobs = Blobs::locate(bytes)?;
        Ok(Header {
            uuid,
            ctime: i64::from_be_bytes(ctime),
            configs: configs(bytes, &blobs)?,
            devices: devices(bytes, &blobs)?,
        })
    }

    /// Returns the device with this id.
    pub fn device(&self, id: u8) -> Option<&Device> {
        self.devices.iter().find(|d| d.id == id)
    }

    /// Makes the bytes that [`Self::parse`] reads. They are laid out as Proxmox's writer does it: blobs begin at offset 1 of
    /// the table, those of configuration files first, and the table is padded to 512 bytes.
    ///
    /// # Errors
    /// Fails where [`Self::parse`] would refuse the header.
    pub fn encode(&self) -> Result<Vec<u8>, Defect> {
        let mut bytes = vec![0; FIXED_HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        put32(&mut bytes, 4, 1);
        bytes[UUID_AT..CTIME_AT].copy_from_slice(&self.uuid);
        bytes[CTIME_AT..MD5_AT].copy_from_slice(&self.ctime.to_be_bytes());
        let mut table = vec![0u8];
        for (i, config) in self.configs.iter().take(CONFIGS).enumerate() {
            put32(&mut bytes, NAMES_AT + 4 * i, add_string(&mut table, &config.name)?);
            put32(&mut bytes, DATA_AT + 4 * i, add_blob(&mut table, &config.name, &config.data)?);
        }
        for device in &self.devices {
            let at = DEVICES_AT + DEVICE_ENTRY * usize::from(device.id);
            put32(&mut bytes, at, add_string(&mut table, &device.name)?);
            bytes[at + 8..at + 16].copy_from_slice(&device.size.to_be_bytes());
        }
        put32(&mut bytes, BLOB_OFFSET_AT, FIXED_HEADER as u32);
        put32(&mut bytes, BLOB_SIZE_AT, table.len() as u32);
        table.resize(table.len().next_multiple_of(512), 0);
        bytes.extend_from_slice(&table);
        let length = bytes.len() as u32;
        put32(&mut bytes, LENGTH_AT, length);
        let sum = digest(&bytes);
        bytes[MD5_AT..BLOB_OFFSET_AT].copy_from_slice(&sum);
        match Self::parse(&bytes)? == *self {
            true => Ok(bytes),
            false => {
                Err(Defect::Name { what: "the header of", name: "too many configurations or devices".into() })
            }
        }
    }
}

/// The blobs that the header points to, by their offset in the table.
struct Blobs<'a> {
    bytes: &'a [u8],
    places: BTreeMap<u32, Range<usize>>,
}

impl<'a> Blobs<'a> {
    /// Walks the table from its offset 1, as Proxmox's reader does. What the walk does not reach is no blob. Only blobs that are
    /// pointed to are kept, so that a hostile table takes no memory.
    fn locate(bytes: &'a [u8]) -> Result<Self, Defect> {
        let (offset, size) = (be32(bytes, BLOB_OFFSET_AT), be32(bytes, BLOB_SIZE_AT));
        let start = offset as usize;
        let end = start.saturating_add(size as usize);
        if start < FIXED_HEADER || end > bytes.len() {
            return Err(Defect::BlobTable { offset, size });
        }
        let pointers = (0..CONFIGS)
            .flat_map(|i| [NAMES_AT + 4 * i, DATA_AT + 4 * i])
            .chain((1..256).map(|i| DEVICES_AT + DEVICE_ENTRY * i))
            .map(|at| be32(bytes, at));
        let mut places: BTreeMap<u32, Range<usize>> = pointers.map(|p| (p, 0..0)).collect();
        let mut at = start + 1;
        while at + 2 <= end {
            let data = at + 2..at + 2 + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
            if data.end <= end
                && let Some(place) = places.get_mut(&((at - start) as u32))
            {
                *place = data.clone();
            }
            at = data.end;
        }
        places.retain(|_, place| place.start != 0);
        Ok(Blobs { bytes, places })
    }

    fn get(&self, what: &'static str, pointer: u32) -> Result<&'a [u8], Defect> {
        let place = self.places.get(&pointer).ok_or(Defect::BlobPointer { what, pointer })?;
        Ok(&self.bytes[place.clone()])
    }

    /// Returns a name, which ends in a NUL byte. It must be fit to be shown and to be a part of a file name.
    fn name(&self, what: &'static str, pointer: u32) -> Result<String, Defect> {
        let blob = self.get(what, pointer)?;
        let text = blob.strip_suffix(&[0]).ok_or(Defect::BlobPointer { what, pointer })?;
        match std::str::from_utf8(text) {
            Ok(name) if is_file_name(name) => Ok(name.to_owned()),
            _ => Err(Defect::Name { what, name: String::from_utf8_lossy(text).into_owned() }),
        }
    }
}

/// Checks the name of a configuration file. Proxmox stores names without directories; with any other name, unpacking could
/// write elsewhere.
fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 200
        && !name.contains(|c: char| c == '/' || c.is_control())
}

fn configs(bytes: &[u8], blobs: &Blobs) -> Result<Vec<Config>, Defect> {
    let mut configs: Vec<Config> = Vec::new();
    for i in 0..CONFIGS {
        let (name, data) = (be32(bytes, NAMES_AT + 4 * i), be32(bytes, DATA_AT + 4 * i));
        if name == 0 || data == 0 {
            continue;
        }
        let what = "configuration file";
        let name = blobs.name(what, name)?;
        if configs.iter().any(|c| c.name == name) {
            return Err(Defect::NameTwice { what, name });
        }
        configs.push(Config { name, data: blobs.get(what, data)?.to_vec() });
    }
    Ok(configs)
}

fn devices(bytes: &[u8], blobs: &Blobs) -> Result<Vec<Device>, Defect> {
    let mut devices: Vec<Device> = Vec::new();
    for id in 1..=u8::MAX {
        let at = DEVICES_AT + DEVICE_ENTRY * usize::from(id);
        let size = u64::from(be32(bytes, at + 8)) << 32 | u64::from(be32(bytes, at + 12));
        if size == 0 {
            continue;
        }
        if id > MAX_DEVICE {
            return Err(Defect::DeviceId(id));
        }
        let what = "device";
        let device = Device { id, name: blobs.name(what, be32(bytes, at))?, size };
        if devices.iter().any(|d| d.name == device.name) {
            return Err(Defect::NameTwice { what, name: device.name });
        }
        // Numbers of clusters have 32 bits.
        if device.clusters() > 1 << 32 {
            return Err(Defect::DeviceSize { name: device.name, size });
        }
        devices.push(device);
    }
    Ok(devices)
}

fn add_string(table: &mut Vec<u8>, text: &str) -> Result<u32, Defect> {
    add_blob(table, text, &[text.as_bytes(), &[0]].concat())
}

fn add_blob(table: &mut Vec<u8>, name: &str, data: &[u8]) -> Result<u32, Defect> {
    let size = u16::try_from(data.len())
        .map_err(|_| Defect::Name { what: "data longer than 65535 bytes, of", name: name.to_owned() })?;
    let at = table.len() as u32;
    table.extend_from_slice(&size.to_le_bytes());
    table.extend_from_slice(data);
    Ok(at)
}

/// Computes the MD5 sum of the header. The field of the sum itself counts as zeros.
fn digest(bytes: &[u8]) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(&bytes[..MD5_AT]);
    md5.update([0; 16]);
    md5.update(&bytes[BLOB_OFFSET_AT..]);
    md5.finalize().into()
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;
