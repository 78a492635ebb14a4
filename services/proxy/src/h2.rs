//! HTTP/2 with clients (RFC 9113).
//!
//! ```text
//! bytes -> frame.rs -> session.rs (stream.rs, hpack.rs, head.rs, budget.rs, ahead.rs, inbox.rs) -> requests
//! answers -> send.rs -> session.rs (outbox.rs) -> bytes
//! ```
//! All of that knows no sockets. `server.rs` reads and writes, and drives the answers to a connection's requests in that
//! connection's one task: what is ready together is written together, and no lock is ever waited for. A client is given what
//! it asks for in its order; what only costs is taken from it within a budget.

mod ahead;
mod budget;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod head;
mod hpack;
mod inbox;
mod incoming;
mod outbox;
mod send;
pub(crate) mod server;
mod session;
mod stream;

use std::{sync::Arc, time::Duration};

pub(crate) use self::{
    ahead::{Lender, Pool},
    incoming::{Broken, Incoming},
};

use crate::{
    counters::{Calmed, Counters},
    door::Culprit,
    h1,
};

/// For those who bring no configuration.
#[cfg(any(test, feature = "fuzzing"))]
const PACES: Paces = Paces { idle: 200, errors: 10, resets: 8 };

/// Bytes of one request's body that a client may send ahead of what was taken.
pub(crate) const STREAM_WINDOW: u32 = stream::WINDOW;

/// Streams that a client may at once make us reset by its errors (MadeYouReset, CVE-2025-8671), or refuse for their heads: on one
/// connection, and on all its connections together. Who is sent away comes again, and heads are dear to read.
pub(crate) const ERRORS: u32 = 100;

/// What a client is granted.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// What bounds a header section.
    pub(crate) head: h1::Limits,
    /// Requests at once.
    pub(crate) streams: usize,
    pub(crate) paces: Paces,
    /// Who lends it what it may send ahead beside its own.
    pub(crate) lender: Option<Lender>,
    /// Whose errors those of the connection are, too.
    pub(crate) culprit: Option<Culprit>,
    /// How long it may take nothing of an answer.
    pub(crate) taking: Duration,
    pub(crate) counters: Arc<Counters>,
}

/// How much of what only costs is taken of one connection each second, once what is taken at once is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paces {
    /// Frames that ask for nothing.
    pub(crate) idle: u32,
    /// Streams that its errors make us reset.
    pub(crate) errors: u32,
    /// Streams that it resets.
    pub(crate) resets: u32,
}

/// Why a stream or a connection ends (RFC 9113 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    None = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// What a connection ends with when its client goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Fatal {
    pub(crate) reason: Reason,
    pub(crate) why: &'static str,
    /// What it only cost with.
    calmed: Option<Calmed>,
}

impl Fatal {
    fn new(reason: Reason, why: &'static str) -> Self {
        Self { reason, why, calmed: None }
    }

    /// The client only costs.
    fn calm(by: Calmed, why: &'static str) -> Self {
        Self { reason: Reason::EnhanceYourCalm, why, calmed: Some(by) }
    }
}
