//! The fields of a tar header that more than one room reads.
//!
//! The rules are those of POSIX ("ustar Interchange Format") and of GNU tar's manual ("Basic Tar Format").

/// The unit of a tar archive in bytes. Headers begin at multiples of it.
pub const BLOCK: usize = 512;

/// Tells whether `bytes` begin with a header of POSIX or GNU tar, by its magic.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

/// Returns the kind of the member that a header describes, its typeflag.
pub fn kind(header: &[u8; BLOCK]) -> u8 {
    header[156]
}

/// Returns how many bytes of content follow a header. The result is `None` where the field holds no number.
pub fn size(header: &[u8; BLOCK]) -> Option<u64> {
    number(&header[124..136])
}

/// Reads a number of a header that may be negative, as times may be: base 256 in two's complement, or octal digits.
pub fn signed(field: &[u8]) -> Option<i64> {
    if field[0] != 0xff {
        return number(field).and_then(|n| i64::try_from(n).ok());
    }
    let (high, low) = field.split_last_chunk::<8>()?;
    let n = i64::from_be_bytes(*low);
    (n < 0 && high.iter().all(|byte| *byte == 0xff)).then_some(n)
}

/// Reads a number of a header: octal digits between blanks and NULs or, where the first bit is set, base 256.
pub fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        // A first byte of 0xff would begin a negative number.
        let (first, rest) = (u64::from(field[0] & 0x7f), &field[1..]);
        return rest.iter().try_fold(first, |n, b| n.checked_mul(256).map(|n| n | u64::from(*b)));
    }
    let text = field.trim_ascii_start();
    let end = text.iter().position(|b| matches!(b, b' ' | 0)).unwrap_or(text.len());
    let digits_only = text[end..].iter().all(|b| matches!(b, b' ' | 0));
    let octal = |n: u64, b: &u8| match b {
        b'0'..=b'7' => n.checked_mul(8).map(|n| n | u64::from(b - b'0')),
        _ => None,
    };
    text[..end].iter().try_fold(0, octal).filter(|_| digits_only)
}
