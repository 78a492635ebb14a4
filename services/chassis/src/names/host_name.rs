//! Host names as they are typed and as they are kept: relative to the platform's base domain, lower case.
//! Accepted are `login`, `login.<base>` and either with the platform's port or 8443; whatever was accepted once is accepted again
//! in the form it is kept in, unchanged.

use std::fmt;

use nexushub_launch::config::Platform;
use serde::{Deserialize, Serialize};

use super::{INTERNAL, NAME_MAX, is_label, port, shown};

/// The port that names may carry besides the platform's own: what the contract's clients send.
const USUAL_PORT: u16 = 8443;

/// How a host name lies to the base domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// Below it, by this relative name.
    Under(&'a str),
    /// The base domain itself.
    Base,
    /// Somewhere else.
    Outside,
}

/// Where a host name lies; both are lower case. Copies nothing: the proxy asks at every request.
#[must_use]
pub fn place<'a>(host: &'a str, base: &str) -> Place<'a> {
    match host.strip_suffix(base) {
        Some("") => Place::Base,
        Some(rest) => match rest.strip_suffix('.') {
            Some(relative) if !relative.is_empty() => Place::Under(relative),
            _ => Place::Outside,
        },
        None => Place::Outside,
    }
}

/// What names are relative to: the base domain and the public port of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    base: String,
    port: u16,
}

impl Zone {
    /// Below `base`, in any case.
    #[must_use]
    pub fn new(base: &str, port: u16) -> Self {
        Self { base: base.to_ascii_lowercase(), port }
    }

    /// The base domain, lower case.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The platform's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a relative host name.
    #[must_use]
    pub fn url(&self, relative: &str) -> String {
        format!("https://{relative}.{}:{}/", self.base, self.port)
    }

    fn has_port(&self, typed: &str) -> bool {
        // A leading zero is nobody's way to write a port.
        !typed.starts_with('0') && port(typed).is_some_and(|port| port == self.port || port == USUAL_PORT)
    }
}

impl From<&Platform> for Zone {
    fn from(platform: &Platform) -> Self {
        Self::new(&platform.base_domain, platform.listen.port())
    }
}

/// A host name relative to the base domain: `hello`, `shop.debug`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Why a host name is refused; the text is the name as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostNameError {
    /// Nothing is left of it.
    Empty,
    /// It holds a character that no host name may hold.
    Character(String),
    /// A label is empty, too long, or begins or ends with `-`.
    Label(String),
    /// Too long, alone or together with the base domain.
    Long(String),
    /// It carries a port that isn't the platform's.
    Port(String),
    /// It still ends with the base domain after that was taken off.
    Twice(String),
    /// It leads to the platform itself.
    Reserved(String),
}

impl HostName {
    /// Judges a name as typed.
    ///
    /// # Errors
    /// When it isn't a host name below `zone`.
    pub fn parse(typed: &str, zone: &Zone) -> Result<Self, HostNameError> {
        let refused = |why: fn(String) -> HostNameError| Err(why(shown(typed)));
        if typed.len() > NAME_MAX + ":65535".len() {
            return refused(HostNameError::Long);
        }
        let name = match typed.split_once(':') {
            Some((name, port)) if zone.has_port(port) => name,
            Some(_) => return refused(HostNameError::Port),
            None => typed,
        };
        let name = name.to_ascii_lowercase();
        let relative = match place(&name, &zone.base) {
            Place::Under(relative) => relative,
            Place::Base => return Err(HostNameError::Empty),
            Place::Outside => &name,
        };
        judge(relative, typed)?;
        if relative.len() + 1 + zone.base.len() > NAME_MAX {
            return refused(HostNameError::Long);
        }
        if place(relative, &zone.base) != Place::Outside {
            return refused(HostNameError::Twice);
        }
        if relative == INTERNAL {
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

/// Whether `relative`, lower case, has the form that names are kept in.
fn judge(relative: &str, typed: &str) -> Result<(), HostNameError> {
    if relative.is_empty() {
        return Err(HostNameError::Empty);
    }
    if relative.len() > NAME_MAX {
        return Err(HostNameError::Long(shown(typed)));
    }
    if !relative.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.') {
        return Err(HostNameError::Character(shown(typed)));
    }
    if !relative.split('.').all(is_label) {
        return Err(HostNameError::Label(shown(typed)));
    }
    Ok(())
}

/// A relative name that is read back, when no zone is at hand.
impl TryFrom<String> for HostName {
    type Error = HostNameError;

    fn try_from(mut text: String) -> Result<Self, HostNameError> {
        text.make_ascii_lowercase();
        judge(&text, &text)?;
        Ok(Self(text))
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, why) = match self {
            Self::Empty => return f.write_str("a host name is empty or is the base domain itself"),
            Self::Character(name) => (name, "holds a character other than letters, digits, `-` and `.`"),
            Self::Label(name) => {
                (name, "has a label that is empty, longer than 63 characters, or begins or ends with `-`")
            }
            Self::Long(name) => (name, "is longer than 253 characters with the base domain"),
            Self::Port(name) => (name, "carries a port that is not the platform's"),
            Self::Twice(name) => (name, "holds the base domain twice"),
            Self::Reserved(name) => (name, "is reserved for the platform itself"),
        };
        write!(f, "host name {name} {why}")
    }
}

impl std::error::Error for HostNameError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn zone() -> Zone {
        Zone::new("Yesterday.localhost", 9443)
    }

