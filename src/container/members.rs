//! Compressed files of several members, one behind the other, and what may follow the last one.
//!
//! The rules are those of `gzip -dc` and `bzip2 -dc`. Zeros behind gzip data are padding, and anything else there is garbage.
//! Whatever follows bzip2 data and is no further stream is ignored. What begins like a member is one, so a member that was cut
//! short is an error, never the end. With [`Behind::Refuse`], nothing at all may follow.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::{Behind, XZ_MEMORY, ZSTD_WINDOW_LOG_MAX, seekable};

/// Decompresses all members.
pub struct Members<R: BufRead, M> {
    at: At<R, M>,
    behind: Behind,
    /// The error that was met. It is returned again when asked again; a decompressor would say that its member is over.
    failure: Option<(io::ErrorKind, String)>,
}

/// Where the input is.
enum At<R, M> {
    /// It is at the first member, behind a member, or behind all of them.
    Between(Peek<R>),
    /// It is within this member.
    In(M),
    /// It is at the end, or there was an error.
    End,
}

/// The decompressor of one member.
pub trait Member<R>: Read + Sized {
    /// Begins a member; `input` is at its start.
    ///
    /// # Errors
    /// Fails where the decompressor cannot be set up.
    fn begin(input: Peek<R>) -> io::Result<Self>;

    /// Returns the input, which is behind the member.
    fn end(self) -> Peek<R>;

    /// Tells whether a member follows.
    ///
    /// # Errors
    /// Fails where the input cannot be read, and where something follows that is not allowed.
    fn follows(input: &mut Peek<R>, behind: Behind) -> io::Result<bool>;
}

impl<R: BufRead, M: Member<R>> Members<R, M> {
    /// Reads from `input`, which is at the start of the first member.
    pub fn new(input: R, behind: Behind) -> Self {
        let input = Peek { input, held: Vec::new(), offset: 0 };
        Members { at: At::Between(input), behind, failure: None }
    }

    fn advance(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let At::In(member) = &mut self.at {
                let n = member.read(buf)?;
                if n > 0 {
                    return Ok(n);
                }
            }
            self.at = match std::mem::replace(&mut self.at, At::End) {
                At::In(member) => At::Between(member.end()),
                At::Between(mut input) => match M::follows(&mut input, self.behind)? {
                    true => At::In(M::begin(input)?),
                    false => At::End,
                },
                At::End => return Ok(0),
            };
        }
    }
}

impl<R: BufRead, M: Member<R>> Read for Members<R, M> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if let Some((kind, text)) = &self.failure {
            return Err(io::Error::new(*kind, text.clone()));
        }
        let result = self.advance(buf);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.failure = Some((error.kind(), error.to_string()));
        }
        result
    }
}

impl<R: BufRead> Member<R> for GzDecoder<Peek<R>> {
    fn begin(input: Peek<R>) -> io::Result<Self> {
        Ok(GzDecoder::new(input))
    }

    fn end(self) -> Peek<R> {
        self.into_inner()
    }

    fn follows(input: &mut Peek<R>, behind: Behind) -> io::Result<bool> {
        if input.begins(&[0x1f, 0x8b])? {
            return Ok(true);
        }
        if behind == Behind::Refuse {
            return input.end("gzip");
        }
        loop {
            match input.peek(1)? {
                [] => return Ok(false),
                [0] => input.consume(1),
                _ => {
                    let what = format!(
                        "garbage behind the compressed data, at offset {}: remove what follows the gzip data",
                        input.offset
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
    }
}

impl<R: BufRead> Member<R> for BzDecoder<Peek<R>> {
    fn begin(input: Peek<R>) -> io::Result<Self> {
        Ok(BzDecoder::new(input))
    }

    fn end(self) -> Peek<R> {
        self.into_inner()
    }

    fn follows(input: &mut Peek<R>, behind: Behind) -> io::Result<bool> {
        let level = input.peek(4)?.get(3).copied();
        let member = input.begins(b"BZh")? && level.is_none_or(|level| matches!(level, b'1'..=b'9'));
        match behind {
            Behind::Refuse if !member => input.end("bzip2"),
            _ => Ok(member),
        }
    }
}

/// This is for [`Behind::Refuse`], so nothing may follow. Otherwise liblzma itself reads xz files of several streams, with
/// padding between and behind them.
impl<R: BufRead> Member<R> for XzDecoder<Peek<R>> {
    fn begin(input: Peek<R>) -> io::Result<Self> {
        Ok(XzDecoder::new_stream(input, Stream::new_stream_decoder(XZ_MEMORY, 0)?))
    }

    fn end(self) -> Peek<R> {
        self.into_inner()
    }

    fn follows(input: &mut Peek<R>, _: Behind) -> io::Result<bool> {
        if input.begins(b"\xfd7zXZ\0")? { Ok(true) } else { input.end("xz") }
    }
}

/// This is for [`Behind::Refuse`], so nothing may follow, and skippable frames are refused too. Only those that are made from
/// the content are allowed: a map of ours, and a seek table. Otherwise libzstd itself reads zstd files of several frames, and
/// skips the skippable ones.
impl<R: BufRead> Member<R> for ZstdDecoder<'static, Peek<R>> {
    fn begin(input: Peek<R>) -> io::Result<Self> {
        let mut decoder = ZstdDecoder::with_buffer(input)?.single_frame();
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Ok(decoder)
    }

    fn end(self) -> Peek<R> {
        self.finish()
    }

    fn follows(input: &mut Peek<R>, _: Behind) -> io::Result<bool> {
        let magic = zstd::zstd_safe::MAGICNUMBER.to_le_bytes();
        if input.begins(&magic)? || seekable::is_derived(input.peek(seekable::DERIVED_LEN)?) {
            return Ok(true);
        }
        input.end("zstd")
    }
}

/// An input whose next bytes can be looked at.
pub struct Peek<R> {
    input: R,
    /// Bytes that were looked at and not consumed yet.
    held: Vec<u8>,
    offset: u64,
}

impl<R: BufRead> Peek<R> {
    /// Returns the next `len` bytes without consuming them; fewer only where the input ends.
    fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        let missing = len.saturating_sub(self.held.len()) as u64;
        self.input.by_ref().take(missing).read_to_end(&mut self.held)?;
        Ok(&self.held[..len.min(self.held.len())])
    }

    /// Tells whether `magic` follows, or the front of it and then the end.
    fn begins(&mut self, magic: &[u8]) -> io::Result<bool> {
        let found = self.peek(magic.len())?;
        Ok(!found.is_empty() && magic.starts_with(found))
    }

    /// Refuses what follows. The result is false where nothing follows.
    fn end(&mut self, kind: &str) -> io::Result<bool> {
        if self.peek(1)?.is_empty() {
            return Ok(false);
        }
        Err(super::behind(kind, self.offset))
    }
}

impl<R: BufRead> Read for Peek<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Peek<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.held.is_empty() { self.input.fill_buf() } else { Ok(&self.held) }
    }

