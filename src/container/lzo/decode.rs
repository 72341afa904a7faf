//! The LZO1X decoder: one instruction per turn of one loop.
//!
//! Speed comes from copying more than asked for: a literal run or copy of up to 16 bytes is moved as
//! 16 bytes and what is too much is overwritten by the next instruction. That is only done while
//! [`SLACK`] bytes are left on both sides; near the ends the same loop copies exactly.

use super::Error;

/// How much room lets a short instruction be done with copies of a fixed size: 16 bytes for a copy or a run, and up to 3
/// literals, which are moved as 4 bytes.
const SLACK: usize = 20;

/// What the previous instruction was. It changes the meaning of `0000xxxx`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A copy without literals behind it, or there was no instruction yet.
    Copy,
    /// A copy followed by 1..=3 literals.
    FewLiterals,
    /// A literal run.
    Run,
}

/// Decompresses one LZO1X block into `dst` and returns how many bytes it gave.
///
/// `dst` is the room that there is; normally it has exactly the length that the container announces. A shorter result is no
/// error here, so the caller must compare. Bytes of `dst` behind the result may have been overwritten.
///
/// # Errors
/// Any input is safe. Whatever is no complete, valid stream that ends with `src` is refused, with the offset of the wrong
/// instruction.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> Result<usize, Error> {
    let mut ip = 0;
    let mut op = 0;
    let mut before = Before::Copy;

    // Only the first byte of a stream may announce a run in this form.
    if let Some(&first) = src.first().filter(|&&b| b > 17) {
        ip = 1;
        let count = usize::from(first) - 17;
        copy_run(src, &mut ip, dst, &mut op, count, 0)?;
        before = if count < 4 { Before::FewLiterals } else { Before::Run };
    }

    loop {
        let at = ip;
        let token = byte(src, &mut ip)?;
        let t = usize::from(token);
        let (len, distance, literals);
        if t >= 64 {
            let high = usize::from(byte(src, &mut ip)?);
            len = (t >> 5) + 1;
            distance = (high << 3) + ((t >> 2) & 7) + 1;
            literals = t & 3;
        } else if t >= 16 {
            let bits = if t >= 32 { 31 } else { 7 };
            let short = t & bits;
            len = if short != 0 { short } else { long_length(src, &mut ip, bits)? } + 2;
            let word = word(src, &mut ip)?;
            literals = word & 3;
            if t >= 32 {
                distance = (word >> 2) + 1;
            } else {
                let beyond = ((t & 8) << 11) + (word >> 2);
                if beyond == 0 {
                    return if ip == src.len() { Ok(op) } else { Err(Error::Trailing { at: ip }) };
                }
                distance = beyond + 16384;
            }
        } else if before == Before::Copy {
            let count = if t != 0 { t } else { long_length(src, &mut ip, 15)? } + 3;
            copy_run(src, &mut ip, dst, &mut op, count, at)?;
            before = Before::Run;
            continue;
        } else {
            let near = (usize::from(byte(src, &mut ip)?) << 2) + (t >> 2);
            (len, distance) = if before == Before::Run { (3, near + 2049) } else { (2, near + 1) };
            literals = t & 3;
        }

        let Some(from) = op.checked_sub(distance) else {
            return Err(Error::Distance { at, distance, available: op });
        };
        if len <= 16 && distance >= 16 && dst.len() - op >= SLACK && src.len() - ip >= 4 {
            dst.copy_within(from..from + 16, op);
            op += len;
            dst[op..op + 4].copy_from_slice(&src[ip..ip + 4]);
        } else {
            if dst.len() - op < len + literals {
                return Err(Error::OutputFull { at, len: dst.len() });
            }
            copy_back(dst, from, op, len);
            op += len;
            if src.len() - ip < literals {
                return Err(Error::InputEnds { at: src.len() });
            }
            dst[op..op + literals].copy_from_slice(&src[ip..ip + literals]);
        }
        ip += literals;
        op += literals;
        before = if literals == 0 { Before::Copy } else { Before::FewLiterals };
    }
}

/// Takes one byte of input.
#[inline(always)]
fn byte(src: &[u8], ip: &mut usize) -> Result<u8, Error> {
    let b = *src.get(*ip).ok_or(Error::InputEnds { at: src.len() })?;
    *ip += 1;
    Ok(b)
}

/// Takes one little-endian 16-bit word of input.
#[inline(always)]
fn word(src: &[u8], ip: &mut usize) -> Result<usize, Error> {
    let pair = src.get(*ip..).and_then(|s| s.first_chunk::<2>()).ok_or(Error::InputEnds { at: src.len() })?;
    *ip += 2;
    Ok(usize::from(u16::from_le_bytes(*pair)))
}

/// Takes the further bytes of a length whose bits in the instruction were all zero. The sum cannot overflow, because it is at
/// most 255 times the length of the input.
#[cold]
fn long_length(src: &[u8], ip: &mut usize, base: usize) -> Result<usize, Error> {
    let zeros = src[*ip..].iter().take_while(|&&b| b == 0).count();
    *ip += zeros;
    let last = byte(src, ip)?;
    Ok(base + zeros * 255 + usize::from(last))
}

/// Copies `count` literals from the input to the output.
#[inline(always)]
fn copy_run(
    src: &[u8],
    ip: &mut usize,
    dst: &mut [u8],
    op: &mut usize,
    count: usize,
    at: usize,
) -> Result<(), Error> {
    let capacity = dst.len();
    let (from, to) = (&src[*ip..], &mut dst[*op..]);
    if count <= 16
        && let (Some(from), Some(to)) = (from.first_chunk::<16>(), to.first_chunk_mut::<16>())
    {
        *to = *from;
    } else {
        let from = from.get(..count).ok_or(Error::InputEnds { at: src.len() })?;
        let to = to.get_mut(..count).ok_or(Error::OutputFull { at, len: capacity })?;
        to.copy_from_slice(from);
    }
    *ip += count;
    *op += count;
    Ok(())
}

/// Copies `len` bytes within the output as if byte by byte: where the ranges overlap, the bytes that were just written are
/// repeated.
fn copy_back(dst: &mut [u8], from: usize, op: usize, len: usize) {
    let distance = op - from;
    if distance == 1 {
        let value = dst[from];
        dst[op..op + len].fill(value);
        return;
    }
    // What lies between `from` and the write position is a whole number of periods. So each round may copy all of it, and it
    // doubles.
    let mut done = 0;
    while done < len {
        let piece = (distance + done).min(len - done);
        dst.copy_within(from..from + piece, op + done);
        done += piece;
    }
}
