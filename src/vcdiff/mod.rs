//! VCDIFF (RFC 3284) in the dialect of xdelta3. Deltas are read and written as streams, in bounded memory, and every input
//! is taken for hostile.
//!
//! A delta is a header and a sequence of windows. Each window rebuilds one piece of the target from
//! literal bytes, runs, copies from a *segment* of the source and copies from itself, so it can be
//! applied as soon as it is read, and windows can be applied on several threads.
//!
//! Reading: [`Reader`] parses the header and yields [`Item`]s; it never looks at the source.
//! [`Window::apply`] asks only for the source bytes it copies, and checks the window's Adler-32.
//! Writing: [`write_header`], then one [`WindowBuilder`] reused for all windows, then
//! [`EndRecord::encode`]. [`merge`] joins a chain of deltas into one, [`secondary`] compresses sections.
//!
//! # The dialect
//! xdelta3 adds to RFC 3284 an application header (header indicator bit 4), an Adler-32 of the target window (window
//! indicator bit 4), and three secondary compressors with numbers of its own. It leaves out custom code tables and
//! `VCD_TARGET` segments; we refuse both with a clear error too.
//!
//! We add two things that no other reader sees: the identity of the base ([`AppHeader`]), and an end record with the length
//! and a hash of the whole target ([`EndRecord`]). Without it, a delta that was cut between two windows is a valid shorter
//! delta.

mod address;
mod apphdr;
mod builder;
pub(crate) mod codetable;
mod end;
mod error;
mod header;
pub mod merge;
mod reader;
pub mod secondary;
#[cfg(test)]
mod tests;
pub mod varint;
mod window;

pub use apphdr::AppHeader;
pub use builder::WindowBuilder;
pub use end::{DeltaHasher, EndRecord, TargetHasher};
pub use error::{Error, Result};
pub use header::{Header, MAGIC, Secondary, write_header};
pub use reader::{Item, Limits, Reader};
pub use window::{Inst, Instructions, Order, Segment, Stored, Window};

/// Longest target window any reader should take, in bytes: `XD3_HARDMAXWINSIZE` of xdelta3, which
/// refuses longer ones as malicious.
pub const MAX_WINDOW: usize = 16 << 20;

/// Longest source segment a window of ours may span, in bytes. xdelta3 3.0.11 keeps lengths and addresses
/// in 32 bits, so segment and window together must stay below 4 GiB; below 2 GiB they also fit readers
/// with signed 32-bit integers, and the largest `-B` of xdelta3 (2 GiB) suffices to decode from a base
/// that it cannot seek in.
pub const MAX_SEGMENT: u64 = (2 << 30) - MAX_WINDOW as u64;
