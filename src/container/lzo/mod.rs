//! LZO1X: the byte-oriented LZ77 code inside `.lzo` files.
//!
//! One code serves all levels of the `lzop` program; levels differ only in how hard the encoder
//! searches. [`decompress`] reads every LZO1X stream, [`compress`] writes one quickly (the class of
//! LZO1X-1). Both work on whole blocks in memory; the file format around them is
//! [`lzop`](super::lzop).
//!
//! The stream has no formal specification. What is implemented here is the public description
//! "LZO stream format as understood by Linux's LZO decompressor" (`lzo.rst` of the Linux
//! documentation), version 0, in our own words:
//!
//! | first byte of instruction | further bytes | meaning |
//! |---|---|---|
//! | `0000LLLL`, after no literals | length | literal run of 3 + L (0: 18 and more) bytes |
//! | `0000DDSS`, after 1..=3 literals | H | copy 2, distance 1 + D + 4H |
//! | `0000DDSS`, after a literal run | H | copy 3, distance 2049 + D + 4H |
//! | `0001HLLL` | length, LE16 `D..DSS` | copy 2 + L (0: 9 and more), distance 16384 + 16384H + D; 16384 ends the stream |
//! | `001LLLLL` | length, LE16 `D..DSS` | copy 2 + L (0: 33 and more), distance 1 + D |
//! | `LLLDDDSS`, L >= 2 | H | copy 1 + L, distance 1 + D + 8H |
//!
//! `S` is the number of literals (0..=3) that follow the copy at once. A length that does not fit goes
//! on in further bytes: each zero byte adds 255, the first other byte adds itself and ends it. Only
//! the first byte of a stream may also be 18..=255: that many less 17 literals come first.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decompress;
pub use encode::{Encoder, max_compressed_len};

/// Why a stream is not valid LZO1X. Offsets are in bytes of the compressed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input stopped in the middle of an instruction or without the end mark.
    #[error("compressed data ends at byte {at} without an end mark")]
    InputEnds {
        /// Length of the input.
        at: usize,
    },
    /// An instruction writes past the declared length.
    #[error("compressed data yields more than the {len} bytes announced (instruction at byte {at})")]
    OutputFull {
        /// Where the instruction starts.
        at: usize,
        /// Length of the output buffer.
        len: usize,
    },
    /// A copy refers to data before the start of the block.
    #[error("copy from {distance} bytes back where only {available} exist (instruction at byte {at})")]
    Distance {
        /// Where the instruction starts.
        at: usize,
        /// Distance asked for.
        distance: usize,
        /// Bytes written so far.
        available: usize,
    },
    /// The end mark is not the last thing of the block.
    #[error("compressed data goes on after its end mark at byte {at}")]
    Trailing {
        /// Where the first byte behind the end mark is.
        at: usize,
    },
}

/// Longest copy distance any instruction can express.
const MAX_DISTANCE: usize = 16384 + 16384 + 16383;
/// Longest distance of the two-byte copy instructions (lengths 3..=8).
const NEAR_DISTANCE: usize = 2048;
/// Longest distance of the `001LLLLL` instruction.
const MIDDLE_DISTANCE: usize = 16384;
/// The end mark: a copy of distance 16384.
const END_MARK: [u8; 3] = [0x11, 0, 0];
