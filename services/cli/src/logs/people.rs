//! How an app's line looks. On a terminal it is for somebody's eyes: when in local time, on which stream, and colours. Into a file
//! or a pipe go the app's own bytes, for other tools, with the time in front if that is asked for.

use std::{
    env, fs,
    io::{IsTerminal, stdout},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use jiff::{Timestamp, tz::TimeZone};
use nexushub_chassis::applog;
use nexushub_launch::clock;
use nexushub_proto::procmgr::{LogEntry, LogStream};

use super::Logs;
use crate::{args::Output, out, table::tame};

const ZONES: &str = "/usr/share/zoneinfo";
const DIM: &str = "\u{1b}[2m";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

/// How lines are to be written.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// As objects.
    Json {
        /// Whose lines they are.
        instance: String,
    },
    /// For eyes, in this zone.
    Terminal {
        /// Where the reader is.
        zone: TimeZone,
        /// Whether colours are wanted.
        colours: bool,
    },
    /// As they were said.
    Bare {
        /// With the time of each in front.
        timestamps: bool,
    },
}

impl Manner {
    /// What was asked for, and where standard output leads to.
    pub(crate) fn of(asked: &Logs, id: &str) -> Self {
        match asked.output {
            Output::Json => Self::Json { instance: id.to_owned() },
            Output::Table if stdout().is_terminal() => {
                Self::Terminal { zone: zone(env::var("TZ").ok().as_deref()), colours: out::seen().colours }
            }
            Output::Table => Self::Bare { timestamps: asked.timestamps },
        }
    }

    /// One line, with its newline.
    pub(crate) fn line(&self, entry: &LogEntry) -> Vec<u8> {
        match self {
            Self::Json { instance } => applog::json(instance, entry).into_bytes(),
            Self::Terminal { zone, colours } => shown(entry, zone, *colours).into_bytes(),
            Self::Bare { timestamps: false } => applog::plain(entry),
            Self::Bare { timestamps: true } => {
                let since = Duration::from_millis(u64::try_from(entry.unix_ms).unwrap_or(0));
                [clock::rfc3339(UNIX_EPOCH + since).as_bytes(), b" ", &applog::plain(entry)].concat()
            }
        }
    }
}

fn shown(entry: &LogEntry, zone: &TimeZone, colours: bool) -> String {
    let plain = applog::plain(entry);
    let text = tame(plain.strip_suffix(b"\n").unwrap_or(&plain));
    let when = Timestamp::from_millisecond(entry.unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let when = when.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    let (stream, paint) = match entry.stream() {
        LogStream::Stderr => ("err", RED),
        LogStream::Stdout | LogStream::Unspecified => ("out", DIM),
        LogStream::System => ("sys", DIM),
    };
    if colours {
        format!("{DIM}{when}{PLAIN} {paint}{stream}{PLAIN} {text}\n")
    } else {
        format!("{when} {stream} {text}\n")
    }
}

/// The reader's zone, as the C library finds it: by `TZ`, else the machine's own; what is not understood is UTC.
fn zone(tz: Option<&str>) -> TimeZone {
    let of_file = |path: &Path| TimeZone::tzif("local", &fs::read(path).ok()?).ok();
    let found = match tz.map(|tz| tz.strip_prefix(':').unwrap_or(tz)) {
        None => of_file(Path::new("/etc/localtime")),
        Some("") => None,
        Some(name) => of_file(&Path::new(ZONES).join(name)).or_else(|| TimeZone::posix(name).ok()),
    };
    found.unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stream: LogStream, line: &[u8]) -> LogEntry {
        LogEntry {
            stream: stream.into(),
            line: line.to_vec(),
            unix_ms: 1_700_000_000_123,
            ..LogEntry::default()
        }
    }

    fn text(manner: &Manner, stream: LogStream, line: &[u8]) -> String {
        String::from_utf8_lossy(&manner.line(&entry(stream, line))).into_owned()
    }

    #[test]
    fn on_a_terminal_a_line_has_its_local_time_and_its_stream_and_nothing_moves_the_cursor() {
        let manner = Manner::Terminal { zone: zone(Some("EST5")), colours: false };
        assert_eq!(text(&manner, LogStream::Stdout, b"a"), "2023-11-14 17:13:20.123 out a\n");
        assert_eq!(text(&manner, LogStream::Stderr, b"\x1b[2Jb"), "2023-11-14 17:13:20.123 err  [2Jb\n");
        assert_eq!(text(&manner, LogStream::System, b"c"), "2023-11-14 17:13:20.123 sys -- c --\n");
        let manner = Manner::Terminal { zone: TimeZone::UTC, colours: true };
        let expected = "\u{1b}[2m2023-11-14 22:13:20.123\u{1b}[0m \u{1b}[31merr\u{1b}[0m b\n";
        assert_eq!(text(&manner, LogStream::Stderr, b"b"), expected);
    }

    #[test]
    fn elsewhere_it_is_what_the_app_said_with_its_time_if_that_is_asked_for() {
        let bare = |timestamps| Manner::Bare { timestamps }.line(&entry(LogStream::Stderr, b"a\xff\x1b[2J"));
        assert_eq!(bare(false), b"a\xff\x1b[2J\n");
        assert_eq!(bare(true), b"2023-11-14T22:13:20.123Z a\xff\x1b[2J\n");
    }

    #[test]
    fn a_zone_that_is_not_understood_is_utc() {
        assert_eq!(zone(Some("")), TimeZone::UTC);
        assert_eq!(zone(Some("no such zone")), TimeZone::UTC);
        assert_ne!(zone(Some("EST5")), TimeZone::UTC);
    }
}
