//! The delta engine: full backups with a map, differentials against them, and their restore.
//!
//! ```text
//! full:          stream -> chunker -> fingerprints and zstd frames         -> archive with a map
//! differential:  stream -> chunker -> lookup in the base's map -> matcher  -> VCDIFF windows
//! compose:       dirty blocks of disks, last differential, base's slots    -> VCDIFF windows
//! restore:       VCDIFF windows -> base, read where they copy from         -> stream
//! ```
//!
//! From the bottom up:
//!
//! * [`fingerprint`] stands for the content of a piece; [`chunker`] cuts a stream into segments and these into pieces.
//! * [`map`] holds the fingerprints of a full backup, in its file and as an index in memory. [`full`] writes it.
//! * [`base`] opens a full backup and decides how it can be read: by its map, at any position, or only from its front.
//! * [`differential`] encodes a stream against a base; its `matcher` compares bytes with bytes.
//! * [`compose`] makes a differential of a VM from what QEMU says has changed, without reading the rest.
//! * [`restore`] applies a differential to a base.
//! * [`view`] reads a backup at any position, without restoring it.
//!
//! Everything streams. Memory is bounded by the number of segments that are being worked on ([`pipeline`]), the
//! decompressed frames that are kept, and the index of the base.

pub mod base;
pub mod chunker;
pub mod compose;
pub mod differential;
mod error;
pub mod fingerprint;
mod free_list;
pub mod full;
pub mod map;
pub mod pipeline;
pub mod restore;
mod sliding_window;
pub mod view;

pub use error::{BaseProblem, Error};
pub use sliding_window::WINDOW;

/// The most threads that compare or apply windows. Each of them takes memory, and three are faster than any pipe.
const MAX_THREADS: usize = 3;
