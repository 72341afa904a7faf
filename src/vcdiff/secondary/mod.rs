//! Secondary compression of a window's sections (RFC 3284 section 4.3), as xdelta3 does it: a compressed section is its
//! uncompressed size as an integer, then the bytes of the compressor.

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
    /// All three sections.
    pub const ALL: [Section; 3] = [Section::Data, Section::Inst, Section::Addr];

    /// The bit of the delta indicator that says that it is compressed.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether the delta indicator says that it is compressed.
    pub fn is_in(self, indicator: u8) -> bool {
        indicator & self.bit() != 0
    }

    /// Its name for messages.
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
    Fgk(Box<[fgk::Tree; 3]>),
}

impl Decoder {
    pub(super) fn new(kind: Secondary) -> Self {
        Decoder(match kind {
            Secondary::Djw => State::Djw,
            Secondary::Lzma => State::Lzma(Box::default()),
            Secondary::Fgk => State::Fgk(Box::new(std::array::from_fn(|_| fgk::Tree::new()))),
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

    /// Learns from a section that was stored as it is.
    pub(super) fn uncompressed(&mut self, section: Section, bytes: &[u8]) {
        if let State::Fgk(trees) = &mut self.0
            && bytes.len() >= MIN_INPUT
        {
            trees[section as usize].learn(bytes);
        }
    }
}

/// A section of fewer bytes is left as it is, as in xdelta3.
const MIN_INPUT: usize = 10;
/// How many bytes DJW must save; otherwise the section is left as it is.
const MIN_SAVING: usize = 3;

/// Compresses the sections of one delta, in order.
pub struct Encoder(Method);

enum Method {
    Djw { sections: &'static [Section] },
    Lzma(Box<lzma::Encoder>),
    Fgk(Box<[fgk::Tree; 3]>),
}

impl Encoder {
    /// Makes an LZMA compressor with a preset of xz, 0 to 9 (more is taken for 9).
    pub fn lzma(level: u32) -> Self {
        Encoder(Method::Lzma(Box::new(lzma::Encoder::new(level))))
    }

    /// Makes a DJW compressor. The level decides which sections are compressed, as in xdelta3: from 1 on data, from 3 on
    /// instructions, from 5 on addresses. (From 7 on, xdelta3 also uses several code tables; we always use one.)
    pub fn djw(level: u32) -> Self {
        Encoder(Method::Djw {
            sections: match level {
                0 => &[],
                1..=2 => &[Section::Data],
                3..=4 => &[Section::Data, Section::Inst],
                _ => &Section::ALL,
            },
        })
    }

    /// Makes an FGK compressor.
    pub fn fgk() -> Self {
        Encoder(Method::Fgk(Box::new(std::array::from_fn(|_| fgk::Tree::new()))))
    }

    /// The compressor that the file header must name.
    pub fn kind(&self) -> Secondary {
        match self.0 {
            Method::Djw { .. } => Secondary::Djw,
            Method::Lzma(_) => Secondary::Lzma,
            Method::Fgk(_) => Secondary::Fgk,
        }
    }

    /// Compresses a section; `None` where it is to be left as it is.
    pub(super) fn encode(&mut self, section: Section, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() < MIN_INPUT {
            return None;
        }
        let mut out = Vec::new();
        varint::write(&mut out, bytes.len() as u64);
        match &mut self.0 {
            Method::Djw { sections } => {
                if !sections.contains(&section) {
                    return None;
                }
                out.extend(djw::encode(bytes));
                (out.len() + MIN_SAVING <= bytes.len()).then_some(out)
            }
            Method::Lzma(lzma) => {
                lzma.encode(section, bytes, &mut out);
                Some(out)
            }
            Method::Fgk(trees) => {
                out.extend(trees[section as usize].encode(bytes)?);
                Some(out)
            }
        }
    }
}
