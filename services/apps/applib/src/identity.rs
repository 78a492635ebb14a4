//! Who asks: the headers that the platform's proxy sets, believed only with the proof beside them.
//!
//! The proof is `X-Nexushub-Identity: v1;t=<unix>;u=<user>;n=<name>;s=<session>;c=<caller>;m=<hex>`, an HMAC-SHA256 whose key
//! only the platform and this app know (the SHA-256 of its `INTERNAL_SECRET`). So a request that reached the app past the
//! proxy has no identity, whatever its headers say.

use aws_lc_rs::hmac;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::{HeaderMap, request::Parts};

use crate::{Refusal, text, time::Unix};

/// How far a proof's time may be off, in seconds.
const WINDOW: Unix = 60;
const HEADER: &str = "x-nexushub-identity";

/// A person who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The number that stays.
    pub id: i64,
    /// The name that may change.
    pub name: String,
    /// The session that the sign-in began; empty if there is none.
    pub session: String,
}

/// Who asks; a handler that takes one answers 401 to nobody in particular, one that takes an `Option` answers anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The person, if it is one.
    pub user: Option<User>,
    /// The app instance that calls, by its id, or `@` and the name of a daemon of the platform.
    pub caller: Option<String>,
}

impl Identity {
    /// Whether this app instance or daemon calls.
    #[must_use]
    pub fn is(&self, caller: &str) -> bool {
        self.caller.as_deref() == Some(caller)
    }

    /// The person, or a refusal.
    ///
    /// # Errors
    /// When it is no person.
    pub fn person(&self) -> Result<&User, Refusal> {
        self.user.as_ref().ok_or_else(|| Refusal::forbidden("this is for people who are signed in"))
    }
}

/// What a proof is checked with.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// Of an app with this secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &text::digest(secret)))
    }

    /// The proof for an identity: what the proxy writes, for tests of apps.
    #[must_use]
    pub fn prove(&self, identity: &Identity, at: Unix) -> String {
        let (user, name, session) = identity.user.as_ref().map_or_else(Default::default, |user| {
            (user.id.to_string(), text::percent(&user.name), user.session.clone())
        });
        let caller = identity.caller.as_deref().unwrap_or("");
        let said = format!("v1;t={at};u={user};n={name};s={session};c={caller}");
        let mac = text::hex(hmac::sign(&self.0, said.as_bytes()).as_ref());
        format!("{said};m={mac}")
    }

    /// The identity that a request's headers prove at this time, if they do.
    #[must_use]
    pub fn identity(&self, headers: &HeaderMap, now: Unix) -> Option<Identity> {
        let mut lines = headers.get_all(HEADER).iter();
        let proof = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?;
        let (said, mac) = proof.rsplit_once(";m=")?;
        hmac::verify(&self.0, said.as_bytes(), &text::unhex(mac)?).ok()?;
        read(said).filter(|(at, _)| now.abs_diff(*at) <= WINDOW.unsigned_abs()).map(|(_, identity)| identity)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// The parts of what was proven, in their order.
fn read(said: &str) -> Option<(Unix, Identity)> {
    let mut parts = said.split(';');
    let version = parts.next()?;
    let mut part = |key: &str| parts.next()?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    let (at, user, name) = (part("t")?, part("u")?, part("n")?);
    let (session, caller) = (part("s")?, part("c")?);
    if version != "v1" || parts.next().is_some() {
        return None;
    }
    let user = if user.is_empty() {
        None
    } else {
        Some(User { id: user.parse().ok()?, name: text::unpercent(&name)?, session })
    };
    let identity = Identity { user, caller: Some(caller).filter(|caller| !caller.is_empty()) };
    (identity != Identity::default()).then_some((at.parse().ok()?, identity))
}

/// The address that a request came from, as the proxy says: whom a proxy before the platform's passed it on for, if there is a trusted
/// one; else who was at the other end.
#[must_use]
pub fn address(headers: &HeaderMap) -> &str {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let other_end = text("x-forwarded-for").rsplit(',').next().unwrap_or_default().trim();
    Some(text("x-real-ip")).filter(|told| !told.is_empty()).unwrap_or(other_end)
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Refusal::unknown_caller)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Identity {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refusal> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn zoe() -> Identity {
        let user = User { id: 7, name: "Zoë; u=1".into(), session: "s1".into() };
        Identity { user: Some(user), caller: None }
    }

    fn headers(proof: &str) -> HeaderMap {
        HeaderMap::from_iter([(HEADER.parse().unwrap(), proof.parse().unwrap())])
    }

    #[test]
    fn who_the_platform_proves_is_known_for_a_minute() {
        let key = Key::of("secret");
        for who in [zoe(), Identity { user: None, caller: Some("@proxy".into()) }] {
            let proven = headers(&key.prove(&who, 1000));
            for now in [940, 1000, 1060] {
                assert_eq!(key.identity(&proven, now), Some(who.clone()));
            }
            assert_eq!((key.identity(&proven, 939), key.identity(&proven, 1061)), (None, None));
        }
    }

    #[test]
    fn the_proof_is_the_contracts_to_the_letter() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &text::digest("s3cret"));
        let said = "v1;t=1700000000;u=1;n=admin;s=abc;c=";
        let proof = format!("{said};m={}", text::hex(hmac::sign(&key, said.as_bytes()).as_ref()));
        let who = Key::of("s3cret").identity(&headers(&proof), 1_700_000_000).unwrap();
        assert_eq!(who.user, Some(User { id: 1, name: "admin".into(), session: "abc".into() }));
    }

    #[test]
    fn an_address_is_the_one_that_the_proxy_knows() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>()
        };
        let path = ("x-forwarded-for", "6.6.6.6, 192.0.2.1");
        assert_eq!(address(&headers(&[path])), "192.0.2.1");
        assert_eq!(address(&headers(&[path, ("x-real-ip", "198.51.100.7")])), "198.51.100.7");
        assert_eq!(address(&HeaderMap::new()), "");
    }

    #[test]
    fn whoever_is_not_proven_is_nobody() {
        let (key, other) = (Key::of("secret"), Key::of("another"));
        let good = key.prove(&zoe(), 1000);
        let nobody = key.prove(&Identity::default(), 1000);
        let forged = good.replace("u=7", "u=1");
        for proof in
            [other.prove(&zoe(), 1000), forged, nobody, "v1".into(), good[..good.len() - 2].to_owned()]
        {
            assert_eq!(key.identity(&headers(&proof), 1000), None, "{proof}");
        }
        let mut twice = headers(&good);
        twice.append(HEADER, good.parse().unwrap());
        assert_eq!(key.identity(&twice, 1000), None);
        assert_eq!(key.identity(&HeaderMap::new(), 1000), None);
    }
}
