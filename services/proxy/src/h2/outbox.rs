//! What waits to be written to a client: small pieces together, large ones where they lie. Pure.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Pieces up to this size are copied together.
const SMALL: usize = 8 * 1024;
/// So many pieces are written at once.
pub(super) const SLICES: usize = 16;
/// Room for a small answer: asked for at once, since to grow piece by piece costs more.
const SHEET: usize = 2 * 1024;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What is complete, in order.
    parts: VecDeque<Bytes>,
    /// What comes after it, and may be added to.
    near: BytesMut,
    /// Bytes of `parts`.
    ahead: usize,
}

impl Outbox {
    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        self.ahead + self.near.len()
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where small pieces are written.
    pub(super) fn near(&mut self) -> &mut BytesMut {
        if self.near.capacity() == 0 {
            self.near.reserve(SHEET);
        }
        &mut self.near
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.len() <= SMALL {
            return self.near().put_slice(&piece);
        }
        if !self.near.is_empty() {
            self.ahead += self.near.len();
            self.parts.push_back(self.near.split().freeze());
        }
        self.ahead += piece.len();
        self.parts.push_back(piece);
    }

    /// The first pieces; how many.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let pieces = self.parts.iter().map(Bytes::as_ref).chain([self.near.as_ref()]);
        let filled = pieces.filter(|piece| !piece.is_empty()).zip(slices.iter_mut());
        filled.map(|(piece, slice)| *slice = IoSlice::new(piece)).count()
    }

    /// So many bytes were written.
    pub(super) fn advance(&mut self, mut length: usize) {
        while let Some(first) = self.parts.front_mut()
            && length > 0
        {
            let taken = length.min(first.len());
            first.advance(taken);
            (self.ahead, length) = (self.ahead - taken, length - taken);
            if first.is_empty() {
                self.parts.pop_front();
            }
        }
        self.near.advance(length);
    }

    /// Lets its memory go, if it holds nothing.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_is_written_in_order_however_it_is_cut() {
        let pieces: Vec<Bytes> =
            (0..40u8).map(|n| vec![n; usize::from(n % 3) * (SMALL / 2 + 1) + 1].into()).collect();
        let expected = pieces.concat();
        for cut in [1000, SMALL, 100_000] {
            let (mut outbox, mut written) = (Outbox::default(), Vec::new());
            for piece in &pieces {
                outbox.push(piece.clone());
                outbox.near().put_u8(0xff);
            }
            assert_eq!(outbox.len(), expected.len() + pieces.len());
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = outbox.slices(&mut slices);
                let there: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                let now = there.len().min(cut);
                written.extend_from_slice(&there[..now]);
                outbox.advance(now);
            }
            written.retain(|byte| *byte != 0xff);
            assert!(written == expected, "cut {cut}");
        }
    }
}
