//! Answers of the proxy's own: a status, a line of text, and when to come back.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::body::ResponseBody;

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
}

impl Refusal {
    /// This status with this text.
    pub(crate) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), retry_after: None, allow: None, close: false }
    }

    /// A request that is not HTTP as it should be; the connection is closed after it.
    pub(crate) fn bad_request(text: &'static str) -> Self {
        Self { close: true, ..Self::new(StatusCode::BAD_REQUEST, text) }
    }

    /// Not now.
    pub(crate) fn unavailable(text: impl Into<Cow<'static, str>>, retry_after: u32) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    /// The answer to send.
    pub(crate) fn into_response(self, head_only: bool, h2: bool) -> Response<ResponseBody> {
        let mut text = self.text.into_owned();
        if self.status != StatusCode::NO_CONTENT {
            text.push('\n');
        }
        let length = text.len();
        let silent = head_only || self.status == StatusCode::NO_CONTENT;
        let body = if silent { ResponseBody::empty() } else { ResponseBody::text(Bytes::from(text)) };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::NO_CONTENT {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            headers.insert(
                HeaderName::from_static("x-content-type-options"),
                HeaderValue::from_static("nosniff"),
            );
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
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
        if self.close && !h2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A person's text without what could break a line or a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[test]
    fn an_answer_to_head_tells_its_length_and_has_no_body() {
        let response = Refusal::unavailable("later", 1).into_response(true, false);
        assert_eq!(response.headers()["content-length"], "6");
        assert_eq!(response.headers()["retry-after"], "1");
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn a_bad_request_closes_an_http1_connection_only() {
        let close =
            |h2| Refusal::bad_request("bad").into_response(false, h2).headers().contains_key("connection");
        assert!(close(false) && !close(true));
    }

    #[test]
    fn text_for_people_holds_no_control_characters() {
        assert_eq!(printable("a\r\nb\x1b[31m"), "a  b [31m");
    }
}
