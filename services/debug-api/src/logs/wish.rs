//! What a client wants of a log: the form by `Accept`, the rest by parameters. Pure. What isn't understood is refused in words,
//! but for a `Last-Event-ID`: a browser that comes back sends it by itself, and has no use for an error.

use axum::extract::Query;
use http::{HeaderMap, Uri, header};
use nexushub_chassis::applog::{self, BadWish, Begin, Filter};
use serde::Deserialize;

use super::form::Form;
use crate::error::ApiError;

/// Most lines that a stream may begin with, if not with all.
pub(crate) const TAIL_MAX: u32 = 10_000;

/// Bytes of a cursor.
const CURSOR_MAX: usize = 4096;

/// The parameters, as said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    follow: Option<String>,
    since: Option<String>,
    tail: Option<String>,
    level: Option<String>,
    grep: Option<String>,
    after: Option<String>,
}

/// Where to go on, and whether the client said so or its browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) cursor: String,
    pub(crate) by_itself: bool,
}

/// A wish that makes sense.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) form: Form,
    /// Whether to go on with what is written from now on.
    pub(crate) follow: bool,
    /// Wins over `begin`.
    pub(crate) after: Option<After>,
    pub(crate) begin: Begin,
    pub(crate) filter: Filter,
}

impl Wish {
    /// A developer's; `history` is how many lines a stream begins with if nothing else is said.
    pub(crate) fn read(
        uri: &Uri,
        headers: &HeaderMap,
        history: u32,
        now_unix_ms: i64,
    ) -> Result<Self, ApiError> {
        let Query(asked) =
            Query::<Asked>::try_from_uri(uri).map_err(|error| ApiError::Query(error.body_text()))?;
        let form = accepted(headers);
        Self::judge(&asked, form, headers, history, now_unix_ms).map_err(ApiError::Wish)
    }

    fn judge(
        asked: &Asked,
        form: Form,
        headers: &HeaderMap,
        history: u32,
        now_unix_ms: i64,
    ) -> Result<Self, BadWish> {
        let since = asked.since.as_deref().map(|text| applog::since(text, now_unix_ms)).transpose()?;
        let tail = match asked.tail.as_deref() {
            Some(text) => tail(text)?,
            None if since.is_some() => None,
            None => Some(history),
        };
        let said = asked.after.clone().filter(|cursor| !cursor.is_empty());
        let no_cursor = || BadWish { what: "after", may_be: "a cursor of this log".to_owned() };
        if said.as_deref().is_some_and(|cursor| !is_cursor(cursor)) {
            return Err(no_cursor());
        }
        let said = said.map(|cursor| After { cursor, by_itself: false });
        Ok(Self {
            form,
            follow: asked.follow.as_deref().map_or(Ok(true), truth)?,
            // Who comes back asks for the same address again: the header is what it read meanwhile.
            after: last_event(headers).or(said),
            begin: Begin { tail, since },
            filter: Filter::new(asked.level.as_deref(), asked.grep.as_deref())?,
        })
    }

    /// The platform's own page's.
    pub(crate) fn of_page(tail: u32, follow: bool, headers: &HeaderMap) -> Self {
        let (form, filter) = (Form::Page, Filter::default());
        let begin = Begin { tail: Some(tail), since: None };
        Self { form, follow, after: last_event(headers), begin, filter }
    }
}

/// Whether it can be one at all: an answer may repeat it before procmgr was asked.
fn is_cursor(text: &str) -> bool {
    text.len() <= CURSOR_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":,.-_".contains(&byte))
}

fn last_event(headers: &HeaderMap) -> Option<After> {
    let id = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::trim);
    let cursor = id.filter(|id| !id.is_empty() && is_cursor(id))?.to_owned();
    Some(After { cursor, by_itself: true })
}

fn truth(word: &str) -> Result<bool, BadWish> {
    match word {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(BadWish { what: "follow", may_be: "true or false".to_owned() }),
    }
}

