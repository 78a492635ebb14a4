//! What a header section says: its fields in, a request or trailers out (RFC 9113 §8.2, §8.3). Pure.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE},
    request,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::hpack::{Field, Pseudo, Said};
use crate::{
    h1::{Limits, Malformed, framing, head::is_lookalike},
    websocket::Protocol,
};

/// Why a section is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is malformed: its stream is reset (§8.1.1).
    Malformed,
    /// It can be read, but not served.
    Refused(Malformed),
}

/// A section that is being read.
#[derive(Debug)]
pub(super) struct Section {
    limits: Limits,
    size: usize,
    fields: usize,
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    headers: HeaderMap,
    fault: Option<Fault>,
}

impl Section {
    /// Nothing of it was read.
    pub(super) fn new(limits: Limits) -> Self {
        let (method, scheme, authority, path, protocol) = (None, None, None, None, None);
        let headers = HeaderMap::with_capacity(16);
        Self { limits, size: 0, fields: 0, method, scheme, authority, path, protocol, headers, fault: None }
    }

    /// Takes a field; whether it wants more, which after a fault it does not.
    pub(super) fn take(&mut self, field: Field) -> bool {
        self.size += field.size;
        if self.fault.is_none() {
            self.fault = self.put(field.said).err();
        }
        self.fault.is_none()
    }

    fn put(&mut self, said: Said) -> Result<(), Fault> {
        if self.size > self.limits.head_bytes {
            return Err(Fault::Refused(Malformed::TooLarge));
        }
        match said {
            Said::Nonsense => Err(Fault::Malformed),
            Said::Pseudo(pseudo, value) => self.put_pseudo(pseudo, value),
            Said::Field(name, value) => self.put_field(name, value),
        }
    }

    fn put_pseudo(&mut self, pseudo: Pseudo, value: Bytes) -> Result<(), Fault> {
        let place = match pseudo {
            Pseudo::Method => &mut self.method,
            Pseudo::Scheme => &mut self.scheme,
            Pseudo::Authority => &mut self.authority,
            Pseudo::Path => &mut self.path,
            Pseudo::Protocol => &mut self.protocol,
            Pseudo::Other => return Err(Fault::Malformed),
        };
        if self.fields > 0 || place.replace(value).is_some() {
            return Err(Fault::Malformed); // after a field, or twice
        }
        Ok(())
    }

    fn put_field(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields > self.limits.fields {
            return Err(Fault::Refused(Malformed::TooManyFields));
        }
        if is_of_connection(&name) || (name == TE && value != "trailers") {
            return Err(Fault::Malformed);
        }
        if is_lookalike(&name) {
            return Err(Fault::Refused(Malformed::Lookalike));
        }
        self.headers.append(name, value);
        Ok(())
    }

    /// The request, and how long it says that its body is.
    pub(super) fn request(self) -> Result<(request::Parts, Option<u64>), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let method = self.method.ok_or(Fault::Malformed)?;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::from_bytes(&method).map_err(|_| Fault::Malformed)?;
        let length = framing::content_length(&self.headers).map_err(|_| Fault::Malformed)?;
        parts.uri = match (parts.method == Method::CONNECT, self.protocol) {
            (true, None) => tunnel(self.scheme, self.authority, self.path)?,
            (false, None) => uri(self.scheme, self.authority, self.path, &self.limits)?,
            // It has all that a request has, but no body (RFC 8441 §4).
            (true, Some(protocol)) if self.authority.is_some() && length.is_none() => {
                parts.extensions.insert(Protocol(protocol));
                uri(self.scheme, self.authority, self.path, &self.limits)?
            }
            (_, Some(_)) => return Err(Fault::Malformed),
        };
        parts.version = Version::HTTP_2;
        parts.headers = self.headers;
        Ok((parts, length))
    }

    /// The trailers.
    pub(super) fn trailers(self) -> Result<HeaderMap, Fault> {
        let Self { method, scheme, authority, path, protocol, headers, fault, .. } = self;
        let pseudo = [method, scheme, authority, path, protocol].iter().any(Option::is_some);
        match fault {
            None if !pseudo => Ok(headers),
            _ => Err(Fault::Malformed),
        }
    }
}

/// A target in its parts. What isn't visible ASCII is read in too many ways.
fn uri(
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    limits: &Limits,
) -> Result<Uri, Fault> {
    let (scheme, path) = (scheme.ok_or(Fault::Malformed)?, path.ok_or(Fault::Malformed)?);
    if path.len() > limits.target_bytes {
        return Err(Fault::Refused(Malformed::TargetTooLong));
    }
    let plain = path.starts_with(b"/") || *path == *b"*";
    if !plain || !path.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Fault::Malformed);
    }
    let path = PathAndQuery::from_maybe_shared(path).map_err(|_| Fault::Malformed)?;
    let Some(authority) = authority else { return Ok(path.into()) }; // there is a Host, or an answer that there is none
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(match &*scheme {
        b"https" => Scheme::HTTPS,
        b"http" => Scheme::HTTP,
        other => Scheme::try_from(other).map_err(|_| Fault::Malformed)?,
    });
    parts.authority = Some(this_authority(authority)?);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| Fault::Malformed)
}

/// The target of CONNECT: nothing but whereto (§8.5).
fn tunnel(scheme: Option<Bytes>, authority: Option<Bytes>, path: Option<Bytes>) -> Result<Uri, Fault> {
    match (scheme, authority, path) {
        (None, Some(authority), None) => this_authority(authority).map(Uri::from),
        _ => Err(Fault::Malformed),
    }
}

/// Host and port; nobody's name goes before them (§8.3.1).
fn this_authority(authority: Bytes) -> Result<Authority, Fault> {
    if authority.contains(&b'@') {
        return Err(Fault::Malformed);
    }
    Authority::from_maybe_shared(authority).map_err(|_| Fault::Malformed)
}

