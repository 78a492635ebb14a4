//! An app's log as server-sent events: a first line from the platform, the newest lines, then every further one, in order
//! and exactly once, for as long as the client listens. The event id is the position in procmgr's log, so a client that
//! sends `Last-Event-ID` goes on right after it; so does this stream itself when procmgr is restarted. An id that is none of
//! procmgr's begins a new stream: a browser that reconnects has no use for an error.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nexushub_chassis::retry::Retry;
use nexushub_proto::procmgr::{
    LogEntry, LogStream, ReadLogRequest, ReadLogResponse, read_log_response::Event,
};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Interval, MissedTickBehavior},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    applications::{App, Hub, Reading},
    error::ApiError,
    peers::Flow,
    record::{Wanted, now_ms, rfc3339},
};

/// Frames on their way to a client; a slow one makes procmgr wait, which then tells of a gap.
const QUEUE: usize = 64;

/// How long a line may stay open, counted from the last piece of anything.
const HOLD: Duration = Duration::from_millis(500);
/// Lines that wait behind an open one, at most.
const HELD: usize = 1024;

/// Where to go on reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Position {
    after: String,
    tail: u32,
}

/// One event's JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: u64,
    timestamp: String,
    level: &'static str,
    source: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pid: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(pid: &u32) -> bool {
    *pid == 0
}

/// Whose log is streamed, and in which form.
struct Subject {
    id: String,
    /// When it is cancelled there is nobody left whose log it would be.
    gone: CancellationToken,
    /// A developer's application, which doesn't expire while its log is read; its stream has the contract's form. The platform's
    /// own form has no names of events, and comments for signs of life.
    developers: Option<Reading>,
    /// Whether it goes on with what is written from now on.
    follow: bool,
}

/// Opens the stream of a developer's application.
pub(crate) async fn stream(hub: Arc<Hub>, app: Arc<App>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let limit = hub.config.max_log_streams;
    let place = Arc::clone(&hub.streams).try_acquire_owned().map_err(|_| ApiError::TooManyStreams(limit))?;
    app.touch();
    let wanted = app.state().record.wanted;
    if wanted == Wanted::Nothing {
        return Err(ApiError::NotRunning);
    }
    let (id, gone, tail) = (app.id.clone(), app.gone.clone(), hub.config.log_history);
    let subject = Subject { id, gone, developers: Some(Reading::begin(&hub, &app)), follow: true };
    let (first, position) = begin(&hub, &subject, tail, headers).await;
    if wanted != Wanted::Run && first.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
        return Err(ApiError::NoLog);
    }
    let mut response = start(hub, subject, first, position, place);
    for (name, value) in
        [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::ACCESS_CONTROL_ALLOW_HEADERS, "Cache-Control")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Opens the stream of any instance: the newest `tail` lines, and what is written from then on if it is to `follow`.
pub(crate) async fn of_instance(
    hub: Arc<Hub>,
    id: String,
    (tail, follow): (u32, bool),
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let limit = hub.config.max_log_streams;
    let place = Arc::clone(&hub.streams).try_acquire_owned().map_err(|_| ApiError::TooManyStreams(limit))?;
    let subject = Subject { id, gone: CancellationToken::new(), developers: None, follow };
    let (first, position) = begin(&hub, &subject, tail, headers).await;
    if first.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
        return Err(ApiError::NoLog);
    }
    Ok(start(hub, subject, first, position, place))
}

type Opened = Result<Flow<ReadLogResponse>, Status>;

/// From where the client left off, or from the newest lines.
async fn begin(hub: &Hub, subject: &Subject, tail: u32, headers: &HeaderMap) -> (Opened, Position) {
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::trim);
    let newest = Position { after: String::new(), tail };
    let position = match resumed.filter(|id| !id.is_empty()) {
        Some(after) => Position { after: after.to_owned(), tail: 0 },
        None => newest.clone(),
    };
    let first = open(hub, subject, &position).await;
    if first.as_ref().is_err_and(|status| status.code() == Code::InvalidArgument) {
        return (open(hub, subject, &newest).await, newest);
    }
    (first, position)
}

