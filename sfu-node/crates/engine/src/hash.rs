//! A hash for tables that are asked with each packet.

use std::hash::{BuildHasher, Hasher, RandomState};

const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Keyed by the system's randomness, so that nobody outside can choose keys that meet; one multiplication a word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    start: u64,
    factor: u64,
}

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Self { start: random.hash_one(1), factor: random.hash_one(2) | 1 }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    #[inline]
    fn build_hasher(&self) -> Folding {
        Folding { state: self.start, factor: self.factor }
    }
}

/// Folds each word into the state by a multiplication to 128 bits.
pub(crate) struct Folding {
    state: u64,
    factor: u64,
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

impl Hasher for Folding {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.factor);
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        fold(self.state, ODD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Path;
    use std::collections::HashSet;

    #[test]
    fn neighbours_are_spread_and_keys_differ() {
        let keyed = Keyed::default();
        let path = |port| Path { socket: 0, peer: ([127, 0, 0, 1], port).into() };
        let hashes: Vec<u64> = (0..4096u16).map(|port| keyed.hash_one(path(port))).collect();
        // The table takes the low bits for the place and the high seven for a first comparison.
        let places: HashSet<u64> = hashes.iter().map(|h| h & 4095).collect();
        let tops: HashSet<u64> = hashes.iter().map(|h| h >> 57).collect();
        assert!(places.len() > 2200 && tops.len() > 100, "{} {}", places.len(), tops.len());
        assert_ne!(Keyed::default().hash_one(path(1)), keyed.hash_one(path(1)));
        assert_ne!(keyed.hash_one("ab"), keyed.hash_one("ba"));
    }
}
