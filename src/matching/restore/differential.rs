//! A differential of which the header was read.

use std::io::Read;

use crate::container;
use crate::container::source::Pass;
use crate::matching::Error;
use crate::vcdiff::{AppHeader, Limits, Reader};

/// A differential of which the header was read.
pub struct Differential {
    /// Yields the windows.
    pub(super) reader: Reader<Box<dyn Read + Send>>,
    /// Whether the checksums of windows are verified.
    pub(super) checksums: bool,
    /// The file of the differential, to be read once more.
    pub(super) file: Option<Pass>,
}

impl Differential {
    /// Reads the header. `input` may be compressed.
    ///
    /// # Errors
    /// Fails where it is no differential, or cannot be read.
    pub fn open(input: Box<dyn Read + Send>) -> Result<Differential, Error> {
        Differential::open_within(input, Limits::default())
    }

    /// As [`Differential::open`], with limits of its windows.
    ///
    /// # Errors
    /// As [`Differential::open`].
    pub(super) fn open_within(input: Box<dyn Read + Send>, limits: Limits) -> Result<Differential, Error> {
        let (_, stream) = container::decoder(input)
            .map_err(|source| Error::Io { what: "cannot read the differential".into(), source })?;
        Ok(Differential { reader: Reader::new(stream, limits)?, checksums: true, file: None })
    }

    /// Reads the header of a differential that is not compressed.
    ///
    /// # Errors
    /// Fails where it is no differential, or cannot be read.
    pub fn new(stream: Box<dyn Read + Send>) -> Result<Differential, Error> {
        Ok(Differential { reader: Reader::new(stream, Limits::default())?, checksums: true, file: None })
    }

    /// Tells how to read the differential once more, should that be of use; see [`Pass::from_here`].
    pub fn with(self, file: Option<Pass>) -> Differential {
        Differential { file, ..self }
    }

    /// Leaves the checksums of the windows out of account, as `xdelta3 -n` does. The end record is checked all the same.
    pub fn without_checksums(self) -> Differential {
        Differential { checksums: false, ..self }
    }

    /// What the header says.
    pub fn header(&self) -> AppHeader {
        AppHeader::parse(self.reader.header().app_header.as_deref().unwrap_or_default())
    }

    /// Whether a base is needed: the header names one, or there is no header. (xdelta3 can leave it out.)
    pub fn needs_base(&self) -> bool {
        !self.header().base_name.is_empty() || self.reader.header().app_header.is_none()
    }
}