fn start(
    hub: Arc<Hub>,
    subject: Subject,
    first: Opened,
    position: Position,
    place: OwnedSemaphorePermit,
) -> Response {
    let (frames, received) = mpsc::channel(QUEUE);
    let mut tail =
        Tail { joiner: Joiner::new(hub.config.max_log_line_bytes), hub, subject, frames, position };
    tokio::spawn(async move {
        let _place = place;
        tail.run(first).await;
    });
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(received)));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONNECTION, "keep-alive"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn open(hub: &Hub, subject: &Subject, from: &Position) -> Opened {
    let Position { after: position, tail } = from.clone();
    let (id, follow) = (subject.id.clone(), subject.follow);
    hub.peers.read_log(ReadLogRequest { id, after: 0, tail, follow, position }).await
}

/// The client has gone, or has all that it asked for.
struct Hangup;

/// One client's stream.
struct Tail {
    hub: Arc<Hub>,
    subject: Subject,
    frames: mpsc::Sender<Result<Bytes, Infallible>>,
    position: Position,
    joiner: Joiner,
}

impl Tail {
    /// Until the client hangs up, the application is deleted, or the daemon drains.
    async fn run(&mut self, first: Result<Flow<ReadLogResponse>, Status>) {
        let (closed, gone, hub) = (self.frames.clone(), self.subject.gone.clone(), Arc::clone(&self.hub));
        tokio::select! {
            Err(Hangup) = self.follow(first) => {}
            () = closed.closed() => {}
            () = gone.cancelled() => {}
            () = hub.shutdown.draining() => {}
        }
    }

    async fn follow(&mut self, first: Result<Flow<ReadLogResponse>, Status>) -> Result<Infallible, Hangup> {
        if self.subject.developers.is_some() {
            let message = format!("Log stream started for application {}", self.subject.id);
            self.system(None, &message).await?;
        }
        let period = Duration::from_millis(self.hub.config.keepalive_ms);
        let mut keepalive = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = Retry::default();
        let mut opened = first;
        loop {
            let ended = match opened {
                Ok(flow) => self.pump(flow, &mut keepalive, &mut retry).await?,
                Err(status) => status,
            };
            if !self.subject.follow {
                let held = self.joiner.flush();
                self.entries(&held).await?;
                return Err(Hangup);
            }
            if ended.code() == Code::NotFound && !self.position.after.is_empty() {
                self.position = Position::default(); // the log is gone; the next one under this name begins anew
            }
            self.joiner.forget(); // read again from the position
            tokio::time::sleep(retry.wait()).await;
            if keepalive_due(&mut keepalive).await {
                self.keepalive().await?;
            }
            opened = open(&self.hub, &self.subject, &self.position).await;
        }
    }

    /// Passes on one stream of procmgr's; the answer is how it ended.
    async fn pump(
        &mut self,
        mut flow: Flow<ReadLogResponse>,
        keepalive: &mut Interval,
        retry: &mut Retry,
    ) -> Result<Status, Hangup> {
        loop {
            tokio::select! {
                biased;
                _ = keepalive.tick() => {
                    self.keepalive().await?;
                }
                () = tokio::time::sleep(HOLD), if !self.joiner.held.is_empty() => {
                    let held = self.joiner.flush();
                    self.entries(&held).await?;
                }
                next = flow.next() => match next.map(|next| next.map(|next| next.event)) {
                    Some(Ok(event)) => {
                        retry.reset();
                        self.event(event).await?;
                    }
                    Some(Err(status)) => return Ok(status),
                    None => return Ok(Status::unavailable("the log ended")),
                },
            }
        }
    }

