//! HTTP/1.1, both sides of it: what clients say to the platform, and what the platform says to apps.
//!
//! It is written here, not taken from a library, because being strict is what a proxy is for: a message that two readers could
//! read differently is refused, never repaired (RFC 9112). What comes in is cut by pure parts that know no sockets:
//!
//! ```text
//! bytes -> lines.rs: where does the head end -> head.rs: what does it say -> framing.rs: how long is its body
//!       -> decode.rs: the body's pieces
//! ```
//! What goes out is framed and written by `outgoing.rs`, whichever way it goes. `server.rs` converses with a client over a
//! `channel.rs`; `client.rs` makes one exchange with an app. An exchange is driven by the task of the request that needs it:
//! no byte and no wake-up passes from one task to another.

pub(crate) mod channel;
pub(crate) mod client;
pub(crate) mod decode;
pub(crate) mod fill;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod lines;
pub(crate) mod outgoing;
pub(crate) mod server;

use http::StatusCode;

use crate::counters::Stopped;

/// What bounds a message's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of the head, its last empty line included.
    pub(crate) head_bytes: usize,
    /// Fields of a header or trailer section.
    pub(crate) fields: usize,
    /// Bytes of a request's target.
    pub(crate) target_bytes: usize,
}

/// Why bytes are no message. Each has one meaning for every reader, and so one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// A line feed without a carriage return before it (RFC 9112 §2.2 lets a recipient take it; readers differ).
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    /// Not `method SP target SP version` (§3), or not `version SP code SP reason` (§4).
    #[error("malformed first line")]
    FirstLine,
    /// Neither HTTP/1.1 nor HTTP/1.0 (§2.3).
    #[error("unsupported version of HTTP")]
    Version,
    /// Bytes that no target has, or no form of it (§3.2).
    #[error("malformed target")]
    Target,
    /// A longer target than may be.
    #[error("target too long")]
    TargetTooLong,
    /// A name with a space after it, a folded value, a control character, ... (§5).
    #[error("malformed header field")]
    Field,
    /// More fields than may be.
    #[error("too many header fields")]
    TooManyFields,
    /// A larger section than may be.
    #[error("header section too large")]
    TooLarge,
    /// Not one decimal number (§6.3).
    #[error("malformed Content-Length")]
    Length,
    /// Not exactly `chunked`, or in HTTP/1.0 (§6.1).
    #[error("unsupported Transfer-Encoding")]
    Coding,
    /// Two answers to how long the body is (§6.1).
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// A name which some readers take for one that says how the message is read.
    #[error("a header field's name can be mistaken for another's")]
    Lookalike,
    /// A chunk's size, extension or end that is none (§7.1).
    #[error("malformed chunk")]
    Chunk,
    /// Something is expected that isn't known (RFC 9110 §10.1.1).
    #[error("unknown expectation")]
    Expectation,
}

impl Malformed {
    /// What a client is answered.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyFields | Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The limit that it went past, if it is nothing else that is wrong.
    pub(crate) fn limit(self) -> Option<Stopped> {
        match self {
            Self::TargetTooLong => Some(Stopped::Target),
            Self::TooManyFields | Self::TooLarge => Some(Stopped::Header),
            _ => None,
        }
    }
}
