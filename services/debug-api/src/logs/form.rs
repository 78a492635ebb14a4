//! How a log is written down for a client. Pure but for the time of what the platform itself says.
//!
//! ```text
//!             a line                       missing lines           nothing new                 the end
//!   contract  event: log, JSON             event: log, with lost   event: keepalive            event: end, with reason
//!   page      JSON                         JSON, with lost         a comment                   event: end (but not: complete)
//!   ndjson    {time, stream, text, …}      {event: gap, …}         {event: alive, cursor}      {event: end, reason, …}
//!   text      the bytes                    -- words --                                         -- words --
//! ```
//! A stream that ends without such an end was broken off: whoever reads it comes back with the last cursor.

use nexushub_chassis::applog;
use nexushub_proto::procmgr::{LogEntry, LogStream};
use serde::Serialize;

use crate::record::{now_ms, rfc3339};

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Server-sent events, as the contract has them.
    Contract,
    /// Server-sent events of the platform's own page.
    Page,
    Ndjson,
    Text,
}

/// Why no more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All of it was told, and nobody wanted what follows.
    Complete,
    Deleted,
    Expired,
    /// This daemon ends.
    Leaving,
    /// What should have been gone on after is no place in this log.
    Cursor,
    /// It is not there any more.
    Gone,
}

impl End {
    /// For programs, and for people.
    fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Complete => ("complete", "this is all that is kept"),
            Self::Deleted => ("deleted", "the application was deleted, and its log with it"),
            Self::Expired => ("expired", "nobody asked about the application for too long: it was removed"),
            Self::Leaving => ("restart", "debug-api is being replaced; come back with the last cursor"),
            Self::Cursor => ("cursor", "the cursor is none of this log"),
            Self::Gone => ("gone", "the log is gone"),
        }
    }
}

/// One event's JSON.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    id: u64,
    timestamp: String,
    level: &'static str,
    source: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(pid: &u32) -> bool {
    *pid == 0
}

impl<'a> Line<'a> {
    /// A word of the platform's own.
    fn system(message: &'a str) -> Self {
        let timestamp = seconds(now_ms());
        Self { timestamp, level: "info", source: "system", message, ..Self::default() }
    }
}

impl Form {
    pub(crate) fn media(self) -> &'static str {
        match self {
            Self::Contract | Self::Page => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    /// What a stream begins with.
    pub(crate) fn hello(self, id: &str) -> String {
        let message = format!("Log stream started for application {id}");
        match self {
            Self::Contract => self.event(None, &Line::system(&message)),
            Self::Page | Self::Ndjson | Self::Text => String::new(),
        }
    }

    pub(crate) fn line(self, id: &str, entry: &LogEntry) -> Vec<u8> {
        match self {
            Self::Contract | Self::Page => self.entry(entry).into_bytes(),
            Self::Ndjson => applog::json(id, entry).into_bytes(),
            Self::Text => applog::plain(entry),
        }
    }

    pub(crate) fn gap(self, lost: u64, position: &str) -> String {
        let message = applog::gap_words(lost);
        match self {
            Self::Contract | Self::Page => {
                self.event(Some(position), &Line { lost: Some(lost), ..Line::system(&message) })
            }
            Self::Ndjson => applog::gap(lost, position, now_ms()),
            Self::Text => applog::system(&message),
        }
    }

    /// Somebody is there, and has read so far; no position where the last line's is that.
    pub(crate) fn alive(self, position: Option<&str>) -> String {
        // An event without data is none, but a browser keeps its id.
        let id = position.map(|position| format!("id: {position}\n")).unwrap_or_default();
        match self {
            Self::Contract => format!("event: keepalive\n{id}\n"),
            Self::Page => format!(": keepalive\n{id}\n"),
            Self::Ndjson => applog::alive(position.unwrap_or_default(), now_ms()),
            Self::Text => String::new(),
        }
    }

    pub(crate) fn end(self, end: End, position: &str) -> String {
        let (reason, words) = end.told();
        match self {
            Self::Page if end == End::Complete => String::new(),
            Self::Contract | Self::Page => {
                format!("event: end\n{}", event(None, &Line { reason: Some(reason), ..Line::system(words) }))
            }
            Self::Ndjson => applog::end(reason, words, position, now_ms()),
            Self::Text => applog::system(words),
        }
    }

    fn entry(self, entry: &LogEntry) -> String {
        let level = if entry.stream() == LogStream::Stderr { "error" } else { "info" };
        let message = String::from_utf8_lossy(&entry.line);
        let line = Line {
            id: entry.cursor,
            timestamp: seconds(entry.unix_ms),
            level,
            source: applog::stream(entry),
            message: &message,
            pid: entry.pid,
            ..Line::default()
        };
        self.event(Some(&entry.position), &line)
    }

    /// With the name of the event, where the contract has one.
    fn event(self, id: Option<&str>, line: &Line<'_>) -> String {
        let name = if self == Self::Contract { "event: log\n" } else { "" };
        format!("{name}{}", event(id, line))
    }
}

fn event(id: Option<&str>, line: &Line<'_>) -> String {
    let json = serde_json::to_string(line).expect("numbers and text are JSON");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}data: {json}\n\n")
}

/// RFC 3339 in whole seconds, as the contract has it.
fn seconds(unix_ms: i64) -> String {
    let text = rfc3339(unix_ms);
    text.split_once('.').map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &[u8]) -> LogEntry {
        LogEntry {
            cursor: 5,
            stream: LogStream::Stderr.into(),
            line: line.to_vec(),
            generation: 1,
            pid: 7,
            unix_ms: 1_700_000_000_123,
            position: "1:5".to_owned(),
            ..LogEntry::default()
        }
    }

    fn text(form: Form, line: &[u8]) -> String {
        String::from_utf8_lossy(&form.line("shop", &entry(line))).into_owned()
    }

    #[test]
    fn a_line_is_one_event_with_its_position_and_its_number() {
        let event = "id: 1:5\ndata: {\"id\":5,\"timestamp\":\"2023-11-14T22:13:20Z\",\"level\":\"error\",\
             \"source\":\"stderr\",\"message\":\"a\\n\\\"b\\\"\u{fffd}\",\"pid\":7}\n\n";
        assert_eq!(text(Form::Page, b"a\n\"b\"\xff"), event);
        assert_eq!(text(Form::Contract, b"a\n\"b\"\xff"), format!("event: log\n{event}"));
        assert_eq!(
            text(Form::Page, b"\xff\x00x").lines().count(),
            3,
            "a frame is two lines and an empty one"
        );
    }

    #[test]
    fn every_form_tells_what_is_missing_that_it_lives_and_why_it_ends() {
        for form in [Form::Contract, Form::Page, Form::Ndjson, Form::Text] {
            assert!(form.gap(3, "1:5").contains("3 log lines are missing here"), "{form:?}");
            assert!(form.end(End::Deleted, "1:5").contains("was deleted"), "{form:?}");
        }
        assert_eq!(Form::Contract.alive(None), "event: keepalive\n\n");
        assert_eq!(Form::Contract.alive(Some("1:5")), "event: keepalive\nid: 1:5\n\n");
        assert_eq!(Form::Page.alive(None), ": keepalive\n\n");
        assert!(Form::Ndjson.alive(Some("1:5")).contains("\"event\":\"alive\",\"cursor\":\"1:5\""));
        assert!(Form::Contract.end(End::Complete, "").starts_with("event: end\ndata: {\"id\":0"));
        assert!(Form::Contract.end(End::Leaving, "").contains("\"reason\":\"restart\""));
        assert_eq!(text(Form::Text, b"as it is"), "as it is\n");
    }
}