    async fn event(&mut self, event: Option<Event>) -> Result<(), Hangup> {
        match event {
            Some(Event::Entry(entry)) => {
                let whole = self.joiner.push(entry);
                self.entries(&whole).await?;
            }
            Some(Event::Gap(gap)) => {
                let count = if gap.dropped == 0 { "Some".to_owned() } else { gap.dropped.to_string() };
                let message = format!("{count} log lines are missing here: no longer kept, or dropped");
                let held = self.joiner.flush(); // all of it lies before the gap
                self.entries(&held).await?;
                self.system(Some(&gap.position), &message).await?;
                self.position = Position { after: gap.position, tail: 0 };
            }
            None => {}
        }
        Ok(())
    }

    async fn entries(&mut self, entries: &[LogEntry]) -> Result<(), Hangup> {
        for entry in entries {
            self.send(self.named(frame(entry))).await?;
            self.position = Position { after: entry.position.clone(), tail: 0 };
        }
        Ok(())
    }

    /// A word of the platform's own, behind which a client may go on, if it has a position.
    async fn system(&self, position: Option<&str>, message: &str) -> Result<(), Hangup> {
        let timestamp = seconds(now_ms());
        let line = Line { id: 0, timestamp, level: "info", source: "system", message, pid: 0 };
        self.send(self.named(event(position, &line))).await
    }

    async fn keepalive(&self) -> Result<(), Hangup> {
        let sign = if self.subject.developers.is_some() { "event: keepalive\n\n" } else { ": keepalive\n\n" };
        self.send(sign.to_owned()).await
    }

    /// The frame with the name of its event, where the contract has one.
    fn named(&self, frame: String) -> String {
        if self.subject.developers.is_some() { format!("event: log\n{frame}") } else { frame }
    }

    async fn send(&self, frame: String) -> Result<(), Hangup> {
        self.frames.send(Ok(Bytes::from(frame))).await.map_err(|_| Hangup)
    }
}

async fn keepalive_due(keepalive: &mut Interval) -> bool {
    tokio::select! {
        biased;
        _ = keepalive.tick() => true,
        () = std::future::ready(()) => false,
    }
}