/// Whether a field is about the connection, which in HTTP/2 no field is (§8.2.2).
fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMITS: Limits = Limits { head_bytes: 400, fields: 4, target_bytes: 20 };
    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/b?c")];

    fn section(pairs: &[(&str, &str)]) -> Section {
        let mut section = Section::new(LIMITS);
        for (name, value) in pairs {
            section.take(Field::of(name.as_bytes(), Bytes::copy_from_slice(value.as_bytes())));
        }
        section
    }

    /// The request of these pseudo fields, in which some are replaced or left out, and fields after them.
    fn asked(change: &[(&str, Option<&str>)], fields: &[(&str, &str)]) -> Result<request::Parts, Fault> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (name, value) in GET {
            match change.iter().find(|(changed, _)| *changed == name) {
                Some((_, value)) => pairs.extend(value.map(|value| (name, value))),
                None => pairs.push((name, value)),
            }
        }
        section(&[&pairs, fields].concat()).request().map(|(parts, _)| parts)
    }

    #[test]
    fn a_request_is_its_pseudo_fields_and_its_fields() {
        let parts = asked(&[], &[("x-a", "1"), ("te", "trailers")]).unwrap();
        assert_eq!(parts.uri, "https://a.example/b?c");
        assert_eq!((parts.method, parts.headers["x-a"].to_str().unwrap()), (Method::GET, "1"));
        let parts = asked(&[(":authority", None)], &[("host", "a.example")]).unwrap();
        assert_eq!(parts.uri, "/b?c");
        let parts = asked(&[(":method", Some("OPTIONS")), (":path", Some("*"))], &[]).unwrap();
        assert_eq!(parts.uri.path(), "*");
    }

    #[test]
    fn a_section_that_is_no_request_is_malformed() {
        for change in [
            (":method", None),
            (":method", Some("G T")),
            (":method", Some("CONNECT")),
            (":scheme", None),
            (":scheme", Some("ht tp")),
            (":path", None),
            (":path", Some("")),
            (":path", Some("b")),
            (":path", Some("/b#c")),
            (":path", Some("/\u{e9}")),
            (":path", Some("/ b")),
            (":authority", Some("me@a.example")),
            (":authority", Some("a b")),
            (":authority", Some("")),
        ] {
            assert_eq!(asked(&[change], &[]).unwrap_err(), Fault::Malformed, "{change:?}");
        }
        for field in [
            ("connection", "close"),
            ("keep-alive", "timeout=1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            (":path", "/twice"),
            (":status", "200"),
            (":protocol", "websocket"),
            ("X-Upper", "1"),
            ("content-length", "1, 1"),
            ("content-length", "+1"),
        ] {
            assert_eq!(asked(&[], &[field]).unwrap_err(), Fault::Malformed, "{field:?}");
        }
        let late = [&GET[..3], &[("x-a", "1")], &GET[3..]].concat();
        assert_eq!(section(&late).request().unwrap_err(), Fault::Malformed);
    }

    #[test]
    fn what_is_too_much_is_refused_by_its_status() {
        let field = |name: &str, value: &str| asked(&[], &[(name, value)]).unwrap_err();
        assert_eq!(field("x-a", &"x".repeat(300)), Fault::Refused(Malformed::TooLarge));
        assert_eq!(field("content_length", "1"), Fault::Refused(Malformed::Lookalike));
        let many = asked(&[], &[("x", "1"); 5]).unwrap_err();
        assert_eq!(many, Fault::Refused(Malformed::TooManyFields));
        let long = format!("/{}", "x".repeat(20));
        let long = asked(&[(":path", Some(&long))], &[]).unwrap_err();
        assert_eq!(long, Fault::Refused(Malformed::TargetTooLong));
    }

    #[test]
    fn a_tunnel_is_asked_for_by_whereto_alone() {
        let (parts, _) =
            section(&[(":method", "CONNECT"), (":authority", "a.example:443")]).request().unwrap();
        assert_eq!(parts.uri, "a.example:443");
    }

    #[test]
    fn an_extended_connect_says_all_that_a_request_says_and_what_it_will_speak() {
        let extended = |left_out: &str, more: &[(&str, &str)]| {
            let mut pairs = GET.to_vec();
            pairs[0].1 = "CONNECT";
            pairs.retain(|(name, _)| *name != left_out);
            section(&[&pairs[..], &[(":protocol", "websocket")], more].concat()).request()
        };
        let (parts, length) = extended("", &[("sec-websocket-version", "13")]).unwrap();
        assert_eq!((parts.uri.to_string().as_str(), length), ("https://a.example/b?c", None));
        assert_eq!(parts.extensions.get::<Protocol>().unwrap().0, "websocket");
        for left_out in [":scheme", ":path", ":authority"] {
            assert_eq!(extended(left_out, &[]).unwrap_err(), Fault::Malformed, "without {left_out}");
        }
        for more in [(":protocol", "twice"), ("content-length", "0"), ("upgrade", "websocket")] {
            assert_eq!(extended("", &[more]).unwrap_err(), Fault::Malformed, "{more:?}");
        }
        let ordinary = [&GET[..], &[(":protocol", "websocket")]].concat();
        assert_eq!(section(&ordinary).request().unwrap_err(), Fault::Malformed);
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        assert_eq!(section(&[("x-a", "1")]).trailers().unwrap().len(), 1);
        for fields in [&[(":path", "/")][..], &[("x-a", "1"), (":status", "200")], &[("Upper", "1")]] {
            assert_eq!(section(fields).trailers().unwrap_err(), Fault::Malformed);
        }
    }
}
