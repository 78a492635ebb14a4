//! What the proxy counts, since this generation of it started.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more.
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// One less; only for what `up` counted.
    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All numbers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_open: Counter,
    /// Closed at once because as many were open as may be.
    pub(crate) connections_refused: Counter,
    /// Closed at once because their client had as many open as it may.
    pub(crate) connections_refused_address: Counter,
    pub(crate) tls_failures: Counter,
    /// Requests by plain HTTP, which were sent to HTTPS.
    pub(crate) redirects: Counter,
    pub(crate) requests: Counter,
    /// Bytes that were no request, and were refused as such.
    pub(crate) requests_malformed: Counter,
    /// Connections of HTTP/2 that were ended because their client only cost.
    pub(crate) h2_calmed: Counter,
    /// Answered 429: more than their client's rate.
    pub(crate) requests_limited: Counter,
    /// Refused for what was shown, or was not: secrets, tokens, cookies.
    pub(crate) access_refused: Counter,
    pub(crate) requests_in_flight: Counter,
    pub(crate) responses_502: Counter,
    pub(crate) responses_503: Counter,
    pub(crate) responses_404: Counter,
    pub(crate) upgrades_open: Counter,
    /// Times that a failing backend was left out by those who share its requests.
    pub(crate) ejections: Counter,
    /// Boxes whose listener is held, so that their apps reach the platform.
    pub(crate) inward_listeners_open: Counter,
    /// Of the open connections, those out of boxes.
    pub(crate) inward_connections_open: Counter,
    /// Connections and requests out of boxes that were refused because as many were there as may be.
    pub(crate) inward_refused: Counter,
}

impl Counters {
    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        match status {
            404 => self.responses_404.up(),
            502 => self.responses_502.up(),
            503 => self.responses_503.up(),
            _ => {}
        }
    }
}