fn frame(entry: &LogEntry) -> String {
    let (level, source) = match entry.stream() {
        LogStream::Stdout | LogStream::Unspecified => ("info", "stdout"),
        LogStream::Stderr => ("error", "stderr"),
        LogStream::System => ("info", "system"),
    };
    let message = String::from_utf8_lossy(&entry.line);
    let timestamp = seconds(entry.unix_ms);
    event(
        Some(&entry.position),
        &Line { id: entry.cursor, timestamp, level, source, message: &message, pid: entry.pid },
    )
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

/// Makes whole lines of pieces. While a line is open, whatever else comes waits behind it, for a short time and within the
/// bound; then everything goes out in the order in which it came to its end. So the last position sent is always the place to
/// go on from: nothing before it is still held back.
#[derive(Debug)]
struct Joiner {
    max: usize,
    /// In order. A line that was continued has the position of its last piece.
    held: Vec<LogEntry>,
}

impl Joiner {
    fn new(max: usize) -> Self {
        Self { max, held: Vec::new() }
    }

    fn push(&mut self, entry: LogEntry) -> Vec<LogEntry> {
        let origin = |entry: &LogEntry| (entry.stream, entry.generation, entry.pid);
        let open = self.held.iter().position(|held| held.partial && origin(held) == origin(&entry));
        let entry = match open.map(|at| self.held.remove(at)) {
            Some(mut begun) => {
                begun.line.extend_from_slice(&entry.line);
                LogEntry { line: begun.line, unix_ms: begun.unix_ms, ..entry }
            }
            None => entry,
        };
        self.held.push(entry);
        let full =
            self.held.len() > HELD || self.held.iter().map(|held| held.line.len()).sum::<usize>() >= self.max;
        if full || !self.held.iter().any(|held| held.partial) { self.flush() } else { Vec::new() }
    }

    fn flush(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.held)
    }

    fn forget(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(cursor: u64, stream: LogStream, line: &str, partial: bool) -> LogEntry {
        LogEntry {
            cursor,
            stream: stream.into(),
            line: line.into(),
            partial,
            generation: 1,
            pid: 7,
            unix_ms: 1_700_000_000_123,
            position: format!("1:{cursor}"),
        }
    }

    fn lines(entries: &[LogEntry]) -> Vec<(u64, String)> {
        entries
            .iter()
            .map(|entry| (entry.cursor, String::from_utf8_lossy(&entry.line).into_owned()))
            .collect()
    }

    #[test]
    fn a_line_is_one_event_with_its_position_and_its_number() {
        let text = frame(&entry(5, LogStream::Stderr, "a\n\"b\"\u{fffd}", false));
        assert_eq!(
            text,
            "id: 1:5\ndata: {\"id\":5,\"timestamp\":\"2023-11-14T22:13:20Z\",\"level\":\"error\",\
             \"source\":\"stderr\",\"message\":\"a\\n\\\"b\\\"\u{fffd}\",\"pid\":7}\n\n"
        );
        let mut binary = entry(6, LogStream::Stdout, "", false);
        binary.line = vec![0xff, 0x00, b'x'];
        assert_eq!(frame(&binary).lines().count(), 3, "a frame is two lines and an empty one");
    }

    #[test]
    fn pieces_of_a_line_are_joined_up_to_the_bound() {
        let mut joiner = Joiner::new(6);
        assert!(joiner.push(entry(1, LogStream::Stdout, "abc", true)).is_empty());
        assert_eq!(lines(&joiner.push(entry(2, LogStream::Stdout, "de", false))), [(2, "abcde".to_owned())]);
        assert!(joiner.push(entry(3, LogStream::Stdout, "abc", true)).is_empty());
        assert_eq!(
            lines(&joiner.push(entry(4, LogStream::Stdout, "defg", true))),
            [(4, "abcdefg".to_owned())]
        );
        assert_eq!(lines(&joiner.push(entry(5, LogStream::Stdout, "h", false))), [(5, "h".to_owned())]);
    }

    #[test]
    fn what_comes_between_the_pieces_of_a_line_waits_for_it() {
        let mut joiner = Joiner::new(100);
        assert!(joiner.push(entry(1, LogStream::Stdout, "out", true)).is_empty());
        assert!(joiner.push(entry(2, LogStream::Stderr, "err", false)).is_empty());
        let sent = joiner.push(entry(3, LogStream::Stdout, "put", false));
        assert_eq!(lines(&sent), [(2, "err".to_owned()), (3, "output".to_owned())]);
        joiner.push(entry(4, LogStream::Stdout, "never ends", true));
        assert_eq!(lines(&joiner.flush()), [(4, "never ends".to_owned())]);
    }

    proptest! {
        #[test]
        fn every_byte_is_sent_once_and_in_order(
            pieces in proptest::collection::vec((any::<bool>(), "[a-z]{0,5}", any::<bool>()), 0..50),
            max in 1_usize..12,
        ) {
            let mut joiner = Joiner::new(max);
            let (mut sent, mut out, mut errors) = (Vec::new(), Vec::new(), Vec::new());
            for (index, (err, text, partial)) in pieces.iter().enumerate() {
                let stream = if *err { LogStream::Stderr } else { LogStream::Stdout };
                if *err { &mut errors } else { &mut out }.extend_from_slice(text.as_bytes());
                sent.extend(joiner.push(entry(index as u64 + 1, stream, text, *partial)));
            }
            sent.extend(joiner.flush());
            prop_assert!(sent.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
            for (err, all) in [(false, out), (true, errors)] {
                let stream = if err { LogStream::Stderr } else { LogStream::Stdout };
                let lines = sent.iter().filter(|entry| entry.stream() == stream);
                prop_assert_eq!(lines.flat_map(|entry| entry.line.clone()).collect::<Vec<_>>(), all);
            }
        }
    }
}
