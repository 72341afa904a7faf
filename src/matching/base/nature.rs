//! What content is, by its first bytes.

use crate::tar;
use crate::vcdiff::MAGIC;

/// What content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// A VMA archive.
    Vma,
    /// A tar archive.
    Tar,
    /// A differential.
    Differential,
    /// Anything else.
    Other,
}

impl Nature {
    /// Tells the nature of content by its first bytes; 512 bytes suffice.
    pub fn of(bytes: &[u8]) -> Nature {
        match bytes {
            _ if bytes.starts_with(&MAGIC) => Nature::Differential,
            [b'V', b'M', b'A', 0, ..] => Nature::Vma,
            _ if tar::begins(bytes) => Nature::Tar,
            _ => Nature::Other,
        }
    }
}
