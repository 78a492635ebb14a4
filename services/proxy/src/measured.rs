//! A door for the bench (`tests/bench`), there with the feature `fuzzing` only: what is done with the access token of every request, as
//! the proxy does it, and beside it the one MAC that it stands on.

use std::path::Path;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use nexushub_chassis::credentials::Credentials;

use crate::{clock, gate::Gate, identity::User};

/// Sessions that have ended, among which each token's is looked for.
const ENDED: i64 = 10_000;

/// Requests with a token each, of a session each, and who judges them.
pub struct TokenChecks {
    gate: Gate,
    key: Key,
    requests: Vec<HeaderMap>,
    /// Of each token what its MAC is of, and the MAC by `key`.
    said: Vec<(Vec<u8>, hmac::Tag)>,
}

impl TokenChecks {
    /// So many, with keys below this folder.
    ///
    /// # Panics
    /// When the folder can't be written.
    #[must_use]
    pub fn new(state: &Path, requests: u32) -> Self {
        let now_ms = clock::about_unix_ms();
        let gate = Gate::load(state, Credentials::default(), now_ms);
        let ended = (0..ENDED).map(|number| format!("ended-{number}")).collect();
        gate.revoked.add(ended, (-ENDED..0).collect(), now_ms).expect("the folder can be written");
        let key = Key::new(HMAC_SHA256, &[7; 32]);
        let token = |number: u32| {
            let session = format!("{number:032x}");
            let user = User { id: number.into(), name: "ada@example.org".to_owned(), session };
            let made = gate.tokens.make("18736e4f-93f9-4606-a7be-863c7986ea5b", &user, now_ms);
            made.expect("there is a key, and this can be said")
        };
        let tokens: Vec<String> = (0..requests).map(token).collect();
        let request = |token: &String| {
            let bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("a token is plain text");
            HeaderMap::from_iter([(AUTHORIZATION, bearer)])
        };
        let said = |token: &String| {
            let (_, text) = token.split_once('.').expect("it has a prefix");
            let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).expect("it was encoded");
            bytes.truncate(bytes.len() - 32);
            let mac = hmac::sign(&key, &bytes);
            (bytes, mac)
        };
        let (requests, said) = (tokens.iter().map(request).collect(), tokens.iter().map(said).collect());
        Self { gate, key, requests, said }
    }

    /// What each request costs: its token found, judged, and looked for among those that were revoked. Whether it is good.
    #[must_use]
    pub fn check(&self, number: usize) -> bool {
        let (shown, _) = self.gate.shown(&self.requests[number], clock::about_unix_ms);
        shown.is_some_and(|shown| shown.bearer.is_some())
    }

    /// The MAC alone, of the same bytes.
    #[must_use]
    pub fn mac(&self, number: usize) -> bool {
        let (said, mac) = &self.said[number];
        hmac::verify(&self.key, said, mac.as_ref()).is_ok()
    }
}
