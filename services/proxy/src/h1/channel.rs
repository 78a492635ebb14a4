//! A client's connection as the conversation and the body of the request that is being read share it. Both are polled by the
//! same task, so the lock is never waited for; it stands for the promise, which the compiler can't see.

use std::{
    fmt, io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Limits, Malformed,
    decode::{Decoder, Item},
    fill::Room,
    framing::Length,
    lines::Scan,
};

/// What a client hears that waits for it (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// A first line has so many bytes besides its target, the rest is for a method of one's own.
const FIRST_LINE_REST: usize = 64;
/// As much of what follows a request is read while that is answered.
const AHEAD: usize = 16 * 1024;

/// What a client's connection has to do.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Why a request's body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection ended before the body did.
    #[error("the client broke off")]
    Gone(#[source] io::Error),
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A client's connection.
pub(crate) struct Channel<S: ?Sized> {
    bytes: BytesMut,
    room: Room,
    scan: Scan,
    /// An empty line before the next head was read over.
    skipped: bool,
    limits: Limits,
    body: Decoder,
    /// What is left to tell a client that waits to hear that its body is wanted.
    invitation: Option<&'static [u8]>,
    /// Hints that are to be told before the answer.
    hints: BytesMut,
    stream: S,
}

/// A client's connection, shared.
pub(crate) struct Shared<S: ?Sized>(Arc<Mutex<Channel<S>>>);

impl<S: ?Sized> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Duplex + 'static> Shared<S> {
    /// Nothing read yet.
    pub(crate) fn new(stream: S, limits: Limits) -> Self {
        let body = Decoder::new(Length::Exact(0), limits);
        let (bytes, room, scan) = (BytesMut::new(), Room::default(), Scan::default());
        let (skipped, invitation, hints) = (false, None, BytesMut::new());
        let channel = Channel { bytes, room, scan, skipped, limits, body, invitation, hints, stream };
        Self(Arc::new(Mutex::new(channel)))
    }

    /// The body of the request whose head was taken last.
    pub(crate) fn body(&self) -> Incoming {
        Incoming(Shared(Arc::clone(&self.0) as Arc<Mutex<Channel<dyn Duplex>>>))
    }
}

impl<S: Duplex + ?Sized> Shared<S> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Channel<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Duplex + ?Sized> Channel<S> {
    /// Whether anything was read that nobody has taken.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next head; none at the connection's end. An empty line before it is read over, as clients of old send one after a
    /// body (RFC 9112 §2.2).
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Result<Bytes, Malformed>>>> {
        loop {
            if let Some(found) = self.head().transpose() {
                return Poll::Ready(Ok(Some(found)));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(None));
            }
        }
    }

    fn head(&mut self) -> Result<Option<Bytes>, Malformed> {
        let mut end = self.scan.end(&self.bytes)?;
        if end == Some(2) && !self.skipped {
            drop(self.bytes.split_to(2));
            (self.scan, self.skipped) = (Scan::default(), true);
            end = self.scan.end(&self.bytes)?;
        }
        if end == Some(2) {
            return Err(Malformed::FirstLine); // one is enough
        }
        if self.scan.first_line(&self.bytes) > self.limits.target_bytes + FIRST_LINE_REST {
            return Err(Malformed::TargetTooLong);
        }
        match end {
            Some(end) if end <= self.limits.head_bytes => {
                (self.scan, self.skipped) = (Scan::default(), false);
                self.room.reset();
                Ok(Some(self.bytes.split_to(end).freeze()))
            }
            None if self.bytes.len() <= self.limits.head_bytes => Ok(None),
            _ => Err(Malformed::TooLarge),
        }
    }

    /// A request's head was taken: how its body is read.
    pub(crate) fn begin_body(&mut self, length: Length, expects: bool) {
        self.body = Decoder::new(length, self.limits);
        let waits = expects && length != Length::Exact(0) && self.bytes.is_empty();
        self.invitation = waits.then_some(CONTINUE);
    }

    /// Reads over what has come of a body that nobody wanted; whether that was all of it.
    pub(crate) fn skip_body(&mut self) -> bool {
        let Self { body, bytes, .. } = self;
        loop {
            match body.next(bytes) {
                Ok(Item::Data(_) | Item::Trailers(_)) => {}
                Ok(Item::End) => return true,
                Ok(Item::Starved) | Err(_) => return false,
            }
        }
    }

    /// Looks out for the client's leaving while its request is answered; never ready otherwise. What comes meanwhile is the
    /// next request, or the body of one that is `held`, which nobody reads; so much of it is read and no more, and behind more
    /// the client's leaving is not seen.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, held: bool) -> Poll<io::Error> {
        let mut piece = [MaybeUninit::uninit(); 512]; // mostly nothing comes, and then no memory is asked for
        while (held || self.body.is_ended()) && self.bytes.len() < AHEAD {
            let mut piece = ReadBuf::uninit(&mut piece);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece)) {
                Ok(()) if piece.filled().is_empty() => {
                    return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(()) => self.bytes.extend_from_slice(piece.filled()),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.body.next(&mut self.bytes) {
                Ok(Item::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Item::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Item::End) => return Poll::Ready(None),
                Ok(Item::Starved) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            ready!(self.poll_invite(cx)).map_err(Broken::Gone)?;
            if ready!(self.poll_fill(cx)).map_err(Broken::Gone)? == 0 {
                let end = io::ErrorKind::UnexpectedEof.into();
                return Poll::Ready(Some(Err(Broken::Gone(end))));
            }
        }
    }

    /// Has these hints told before the answer.
    pub(crate) fn hint(&mut self, hints: &[u8]) {
        self.hints.extend_from_slice(hints);
    }

    /// Tells the client what it is hinted at; ready when all is told. An invitation that has been begun is finished first.
    pub(crate) fn poll_hints(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hints.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if self.invitation.is_some_and(|rest| rest.len() < CONTINUE.len()) {
            ready!(self.poll_say_continue(cx))?;
        }
        while !self.hints.is_empty() {
            let length = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.hints))?;
            self.hints.advance(length);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Tells a client that waits for it that its body is wanted, after the hints that have been begun.
    fn poll_invite(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.invitation.is_some() {
            ready!(self.poll_hints(cx))?;
        }
        self.poll_say_continue(cx)
    }

    fn poll_say_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(invitation) = &mut self.invitation else { return Poll::Ready(Ok(())) };
        while !invitation.is_empty() {
            let length = ready!(Pin::new(&mut self.stream).poll_write(cx, invitation))?;
            *invitation = &invitation[length..];
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.invitation = None;
        Poll::Ready(Ok(()))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.room.poll_fill(Pin::new(&mut self.stream), &mut self.bytes, cx)
    }
}

