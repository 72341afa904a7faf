//! Makes data for guests. It is the same in each run, and compresses like that of real guests.

use std::io::Write;

const SYLLABLES: [&str; 32] = [
    "ser", "ver", "log", "in", "con", "nect", "ed", "time", "out", "re", "quest", "user", "up", "date",
    "mail", "queue", "disk", "back", "start", "stop", "er", "ror", "warn", "ing", "file", "name", "net",
    "work", "ses", "sion", "key", "host",
];

/// A generator of repeatable numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// Bytes that nothing compresses, as in pictures.
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Lines as in a log.
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 256);
        while bytes.len() < length {
            let clock = self.below(86_400);
            let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
            let process = 100 + self.below(900);
            // writing to memory does not fail
            let _ = write!(bytes, "Jan  4 {hour:02}:{minute:02}:{second:02} guest app[{process}]:");
            for _ in 0..4 + self.below(8) {
                let word = self.number();
                bytes.extend_from_slice(b" ");
                for part in 0..1 + word % 3 {
                    bytes.extend_from_slice(SYLLABLES[(word >> (8 + 8 * part)) as usize % 32].as_bytes());
                }
            }
            bytes.push(b'\n');
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_compresses_and_noise_does_not() {
        let mut random = Random(1);
        let packed = |data: &[u8]| zstd::bulk::compress(data, 3).unwrap().len();
        let (text, noise) = (random.text(1 << 18), random.noise(1 << 18));
        assert_eq!((text.len(), noise.len()), (1 << 18, 1 << 18));
        assert!((text.len() / 6..text.len() / 2).contains(&packed(&text)), "{}", packed(&text));
        assert!(packed(&noise) >= noise.len());
        assert_eq!(Random(1).text(1 << 18), text);
    }
}
