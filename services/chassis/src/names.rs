//! The names that people and programs give to things: instance ids, host names, variables, addresses of development servers.
//! Every daemon and the command line judge them here, so that what one accepts no other refuses or reads differently.
//!
//! Invariant: pure, and made for hostile text: what is accepted is safe as a file name (ids), a host name, a header value and a
//! log field; what is refused is [`shown`], never repeated raw.

mod host_name;
mod http_url;
mod instance_id;

pub use host_name::{HostName, HostNameError, Place, Zone, place};
pub use http_url::HttpUrl;
pub use instance_id::{BadInstanceId, InstanceId};

/// The instance that people log in at; its id and that of the next are the contract's.
pub const LOGIN_INSTANCE: &str = "3bf3e3c0-6e51-482a-b180-00f6aa568ee9";
/// The instance in which the platform's apps and users are kept.
pub const ADMIN_INSTANCE: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";

/// Host names, relative to the base domain, that are the platform's own. Guests know the same from `applib`; a rule of the house
/// holds the two equal.
pub const RESERVED_HOSTS: [&str; 6] = ["login", "admin", INTERNAL, "localhost", "debug", "platform"];
/// Where apps reach each other; no app answers there.
pub(crate) const INTERNAL: &str = "internal";
/// Variables that the platform sets for every app, besides those that begin with `NEXUSHUB_`.
const PLATFORM_VARIABLES: [&str; 7] =
    ["HOST", "INTERNAL_SECRET", "PORT", "SSL_CERT_FILE", "PATH", "HOME", "LANG"];

/// Parts that a file's name in a package may have: `a/b/c` has three.
pub const PACKAGE_DEPTH: usize = 32;

/// The longest label that DNS carries, in bytes.
const LABEL_MAX: usize = 63;
/// The longest full name that DNS carries, in bytes.
const NAME_MAX: usize = 253;
/// The longest name of a variable, in bytes.
const VARIABLE_MAX: usize = 128;

/// Whether the text is one label of a host name: 1 to 63 letters, digits and hyphens, with no hyphen at either end. Any case.
#[must_use]
pub fn is_label(text: &str) -> bool {
    is_name(text) && !text.contains('.')
}

/// Letters and digits, by each byte.
const IN_LABEL: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// Whether the text is a full host name: labels joined by dots, at most 253 bytes. Any case.
#[must_use]
pub fn is_name(text: &str) -> bool {
    // In one pass, since the proxy asks at every request: the bytes of a label so far, and the byte before.
    let (mut length, mut before) = (0, b'.');
    for byte in text.bytes() {
        let fits = match byte {
            b'.' => (1..=LABEL_MAX).contains(&length) && before != b'-',
            b'-' => length > 0,
            _ => IN_LABEL[usize::from(byte)],
        };
        if !fits {
            return false;
        }
        length = if byte == b'.' { 0 } else { length + 1 };
        before = byte;
    }
    text.len() <= NAME_MAX && (1..=LABEL_MAX).contains(&length) && before != b'-'
}

/// The port that the text is: digits and nothing else, and not 0.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && !text.starts_with('+'))
}

/// Whether an environment variable may be called so: `[A-Za-z_][A-Za-z0-9_]*`, at most 128 bytes.
#[must_use]
pub fn is_variable(text: &str) -> bool {
    text.len() <= VARIABLE_MAX
        && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether an environment variable is the platform's to set, and nobody else's.
#[must_use]
pub fn is_platform_variable(name: &str) -> bool {
    PLATFORM_VARIABLES.contains(&name) || name.starts_with("NEXUSHUB_")
}

/// A piece of what somebody sent, fit for a message: quoted, escaped and short.
#[must_use]
pub fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    let shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() { format!("`{shown}…`") } else { format!("`{shown}`") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_label_is_what_dns_carries() {
        for good in ["a", "A", "7", "a-b", "xn--bcher-kva", &"a".repeat(63)] {
            assert!(is_label(good) && is_name(good), "{good}");
        }
        for bad in ["", "-", "-a", "a-", "a_b", "a b", "a/b", "ä", "a\0", "*", "a:", &"a".repeat(64)] {
            assert!(!is_label(bad) && !is_name(bad), "{bad:?}");
        }
        assert!(is_name("a.b.C") && !is_label("a.b"));
        for bad in [".", "a.", ".a", "a..b", "a.-b", &["a"; 128].join(".")] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_port_is_digits_and_nothing_else() {
        assert_eq!((port("1"), port("8443"), port("65535")), (Some(1), Some(8443), Some(65535)));
        for bad in ["", "0", "65536", "+80", "-1", " 80", "80 ", "8443:1", "x", "٨"] {
            assert_eq!(port(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_variable_is_called_as_every_shell_allows() {
        for good in ["A", "_", "a1_B", &"A".repeat(128)] {
            assert!(is_variable(good), "{good}");
        }
        for bad in ["", "1A", "A=B", "A B", "A-B", "Ä", "A\0", &"A".repeat(129)] {
            assert!(!is_variable(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_platform_has_variables_of_its_own() {
        for own in
            ["HOST", "PORT", "INTERNAL_SECRET", "PATH", "HOME", "LANG", "SSL_CERT_FILE", "NEXUSHUB_ANY"]
        {
            assert!(is_platform_variable(own), "{own}");
        }
        assert!(!is_platform_variable("DATABASE_URL") && !is_platform_variable("host"));
    }

    #[test]
    fn what_is_shown_is_quoted_and_cut() {
        assert_eq!(shown("a\r\nb"), "`a\\r\\nb`");
        assert_eq!(shown(&"x".repeat(81)), format!("`{}…`", "x".repeat(80)));
    }

    proptest! {
        #[test]
        fn a_name_is_labels_joined_by_dots(text in "[aZ7.-]{0,12}|[aZ7._\\-é ]{0,4}|a{60,66}(\\.a{0,64}){0,4}") {
            let labels = text.split('.').all(|label| {
                let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
            });
            prop_assert_eq!(is_name(&text), labels && text.len() <= 253);
            prop_assert_eq!(is_label(&text), labels && !text.contains('.'));
        }

        #[test]
        fn nothing_is_shown_that_moves_a_cursor_or_fills_a_log(text in any::<String>()) {
            let shown = shown(&text);
            prop_assert!(!shown.contains(char::is_control));
            prop_assert!(shown.chars().count() <= 3 + 80 * 10); // each at most `\u{10ffff}`
        }

        #[test]
        fn any_text_is_judged_without_harm(text in ".{0,300}") {
            let _ = (is_label(&text), is_variable(&text), port(&text), HttpUrl::parse(&text));
            prop_assert_eq!(is_name(&text), is_name(&text.to_ascii_uppercase()));
        }
    }
}
