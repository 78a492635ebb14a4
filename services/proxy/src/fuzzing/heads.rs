//! Header sections, and what is decided or made of them.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};

use super::messages::LIMITS;
use crate::{
    cookies::{self, HOST_YAT, HOST_YRT, HOST_YSS, YRT},
    files::{
        codings::accepted,
        conditions::{Answer, Version, judge},
    },
    h1::head,
    headers::{self, Edge, Peer},
    identity::Identity,
    refusal::Form,
    upgrade,
};

/// The fields that these bytes are, if they are some.
fn section(bytes: &[u8]) -> Option<HeaderMap> {
    request(bytes).map(|parts| parts.headers)
}

/// A request that has them.
fn request(bytes: &[u8]) -> Option<Parts> {
    let head = [b"GET / HTTP/1.1\r\n", bytes, b"\r\n\r\n"].concat();
    let mut scan = crate::h1::lines::Scan::default();
    let end = scan.end(&head).ok()??;
    head::request(&Bytes::from(head).slice(..end), &LIMITS).ok()
}

/// What an app hears of who asks: from the socket, once, and nothing of the hop before.
pub(super) fn asker(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Some(mut headers) = section(rest) else { return };
    let peer = Peer::at(HeaderValue::from_static("2001:db8::7"));
    let authority = HeaderValue::from_static("hello.yesterday.localhost:8443");
    let id = HeaderValue::from_static("f61746bd-b598-447d-813d-e51e6fd849b4");
    let trusted = first & 1 == 1;
    let client = headers::client(&headers, |hop| hop.is_loopback());
    let passed_on = trusted.then_some(client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let (peer_of, authority_of, id_of) = (&peer, &authority, &id);
    let edge = Edge {
        peer: peer_of,
        passed_on,
        authority: authority_of,
        id: id_of,
        by: &Identity::default(),
        keeps_cookies: first & 2 == 2,
        upgrade: None,
        token: None,
    };
    let told = headers::toward_backend(&mut headers, edge);
    let headers = headers::whole(&headers, &told);
    let only = |name: &str| {
        let mut values = headers.get_all(name).into_iter();
        let value = values.next().cloned();
        assert!(values.next().is_none(), "more than one {name}");
        value.unwrap_or_else(|| unreachable!("no {name}"))
    };
    assert_eq!((only(HOST.as_str()), only("x-forwarded-host")), (authority.clone(), authority.clone()));
    assert_eq!(only("x-request-id"), id);
    let path = only("x-forwarded-for");
    assert!(
        path.as_bytes().ends_with(peer.address().as_bytes()) && (trusted || path == *peer.address()),
        "{path:?}"
    );
    let told = passed_on.map(|client| client.to_string());
    assert_eq!(headers.get("x-real-ip").and_then(|told| told.to_str().ok()), told.as_deref());
    assert!(matches!(only("x-forwarded-proto").as_bytes(), b"https" | b"http"));
    assert!(quotes_are_paired(only("forwarded").as_bytes()));
    for gone in [TRANSFER_ENCODING, UPGRADE] {
        assert!(!headers.contains_key(&gone), "{gone} is of the hop before");
    }
    assert!(headers.get_all(CONNECTION).into_iter().all(|option| option == "te"));
    for told in ["x-caller-id", "x-user-id", "x-user-name", "x-session-id", "x-nexushub-identity"] {
        assert!(!headers.contains_key(told), "{told} is told by the proxy only");
    }
    for name in headers.keys() {
        let double = ["x_forwarded_for", "x_caller_id", "x_application_id", "x_request_id"];
        assert!(!double.contains(&name.as_str()), "{name}");
    }
}

fn quotes_are_paired(text: &[u8]) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
    }
    !inside
}

