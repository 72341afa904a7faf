//! Compressed files: lzop, zstd (seekable), gzip, xz and raw, found by content.

pub mod lzo;
pub mod lzop;
