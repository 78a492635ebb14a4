//! What kind of path a request asks for. Pure.
//!
//! A path is judged as written and as apps read it: decoded, once or twice, `.` and `..` resolved or not, with `;parameters` or without,
//! empty segments counted or not, backslashes as separators or not, letter case ignored. Apps differ in the order of these steps, too, and
//! so in how many segments a `..` takes back: any segment that follows one may be the first that is left. The strictest judgement counts:
//! `/public/%2e%2e/Internal/x` needs what `/internal/x` needs, and only what is public however it is read is public.

use std::borrow::Cow;

/// What kind of path it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// For debug-api, whatever the host.
    Debug,
    /// About logging in, whatever the host.
    Account(Account),
    /// `/internal/*`: between apps.
    Internal,
    /// `/api/*`: for people who are logged in.
    Api,
    /// `/public/*`: the app, for everybody.
    Public,
    /// Static files, a development server, or the app.
    Other,
}

/// What is asked about logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// A session for a name and a password.
    Login,
    /// The end of all sessions of a user.
    Logout,
    /// An access token for a session.
    PublicToken,
    /// The same, as the older clients ask.
    ApiToken,
}

impl Account {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/public/login" => Some(Self::Login),
            "/public/logout" => Some(Self::Logout),
            "/public/access_token" => Some(Self::PublicToken),
            "/api/access_token" => Some(Self::ApiToken),
            _ => None,
        }
    }
}

/// The class of a request's path.
pub(crate) fn classify(path: &str) -> Class {
    if path.starts_with("/debug/") {
        return Class::Debug;
    }
    Account::of(path).map_or_else(|| of_app(path), Class::Account)
}

/// Whether a path can be read in one way only.
pub(crate) fn is_unambiguous(path: &str) -> bool {
    let quiet = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    path.starts_with('/') && path.bytes().all(quiet) && !path.contains("//") && !path.contains("/.")
}

/// The class of a path that an app is asked for, and nobody else.
pub(crate) fn of_app(path: &str) -> Class {
    let written = kind(path);
    if is_plain(path) {
        return written;
    }
    let once = decode(path);
    let twice = decode(&once);
    let mut all = vec![written];
    for read in [path, &once, &twice] {
        leaders(read, &['/'], |first| all.push(kind(first)));
        leaders(read, &['/', '\\'], |first| all.push(kind(first)));
    }
    let order = [Class::Internal, Class::Api, Class::Other];
    order.into_iter().find(|class| all.contains(class)).unwrap_or(Class::Public)
}

/// The class of a path of which the app is asked for this rest: what either of them needs.
pub(crate) fn classify_rest(class: Class, rest: &str) -> Class {
    let both = [class, of_app(rest)];
    let order = [Class::Internal, Class::Api, Class::Public];
    order.into_iter().find(|class| both.contains(class)).unwrap_or(Class::Other)
}

fn kind(path: &str) -> Class {
    match first_segment(path.strip_prefix('/').unwrap_or(path)) {
        b"internal" => Class::Internal,
        b"api" => Class::Api,
        b"public" => Class::Public,
        _ => Class::Other,
    }
}

/// What of a path without its first slash stands before the next one.
fn first_segment(rest: &str) -> &[u8] {
    let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
    &rest.as_bytes()[..end]
}

/// Nothing in it that a second reading could change the first segment by.
fn is_plain(path: &str) -> bool {
    let Some(first) = path.strip_prefix('/').map(first_segment) else { return false };
    let quiet = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let telling = |byte: u8| b"%\\;".contains(&byte);
    let ambiguous = |pair: &[u8]| pair == b"//" || pair == b"/.";
    first.iter().copied().all(quiet)
        && !path.bytes().any(telling)
        && !path.as_bytes().windows(2).any(ambiguous)
}

/// Names each segment that is an app's first, however it resolves the path: the one that begins it, and what follows a `..`.
fn leaders(path: &str, separators: &[char], mut name: impl FnMut(&str)) {
    let lower = path.to_ascii_lowercase();
    let mut leads = true;
    for segment in lower.split(separators) {
        let bare = segment.split([';', '?', '#', '\0']).next().unwrap_or_default();
        if leads && bare.len() < segment.len() {
            name(segment); // as who cuts nothing off reads it
        }
        match bare {
            "" | "." => {}
            ".." => leads = true,
            _ if leads => {
                name(bare);
                leads = false;
            }
            _ => {}
        }
    }
    if leads {
        name("");
    }
}

/// Percent-decodes once; what isn't a valid escape stays, what isn't UTF-8 is replaced.
fn decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    Cow::Owned(String::from_utf8_lossy(&decode_bytes(path)).into_owned())
}

