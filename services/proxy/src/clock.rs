//! Milliseconds since this process first asked: small numbers that fit an atomic. And the date as headers write it.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

/// The time as `Date` writes it, made once a second.
static DATE: Mutex<Option<(i64, HeaderValue)>> = Mutex::new(None);
static START: OnceLock<Instant> = OnceLock::new();

/// Now; never 0, so that 0 can mean "never".
pub(crate) fn now_ms() -> u64 {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// The same, finer.
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
    let now = Timestamp::now().as_second();
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
