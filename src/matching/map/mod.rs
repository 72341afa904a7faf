//! The map of a full backup: which content lies where. With it a differential can be made without reading the full backup.
//!
//! A full backup that we compress is a zstd file with a seek table ([`crate::container::seekable`]) and with these side
//! frames (numbers are little endian, varints LEB128):
//!
//! ```text
//! "pvedbHDR"  version u8, seed [32]                            behind the first data frame
//! "pvedbMAP"  start u64, length u32, records                   behind the data frames of each segment
//!     0x00 gap:     length varint
//!     0x01 cluster: device u8, number u32, mask u16, a fingerprint [12] per set bit (4096 bytes each)
//!     0x02 pieces:  count varint, per piece: length varint, fingerprint [12]
//!     0x03 seeds:   a seed [5] for each 4096 bytes of the segment, see `seeds.rs`
//!     In the header of a VMA extent, the list of clusters is a piece, and the rest is a gap. In maps of older versions of
//!     this program, all of the header is in the gap.
//! "pvedbSLT"  see `slots.rs`; any number of them               behind the last "pvedbMAP"
//! "pvedbEND"  content length u64, chained checksum [16], segments u64 [, number of "pvedbSLT" u32]
//! ```
//! The full backup of a VM has version 2, and its end has the number of frames that tell where its clusters lie; there are
//! none if it is odd (see `slots.rs`). All others have version 1, and neither. Programs that know version 1 only
//! refuse version 2 with "its map is of a version that this program does not know".
//!
//! A file that was cut short lacks the end, and is refused as a base.
//!
//! [`SegmentMap`] is the part of a map that describes one segment, and knows its stored form. [`Map`] is the map in a
//! file (`file`), of which a [`MapReader`] reads the parts. [`Index`] finds pieces: it knows by fingerprint (`table`), by
//! cluster (`clusters`) and by seed (`seeds`) which segment of the base holds them, and looks them up there. A base
//! without a map gets an index too, from segment maps that are made while it is read.

mod clusters;
mod file;
mod index;
mod seeds;
mod segment_map;
mod slots;
mod table;

pub use file::{END, MAP};
pub use file::{End, HEADER, Map, MapReader, encode_header};
pub(super) use index::{Cursor, Index, Match};
pub(super) use seeds::{SeedMatch, occurs, worthwhile};
pub use segment_map::{Entry, SegmentMap};
pub(super) use slots::{SLOTS, Slots, SlotsBuilder, is_plain};
