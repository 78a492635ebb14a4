//! Who asks: what an app is told of its client. It is taken from the socket; what comes from outside counts only from a proxy
//! that the configuration names.

use std::net::Ipv6Addr;

use http::{HeaderMap, HeaderValue};

use super::{Edge, FORWARDED_FOR, FORWARDED_PROTO, tokens};

/// Who asks, as far as it can be believed.
pub(super) struct Asker {
    /// The addresses that the request came through, the client's first.
    pub(super) path: HeaderValue,
    /// How the client asked.
    pub(super) scheme: HeaderValue,
    /// All of it in one (RFC 7239).
    pub(super) forwarded: HeaderValue,
}

impl Asker {
    /// As the socket says it, and a trusted proxy at its other end.
    pub(super) fn of(headers: &HeaderMap, edge: &Edge<'_>) -> Self {
        let (mut path, mut scheme) = (edge.peer.clone(), HeaderValue::from_static("https"));
        if edge.trusted {
            path = prolonged(headers, edge.peer);
            if headers.get(FORWARDED_PROTO).is_some_and(|told| told == "http") {
                scheme = HeaderValue::from_static("http");
            }
        }
        let forwarded = forwarded(&path, &scheme, edge.authority);
        Self { path, scheme, forwarded }
    }
}

/// What a trusted proxy says about where the request came from, and that proxy itself.
fn prolonged(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let hops: Vec<&[u8]> = tokens(headers, &FORWARDED_FOR).chain([peer.as_bytes()]).collect();
    HeaderValue::from_bytes(&hops.join(&b", "[..])).unwrap_or_else(|_| peer.clone())
}

/// `for=...;host=...;proto=...`, an element for each hop; what isn't an address is written as a string.
fn forwarded(path: &HeaderValue, scheme: &HeaderValue, authority: &HeaderValue) -> HeaderValue {
    let mut text = Vec::with_capacity(path.len() + authority.len() + 40);
    for (number, hop) in path.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).enumerate() {
        text.extend_from_slice(if number == 0 { b"for=" } else { b", for=" });
        put_node(&mut text, hop);
        if number == 0 {
            for (name, value) in [(&b";host="[..], authority), (b";proto=", scheme)] {
                text.extend_from_slice(name);
                put_node(&mut text, value.as_bytes());
            }
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// A token as it is, anything else in quotes; an IPv6 address also in brackets.
fn put_node(text: &mut Vec<u8>, node: &[u8]) {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if !node.is_empty() && node.iter().all(is_token) {
        return text.extend_from_slice(node);
    }
    let bare = str::from_utf8(node).is_ok_and(|node| node.parse::<Ipv6Addr>().is_ok());
    text.extend_from_slice(if bare { b"\"[" } else { b"\"" });
    for byte in node {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text.extend_from_slice(if bare { b"]\"" } else { b"\"" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &'static str, authority: &'static str) -> String {
        let (path, scheme) = (HeaderValue::from_static(path), HeaderValue::from_static("https"));
        let forwarded = forwarded(&path, &scheme, &HeaderValue::from_static(authority));
        forwarded.to_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_is_no_token_is_quoted_and_cannot_leave_its_quotes() {
        assert_eq!(written("192.0.2.7", "a.example"), "for=192.0.2.7;host=a.example;proto=https");
        assert_eq!(written("::1", "a:1"), "for=\"[::1]\";host=\"a:1\";proto=https");
        assert_eq!(written("::1, 192.0.2.7", "a"), "for=\"[::1]\";host=a;proto=https, for=192.0.2.7");
        assert_eq!(written("a\";for=b\\", "a"), "for=\"a\\\";for=b\\\\\";host=a;proto=https");
        assert_eq!(written(",x", "a"), "for=\"\";host=a;proto=https, for=x");
    }
}