    fn parse(typed: &str) -> Result<String, HostNameError> {
        HostName::parse(typed, &zone()).map(|name| name.0)
    }

    #[test]
    fn every_spelling_is_kept_as_the_relative_name() {
        for typed in [
            "login",
            "LOGIN:8443",
            "login:9443",
            "login.yesterday.localhost",
            "login.Yesterday.Localhost:8443",
        ] {
            assert_eq!(parse(typed).unwrap(), "login", "{typed}");
        }
        for typed in ["shop.debug", "SHOP.debug:8443", "shop.debug.yesterday.localhost:9443"] {
            assert_eq!(parse(typed).unwrap(), "shop.debug", "{typed}");
        }
    }

    #[test]
    fn a_foreign_port_is_refused() {
        for typed in ["a:80", "a:", "a:x", "a:99999", "a:8443:8443", "a:1:2", "a:08443", "a:+8443", "[::1]"] {
            assert!(matches!(parse(typed), Err(HostNameError::Port(_))), "{typed}");
        }
    }

    #[test]
    fn the_base_domain_itself_names_no_app() {
        for typed in ["", "yesterday.localhost", ":8443", "yesterday.localhost:8443"] {
            assert_eq!(parse(typed), Err(HostNameError::Empty), "{typed}");
        }
        assert!(matches!(parse(".yesterday.localhost"), Err(HostNameError::Label(_))));
        assert!(matches!(parse("a.yesterday.localhost.yesterday.localhost"), Err(HostNameError::Twice(_))));
    }

    #[test]
    fn hostile_names_are_refused_and_named_harmlessly() {
        let (long, many) = ("a".repeat(64), "a.".repeat(120) + "a");
        for typed in [
            ".",
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
            "a\n",
            "a\r\nHost: x",
            "*",
            "münchen",
            "xn--\u{202e}",
            "a%2e",
            &long,
            &many,
            "internal",
            "INTERNAL.yesterday.localhost:8443",
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

    #[test]
    fn a_kept_name_is_judged_again_when_it_is_read_back() {
        let name = HostName::parse("Shop.debug", &zone()).unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), r#""shop.debug""#);
        assert_eq!(serde_json::from_str::<HostName>(r#""shop.debug""#).unwrap(), name);
        for bad in ["", "a b", "a:8443", "-a", "a."] {
            assert!(HostName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_under_the_base_only_at_a_label_border() {
        let base = "yesterday.localhost";
        assert_eq!(place("hello.yesterday.localhost", base), Place::Under("hello"));
        assert_eq!(place("shop.debug.yesterday.localhost", base), Place::Under("shop.debug"));
        assert_eq!(place("yesterday.localhost", base), Place::Base);
        assert_eq!(place("notyesterday.localhost", base), Place::Outside);
        assert_eq!(place(".yesterday.localhost", base), Place::Outside);
        assert_eq!(place("localhost", base), Place::Outside);
        assert_eq!(place("hello.yesterday.localhost.evil.example", base), Place::Outside);
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_harm_and_what_is_kept_is_kept_unchanged(typed in ".{0,300}|[a-zA-Z0-9.:-]{0,40}") {
            if let Ok(name) = HostName::parse(&typed, &zone()) {
                prop_assert!(name.0.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
                prop_assert_eq!(HostName::parse(&name.0, &zone()).unwrap(), name.clone());
                prop_assert_eq!(HostName::try_from(name.0.clone()).unwrap(), name);
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
