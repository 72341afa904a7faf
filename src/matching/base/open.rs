//! Opening a base: one file, of which everything else is learned.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Access, Base, Nature, OneWay, Stream, put_back};
use crate::container::seekable::{End, Frames, ReadOptions, Seekable, end, first_side_tag, frames};
use crate::container::source::{self, Any, Found, Pass, Refused};
use crate::container::{self, Kind, RandomAccess, RawFile, ReadAt, lzop};
use crate::matching::fingerprint::checksum;
use crate::matching::map::{self, Map};
use crate::matching::{BaseProblem, Error};
use crate::text::shown_bytes;
use crate::vcdiff::AppHeader;

/// Bytes at the front of the content whose checksum is [`Base::head`].
const HEAD: usize = 64 << 10;
/// A file without a map is identified by samples of it: so many, of so many bytes each.
const SAMPLES: u64 = 32;
const SAMPLE: usize = 4 << 10;

/// The form of a file that can be read only once.
const ONCE: &str = "pipe";

impl Base {
    /// Opens a file that a person named.
    ///
    /// # Errors
    /// Fails where the file is missing, unreadable, empty, or nothing that [`source::open`] opens, and where it is cut short
    /// or damaged, as far as that shows without reading all of it.
    pub fn open(path: &Path) -> Result<Base, Error> {
        Base::open_found(path, Found::ByPerson)
    }

    /// Opens a file whose path was found in this way.
    ///
    /// # Errors
    /// As [`Base::open`].
    pub fn open_found(path: &Path, found: Found) -> Result<Base, Error> {
        let file = source::open(path, found).map_err(|refused| not_opened(path, refused))?;
        Base::of_file(path, file, true)
    }

    /// Opens whatever a person named as the source of xdelta3: also a FIFO, for whose writer it waits. What can be read only
    /// once is known by nothing but its first bytes. The content is decompressed if `decompress`. The result is `None`
    /// where the file is empty, because nothing can be copied from it.
    ///
    /// # Errors
    /// As [`Base::open`].
    pub fn open_source(path: &Path, decompress: bool) -> Result<Option<Base>, Error> {
        let io = |source| Error::base(path, BaseProblem::Io(source));
        match source::open_any(path).map_err(|refused| not_opened(path, refused))? {
            Any::File(file) if is_empty(&file).map_err(io)? => Ok(None),
            Any::File(file) => Base::of_file(path, file, decompress).map(Some),
            Any::Once(file) => {
                let input: Stream = Box::new(file);
                let stream = if decompress { container::decoder(input).map_err(io)?.1 } else { input };
                let mut access = Access::OneWay(OneWay { stream, file: None });
                let (head, nature) = head(&mut access).map_err(io)?;
                let path = path.to_owned();
                Ok(Some(Base { path, form: ONCE, identity: head, head, access, nature, file: None }))
            }
        }
    }

