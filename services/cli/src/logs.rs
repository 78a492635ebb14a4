//! `nexushub logs`: of an app from procmgr, of a daemon from where daemons log.
//!
//! Following an app survives restarts of procmgr: every entry has a position, and after a break the stream is asked for again
//! from the last one seen, so each entry is shown once and none is passed over in silence.

mod daemon_log;

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use nexushub_chassis::{names::Zone, retry::Retry};
use nexushub_launch::clock;
use nexushub_proto::procmgr::{
    LogEntry, LogStream, ReadLogRequest, ReadLogResponse, read_log_response::Event,
};
use tonic::{Code, Status};

use self::daemon_log::Wish;
use crate::{
    args::{DAEMONS, Output},
    failure::{Failure, OK},
    instances, out,
    place::Place,
    rpc,
};

/// Most that is kept of a line in pieces.
const LINE_MAX: usize = 1 << 20;
/// Most lines in pieces at the same time.
const OPEN_MAX: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// An app (id, app id, name it was pushed by, or host name), a daemon, or `supervisor`
    #[arg(value_name = "APP|DAEMON")]
    name: String,
    /// Go on with what is said from now on
    #[arg(long, short)]
    follow: bool,
    /// Begin with the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<u32>,
    /// Only entries after this cursor (apps only; see the cursors with -o json)
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// How to write an app's entries; daemons always write JSON
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// `nexushub logs`
pub(crate) async fn run(place: &Place, args: &Logs) -> Result<u8, Failure> {
    if DAEMONS.contains(&args.name.as_str()) || args.name == "supervisor" {
        if args.after.is_some() {
            return Err(Failure::usage("a daemon's log has no cursors", "leave --after out"));
        }
        let tail = args.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
        return daemon_log::show(place, &Wish { daemon: &args.name, tail, follow: args.follow }).await;
    }
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let list = instances::list(place).await?;
    // An app that is no longer desired may have left a log, under its id.
    let id = instances::named(&list, &args.name, zone.as_ref())?.map_or(&args.name, |instance| &instance.id);
    follow(place, id, args).await
}

/// The last lines of an instance, for a message about its failure.
pub(crate) async fn last_lines(place: &Place, id: &str, count: u32) -> Vec<String> {
    let mut printer = Printer::new(Output::Table);
    let mut lines = Vec::new();
    let Ok(mut client) = instances::client(place) else { return lines };
    let request = ReadLogRequest { id: id.to_owned(), tail: count, ..Default::default() };
    let Ok(answer) = client.read_log(request).await else { return lines };
    let mut entries = answer.into_inner();
    while let Ok(Some(response)) = entries.message().await {
        if let Shown::Line(line) = printer.take(response) {
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }
    if let Shown::Line(rest) = printer.rest() {
        lines.extend(String::from_utf8_lossy(&rest).lines().map(str::to_owned));
    }
    lines
}

async fn follow(place: &Place, id: &str, args: &Logs) -> Result<u8, Failure> {
    let mut printer = Printer::new(args.output);
    printer.position = args.after.clone().unwrap_or_default();
    let mut retry = Retry::default();
    loop {
        let tail = if printer.shown { 0 } else { args.tail.unwrap_or(0) };
        let before = printer.position.clone();
        let (id, follow, position) = (id.to_owned(), args.follow, before.clone());
        let request = ReadLogRequest { id, after: 0, tail, follow, position };
        let ended = stream(place, request, &mut printer).await?;
        match ended {
            None if !args.follow => {
                if let Shown::Line(rest) = printer.rest() {
                    out::write(&rest)?;
                }
                return Ok(OK);
            }
            Some(status) if !args.follow || !may_pass(&status) => {
                return Err(rpc::failed(place, "procmgr", &status));
            }
            _ => {}
        }
        if printer.position != before {
            retry.reset();
        }
        tokio::time::sleep(retry.wait()).await;
    }
}

/// Shows one stream to its end; the status that broke it, if one did.
async fn stream(
    place: &Place,
    request: ReadLogRequest,
    printer: &mut Printer,
) -> Result<Option<Status>, Failure> {
    let mut client = instances::client(place)?; // with a token read anew: the platform may have been started anew
    let mut entries = match client.read_log(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Some(status)),
    };
    loop {
        match entries.message().await {
            Ok(Some(response)) => match printer.take(response) {
                Shown::Line(line) => out::write(&line)?,
                Shown::Gap(gap) => out::tell(&gap),
                Shown::Nothing => {}
            },
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        }
    }
}

