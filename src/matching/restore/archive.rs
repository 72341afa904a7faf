//! Reading an archive from its start, full backup or differential.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crossbeam_channel::bounded;

use super::apply::Options;
use super::differential::Differential;
use crate::container::source::{self, Found, Pass, Refused};
use crate::container::{self, Parts};
use crate::matching::Error;
use crate::matching::base::Base;
use crate::text::{shown, told};
use crate::vcdiff::AppHeader;

/// Opens an archive for reading from its start. Without `base` it is a full backup, which is decompressed. With `base` it is a
/// differential, which is restored: the function opens the base that a differential with this header needs. Errors of
/// reading come as `io::Error` with the whole text. `warn` gets the warning of [`Base::accept_by_name`].
///
/// # Errors
/// Those of [`source::open`], [`Differential::open`], `base`, and [`Base::accept_by_name`].
pub fn open<F>(
    path: &Path,
    base: Option<F>,
    found: Found,
    options: Options,
    warn: impl FnOnce(String),
) -> Result<Box<dyn Read + Send>, Error>
where
    F: FnOnce(&AppHeader) -> Result<Base, Error>,
{
    let io = |source| Error::Io { what: format!("cannot open {}", shown(path)), source };
    let file = match found {
        // A person may name a pipe.
        Found::ByPerson => File::open(path).map_err(io)?,
        Found::ByName => source::open(path, found).map_err(|refused| match refused {
            Refused::Io(source) => io(source),
            refused => Error::Refused { path: path.to_owned(), refused },
        })?,
    };
    let Some(base) = base else {
        let stream = container::decoder(Box::new(file));
        return Ok(stream
            .map_err(|source| Error::Io { what: format!("cannot read {}", shown(path)), source })?
            .1);
    };
    let again = Pass::from_here(&file);
    let delta = Differential::open(Box::new(file))?.with(again);
    let header = delta.header();
    let base = base(&header)?;
    match found {
        Found::ByPerson => base.check(&header).map(drop)?,
        Found::ByName => base.accept_by_name(&header)?.map_or((), warn),
    }
    let (send, parts) = bounded(2);
    let spawned = std::thread::Builder::new().name("restore".into()).spawn(move || {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let result =
            delta.restore(Some(base), options, |bytes| send.send(Ok(bytes.to_vec())).map_err(|_| gone()));
        // An empty part is the end. If it does not come, the stream was cut short.
        let _ = send.send(result.map(|_| Vec::new()));
    });
    spawned.map_err(|source| Error::Io { what: "cannot start a thread".into(), source })?;
    let broken = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    // Once the stream has ended: whether it ended well.
    let mut end = None;
    Ok(Box::new(Parts::new(move || match end {
        Some(true) => Ok(Vec::new()),
        Some(false) => broken("the differential could not be restored".into()),
        None => match parts.recv() {
            Ok(Ok(part)) => {
                end = part.is_empty().then_some(true);
                Ok(part)
            }
            other => {
                end = Some(false);
                broken(match other {
                    Ok(Err(e)) => told(&e),
                    _ => "internal error: the restoring thread ended unexpectedly".into(),
                })
            }
        },
    })))
}
