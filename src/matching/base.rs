//! The base: a full backup as the encoder and the decoder see it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::map::{self, Map};
use super::print::checksum;
use super::{BaseProblem, Error};
use crate::container::seekable::{End, Seekable, end, first_side_tag, is_whole};
use crate::container::source::{self, Found, Pass, Refused};
use crate::container::{self, Kind, RawFile, ReadAt, lzop};
use crate::text::shown_bytes;
use crate::vcdiff::{AppHeader, MAGIC};

/// Bytes at the front of the content that stand for it where the file's form changed.
const HEAD: usize = 64 << 10;
/// Places of a file without a map that are looked at, and how much there.
const SAMPLES: u64 = 32;
const SAMPLE: usize = 4 << 10;

/// How the content lies in the file.
pub enum Content {
    /// A full backup with a map of ours.
    Mapped(Arc<Map>),
    /// Readable at any place: raw, lzop, zstd with a seek table.
    Random(Arc<dyn ReadAt>),
    /// Readable from the front only: zstd without a seek table, gzip, xz, bzip2, compress.
    Stream(Box<dyn Read + Send>),
}

impl Content {
    /// All of it, if that is no more than `limit` bytes. A stream that is longer goes on from its start; one that cannot
    /// be read to its end gives what could be, and the error.
    pub(super) fn all(&mut self, limit: usize) -> Option<(Vec<u8>, Option<io::Error>)> {
        let mut bytes = Vec::new();
        match self {
            Content::Mapped(_) => None,
            Content::Random(content) => {
                let len = usize::try_from(content.size()).ok().filter(|len| *len <= limit)?;
                bytes.resize(len, 0);
                content.read_at(0, &mut bytes).ok().map(|()| (bytes, None))
            }
            Content::Stream(stream) => match stream.by_ref().take(limit as u64 + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() > limit => {
                    let rest = std::mem::replace(stream, Box::new(io::empty()));
                    *stream = Box::new(io::Cursor::new(bytes).chain(rest));
                    None
                }
                read => Some((bytes, read.err())),
            },
        }
    }
}

/// An opened base.
pub struct Base {
    /// Where it was found.
    pub path: PathBuf,
    /// `map`, or the name of the compression: the form the identity stands for.
    pub form: &'static str,
    /// What tells it from every other file, cheaply: the identity of its map, or its size and samples of it.
    pub identity: [u8; 16],
    /// Checksum of the first bytes of the content, whatever the form.
    pub head: [u8; 16],
    /// The content.
    pub content: Content,
    pub(super) nature: Nature,
    /// The file, to be read once more; none where it can be read only once.
    file: Option<File>,
}

/// What a differential's header tells of its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It was made against this one.
    Content,
    /// A name alone, and it is this one's. So the archives of pve-patches (2013 to 2021) were made.
    Name,
    /// Nothing that could be compared.
    None,
}

/// What a base was when it was opened, to tell later whether it still is.
pub struct Witness {
    path: PathBuf,
    found: Found,
    form: &'static str,
    identity: [u8; 16],
    file: Option<FileId>,
}

/// A file, whatever its name: device, number and length.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64, u64);

impl Witness {
    /// Refuses a base that is no longer there, or no longer what it was: what was made against it could not be
    /// restored. A copy in its place will do where its map proves that it holds the same.
    ///
    /// # Errors
    /// [`BaseProblem::Changed`].
    pub fn still_there(&self) -> Result<(), Error> {
        let changed = |what: String| Err(Error::base(&self.path, BaseProblem::Changed(what)));
        match Base::open_found(&self.path, self.found) {
            Err(Error::Base { problem: BaseProblem::Io(e), .. }) if e.kind() == io::ErrorKind::NotFound => {
                changed("was removed or renamed".into())
            }
            Err(Error::Base { problem, .. }) => changed(format!("was cut short or replaced (it {problem})")),
            Err(e) => changed(format!("became unreadable ({e})")),
            Ok(now) if now.form != self.form || now.identity != self.identity => {
                changed("was replaced or overwritten".into())
            }
            Ok(now) if now.file_id() != self.file && !matches!(now.content, Content::Mapped(_)) => {
                changed("was replaced by another file".into())
            }
            Ok(_) => Ok(()),
        }
    }
}

/// What content is, by its first bytes.
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
    /// Tells it by the first bytes; 512 of them suffice.
    pub fn of(bytes: &[u8]) -> Nature {
        match bytes {
            _ if bytes.starts_with(&MAGIC) => Nature::Differential,
            [b'V', b'M', b'A', 0, ..] => Nature::Vma,
            _ if bytes.get(257..262) == Some(b"ustar") => Nature::Tar,
            _ => Nature::Other,
        }
    }
}

impl Base {
    /// Opens a file that a person named, and finds out what it is.
    ///
    /// # Errors
    /// Where it is missing, unreadable, empty, not what [`source::open`] opens, cut short or damaged as far as
    /// that shows without reading all of it.
    pub fn open(path: &Path) -> Result<Base, Error> {
        Base::open_found(path, Found::ByPerson)
    }

