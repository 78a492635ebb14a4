//! Time as apps keep it: whole seconds since 1970, written as RFC 3339 for others. Cores take it as an argument; who
//! wires them together takes it from a [`Clock`].

use std::{sync::Arc, time::SystemTime};

/// Seconds since 1970, UTC.
pub type Unix = i64;

/// Tells the time; a test's tells what the test wants.
pub type Clock = Arc<dyn Fn() -> Unix + Send + Sync>;

/// The time of the machine.
#[must_use]
pub fn now() -> Unix {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The clock of the machine.
#[must_use]
pub fn clock() -> Clock {
    Arc::new(now)
}

/// As `2031-05-04T11:22:33Z`; what no calendar has is the beginning of time.
#[must_use]
pub fn rfc3339(at: Unix) -> String {
    jiff::Timestamp::from_second(at).unwrap_or_default().to_string()
}

/// What [`rfc3339`] wrote, or another wrote as it should.
#[must_use]
pub fn parse(text: &str) -> Option<Unix> {
    text.parse().ok().map(jiff::Timestamp::as_second)
}

/// How long something has lasted, for people: `42 s`, `5 min`, `3 h`, `12 days`.
#[must_use]
pub fn lasted(since: Unix, now: Unix) -> String {
    let seconds = now.saturating_sub(since).max(0);
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min", seconds / 60),
        3600..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long ago something was, for people: `just now`, `5 min ago`.
#[must_use]
pub fn ago(at: Unix, now: Unix) -> String {
    if now.saturating_sub(at) < 10 { "just now".to_owned() } else { format!("{} ago", lasted(at, now)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_others_read_it_and_read_as_they_write_it() {
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(parse("2023-11-14T22:13:20Z"), Some(1_700_000_000));
        assert_eq!(parse("2023-11-14T23:13:20.25+01:00"), Some(1_700_000_000));
        assert_eq!(parse("yesterday"), None);
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn people_are_told_how_long_ago_and_never_the_future() {
        for (seconds, said) in [
            (-5, "just now"),
            (3, "just now"),
            (42, "42 s ago"),
            (60, "1 min ago"),
            (7200, "2 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(ago(1000, 1000 + seconds), said);
        }
        assert_eq!((lasted(1000, 1003), lasted(1000, 900)), ("3 s".into(), "0 s".into()));
    }
}
