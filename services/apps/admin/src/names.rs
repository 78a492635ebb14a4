//! What names may be: judged once, where they come in.

use nexushub_applib::{Refusal, wellknown::RESERVED_HOSTS};

/// Characters of an app id or a display name.
const NAME_MAX: usize = 128;
/// Characters of a user's name.
const USER_MAX: usize = 64;

/// The id of an application: what a package is for.
pub(crate) fn app_id(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let whole =
        (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(good) && !text.starts_with(['.', '-']);
    let why = "an app id is 1 to 128 letters, digits, dots, hyphens and underscores, and begins with none of the first two signs";
    whole.then(|| text.to_owned()).ok_or_else(|| Refusal::bad(why))
}

/// The id of an instance.
pub(crate) fn instance_id(text: &str) -> Result<String, Refusal> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let whole = (1..=64).contains(&text.len()) && text.bytes().all(good);
    whole.then(|| text.to_owned()).ok_or_else(|| Refusal::bad("this is no id of an instance"))
}

/// What people call an application; none is its app id.
pub(crate) fn display_name(text: &str, app_id: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(app_id.to_owned());
    }
    let whole = text.chars().count() <= NAME_MAX && !text.chars().any(char::is_control);
    whole
        .then(|| text.to_owned())
        .ok_or_else(|| Refusal::bad("a display name is at most 128 characters on one line"))
}

/// A host name, relative to the base domain: written so, or in full, or with a port.
pub(crate) fn host_name(text: &str, base: &str) -> Result<String, Refusal> {
    let name = text.trim().to_ascii_lowercase();
    let name = name.split(':').next().unwrap_or_default().trim_end_matches('.');
    let name = name.strip_suffix(base).and_then(|rest| rest.strip_suffix('.')).unwrap_or(name);
    if !name.split('.').all(is_label) || name.len() + base.len() > 250 {
        let why = format!("`{}` is no host name: letters, digits and hyphens, joined by dots", shown(text));
        return Err(Refusal::bad(why));
    }
    if RESERVED_HOSTS.contains(&name) || name.ends_with(".debug") {
        return Err(Refusal::bad(format!(
            "the host name `{name}` is reserved for the platform; take another"
        )));
    }
    Ok(name.to_owned())
}

/// Whether it is a part of a host name, in small letters.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A user's name.
pub(crate) fn user_name(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let good = |char: char| char.is_alphanumeric() || "._-@+".contains(char);
    let whole = (1..=USER_MAX).contains(&text.chars().count()) && text.chars().all(good);
    whole
        .then(|| text.to_owned())
        .ok_or_else(|| Refusal::bad("a user name is 1 to 64 letters, digits and the signs . _ - @ +"))
}

/// The beginning of what somebody wrote, on one line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BASE: &str = "yesterday.localhost";

    #[test]
    fn a_host_name_may_be_written_in_full_and_is_kept_relative() {
        for text in [
            "shop",
            "Shop",
            " shop.yesterday.localhost",
            "shop.yesterday.localhost:8443",
            "shop:8443",
            "shop.",
        ] {
            assert_eq!(host_name(text, BASE).unwrap(), "shop", "{text}");
        }
        assert_eq!(host_name("a.b-c", BASE).unwrap(), "a.b-c");
    }

    #[test]
    fn what_is_no_host_name_or_the_platforms_own_is_refused() {
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "-a", "a-", "a_b", "a b", "é", &long, "*.a", "yesterday.localhost/x"] {
            assert!(host_name(text, BASE).unwrap_err().text.contains("no host name"), "{text}");
        }
        for text in ["login", "ADMIN", "internal.yesterday.localhost", "debug", "x.debug"] {
            assert!(host_name(text, BASE).unwrap_err().text.contains("reserved"), "{text}");
        }
    }

    #[test]
    fn other_names_are_judged_too() {
        assert_eq!(app_id(" github_com__you__shop ").unwrap(), "github_com__you__shop");
        for text in ["", "a/b", "..", "a b", "-x"] {
            assert!(app_id(text).is_err(), "{text}");
        }
        assert_eq!(display_name("  ", "shop").unwrap(), "shop");
        assert_eq!(display_name("Zoë's <shop>", "shop").unwrap(), "Zoë's <shop>");
        assert!(display_name("a\nb", "shop").is_err());
        assert_eq!(user_name("zoë@example.org").unwrap(), "zoë@example.org");
        assert!(user_name("a b").is_err() && user_name("").is_err());
    }
}
