//! Header sections, and what is decided or made of them.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE},
};

use super::messages::LIMITS;
use crate::{
    files::conditions::{Answer, Version, judge},
    h1::head,
    headers::{self, Edge},
    identity::Identity,
};

/// The fields that these bytes are, if they are some.
fn section(bytes: &[u8]) -> Option<HeaderMap> {
    let head = [b"GET / HTTP/1.1\r\n", bytes, b"\r\n\r\n"].concat();
    let mut scan = crate::h1::lines::Scan::default();
    let end = scan.end(&head).ok()??;
    head::request(&Bytes::from(head).slice(..end), &LIMITS).ok().map(|parts| parts.headers)
}

/// What an app hears of who asks: from the socket, once, and nothing of the hop before.
pub(super) fn asker(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Some(mut headers) = section(rest) else { return };
    let peer = HeaderValue::from_static("2001:db8::7");
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
    headers::toward_backend(&mut headers, edge);
    let only = |name: &str| {
        let mut values = headers.get_all(name).into_iter();
        let value = values.next().cloned();
        assert!(values.next().is_none(), "more than one {name}");
        value.unwrap_or_else(|| unreachable!("no {name}"))
    };
    assert_eq!((only(HOST.as_str()), only("x-forwarded-host")), (authority.clone(), authority.clone()));
    assert_eq!(only("x-request-id"), id);
    let path = only("x-forwarded-for");
    assert!(path.as_bytes().ends_with(peer.as_bytes()) && (trusted || path == peer), "{path:?}");
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
        let double = ["x_forwarded_for", "x_caller_id", "x_application_id", "host_", "x_request_id"];
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
