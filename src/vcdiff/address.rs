//! The address cache (RFC 3284 section 5.1 to 5.3) with the default sizes: 4 "near", 3 "same" slots.

use super::varint;

const NEAR: usize = 4;
const SAME: usize = 3;

/// The first modes: the address itself, and its distance back from the current position. The caches follow.
const SELF: u8 = 0;
const HERE: u8 = 1;
const NEAR_START: u8 = 2;
/// The first "same" mode. In the "same" modes an address takes one byte.
pub(super) const SAME_START: u8 = NEAR_START + NEAR as u8;
/// Number of modes.
pub(super) const MODES: u8 = SAME_START + SAME as u8;

/// Addresses that were used lately. Encoder and decoder keep the same ones, and begin anew with each window.
#[derive(Clone)]
pub(super) struct Cache {
    near: [u64; NEAR],
    next: usize,
    same: [u64; SAME * 256],
}

impl Cache {
    pub(super) fn new() -> Self {
        Cache { near: [0; NEAR], next: 0, same: [0; SAME * 256] }
    }

    #[inline]
    fn update(&mut self, addr: u64) {
        self.near[self.next] = addr;
        self.next = (self.next + 1) % NEAR;
        self.same[(addr % (SAME as u64 * 256)) as usize] = addr;
    }

    /// Appends the shortest form of `addr` (below `here`) and returns its mode.
    #[inline]
    pub(super) fn encode(&mut self, addr: u64, here: u64, out: &mut Vec<u8>) -> u8 {
        debug_assert!(addr < here);
        let (mut best, mut mode) = (addr, SELF);
        if here - addr < best {
            (best, mode) = (here - addr, HERE);
        }
        for (slot, near) in self.near.iter().enumerate() {
            // Where the address lies before the slot's, this wraps to a huge number.
            let distance = addr.wrapping_sub(*near);
            if distance < best {
                (best, mode) = (distance, NEAR_START + slot as u8);
            }
        }
        // An address of one byte cannot become shorter, and more double opcodes exist for these modes.
        let slot = (addr % (SAME as u64 * 256)) as usize;
        if best >= 0x80 && self.same[slot] == addr {
            mode = SAME_START + (slot / 256) as u8;
            out.push((slot % 256) as u8);
        } else {
            varint::write(out, best);
        }
        self.update(addr);
        mode
    }

    /// Takes an address in `mode` off the front of `bytes`.
    ///
    /// # Errors
    /// Fails where the address is not below `here`, or `bytes` end.
    #[inline]
    pub(super) fn decode(&mut self, mode: u8, here: u64, bytes: &mut &[u8]) -> Result<u64, &'static str> {
        let addr = if mode < SAME_START {
            let value = varint::read(bytes).map_err(|_| "an address is cut or too large")?;
            match mode {
                SELF => value,
                HERE => here.checked_sub(value).ok_or("an address lies before the segment")?,
                _ => value
                    .checked_add(self.near[usize::from(mode - NEAR_START)])
                    .ok_or("an address is too large")?,
            }
        } else {
            let (&byte, rest) = bytes.split_first().ok_or("an address is missing")?;
            *bytes = rest;
            self.same[usize::from(mode - SAME_START) * 256 + usize::from(byte)]
        };
        if addr >= here {
            return Err("an address points to bytes not yet known");
        }
        self.update(addr);
        Ok(addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(steps in prop::collection::vec((any::<u64>(), 0u32..64, 1u64..1000), 1..300)) {
            let (mut enc, mut dec, mut here) = (Cache::new(), Cache::new(), 1u64 << 20);
            for (random, shift, step) in steps {
                // Shifts make near, repeated and small addresses as likely as far ones.
                let addr = (random >> shift) % here;
                let mut bytes = Vec::new();
                let mode = enc.encode(addr, here, &mut bytes);
                let mut left = &bytes[..];
                prop_assert_eq!(dec.decode(mode, here, &mut left), Ok(addr));
                prop_assert!(left.is_empty());
                prop_assert!(bytes.len() <= varint::len(addr));
                here += step;
            }
        }
    }

    #[test]
    fn repeated_far_address_takes_one_byte() {
        let (mut cache, mut out) = (Cache::new(), Vec::new());
        let (addr, here) = (5_000_000, 10_000_000);
        assert_eq!(cache.encode(addr, here, &mut out), SELF);
        for other in [100_000, 1_000_000, 9_000_000, 7_000_000] {
            cache.encode(other, here, &mut out);
        }
        out.clear();
        assert!(cache.encode(addr, here, &mut out) >= SAME_START);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let mut cache = Cache::new();
        assert!(cache.decode(HERE, 10, &mut &[11][..]).is_err());
        assert!(cache.decode(SELF, 10, &mut &[10][..]).is_err());
        assert!(cache.decode(SAME_START, 10, &mut &[][..]).is_err());
        assert!(cache.decode(SAME_START, 0, &mut &[0][..]).is_err());
        assert_eq!(cache.decode(HERE, 10, &mut &[10][..]), Ok(0));
    }
}
