//! Compresses a decoded target in the way in which the encoded one was compressed.

use std::io::{self, Write};
use std::mem::ManuallyDrop;

use crate::container::{self, Compression, Encoder, Kind, lzw};

/// Makes a compressor that writes into `out`. If the level is not known, it is the default of the program that xdelta3
/// would run.
pub fn writer(out: Box<dyn Write + Send>, how: Option<(Kind, Option<u32>)>) -> io::Result<Box<dyn Encoder>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (kind, level) = how.unwrap_or((Kind::Raw, None));
    let how = match kind {
        Kind::Raw => Compression::None,
        Kind::Zstd => Compression::Zstd(3),
        Kind::Lzop => Compression::Lzo,
        Kind::Gzip => Compression::Gzip(level.unwrap_or(6)),
        Kind::Xz => return Ok(Undropped::boxed(liblzma::write::XzEncoder::new(out, level.unwrap_or(6)))),
        Kind::Bzip2 => {
            let level = bzip2::Compression::new(level.unwrap_or(9));
            return Ok(Undropped::boxed(bzip2::write::BzEncoder::new(out, level)));
        }
        Kind::Lzw => return Ok(Undropped::boxed(lzw::Writer::new(out))),
    };
    container::encoder(out, how, threads)
}

/// A writer that is never dropped, as dropping it would write the end mark of an incomplete output.
struct Undropped<W>(ManuallyDrop<W>);

/// Ends a compressed output, and returns the writer below it.
trait Finish: Write + Send {
    fn finish(self) -> io::Result<Box<dyn Write + Send>>;
}

impl<W: Finish + 'static> Undropped<W> {
    fn boxed(writer: W) -> Box<dyn Encoder> {
        Box::new(Undropped(ManuallyDrop::new(writer)))
    }
}

impl<W: Finish> Write for Undropped<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Finish> Encoder for Undropped<W> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        ManuallyDrop::into_inner(self.0).finish()?.flush()
    }
}

impl Finish for liblzma::write::XzEncoder<Box<dyn Write + Send>> {
    fn finish(self) -> io::Result<Box<dyn Write + Send>> {
        liblzma::write::XzEncoder::finish(self)
    }
}

impl Finish for bzip2::write::BzEncoder<Box<dyn Write + Send>> {
    fn finish(self) -> io::Result<Box<dyn Write + Send>> {
        bzip2::write::BzEncoder::finish(self)
    }
}

impl Finish for lzw::Writer<Box<dyn Write + Send>> {
    fn finish(self) -> io::Result<Box<dyn Write + Send>> {
        lzw::Writer::finish(self)
    }
}
