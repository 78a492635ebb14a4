//! Who asks: what an app is told of its client. It is taken from the socket; what comes from outside counts only from a proxy
//! that the configuration names.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::OnceLock,
};

use http::{HeaderMap, HeaderValue};
use memchr::memchr2;

use super::{Edge, FORWARDED_FOR, FORWARDED_PROTO, tokens};

/// The other end of a connection, as apps hear of it.
#[derive(Debug)]
pub(crate) struct Peer {
    address: HeaderValue,
    /// What `Forwarded` says, with the authority that it says it of: of a connection's requests most are for the host of the first.
    forwarded: OnceLock<(HeaderValue, HeaderValue)>,
}

impl Peer {
    /// At this address.
    pub(crate) fn at(address: HeaderValue) -> Self {
        Self { address, forwarded: OnceLock::new() }
    }

    /// Its address; that of one that is mapped into IPv6 as it is by itself.
    pub(crate) fn address(&self) -> &HeaderValue {
        &self.address
    }

    /// `Forwarded` of a request for this authority that nobody passed on.
    fn forwarded(&self, authority: &HeaderValue) -> HeaderValue {
        let make = || forwarded(&self.address, &HTTPS, authority);
        let (known, value) = self.forwarded.get_or_init(|| (authority.clone(), make()));
        if known == authority { value.clone() } else { make() }
    }
}

/// How a client asks that comes by itself.
const HTTPS: HeaderValue = HeaderValue::from_static("https");

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
        let address = edge.peer.address();
        if edge.passed_on.is_none() {
            let forwarded = edge.peer.forwarded(edge.authority);
            return Self { path: address.clone(), scheme: HTTPS, forwarded };
        }
        let path = prolonged(headers, address);
        let is_plain = headers.get(FORWARDED_PROTO).is_some_and(|told| told == "http");
        let scheme = if is_plain { HeaderValue::from_static("http") } else { HTTPS };
        let forwarded = forwarded(&path, &scheme, edge.authority);
        Self { path, scheme, forwarded }
    }
}

/// Whose request it is that a trusted proxy passed on: of the addresses that it came through the last one that is not of such a
/// proxy, too. Nothing where one before that is no address: what stands further from here, anybody may have written.
pub(crate) fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let hops: Vec<&[u8]> = tokens(headers, &FORWARDED_FOR).collect();
    let hops = hops.into_iter().rev().map(|hop| address(str::from_utf8(hop).ok()?));
    hops.take_while(Option::is_some)
        .flatten()
        .map(|hop: IpAddr| hop.to_canonical())
        .find(|hop| !is_trusted(*hop))
}

/// An address, which some proxies write with a port.
fn address(hop: &str) -> Option<IpAddr> {
    hop.parse().ok().or_else(|| hop.parse().ok().map(|hop: SocketAddr| hop.ip()))
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

/// What tokens are made of (RFC 9110 §5.6.2), by each byte: three of them are looked at for each request.
const TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 128 {
        let letter = byte as u8;
        table[byte] = letter.is_ascii_graphic()
            && !matches!(letter, b'"' | b'(' | b')' | b',' | b'/' | b':'..=b'@' | b'['..=b']' | b'{' | b'}');
        byte += 1;
    }
    table
};

/// A token as it is, anything else in quotes; an IPv6 address also in brackets.
fn put_node(text: &mut Vec<u8>, node: &[u8]) {
    if !node.is_empty() && node.iter().all(|byte| TOKEN[usize::from(*byte)]) {
        return text.extend_from_slice(node);
    }
    let bare = str::from_utf8(node).is_ok_and(|node| node.parse::<Ipv6Addr>().is_ok());
    text.extend_from_slice(if bare { b"\"[" } else { b"\"" });
    let mut rest = node;
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        text.extend_from_slice(&rest[..at]);
        text.extend_from_slice(&[b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    text.extend_from_slice(rest);
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
    fn a_client_is_the_last_that_no_trusted_proxy_is_and_nobody_writes_itself_one() {
        let trusted = |hop: IpAddr| hop.to_string().starts_with("10.");
        for (told, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("203.0.113.9, 192.0.2.7, 10.0.0.1", Some("192.0.2.7")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7, not an address, 10.0.0.1", None),
            ("192.0.2.7:99", Some("192.0.2.7")),
            ("[2001:db8::7]:99", Some("2001:db8::7")),
            ("10.0.0.2, 10.0.0.1", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static(told))]);
            let expected =
                expected.map(|address| address.parse().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
            assert_eq!(client(&headers, trusted), expected, "{told}");
        }
    }

    #[test]
    fn a_token_is_made_of_letters_digits_and_fifteen_signs() {
        for byte in 0..=255_u8 {
            let expected = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(TOKEN[usize::from(byte)], expected, "{byte:#x}");
        }
    }

    #[test]
    fn of_each_request_of_a_connection_its_own_authority_is_told() {
        let peer = Peer::at(HeaderValue::from_static("192.0.2.7"));
        for authority in ["a.example", "b.example", "a.example", "A.example"] {
            let told = peer.forwarded(&HeaderValue::from_static(authority));
            assert_eq!(told, written("192.0.2.7", authority));
        }
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
