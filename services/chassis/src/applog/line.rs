//! A log in words: for programs a JSON object a line, for people the bytes as they were said.
//!
//! A line of an app is an object without `event`. It has the keys that the daemons' own lines have (`ts`, `level`, `release`, `msg`,
//! `instance`), so that one search finds both, and those that it had before them. What else there is to tell is one with it: `gap` (lines are missing here),
//! `alive` (nothing new, and how far the log was read), `end` (no more comes, and why).

use std::time::{Duration, UNIX_EPOCH};

use nexushub_launch::clock;
use nexushub_proto::procmgr::{LogEntry, LogStream};
use serde::Serialize;

use super::level::Level;

#[derive(Serialize)]
struct Line<'a> {
    ts: &'a str,
    time: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    release: &'a str,
    stream: &'static str,
    level: &'static str,
    msg: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    cursor: &'a str,
    generation: u64,
    pid: u32,
}

#[derive(Default, Serialize)]
struct News<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cursor: &'a str,
}

fn time(unix_ms: i64) -> String {
    clock::rfc3339(UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0)))
}

fn object(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and text are JSON") + "\n"
}

/// Where a line came from, in a word.
#[must_use]
pub fn stream(entry: &LogEntry) -> &'static str {
    match entry.stream() {
        LogStream::Stdout | LogStream::Unspecified => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::System => "system",
    }
}

/// A line of this instance for programs. `level` is what it counts as, `partial` is there if it is so long that it goes on in the
/// next.
#[must_use]
pub fn json(instance: &str, entry: &LogEntry) -> String {
    let (time, text) = (time(entry.unix_ms), String::from_utf8_lossy(&entry.line));
    object(&Line {
        ts: &time,
        time: &time,
        instance,
        release: &entry.release,
        stream: stream(entry),
        level: Level::of(entry).as_str(),
        msg: &text,
        text: &text,
        partial: entry.partial,
        cursor: &entry.position,
        generation: entry.generation,
        pid: entry.pid,
    })
}

/// A line for people; the platform's own words are marked.
#[must_use]
pub fn plain(entry: &LogEntry) -> Vec<u8> {
    match entry.stream() {
        LogStream::System => system(&String::from_utf8_lossy(&entry.line)).into_bytes(),
        _ => [&entry.line, b"\n".as_slice()].concat(),
    }
}

/// The platform's own words among an app's.
#[must_use]
pub fn system(words: &str) -> String {
    format!("-- {words} --\n")
}

/// What is said of entries that are missing; 0 = nobody knows how many.
#[must_use]
pub fn gap_words(lost: u64) -> String {
    let count = if lost == 0 { "Some".to_owned() } else { lost.to_string() };
    format!("{count} log lines are missing here: no longer kept, or dropped")
}

/// Entries are missing here, for programs.
#[must_use]
pub fn gap(lost: u64, cursor: &str, now_unix_ms: i64) -> String {
    let text = &gap_words(lost);
    object(&News { time: time(now_unix_ms), event: "gap", lost: Some(lost), text, cursor, ..News::default() })
}

/// Nothing new, for programs.
#[must_use]
pub fn alive(cursor: &str, now_unix_ms: i64) -> String {
    object(&News { time: time(now_unix_ms), event: "alive", cursor, ..News::default() })
}

/// No more comes, for programs.
#[must_use]
pub fn end(reason: &str, text: &str, cursor: &str, now_unix_ms: i64) -> String {
    let reason = Some(reason);
    object(&News { time: time(now_unix_ms), event: "end", reason, text, cursor, ..News::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stream: LogStream, line: &[u8]) -> LogEntry {
        LogEntry {
            stream: stream.into(),
            line: line.to_vec(),
            unix_ms: 1000,
            generation: 2,
            pid: 7,
            position: "2:9".to_owned(),
            release: "1.4".to_owned(),
            ..LogEntry::default()
        }
    }

    #[test]
    fn a_line_for_programs_has_the_keys_of_every_log_and_its_own() {
        assert_eq!(
            json("shop", &entry(LogStream::Stderr, b"WARN a\"b\xff")),
            "{\"ts\":\"1970-01-01T00:00:01.000Z\",\"time\":\"1970-01-01T00:00:01.000Z\",\"instance\":\"shop\",\"release\":\"1.4\",\
             \"stream\":\"stderr\",\"level\":\"warn\",\"msg\":\"WARN a\\\"b\u{fffd}\",\"text\":\"WARN a\\\"b\u{fffd}\",\
             \"cursor\":\"2:9\",\"generation\":2,\"pid\":7}\n"
        );
        let said = LogEntry { partial: true, release: String::new(), ..entry(LogStream::Stdout, b"a\nb") };
        let begun = json("shop", &said);
        assert!(begun.contains("\"partial\":true") && begun.contains("\"level\":\"info\""), "{begun}");
        assert!(!begun.contains("release") && begun.lines().count() == 1, "{begun}");
    }

    #[test]
    fn what_else_there_is_to_tell_has_a_name() {
        assert_eq!(
            gap(3, "2:9", 0),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"event\":\"gap\",\"lost\":3,\
             \"text\":\"3 log lines are missing here: no longer kept, or dropped\",\"cursor\":\"2:9\"}\n"
        );
        assert!(gap(0, "", 0).contains("\"lost\":0,\"text\":\"Some log lines"));
        assert_eq!(
            alive("2:9", 0),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"event\":\"alive\",\"cursor\":\"2:9\"}\n"
        );
        assert!(
            end("deleted", "why", "", 0)
                .ends_with("\"event\":\"end\",\"reason\":\"deleted\",\"text\":\"why\"}\n")
        );
    }

    #[test]
    fn people_get_the_bytes_and_the_platforms_words_marked() {
        assert_eq!(plain(&entry(LogStream::Stdout, b"a\xffb")), b"a\xffb\n");
        assert_eq!(plain(&entry(LogStream::System, b"started")), b"-- started --\n");
    }
}