/// Percent-decodes once, to bytes.
pub(crate) fn decode_bytes(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| Some((hex(*bytes.get(at + 1)?)?, hex(*bytes.get(at + 2)?)?)))
            .flatten();
        match escape {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_told_apart() {
        for (path, class) in [
            ("/", Class::Other),
            ("/index.html", Class::Other),
            ("/debug", Class::Other),
            ("/debug/application", Class::Debug),
            ("/debugger/x", Class::Other),
            ("/public/login", Class::Account(Account::Login)),
            ("/public/logout", Class::Account(Account::Logout)),
            ("/public/access_token", Class::Account(Account::PublicToken)),
            ("/api/access_token", Class::Account(Account::ApiToken)),
            ("/api/access_token/", Class::Api),
            ("/public/login/", Class::Public),
            ("/public/login2", Class::Public),
            ("/public/x", Class::Public),
            ("/api", Class::Api),
            ("/api/status", Class::Api),
            ("/apis", Class::Other),
            ("/internal", Class::Internal),
            ("/internal/x", Class::Internal),
            ("/internals", Class::Other),
            ("", Class::Other),
        ] {
            assert_eq!(classify(path), class, "{path}");
        }
    }

    #[test]
    fn disguised_paths_are_judged_by_what_an_app_may_read() {
        for path in [
            "/Internal/x",
            "//internal/x",
            "/./internal/x",
            "./internal/x",
            "/public/../internal/x",
            "/public/%2e%2e/internal/x",
            "/public/..%2finternal/x",
            "/%69nternal/x",
            "/public\\..\\internal/x",
            "/public/..%5cinternal/x",
            "/internal;a=b/x",
            "/internal%2fx",
            "/internal/../public/x",
            "/api/../internal/x",
            "/public/login/../../internal/x",
            "/api/access_token/..%2f..%2finternal/x",
            "http://hello.localhost/internal/x",
            "/%2e/internal/x",
            "/%2finternal/x",
            "/internal%5cx",
            "/INTERNAL%2Fx",
        ] {
            let path = path.strip_prefix("http://hello.localhost").unwrap_or(path); // what a target says besides its path
            assert_eq!(classify(path), Class::Internal, "{path}");
        }
        assert_eq!(classify("/public/../api/x"), Class::Api);
        assert_eq!(classify("/API/x"), Class::Api);
    }

    #[test]
    fn what_a_reader_cuts_off_or_leaves_hides_nothing() {
        for path in [
            "/public/..;/internal/x",
            "/public/..;a=b/internal/x",
            "/.;/internal/x",
            "/;/;/internal/x",
            "/;x/internal/x",
            "/%69nternal/../public/x",
            "/public/%252e%252e/internal/x",
            "/%2569nternal/x",
            "/public/..%3b/internal/x",
            "/internal%3fx",
            "/internal%00/x",
        ] {
            assert_eq!(classify(path), Class::Internal, "{path}");
        }
        assert_eq!(classify("/;x/;y/api/x"), Class::Api);
    }

    #[test]
    fn how_much_a_reader_takes_back_is_its_own_affair() {
        for path in [
            "/public\\x/../internal/y",         // one segment to whom a backslash is a letter
            "/public%2fx/../internal/y",        // and to who resolves before it decodes
            "/public%252fx/../internal/y",      // or in between
            "/public/../internal//../y",        // an empty segment is what is taken back (RFC 3986 5.2.4)
            "/public/..;%2fx/internal/y",       // parameters end at the slash as it was written
            "/;a\\b/internal/y",                // and after a backslash that was a letter
            "/public/x/..%5c..\\../internal/y", // all at once
        ] {
            assert_eq!(classify(path), Class::Internal, "{path}");
        }
        assert_eq!(classify("/public%2fx/../account"), Class::Other);
        assert_eq!(classify("/public/.."), Class::Other);
    }

    #[test]
    fn only_what_is_public_however_it_is_read_is_public() {
        for path in [
            "/public/../account",
            "/public/%2e%2e/account",
            "/x/../public/y",
            "/Public/x",
            "/./public/x",
            "/public/..;/x",
            "/public/x/../y",
            "/public/../;x/public/y", // a segment of its own to whom parameters are letters
            "/public/..%2f%00x%2fpublic/y",
            "/;x/public/y",
        ] {
            assert_eq!(classify(path), Class::Other, "{path}");
        }
        for path in ["/public/a%20b", "/public//x", "/public/a;v=1", "/public/x/./y", "/public/%C3%A4"] {
            assert_eq!(classify(path), Class::Public, "{path}");
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decode_bytes("/%zz%4%41%"), b"/%zz%4A%");
    }

    proptest! {
        #[test]
        fn hostile_paths_never_panic(path in "(/|%2e|%2F|\\.|\\\\|internal|Api|;|%|[ -~]){0,20}") {
            let _ = classify(&path);
        }

        #[test]
        fn whatever_resolves_to_internal_is_internal(prefix in "(/public|/x|/api)?", dots in "(/|%2f)(\\.\\.|%2e%2e|\\.%2E)(/|%2F|//)") {
            let path = format!("{prefix}{dots}internal/secret");
            prop_assert_eq!(classify(&path), Class::Internal);
        }

        #[test]
        fn nothing_outside_is_public_because_it_begins_there(dots in "(/|%2f)(\\.\\.|%2e%2e|\\.%2E|\\.\\.;|\\.\\.;x=y)(/|%2F|//|\\\\)", rest in "[a-o]{1,5}") {
            let path = format!("/public{dots}{rest}");
            prop_assert_ne!(classify(&path), Class::Public);
        }
    }
}