    /// Opens what is left of a damaged full backup, for a differential with this header.
    ///
    /// # Errors
    /// Fails where it cannot be opened, or is empty, or certainly another one than the differential needs.
    pub fn open_damaged(path: &Path, found: Found, header: &AppHeader) -> Result<Base, Error> {
        let io = |source| Error::base(path, BaseProblem::Io(source));
        let file = source::open(path, found).map_err(|refused| not_opened(path, refused))?;
        let mut prefix = Vec::new();
        Pass::from_start(&file).and_then(|pass| pass.take(9).read_to_end(&mut prefix)).map_err(io)?;
        if prefix.is_empty() {
            return Err(Error::base(path, BaseProblem::Empty));
        }
        let again = || file.try_clone().map_err(io);
        let frames = match Kind::detect(&prefix) {
            // Where the first frame is damaged, nothing tells that it is ours but the table.
            Kind::Zstd => match Seekable::open(again()?) {
                Ok(Some(seekable)) => Some(seekable),
                _ if first_side_tag(&file).map_err(io)? == Some(map::HEADER) => {
                    Some(Seekable::indexed(again()?).map_err(io)?)
                }
                _ => None,
            },
            _ => None,
        };
        let mut access = match frames {
            Some(frames) => Access::Random(RandomAccess::Frames(Arc::new(frames))),
            None => {
                let file = Pass::from_start(&file).map_err(io)?;
                Access::OneWay(OneWay { stream: OneWay::decompress(&file).map_err(io)?, file: Some(file) })
            }
        };
        let (form, nature, identity) = ("damaged", Nature::Other, [0; 16]);
        // What cannot be read proves nothing. The checksums of the windows do.
        let head = head(&mut access).ok();
        if let (Some((found, _)), Some(expected)) = (head, header.base_head)
            && found != expected
            && matches!(access, Access::Random(_))
        {
            let (name, what) = (shown_bytes(&header.base_name), "it begins differently".into());
            return Err(Error::base(path, BaseProblem::Other { name, what }));
        }
        let head = header.base_head.unwrap_or_default();
        Ok(Base { path: path.to_owned(), form, identity, head, access, nature, file: Some(file) })
    }

    /// Finds out what an open file is. Its content is decompressed if `decompress`.
    fn of_file(path: &Path, file: File, decompress: bool) -> Result<Base, Error> {
        let io = |source| Error::base(path, BaseProblem::Io(source));
        if is_empty(&file).map_err(io)? {
            return Err(Error::base(path, BaseProblem::Empty));
        }
        let mut prefix = Vec::new();
        Pass::from_start(&file).and_then(|pass| pass.take(9).read_to_end(&mut prefix)).map_err(io)?;
        let kind = if decompress { Kind::detect(&prefix) } else { Kind::Raw };
        let (form, mut access) = access(path, &file, kind)?;
        let (head, nature) = head(&mut access).map_err(io)?;
        let identity = match &access {
            Access::Mapped(map) => map.identity(),
            Access::Random(_) | Access::OneWay(_) => sample(&file).map_err(io)?,
        };
        Ok(Base { path: path.to_owned(), form, identity, head, access, nature, file: Some(file) })
    }
}

fn not_opened(path: &Path, refused: Refused) -> Error {
    let problem = match refused {
        Refused::Io(source) => BaseProblem::Io(source),
        refused => BaseProblem::Refused(refused),
    };
    Error::base(path, problem)
}

/// Whether a file is a regular one without content. (The metadata of a block device say 0 bytes, too.)
fn is_empty(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.len() == 0)
}

/// Decides how the content of a file can be read; also tells the name of its form.
fn access(path: &Path, file: &File, kind: Kind) -> Result<(&'static str, Access), Error> {
    let io = |source| Error::base(path, BaseProblem::Io(source));
    let again = || file.try_clone().map_err(io);
    let one_way = || {
        let file = Pass::from_start(file).map_err(io)?;
        let stream = OneWay::decompress(&file).map_err(io)?;
        Ok::<_, Error>(Access::OneWay(OneWay { stream, file: Some(file) }))
    };
    let plain = |content| Access::Random(RandomAccess::Plain(content));
    Ok(match kind {
        Kind::Raw => ("raw", plain(Arc::new(RawFile::new(again()?).map_err(io)?))),
        Kind::Lzop => ("lzop", plain(Arc::new(lzop::Seekable::open(again()?).map_err(|e| io(e.into()))?))),
        Kind::Gzip => ("gzip", one_way()?),
        Kind::Xz => ("xz", one_way()?),
        Kind::Bzip2 => ("bzip2", one_way()?),
        Kind::Lzw => ("compress", one_way()?),
        Kind::Zstd => {
            let ours = first_side_tag(file).map_err(io)? == Some(map::HEADER);
            let seekable = match Seekable::open(again()?) {
                Ok(None) | Err(_) if ours => Ok(Some(without_its_end(path, file)?)),
                seekable => seekable,
            };
            match seekable {
                Ok(Some(s)) => match Map::open(s, path)? {
                    Ok(map) => ("map", Access::Mapped(map)),
                    Err(s) => ("zstd", Access::Random(RandomAccess::Frames(Arc::new(s)))),
                },
                _ => {
                    no_less_and_no_more(path, frames(file).map_err(io)?)?;
                    ("zstd", one_way()?)
                }
            }
        }
    })
}

