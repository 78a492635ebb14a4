//! How bad a line says that it is: by the field that loggers of JSON have for it, or by one of the common beginnings of a line.
//! What isn't surely a level is none.

use serde::{Deserialize, de::IgnoredAny};

use nexushub_proto::procmgr::{LogEntry, LogStream};

/// How much of a line's beginning is looked at, and how many words of that.
const HEAD: usize = 160;
const WORDS: usize = 8;

/// How bad, the harmless first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a mistake.
    Debug,
    /// What goes on.
    Info,
    /// What may become trouble.
    Warn,
    /// What went wrong.
    Error,
    /// What ended it.
    Fatal,
}

impl Level {
    /// All of them, for people.
    pub const NAMES: &str = "trace, debug, info, warn, error or fatal";

    /// Its own word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// By its own word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal]
            .into_iter()
            .find(|level| level.as_str() == word)
    }

    /// What an entry counts as: what it tells, or else what its stream is for.
    #[must_use]
    pub fn of(entry: &LogEntry) -> Self {
        told(&entry.line).unwrap_or(match entry.stream() {
            LogStream::Stderr => Self::Error,
            LogStream::Stdout | LogStream::System | LogStream::Unspecified => Self::Info,
        })
    }

    /// By any of the words that loggers have for it.
    fn named(word: &str) -> Option<Self> {
        let longest = 11;
        if word.len() > longest {
            return None;
        }
        Some(match word.to_ascii_lowercase().as_str() {
            "trace" | "trc" | "verbose" => Self::Trace,
            "debug" | "dbg" | "debg" => Self::Debug,
            "info" | "inf" | "notice" | "information" => Self::Info,
            "warn" | "wrn" | "warning" => Self::Warn,
            "error" | "err" | "eror" | "severe" => Self::Error,
            "fatal" | "ftl" | "crit" | "critical" | "alert" | "panic" | "emerg" | "emergency" => Self::Fatal,
            _ => return None,
        })
    }

    /// By a number: those of syslog, or the tens that loggers of JavaScript have.
    fn numbered(number: u64) -> Option<Self> {
        Some(match number {
            0..=2 => Self::Fatal,
            3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            7 | 20..=29 => Self::Debug,
            10..=19 => Self::Trace,
            30..=39 => Self::Info,
            40..=49 => Self::Warn,
            50..=59 => Self::Error,
            60 => Self::Fatal,
            _ => return None,
        })
    }
}

/// What a line tells of its level.
#[must_use]
pub fn told(line: &[u8]) -> Option<Level> {
    match line.trim_ascii_start() {
        line @ [b'{', ..] => of_json(line),
        [b'<', digit @ b'0'..=b'7', b'>', ..] => Level::numbered(u64::from(digit - b'0')),
        line => of_text(&plain(&line[..line.len().min(HEAD)])),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    level: Option<Word>,
    severity: Option<Word>,
    lvl: Option<Word>,
    levelname: Option<Word>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Name(String),
    Number(u64),
    Other(IgnoredAny),
}

fn of_json(line: &[u8]) -> Option<Level> {
    let fields: Fields = serde_json::from_slice(line).ok()?;
    let said = [fields.level, fields.severity, fields.lvl, fields.levelname].into_iter().flatten();
    said.filter_map(|word| match word {
        Word::Name(name) => Level::named(&name),
        Word::Number(number) => Level::numbered(number),
        Word::Other(_) => None,
    })
    .next()
}

/// The text without what colours it on a terminal.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        plain.extend(rest.chars().skip(1));
    }
    plain
}

