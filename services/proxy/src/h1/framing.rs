//! How long a message's body is (RFC 9112 §6.3), where only one answer is possible. Pure.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::Malformed;

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes; 0 = there is none.
    Exact(u64),
    /// Chunks, the last one empty.
    Chunked,
    /// Whatever comes until the connection closes; answers only.
    UntilClose,
}

/// Of a request.
pub(crate) fn of_request(version: Version, headers: &HeaderMap) -> Result<Length, Malformed> {
    let length = content_length(headers)?;
    match (is_chunked(version, headers)?, length) {
        (true, Some(_)) => Err(Malformed::TwoLengths),
        (true, None) => Ok(Length::Chunked),
        (false, length) => Ok(Length::Exact(length.unwrap_or(0))),
    }
}

/// Of the answer to a request of this method.
pub(crate) fn of_answer(
    method: &Method,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Length, Malformed> {
    let length = content_length(headers)?;
    let chunked = is_chunked(version, headers)?;
    if chunked && length.is_some() {
        return Err(Malformed::TwoLengths);
    }
    if *method == Method::HEAD || is_bodiless(status) {
        return Ok(Length::Exact(0));
    }
    Ok(match (chunked, length) {
        (true, _) => Length::Chunked,
        (false, Some(length)) => Length::Exact(length),
        (false, None) => Length::UntilClose,
    })
}

/// Whether no answer of this status has a body, whatever it says (RFC 9110 §6.4.1).
pub(crate) fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// What it says, if it says anything.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    only(headers, &CONTENT_LENGTH, Malformed::Length)?.map(decimal).transpose()
}

/// Digits and nothing else: no sign, no list of equal numbers.
fn decimal(value: &HeaderValue) -> Result<u64, Malformed> {
    let text = value.to_str().map_err(|_| Malformed::Length)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed::Length);
    }
    text.parse().map_err(|_| Malformed::Length)
}

/// A coding that isn't passed on would reach the other side undone and unsaid.
fn is_chunked(version: Version, headers: &HeaderMap) -> Result<bool, Malformed> {
    match only(headers, &TRANSFER_ENCODING, Malformed::Coding)? {
        None => Ok(false),
        Some(coding) if version == Version::HTTP_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(true)
        }
        Some(_) => Err(Malformed::Coding),
    }
}

fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    several: Malformed,
) -> Result<Option<&'a HeaderValue>, Malformed> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(several),
        (value, None) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_request_has_one_length_or_is_refused() {
        let (length, coding) = ("content-length", "transfer-encoding");
        for (pairs, expected) in [
            (&[][..], Ok(Length::Exact(0))),
            (&[(length, "5")][..], Ok(Length::Exact(5))),
            (&[(length, "18446744073709551615")], Ok(Length::Exact(u64::MAX))),
            (&[(coding, "chunked")], Ok(Length::Chunked)),
            (&[(coding, "Chunked")], Ok(Length::Chunked)),
            (&[(length, "5"), (coding, "chunked")], Err(Malformed::TwoLengths)),
            (&[(length, "5"), (length, "5")], Err(Malformed::Length)),
            (&[(length, "5, 5")], Err(Malformed::Length)),
            (&[(length, "+5")], Err(Malformed::Length)),
            (&[(length, "-5")], Err(Malformed::Length)),
            (&[(length, "0x5")], Err(Malformed::Length)),
            (&[(length, "5 5")], Err(Malformed::Length)),
            (&[(length, "")], Err(Malformed::Length)),
            (&[(length, "18446744073709551616")], Err(Malformed::Length)),
            (&[(coding, "gzip, chunked")], Err(Malformed::Coding)),
            (&[(coding, "chunked"), (coding, "chunked")], Err(Malformed::Coding)),
            (&[(coding, "identity")], Err(Malformed::Coding)),
            (&[(coding, "chunked;q=1")], Err(Malformed::Coding)),
            (&[(coding, "")], Err(Malformed::Coding)),
        ] {
            assert_eq!(of_request(Version::HTTP_11, &map(pairs)), expected, "{pairs:?}");
        }
        let old = of_request(Version::HTTP_10, &map(&[(coding, "chunked")]));
        assert_eq!(old, Err(Malformed::Coding));
    }

    #[test]
    fn an_answers_length_depends_on_what_was_asked() {
        let sized = map(&[("content-length", "5")]);
        let of = |method: Method, code: u16, headers: &HeaderMap| {
            of_answer(&method, Version::HTTP_11, StatusCode::from_u16(code).unwrap(), headers)
        };
        assert_eq!(of(Method::GET, 200, &sized), Ok(Length::Exact(5)));
        assert_eq!(of(Method::HEAD, 200, &sized), Ok(Length::Exact(0)));
        for code in [100, 101, 204, 304] {
            assert_eq!(of(Method::GET, code, &sized), Ok(Length::Exact(0)), "{code}");
        }
        assert_eq!(of(Method::GET, 200, &HeaderMap::new()), Ok(Length::UntilClose));
        let both = map(&[("content-length", "5"), ("transfer-encoding", "chunked")]);
        assert_eq!(of(Method::HEAD, 200, &both), Err(Malformed::TwoLengths));
    }
}