/// Refuses a zstd file that lacks its end, or has something else behind it.
fn no_less_and_no_more(path: &Path, frames: Frames) -> Result<(), Error> {
    let problem = match frames {
        Frames::Whole => return Ok(()),
        Frames::Cut(0) => {
            BaseProblem::Damaged("its zstd frame is not complete: the file is cut short".into())
        }
        Frames::Cut(at) => BaseProblem::Damaged(format!(
            "its last zstd frame, which begins behind {at} bytes, is not complete: the file is cut short, or a part of \
             another was appended"
        )),
        Frames::Behind(end) => BaseProblem::Behind { what: "bytes that are no zstd frame", end },
    };
    Err(Error::base(path, problem))
}

/// Opens a full backup that was written with a map, but does not end in its seek table.
///
/// # Errors
/// Fails unless only skippable frames follow the seek table; the error says what is wrong.
fn without_its_end(path: &Path, file: &File) -> Result<Seekable, Error> {
    let io = |source| Error::base(path, BaseProblem::Io(source));
    let damaged = |found: String| Error::base(path, BaseProblem::Damaged(found));
    match end(file).map_err(io)? {
        End::Missing => Err(damaged(
            "it was written with a map, but the map's end is missing: the file is cut short".into(),
        )),
        End::Table(end) => Seekable::open_until(file.try_clone().map_err(io)?, end)
            .map_err(|e| damaged(e.to_string()))?
            .ok_or_else(|| damaged("its seek table is of no use".into())),
        End::More(end) => {
            let what = "more zstd data, as if another file had been appended";
            Err(Error::base(path, BaseProblem::Behind { what, end }))
        }
        End::Other(end) => {
            let what = "bytes that are no whole zstd frame";
            Err(Error::base(path, BaseProblem::Behind { what, end }))
        }
    }
}

/// Computes the checksum of the first bytes of the content, and tells what the content is. A stream is then at its start
/// again.
fn head(access: &mut Access) -> io::Result<([u8; 16], Nature)> {
    let at_front = |content: RandomAccess| {
        let mut bytes = vec![0; content.size().min(HEAD as u64) as usize];
        content.reader(ReadOptions::default()).read_at(0, &mut bytes).map(|()| bytes)
    };
    let bytes = match access {
        Access::Mapped(map) => at_front(RandomAccess::Frames(map.file().clone()))?,
        Access::Random(content) => at_front(content.clone())?,
        Access::OneWay(OneWay { stream, .. }) => {
            let mut bytes = vec![0; HEAD];
            let n = container::read_full(stream, &mut bytes)?;
            bytes.truncate(n);
            put_back(stream, bytes.clone());
            bytes
        }
    };
    Ok((checksum(&bytes).to_le_bytes(), Nature::of(&bytes)))
}

/// Computes a checksum of the file's size and of samples of it. The first and the last bytes are among the samples.
fn sample(file: &File) -> io::Result<[u8; 16]> {
    // Metadata would say 0 for a block device.
    let size = io::Seek::seek(&mut &*file, io::SeekFrom::End(0))?;
    let mut all = size.to_le_bytes().to_vec();
    let mut buf = [0; SAMPLE];
    let last = size.saturating_sub(SAMPLE as u64);
    for n in 0..SAMPLES {
        let at = (u128::from(last) * u128::from(n) / u128::from(SAMPLES - 1)) as u64;
        let len = SAMPLE.min((size - at) as usize);
        file.read_exact_at(&mut buf[..len], at)?;
        all.extend(&buf[..len]);
    }
    Ok(checksum(&all).to_le_bytes())
}
