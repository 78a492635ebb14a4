//! Conditional and range requests for one file (RFC 9110 §13, §14). Pure.

use http::{
    HeaderMap, HeaderValue,
    header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE},
};
use jiff::fmt::rfc2822::DateTimeParser;

use crate::{clock::date_of, headers::tokens};

/// Which content a file has, as its headers say it.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(super) etag: HeaderValue,
    pub(super) last_modified: HeaderValue,
    seconds: i64,
}

impl Version {
    /// By modification time and size.
    pub(crate) fn new(seconds: i64, nanoseconds: i64, size: u64) -> Self {
        let etag = format!("\"{seconds:x}.{nanoseconds:x}-{size:x}\"");
        Self {
            etag: HeaderValue::try_from(etag).expect("hexadecimal digits are printable ASCII"),
            last_modified: date_of(seconds),
            seconds,
        }
    }
}

impl Version {
    /// That of the same content, compressed: other bytes, another tag.
    pub(super) fn of_coding(mut self, coding: &str) -> Self {
        let tag = self.etag.to_str().unwrap_or_default().trim_end_matches('"');
        if let Ok(tag) = HeaderValue::try_from(format!("{tag}-{coding}\"")) {
            self.etag = tag;
        }
        self
    }
}

/// What to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Whole,
    Part {
        start: u64,
        length: u64,
    },
    /// The client has it already.
    Unchanged,
    /// There are no such bytes.
    Unsatisfiable,
}

/// What to send to a client that asked with these headers.
pub(crate) fn judge(headers: &HeaderMap, version: &Version, size: u64) -> Answer {
    if unchanged(headers, version) {
        return Answer::Unchanged;
    }
    let mut ranges = headers.get_all(RANGE).into_iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) if range_applies(headers, version) => {
            range.to_str().map_or(Answer::Whole, |range| part(range, size))
        }
        _ => Answer::Whole,
    }
}

/// `If-None-Match` where it is sent, else `If-Modified-Since`.
fn unchanged(headers: &HeaderMap, version: &Version) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        return tokens(headers, &IF_NONE_MATCH)
            .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == version.etag.as_bytes());
    }
    headers.get(IF_MODIFIED_SINCE).and_then(date).is_some_and(|since| version.seconds <= since)
}

fn range_applies(headers: &HeaderMap, version: &Version) -> bool {
    match headers.get(IF_RANGE) {
        None => true,
        Some(tag) if tag.as_bytes().contains(&b'"') => *tag == version.etag,
        Some(value) => date(value) == Some(version.seconds),
    }
}

fn date(value: &HeaderValue) -> Option<i64> {
    let time = DateTimeParser::new().parse_timestamp(value.as_bytes()).ok()?;
    Some(time.as_second())
}

/// One range of bytes; several, or another unit, are answered with the whole.
fn part(range: &str, size: u64) -> Answer {
    let Some((first, last)) =
        range.trim().strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Answer::Whole;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Answer::Whole;
    }
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    if first.is_empty() {
        let length = number(last).min(size);
        return if length == 0 {
            Answer::Unsatisfiable
        } else {
            Answer::Part { start: size - length, length }
        };
    }
    let start = number(first);
    let last = if last.is_empty() { u64::MAX } else { number(last) };
    if start > last {
        return Answer::Whole;
    }
    if start >= size {
        return Answer::Unsatisfiable;
    }
    Answer::Part { start, length: last.min(size - 1) - start + 1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn judged(pairs: &[(HeaderName, &str)]) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        judge(&headers, &version(), 1000)
    }

    /// 2000-01-01.
    fn version() -> Version {
        Version::new(946_684_800, 5, 1000)
    }

    #[test]
    fn dates_are_written_as_http_wants_them() {
        assert_eq!(version().last_modified, "Sat, 01 Jan 2000 00:00:00 GMT");
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        for (range, answer) in [
            ("bytes=0-0", Answer::Part { start: 0, length: 1 }),
            ("bytes=10-19", Answer::Part { start: 10, length: 10 }),
            ("bytes=990-", Answer::Part { start: 990, length: 10 }),
            ("bytes=990-5000", Answer::Part { start: 990, length: 10 }),
            ("bytes=990-99999999999999999999999", Answer::Part { start: 990, length: 10 }),
            ("bytes=-10", Answer::Part { start: 990, length: 10 }),
            ("bytes=-5000", Answer::Part { start: 0, length: 1000 }),
            ("bytes=1000-", Answer::Unsatisfiable),
            ("bytes=-0", Answer::Unsatisfiable),
            ("bytes=5-4", Answer::Whole),
            ("bytes=0-1,5-6", Answer::Whole),
            ("bytes=-", Answer::Whole),
            ("bytes=a-b", Answer::Whole),
            ("bytes=+1-2", Answer::Whole),
            ("lines=0-1", Answer::Whole),
            ("", Answer::Whole),
        ] {
            assert_eq!(judged(&[(RANGE, range)]), answer, "{range}");
        }
    }

    #[test]
    fn a_client_that_has_it_gets_nothing() {
        let etag = version().etag;
        let etag = etag.to_str().unwrap();
        let weak = format!("\"other\", W/{etag}");
        for (pairs, answer) in [
            (vec![(IF_NONE_MATCH, etag)], Answer::Unchanged),
            (vec![(IF_NONE_MATCH, weak.as_str())], Answer::Unchanged),
            (vec![(IF_NONE_MATCH, "*")], Answer::Unchanged),
            (vec![(IF_NONE_MATCH, "\"other\"")], Answer::Whole),
            (vec![(IF_MODIFIED_SINCE, "Sat, 01 Jan 2000 00:00:00 GMT")], Answer::Unchanged),
            (vec![(IF_MODIFIED_SINCE, "Fri, 31 Dec 1999 23:59:59 GMT")], Answer::Whole),
            (vec![(IF_MODIFIED_SINCE, "garbage")], Answer::Whole),
            (
                vec![(IF_NONE_MATCH, "\"other\""), (IF_MODIFIED_SINCE, "Sat, 01 Jan 2000 00:00:00 GMT")],
                Answer::Whole,
            ),
        ] {
            assert_eq!(judged(&pairs), answer, "{pairs:?}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_answered_with_the_whole() {
        let etag = version().etag;
        let etag = etag.to_str().unwrap();
        let part = Answer::Part { start: 0, length: 1 };
        assert_eq!(judged(&[(RANGE, "bytes=0-0"), (IF_RANGE, etag)]), part);
        assert_eq!(judged(&[(RANGE, "bytes=0-0"), (IF_RANGE, "\"other\"")]), Answer::Whole);
        assert_eq!(judged(&[(RANGE, "bytes=0-0"), (IF_RANGE, "Sat, 01 Jan 2000 00:00:00 GMT")]), part);
        assert_eq!(
            judged(&[(RANGE, "bytes=0-0"), (IF_RANGE, "Sun, 02 Jan 2000 00:00:00 GMT")]),
            Answer::Whole
        );
    }

    #[test]
    fn an_empty_file_has_no_range() {
        assert_eq!(part("bytes=0-", 0), Answer::Unsatisfiable);
        assert_eq!(part("bytes=-1", 0), Answer::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(range in "bytes=[0-9]{0,22}-[0-9]{0,22}", size in 0u64..5000) {
            if let Answer::Part { start, length } = part(&range, size) {
                prop_assert!(length > 0 && start + length <= size);
            }
        }
    }
}
