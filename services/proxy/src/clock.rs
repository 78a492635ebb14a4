//! Milliseconds since this process first asked: small numbers that fit an atomic.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

static START: OnceLock<Instant> = OnceLock::new();

/// Now; never 0, so that 0 can mean "never".
pub(crate) fn now_ms() -> u64 {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// The instant of such a number.
pub(crate) fn instant(ms: u64) -> tokio::time::Instant {
    let start = *START.get_or_init(Instant::now);
    (start + Duration::from_millis(ms.saturating_sub(1))).into()
}
