//! Reading and writing single bits, as DJW and FGK sections have them: from the lowest bit of each byte up.

/// Reads bits off a section.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits that were read and not taken yet. The next one is the lowest.
    ahead: u64,
    count: u32,
}

pub(super) const CUT: &str = "a compressed section is cut";

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, ahead: 0, count: 0 }
    }

    /// Returns the next 32 or more bits, the next one lowest. Behind the end of the section they are zeros.
    #[inline]
    pub(super) fn peek(&mut self) -> u64 {
        while self.count <= 56 {
            let Some((&byte, rest)) = self.bytes.split_first() else { break };
            self.bytes = rest;
            self.ahead |= u64::from(byte) << self.count;
            self.count += 8;
        }
        self.ahead
    }

    /// Drops `n` bits that [`peek`](Self::peek) showed.
    #[inline]
    pub(super) fn skip(&mut self, n: u32) -> Result<(), &'static str> {
        if n > self.count {
            return Err(CUT);
        }
        self.ahead >>= n;
        self.count -= n;
        Ok(())
    }

    /// Takes the next bit.
    #[inline]
    pub(super) fn bit(&mut self) -> Result<u32, &'static str> {
        let bit = self.peek() & 1;
        self.skip(1)?;
        Ok(bit as u32)
    }

    /// Takes a number of `n` bits, most significant bit first.
    pub(super) fn number(&mut self, n: u32) -> Result<u32, &'static str> {
        (0..n).try_fold(0, |value, _| Ok(value << 1 | self.bit()?))
    }

    /// Checks that only the rest of a byte is left, and that it is zero.
    pub(super) fn finish(mut self) -> Result<(), &'static str> {
        if self.peek() != 0 || self.count >= 8 {
            return Err("a compressed section has bytes left over");
        }
        Ok(())
    }
}

/// Writes what [`BitReader`] reads.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the `n` (at most 32) lowest bits of `value`, most significant first.
    #[inline]
    pub(super) fn number(&mut self, value: u32, n: u32) {
        if n == 0 {
            return;
        }
        self.pending |= u64::from(value.reverse_bits() >> (32 - n)) << self.count;
        self.count += n;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Returns everything that was written, filled up with zeros to a whole byte.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.number(0, (8 - self.count) % 8);
        self.bytes
    }
}
