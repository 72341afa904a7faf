//! Fingerprints: short numbers that stand for the content of a piece.
//!
//! A fingerprint is 96 bits of XXH3-128, keyed with a random secret. Every full backup draws a new secret and stores it
//! in its map. Pieces with equal fingerprints are taken for equal, so fingerprints must not collide. By chance they do
//! not (a terabyte compared with a terabyte: about 1 in 2^40). A guest cannot make them collide on purpose, because it
//! never sees the secret.

use std::fs::File;
use std::io::{self, Read};

use twox_hash::XxHash3_128;

/// Bytes of a fingerprint as it is stored in a map.
pub const FINGERPRINT_LEN: usize = 12;

/// The fingerprint of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// The first 64 bits, which hash tables use.
    pub high: u64,
    low: u32,
}

impl Fingerprint {
    /// The stored form: little endian, the 64 bits first.
    pub fn to_bytes(self) -> [u8; FINGERPRINT_LEN] {
        let mut b = [0; FINGERPRINT_LEN];
        b[..8].copy_from_slice(&self.high.to_le_bytes());
        b[8..].copy_from_slice(&self.low.to_le_bytes());
        b
    }

    /// Reads the stored form.
    pub fn from_bytes(b: &[u8; FINGERPRINT_LEN]) -> Fingerprint {
        let (high, low) = b.split_at(8);
        Fingerprint {
            high: u64::from_le_bytes(high.try_into().expect("8 bytes")),
            low: u32::from_le_bytes(low.try_into().expect("4 bytes")),
        }
    }
}

/// Bytes of the seed that a secret is derived from.
pub const SEED_LEN: usize = 32;

/// The key of all fingerprints of one full backup.
#[derive(Clone)]
pub struct Secret(Box<[u8; 192]>);

impl Secret {
    /// Draws a random seed.
    ///
    /// # Errors
    /// Fails where the system's random numbers cannot be read.
    pub fn draw() -> io::Result<[u8; SEED_LEN]> {
        let mut seed = [0; SEED_LEN];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(seed)
    }

    /// Derives the secret from a seed.
    pub fn new(seed: &[u8; SEED_LEN]) -> Secret {
        let mut secret = Box::new([0; 192]);
        for (n, part) in secret.chunks_exact_mut(16).enumerate() {
            part.copy_from_slice(&XxHash3_128::oneshot_with_seed(n as u64, seed).to_le_bytes());
        }
        Secret(secret)
    }

    /// Computes the fingerprint of `content`.
    pub fn fingerprint(&self, content: &[u8]) -> Fingerprint {
        let h = XxHash3_128::oneshot_with_secret(&self.0[..], content)
            .expect("a secret of 192 bytes is long enough");
        Fingerprint { high: (h >> 64) as u64, low: h as u32 }
    }
}

/// Computes a checksum of `content`: XXH3-128 without a key, which finds accidental damage.
pub fn checksum(content: &[u8]) -> u128 {
    XxHash3_128::oneshot(content)
}

/// The checksum of a whole stream, made from the checksums of its parts, so that several threads can share the work.
#[derive(Clone, Default)]
pub struct ChainedChecksum(XxHash3_128);

impl ChainedChecksum {
    /// Adds the checksum of the next part.
    pub fn push(&mut self, part: u128) {
        self.0.write(&part.to_le_bytes());
    }

    /// Returns the checksum of all parts that were added, in their order.
    pub fn digest(&self) -> [u8; 16] {
        self.0.finish_128().to_le_bytes()
    }
}
