//! Host names as they are typed and as they are kept: relative to the platform's base domain, lower case.
//! Accepted are `login`, `login.<base>` and either with the platform's port; whatever was accepted once is accepted again in
//! the form it is kept in, unchanged.

use std::fmt;

/// The longest label that DNS carries.
const LABEL_MAX: usize = 63;
/// The longest full name that DNS carries.
const NAME_MAX: usize = 253;
/// The port that names may carry besides the configured one: what the contract's clients send.
const USUAL_PORT: u16 = 8443;
/// Names that lead to the platform itself.
const RESERVED: [&str; 1] = ["internal"];

/// What names are relative to: the base domain and the port of the platform.
#[derive(Clone, Debug)]
pub struct Zone {
    /// `yesterday.localhost`
    pub base: String,
    /// The port people reach the platform at.
    pub port: u16,
}

/// A host name relative to the base domain: `hello`, `shop.debug`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a host name is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// Nothing is left of it.
    #[error("a host name is empty or is the base domain itself")]
    Empty,
    /// It holds a character that no host name may hold.
    #[error("host name {0} holds a character other than letters, digits, `-` and `.`")]
    Character(String),
    /// A label is empty, too long, or starts or ends with `-`.
    #[error("host name {0} has a label that is empty, longer than 63 characters, or begins or ends with `-`")]
    Label(String),
    /// Too long together with the base domain.
    #[error("host name {0} is longer than 253 characters with the base domain")]
    Long(String),
    /// It carries a port that isn't the platform's.
    #[error("host name {0} carries a port that is not the platform's")]
    Port(String),
    /// It still ends with the base domain after that was taken off.
    #[error("host name {0} holds the base domain twice")]
    Twice(String),
    /// It leads to the platform itself.
    #[error("host name {0} is reserved for the platform itself")]
    Reserved(String),
}

impl HostName {
    /// Judges a name as typed.
    ///
    /// # Errors
    /// When it isn't a host name below `zone`.
    pub fn parse(typed: &str, zone: &Zone) -> Result<Self, HostNameError> {
        let refused = |why: fn(String) -> HostNameError| Err(why(quoted(typed)));
        if typed.len() > NAME_MAX + ":65535".len() {
            return refused(HostNameError::Long);
        }
        let name = match typed.split_once(':') {
            Some((name, port)) if is_port(port, zone) => name,
            Some(_) => return refused(HostNameError::Port),
            None => typed,
        }
        .to_ascii_lowercase();
        let base = zone.base.to_ascii_lowercase();
        let relative = strip_base(&name, &base);
        if relative.is_empty() {
            return Err(HostNameError::Empty);
        }
        if !relative.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            return refused(HostNameError::Character);
        }
        if !relative.split('.').all(is_label) {
            return refused(HostNameError::Label);
        }
        if relative.len() + 1 + base.len() > NAME_MAX {
            return refused(HostNameError::Long);
        }
        if strip_base(relative, &base) != relative {
            return refused(HostNameError::Twice);
        }
        if RESERVED.contains(&relative) {
            return refused(HostNameError::Reserved);
        }
        Ok(Self(relative.to_owned()))
    }

    /// The relative name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A piece of what somebody sent, fit for a message: escaped and short.
#[must_use]
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 64;
    let shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() { format!("`{shown}…`") } else { format!("`{shown}`") }
}

fn is_port(port: &str, zone: &Zone) -> bool {
    port == zone.port.to_string() || port == USUAL_PORT.to_string()
}

fn strip_base<'a>(name: &'a str, base: &str) -> &'a str {
    match name.strip_suffix(base) {
        Some("") => "",
        Some(rest) => rest.strip_suffix('.').unwrap_or(name),
        None => name,
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.len() <= LABEL_MAX && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn zone() -> Zone {
        Zone { base: "yesterday.localhost".into(), port: 9443 }
    }

    fn parse(typed: &str) -> Result<String, HostNameError> {
        HostName::parse(typed, &zone()).map(|name| name.0)
    }

    #[test]
    fn all_four_spellings_are_kept_as_the_relative_name() {
        for typed in [
            "login",
            "LOGIN:8443",
            "login:9443",
            "login.yesterday.localhost",
            "login.Yesterday.Localhost:8443",
        ] {
            assert_eq!(parse(typed).unwrap(), "login", "{typed}");
        }
        assert_eq!(parse("shop.debug").unwrap(), "shop.debug");
    }

    #[test]
    fn a_foreign_port_is_refused() {
        for typed in ["login:80", "login:", "login:8443:8443", "login:08443", "login:+8443"] {
            assert!(matches!(parse(typed), Err(HostNameError::Port(_))), "{typed}");
        }
    }

    #[test]
    fn the_base_domain_itself_names_no_app() {
        for typed in ["", "yesterday.localhost", ":8443", "yesterday.localhost:8443"] {
            assert_eq!(parse(typed), Err(HostNameError::Empty), "{typed}");
        }
        assert!(matches!(parse(".yesterday.localhost"), Err(HostNameError::Empty)));
    }

    #[test]
    fn hostile_names_are_refused_and_named_harmlessly() {
        let long = "a".repeat(64);
        for typed in [
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a_b",
            "a b",
            "a/b",
            "../x",
            "a\0",
            "a\r\nHost: x",
            "*",
            "münchen",
            "xn--\u{202e}",
            "[::1]",
            "a%2e",
            &long,
            "internal",
            "a.yesterday.localhost.yesterday.localhost",
        ] {
            let error = parse(typed).unwrap_err().to_string();
            assert!(!error.contains(char::is_control), "{error}");
        }
        assert!(parse(&"a.".repeat(5000)).unwrap_err().to_string().len() < 256);
    }

    #[test]
    fn the_full_name_may_not_pass_the_limit_of_dns() {
        let fits = vec!["a".repeat(57); 4].join("."); // 231 + 1 + 19 = 251
        assert!(parse(&fits).is_ok());
        assert!(matches!(parse(&format!("{fits}aaa")), Err(HostNameError::Long(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_harm_and_what_is_kept_is_kept_unchanged(typed in ".{0,300}") {
            if let Ok(name) = HostName::parse(&typed, &zone()) {
                prop_assert!(name.0.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
                prop_assert_eq!(HostName::parse(&name.0, &zone()).unwrap(), name);
            }
        }

        #[test]
        fn every_spelling_of_a_name_means_the_same(name in "[a-zA-Z0-9]{1,20}(\\.[a-zA-Z0-9]{1,20}){0,3}") {
            prop_assume!(!name.eq_ignore_ascii_case("internal"));
            let kept = parse(&name).unwrap();
            for typed in [format!("{name}:8443"), format!("{name}.yesterday.localhost"), format!("{name}.yesterday.localhost:9443")] {
                prop_assert_eq!(parse(&typed).unwrap(), kept.clone());
            }
        }
    }
}
