//! A provider's side of keys and tokens, for the tests of ours.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

/// A key that signs.
pub(crate) struct Signer {
    id: String,
    pair: Pair,
}

impl Signer {
    /// Of this id, for RS256.
    pub(crate) fn rsa(id: &str) -> Self {
        Self { id: id.to_owned(), pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    /// Of this id, for ES256.
    pub(crate) fn p256(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id: id.to_owned(), pair: Pair::P256(pair) }
    }

    /// What a provider publishes of it.
    pub(crate) fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(pair) => {
                let [n, e] = numbers(pair.public_key().as_ref()).map(|number| BASE64URL_NOPAD.encode(number));
                json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id, "n": n, "e": e })
            }
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (BASE64URL_NOPAD.encode(&point[1..33]), BASE64URL_NOPAD.encode(&point[33..]));
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y })
            }
        }
    }

    /// Its signature.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let algorithm = if matches!(self.pair, Pair::Rsa(_)) { "RS256" } else { "ES256" };
        self.token_with(&json!({ "alg": algorithm, "kid": self.id, "typ": "JWT" }), claims)
    }

    /// One whose header says what it says.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let said = format!("{}.{}", part(header), part(claims));
        format!("{said}.{}", BASE64URL_NOPAD.encode(&self.sign(said.as_bytes())))
    }
}

/// Modulus and exponent of an `RSAPublicKey`: SEQUENCE { INTEGER, INTEGER }.
fn numbers(der: &[u8]) -> [&[u8]; 2] {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, head) = match der[1] {
            0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
            0x81 => (usize::from(der[2]), 3),
            short => (usize::from(short), 2),
        };
        (&der[head..head + length], &der[head + length..])
    }
    let (modulus, rest) = element(element(der).0);
    [&modulus[1..], element(rest).0] // of the modulus without the zero that says it is positive
}
