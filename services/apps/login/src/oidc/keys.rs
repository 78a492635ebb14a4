//! The keys of an identity provider, and what they sign: RS256 and ES256. A signature without a key, or with one that both sides
//! would have to know, is none here, whatever a token says of itself.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::Value;

/// Keys of one provider that are looked at.
const KEYS: usize = 64;

/// How something is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    /// By the name that tokens and keys give it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// What came of looking for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One of them signed this.
    Good,
    /// The one that is named did not.
    Bad,
    /// None of them is meant: there may be newer ones.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    material: Material,
}

/// All keys by which a provider signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Of a set as RFC 7517 has it; a key for something else, or of a kind that is not known here, is left out.
    pub(crate) fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        let set: Set = serde_json::from_slice(json)?;
        let written = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(Self(written.filter_map(|key: Written| key.judged()).take(KEYS).collect()))
    }

    /// Whether one of them signed this: the one of this id, or any if none is named.
    pub(crate) fn judge(&self, by: Algorithm, id: Option<&str>, message: &[u8], signature: &[u8]) -> Verdict {
        let meant = |key: &&Key| key.algorithm() == by && (id.is_none() || key.id.as_deref() == id);
        let mut candidates = self.0.iter().filter(meant).peekable();
        if candidates.peek().is_none() {
            return Verdict::Unknown;
        }
        match (candidates.any(|key| key.signed(message, signature)), id) {
            (true, _) => Verdict::Good,
            (false, Some(_)) => Verdict::Bad,
            (false, None) => Verdict::Unknown,
        }
    }
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
        }
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
        }
        .is_ok()
    }
}

impl Written {
    fn judged(self) -> Option<Key> {
        let material = match self.kty.as_str() {
            "RSA" => Material::Rsa { n: number(self.n.as_deref()?)?, e: number(self.e.as_deref()?)? },
            "EC" if self.crv.as_deref() == Some("P-256") => {
                let (x, y) = (decoded(self.x.as_deref()?)?, decoded(self.y.as_deref()?)?);
                (x.len() == 32 && y.len() == 32).then(|| Material::P256([&[4], &*x, &*y].concat()))?
            }
            _ => return None,
        };
        let key = Key { id: self.kid, material };
        let signs = self.purpose.is_none_or(|purpose| purpose == "sig");
        let fits = self.alg.is_none_or(|name| Algorithm::named(&name) == Some(key.algorithm()));
        (signs && fits).then_some(key)
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// A number without the zeros that some write before it.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = decoded(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    (zeros < bytes.len()).then(|| bytes[zeros..].to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::oidc::signer::Signer;

    fn keys(list: &[Value]) -> Keys {
        Keys::read(json!({ "keys": list }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_signature_is_good_by_the_key_that_made_it_and_no_other() {
        for (signer, other, by) in [
            (Signer::rsa("a"), Signer::rsa("a"), Algorithm::Rs256),
            (Signer::p256("a"), Signer::p256("a"), Algorithm::Es256),
        ] {
            let signature = signer.sign(b"said");
            let judge = |keys: &Keys, id| keys.judge(by, id, b"said", &signature);
            let own = keys(&[Signer::p256("b").jwk(), Signer::rsa("b").jwk(), signer.jwk()]);
            assert_eq!((judge(&own, Some("a")), judge(&own, None)), (Verdict::Good, Verdict::Good));
            assert_eq!(own.judge(by, Some("a"), b"Said", &signature), Verdict::Bad);
            assert_eq!(judge(&own, Some("b")), Verdict::Bad, "another key of theirs");
            assert_eq!(judge(&own, Some("c")), Verdict::Unknown);
            let theirs = keys(&[other.jwk()]);
            assert_eq!((judge(&theirs, Some("a")), judge(&theirs, None)), (Verdict::Bad, Verdict::Unknown));
            let swapped = if by == Algorithm::Rs256 { Algorithm::Es256 } else { Algorithm::Rs256 };
            assert_eq!(own.judge(swapped, Some("a"), b"said", &signature), Verdict::Unknown);
        }
    }

    #[test]
    fn zeros_before_a_number_are_no_part_of_it() {
        let signer = Signer::rsa("a");
        let mut jwk = signer.jwk();
        let bytes = [&[0, 0], &*decoded(jwk["n"].as_str().unwrap()).unwrap()].concat();
        jwk["n"] = json!(BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(keys(&[jwk]).judge(Algorithm::Rs256, None, b"x", &signer.sign(b"x")), Verdict::Good);
    }

    #[test]
    fn a_key_for_something_else_or_that_is_none_is_left_out() {
        let (rsa, p256) = (Signer::rsa("a").jwk(), Signer::p256("a").jwk());
        let with = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            key
        };
        for key in [
            json!({}),
            json!(7),
            json!({ "kty": "oct", "k": "c2VjcmV0" }),
            with(&rsa, "use", json!("enc")),
            with(&rsa, "alg", json!("RS512")),
            with(&rsa, "alg", json!("HS256")),
            with(&rsa, "n", json!("")),
            with(&rsa, "n", json!("AAAA")),
            with(&rsa, "e", json!("not base64!")),
            with(&p256, "crv", json!("P-384")),
            with(&p256, "x", json!("AAAA")),
            with(&p256, "y", Value::Null),
        ] {
            assert_eq!(keys(std::slice::from_ref(&key)), Keys(Vec::new()), "{key}");
        }
        assert!(Keys::read(b"{}").is_err() && Keys::read(b"<html>").is_err());
    }

    #[test]
    fn keys_are_bounded_in_number() {
        let many: Vec<Value> =
            (0..KEYS + 1).map(|_| json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" })).collect();
        assert_eq!(keys(&many).0.len(), KEYS);
        let short = keys(&[json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "s" })]);
        assert_eq!(short.judge(Algorithm::Rs256, Some("s"), b"x", &[1, 0, 1]), Verdict::Bad, "far too short");
    }
}
