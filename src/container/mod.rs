//! Compressed files: zstd (with or without a seek table), lzop, gzip, xz, bzip2, `.Z` and raw. They are told apart by
//! content, never by name.
//!
//! * [`source`] opens files of storages that others can write to.
//! * A stream is decompressed by [`decoder`]. Each format has its module; `members` reads formats whose files may consist
//!   of several compressed streams.
//! * Content that can be read at any position is a [`ReadAt`]. [`RandomAccess`] stands for a file of such content: zstd
//!   with a seek table ([`seekable`]), [`lzop`], or [`RawFile`]. Decompressed parts are kept in a [`cache`].
//! * A stream is compressed by an [`Encoder`]. Several threads may do that (`workers`): `ordered` takes their results in order,
//!   and `blocks` is the common part of encoders that write block by block.
//!
//! * Whether damage to a file shows at all is told by [`has_checksums`].
//! * What is left of a damaged file is handed out in pieces by [`salvage`].
//!
//! Anything that is cut short or damaged ends in an error, as far as the format lets one see it.

mod blocks;
pub mod cache;
mod extent;
pub mod gzip;
pub mod lzo;
pub mod lzop;
pub mod lzw;
mod members;
mod ordered;
mod proof;
mod random_access;
mod read_at;
pub mod salvage;
pub mod seekable;
mod skim;
mod skip;
pub mod source;
pub(crate) mod workers;
mod zst;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};

pub use extent::Extent;
pub use proof::has_checksums;
pub use random_access::{RandomAccess, RandomReader};
pub use read_at::{RawFile, ReadAt, Sequential, Sparse};
pub use skip::{ByReading, Skip};

/// The largest zstd window that is accepted, as a power of 2: 128 MiB, as `zstd -d` accepts by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The most memory in bytes that an xz stream may ask of its reader. It is enough for `xz -9`.
const XZ_MEMORY: u64 = 128 << 20;

/// Threads that decompress an lzop stream. With two of them it is read faster than it can be used.
const LZOP_READERS: usize = 2;

/// What a file is compressed with, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not compressed, or with something that we do not know.
    Raw,
    /// zstd frames (RFC 8878), or a skippable frame that may precede them.
    Zstd,
    /// An lzop file.
    Lzop,
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// bzip2.
    Bzip2,
    /// A file of the `compress` program (`.Z`).
    Lzw,
}

impl Kind {
    /// Tells the kind by the first bytes of a file; 9 bytes suffice.
    pub fn detect(prefix: &[u8]) -> Kind {
        match prefix {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Kind::Zstd,
            [b, 0x2a, 0x4d, 0x18, ..] if b & 0xf0 == 0x50 => Kind::Zstd,
            [0x1f, 0x8b, 0x08, ..] => Kind::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Kind::Xz,
            [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a, ..] => Kind::Lzop,
            // Behind the level comes the mark of the first block, or, in an empty stream, the mark of the end.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, ..] => Kind::Bzip2,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, ..] => Kind::Bzip2,
            _ if lzw::is_lzw(prefix) => Kind::Lzw,
            _ => Kind::Raw,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Raw => "raw",
            Kind::Zstd => "zstd",
            Kind::Lzop => "lzop",
            Kind::Gzip => "gzip",
            Kind::Xz => "xz",
            Kind::Bzip2 => "bzip2",
            Kind::Lzw => "compress",
        })
    }
}

/// Tells the length of a file's content in bytes, where that needs no reading of all of it: the file is not compressed, or
/// is zstd with a seek table.
pub fn content_size(path: &std::path::Path) -> Option<u64> {
    // Asked before opening: to open a FIFO would wait for its writer.
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut file = File::open(path).ok()?;
    let mut prefix = [0; 9];
    let n = read_full(&mut file, &mut prefix).ok()?;
    match Kind::detect(&prefix[..n]) {
        Kind::Raw => Some(metadata.len()),
        Kind::Zstd => Some(seekable::Seekable::open(file).ok()??.size()),
        _ => None,
    }
}

/// Fills `buf` from `reader`, as far as there are bytes. The result is the number of bytes that were read.
///
/// # Errors
/// Those of `reader`; interrupted reads are tried again.
pub fn read_full(reader: &mut (impl Read + ?Sized), buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// A reader of what a function returns, part by part. An empty part is the end.
pub struct Parts<F> {
    next: F,
    part: io::Cursor<Vec<u8>>,
}

impl<F: FnMut() -> io::Result<Vec<u8>>> Parts<F> {
    /// Calls `next` whenever the last part is used up, also after the end and after errors.
    pub fn new(next: F) -> Parts<F> {
        Parts { next, part: io::Cursor::default() }
    }
}

impl<F: FnMut() -> io::Result<Vec<u8>>> Read for Parts<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.part.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            self.part = io::Cursor::new((self.next)()?);
            if self.part.get_ref().is_empty() {
                return Ok(0);
            }
        }
    }
}

