//! The file header (RFC 3284 section 4.1).

use super::varint;

/// "VCD" with the high bits set, and version 0.
pub const MAGIC: [u8; 4] = [0xd6, 0xc3, 0xc4, 0x00];

pub(super) const HDR_SECONDARY: u8 = 1;
pub(super) const HDR_CODETABLE: u8 = 2;
/// An extension of xdelta3.
pub(super) const HDR_APPHEADER: u8 = 4;

/// Secondary compressors, by xdelta3's numbers (RFC 3284 assigns none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Secondary {
    /// Semi-static Huffman with several tables, in the manner of bzip2.
    Djw = 1,
    /// One xz stream per kind of section.
    Lzma = 2,
    /// Adaptive Huffman.
    Fgk = 16,
}

impl Secondary {
    /// Compressor with this number.
    pub fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Secondary::Djw),
            2 => Some(Secondary::Lzma),
            16 => Some(Secondary::Fgk),
            _ => None,
        }
    }
}

/// What the file header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Compressor that sections may be compressed with.
    pub secondary: Option<Secondary>,
    /// Application header; see [`AppHeader`](super::AppHeader) for what it may hold.
    pub app_header: Option<Vec<u8>>,
    /// Length of the file header in bytes.
    pub len: u64,
}

/// Encodes a file header.
pub fn write_header(app_header: Option<&[u8]>, secondary: Option<Secondary>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(bit(secondary.is_some(), HDR_SECONDARY) | bit(app_header.is_some(), HDR_APPHEADER));
    out.extend(secondary.map(|s| s as u8));
    if let Some(app_header) = app_header {
        varint::write(&mut out, app_header.len() as u64);
        out.extend_from_slice(app_header);
    }
    out
}
