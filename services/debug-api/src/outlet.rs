//! What is on its way to the client of one stream. Little of it, however slow the client: who puts something in flushes before
//! there is more, and a flush waits until the client has taken what there is.

use std::{convert::Infallible, mem};

use axum::body::{Body, Bytes};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

/// Bytes that go out together.
pub(crate) const PIECE: usize = 16 << 10;
/// Pieces that wait for the client.
pub(crate) const QUEUE: usize = 2;

/// The client has gone.
#[derive(Debug)]
pub(crate) struct Hangup;

/// The near end of a body.
pub(crate) struct Outlet {
    pieces: mpsc::Sender<Bytes>,
    /// Begun to be sent.
    under_way: Bytes,
    buffer: Vec<u8>,
}

impl Outlet {
    /// An outlet, and the body of an answer whose bytes are put into it.
    pub(crate) fn open() -> (Self, Body) {
        let (pieces, taken) = mpsc::channel(QUEUE);
        let body = Body::from_stream(ReceiverStream::new(taken).map(Ok::<_, Infallible>));
        (Self { pieces, under_way: Bytes::new(), buffer: Vec::new() }, body)
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether there is enough to be flushed.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() >= PIECE
    }

    /// Hands everything to the client. Given up in between, it goes on where it was.
    pub(crate) async fn flush(&mut self) -> Result<(), Hangup> {
        loop {
            if self.under_way.is_empty() {
                self.under_way = Bytes::from(mem::take(&mut self.buffer));
            }
            if self.under_way.is_empty() {
                return Ok(());
            }
            let place = self.pieces.reserve().await.map_err(|_| Hangup)?;
            place.send(self.under_way.split_to(PIECE.min(self.under_way.len())));
        }
    }

    /// Waits until the client has gone.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let pieces = self.pieces.clone();
        async move { pieces.closed().await }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn no_more_waits_for_a_client_than_was_put_in_before_it_took_something() {
        let (mut outlet, mut body) = Outlet::open();
        let much = vec![7; PIECE * (QUEUE + 1) + 1];
        outlet.put(&much);
        assert!(outlet.is_full());
        assert!(outlet.flush().now_or_never().is_none(), "the client takes nothing");
        outlet.put(b"more");
        let mut taken = Vec::new();
        while taken.len() < much.len() + 4 {
            let _ = outlet.flush().now_or_never();
            taken.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(taken, [much, b"more".to_vec()].concat(), "a flush that was given up loses nothing");
        drop(body);
        outlet.put(b"x");
        assert!(outlet.flush().await.is_err());
        outlet.closed().await;
    }
}