/// A part of a file is never more than there is.
pub(super) fn conditions(bytes: &[u8]) {
    let Some((size, rest)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    let Some(headers) = section(rest) else { return };
    let version = Version::new(946_684_800, 5, size);
    if let Answer::Part { start, length } = judge(&headers, &version, size) {
        let end = start.checked_add(length);
        assert!(length > 0 && end.is_some_and(|end| end <= size), "{start} and {length} of {size}");
    }
}

/// A request is in one trace, its own if it brings none.
pub(super) fn trace(bytes: &[u8]) {
    let Some(mut headers) = section(bytes) else { return };
    let id = HeaderValue::from_static("f61746bd-b598-447d-813d-e51e6fd849b4");
    let parent = headers::join_trace(&mut headers, &id);
    assert!(headers::trace_id(&parent).is_some());
    assert!(headers.get_all("traceparent").into_iter().eq([&parent]), "one trace");
}

/// Cookies: of the platform's own none reaches an app or is set by one, all others do; and what is set reads as what it was.
pub(super) fn cookies(bytes: &[u8]) {
    let Ok(field) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::from_iter([(COOKIE, field.clone()), (SET_COOKIE, field)]);
    let other = HeaderValue::from_static("other=1");
    headers.append(SET_COOKIE, other.clone());
    let theirs = cookies::get(&headers, "theirs").map(str::to_owned);
    cookies::strip(&mut headers);
    cookies::strip_set(&mut headers);
    for ours in [YRT, HOST_YRT, HOST_YAT, HOST_YSS] {
        assert_eq!(cookies::get(&headers, ours), None);
        let sets = |field: &HeaderValue| field.as_bytes().starts_with(&[ours.as_bytes(), b"="].concat());
        assert!(!headers.get_all(SET_COOKIE).into_iter().any(sets), "{ours} is set");
    }
    if theirs.is_some() {
        assert_eq!(cookies::get(&headers, "theirs"), theirs.as_deref());
    }
    assert!(headers.get_all(SET_COOKIE).into_iter().any(|field| field == other));
    let Some(text) = str::from_utf8(bytes).ok() else { return };
    if let Some(set) = cookies::set(YRT, text, None) {
        let sent = set.to_str().ok().and_then(|set| set.split(';').next()).map(HeaderValue::from_str);
        let sent = HeaderMap::from_iter(sent.and_then(Result::ok).map(|sent| (COOKIE, sent)));
        assert_eq!(cookies::get(&sent, YRT), Some(text));
    }
}

/// What a client takes compressed is what it named, each way once; and no more is taken when it takes one thing less.
pub(super) fn codings(bytes: &[u8]) {
    let Some(mut headers) = section(bytes) else { return };
    let said = headers.get_all(ACCEPT_ENCODING).into_iter().flat_map(|value| value.as_bytes().to_vec());
    let said: Vec<u8> = said.map(|byte| byte.to_ascii_lowercase()).collect();
    let taken = accepted(&headers);
    for (at, coding) in taken.iter().enumerate() {
        let named = |name: &[u8]| said.windows(name.len()).any(|part| part == name);
        assert!(named(coding.name.as_bytes()) || named(b"*"), "{} was not named", coding.name);
        assert!(!taken[..at].contains(coding), "{} twice", coding.name);
    }
    headers.append(ACCEPT_ENCODING, HeaderValue::from_static("unheard-of;q=1"));
    assert!(accepted(&headers) == taken, "what nobody knows changes nothing");
}

/// A refusal in whatever form: its words are words there, and no more.
pub(super) fn refusals(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let form = section(rest)
        .map_or([Form::Text, Form::Json, Form::Page][usize::from(first % 3)], |headers| Form::of(&headers));
    let words = String::from_utf8_lossy(rest);
    let written = form.write(StatusCode::NOT_FOUND, &words, "the-id");
    match form {
        Form::Text => assert_eq!(written, format!("{words}\n")),
        Form::Json => {
            let read: serde_json::Value = serde_json::from_str(&written).unwrap_or_default();
            assert_eq!(
                (read["message"].as_str(), read["request_id"].as_str()),
                (Some(&*words), Some("the-id"))
            );
        }
        Form::Page => {
            let empty = form.write(StatusCode::NOT_FOUND, "", "the-id");
            for special in ['<', '>', '"', '\''] {
                assert_eq!(written.matches(special).count(), empty.matches(special).count(), "{special}");
            }
        }
    }
}

/// A change of protocols is asked for by one protocol, without a body, and never by one that is HTTP again.
pub(super) fn upgrades(bytes: &[u8]) {
    let Some(parts) = request(bytes) else { return };
    let Some(protocol) = upgrade::asked(&parts) else { return };
    let name = protocol.as_bytes().to_ascii_lowercase();
    assert!(!name.is_empty() && !name.contains(&b',') && !name.starts_with(b"h2c"), "{protocol:?}");
    assert!(parts.headers.get_all(UPGRADE).into_iter().eq([&protocol]));
    assert!(headers::has_connection_option(&parts.headers, "upgrade"));
    assert!(!parts.headers.contains_key(TRANSFER_ENCODING));
    assert!(parts.headers.get_all(CONTENT_LENGTH).into_iter().all(|length| length == "0"));
    assert!(upgrade::agreed(&protocol, &parts.headers), "who answers the same agrees");
}
