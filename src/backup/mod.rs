//! Backup archives in a directory: their names, chains of a full and its differentials, verification.

pub mod names;
mod stamp;

pub use names::{BackupName, Compression, Differential, Format, Full, GuestKind};
pub use stamp::Stamp;
