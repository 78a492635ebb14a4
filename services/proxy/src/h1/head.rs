//! What a head says: a complete header section in, its parts out. Pure. Every line ends in CR LF here (`lines.rs`).

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request, response,
    uri::PathAndQuery,
};
use httparse::{Error, Header};

use super::{Limits, Malformed};

/// So many fields need no allocation.
const FIELDS_INLINE: usize = 128;

/// Fields that say how a message is read or whom it is for: a name that some readers take for one of these is refused.
const DECISIVE: [HeaderName; 4] = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST, CONNECTION];

type Slots<'h, 'b> = &'h mut [MaybeUninit<Header<'b>>];

/// A request's head.
pub(crate) fn request(head: &Bytes, limits: &Limits) -> Result<request::Parts, Malformed> {
    if limits.fields <= FIELDS_INLINE {
        let mut slots = [const { MaybeUninit::uninit() }; FIELDS_INLINE];
        request_in(head, &mut slots[..limits.fields], limits)
    } else {
        request_in(head, &mut vec![MaybeUninit::uninit(); limits.fields], limits)
    }
}

fn request_in<'b>(
    head: &'b Bytes,
    slots: Slots<'_, 'b>,
    limits: &Limits,
) -> Result<request::Parts, Malformed> {
    let mut read = httparse::Request::new(&mut []);
    read.parse_with_uninit_headers(head, slots).map_err(|error| malformed(error, head))?;
    let (Some(method), Some(target), Some(version)) = (read.method, read.path, read.version) else {
        return Err(Malformed::FirstLine);
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| Malformed::FirstLine)?;
    parts.uri = uri(head, target, limits)?;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = fields(head, read.headers)?;
    if parts.headers.keys().any(is_lookalike) {
        return Err(Malformed::Lookalike);
    }
    Ok(parts)
}

/// An answer's head.
pub(crate) fn answer(head: &Bytes, limits: &Limits) -> Result<response::Parts, Malformed> {
    if limits.fields <= FIELDS_INLINE {
        let mut slots = [const { MaybeUninit::uninit() }; FIELDS_INLINE];
        answer_in(head, &mut slots[..limits.fields])
    } else {
        answer_in(head, &mut vec![MaybeUninit::uninit(); limits.fields])
    }
}

fn answer_in<'b>(head: &'b Bytes, slots: Slots<'_, 'b>) -> Result<response::Parts, Malformed> {
    let mut read = httparse::Response::new(&mut []);
    httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut read, head, slots)
        .map_err(|error| malformed(error, head))?;
    let (Some(code), Some(version)) = (read.code, read.version) else { return Err(Malformed::FirstLine) };
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(code).map_err(|_| Malformed::FirstLine)?;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = fields(head, read.headers)?;
    Ok(parts)
}

/// A trailer section.
pub(crate) fn trailers(section: &Bytes, limits: &Limits) -> Result<HeaderMap, Malformed> {
    let mut slots = vec![httparse::EMPTY_HEADER; limits.fields];
    httparse::parse_headers(section, &mut slots).map_err(|error| malformed(error, section))?;
    let read = slots.iter().take_while(|field| !field.name.is_empty()).count();
    fields(section, &slots[..read])
}

fn fields(head: &Bytes, read: &[Header<'_>]) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(read.len() + 8); // the proxy adds some
    for field in read {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Field)?;
        let value =
            HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| Malformed::Field)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The target in one of its forms. A fragment is no part of any, and what isn't visible ASCII is read in too many ways.
fn uri(head: &Bytes, target: &str, limits: &Limits) -> Result<Uri, Malformed> {
    if target.len() > limits.target_bytes {
        return Err(Malformed::TargetTooLong);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Malformed::Target);
    }
    let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| Malformed::Target)?;
    match uri.path_and_query() {
        Some(rest) if rest.as_str().starts_with('?') => rooted(uri.clone(), rest.as_str()),
        _ => Ok(uri),
    }
}

/// `http://host?query` is asked for as `/?query` (§3.2.1).
fn rooted(uri: Uri, query: &str) -> Result<Uri, Malformed> {
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("/{query}")).map_err(|_| Malformed::Target)?);
    Uri::from_parts(parts).map_err(|_| Malformed::Target)
}

/// `Content_Length` is another field than `Content-Length`, but not to everybody.
pub(crate) fn is_lookalike(name: &HeaderName) -> bool {
    name.as_str().contains('_') && {
        let canonical = name.as_str().replace('_', "-");
        DECISIVE.iter().any(|decisive| decisive.as_str() == canonical)
    }
}

fn malformed(error: Error, head: &[u8]) -> Malformed {
    match error {
        Error::TooManyHeaders => Malformed::TooManyFields,
        Error::Version if names_a_version(head) => Malformed::Version,
        Error::Token | Error::Status | Error::Version => Malformed::FirstLine,
        Error::HeaderName | Error::HeaderValue | Error::NewLine => Malformed::Field,
    }
}

/// Whether the first line ends in a version of HTTP, one of those that aren't spoken here.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    matches!(words.as_slice(), [_, target, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
        if !target.is_empty() && major.is_ascii_digit() && minor.is_ascii_digit())
}
