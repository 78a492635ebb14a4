//! Answers of the proxy's own: a status, a line of text, and when to come back.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER,
        VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
};

use crate::{body::ResponseBody, counters::Stopped, h1::Malformed};

mod page;

pub(crate) use page::Form;

/// Who reads an answer of the proxy's own.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    /// How the words are written.
    pub(crate) form: Form,
    /// It asked for the head only.
    pub(crate) head_only: bool,
    /// It speaks HTTP/2.
    pub(crate) h2: bool,
    /// The number by which the log knows the request.
    pub(crate) id: HeaderValue,
}

/// What a page may load and run: nothing but its own few lines of style.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");

/// An answer that the proxy gives instead of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: Cow<'static, str>,
    /// Seconds after which it is worth trying again.
    pub(crate) retry_after: Option<u32>,
    /// The methods that would be allowed.
    pub(crate) allow: Option<&'static str>,
    /// The connection can't be trusted to be in step any more.
    pub(crate) close: bool,
    /// The limit that was reached, if it was one.
    pub(crate) by: Option<Stopped>,
}

impl Refusal {
    /// This status with this text.
    pub(crate) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), retry_after: None, allow: None, close: false, by: None }
    }

    /// A request that is not HTTP as it should be; the connection is closed after it.
    pub(crate) fn bad_request(text: &'static str) -> Self {
        Self { close: true, ..Self::new(StatusCode::BAD_REQUEST, text) }
    }

    /// Bytes that are no message; the connection is closed after it.
    pub(crate) fn malformed(error: Malformed) -> Self {
        let words = format!("{}: {error}", phrase(error.status()));
        Self { close: true, by: error.limit(), ..Self::new(error.status(), words) }
    }

    /// For this limit was reached.
    pub(crate) fn by(self, limit: Stopped) -> Self {
        Self { by: Some(limit), ..self }
    }

    /// Not now.
    pub(crate) fn unavailable(text: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    /// The answer to send.
    pub(crate) fn into_response(self, reader: &Reader) -> Response<ResponseBody> {
        let wordless = self.status == StatusCode::NO_CONTENT;
        let mut headers = HeaderMap::new();
        let mut body = ResponseBody::empty();
        if !wordless {
            let words = reader.form.write(self.status, &self.text, reader.id.to_str().unwrap_or_default());
            describe(&mut headers, reader.form, words.len());
            if !reader.head_only {
                body = ResponseBody::text(Bytes::from(words));
            }
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.close && !reader.h2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (self.status, headers);
        response
    }
}

fn describe(headers: &mut HeaderMap, form: Form, length: usize) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if form == Form::Page {
        headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    }
}

fn phrase(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or_default()
}

/// A person's text without what could break a line or a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn reader(head_only: bool, h2: bool) -> Reader {
        Reader { form: Form::Text, head_only, h2, id: HeaderValue::from_static("id") }
    }

    #[test]
    fn an_answer_to_head_tells_its_length_and_has_no_body() {
        let response = Refusal::unavailable("later", 1).into_response(&reader(true, false));
        assert_eq!(response.headers()["content-length"], "6");
        assert_eq!(response.headers()["retry-after"], "1");
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn a_bad_request_closes_an_http1_connection_only() {
        let close = |h2| {
            Refusal::bad_request("bad").into_response(&reader(false, h2)).headers().contains_key("connection")
        };
        assert!(close(false) && !close(true));
    }

    #[test]
    fn text_for_people_holds_no_control_characters() {
        assert_eq!(printable("a\r\nb\x1b[31m"), "a  b [31m");
    }
}
