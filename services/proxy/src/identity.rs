//! Who asks, as far as it was proved here, and how an app is told: in plain headers, and in one that is signed for this app, so
//! that it can tell the proxy's word from that of whoever else reaches it.
//!
//! ```text
//! X-Nexushub-Identity: v1;t=<unix>;u=<user>;n=<name>;s=<session>;c=<caller>;m=<hex>
//! m = HMAC-SHA256(SHA-256(the app's own secret), everything before ";m=")
//! ```

use std::{fmt::Write as _, sync::Arc};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use http::{HeaderMap, HeaderName, HeaderValue};
use nexushub_chassis::launch::secret::hex;

use crate::{door::Caller, headers::CALLER_ID};

/// The user's number.
pub(crate) const USER_ID: HeaderName = HeaderName::from_static("x-user-id");
/// The user's name, percent-encoded.
pub(crate) const USER_NAME: HeaderName = HeaderName::from_static("x-user-name");
/// The user's session.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
/// All of it, signed.
pub(crate) const SIGNED: HeaderName = HeaderName::from_static("x-nexushub-identity");

/// A user in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: i64,
    /// As the user is called; any text.
    pub(crate) name: String,
    pub(crate) session: String,
}

/// Who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    /// The instance that calls, or a daemon.
    pub(crate) caller: Option<Caller>,
    pub(crate) user: Option<Arc<User>>,
    /// The request's bearer was the platform's: it ends here.
    pub(crate) spent: bool,
}

impl Identity {
    /// Whether nothing is known.
    pub(crate) fn is_nobody(&self) -> bool {
        self.caller.is_none() && self.user.is_none()
    }

    /// The caller's id.
    pub(crate) fn caller_id(&self) -> Option<&str> {
        self.caller.as_ref().map(Caller::id)
    }

    /// Tells it in a header section from which clients' own words of that kind are gone. `key`: SHA-256 of the secret of the app
    /// that is asked, which has no signed word without one. `clock`: milliseconds since 1970.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, key: Option<&[u8; 32]>, clock: fn() -> i64) {
        if self.is_nobody() {
            return;
        }
        if let Some(caller) = &self.caller {
            headers.insert(CALLER_ID, caller.value().clone());
        }
        let name = self.user.as_ref().map(|user| percent(&user.name)).unwrap_or_default();
        if let Some(user) = &self.user {
            headers.insert(USER_ID, HeaderValue::from(user.id));
            let texts = [(USER_NAME, name.as_str()), (SESSION_ID, user.session.as_str())];
            for (header, text) in texts {
                if let Ok(value) = HeaderValue::from_str(text) {
                    headers.insert(header, value);
                }
            }
        }
        if let Some(key) = key
            && let Ok(value) = HeaderValue::try_from(self.signed(&name, key, clock() / 1000))
        {
            headers.insert(SIGNED, value);
        }
    }

    fn signed(&self, name: &str, key: &[u8; 32], now_unix: i64) -> String {
        let mut text = format!("v1;t={now_unix};u=");
        if let Some(user) = &self.user {
            let _ = write!(text, "{}", user.id); // a string takes everything
        }
        let session = self.user.as_ref().map_or("", |user| user.session.as_str());
        for piece in [";n=", name, ";s=", session, ";c=", self.caller_id().unwrap_or_default()] {
            text.push_str(piece);
        }
        let mac = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes());
        text.push_str(";m=");
        text.push_str(&hex(mac.as_ref()));
        text
    }
}

/// Whether an id of a session can be told to apps: nothing in it that separates.
pub(crate) fn is_session(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(fits)
}

/// Text with everything but letters, digits and `-._~` as `%XX`.
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // a string takes everything
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sha2::{Digest, Sha256};

    use super::*;

    fn told(identity: &Identity) -> HeaderMap {
        let mut headers = HeaderMap::new();
        identity.tell(&mut headers, Some(&Sha256::digest("the app's secret").into()), || 1_800_000_000_000);
        headers
    }

    fn ada() -> Identity {
        let user = User { id: 7, name: "Ada; n=\"L\"".into(), session: "s-1".into() };
        Identity { user: Some(Arc::new(user)), ..Identity::default() }
    }

    #[test]
    fn an_app_is_told_who_asks_in_words_that_it_can_verify() {
        let headers = told(&Identity { caller: Caller::of("shop"), ..ada() });
        assert_eq!(headers[USER_ID], "7");
        assert_eq!(headers[USER_NAME], "Ada%3B%20n%3D%22L%22");
        assert_eq!(
            (&headers[SESSION_ID], &headers[CALLER_ID]),
            (&"s-1".parse().unwrap(), &"shop".parse().unwrap())
        );
        let text = headers[SIGNED].to_str().unwrap();
        let (said, mac) = text.split_once(";m=").unwrap();
        assert_eq!(said, "v1;t=1800000000;u=7;n=Ada%3B%20n%3D%22L%22;s=s-1;c=shop");
        // Made by another program: printf %s "$said" | openssl dgst -sha256 -mac HMAC -macopt hexkey:$(printf %s "the app's secret" | sha256sum)
        assert_eq!(mac, "bf09cda1c82926e55badfbe6cbce3a9b95e42af2bdd547feeebe87801b5270cf");
    }

    #[test]
    fn what_is_not_known_is_empty_and_of_nobody_nothing_is_said() {
        let text = told(&ada());
        assert!(text[SIGNED].to_str().unwrap().contains(";s=s-1;c=;m="));
        let caller = Identity { caller: Caller::of("shop"), ..Identity::default() };
        assert!(told(&caller)[SIGNED].to_str().unwrap().contains(";u=;n=;s=;c=shop;m="));
        assert!(told(&Identity::default()).is_empty());
        let mut headers = HeaderMap::new();
        ada().tell(&mut headers, None, || 0);
        assert!(headers.contains_key(USER_ID) && !headers.contains_key(SIGNED));
    }
}