/// Whether a failure is procmgr's being away, which passes.
fn may_pass(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::NotFound
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// What comes of one message.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Line(Vec<u8>),
    Gap(String),
    Nothing,
}

/// Stream, generation and process: one after another may write to the same stream, the first in the middle of a line.
type Origin = (i32, u64, u32);

/// Entries on their way out: once each, lines put together from their pieces.
struct Printer {
    output: Output,
    /// Of the last entry or gap that was taken.
    position: String,
    shown: bool,
    /// Of lines that are not whole yet, by who says them.
    pieces: BTreeMap<Origin, Vec<u8>>,
}

impl Printer {
    fn new(output: Output) -> Self {
        Self { output, position: String::new(), shown: false, pieces: BTreeMap::new() }
    }

    fn take(&mut self, response: ReadLogResponse) -> Shown {
        match response.event {
            Some(Event::Entry(entry)) => {
                self.position.clone_from(&entry.position);
                self.shown = true;
                self.entry(&entry)
            }
            Some(Event::Gap(gap)) => {
                self.position = gap.position;
                let count = if gap.dropped == 0 { "some".to_owned() } else { gap.dropped.to_string() };
                Shown::Gap(format!("-- {count} entries are no longer kept --"))
            }
            None => Shown::Nothing,
        }
    }

    fn entry(&mut self, entry: &LogEntry) -> Shown {
        if self.output == Output::Json {
            return Shown::Line(json(entry).into_bytes());
        }
        let origin = (entry.stream, entry.generation, entry.pid);
        let pieces = self.pieces.entry(origin).or_default();
        pieces.extend_from_slice(&entry.line);
        if entry.partial && pieces.len() < LINE_MAX {
            return if self.pieces.len() > OPEN_MAX { self.rest() } else { Shown::Nothing };
        }
        let mut line = self.pieces.remove(&origin).unwrap_or_default();
        if entry.stream() == LogStream::System {
            line = [b"-- ".as_slice(), &line, b" --"].concat();
        }
        line.push(b'\n');
        Shown::Line(line)
    }

    /// Lines that nothing came to finish.
    fn rest(&mut self) -> Shown {
        let lines = std::mem::take(&mut self.pieces).into_values();
        let text: Vec<u8> = lines.flat_map(|line| [line, b"\n".to_vec()].concat()).collect();
        if text.is_empty() { Shown::Nothing } else { Shown::Line(text) }
    }
}

