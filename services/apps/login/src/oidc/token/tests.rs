//! Tokens of a provider that is played, good and bad.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::oidc::signer::Signer;

const NOW: Unix = 1_700_000_000;
const EXPECTED: Expected<'static> =
    Expected { issuer: "https://op.example", client: "hub", nonce: "n0nce", claim: "email", now: NOW };

static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("r"));
static P256: LazyLock<Signer> = LazyLock::new(|| Signer::p256("e"));

fn keys() -> Keys {
    Keys::read(json!({ "keys": [RSA.jwk(), P256.jwk()] }).to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://op.example", "aud": "hub", "exp": NOW + 300, "iat": NOW, "nonce": "n0nce",
        "sub": "248289761001", "email": "zoe@example.org", "email_verified": true, "preferred_username": "Zoe",
    })
}

/// With some claims changed; those that are null then are taken out.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut claims = claims();
    for (name, value) in changes {
        claims[*name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

#[test]
fn a_token_that_fits_names_somebody_by_the_claim_that_is_asked_for() {
    for signer in [&*RSA, &*P256] {
        assert_eq!(judge(&signer.token(&claims()), &keys(), &EXPECTED), Ok("zoe@example.org".into()));
    }
    for (claim, name) in [("sub", "248289761001"), ("preferred_username", "Zoe")] {
        let unverified = with(&[("email_verified", json!(false))]);
        let expected = Expected { claim, ..EXPECTED };
        assert_eq!(judge(&RSA.token(&unverified), &keys(), &expected), Ok(name.into()));
    }
}

#[test]
fn what_is_just_inside_the_bounds_is_good() {
    for changes in [
        vec![("exp", json!(NOW - LEEWAY + 1))],
        vec![("exp", json!(1_700_000_000.5))],
        vec![("iat", json!(NOW + LEEWAY))],
        vec![("iat", json!(NOW - AGE - LEEWAY))],
        vec![("nbf", json!(NOW + LEEWAY))],
        vec![("aud", json!(["hub"]))],
        vec![("azp", json!("hub"))],
        vec![("aud", json!(["other", "hub"])), ("azp", json!("hub"))],
        vec![("email", json!("z".repeat(NAME_MAX)))],
    ] {
        assert!(judge(&RSA.token(&with(&changes)), &keys(), &EXPECTED).is_ok(), "{changes:?}");
    }
}

#[test]
fn a_token_that_says_anything_else_is_refused() {
    let table: Vec<(&str, Value, Unfit)> = vec![
        ("iss", json!("https://op.example/"), Unfit::Issuer),
        ("iss", json!("https://evil.example"), Unfit::Issuer),
        ("iss", Value::Null, Unfit::Malformed),
        ("aud", json!("other"), Unfit::Audience),
        ("aud", json!([]), Unfit::Audience),
        ("aud", json!(["hub", "other"]), Unfit::Audience),
        ("aud", Value::Null, Unfit::Malformed),
        ("azp", json!("other"), Unfit::Audience),
        ("exp", json!(NOW - LEEWAY), Unfit::Expired),
        ("exp", json!("tomorrow"), Unfit::Malformed),
        ("exp", Value::Null, Unfit::Malformed),
        ("nbf", json!(NOW + LEEWAY + 1), Unfit::Expired),
        ("iat", json!(NOW + LEEWAY + 1), Unfit::Time),
        ("iat", json!(NOW - AGE - LEEWAY - 1), Unfit::Time),
        ("iat", Value::Null, Unfit::Malformed),
        ("nonce", json!("another"), Unfit::Nonce),
        ("nonce", json!(""), Unfit::Nonce),
        ("nonce", Value::Null, Unfit::Nonce),
        ("email", Value::Null, Unfit::Nameless),
        ("email", json!(""), Unfit::Nameless),
        ("email", json!(["zoe@example.org"]), Unfit::Nameless),
        ("email", json!("zoe\n@example.org"), Unfit::Nameless),
        ("email", json!("z".repeat(NAME_MAX + 1)), Unfit::Nameless),
        ("email_verified", json!(false), Unfit::Unverified),
        ("email_verified", json!("true"), Unfit::Unverified),
        ("email_verified", Value::Null, Unfit::Unverified),
    ];
    for (name, value, why) in table {
        let token = RSA.token(&with(&[(name, value.clone())]));
        assert_eq!(judge(&token, &keys(), &EXPECTED), Err(why), "{name}: {value}");
    }
    for claim in ["iss", "aud", "nonce", "none"] {
        let expected = Expected { claim, ..EXPECTED };
        assert_eq!(judge(&RSA.token(&claims()), &keys(), &expected), Err(Unfit::Nameless), "{claim}");
    }
}

#[test]
fn a_token_that_is_signed_otherwise_is_refused() {
    let kid = json!("r");
    let header = |alg: &str| json!({ "alg": alg, "kid": kid });
    for alg in ["none", "None", "HS256", "HS512", "RS512", "PS256", "rs256", ""] {
        let token = RSA.token_with(&header(alg), &claims());
        assert_eq!(judge(&token, &keys(), &EXPECTED), Err(Unfit::Algorithm), "{alg}");
    }
    for (what, token, why) in [
        ("another's key", Signer::rsa("r").token(&claims()), Unfit::Signature),
        ("a key of nobody's", Signer::rsa("x").token(&claims()), Unfit::Key),
        (
            "no id, another's key",
            Signer::rsa("x").token_with(&json!({ "alg": "RS256" }), &claims()),
            Unfit::Key,
        ),
        ("a key of the other kind", RSA.token_with(&header("ES256"), &claims()), Unfit::Key),
        (
            "a demand",
            RSA.token_with(&json!({ "alg": "RS256", "kid": "r", "crit": ["b64"], "b64": false }), &claims()),
            Unfit::Malformed,
        ),
    ] {
        assert_eq!(judge(&token, &keys(), &EXPECTED), Err(why), "{what}");
    }
    assert!(judge(&RSA.token_with(&json!({ "alg": "RS256" }), &claims()), &keys(), &EXPECTED).is_ok());
}

/// The old trick: what everybody may read of the key is taken for a secret that both know.
#[test]
fn a_token_that_is_authenticated_with_the_public_key_is_refused() {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    for key in [RSA.jwk()["n"].as_str().unwrap().to_owned(), RSA.jwk().to_string()] {
        let said = format!("{}.{}", part(&json!({ "alg": "HS256", "kid": "r" })), part(&claims()));
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), said.as_bytes());
        let token = format!("{said}.{}", BASE64URL_NOPAD.encode(mac.as_ref()));
        assert_eq!(judge(&token, &keys(), &EXPECTED), Err(Unfit::Algorithm));
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let good = RSA.token(&claims());
    let (said, signature) = good.rsplit_once('.').unwrap();
    let long = RSA.token(&with(&[("padding", json!("x".repeat(TOKEN_MAX)))]));
    for token in [
        "",
        ".",
        "..",
        "a.b.c",
        said,
        &format!("{said}."),
        &format!("{good}."),
        &format!("{good}={signature}"),
        &format!("{good}="),
        &format!(".{good}"),
        &long,
    ] {
        assert!(judge(token, &keys(), &EXPECTED).is_err(), "{token:.60}");
    }
    let twice = r#"{"iss":"https://evil.example","iss":"https://op.example"}"#;
    assert!(serde_json::from_str::<Claims>(twice).is_err());
}

proptest! {
    /// No byte of a token can be another.
    #[test]
    fn any_flipped_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1..=255_u8, rsa in any::<bool>()) {
        static TOKENS: LazyLock<[String; 2]> =
            LazyLock::new(|| [&*RSA, &*P256].map(|signer| signer.token(&claims())));
        let mut bytes = TOKENS[usize::from(rsa)].clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(judge(&String::from_utf8_lossy(&bytes), &keys(), &EXPECTED).is_err());
    }

    /// Whatever somebody sends, there is an answer.
    #[test]
    fn any_text_has_a_verdict(token in "[ -~]{0,40}(\\.[A-Za-z0-9_-]{0,80}){0,3}") {
        prop_assert!(judge(&token, &keys(), &EXPECTED).is_err());
    }
}
