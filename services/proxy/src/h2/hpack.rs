//! Header sections as HTTP/2 packs them (RFC 7541). Pure.
//!
//! ```text
//! block -> decode.rs (huffman.rs, the static table, the client's dynamic table) -> fields
//! fields -> encode.rs (the static table) -> block
//! ```

mod decode;
pub(super) mod encode;
mod huffman;
mod statics;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

pub(crate) use decode::Decoder;

/// What a field is counted for besides its name and value (RFC 7541 §4.1).
const OVERHEAD: usize = 32;

/// A block that can't be read. Nothing after it can: the client's table is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    /// It ends within a field.
    #[error("a header block ends within a field")]
    Short,
    /// No table is so large that it had this entry.
    #[error("a header block names an entry that isn't there")]
    Index,
    /// A number that no message needs.
    #[error("a number of a header block is too large")]
    Number,
    /// Not the code of appendix B.
    #[error("a header block's string is not in the Huffman code")]
    Huffman,
    /// The table made larger than we said, or in the middle of a block.
    #[error("a header block changes its table where or how it may not")]
    Resize,
}

/// A field that begins with a colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    /// Of an extended CONNECT (RFC 8441 §4).
    Protocol,
    /// One that no request has.
    Other,
}

/// What a field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Pseudo(Pseudo, Bytes),
    Field(HeaderName, HeaderValue),
    /// Nothing that a field may say; the message is malformed, but it can be read on.
    Nonsense,
}

/// A field of a section.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) said: Said,
    /// What it counts for.
    pub(crate) size: usize,
}

impl Field {
    pub(super) fn of(name: &[u8], value: Bytes) -> Self {
        let size = name.len() + value.len() + OVERHEAD;
        Self { said: Said::of(name, value), size }
    }
}

impl Said {
    fn of(name: &[u8], value: Bytes) -> Self {
        if name.starts_with(b":") {
            return Self::Pseudo(Pseudo::of(name), value);
        }
        let edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        let large = name.iter().any(u8::is_ascii_uppercase);
        if large || edge(value.first()) || edge(value.last()) {
            return Self::Nonsense; // RFC 9113 §8.2.1
        }
        // `from_lowercase` would take names that are no tokens.
        match (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(value)) {
            (Ok(name), Ok(value)) => Self::Field(name, value),
            _ => Self::Nonsense,
        }
    }
}

impl Pseudo {
    fn of(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            _ => Self::Other,
        }
    }
}
