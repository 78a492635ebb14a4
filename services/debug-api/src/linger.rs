//! Request bodies that are read to their end although nobody wants the rest: a connection that is closed over unread bytes
//! costs the client the answer that says what was wrong. Bounded in bytes and time; beyond that the connection breaks.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
};
use futures_util::{Stream, StreamExt};

/// Most bytes that are read for nothing.
const MAX_BYTES: usize = 64 << 20;
/// Longest time for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same request, whose body lingers.
pub(crate) async fn lingering(request: Request) -> Request {
    request.map(|body| Body::from_stream(Lingering(Some(body.into_data_stream()))))
}

/// A body; `None` once it has ended.
struct Lingering(Option<BodyDataStream>);

impl Stream for Lingering {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let next = body.poll_next_unpin(context);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        next
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if let Some(body) = self.0.take() {
            tokio::spawn(tokio::time::timeout(PATIENCE, discard(body)));
        }
    }
}

async fn discard(mut body: BodyDataStream) {
    let mut read = 0;
    while let Some(Ok(bytes)) = body.next().await {
        read += bytes.len();
        if read > MAX_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test]
    async fn a_body_that_nobody_reads_is_read_to_its_end() {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, axum::Error>>(1);
        let request = Request::new(Body::from_stream(ReceiverStream::new(receiver)));
        drop(lingering(request).await);
        for _ in 0..100 {
            sender.send(Ok(Bytes::from_static(b"unwanted"))).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_given_up() {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, axum::Error>>(1);
        let request = Request::new(Body::from_stream(ReceiverStream::new(receiver)));
        drop(lingering(request).await);
        while sender.send(Ok(Bytes::from(vec![0; 1 << 20]))).await.is_ok() {}
        sender.closed().await;
    }
}
