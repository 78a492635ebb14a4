//! The person on whose behalf the admin app asks and from where, as it says: for the trail and for people, and for nothing that is
//! decided.

use std::{convert::Infallible, net::IpAddr};

use axum::extract::FromRequestParts;
use http::request::Parts;

/// Longest name, in bytes.
const LONGEST: usize = 128;

/// From where people ask who use the admin app, where it does not say it.
const FROM: &str = "admin app";

/// Who it is; `unknown` where nothing sensible is said.
pub(crate) struct Acting {
    pub(super) who: String,
    pub(super) from: String,
}

impl<S: Sync> FromRequestParts<S> for Acting {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let said = parts.headers.get("x-acting-user").and_then(|user| decoded(user.as_bytes()));
        let plain = |name: &String| (1..=LONGEST).contains(&name.len()) && !name.contains(char::is_control);
        let who = said.filter(plain).unwrap_or_else(|| "unknown".to_owned());
        let from = parts.headers.get("x-acting-address").and_then(|from| from.to_str().ok());
        Ok(Self { who, from: place(from.unwrap_or_default(), FROM) })
    }
}

/// An address as it is written down, if it is one.
pub(super) fn place(said: &str, otherwise: &str) -> String {
    said.parse::<IpAddr>().map_or_else(|_| otherwise.to_owned(), |address| address.to_string())
}

/// UTF-8 of which some bytes are written as `%` and two hexadecimal digits.
fn decoded(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.split_at_checked(2)).flatten();
        match escaped.and_then(|(digits, after)| Some((hex(digits)?, after))) {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Two digits and nothing else: no sign, no space.
fn hex(digits: &[u8]) -> Option<u8> {
    let plain = digits.iter().all(u8::is_ascii_hexdigit);
    str::from_utf8(digits).ok().filter(|_| plain).and_then(|digits| u8::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn acting(said: Option<&str>) -> String {
        let mut request = http::Request::builder();
        if let Some(said) = said {
            request = request.header("x-acting-user", said);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let Ok(Acting { who, .. }) = Acting::from_request_parts(&mut parts, &()).await;
        who
    }

    #[test]
    fn an_address_is_written_down_and_nothing_else_as_one() {
        assert_eq!(place("192.0.2.1", FROM), "192.0.2.1");
        assert_eq!(place("2001:db8::1", FROM), "2001:db8::1");
        for nonsense in ["", "192.0.2.1:80", "somewhere", "192.0.2.1\n"] {
            assert_eq!(place(nonsense, FROM), FROM);
        }
    }

    #[tokio::test]
    async fn a_name_is_read_in_any_script_and_nonsense_is_nobody() {
        for (said, who) in [
            ("ada", "ada"),
            ("Zo%C3%AB%20B", "Zoë B"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%+1", "%+1"),
            ("a%0Ab", "unknown"),
            ("%FF", "unknown"),
            ("", "unknown"),
            (&"x".repeat(129), "unknown"),
        ] {
            assert_eq!(acting(Some(said)).await, who, "{said}");
        }
        assert_eq!(acting(None).await, "unknown");
    }
}
