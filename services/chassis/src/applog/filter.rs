//! Which lines are wanted: those at least so bad, those that hold a text; and from when on.
//!
//! The text is plain, no expression: what one reader asks for is searched in every line of a daemon that all share, and a plain
//! text costs each of them next to nothing, however it was chosen. Who wants more has the lines, and a tool for it.

use std::{collections::VecDeque, fmt};

use jiff::Timestamp;
use memchr::memmem::Finder;
use nexushub_proto::procmgr::LogEntry;

use super::level::Level;

/// Longest text that is searched for.
const GREP_BYTES: usize = 1024;

/// What is not understood of a wish; for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadWish {
    /// Which word of the wish.
    pub what: &'static str,
    /// What it may be.
    pub may_be: String,
}

impl fmt::Display for BadWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: use {}", self.what, self.may_be)
    }
}

/// Lines that are wanted; by default all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    level: Option<Level>,
    grep: Option<Finder<'static>>,
}

impl Filter {
    /// Lines that are at least so bad and hold the text.
    ///
    /// # Errors
    /// When the level is none, or the text empty or too long.
    pub fn new(level: Option<&str>, grep: Option<&str>) -> Result<Self, BadWish> {
        let bad_level = || BadWish { what: "level", may_be: Level::NAMES.to_owned() };
        let level = level.map(|word| Level::parse(word).ok_or_else(bad_level)).transpose()?;
        let usable = |text: &&str| (1..=GREP_BYTES).contains(&text.len());
        if grep.is_some_and(|text| !usable(&text)) {
            let may_be = format!("a text of 1 to {GREP_BYTES} bytes, which lines must hold as it is");
            return Err(BadWish { what: "grep", may_be });
        }
        Ok(Self { level, grep: grep.map(|text| Finder::new(text.as_bytes()).into_owned()) })
    }

    /// Whether every line passes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.level.is_none() && self.grep.is_none()
    }

    /// Whether a whole line is wanted.
    #[must_use]
    pub fn passes(&self, entry: &LogEntry) -> bool {
        // The cheaper question first.
        self.grep.as_ref().is_none_or(|text| text.find(&entry.line).is_some())
            && self.level.is_none_or(|least| Level::of(entry) >= least)
    }
}

/// The moment from which on lines are wanted, in milliseconds since 1970: a moment as RFC 3339 has it, or so long ago.
///
/// # Errors
/// When it is neither.
pub fn since(text: &str, now_unix_ms: i64) -> Result<i64, BadWish> {
    let ago = || {
        let unit_ms: i64 = match text.as_bytes().last()? {
            b's' => 1000,
            b'm' => 60_000,
            b'h' => 3_600_000,
            b'd' => 86_400_000,
            _ => return None,
        };
        let number = &text[..text.len() - 1];
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let count: i64 = digits.then(|| number.parse().ok()).flatten()?;
        now_unix_ms.checked_sub(count.checked_mul(unit_ms)?)
    };
    let moment = || text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    ago().or_else(moment).ok_or_else(|| BadWish {
        what: "since",
        may_be: "a moment such as 2026-01-31T12:00:00Z, or how long ago, such as 90s, 10m, 2h or 7d"
            .to_owned(),
    })
}

/// Where the newest so many wanted lines begin, found by passing over all lines once. It holds places, not lines.
#[derive(Debug)]
pub(super) struct Ring {
    most: usize,
    starts: VecDeque<String>,
}

impl Ring {
    /// For the newest `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, starts: VecDeque::new() }
    }

    /// A wanted line comes right after this place.
    pub(super) fn found(&mut self, place: &str) {
        self.starts.push_back(place.to_owned());
        self.starts.drain(..self.starts.len().saturating_sub(self.most));
    }

    /// The place after which they come; `last` is the place after all that was passed over.
    pub(super) fn start(self, last: String) -> String {
        self.starts.into_iter().next().unwrap_or(last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::procmgr::LogStream;

    use super::*;

    fn entry(line: &str) -> LogEntry {
        LogEntry { stream: LogStream::Stdout.into(), line: line.into(), ..LogEntry::default() }
    }

    #[test]
    fn a_line_must_be_bad_enough_and_hold_the_text() {
        let passes = |level, grep, line| Filter::new(level, grep).unwrap().passes(&entry(line));
        assert!(passes(None, None, "x") && Filter::new(None, None).unwrap().is_open());
        assert!(passes(Some("warn"), None, "ERROR x") && passes(Some("warn"), None, "WARN x"));
        assert!(!passes(Some("warn"), None, "INFO x") && !passes(Some("warn"), None, "x"));
        assert!(passes(None, Some("a.c"), "xa.cx") && !passes(None, Some("a.c"), "abc"), "no expression");
        assert!(!passes(Some("error"), Some("y"), "ERROR x") && !passes(Some("error"), Some("x"), "x"));
    }

    #[test]
    fn nonsense_is_refused_with_words_and_bounds_hold() {
        let refused = |level, grep| Filter::new(level, grep).unwrap_err().to_string();
        assert!(refused(Some("loud"), None).starts_with("level: use trace, debug"));
        assert!(refused(None, Some("")).contains("1 to 1024 bytes"));
        assert!(Filter::new(None, Some(&"x".repeat(GREP_BYTES))).is_ok());
        assert!(Filter::new(None, Some(&"x".repeat(GREP_BYTES + 1))).is_err());
    }

    #[test]
    fn a_moment_is_said_by_itself_or_by_how_long_ago_it_was() {
        let now = 1_800_000_000_000;
        for (text, expected) in [
            ("90s", now - 90_000),
            ("10m", now - 600_000),
            ("2h", now - 7_200_000),
            ("7d", now - 604_800_000),
            ("0s", now),
            ("2023-11-14T22:13:20.5Z", 1_700_000_000_500),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ] {
            assert_eq!(since(text, now), Ok(expected), "{text}");
        }
        for nonsense in ["", "10", "m", "-5m", "+5m", "5 m", "1.5h", "yesterday", "99999999999999999d", "é"]
        {
            assert!(since(nonsense, now).is_err(), "{nonsense}");
        }
        assert!(since("9223372036854775807s", now).is_err(), "it does not wrap around");
    }

    #[test]
    fn the_newest_wanted_lines_begin_where_the_first_of_them_does_and_no_more_places_are_held() {
        let mut ring = Ring::new(3);
        for place in 0..100 {
            ring.found(&place.to_string());
        }
        assert_eq!(ring.starts.len(), 3);
        assert_eq!(ring.start("end".to_owned()), "97");
        assert_eq!(Ring::new(3).start("end".to_owned()), "end");
        let mut none = Ring::new(0);
        none.found("1");
        assert_eq!(none.start("2".to_owned()), "2");
    }
}
