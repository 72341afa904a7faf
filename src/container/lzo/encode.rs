//! A fast LZO1X encoder: one probe of one hash table per position.
//!
//! The table holds positions modulo 65536. Nothing has to be cleared as the window slides, because an
//! entry only counts if the four bytes there are equal, and 16 bits tell every distance the format can
//! express (at most 49151) apart. Where nothing matches, the step between probes grows, so
//! incompressible data passes quickly.
//!
//! Measured on a tar of programs and text and not kept: growing matches backwards (1.4 % smaller, 8 %
//! slower), a table of 2^14 entries (1 % smaller, 10 % slower), hashing four bytes (slower at equal size),
//! choosing between the forms of a copy without branches (9 % slower), unchecked access (no faster).

use super::{END_MARK, MAX_DISTANCE, MIDDLE_DISTANCE, NEAR_DISTANCE};

/// The table has 2 to the power of this entries. 2^13 entries of 2 bytes stay in the first-level cache.
const TABLE_BITS: u32 = 13;
/// Probes stop so many bytes before the end, so that neither they nor wide copies of literals can reach behind it.
const TAIL: usize = 16;
/// After 2^5 probes in vain the step grows by one byte, and so on.
const PATIENCE: u32 = 5;
/// The shortest copy. Five bytes are hashed, so most copies of this length are not found. They hardly pay.
const MIN_MATCH: usize = 4;

/// The most bytes that [`Encoder::compress`] can write for `len` bytes of input.
///
/// A long run of literals adds one byte in 255. Each copy is shorter than what it replaces. Wide copies want some room behind
/// what they write.
pub const fn max_compressed_len(len: usize) -> usize {
    len + len / 64 + 64
}

/// The encoder's table. It is kept over many blocks; what is in it does not change the output of a block.
pub struct Encoder {
    table: Box<[u16; 1 << TABLE_BITS]>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// Makes an empty table, which takes 16 KiB.
    pub fn new() -> Self {
        Self { table: Box::new([0; 1 << TABLE_BITS]) }
    }

    /// Compresses `src` as one LZO1X block into the start of `dst` and returns its length.
    ///
    /// # Panics
    /// If `dst` is shorter than [`max_compressed_len`] of `src.len()`.
    pub fn compress(&mut self, src: &[u8], dst: &mut [u8]) -> usize {
        assert!(dst.len() >= max_compressed_len(src.len()), "output buffer too short for LZO1X");
        self.table.fill(0);
        let table = &mut *self.table;
        let mut out = Output { dst, op: 0 };
        let mut anchor = 0; // first byte not yet coded
        if src.len() > TAIL {
            let limit = src.len() - TAIL;
            let mut ip = 1;
            let mut probes = 1 << PATIENCE;
            while ip < limit {
                let value = load64(src, ip);
                let slot = &mut table[hash(value)];
                let distance = usize::from((ip as u16).wrapping_sub(*slot));
                *slot = ip as u16;
                let old = ip.wrapping_sub(distance);
                // The first test fails for a distance of 0 and for one that reaches before the start.
                if old >= ip || load32(src, old) != value as u32 || distance > MAX_DISTANCE {
                    ip += probes >> PATIENCE;
                    probes += 1;
                    continue;
                }
                let end = ip + MIN_MATCH + common(src, ip + MIN_MATCH, distance);
                out.literals(src, anchor, ip);
                out.copy(end - ip, distance);
                (ip, anchor) = (end, end);
                probes = 1 << PATIENCE;
                if ip < limit {
                    table[hash(load64(src, ip - 2))] = (ip - 2) as u16;
                }
            }
        }
        out.literals(src, anchor, src.len());
        out.bytes(&END_MARK);
        out.op
    }
}

#[inline(always)]
fn load32(src: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*src[at..].first_chunk().expect("four bytes before the tail"))
}

#[inline(always)]
fn load64(src: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*src[at..].first_chunk().expect("eight bytes before the tail"))
}

/// Hashes the low five bytes.
#[inline(always)]
fn hash(value: u64) -> usize {
    ((value << 24).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - TABLE_BITS)) as usize
}

/// Counts the bytes from `from` on that equal those `distance` bytes before them.
#[inline(always)]
fn common(src: &[u8], from: usize, distance: usize) -> usize {
    let mut at = from;
    while at + 8 <= src.len() {
        let differ = load64(src, at) ^ load64(src, at - distance);
        if differ != 0 {
            return at - from + (differ.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < src.len() && src[at] == src[at - distance] {
        at += 1;
    }
    at - from
}

/// The block that is being written.
struct Output<'a> {
    dst: &'a mut [u8],
    op: usize,
}

impl Output<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.dst[self.op..self.op + N].copy_from_slice(bytes);
        self.op += N;
    }

    /// Writes `src[from..to]` as literals. Up to 3 literals become a part of the copy before them, more become a run.
    #[inline(always)]
    fn literals(&mut self, src: &[u8], from: usize, to: usize) {
        let count = to - from;
        if count == 0 {
            return;
        }
        if self.op == 0 && count <= 238 {
            self.bytes(&[count as u8 + 17]);
        } else if count <= 3 {
            // All copies keep their S bits in the last byte but one.
            self.dst[self.op - 2] |= count as u8;
        } else if count <= 18 {
            self.bytes(&[count as u8 - 3]);
        } else {
            self.bytes(&[0]);
            self.long_length(count - 18);
        }
        let to_end = &mut self.dst[self.op..];
        if count <= 16
            && let (Some(wide), Some(room)) =
                (src[from..].first_chunk::<16>(), to_end.first_chunk_mut::<16>())
        {
            *room = *wide;
        } else {
            to_end[..count].copy_from_slice(&src[from..to]);
        }
        self.op += count;
    }

    /// Writes a copy in its shortest form.
    #[inline(always)]
    fn copy(&mut self, len: usize, distance: usize) {
        if len <= 8 && distance <= NEAR_DISTANCE {
            let d = distance - 1;
            self.bytes(&[((len - 1) << 5 | (d & 7) << 2) as u8, (d >> 3) as u8]);
            return;
        }
        let (marker, bits, d) = if distance <= MIDDLE_DISTANCE {
            (32, 31, distance - 1)
        } else {
            let d = distance - 16384;
            (16 | (d >> 11) & 8, 7, d & 0x3fff)
        };
        if len - 2 <= bits {
            self.bytes(&[(marker | (len - 2)) as u8]);
        } else {
            self.bytes(&[marker as u8]);
            self.long_length(len - 2 - bits);
        }
        self.bytes(&((d << 2) as u16).to_le_bytes());
    }

    /// Writes the further bytes of a length. `rest` is at least 1.
    fn long_length(&mut self, rest: usize) {
        let zeros = (rest - 1) / 255;
        self.dst[self.op..self.op + zeros].fill(0);
        self.op += zeros;
        self.bytes(&[(rest - zeros * 255) as u8]);
    }
}
