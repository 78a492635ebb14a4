//! Host names as clients write them: `Hello.Yesterday.localhost.:8443` -> `hello.yesterday.localhost`.
//! Pure; whatever a client sends yields a clean name or `Malformed`, never a panic.

use std::borrow::Cow;

use memchr::memchr;
use nexushub_chassis::names::port;
pub(crate) use nexushub_chassis::names::{Place, is_name, place};

/// What isn't a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("host name is malformed")]
pub(crate) struct Malformed;

/// The host name in an authority: lower case, without port and trailing dot. User info is refused.
pub(crate) fn parse(authority: &str) -> Result<Cow<'_, str>, Malformed> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(Malformed)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| Malformed)?;
        check_port(port)?;
        return Ok(Cow::Owned(address.to_ascii_lowercase()));
    }
    let (name, port) = match memchr(b':', authority.as_bytes()) {
        Some(at) => authority.split_at(at),
        None => (authority, ""),
    };
    check_port(port)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    if !is_name(name) {
        return Err(Malformed);
    }
    // All of it is looked at, which is done many bytes at once.
    if name.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(name.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(name))
}

/// A colon and a port, or nothing.
fn check_port(text: &str) -> Result<(), Malformed> {
    match text.strip_prefix(':') {
        Some(digits) => port(digits).map(drop).ok_or(Malformed),
        None if text.is_empty() => Ok(()),
        None => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_without_case_port_and_trailing_dot() {
        for (written, read) in [
            ("hello.yesterday.localhost", "hello.yesterday.localhost"),
            ("Hello.YESTERDAY.localhost", "hello.yesterday.localhost"),
            ("hello.yesterday.localhost:8443", "hello.yesterday.localhost"),
            ("hello.yesterday.localhost.", "hello.yesterday.localhost"),
            ("hello.yesterday.localhost.:443", "hello.yesterday.localhost"),
            ("xn--bcher-kva.example:1", "xn--bcher-kva.example"),
            ("127.0.0.1:8443", "127.0.0.1"),
            ("[::1]:8443", "::1"),
            ("[FE80::1]", "fe80::1"),
            ("a", "a"),
        ] {
            assert_eq!(parse(written).as_deref(), Ok(read), "{written}");
        }
    }

    #[test]
    fn what_is_not_a_name_is_malformed() {
        let long_label = format!("{}.localhost", "a".repeat(64));
        let long_name = ["a"; 128].join(".");
        for written in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "a\tb",
            "a\0b",
            "a/b",
            "a@b",
            "user@hello.localhost",
            "a:b",
            "a:",
            "a:0",
            "a:99999",
            "a:8443:1",
            "a:+1",
            "-a.localhost",
            "a-.localhost",
            "a_b.localhost",
            "bücher.localhost",
            "[::1",
            "[::1]x",
            "[x]",
            "::1",
            "a%2eb",
            "a,b",
            "a\r\nb",
            "*.localhost",
            &long_label,
            &long_name,
        ] {
            assert_eq!(parse(written), Err(Malformed), "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_hosts_never_panic_and_yield_clean_names(written in ".{0,300}") {
            if let Ok(name) = parse(&written) {
                let clean = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte);
                prop_assert!(name.bytes().all(clean));
                prop_assert!(!name.is_empty());
                let _ = place(&name, "yesterday.localhost");
            }
        }

        #[test]
        fn reading_a_read_name_changes_nothing(written in "[a-zA-Z0-9.-]{0,80}(:[0-9]{1,5})?") {
            if let Ok(name) = parse(&written) {
                prop_assert_eq!(parse(&name).unwrap(), name.clone());
            }
        }
    }
}