    /// Opens a file that was found in this way, and finds out what it is.
    ///
    /// # Errors
    /// As [`Base::open`].
    pub fn open_found(path: &Path, found: Found) -> Result<Base, Error> {
        Base::open_as(path, found, None)
    }

    /// Opens a file as it is, compressed or not.
    ///
    /// # Errors
    /// As [`Base::open`].
    pub fn open_raw(path: &Path) -> Result<Base, Error> {
        Base::open_as(path, Found::ByPerson, Some(Kind::Raw))
    }

    /// The form of what [`Base::open_once`] opens.
    pub const ONCE: &'static str = "pipe";

    /// Opens what can be read only once, from its start: a FIFO, which waits for its writer. It may be compressed
    /// if `decompress`. There is nothing to tell it by but how it begins.
    ///
    /// # Errors
    /// Where it is missing, unreadable, or does not start as its compression wants it.
    pub fn open_once(path: &Path, decompress: bool) -> Result<Base, Error> {
        let io = |source| Error::base(path, BaseProblem::Io(source));
        let file = File::open(path).map_err(io)?;
        let mut content =
            if decompress { stream(file).map_err(io)? } else { Content::Stream(Box::new(file)) };
        let (head, nature) = head(&mut content).map_err(io)?;
        Ok(Base {
            path: path.to_owned(),
            form: Base::ONCE,
            identity: head,
            head,
            content,
            nature,
            file: None,
        })
    }

    fn open_as(path: &Path, found: Found, kind: Option<Kind>) -> Result<Base, Error> {
        let io = |source| Error::base(path, BaseProblem::Io(source));
        let file = source::open(path, found).map_err(|refused| match refused {
            Refused::Io(source) => io(source),
            refused => Error::base(path, BaseProblem::Refused(refused)),
        })?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_file() && metadata.len() == 0 {
            return Err(Error::base(path, BaseProblem::Empty));
        }
        let mut prefix = Vec::new();
        Pass::from_start(&file).and_then(|pass| pass.take(9).read_to_end(&mut prefix)).map_err(io)?;
        let kind = kind.unwrap_or_else(|| Kind::detect(&prefix));
        let (form, mut content) = Base::content(path, &file, kind)?;
        let (head, nature) = head(&mut content).map_err(io)?;
        let identity = match &content {
            Content::Mapped(map) => map.identity(),
            _ => sample(&file).map_err(io)?,
        };
        Ok(Base { path: path.to_owned(), form, identity, head, content, nature, file: Some(file) })
    }

    fn content(path: &Path, file: &File, kind: Kind) -> Result<(&'static str, Content), Error> {
        let io = |source| Error::base(path, BaseProblem::Io(source));
        let again = || file.try_clone().map_err(io);
        let stream = || Pass::from_start(file).and_then(stream).map_err(io);
        Ok(match kind {
            Kind::Raw => ("raw", Content::Random(Arc::new(RawFile::new(again()?).map_err(io)?))),
            Kind::Lzop => {
                ("lzop", Content::Random(Arc::new(lzop::Seekable::open(again()?).map_err(|e| io(e.into()))?)))
            }
            Kind::Gzip => ("gzip", stream()?),
            Kind::Xz => ("xz", stream()?),
            Kind::Bzip2 => ("bzip2", stream()?),
            Kind::Lzw => ("compress", stream()?),
            Kind::Zstd => {
                let ours = first_side_tag(file).map_err(io)? == Some(map::HEADER);
                let seekable = match Seekable::open(again()?) {
                    Ok(None) | Err(_) if ours => Ok(Some(Base::with_map(path, file)?)),
                    seekable => seekable,
                };
                match seekable {
                    Ok(Some(s)) => match Map::open(s, path)? {
                        Ok(map) => ("map", Content::Mapped(Arc::new(map))),
                        Err(s) => ("zstd", Content::Random(Arc::new(s))),
                    },
                    _ if !is_whole(file).map_err(io)? => {
                        let found = "its last zstd frame is not complete: the file is cut short";
                        return Err(Error::base(path, BaseProblem::Damaged(found.into())));
                    }
                    _ => ("zstd", stream()?),
                }
            }
        })
    }

