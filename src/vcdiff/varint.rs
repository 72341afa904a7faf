//! The integers of RFC 3284 section 2: in base 128, the most significant digit first. Bit 7 is set in all bytes but the last
//! one.

/// The most bytes that a `u64` takes.
pub const MAX_LEN: usize = 10;

/// Why an integer could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// The bytes end inside it.
    Truncated,
    /// It does not fit 64 bits, or has more leading zero digits than any `u64` needs.
    Overflow,
}

/// The value so far of an integer that is being read; its bytes are [pushed](Partial::push).
#[derive(Debug, Clone, Copy, Default)]
pub struct Partial {
    value: u64,
    digits: usize,
}

impl Partial {
    /// Takes the next byte. The result is the value once it is complete, until then `None`.
    #[inline]
    pub fn push(&mut self, byte: u8) -> Result<Option<u64>, Bad> {
        if self.value >> 57 != 0 || self.digits == MAX_LEN {
            return Err(Bad::Overflow);
        }
        self.value = self.value << 7 | u64::from(byte & 0x7f);
        self.digits += 1;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

/// Takes an integer off the front of `bytes`.
#[inline]
pub fn read(bytes: &mut &[u8]) -> Result<u64, Bad> {
    // Nearly all integers have one or two digits.
    match **bytes {
        [a, ref rest @ ..] if a < 0x80 => {
            *bytes = rest;
            return Ok(u64::from(a));
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *bytes = rest;
            return Ok(u64::from(a & 0x7f) << 7 | u64::from(b));
        }
        _ => {}
    }
    let mut partial = Partial::default();
    for (i, &byte) in bytes.iter().enumerate() {
        if let Some(value) = partial.push(byte)? {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(Bad::Truncated)
}

/// Tells how many bytes [`write`] appends for `value`.
#[inline]
pub fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value` in its shortest form.
#[inline]
pub fn write(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    for digit in (1..len(value)).rev() {
        out.push((value >> (7 * digit)) as u8 | 0x80);
    }
    out.push(value as u8 & 0x7f);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn example_of_the_rfc() {
        assert_eq!(encoded(123_456_789), [0xba, 0xef, 0x9a, 0x15]);
        assert_eq!(encoded(0), [0]);
        assert_eq!(encoded(u64::MAX), [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    }

    #[test]
    fn refuses_overflow_and_truncation() {
        let too_big = [0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(read(&mut &too_big[..]), Err(Bad::Overflow));
        assert_eq!(read(&mut &[0x80; 50][..]), Err(Bad::Overflow));
        assert_eq!(read(&mut &[0x81, 0x80][..]), Err(Bad::Truncated));
        assert_eq!(read(&mut &[][..]), Err(Bad::Truncated));
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, shift in 0u32..64, rest: Vec<u8>) {
            let value = value >> shift;
            let mut bytes = encoded(value);
            prop_assert_eq!(bytes.len(), len(value));
            bytes.extend_from_slice(&rest);
            let mut left = &bytes[..];
            prop_assert_eq!(read(&mut left), Ok(value));
            prop_assert_eq!(left, &rest[..]);
        }
    }
}
