//! Digests of what is uploaded: that of a whole package, taken along as its bytes come, and the one that a request may name for its
//! own bytes.

use std::fmt;

use md5::{Digest, Md5};
use nexushub_chassis::launch::secret::hex;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::Sha256;

/// A SHA-256 digest: 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Sha256Hex(String);

impl Sha256Hex {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| Self(text.to_ascii_lowercase()))
    }

    /// From the 32 bytes of one.
    pub(crate) fn of(digest: &[u8]) -> Option<Self> {
        (digest.len() == 32).then(|| Self(hex(digest)))
    }

    /// The bytes that it writes.
    fn bytes(&self) -> Vec<u8> {
        let pair = |at| self.0.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        (0..self.0.len()).step_by(2).filter_map(pair).collect()
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The SHA-256 of a file, as far as it was read from its beginning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    sha256: Sha256,
    bytes: u64,
}

impl Running {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Of how many bytes it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn finish(self) -> Sha256Hex {
        Sha256Hex(hex(&self.sha256.finalize()))
    }
}

/// What a request says of its own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

/// How it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// Those that tus clients may name.
    pub(crate) const NAMES: &str = "sha1,md5,sha256";

    /// By its name in tus.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "md5" => Some(Self::Md5),
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            _ => None,
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

impl Checksum {
    /// None when the digest can't be one of this algorithm.
    pub(crate) fn new(algorithm: Algorithm, digest: Vec<u8>) -> Option<Self> {
        (digest.len() == algorithm.length()).then_some(Self { algorithm, digest })
    }

    /// That the bytes have this SHA-256.
    pub(crate) fn sha256(digest: &Sha256Hex) -> Self {
        Self { algorithm: Algorithm::Sha256, digest: digest.bytes() }
    }

    /// Begins to check.
    pub(crate) fn check(self) -> Check {
        let sum = match self.algorithm {
            Algorithm::Md5 => Sum::Md5(Md5::new()),
            Algorithm::Sha1 => Sum::Sha1(Sha1::new()),
            Algorithm::Sha256 => Sum::Sha256(Sha256::new()),
        };
        Check { sum, expected: self.digest }
    }
}

/// A checksum that is being checked.
#[derive(Debug)]
pub(crate) struct Check {
    sum: Sum,
    expected: Vec<u8>,
}

#[derive(Debug)]
enum Sum {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Check {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match &mut self.sum {
            Sum::Md5(sum) => sum.update(bytes),
            Sum::Sha1(sum) => sum.update(bytes),
            Sum::Sha256(sum) => sum.update(bytes),
        }
    }

    /// Whether the bytes were those that were meant.
    pub(crate) fn holds(self) -> bool {
        match self.sum {
            Sum::Md5(sum) => sum.finalize()[..] == self.expected,
            Sum::Sha1(sum) => sum.finalize()[..] == self.expected,
            Sum::Sha256(sum) => sum.finalize()[..] == self.expected,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_digest_of_pieces_is_that_of_the_whole() {
        let mut running = Running::default();
        [&b"a"[..], b"", b"bc"].iter().for_each(|piece| running.update(piece));
        assert_eq!(running.bytes(), 3);
        let sha256 = running.finish();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256.to_string(), abc);
        assert_eq!(Sha256Hex::parse(&abc.to_uppercase()), Some(sha256));
    }

    #[test]
    fn a_digest_of_the_wrong_length_is_none() {
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(Sha256Hex::parse(text), None, "{text}");
        }
        assert_eq!(Sha256Hex::of(&[0; 31]), None);
        let digest = Sha256Hex::of(&[0xA7; 32]).unwrap();
        let checksum = Checksum::new(Algorithm::Sha256, vec![0xA7; 32]);
        assert_eq!(Some(Checksum::sha256(&digest)), checksum);
        for (name, length) in [("md5", 16), ("sha1", 20), ("sha256", 32)] {
            let algorithm = Algorithm::named(name).unwrap();
            assert!(Checksum::new(algorithm, vec![0; length]).is_some());
            assert!(Checksum::new(algorithm, vec![0; length - 1]).is_none(), "{name}");
        }
        assert_eq!(Algorithm::named("crc32"), None);
        assert!(Algorithm::NAMES.split(',').all(|name| Algorithm::named(name).is_some()));
    }

    #[test]
    fn a_checksum_holds_for_its_bytes_alone() {
        let sums = [
            (Algorithm::Md5, Md5::digest(b"ab").to_vec()),
            (Algorithm::Sha1, Sha1::digest(b"ab").to_vec()),
            (Algorithm::Sha256, Sha256::digest(b"ab").to_vec()),
        ];
        for (algorithm, digest) in sums {
            for (second, holds) in [("b", true), ("c", false)] {
                let mut check = Checksum::new(algorithm, digest.clone()).unwrap().check();
                check.update(b"a");
                check.update(second.as_bytes());
                assert_eq!(check.holds(), holds, "{algorithm:?} {second}");
            }
        }
    }
}
