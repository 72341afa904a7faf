//! The end record: length and hash of the whole target, readable by stock xdelta3.
//!
//! VCDIFF has no end mark: a delta that is cut between two windows is a valid delta of a shorter target.
//! So ours end in one more window, of target length 0. RFC 3284 does not forbid a RUN of size 0; it writes
//! nothing but uses up one byte of the data section. As many such RUNs as there are payload bytes make a
//! window that carries any payload and that xdelta3 (3.0.11 and 3.2) and HDiffPatch decode to nothing. A
//! segment with telling numbers in its position would do too, but not for a delta without a source, and
//! HDiffPatch refuses segments that lie outside the source.
//!
//! What xdelta3 (3.0.11) cannot do with it is to `merge`: "offset mismatch".
//!
//! ```text
//! version 1: "E1", length of the target (varint), XXH3-128 [16] of the target
//! version 2: "E2", length of the target (varint), XXH3-128 [16] of the delta before this window, identity [16] of the base
//! ```
//! Version 2 is for deltas whose target nobody has seen as a whole: what they copy is proved by the base's own
//! checksums, and most of their windows have none. Programs that know version 1 only take it for an
//! empty window, and complain of a delta without an end, since the header announces one.

use twox_hash::XxHash3_128;

use super::{Error, Result, Window, varint};

/// The first bytes of the payload, because other windows may write nothing too: with the hash of the target, and with the hash
/// of the delta itself.
const OF_TARGET: &[u8] = b"E1";
const OF_DELTA: &[u8] = b"E2";

/// Proves that a delta is complete, and what it restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndRecord {
    /// Length of the whole target in bytes.
    pub total_len: u64,
    /// XXH3-128 (seed 0) of the whole target, or of the delta before its end, in canonical (big-endian) order.
    pub hash: [u8; 16],
    /// Identity of the base, where the hash is that of the delta (version 2).
    pub base: Option<[u8; 16]>,
}

impl EndRecord {
    /// Makes the window that is appended behind the last one.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // It is kept short, because every byte of it takes three bytes in the file.
        let mut payload = if self.base.is_some() { OF_DELTA } else { OF_TARGET }.to_vec();
        varint::write(&mut payload, self.total_len);
        payload.extend_from_slice(&self.hash);
        payload.extend(self.base.iter().flatten());
        // This is the Adler-32 of nothing. If it was missing, xdelta3's recode would write that of the window before.
        Window { inst: vec![0; 2 * payload.len()], data: payload, adler32: Some(1), ..Window::default() }
            .encode(None, &mut out);
        out
    }

    /// Makes what is appended to a delta of `windows` windows, which has an end record or not. Every decoder refuses a delta
    /// without any window, as if it was cut short. So an empty target gets a window, as xdelta3 writes it.
    pub fn ending(record: Option<&EndRecord>, windows: u64, checksums: bool) -> Vec<u8> {
        let mut out = record.map(EndRecord::encode).unwrap_or_default();
        if out.is_empty() && windows == 0 {
            // This is the Adler-32 of nothing.
            Window { adler32: checksums.then_some(1), ..Window::default() }.encode(None, &mut out);
        }
        out
    }

    /// Reads the end record from `window`, if it is one.
    pub(super) fn from_window(window: &Window) -> Option<Self> {
        // Its instructions are one RUN of size 0 for each byte.
        let is_end = window.target_len == 0
            && window.source.is_none()
            && window.adler32.is_none_or(|sum| sum == 1)
            && window.inst.len() == 2 * window.data.len()
            && window.inst.iter().all(|&b| b == 0);
        let of_delta = window.data.starts_with(OF_DELTA);
        let mut payload = window.data.strip_prefix(if of_delta { OF_DELTA } else { OF_TARGET })?;
        let total_len = varint::read(&mut payload).ok()?;
        let (hash, base) = payload.split_first_chunk()?;
        let base = if of_delta { Some(base.try_into().ok()?) } else { None };
        (is_end && (of_delta || payload.len() == hash.len())).then_some(EndRecord {
            total_len,
            hash: *hash,
            base,
        })
    }

    /// Compares the record with what was really restored. If the hash is that of the delta, the reader has compared it already.
    ///
    /// # Errors
    /// [`Error::WrongTarget`] if they differ.
    pub fn check(&self, restored: &EndRecord) -> Result<()> {
        match () {
            () if self.total_len != restored.total_len => {
                Err(Error::WrongTarget { what: "its length differs from the end record" })
            }
            () if self.base.is_none() && self.hash != restored.hash => {
                Err(Error::WrongTarget { what: "its hash differs from the end record" })
            }
            () => Ok(()),
        }
    }
}

/// Computes the hash of version 2: that of a delta's bytes, from its first on.
#[derive(Clone, Default)]
pub struct DeltaHasher(XxHash3_128);

impl DeltaHasher {
    /// Takes the next bytes of the delta.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Of all bytes so far.
    pub fn finish(&self) -> [u8; 16] {
        self.0.finish_128().to_be_bytes()
    }
}

/// Computes the [`EndRecord`] of a target that passes by.
#[derive(Clone, Default)]
pub struct TargetHasher {
    hash: XxHash3_128,
    len: u64,
}

impl TargetHasher {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the target.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.write(bytes);
        self.len += bytes.len() as u64;
    }

    /// Takes the next bytes of the target, and returns their Adler-32. Both are computed while the bytes are in the
    /// processor's cache.
    pub fn update_and_sum(&mut self, bytes: &[u8]) -> u32 {
        let mut adler = simd_adler32::Adler32::new();
        self.update_with(bytes, &mut adler);
        adler.finish()
    }

    /// Takes the next bytes of the target, for this checksum too.
    pub fn update_with(&mut self, bytes: &[u8], adler: &mut simd_adler32::Adler32) {
        const PART: usize = 128 << 10;
        for part in bytes.chunks(PART) {
            self.update(part);
            adler.write(part);
        }
    }

    /// Makes the record of all bytes so far.
    pub fn finish(&self) -> EndRecord {
        EndRecord { total_len: self.len, hash: self.hash.finish_128().to_be_bytes(), base: None }
    }
}