/// The first word that is neither a time, a number, a field nor something in brackets must be it, and must look like it:
/// in capitals, in brackets, or before a colon.
fn of_text(text: &str) -> Option<Level> {
    let mut words = text.split_ascii_whitespace().take(WORDS).peekable();
    if let Some(level) = words.peek().and_then(|word| of_klog(word)) {
        return Some(level);
    }
    for word in words {
        if let Some((key, value)) = word.split_once('=') {
            if matches!(key, "level" | "lvl" | "severity") {
                return Level::named(value.trim_matches('"'));
            }
            continue;
        }
        let bare = word.trim_matches(['[', ']', '(', ')', '<', '>', '|', ',']);
        let head = bare.split(':').next().unwrap_or_default();
        let marked = head.len() < word.len() || head.bytes().all(|byte| byte.is_ascii_uppercase());
        if marked && let Some(level) = Level::named(head) {
            return Some(level);
        }
        let aside = word.starts_with(['[', '(', '-', '|']) || word.bytes().any(|byte| byte.is_ascii_digit());
        if !aside {
            return None;
        }
    }
    None
}

/// `E0102`: a letter, month and day.
fn of_klog(word: &str) -> Option<Level> {
    let [letter, date @ ..] = word.as_bytes() else { return None };
    if date.len() != 4 || !date.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(match letter {
        b'I' => Level::Info,
        b'W' => Level::Warn,
        b'E' => Level::Error,
        b'F' => Level::Fatal,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_common_loggers_tell_their_level() {
        use Level::{Debug, Error, Fatal, Info, Trace, Warn};
        for (line, level) in [
            (r#"{"ts":"2026-01-01","level":"WARNING","msg":"x"}"#, Warn),
            (r#"  {"severity":"critical"}"#, Fatal),
            (r#"{"level":50,"msg":"pino"}"#, Error),
            (r#"{"level":{"odd":1},"lvl":"dbg"}"#, Debug),
            ("ERROR could not", Error),
            ("error: could not", Error),
            ("[warn] x", Warn),
            ("WARNING:root:x", Warn),
            ("2026-01-01T00:00:00.123Z  INFO hyper::client: x", Info),
            ("2026/01/01 12:00:00 [error] 12#0: x", Error),
            ("[2026-01-01 12:00:00,123] [worker-1] DEBUG x", Debug),
            ("\u{1b}[2m2026-01-01T00:00:00Z\u{1b}[0m \u{1b}[32mTRACE\u{1b}[0m x", Trace),
            ("time=2026-01-01 level=warn msg=x", Warn),
            ("E0102 15:04:05.678901 123 main.go:1] x", Error),
            ("<3>kernel says", Error),
            ("fatal: no repository", Fatal),
        ] {
            assert_eq!(told(line.as_bytes()), Some(level), "{line}");
        }
    }

    #[test]
    fn what_is_not_surely_a_level_is_none() {
        for line in [
            "",
            "Error connecting",
            "an ERROR amid words",
            "information: is not a level; it is a word before one: FATAL",
            r#"{"level":null}"#,
            r#"{"level":"loud"}"#,
            r#"{"level":"warn""#,
            r#"{"level":99999}"#,
            "probe: listening",
            "2026 10 20 30 40 50 60 70 80 ERROR",
        ] {
            assert!(matches!(told(line.as_bytes()), None | Some(Level::Info)), "{line}");
        }
        assert_eq!(told(b"Error connecting"), None);
        assert_eq!(told(b"2026 10 20 30 40 50 60 70 80 ERROR"), None, "only the beginning is looked at");
    }

    #[test]
    fn a_line_that_tells_none_counts_as_its_stream() {
        let entry = |stream: LogStream, line: &str| LogEntry {
            stream: stream.into(),
            line: line.into(),
            ..LogEntry::default()
        };
        assert_eq!(Level::of(&entry(LogStream::Stderr, "  at main.js:3")), Level::Error);
        assert_eq!(Level::of(&entry(LogStream::Stderr, "INFO x")), Level::Info);
        assert_eq!(Level::of(&entry(LogStream::Stdout, "x")), Level::Info);
    }

    #[test]
    fn words_of_levels_are_read_back_and_others_are_none() {
        for word in Level::NAMES.replace(" or", ",").split(", ") {
            assert_eq!(Level::parse(word).map(Level::as_str), Some(word));
        }
        assert_eq!((Level::parse("Warn"), Level::parse("")), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..300), json in any::<bool>()) {
            let line = if json { [b"{".as_slice(), &bytes].concat() } else { bytes };
            let _ = told(&line);
        }
    }
}
