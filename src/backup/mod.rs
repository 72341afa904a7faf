//! Backups in a directory: their names, the chains of a full and its differentials, and their verification.

pub mod add_map;
pub mod chain;
pub mod consolidate;
pub mod disk;
pub mod inventory;
pub mod lockstep;
pub mod names;
pub mod offsite;
pub mod orphans;
mod stamp;
pub mod tar;
pub mod tasklog;
pub mod unfinished;
pub mod verified;
pub mod verify;
pub mod writing;

pub use names::{BackupName, Compression, Differential, Format, Full, Guest, GuestKind};
pub use stamp::Stamp;
