//! Making a differential: the new stream, expressed by copies from the base.
//!
//! `encode` reads the stream, hands its segments to worker threads, and writes what they return in order. A base with a
//! map is known from the start. A base without one is read alongside the new stream (`unmapped`); a small one is compared
//! as a whole.
//!
//! A segment is encoded in three steps:
//!
//! 1. `lookup` finds its pieces in the index of the base, and joins them to stretches (`stretch`): equal ones, of which the
//!    place in the base is known, and changed ones.
//! 2. `segment` compares each changed stretch with the base's bytes from which it probably comes. `candidates` tells where
//!    these are, `reference` gathers them, and `matcher` compares. What is found in neither place nor neighbourhood is
//!    searched for by its seeds.
//! 3. `window` writes copies and literal bytes as VCDIFF windows. Records of one length within new bytes are copied from one
//!    another (`records`).
//!
//! `context` holds what all workers share.

mod candidates;
mod context;
mod encode;
mod lookup;
pub(super) mod matcher;
pub(super) mod records;
mod reference;
mod segment;
mod stretch;
mod unmapped;
mod window;

pub use encode::{Options, Prepared, Summary, diff, prepare};
