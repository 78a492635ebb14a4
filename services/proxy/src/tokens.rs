//! Access tokens: what a user shows for ten minutes to one app. The proxy alone makes and checks them: a check is one look at the
//! keys and one MAC, without a lock and without asking anybody. They are opaque to everybody else.
//!
//! ```text
//! "nxa1." base64url( name of the key, 16 bytes
//!                  · expiry, 8 bytes, ms since 1970 · user, 8 bytes
//!                  · length, 1 byte, and text: session · instance · user's name
//!                  · HMAC-SHA256 of all before it, 32 bytes )
//! ```

use std::{path::Path, sync::Arc};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use data_encoding::BASE64URL_NOPAD;

use crate::{
    identity::User,
    keys::{Keys, NAME_LEN},
};

/// How long a token is good, in milliseconds.
pub(crate) const LIFETIME_MS: i64 = 600_000;
/// How each begins.
const PREFIX: &str = "nxa1.";
const MAC_LEN: usize = 32;
/// A token has at most so many bytes before they are written as text.
const MOST_BYTES: usize = NAME_LEN + 8 + 8 + 3 * 256 + MAC_LEN;
/// Longest name of a user that is told, in bytes; the rest is cut.
const NAME_MOST: usize = 128;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// The instance that it is good for.
    pub(crate) instance: String,
    pub(crate) user: Arc<User>,
    pub(crate) expires_ms: i64,
}

impl Access {
    /// When it was made.
    pub(crate) fn born_ms(&self) -> i64 {
        self.expires_ms.saturating_sub(LIFETIME_MS)
    }
}

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    /// It is no token of this platform, or of a key that is not known any more.
    #[error("the access token is not known")]
    Unknown,
    /// Somebody changed it.
    #[error("the access token is forged")]
    Forged,
    /// Its time is over.
    #[error("the access token has expired")]
    Expired,
    /// Its user was logged out.
    #[error("the access token was revoked")]
    Revoked,
    /// It is for another app.
    #[error("the access token is for another app")]
    Elsewhere,
}

/// Makes and checks tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    keys: Keys<hmac::Key>,
}

impl Tokens {
    /// With the keys that are kept below this state folder, or new ones.
    pub(crate) fn load(state: &Path, now_unix: i64) -> Self {
        let tool = |bytes: &[u8; 32]| Some(hmac::Key::new(HMAC_SHA256, bytes));
        Self { keys: Keys::load(state, "tokens.json", tool, now_unix) }
    }

    /// Whether a bearer is meant to be one of these.
    pub(crate) fn is_one(bearer: &str) -> bool {
        bearer.starts_with(PREFIX)
    }

    /// A token for an instance; none if there is no key, or if what it should say can't be said. Reads and writes files when it is
    /// time for a new key.
    pub(crate) fn make(&self, instance: &str, user: &User, now_ms: i64) -> Option<String> {
        self.keys.tend(now_ms / 1000);
        let keys = self.keys.ring();
        let key = keys.first()?;
        let mut bytes = Vec::with_capacity(MOST_BYTES);
        bytes.extend_from_slice(&key.name);
        bytes.extend_from_slice(&(now_ms + LIFETIME_MS).to_be_bytes());
        bytes.extend_from_slice(&user.id.to_be_bytes());
        for text in [user.session.as_str(), instance, cut(&user.name)] {
            bytes.push(u8::try_from(text.len()).ok()?);
            bytes.extend_from_slice(text.as_bytes());
        }
        let mac = hmac::sign(&key.tool, &bytes);
        bytes.extend_from_slice(mac.as_ref());
        Some(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// What a token says that is good now.
    pub(crate) fn check(&self, token: &str, now_ms: i64) -> Result<Access, Bad> {
        let access = self.read(token, now_ms)?;
        if now_ms >= access.expires_ms { Err(Bad::Expired) } else { Ok(access) }
    }

    /// What a token says that was made here, whether its time is over or not.
    pub(crate) fn read(&self, token: &str, now_ms: i64) -> Result<Access, Bad> {
        let text = token.strip_prefix(PREFIX).ok_or(Bad::Unknown)?.as_bytes();
        let mut space = [0; MOST_BYTES];
        let length = BASE64URL_NOPAD.decode_len(text.len()).map_err(|_| Bad::Unknown)?;
        let room = space.get_mut(..length).ok_or(Bad::Unknown)?;
        BASE64URL_NOPAD.decode_mut(text, room).map_err(|_| Bad::Unknown)?;
        let (said, mac) = room.split_last_chunk::<MAC_LEN>().ok_or(Bad::Unknown)?;
        let (name, rest) = said.split_first_chunk::<NAME_LEN>().ok_or(Bad::Unknown)?;
        let verified = |keys: &Keys<hmac::Key>| {
            // Names are no secret: each token shows one.
            let keys = keys.ring();
            let key = keys.iter().find(|key| key.name == *name)?;
            Some(hmac::verify(&key.tool, said, mac).is_ok())
        };
        let found = verified(&self.keys)
            .or_else(|| if self.keys.search(now_ms / 1000) { verified(&self.keys) } else { None });
        match found {
            None => Err(Bad::Unknown),
            Some(false) => Err(Bad::Forged),
            Some(true) => decoded(rest).ok_or(Bad::Unknown),
        }
    }
}

/// What the verified part says.
pub(crate) fn decoded(rest: &[u8]) -> Option<Access> {
    let (expires, rest) = rest.split_first_chunk()?;
    let (id, mut rest) = rest.split_first_chunk()?;
    let mut text = || {
        let (length, more) = rest.split_first()?;
        let (text, more) = more.split_at_checked(usize::from(*length))?;
        rest = more;
        str::from_utf8(text).ok().map(str::to_owned)
    };
    let (session, instance, name) = (text()?, text()?, text()?);
    let user = Arc::new(User { id: i64::from_be_bytes(*id), name, session });
    Some(Access { instance, user, expires_ms: i64::from_be_bytes(*expires) })
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_MOST)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::{OPENS, SEALS};

    const NOW: i64 = 1_800_000_000_000;

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let state = tempfile::tempdir().unwrap();
        let tokens = Tokens::load(state.path(), NOW / 1000);
        (state, tokens)
    }

