//! The log of an app of a platform elsewhere, as debug-api streams it: lines of JSON, each with its cursor. A stream that breaks off
//! is asked for again from the last cursor, so each line is shown once and none is passed over in silence.

use bytes::Bytes;
use http::{Method, StatusCode};
use nexushub_chassis::{applog::Told, retry::Retry};
use nexushub_proto::procmgr::{LogEntry, LogGap, LogStream};
use serde::Deserialize;

use super::{encoded, moment};
use crate::{
    failure::{Failure, OK},
    https::{Ask, Client, Stream},
    logs::{self, Logs, Manner},
    table::one_line,
    upload,
};

/// Longest line of the stream: a line of a log is cut by the platform before.
const LINE_MAX: usize = 8 << 20;

/// One line of the stream.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    time: String,
    stream: String,
    text: String,
    partial: bool,
    cursor: String,
    generation: u64,
    release: String,
    pid: u32,
    event: Option<String>,
    reason: String,
    lost: u64,
}

impl Line {
    fn entry(self) -> LogEntry {
        let stream = match self.stream.as_str() {
            "stderr" => LogStream::Stderr,
            "system" => LogStream::System,
            _ => LogStream::Stdout,
        };
        LogEntry {
            stream: stream.into(),
            line: self.text.into_bytes(),
            partial: self.partial,
            position: self.cursor,
            generation: self.generation,
            release: self.release,
            pid: self.pid,
            unix_ms: moment(&self.time),
            ..LogEntry::default()
        }
    }
}

/// How a stream ended.
enum Ended {
    /// All that there is was told.
    Complete,
    /// It broke off, or was asked to come back.
    Broke,
}

/// The lines of a stream, put together from its bytes.
#[derive(Default)]
struct Lines {
    held: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes end, in order.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<Line>, Failure> {
        self.held.extend_from_slice(bytes);
        let end = self.held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.held.split_off(end);
        let whole = std::mem::replace(&mut self.held, rest);
        if self.held.len() > LINE_MAX {
            return Err(strange("a line of it has no end"));
        }
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|error| strange(&error.to_string()))).collect()
    }
}

fn strange(why: &str) -> Failure {
    Failure::new(format!("the platform's log is not understood: {why}"), "is it a NexusHub platform?")
}

/// One log that is read.
struct Tail<'a> {
    client: &'a Client,
    path: String,
    manner: Manner,
    /// The last cursor that was told; empty = none yet.
    cursor: String,
}

/// Shows the log of an app, for as long as is wanted.
pub(crate) async fn follow(client: &Client, id: &str, wish: &Logs) -> Result<u8, Failure> {
    let path = format!("/debug/application/{id}/logs");
    let (manner, cursor) = (Manner::of(wish, id), wish.after.clone().unwrap_or_default());
    let mut tail = Tail { client, path, manner, cursor };
    let mut retry = Retry::default();
    loop {
        let before = tail.cursor.clone();
        match tail.read(wish).await {
            Ok(Ended::Complete) => return Ok(OK),
            Ok(Ended::Broke) if !wish.follow && tail.cursor == before => {
                return Err(Failure::new("the log broke off before its end", "try again"));
            }
            Ok(Ended::Broke) => {}
            // Whoever follows waits for a platform that is away; whoever does not is told.
            Err(failure) if !failure.passing || !wish.follow => return Err(failure),
            Err(_) => {}
        }
        if tail.cursor != before {
            retry.reset();
        }
        tokio::time::sleep(retry.wait()).await;
    }
}

impl Tail<'_> {
    /// Shows one stream to its end.
    async fn read(&mut self, wish: &Logs) -> Result<Ended, Failure> {
        let mut stream = self.open(wish).await?;
        let mut lines = Lines::default();
        while let Ok(Some(bytes)) = stream.next().await {
            for line in lines.take(&bytes)? {
                if let Some(ended) = self.tell(line)? {
                    return Ok(ended);
                }
            }
        }
        Ok(Ended::Broke)
    }

    async fn open(&self, wish: &Logs) -> Result<Stream, Failure> {
        let path = format!("{}?{}", self.path, query(wish, &self.cursor));
        let fields = [("accept", "application/x-ndjson")];
        let ask =
            Ask { method: Method::GET, path: &path, content_type: "", fields: &fields, body: Bytes::new() };
        let stream = self.client.stream(ask).await?;
        let is_ndjson =
            stream.headers.get("content-type").is_some_and(|media| media == "application/x-ndjson");
        match stream.status {
            StatusCode::OK if is_ndjson => Ok(stream),
            StatusCode::OK => Err(strange("it is of another form")),
            status => {
                let failure = upload::expect(stream.rest().await, "read the log").err();
                let failure = failure.unwrap_or_else(|| strange("there is none"));
                Err(Failure { passing: upload::is_away(status), ..failure })
            }
        }
    }

    /// Shows what a line says; how the stream ended, if it says that.
    fn tell(&mut self, line: Line) -> Result<Option<Ended>, Failure> {
        let after = line.cursor.clone();
        let told = match line.event.as_deref() {
            None => vec![Told::Line(line.entry())],
            Some("gap") => vec![Told::Gap(LogGap { dropped: line.lost, position: line.cursor })],
            Some("end") => return ended(&line).map(Some),
            Some(_) => Vec::new(), // it is alive, or something newer than this command
        };
        logs::show(told, &self.manner)?;
        if !after.is_empty() {
            self.cursor = after;
        }
        Ok(None)
    }
}

fn ended(line: &Line) -> Result<Ended, Failure> {
    match line.reason.as_str() {
        "complete" => Ok(Ended::Complete),
        "restart" => Ok(Ended::Broke),
        _ => Err(Failure::new(one_line(&line.text), "")),
    }
}

/// What is asked for, after this cursor if there is one.
fn query(wish: &Logs, cursor: &str) -> String {
    let tail = wish.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
    let begin: Vec<(&str, &str)> = match (cursor, &wish.since) {
        ("", Some(since)) => vec![("tail", &tail), ("since", since)],
        ("", None) => vec![("tail", &tail)],
        _ => vec![("after", cursor)],
    };
    let wanted = [("level", &wish.level), ("grep", &wish.grep)];
    let wanted = wanted.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let follow = ("follow", if wish.follow { "true" } else { "false" });
    let all = begin.into_iter().chain(wanted).chain([follow]);
    all.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

/// The last lines of an app, for a message about its failure.
pub(crate) async fn last_lines(client: &Client, id: &str, count: u32) -> Vec<String> {
    let path = format!("/debug/application/{id}/logs?follow=false&tail={count}");
    let fields = [("accept", "application/x-ndjson")];
    let ask = Ask { method: Method::GET, path: &path, content_type: "", fields: &fields, body: Bytes::new() };
    let Ok(answer) = client.ask(ask).await else { return Vec::new() };
    let lines = Lines::default().take(&answer.body).unwrap_or_default();
    lines.into_iter().filter(|line| line.event.is_none()).map(|line| one_line(line.text.trim_end())).collect()
}

#[cfg(test)]
pub(crate) mod tests;