    /// Opens a full backup that was written with a map, but does not end in its seek table.
    fn with_map(path: &Path, file: &File) -> Result<Seekable, Error> {
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

    /// What the base is now, see [`Witness::still_there`]; `found` is how it was opened.
    pub fn witness(&self, found: Found) -> Witness {
        let (path, file) = (self.path.clone(), self.file_id());
        Witness { path, found, form: self.form, identity: self.identity, file }
    }

    fn file_id(&self) -> Option<FileId> {
        let metadata = self.file.as_ref()?.metadata().ok()?;
        Some(FileId(metadata.dev(), metadata.ino(), metadata.len()))
    }

    /// Refuses a differential as a full backup. xdelta3's command line has its sources: it takes any file.
    ///
    /// # Errors
    /// [`BaseProblem::Differential`] where it is one.
    pub fn full(self) -> Result<Base, Error> {
        match self.nature == Nature::Differential {
            true => Err(Error::base(&self.path, BaseProblem::Differential)),
            false => Ok(self),
        }
    }

    /// The content from its start, once more, undecompressed; `None` where it can be read only once.
    ///
    /// # Errors
    /// Those of duplicating the file.
    pub fn again(&self) -> io::Result<Option<Pass>> {
        self.file.as_ref().map(Pass::from_start).transpose()
    }

    /// Length of the content, where it is known without reading all of it.
    pub fn size(&self) -> Option<u64> {
        match &self.content {
            Content::Mapped(map) => Some(map.size()),
            Content::Random(r) => Some(r.size()),
            Content::Stream(_) => None,
        }
    }

    /// What a differential's header says of this base.
    pub fn describe(&self, header: &mut AppHeader) {
        header.base_name = self.path.file_name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
        header.base_len = self.size();
        header.base_identity = Some(self.identity);
        header.base_head = Some(self.head);
        header.base_form = Some(self.form.into());
    }

    /// Whether a differential with this header was made against this base, as far as its header tells.
    ///
    /// In the form it had, the file must be the same; compressed anew since, its content must begin
    /// alike and be as long.
    ///
    /// # Errors
    /// [`BaseProblem::Other`] where it was not.
    pub fn check(&self, header: &AppHeader) -> Result<Proof, Error> {
        let other = |what: &str| {
            let name = shown_bytes(&header.base_name);
            Err(Error::base(&self.path, BaseProblem::Other { name, what: what.into() }))
        };
        match header.base_identity {
            Some(id) if header.base_form.as_deref() == Some(self.form) => {
                return if id == self.identity { Ok(Proof::Content) } else { other("its identity differs") };
            }
            _ => {}
        }
        match (header.base_head, header.base_len, self.size()) {
            (Some(head), ..) if head != self.head => other("it begins differently"),
            (_, Some(then), Some(now)) if then != now => {
                other(&format!("it holds {now} bytes, the full backup held {then}"))
            }
            (Some(_), ..) => Ok(Proof::Content),
            _ => Ok(self.proof_by_name(header)),
        }
    }

    /// Compressed anew, a full backup keeps its name but for the last part.
    fn proof_by_name(&self, header: &AppHeader) -> Proof {
        let plain = |name: &[u8]| {
            let compressed = [&b".zst"[..], b".lzo", b".gz", b".xz"];
            compressed.iter().find_map(|end| name.strip_suffix(*end)).map_or_else(
                || name.strip_suffix(b".tgz").map_or_else(|| name.to_vec(), |stem| [stem, b".tar"].concat()),
                <[u8]>::to_vec,
            )
        };
        let is_theirs = header.base_identity.is_none() && !header.base_name.is_empty() && !header.end_record;
        match self.path.file_name() {
            Some(name) if is_theirs && plain(name.as_bytes()) == plain(&header.base_name) => Proof::Name,
            _ => Proof::None,
        }
    }
}

impl Base {
    /// Whether this is known to be the base of a differential with this header, so that another file of the same content
    /// can go: what [`Base::check`] does not see is no proof.
    ///
    /// # Errors
    /// As [`Base::check`]; [`BaseProblem::Unproved`].
    pub fn prove(&self, header: &AppHeader) -> Result<(), Error> {
        self.check(header)?;
        let same_file = header.base_form.as_deref() == Some(self.form) && header.base_identity.is_some();
        let same_content = header.base_head.is_some() && header.base_len.is_some() && self.size().is_some();
        match (same_file || same_content) && !header.damaged {
            true => Ok(()),
            false => Err(Error::base(&self.path, BaseProblem::Unproved)),
        }
    }
}

fn stream(file: impl Read + Send + 'static) -> io::Result<Content> {
    Ok(Content::Stream(container::decoder(Box::new(file))?.1))
}

/// Checksum of the first bytes, and what they are.
fn head(content: &mut Content) -> io::Result<([u8; 16], Nature)> {
    let mut bytes = vec![0; HEAD];
    let at_front = |source: &dyn ReadAt, bytes: &mut Vec<u8>| {
        bytes.truncate(source.size().min(HEAD as u64) as usize);
        source.read_at(0, bytes)
    };
    match content {
        Content::Mapped(map) => at_front(map.as_ref(), &mut bytes)?,
        Content::Random(source) => at_front(source.as_ref(), &mut bytes)?,
        Content::Stream(stream) => {
            let n = container::read_full(stream, &mut bytes)?;
            bytes.truncate(n);
            let rest = std::mem::replace(stream, Box::new(io::empty()));
            *stream = Box::new(io::Cursor::new(bytes.clone()).chain(rest));
        }
    }
    Ok((checksum(&bytes).to_le_bytes(), Nature::of(&bytes)))
}

/// Checksum of the file's size and of samples, the first and the last bytes among them.
fn sample(file: &File) -> io::Result<[u8; 16]> {
    // Not from the metadata, which says 0 for a block device.
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