/// What a decoder does about bytes behind the end of the compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// It ignores them where the format's own program does so.
    Pass,
    /// It fails, even where they are zeros: whoever compresses the content again would lose them.
    Refuse,
}

/// Makes the error of [`Behind::Refuse`].
fn behind(kind: impl fmt::Display, offset: u64) -> io::Error {
    let what = format!(
        "at offset {offset} there is something that is no {kind} data, and would be lost where the file is compressed \
         again"
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Decompresses a stream, whatever it is compressed with. The result also tells what that is.
///
/// # Errors
/// Fails where the first bytes cannot be read, or the decompressor cannot be set up.
pub fn decoder(input: Box<dyn Read + Send>) -> io::Result<(Kind, Box<dyn Read + Send>)> {
    decoder_with(input, Behind::Pass)
}

/// As [`decoder`]; `behind` decides about bytes behind the compressed data.
///
/// # Errors
/// As [`decoder`].
pub fn decoder_with(
    mut input: Box<dyn Read + Send>,
    behind: Behind,
) -> io::Result<(Kind, Box<dyn Read + Send>)> {
    let mut prefix = [0; 9];
    let n = read_full(&mut input, &mut prefix)?;
    let kind = Kind::detect(&prefix[..n]);
    let whole = io::Cursor::new(prefix[..n].to_vec()).chain(input);
    let stream: Box<dyn Read + Send> = match kind {
        Kind::Raw => Box::new(whole),
        Kind::Zstd if behind == Behind::Refuse => {
            Box::new(members::Zstd::new(io::BufReader::new(whole), behind))
        }
        Kind::Zstd => {
            let mut d = zstd::stream::read::Decoder::new(whole)?;
            d.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(d)
        }
        Kind::Lzop => Box::new(lzop::Reader::new(whole, LZOP_READERS).behind(behind)),
        Kind::Gzip => Box::new(members::Gzip::new(io::BufReader::new(whole), behind)),
        Kind::Xz if behind == Behind::Refuse => Box::new(members::Xz::new(io::BufReader::new(whole), behind)),
        Kind::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::read::XzDecoder::new_stream(whole, stream))
        }
        Kind::Bzip2 => Box::new(members::Bzip2::new(io::BufReader::new(whole), behind)),
        Kind::Lzw => Box::new(lzw::Reader::new(whole, behind)),
    };
    Ok((kind, stream))
}

/// How an output is to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd at a level (1 to 19).
    Zstd(i32),
    /// lzop as `lzop` does by default.
    Lzo,
    /// gzip at a level (1 to 9).
    Gzip(u32),
}

/// A compressor. Its output is complete only after [`Encoder::finish`]. If it is dropped before, every decompressor refuses
/// what it wrote, so that half an output never passes for a whole one.
pub trait Encoder: Write + Send {
    /// Writes what is left and the end mark, and flushes the output.
    ///
    /// # Errors
    /// Fails where the output cannot be written.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// The first so many bytes of a differential are compressed by one zstd thread alone.
const SMALL: u64 = 256 << 20;

/// Makes a compressor that writes to `out` and uses up to `threads` threads.
///
/// # Errors
/// Fails where the compressor cannot be set up.
pub fn encoder(out: Box<dyn Write + Send>, how: Compression, threads: usize) -> io::Result<Box<dyn Encoder>> {
    encoder_behind(0, out, how, threads)
}

/// As [`encoder`], for a stream that is rarely large and has an end mark of its own: with zstd the output is smaller, and
/// takes less memory to make.
///
/// # Errors
/// As [`encoder`].
pub fn small_encoder(
    out: Box<dyn Write + Send>,
    how: Compression,
    threads: usize,
) -> io::Result<Box<dyn Encoder>> {
    encoder_behind(SMALL, out, how, threads)
}

/// As [`encoder`]; with zstd, a single thread compresses the first `alone` bytes.
fn encoder_behind(
    alone: u64,
    out: Box<dyn Write + Send>,
    how: Compression,
    threads: usize,
) -> io::Result<Box<dyn Encoder>> {
    Ok(match how {
        Compression::None => Box::new(Plain(out)),
        Compression::Zstd(level) => Box::new(zst::Writer::new(out, level, threads, alone)?),
        Compression::Lzo => Box::new(lzop::Writer::new(out, threads)),
        Compression::Gzip(level) => Box::new(gzip::Writer::new(out, level, threads)),
    })
}

/// Writes without compression.
struct Plain(Box<dyn Write + Send>);

impl Write for Plain {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Encoder for Plain {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write + Send> Encoder for lzop::Writer<W> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        lzop::Writer::finish(*self)?.flush()
    }
}

impl<W: Write + Send> Encoder for gzip::Writer<W> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        gzip::Writer::finish(*self)?.flush()
    }
}