fn json(entry: &LogEntry) -> String {
    let unix_ms = u64::try_from(entry.unix_ms).unwrap_or(0);
    let ts = clock::rfc3339(std::time::UNIX_EPOCH + Duration::from_millis(unix_ms));
    let stream = match entry.stream() {
        LogStream::Unspecified => "unknown",
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::System => "system",
    };
    let line = String::from_utf8_lossy(&entry.line);
    let value = serde_json::json!({
        "cursor": entry.position, "generation": entry.generation, "ts": ts, "stream": stream,
        "line": line, "partial": entry.partial, "pid": entry.pid,
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nexushub_proto::procmgr::LogGap;

    fn entry(cursor: u64, stream: LogStream, line: &str, partial: bool) -> ReadLogResponse {
        let line = line.as_bytes().to_vec();
        let (stream, position) = (stream.into(), format!("1:{cursor}"));
        let entry = LogEntry { cursor, stream, line, partial, unix_ms: 1000, position, ..Default::default() };
        ReadLogResponse { event: Some(Event::Entry(entry)) }
    }

    fn line(text: &str) -> Shown {
        Shown::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn what_was_taken_last_is_where_to_go_on() {
        let mut printer = Printer::new(Output::Table);
        assert_eq!(printer.take(entry(5, LogStream::Stdout, "a", false)), line("a\n"));
        assert_eq!(printer.position, "1:5");
        printer
            .take(ReadLogResponse { event: Some(Event::Gap(LogGap { dropped: 1, position: "1:6".into() })) });
        assert_eq!(printer.position, "1:6", "a gap is told once");
    }

    #[test]
    fn a_line_in_pieces_is_put_together_stream_by_stream() {
        let mut printer = Printer::new(Output::Table);
        assert_eq!(printer.take(entry(1, LogStream::Stdout, "ab", true)), Shown::Nothing);
        assert_eq!(printer.take(entry(2, LogStream::Stderr, "x", false)), line("x\n"));
        assert_eq!(printer.take(entry(3, LogStream::Stdout, "cd", false)), line("abcd\n"));
        let huge = "y".repeat(LINE_MAX);
        assert!(
            matches!(printer.take(entry(4, LogStream::Stdout, &huge, true)), Shown::Line(_)),
            "memory is bounded"
        );
    }

    #[test]
    fn a_line_that_a_process_did_not_finish_is_not_finished_by_another() {
        let said = |cursor, generation, pid, line: &str, partial| {
            let line = line.as_bytes().to_vec();
            let stream = LogStream::Stdout.into();
            let entry = LogEntry { cursor, generation, pid, stream, line, partial, ..Default::default() };
            ReadLogResponse { event: Some(Event::Entry(entry)) }
        };
        let mut printer = Printer::new(Output::Table);
        assert_eq!(printer.take(said(1, 1, 7, "dying wor", true)), Shown::Nothing);
        assert_eq!(printer.take(said(2, 2, 8, "hello", false)), line("hello\n"));
        assert_eq!(printer.take(said(3, 1, 9, "a worker", false)), line("a worker\n"));
        assert_eq!(printer.take(said(4, 1, 7, "ds", false)), line("dying words\n"));
        printer.take(said(5, 2, 8, "prompt> ", true));
        assert_eq!((printer.rest(), printer.rest()), (line("prompt> \n"), Shown::Nothing));
        for open in 0..OPEN_MAX {
            let cursor = 6 + open as u64;
            assert_eq!(printer.take(said(cursor, cursor, 1, "x", true)), Shown::Nothing);
        }
        let all = printer.take(said(1000, 1000, 1, "x", true));
        assert_eq!(all, line(&"x\n".repeat(OPEN_MAX + 1)), "memory is bounded");
    }

    #[test]
    fn gaps_and_the_platforms_own_words_are_marked() {
        let mut printer = Printer::new(Output::Table);
        let gap =
            |dropped| ReadLogResponse { event: Some(Event::Gap(LogGap { dropped, ..Default::default() })) };
        assert_eq!(printer.take(gap(7)), Shown::Gap("-- 7 entries are no longer kept --".into()));
        assert!(matches!(printer.take(gap(0)), Shown::Gap(_)));
        assert_eq!(printer.take(entry(1, LogStream::System, "started", false)), line("-- started --\n"));
    }

    #[test]
    fn programs_get_json_with_the_cursor() {
        let mut printer = Printer::new(Output::Json);
        let Shown::Line(text) = printer.take(entry(9, LogStream::Stderr, "a\"b", true)) else {
            unreachable!("an entry is a line")
        };
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((value["cursor"].as_str(), value["line"].as_str()), (Some("1:9"), Some("a\"b")));
        assert_eq!(
            (value["stream"].as_str(), value["ts"].as_str()),
            (Some("stderr"), Some("1970-01-01T00:00:01.000Z"))
        );
    }

    #[test]
    fn only_procmgrs_absence_is_waited_out() {
        assert!(
            may_pass(&Status::unavailable(""))
                && may_pass(&Status::unknown(""))
                && may_pass(&Status::cancelled(""))
        );
        assert!(!may_pass(&Status::not_found("")) && !may_pass(&Status::invalid_argument("")));
    }
}
