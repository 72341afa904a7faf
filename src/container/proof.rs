//! Tells whether a compressed file has checksums of its content.

use std::fs::File;
use std::io;

use super::Kind;
use super::lzop;
use super::skim::read_full_at;

/// The magic number of skippable zstd frames, whose last half byte is anything.
const SKIPPABLE: u32 = 0x184d_2a50;
/// The most skippable frames that are passed over.
const MAX_SKIPPED: usize = 64;
/// The bit of a frame's descriptor that tells that a checksum stands at its end (RFC 8878, 3.1.1.1.1).
const ZSTD_CHECKSUM: u8 = 1 << 2;

/// Whether damage to a file shows when it is decompressed: zstd, lzop and xz have checksums only where their writer wanted them,
/// and what is not compressed has none. The first frame or member stands for all.
///
/// # Errors
/// Those of reading.
pub fn has_checksums(file: &File) -> io::Result<bool> {
    let mut front = [0; 9];
    let n = read_full_at(file, &mut front, 0)?;
    Ok(match Kind::detect(&front[..n]) {
        Kind::Raw | Kind::Lzw => false,
        Kind::Gzip | Kind::Bzip2 => true,
        // The second byte of the stream's flags: the kind of its checks, 0 for none.
        Kind::Xz => front[7] & 0x0f != 0,
        Kind::Lzop => lzop::has_checksums(file)?,
        Kind::Zstd => {
            let mut at = 0;
            for _ in 0..MAX_SKIPPED {
                let mut head = [0; 8];
                if read_full_at(file, &mut head, at)? < head.len() {
                    return Ok(false);
                }
                if le32(&head) & !0xf != SKIPPABLE {
                    return Ok(head[4] & ZSTD_CHECKSUM != 0);
                }
                at += head.len() as u64 + u64::from(le32(&head[4..]));
            }
            false
        }
    })
}

fn le32(b: &[u8]) -> u32 {
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::container::{Compression, encoder};

    fn told(bytes: &[u8]) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        has_checksums(&file).unwrap()
    }

    #[test]
    fn what_has_checksums_is_told_by_its_front() {
        for (how, expected) in [
            (Compression::None, false),
            (Compression::Zstd(3), true),
            (Compression::Lzo, true),
            (Compression::Gzip(6), true),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut out = encoder(Box::new(file.reopen().unwrap()), how, 1).unwrap();
            out.write_all(b"content").unwrap();
            out.finish().unwrap();
            assert_eq!(told(&std::fs::read(file.path()).unwrap()), expected, "{how:?}");
        }
        let mut plain = zstd::bulk::Compressor::new(1).unwrap();
        let without = plain.compress(b"content").unwrap();
        plain.include_checksum(true).unwrap();
        let with = plain.compress(b"content").unwrap();
        let skipped = [&b"\x5f\x2a\x4d\x18\x03\0\0\0abc"[..], &with].concat();
        assert_eq!(
            [told(&without), told(&with), told(&skipped), told(&skipped[..11])],
            [false, true, true, false]
        );
        let xz = |check| {
            let mut out = liblzma::write::XzEncoder::new_stream(
                Vec::new(),
                liblzma::stream::Stream::new_easy_encoder(1, check).unwrap(),
            );
            out.write_all(b"content").unwrap();
            told(&out.finish().unwrap())
        };
        assert_eq!([liblzma::stream::Check::None, liblzma::stream::Check::Crc32].map(xz), [false, true]);
    }
}