/// A request's body as it comes in.
pub(crate) struct Incoming(Shared<dyn Duplex>);

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.lock().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<S: Duplex + ?Sized> AsyncRead for Shared<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut channel = self.lock();
        if channel.bytes.is_empty() {
            return Pin::new(&mut channel.stream).poll_read(cx, buffer);
        }
        let length = channel.bytes.len().min(buffer.remaining());
        buffer.put_slice(&channel.bytes.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: Duplex + ?Sized> AsyncWrite for Shared<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_first_line_has_its_bound_in_one_piece_or_two() {
        let limits = Limits { head_bytes: 1024, fields: 4, target_bytes: 64 };
        for method in [57, 58, 300] {
            let request = format!("{} /{} HTTP/1.1\r\n\r\n", "M".repeat(method), "a".repeat(60));
            for cut in [0, 127, 130] {
                let (mut client, stream) = duplex(4096);
                let channel = Shared::new(stream, limits);
                let (first, rest) = request.split_at(cut.min(request.len()));
                client.write_all(first.as_bytes()).await.unwrap();
                let _ = channel.lock().poll_head(&mut Context::from_waker(std::task::Waker::noop()));
                client.write_all(rest.as_bytes()).await.unwrap();
                let head = poll_fn(|cx| channel.lock().poll_head(cx)).await.unwrap().unwrap();
                let fits = method + 1 + 61 + 9 <= 64 + FIRST_LINE_REST;
                assert_eq!(head.is_ok(), fits, "a method of {method} letters, cut at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn one_empty_line_is_read_over_before_each_head_and_no_second_however_they_come() {
        let limits = Limits { head_bytes: 128, fields: 4, target_bytes: 64 };
        let (mut client, stream) = duplex(1024);
        let channel = Shared::new(stream, limits);
        for _ in 0..2 {
            client.write_all(b"\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
            let head = poll_fn(|cx| channel.lock().poll_head(cx)).await.unwrap().unwrap();
            assert_eq!(head.unwrap(), &b"GET / HTTP/1.1\r\n\r\n"[..]);
        }
        for _ in 0..2 {
            client.write_all(b"\r\n").await.unwrap();
            let waker = std::task::Waker::noop();
            let polled = channel.lock().poll_head(&mut Context::from_waker(waker));
            if let Poll::Ready(refused) = polled {
                assert_eq!(refused.unwrap(), Some(Err(Malformed::FirstLine)));
                return;
            }
        }
        panic!("a second empty line was read over");
    }
}
