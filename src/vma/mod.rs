//! Proxmox VE's VMA archive format (a VM's backup): reading, checking, unpacking and writing.
//!
//! Source: `vma_spec.txt` of pve-qemu, and where that text is silent or wrong the behaviour of Proxmox's
//! own writer and reader:
//! - an archive is one [`Header`] (configuration files, devices), then extents to the end of the file;
//! - an extent is a 512-byte [`ExtentHeader`] with up to [`CLUSTERS_PER_EXTENT`] entries (device, cluster,
//!   mask), then the 4096-byte blocks whose mask bit is set, in order; the other blocks are zeros;
//! - every cluster of every device appears exactly once, in any order, also when it is all zeros;
//! - numbers are big endian except the sizes of blobs (configuration data and names), which are little endian;
//! - device ids start at 1; a device named [`VMSTATE`] holds the memory of the guest, strictly in order and
//!   of no declared length.
//!
//! The parse functions are pure; [`Reader`] walks a stream with at most one extent in memory, [`extract`]
//! unpacks one, [`salvage`] what is left of a damaged one, [`Writer`] makes archives like Proxmox's, for tests and the demo.

mod coverage;
mod disks;
mod error;
mod extent;
mod extract;
mod header;
mod made;
mod ranges;
mod reader;
mod salvage;
mod writer;

pub use disks::{Disk, Index};
pub use error::{Defect, Error};
pub use extent::{Cluster, ExtentHeader};
pub use extract::{Extracted, extract};
pub use header::{Config, Device, Header};
pub use made::{Made, private, rename_to_free};
pub use reader::{Event, Reader, Summary, verify};
pub use salvage::{Salvaged, SalvagedDisk, salvage};
pub use writer::{Order, Writer, write_archive};

/// Bytes of a block. A block of zeros is left out of the archive.
pub const BLOCK: usize = 4096;
/// Blocks of a cluster. Each has one bit of the mask.
pub const BLOCKS_PER_CLUSTER: usize = 16;
/// Bytes of a cluster.
pub const CLUSTER: usize = BLOCK * BLOCKS_PER_CLUSTER;
/// Entries in an extent header. Proxmox's writer uses only the first 58.
pub const CLUSTERS_PER_EXTENT: usize = 59;
/// Bytes of an extent header.
pub const EXTENT_HEADER: usize = 512;
/// Bytes of an extent header before its entries: magic number, count of blocks, UUID, checksum.
pub const EXTENT_FRONT: usize = 40;
/// Where the UUID is in an extent header. The bytes before it follow from the entries.
pub const EXTENT_UUID: std::ops::Range<usize> = 8..24;
/// Bytes of the fixed part of an archive header; the blob table follows.
pub const FIXED_HEADER: usize = 12288;
/// The most bytes of a header that is accepted. Proxmox's writer makes no header longer than 512 KiB; this leaves room for
/// others.
pub const MAX_HEADER: usize = 16 << 20;
/// Name of the device that holds the guest's memory.
pub const VMSTATE: &str = "vmstate";
/// The highest device id that Proxmox's tools handle; 0 marks an unused entry.
pub const MAX_DEVICE: u8 = 254;

/// The number that ties the extents of an archive to its header.
pub type Uuid = [u8; 16];
