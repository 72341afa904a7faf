//! Compressed files: zstd (seekable), lzop, gzip, xz, bzip2, `.Z` and raw, told apart by content, never by name.
//!
//! One way to read a stream ([`decoder`]), one to read at random places ([`ReadAt`]), one to write
//! ([`Encoder`]). Anything cut short or damaged ends in an error, as far as the format lets one see it.

mod blocks;
pub mod cache;
pub mod gzip;
pub mod lzo;
pub mod lzop;
pub mod lzw;
mod members;
mod ordered;
pub mod seekable;
mod skim;
pub mod source;
mod zst;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

pub use seekable::Near;

/// Largest zstd window that a reader accepts, as `zstd -d` does by default: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Memory an xz stream may ask of its reader: enough for `xz -9`.
const XZ_MEMORY: u64 = 128 << 20;

/// Threads that decompress an lzop stream: it is read faster than it can be used then.
const LZOP_READERS: usize = 2;

/// What a file is compressed with, found by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not compressed, or with nothing we know.
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
    /// Tells the kind by the first bytes of a file; 9 of them suffice.
    pub fn detect(prefix: &[u8]) -> Kind {
        match prefix {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Kind::Zstd,
            [b, 0x2a, 0x4d, 0x18, ..] if b & 0xf0 == 0x50 => Kind::Zstd,
            [0x1f, 0x8b, 0x08, ..] => Kind::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Kind::Xz,
            [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a, ..] => Kind::Lzop,
            // The mark of a first block, or of the end where there is none.
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

/// Length of a file's content, where the file tells without being read: one that is not compressed, and zstd with a seek
/// table.
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

/// Content that can be read at any place, by several threads at once.
pub trait ReadAt: Send + Sync {
    /// Length of the content, uncompressed, in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` with the content from `pos` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the content ends before; `InvalidData` where it is damaged.
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()>;

    /// As [`ReadAt::read_at`], for whoever reads many places close to one another, one after the other; `near` is his
    /// alone.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    fn read_near(&self, pos: u64, buf: &mut [u8], near: &mut Near) -> io::Result<()> {
        let _ = near;
        self.read_at(pos, buf)
    }

    /// Number of the part that has this place and is decompressed from its front; where there are none such, of its MiB.
    fn part_at(&self, pos: u64) -> u64 {
        pos >> 20
    }

    /// Changes how many bytes of decompressed content may be kept.
    fn keep(&self, bytes: usize) {
        let _ = bytes;
    }

    /// Tells beforehand that `turn` will read these places and lengths; turns come in order. Who keeps
    /// decompressed content keeps what is read soonest. Without it everything is read right, only slower.
    fn expect(&self, turn: u64, ranges: &[(u64, u64)]) {
        let _ = (turn, ranges);
    }

    /// Tells that this turn and those before it are over.
    fn passed(&self, turn: u64) {
        let _ = turn;
    }

    /// From now on the reader checks what he makes of the content: checksums in the file need not be
    /// verified too. If his check fails, [`ReadAt::verify`] tells whether the file is to blame.
    fn trust(&self) {}

    /// From now on no more of a part is decompressed than is read of it. Its checksum, which comes last, is verified
    /// only where all of it is.
    fn fronts(&self) {}

    /// Verifies the checksums of what holds this range.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    fn verify(&self, pos: u64, len: u64) -> io::Result<()> {
        let _ = (pos, len);
        Ok(())
    }
}

/// No content at all.
pub struct Nothing;

impl ReadAt for Nothing {
    fn size(&self) -> u64 {
        0
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// An uncompressed file.
pub struct RawFile {
    file: File,
    size: u64,
}

impl RawFile {
    /// Takes a regular file or a block device.
    ///
    /// # Errors
    /// Those of asking for the file's size.
    pub fn new(file: File) -> io::Result<RawFile> {
        // Not from the metadata, which says 0 for a block device.
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(RawFile { file, size })
    }
}

impl ReadAt for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, pos)
    }
}

/// Reads as many bytes as there are, up to the length of `buf`.
///
/// # Errors
/// Those of `reader`, apart from interruptions.
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

/// Reads what a function gives, part by part; an empty part is the end.
pub struct Parts<F> {
    next: F,
    part: io::Cursor<Vec<u8>>,
}

impl<F: FnMut() -> io::Result<Vec<u8>>> Parts<F> {
    /// Asks `next` for a part whenever the last one is used up, after the end and after errors too.
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

/// What is done about bytes behind the end of compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// They are passed over where the format's own program does so.
    Pass,
    /// They are an error, also where they are zeros: whoever compresses the content again would lose them.
    Refuse,
}

/// The error of [`Behind::Refuse`].
fn behind(kind: impl fmt::Display, offset: u64) -> io::Error {
    let what = format!(
        "at offset {offset} there is something that is no {kind} data, and would be lost where the file is compressed \
         again"
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Decompresses a stream, whatever it is compressed with; also tells what that is.
///
/// # Errors
/// Those of reading the first bytes, and of setting up the decompressor.
pub fn decoder(input: Box<dyn Read + Send>) -> io::Result<(Kind, Box<dyn Read + Send>)> {
    decoder_with(input, Behind::Pass)
}

/// As [`decoder`]; `behind` tells what may follow the compressed data.
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

/// A compressor. What was written is complete only after [`Encoder::finish`]: dropped before, it
/// leaves a file that every decompressor refuses, so that half an output never passes for a whole one.
pub trait Encoder: Write + Send {
    /// Writes what is left and the end mark, and flushes the output.
    ///
    /// # Errors
    /// Those of the output.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Bytes of a differential that zstd compresses with one thread before others help.
const SMALL: u64 = 256 << 20;

/// Compresses into `out`, with up to `threads` threads.
///
/// # Errors
/// Those of setting up the compressor.
pub fn encoder(out: Box<dyn Write + Send>, how: Compression, threads: usize) -> io::Result<Box<dyn Encoder>> {
    encoder_behind(0, out, how, threads)
}

/// As [`encoder`], for a stream that is rarely large and has an end mark of its own: zstd makes it smaller, and takes
/// less memory.
///
/// # Errors
/// Those of setting up the compressor.
pub fn small_encoder(
    out: Box<dyn Write + Send>,
    how: Compression,
    threads: usize,
) -> io::Result<Box<dyn Encoder>> {
    encoder_behind(SMALL, out, how, threads)
}

/// With zstd one thread compresses the first `alone` bytes.
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

impl ReadAt for lzop::Seekable {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        lzop::Seekable::read_at(self, pos, buf)
    }
}
