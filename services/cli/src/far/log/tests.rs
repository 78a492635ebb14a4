//! The lines of a stream, whatever the pieces that it comes in, and what is asked for.

#![allow(clippy::unwrap_used)]

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    logs: Logs,
}

/// What somebody types of `nexushub logs shop`.
pub(crate) fn wish(words: &[&str]) -> Logs {
    Typed::parse_from(["logs", "shop"].iter().chain(words)).logs
}

#[test]
fn lines_are_whole_whatever_the_pieces() {
    let text = "{\"text\":\"ä\",\"cursor\":\"1:1\",\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:01.000Z\",\"pid\":7}\n\
                {\"event\":\"alive\",\"cursor\":\"1:2\"}\n{\"event\":\"new\",\"more\":[1]}\n";
    for size in [1, 2, 7, 4096] {
        let mut lines = Lines::default();
        let all: Vec<Line> =
            text.as_bytes().chunks(size).flat_map(|piece| lines.take(piece).unwrap()).collect();
        let events: Vec<_> = all.iter().map(|line| line.event.as_deref()).collect();
        assert_eq!(events, [None, Some("alive"), Some("new")], "{size}");
        let first = all.into_iter().next().unwrap().entry();
        assert_eq!((first.stream(), first.position.as_str()), (LogStream::Stderr, "1:1"));
        assert_eq!((first.line.as_slice(), first.unix_ms, first.pid), ("ä".as_bytes(), 1000, 7));
    }
}

#[test]
fn what_is_no_line_ends_the_log() {
    for wrong in ["<html>\n", "[1]\n", "{\"pid\":-1}\n", "{\"text\":\"\n"] {
        assert!(Lines::default().take(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let mut endless = Lines::default();
    assert!(endless.take(&vec![b' '; LINE_MAX]).is_ok());
    assert!(endless.take(b" ").is_err());
}

#[test]
fn an_end_is_complete_to_be_continued_or_told() {
    let end =
        |reason: &str| ended(&Line { reason: reason.into(), text: "why\u{1b}".into(), ..Line::default() });
    assert!(matches!(end("complete"), Ok(Ended::Complete)) && matches!(end("restart"), Ok(Ended::Broke)));
    assert_eq!(end("deleted").err().unwrap().message, "why ");
}

#[test]
fn what_is_wanted_is_asked_for_as_debug_api_understands_it() {
    assert_eq!(query(&wish(&[]), ""), "tail=all&follow=false");
    let all = ["-f", "-n", "5", "--since", "10m", "--level", "warn", "--grep", "a&b=ü"];
    let wanted = "level=warn&grep=a%26b%3D%C3%BC&follow=true";
    assert_eq!(query(&wish(&all), ""), format!("tail=5&since=10m&{wanted}"));
    assert_eq!(query(&wish(&all), "1:5,2:7"), format!("after=1%3A5%2C2%3A7&{wanted}"));
}