fn tail(text: &str) -> Result<Option<u32>, BadWish> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(count) if digits && count <= TAIL_MAX => Ok(Some(count)),
        _ if text == "all" => Ok(None),
        _ => Err(BadWish { what: "tail", may_be: format!("a number up to {TAIL_MAX}, or all") }),
    }
}

/// The form that the client likes best; events if it likes none of ours, as ever.
fn accepted(headers: &HeaderMap) -> Form {
    let fields = headers.get_all(header::ACCEPT).into_iter().filter_map(|field| field.to_str().ok());
    let (mut best, mut most) = (Form::Contract, 0.0);
    for range in fields.flat_map(|field| field.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "text/event-stream" | "*/*" | "text/*" => Form::Contract,
            "application/x-ndjson" | "application/*" => Form::Ndjson,
            "text/plain" => Form::Text,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        let quality = quality.unwrap_or(0.0);
        if quality > most {
            (best, most) = (form, quality);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn wish(query: &str, fields: &[(&'static str, &str)]) -> Result<Wish, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let uri = format!("/logs{query}").parse().unwrap();
        Wish::read(&uri, &headers, 50, NOW).map_err(|error| error.to_string())
    }

    #[test]
    fn who_says_nothing_gets_the_contracts_stream() {
        for accept in ["", "*/*", "text/event-stream", "application/json"] {
            let wish = wish("", &[("accept", accept)]).unwrap();
            assert_eq!((wish.form, wish.follow, wish.after), (Form::Contract, true, None));
            assert_eq!(wish.begin, Begin { tail: Some(50), since: None });
            assert!(wish.filter.is_open());
        }
    }

    #[test]
    fn the_form_is_what_is_liked_best() {
        let form = |accept| wish("", &[("accept", accept)]).unwrap().form;
        assert_eq!(form("application/x-ndjson"), Form::Ndjson);
        assert_eq!(form("Text/Plain; charset=utf-8"), Form::Text);
        assert_eq!(form("text/plain;q=0.5, application/x-ndjson;q=0.9, */*;q=0.1"), Form::Ndjson);
        assert_eq!(form("text/plain;q=0, text/event-stream;q=0.1"), Form::Contract);
        assert_eq!(form("text/plain;q=nonsense"), Form::Contract);
    }

    #[test]
    fn parameters_say_where_to_begin_and_a_cursor_wins() {
        let asked = wish("?follow=false&since=10m&level=warn&grep=a%20b", &[]).unwrap();
        assert_eq!((asked.follow, asked.begin), (false, Begin { tail: None, since: Some(NOW - 600_000) }));
        assert!(!asked.filter.is_open());
        let both = wish("?since=10m&tail=5", &[]).unwrap();
        assert_eq!((both.begin.tail, both.begin.since.is_some()), (Some(5), true));
        assert_eq!(wish("?tail=all", &[]).unwrap().begin.tail, None);
        let after = |cursor: &str, by_itself| Some(After { cursor: cursor.to_owned(), by_itself });
        assert_eq!(wish("?after=1:5", &[]).unwrap().after, after("1:5", false));
        assert_eq!(wish("?after=1:5", &[("last-event-id", " 1:9 ")]).unwrap().after, after("1:9", true));
        assert_eq!(wish("?after=", &[("last-event-id", "")]).unwrap().after, None);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (query, word) in [
            ("?follow=maybe", "follow: use true or false"),
            ("?follow", "follow"),
            ("?tail=-1", "tail: use a number up to 10000, or all"),
            ("?tail=10001", "tail"),
            ("?tail=+5", "tail"),
            ("?tail=", "tail"),
            ("?since=yesterday", "since: use a moment such as"),
            ("?level=loud", "level: use trace"),
            ("?grep=", "grep: use a text"),
            ("?lines=5", "unknown field `lines`"),
            ("?tail=1&tail=2", "duplicate field `tail`"),
        ] {
            let said = wish(query, &[]).unwrap_err();
            assert!(said.contains(word), "{query}: {said}");
        }
    }
}
