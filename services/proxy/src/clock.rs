//! Milliseconds since this process first asked: small numbers that fit an atomic. And the date as headers write it.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use nix::time::{ClockId, clock_gettime};

/// The time as `Date` writes it, made once a second.
static DATE: Mutex<Option<(i64, HeaderValue)>> = Mutex::new(None);
static START: OnceLock<Instant> = OnceLock::new();

/// Now; never 0, so that 0 can mean "never".
pub(crate) fn now_ms() -> u64 {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// Now, or a few milliseconds before: the time of the kernel's last tick, which is read faster. To note when something was,
/// not to find out whether something is due.
pub(crate) fn about_ms() -> u64 {
    static START: OnceLock<Duration> = OnceLock::new();
    let tick = || clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from);
    let start = START.get_or_init(|| tick().saturating_sub(Duration::from_millis(now_ms())));
    u64::try_from(tick().saturating_sub(*start).as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// The wall clock in the same way: milliseconds since 1970.
pub(crate) fn about_unix_ms() -> i64 {
    let tick = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(Duration::ZERO, Duration::from);
    i64::try_from(tick.as_millis()).unwrap_or(i64::MAX)
}

/// Since this process first asked, exactly.
pub(crate) fn since_start() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// The instant of such a number.
pub(crate) fn instant(ms: u64) -> tokio::time::Instant {
    let start = *START.get_or_init(Instant::now);
    (start + Duration::from_millis(ms.saturating_sub(1))).into()
}

/// Now, as `Date` writes it.
pub(crate) fn http_date() -> HeaderValue {
    let now = about_unix_ms() / 1000;
    let mut kept = DATE.lock().unwrap_or_else(PoisonError::into_inner);
    match &*kept {
        Some((second, date)) if *second == now => date.clone(),
        _ => {
            let date = date_of(now);
            *kept = Some((now, date.clone()));
            date
        }
    }
}

/// A second since 1970 as headers write it (RFC 9110 §5.6.7).
pub(crate) fn date_of(second: i64) -> HeaderValue {
    let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).unwrap_or_default();
    HeaderValue::try_from(date).expect("a date is printable ASCII")
}
