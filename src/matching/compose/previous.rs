//! The file of the last differential.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::container::source::Pass;
use crate::container::{self, Kind};
use crate::matching::Error;
use crate::vcdiff::{AppHeader, Limits, Reader};

/// The last differential against the same base.
pub struct Previous {
    path: PathBuf,
    file: File,
}

impl Previous {
    /// Takes the open file of the last differential. The path is for messages.
    pub fn new(path: &Path, file: File) -> Previous {
        Previous { path: path.to_owned(), file }
    }

    /// Opens the differential from its start. It must have been made against this base, and must have checksums that
    /// show any damage.
    pub(super) fn open(&self, base: &AppHeader) -> Result<Reader<Box<dyn Read + Send>>, Error> {
        let cannot =
            |source| Error::Io { what: format!("cannot read {}", crate::text::shown(&self.path)), source };
        let mut prefix = [0; 32];
        let mut pass = Pass::from_start(&self.file).map_err(cannot)?;
        let n = container::read_full(&mut pass, &mut prefix).map_err(cannot)?;
        let from_start = Pass::from_start(&self.file).map_err(cannot)?;
        let (kind, stream) = container::decoder(Box::new(from_start)).map_err(cannot)?;
        let reader = Reader::new(stream, Limits::default())?;
        let header = AppHeader::parse(reader.header().app_header.as_deref().unwrap_or_default());
        if header.base_identity != base.base_identity || header.base_form != base.base_form {
            return Err(Error::unfit("the last differential was not made against this full backup"));
        }
        if !header.end_record {
            return Err(Error::unfit("the last differential has no end record"));
        }
        // The hash of the whole target cannot be checked here, as the target is not produced.
        let checked = has_checksums(kind, &prefix[..n]);
        if !header.end_of_delta && !checked {
            return Err(Error::unfit("the last differential has no checksum of its own"));
        }
        Ok(reader)
    }
}

/// Tells whether a compressed file that begins with `front` holds checksums of its content, for formats that leave a
/// choice.
fn has_checksums(kind: Kind, front: &[u8]) -> bool {
    match kind {
        Kind::Raw | Kind::Lzw => false,
        Kind::Gzip | Kind::Bzip2 => true,
        // RFC 8878, section 3.1.1.1.1: this is bit 2 of the frame header's descriptor.
        Kind::Zstd => front.get(4).is_some_and(|descriptor| descriptor & 4 != 0),
        // The stream's flags tell the kind of check, where 0 is none.
        Kind::Xz => front.get(7).is_some_and(|flags| flags & 15 != 0),
        // The header's flags tell whether each block has an Adler-32 or CRC-32. They are there since lzop 0.94.
        Kind::Lzop => {
            front.get(9).is_some_and(|version| *version >= 9)
                && front.get(17..21).is_some_and(|flags| flags[3] & 3 != 0 || flags[2] & 3 != 0)
        }
    }
}
