//! Secondary compression of a window's sections (RFC 3284 section 4.3), as xdelta3 does it: a compressed
//! section is the uncompressed size as an integer, then the compressor's bytes.

mod bits;
mod djw;
mod fgk;
mod lzma;

use super::{Secondary, varint};

/// The three sections of a window, in the order they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Bytes of ADDs and RUNs.
    Data = 0,
    /// Opcodes and sizes.
    Inst = 1,
    /// Addresses of COPYs.
    Addr = 2,
}

impl Section {
    /// All three.
    pub const ALL: [Section; 3] = [Section::Data, Section::Inst, Section::Addr];

    /// Bit of the delta indicator that says it is compressed.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether the delta indicator says so.
    pub fn is_in(self, indicator: u8) -> bool {
        indicator & self.bit() != 0
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Section::Data => "a data section",
            Section::Inst => "an instruction section",
            Section::Addr => "an address section",
        }
    }
}

/// Decompresses the sections of one delta, in order.
pub(super) struct Decoder(State);

enum State {
    Djw,
    Lzma(Box<lzma::Decoder>),
    Fgk(Box<[fgk::Decoder; 3]>),
}

impl Decoder {
    pub(super) fn new(kind: Secondary) -> Self {
        Decoder(match kind {
            Secondary::Djw => State::Djw,
            Secondary::Lzma => State::Lzma(Box::default()),
            Secondary::Fgk => State::Fgk(Box::new(std::array::from_fn(|_| fgk::Decoder::new()))),
        })
    }

    /// Decompresses one section to at most `limit` bytes.
    pub(super) fn decode(
        &mut self,
        section: Section,
        mut bytes: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, &'static str> {
        let size = varint::read(&mut bytes).map_err(|_| "a compressed section has no valid size")?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size == 0 || size > limit {
            return Err("a compressed section decompresses to nothing or too much");
        }
        match &mut self.0 {
            State::Djw => djw::decode(bytes, size),
            State::Lzma(lzma) => lzma.decode(section, bytes, size),
            State::Fgk(trees) => trees[section as usize].decode(bytes, size),
        }
    }

    /// Takes note of a section that was stored as it is.
    pub(super) fn uncompressed(&mut self, section: Section, bytes: &[u8]) {
        if let State::Fgk(trees) = &mut self.0
            && bytes.len() >= MIN_INPUT
        {
            trees[section as usize].learn(bytes);
        }
    }
}

/// Compresses the sections of one delta, in order.
pub struct Encoder {
    lzma: lzma::Encoder,
}

/// A section shorter than this is left as it is, as in xdelta3.
const MIN_INPUT: usize = 10;

impl Encoder {
    /// LZMA with the presets of xz, 0 to 9 (more is taken for 9).
    pub fn lzma(level: u32) -> Self {
        Encoder { lzma: lzma::Encoder::new(level) }
    }

    /// The compressed form of a section, or `None` to leave it as it is.
    pub(super) fn encode(&mut self, section: Section, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() < MIN_INPUT {
            return None;
        }
        let mut out = Vec::new();
        varint::write(&mut out, bytes.len() as u64);
        self.lzma.encode(section, bytes, &mut out);
        Some(out)
    }
}
