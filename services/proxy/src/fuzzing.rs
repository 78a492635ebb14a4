//! Doors for the fuzzer (`tests/fuzz`), there with the feature `fuzzing` only: everything here that reads what strangers send, as
//! functions of any bytes that panic where a promise is broken. The promises: nothing panics; in how many pieces bytes come changes
//! nothing; what is read and written out again reads the same; no body is longer than was said; what is refused once is never let
//! in by another spelling.

mod heads;
mod messages;

use std::{
    future::Future,
    path::Path,
    pin::pin,
    sync::OnceLock,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderName};
use rustls::server::ProducesTickets;

use crate::{
    h2, host,
    identity::User,
    paths, preface,
    tickets::Tickets,
    tokens::{self, Tokens},
};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every one, by its name.
pub const TARGETS: [(&str, Target); 17] = [
    ("requests", messages::requests),
    ("answers", messages::answers),
    ("chunks", messages::chunks),
    ("streams", messages::streams),
    ("block", h2::fuzzing::block),
    ("asker", heads::asker),
    ("conditions", heads::conditions),
    ("trace", heads::trace),
    ("cookies", heads::cookies),
    ("codings", heads::codings),
    ("refusals", heads::refusals),
    ("upgrades", heads::upgrades),
    ("preface", preface),
    ("host", host),
    ("path", path),
    ("ticket", ticket),
    ("tokens", tokens),
];

/// The outcome of what never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("there is nothing to wait for"),
    }
}

/// A connection's first words by the PROXY protocol: never more is read than they are.
fn preface(bytes: &[u8]) {
    let mut left = bytes;
    let Ok(whose) = at_once(preface::take(&mut left)) else { return };
    let said = &bytes[..bytes.len() - left.len()];
    let mut alone = said;
    assert_eq!(at_once(preface::take(&mut alone)).ok(), Some(whose), "what follows changes who it is");
    assert!(at_once(preface::take(&mut &said[..said.len() - 1])).is_err(), "it was whole before its end");
}

/// A host as clients write it: what it is read as reads as itself.
fn host(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(name) = host::parse(text) else { return };
    assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace()), "{name}");
    if name.contains(':') {
        assert_eq!(host::parse(&format!("[{name}]:1")).as_deref(), Ok(&*name));
    } else {
        assert_eq!(host::parse(&format!("{name}.:443")).as_deref(), Ok(&*name));
    }
}

/// A path: what an app takes for internal isn't passed as anything else, however it is spelled and whichever way the app reads it.
fn path(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let class = paths::classify(text);
    let decode = |text: &str| String::from_utf8_lossy(&paths::decode_bytes(text)).into_owned();
    let once = decode(text);
    for decoded in [text, &once, &decode(&once)].map(str::to_ascii_lowercase) {
        for way in 0..8 {
            let first = first_segment(&decoded, way & 1 != 0, way & 2 != 0, way & 4 != 0);
            if first == "internal" {
                assert!(
                    matches!(class, paths::Class::Internal | paths::Class::Debug),
                    "{text:?} is {class:?}, read {way}"
                );
            }
            if first != "public" {
                assert_ne!(class, paths::Class::Public, "{text:?}, read {way}");
            }
        }
    }
    let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(paths::decode_bytes(&escaped), bytes);
}

/// The first segment to an app that resolves dots in one of the ways in use: a backslash separates, an empty segment counts, parameters
/// are cut off first.
fn first_segment(path: &str, backslash: bool, empty: bool, cut: bool) -> &str {
    let mut left: Vec<&str> = Vec::new();
    for segment in path.split(|letter| letter == '/' || backslash && letter == '\\') {
        match if cut { segment.split(';').next().unwrap_or_default() } else { segment } {
            "." => {}
            "" if !empty => {}
            ".." => drop(left.pop()),
            segment => left.push(segment),
        }
    }
    left.into_iter().find(|segment| !segment.is_empty()).unwrap_or_default()
}

/// A session ticket: only what was sealed here opens, and as what it was.
fn ticket(bytes: &[u8]) {
    static TICKETS: OnceLock<Tickets> = OnceLock::new();
    let tickets = TICKETS.get_or_init(|| Tickets::load(Path::new("/proc/nowhere"), crate::now_unix()));
    assert_eq!(tickets.decrypt(bytes), None);
    let Some(mut sealed) = tickets.encrypt(bytes) else { return };
    assert_eq!(tickets.decrypt(&sealed).as_deref(), Some(bytes));
    let at = usize::from(bytes.first().copied().unwrap_or_default()) % sealed.len();
    sealed[at] ^= 1;
    assert_eq!(tickets.decrypt(&sealed), None, "byte {at} was changed");
}

/// An access token: only what was made here is one, and says what it was made for; what is verified is still read with care.
fn tokens(bytes: &[u8]) {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    let now = crate::now_unix();
    let made_here = TOKENS.get_or_init(|| Tokens::load(Path::new("/proc/nowhere"), now));
    tokens::decoded(bytes);
    let Ok(text) = str::from_utf8(bytes) else { return };
    assert!(made_here.read(text, now * 1000).is_err());
    assert!(made_here.read(&format!("nxa1.{text}"), now * 1000).is_err());
    let user = User { id: 7, name: text.into(), session: text.into() };
    let Some(token) = made_here.make(text, &user, now * 1000) else { return };
    let access = made_here.check(&token, now * 1000).expect("it was made just now");
    assert_eq!((access.instance.as_str(), access.user.session.as_str()), (text, text));
    assert!(text.starts_with(&access.user.name));
    let (mut forged, at) = (token.into_bytes(), bytes.len());
    let at = at % forged.len();
    forged[at] ^= 1;
    let forged = String::from_utf8(forged).expect("its letters are ASCII's");
    assert!(made_here.read(&forged, now * 1000).is_err(), "byte {at} was changed");
}

/// Fields with their values, to compare.
type Fields = Vec<(String, Vec<u8>)>;

/// The fields of a message but those that say how it is framed or when it was sent, sorted.
fn fields(headers: &HeaderMap, but: &[HeaderName]) -> Fields {
    let kept = headers.iter().filter(|(name, _)| !but.contains(name));
    let mut kept: Vec<_> = kept.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    kept.sort();
    kept
}