    fn consume(&mut self, count: usize) {
        self.offset += count as u64;
        match self.held.is_empty() {
            true => self.input.consume(count),
            false => drop(self.held.drain(..count)),
        }
    }
}

/// All members of gzip data.
pub type Gzip<R> = Members<BufReader<R>, GzDecoder<Peek<BufReader<R>>>>;
/// All streams of bzip2 data.
pub type Bzip2<R> = Members<BufReader<R>, BzDecoder<Peek<BufReader<R>>>>;
/// All streams of xz data, and nothing behind or between them.
pub type Xz<R> = Members<BufReader<R>, XzDecoder<Peek<BufReader<R>>>>;
/// All frames of zstd data, and nothing behind or between them.
pub type Zstd<R> = Members<BufReader<R>, ZstdDecoder<'static, Peek<BufReader<R>>>>;

#[cfg(test)]
mod tests {
    use super::super::{Kind, decoder};
    use super::*;
    use std::io::Write;

    const CONTENT: &[u8] = b"what the file holds, and holds, and holds";

    fn packed(kind: Kind) -> Vec<u8> {
        match kind {
            Kind::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                gzip.write_all(CONTENT).unwrap();
                gzip.finish().unwrap()
            }
            _ => {
                let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
                bzip2.write_all(CONTENT).unwrap();
                bzip2.finish().unwrap()
            }
        }
    }

    /// What is read, in small pieces as a pipe gives them, and the error it ends in.
    fn read(bytes: Vec<u8>) -> (Vec<u8>, Option<String>) {
        struct Pieces(io::Cursor<Vec<u8>>);
        impl Read for Pieces {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let n = buf.len().min(3);
                self.0.read(&mut buf[..n])
            }
        }
        let mut content = Vec::new();
        let mut stream = decoder(Box::new(Pieces(io::Cursor::new(bytes)))).unwrap().1;
        let error = stream.read_to_end(&mut content).err();
        if error.is_some() {
            assert!(stream.read(&mut [0; 8]).is_err(), "an error is an error when asked again, too");
        }
        (content, error.map(|e| e.to_string()))
    }

    #[test]
    fn padding_is_passed_over_and_garbage_is_named() {
        let gzip = packed(Kind::Gzip);
        for zeros in [0, 1, 2, 5000] {
            assert_eq!(read([&gzip[..], &vec![0; zeros]].concat()), (CONTENT.to_vec(), None), "{zeros}");
        }
        for (behind, at) in [(&b"garbage"[..], 0), (b"\0\0\0x", 3), (b"\x1fx", 0), (b"\0\x1f\x8b", 1)] {
            let (content, error) = read([&gzip[..], behind].concat());
            let error = error.unwrap();
            assert_eq!(content, CONTENT);
            assert!(
                error
                    .contains(&format!("garbage behind the compressed data, at offset {}:", gzip.len() + at))
            );
        }
        let bzip2 = packed(Kind::Bzip2);
        for behind in [&b""[..], b"\0\0\0\0\0\0", b"garbage", b"BX", b"BZhx and more", &[0; 9000]] {
            assert_eq!(read([&bzip2[..], behind].concat()), (CONTENT.to_vec(), None), "{behind:?}");
        }
    }

    #[test]
    fn no_member_that_was_cut_short_is_complete() {
        for kind in [Kind::Gzip, Kind::Bzip2] {
            let one = packed(kind);
            let two = [&one[..], &one[..]].concat();
            assert_eq!(read(two.clone()), (CONTENT.repeat(2), None));
            for len in (9..two.len()).filter(|&len| len != one.len()) {
                assert!(read(two[..len].to_vec()).1.is_some(), "{kind}: {len}");
                // Zeros in place of what is missing do not help, unless zeros are what is missing; that `B` and zeros
                // are no further stream is bzip2's own rule.
                let end = if len < one.len() { one.len() } else { two.len() };
                let begun = kind == Kind::Bzip2 && (one.len()..one.len() + 4).contains(&len);
                if !begun && two[len..end].iter().any(|&b| b != 0) {
                    let filled = [&two[..len], &[0; 600]].concat();
                    assert!(read(filled).1.is_some(), "{kind}: {len} and zeros");
                }
            }
        }
    }
}
