//! Fingerprints: what stands for a piece's content.
//!
//! 96 bits of XXH3-128, keyed with a random secret that every full backup draws anew and stores in its
//! map. Equal fingerprints are taken for equal content, so they must not collide: by chance they do not
//! (a terabyte against a terabyte: about 1 in 2^40), and a guest that would like them to cannot
//! work towards it, because it never sees the secret.

use std::fs::File;
use std::io::{self, Read};

use twox_hash::XxHash3_128;

/// Bytes of a fingerprint where it is stored.
pub const PRINT_LEN: usize = 12;

/// Fingerprint of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Print {
    /// The bits that hash tables use.
    pub high: u64,
    low: u32,
}

impl Print {
    /// As stored: little endian.
    pub fn to_bytes(self) -> [u8; PRINT_LEN] {
        let mut b = [0; PRINT_LEN];
        b[..8].copy_from_slice(&self.high.to_le_bytes());
        b[8..].copy_from_slice(&self.low.to_le_bytes());
        b
    }

    /// The reverse of [`Print::to_bytes`].
    pub fn from_bytes(b: &[u8; PRINT_LEN]) -> Print {
        let (high, low) = b.split_at(8);
        Print {
            high: u64::from_le_bytes(high.try_into().expect("8 bytes")),
            low: u32::from_le_bytes(low.try_into().expect("4 bytes")),
        }
    }
}

/// Bytes of the seed that a secret is made from.
pub const SEED_LEN: usize = 32;

/// The key of the fingerprints.
#[derive(Clone)]
pub struct Secret(Box<[u8; 192]>);

impl Secret {
    /// A seed nobody can foretell.
    ///
    /// # Errors
    /// Those of reading the system's random numbers.
    pub fn draw() -> io::Result<[u8; SEED_LEN]> {
        let mut seed = [0; SEED_LEN];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(seed)
    }

    /// The secret that belongs to a seed.
    pub fn new(seed: &[u8; SEED_LEN]) -> Secret {
        let mut secret = Box::new([0; 192]);
        for (n, part) in secret.chunks_exact_mut(16).enumerate() {
            part.copy_from_slice(&XxHash3_128::oneshot_with_seed(n as u64, seed).to_le_bytes());
        }
        Secret(secret)
    }

    /// Fingerprint of `content`.
    pub fn print(&self, content: &[u8]) -> Print {
        let h = XxHash3_128::oneshot_with_secret(&self.0[..], content)
            .expect("a secret of 192 bytes is long enough");
        Print { high: (h >> 64) as u64, low: h as u32 }
    }
}

/// A hash against accidents, of a part of a stream.
pub fn checksum(content: &[u8]) -> u128 {
    XxHash3_128::oneshot(content)
}

/// Joins the checksums of a stream's parts, which several threads made, into one of the whole.
#[derive(Clone, Default)]
pub struct Chain(XxHash3_128);

impl Chain {
    /// Adds the next part's checksum.
    pub fn push(&mut self, part: u128) {
        self.0.write(&part.to_le_bytes());
    }

    /// The checksum of all parts so far, in order.
    pub fn digest(&self) -> [u8; 16] {
        self.0.finish_128().to_le_bytes()
    }
}