    fn ada() -> User {
        User { id: 7, name: "Ada Lovelace".into(), session: "a-session".into() }
    }

    #[test]
    fn a_token_says_whose_and_what_for_until_its_time_is_over() {
        let (_state, tokens) = tokens();
        let token = tokens.make("shop", &ada(), NOW).unwrap();
        let access = tokens.check(&token, NOW + LIFETIME_MS - 1).unwrap();
        assert_eq!((access.instance.as_str(), &*access.user, access.born_ms()), ("shop", &ada(), NOW));
        assert_eq!(tokens.check(&token, NOW + LIFETIME_MS), Err(Bad::Expired));
        assert_eq!(tokens.read(&token, NOW + LIFETIME_MS).unwrap(), access);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)), "{token}");
    }

    #[test]
    fn what_was_changed_anywhere_cut_or_made_by_others_is_none() {
        let (_state, tokens) = tokens();
        let token = tokens.make("shop", &ada(), NOW).unwrap();
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert!(tokens.check(&String::from_utf8(forged).unwrap(), NOW).is_err(), "byte {at}");
            assert!(tokens.check(&token[..at], NOW).is_err(), "{at} bytes");
        }
        let (_other, stranger) = self::tokens();
        assert_eq!(stranger.check(&token, NOW), Err(Bad::Unknown));
        for noise in
            ["", "nxa1.", "nxa1.AAAA", &format!("nxa1.{}", "A".repeat(100_000)), &format!("{token}A")]
        {
            assert!(tokens.check(noise, NOW).is_err());
        }
    }

    #[test]
    fn a_token_outlives_its_process_and_a_new_key() {
        let (state, tokens) = tokens();
        let token = tokens.make("shop", &ada(), NOW).unwrap();
        let next = Tokens::load(state.path(), NOW / 1000 + 60);
        assert!(next.check(&token, NOW).is_ok());
        let later = NOW + SEALS * 1000;
        let newer = next.make("shop", &ada(), later).unwrap();
        assert!(
            tokens.check(&newer, later).is_ok(),
            "the older generation finds the key that the newer made"
        );
        assert!(tokens.read(&token, later).is_ok());
        let after = NOW + OPENS * 1000;
        assert_eq!(Tokens::load(state.path(), after / 1000).read(&token, after), Err(Bad::Unknown));
    }

    #[test]
    fn a_name_too_long_is_cut_and_an_instance_too_long_gets_none() {
        let (_state, tokens) = tokens();
        let user = User { name: "ä".repeat(100), ..ada() };
        let token = tokens.make(&"i".repeat(64), &user, NOW).unwrap();
        assert_eq!(tokens.check(&token, NOW).unwrap().user.name, "ä".repeat(64));
        assert_eq!(tokens.make(&"i".repeat(256), &user, NOW), None);
    }
}
