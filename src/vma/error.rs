//! What can be wrong with an archive.

use std::io;

use crate::text::{shown, what_it_is};

/// Why bytes are not what the format demands. It does not say where they are; [`Error`] does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// The first four bytes are not `VMA\0`.
    #[error("not a VMA archive (a VM's backup) but {}", what_it_is(.0))]
    NotVma([u8; 4]),
    /// Fewer bytes than the fixed part of the header.
    #[error("a VMA header has at least {FIXED} bytes, only {0} are here", FIXED = super::FIXED_HEADER)]
    ShortHeader(usize),
    /// A version other than 1.
    #[error("VMA version {0} is unknown (1 is supported)")]
    Version(u32),
    /// The declared header length cannot be right.
    #[error("the header claims a length of {0} bytes (possible: {MIN} to {MAX})", MIN = super::FIXED_HEADER + 1, MAX = super::MAX_HEADER)]
    HeaderLength(u32),
    /// The header does not match its MD5 sum.
    #[error("the header does not match its MD5 sum: the archive is damaged")]
    HeaderChecksum,
    /// The blob table lies outside of the header.
    #[error("the blob table ({size} bytes at {offset}) lies outside of the header")]
    BlobTable {
        /// Declared start in the header.
        offset: u32,
        /// Declared length.
        size: u32,
    },
    /// A pointer of the header does not lead to a blob, or the blob is no name.
    #[error("the header's pointer {pointer} to {what} leads nowhere")]
    BlobPointer {
        /// What the pointer is for.
        what: &'static str,
        /// The offset in the blob table.
        pointer: u32,
    },
    /// A name is empty, not UTF-8, or holds control characters.
    #[error("{what} \"{}\" is not a usable name", shown(name))]
    Name {
        /// What is named.
        what: &'static str,
        /// The name, made printable.
        name: String,
    },
    /// A name is used by two devices or configuration files.
    #[error("{what} \"{}\" is there twice", shown(name))]
    NameTwice {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A device with the reserved id 255.
    #[error("device id {0} is reserved")]
    DeviceId(u8),
    /// A device larger than clusters can be numbered.
    #[error("device \"{}\" claims {size} bytes, more than a VMA archive can hold", shown(name))]
    DeviceSize {
        /// Name of the device.
        name: String,
        /// Declared size in bytes.
        size: u64,
    },
    /// No `VMAE` where an extent must begin.
    #[error("the archive is damaged: no extent begins where one must")]
    ExtentMagic,
    /// The two reserved bytes of an extent header are used.
    #[error("the reserved field of an extent header holds {0} instead of 0")]
    ExtentReserved(u16),
    /// An extent header does not match its MD5 sum.
    #[error("an extent header does not match its MD5 sum: the archive is damaged")]
    ExtentChecksum,
    /// The block count is not the number of set mask bits.
    #[error("an extent claims {declared} blocks, its clusters have {masked}")]
    BlockCount {
        /// The header's count.
        declared: u16,
        /// Set bits in all masks.
        masked: u16,
    },
    /// An extent of another archive.
    #[error("an extent belongs to another archive: its UUID is not the header's")]
    ForeignExtent,
    /// A cluster of a device that the header does not list.
    #[error("a cluster of device {0}, which the header does not list")]
    UnknownDevice(u8),
    /// A cluster or block behind the end of its device.
    #[error("cluster {cluster} of device \"{}\" holds data behind its end ({size} bytes)", shown(device))]
    BehindEnd {
        /// Name of the device.
        device: String,
        /// Number of the cluster.
        cluster: u32,
        /// Size of the device in bytes.
        size: u64,
    },
    /// A cluster appears a second time.
    #[error("cluster {cluster} of device \"{}\" is there twice", shown(device))]
    Duplicate {
        /// Name of the device.
        device: String,
        /// Number of the cluster.
        cluster: u32,
    },
    /// The guest's memory is out of order.
    #[error("cluster {found} of the guest's memory where {expected} was due")]
    VmstateOrder {
        /// Number found.
        found: u32,
        /// Number expected.
        expected: u64,
    },
    /// The archive ends before a device is complete.
    #[error(
        "device \"{}\" is incomplete: {missing} of {total} clusters are missing, the first is {first}",
        shown(device)
    )]
    Incomplete {
        /// Name of the device.
        device: String,
        /// Number of missing clusters.
        missing: u64,
        /// Number of clusters the device has.
        total: u64,
        /// The first missing one.
        first: u64,
    },
    /// Clusters are so scattered over huge devices that keeping track of them would take too much memory.
    #[error("clusters are scattered over more than {0} GiB of disk: this is no archive of a backup")]
    Scattered(u64),
    /// Clusters lie in more separate places than are kept track of.
    #[error("clusters lie in more than {0} separate places: this is no archive of a backup")]
    Fragmented(usize),
}

/// What can go wrong while an archive is read, unpacked or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is malformed.
    #[error("{defect} (VMA stream, byte {offset})")]
    Format {
        /// Byte offset of the header or extent in the uncompressed archive.
        offset: u64,
        /// What is wrong there.
        defect: Defect,
    },
    /// The archive ends too early.
    #[error("the VMA stream is truncated: it ends at byte {offset}, in the middle of {what}")]
    Truncated {
        /// Length of what is there.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// Reading failed, for instance because the compressed file is damaged.
    #[error("reading the VMA stream failed at byte {offset}")]
    Read {
        /// Offset up to which all was read.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nothing can be salvaged.
    #[error(
        "the archive's header is lost, which tells the disks and their sizes: nothing can be salvaged ({why})"
    )]
    HeaderLost {
        /// Why it is lost.
        why: String,
    },
    /// The image of a disk that is to be stored could not be read.
    #[error("reading the image of \"{}\" failed at byte {offset}", shown(device))]
    Image {
        /// Name of the device.
        device: String,
        /// First byte wanted.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The directory to unpack into exists already.
    #[error("{path} exists already: name a directory that does not exist, it will be made")]
    Exists {
        /// The directory.
        path: String,
    },
    /// A file could not be written.
    #[error("writing {path}")]
    Write {
        /// The file, or words for it.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A device or configuration file was asked for that the archive does not have.
    #[error("the archive has no {what} \"{}\" (it has: {})", shown(name), shown(have))]
    NoSuch {
        /// What was asked for.
        what: &'static str,
        /// Its name.
        name: String,
        /// The names that exist.
        have: String,
    },
    /// What is to be written does not fit into the format.
    #[error("cannot be stored in a VMA archive: {0}")]
    Unstorable(String),
}
