//! What has come of a request's body and nobody has taken. Pure.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// Pieces smaller than this are copied: kept as they came, each would hold on to all that was read with it.
const SMALL: usize = 8 * 1024;

/// What has come and nobody has taken.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Bytes>,
    /// What comes after them, of small pieces.
    tail: BytesMut,
    /// Bytes of all that.
    bytes: usize,
    trailers: Option<HeaderMap>,
}

impl Inbox {
    /// Bytes that nobody has taken.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is left in it.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0 && self.trailers.is_none()
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < SMALL {
            self.tail.extend_from_slice(&piece);
        } else {
            self.close_tail();
            self.pieces.push_back(piece);
        }
    }

    /// The trailers came.
    pub(super) fn end(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    /// Takes the next piece.
    pub(super) fn piece(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.close_tail();
        }
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Whether trailers wait.
    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Takes the trailers; only when no piece is left.
    pub(super) fn trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_taken_in_their_order_and_small_ones_together() {
        let mut inbox = Inbox::default();
        let large = vec![b'x'; SMALL];
        for piece in [&b"a"[..], b"b", &large, b"c", b"d"] {
            inbox.push(Bytes::copy_from_slice(piece));
        }
        assert_eq!(inbox.len(), SMALL + 4);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| inbox.piece()).collect();
        assert_eq!(pieces, [&b"ab"[..], &large, b"cd"]);
        assert!(inbox.is_empty());
    }
}
