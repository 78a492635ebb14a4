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

/// What a client of HTTP/2 was sent away for, as `CALMED` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calmed {
    /// Frames that continue a header section without end.
    Continuation,
    Settings,
    Ping,
    Window,
    Priority,
    EmptyData,
    /// Frames of streams that are over, or were never let in.
    Late,
    /// Farewells, and frames that nobody knows.
    Unknown,
    /// Streams that it reset.
    Reset,
    /// Streams that we had to reset.
    Error,
}

/// Their names, in their order.
pub(crate) const CALMED: [&str; 10] = [
    "continuation",
    "settings",
    "ping",
    "window",
    "priority",
    "empty_data",
    "late",
    "unknown",
    "reset",
    "error",
];

/// A limit that was reached, as `STOPPED` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// `header_ms`.
    SlowHeader,
    /// `body_idle_ms`, answered 408.
    SlowBody,
    /// `taking_ms`.
    NotTaking,
    /// `max_body_bytes`, or the app's own: 413.
    Body,
    /// `max_target_bytes`: 414.
    Target,
    /// `max_headers` and `max_header_bytes`: 431.
    Header,
    /// `hold_requests` and `hold_bytes`: 503.
    Holds,
    /// `hold_ms` of an app that is coming up: 503.
    Hold,
    /// `pause_ms`: 503.
    Pause,
    /// `backend_requests`, for `hold_ms`: 503.
    Backend,
    /// `connect_ms`: 502.
    Connect,
    /// `first_byte_ms`, or that of debug-api: 504.
    FirstByte,
    /// `whole_ms`: 504, or an answer that is broken off.
    Whole,
    /// `idle_ms`: a connection on which nothing was asked.
    Idle,
    /// `h2_streams`: a stream that is not let in.
    Streams,
}

/// Their names, in their order.
pub(crate) const STOPPED: [&str; 15] = [
    "slow_header",
    "slow_body",
    "not_taking",
    "body",
    "target",
    "header",
    "holds",
    "hold",
    "pause",
    "backend",
    "connect",
    "first_byte",
    "whole",
    "idle",
    "streams",
];

/// All numbers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_open: Counter,
    /// Closed at once because as many were open as may be, and none was idle.
    pub(crate) connections_refused: Counter,
    /// Closed, idle, because as many were open as may be and another one came.
    pub(crate) connections_displaced: Counter,
    /// Closed at once because their client had as many open as it may.
    pub(crate) connections_refused_address: Counter,
    pub(crate) tls_failures: Counter,
    /// Requests by plain HTTP, which were sent to HTTPS.
    pub(crate) redirects: Counter,
    pub(crate) requests: Counter,
    /// Bytes that were no request, and were refused as such.
    pub(crate) requests_malformed: Counter,
    /// Connections of HTTP/2 that were ended because their client only cost, by `CALMED`.
    pub(crate) h2_calmed: [Counter; CALMED.len()],
    /// Requests and connections that a limit stopped, by `STOPPED`.
    pub(crate) stopped: [Counter; STOPPED.len()],
    /// Handshakes that were made whole, and those that went on with a session of before.
    pub(crate) tls_full: Counter,
    pub(crate) tls_resumed: Counter,
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
    /// Counts a client of HTTP/2 that was sent away.
    pub(crate) fn calmed(&self, why: Calmed) {
        self.h2_calmed[why as usize].up();
    }

    /// Counts what a limit stopped.
    pub(crate) fn stop(&self, by: Stopped) {
        self.stopped[by as usize].up();
    }

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
