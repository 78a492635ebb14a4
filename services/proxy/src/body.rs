//! The bodies that pass through: a client's toward a backend, and an answer's toward a client. Frames are handed on as they
//! come, one at a time, so the slower side sets the pace; nothing is collected.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    access::Record,
    clock,
    counters::Stopped,
    files::FileBody,
    h1::{
        self,
        channel::{self, Broken},
        client::{Broke, Call},
    },
    h2, h2c, headers,
    upgrade::Tunnel,
    websocket::Socket,
};

/// How far a request's body has come, for the deadlines.
#[derive(Debug)]
pub(crate) struct Progress {
    last_ms: AtomicU64,
    done: AtomicBool,
    /// Bytes that may still come.
    left: AtomicU64,
}

impl Progress {
    /// Of a request without a body, which is all there.
    pub(crate) fn whole() -> Self {
        Self::new(true)
    }

    fn new(done: bool) -> Self {
        let (last_ms, left) = (AtomicU64::new(clock::about_ms()), AtomicU64::new(u64::MAX));
        Self { last_ms, done: AtomicBool::new(done), left }
    }

    /// So many bytes more were taken; an error if they were too many.
    fn took(&self, bytes: usize) -> Result<(), RequestBroke> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes as u64);
        self.left.store(left.ok_or(RequestBroke::TooLarge)?, Ordering::Relaxed);
        Ok(())
    }

    /// Something moved.
    pub(crate) fn step(&self) {
        self.last_ms.store(clock::about_ms(), Ordering::Relaxed);
    }

    /// Whether the client has sent all of it.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// When patience ends: with the backend once the body is sent, with the client before that.
    pub(crate) fn deadline(&self, backend: Duration, client: Duration) -> Instant {
        let patience = if self.is_done() { backend } else { client };
        clock::instant(self.last_ms.load(Ordering::Relaxed)) + patience
    }
}

/// A request's body on its way to a backend.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None: the request can be sent again.
    Empty,
    /// The proxy's own question; none once it was taken.
    Whole(Option<Bytes>),
    /// As the client sends it over HTTP/1.1.
    H1(channel::Incoming, Arc<Progress>),
    /// As the client sends it over HTTP/2.
    H2(h2::Incoming, Arc<Progress>),
}

/// Why a request's body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBroke {
    /// Over HTTP/1.1.
    #[error(transparent)]
    H1(#[from] Broken),
    /// Over HTTP/2.
    #[error(transparent)]
    H2(#[from] h2::Broken),
    /// It is longer or shorter than was said.
    #[error("its length is not what was said")]
    Length,
    /// It has more bytes than it may.
    #[error("its body is too large")]
    TooLarge,
}

impl RequestBody {
    /// One that comes over HTTP/1.1.
    pub(crate) fn h1(incoming: channel::Incoming) -> Self {
        Self::H1(incoming, Arc::new(Progress::new(false)))
    }

    /// One that comes over HTTP/2.
    pub(crate) fn h2(incoming: h2::Incoming) -> Self {
        Self::H2(incoming, Arc::new(Progress::new(false)))
    }

    /// Bounds it.
    ///
    /// # Errors
    /// `TooLarge` if it says that it is longer; else it is found out when it is.
    pub(crate) fn bound(&self, bytes: u64) -> Result<(), RequestBroke> {
        match self {
            Self::H1(_, progress) | Self::H2(_, progress) => progress.left.store(bytes, Ordering::Relaxed),
            Self::Empty | Self::Whole(_) => {}
        }
        if self.size_hint().lower() > bytes { Err(RequestBroke::TooLarge) } else { Ok(()) }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Bytes of it that may lie here while nobody takes them.
    pub(crate) fn ahead(&self) -> u64 {
        let most = match self {
            Self::Empty | Self::Whole(_) => 0,
            Self::H1(..) => h1::fill::MOST as u64,
            Self::H2(..) => h2::STREAM_WINDOW.into(),
        };
        self.size_hint().upper().unwrap_or(u64::MAX).min(most)
    }

    /// How far it has come; none if there is none of it.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Empty | Self::Whole(_) => None,
            Self::H1(_, progress) | Self::H2(_, progress) => Some(Arc::clone(progress)),
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = RequestBroke;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBroke>>> {
        let (frame, ended, progress) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::H1(incoming, progress) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                (frame.map(|frame| frame.map_err(RequestBroke::from)), incoming.is_end_stream(), progress)
            }
            Self::H2(incoming, progress) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                (frame.map(|frame| frame.map_err(RequestBroke::from)), incoming.is_end_stream(), progress)
            }
        };
        progress.step();
        if let Some(Ok(frame)) = &frame {
            progress.took(frame.data_ref().map_or(0, Bytes::len))?;
        }
        if frame.is_none() || ended {
            progress.done.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map(clean_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::H1(incoming, _) => incoming.is_end_stream(),
            Self::H2(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::H1(incoming, _) => incoming.size_hint(),
            Self::H2(incoming, _) => incoming.size_hint(),
        }
    }
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The backend's connection ended before its answer did.
    #[error("backend broke off its answer")]
    Backend(#[from] Broke),
    /// It took longer than it may.
    #[error("the request took too long")]
    Late,
    /// A static file could not be read to its end.
    #[error("could not read a static file")]
    File(#[from] std::io::Error),
    /// A WebSocket broke off on either side.
    #[error("a WebSocket broke off")]
    Socket(#[source] std::io::Error),
}

/// An answer's body on its way to a client, with the record that is closed when it ends.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    kind: Kind,
    record: Option<Box<Record>>,
    /// When it is broken off.
    limit: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Text(Bytes),
    /// An app's answer; none once it was taken whole.
    Backend(Option<Box<Call>>),
    /// The same of an app that speaks h2c.
    Stream(Option<Box<h2c::Call>>),
    File(FileBody),
    Tunnel(Box<Tunnel>),
    Socket(Box<Socket>),
}

impl ResponseBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { kind: Kind::Empty, record: None, limit: None }
    }

    /// A few bytes of ours.
    pub(crate) fn text(bytes: Bytes) -> Self {
        Self {
            kind: if bytes.is_empty() { Kind::Empty } else { Kind::Text(bytes) },
            record: None,
            limit: None,
        }
    }

    /// A static file.
    pub(crate) fn file(file: FileBody) -> Self {
        Self { kind: Kind::File(file), record: None, limit: None }
    }

    /// A backend's answer; its connection is given back at its end.
    pub(crate) fn backend(call: Box<Call>) -> Self {
        let mut body = Self { kind: Kind::Backend(Some(call)), record: None, limit: None };
        body.settle(false);
        body
    }

    /// The answer of an app that speaks h2c; its stream is let go of at its end.
    pub(crate) fn stream(call: Box<h2c::Call>) -> Self {
        let mut body = Self { kind: Kind::Stream(Some(call)), record: None, limit: None };
        body.settle(false);
        body
    }

    /// What an app says on a WebSocket, to a client of HTTP/2.
    pub(crate) fn socket(socket: Socket) -> Self {
        Self { kind: Kind::Socket(Box::new(socket)), record: None, limit: None }
    }

    /// None: the backend has agreed to leave HTTP, and this is its side of the connection.
    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        Self { kind: Kind::Tunnel(Box::new(tunnel)), record: None, limit: None }
    }

    /// The backend's side of an upgraded connection.
    pub(crate) fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Tunnel(tunnel) => Some(*tunnel),
            other => {
                self.kind = other;
                None
            }
        }
    }

    /// Breaks it off at this instant.
    pub(crate) fn until(mut self, limit: Option<Instant>) -> Self {
        if !matches!(self.kind, Kind::Tunnel(_) | Kind::Socket(_)) {
            self.limit = limit.map(|limit| Box::pin(sleep_until(limit)));
        }
        self
    }

    /// Closes this record when the body has ended, one way or the other.
    pub(crate) fn with_record(mut self, record: Box<Record>) -> Self {
        self.record = Some(record);
        self
    }

    /// Gives the backend's connection back once its answer has been read.
    fn settle(&mut self, ended: bool) {
        if let Kind::Backend(call) = &mut self.kind
            && call.as_ref().is_some_and(|call| ended || call.is_ended())
            && let Some(call) = call.take()
        {
            call.finish();
        }
        if let Kind::Stream(call) = &mut self.kind
            && call.as_ref().is_some_and(|call| ended || call.is_ended())
        {
            *call = None;
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.limit.as_mut().is_some_and(|limit| limit.as_mut().poll(cx).is_ready()) {
            if let Some(record) = &mut this.record {
                record.stopped(Stopped::Whole);
                record.broke(&BodyError::Late);
            }
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        let frame = match &mut this.kind {
            Kind::Empty | Kind::Tunnel(_) | Kind::Backend(None) | Kind::Stream(None) => None,
            Kind::Text(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Backend(Some(call)) => {
                let frame = ready!(call.poll_frame(cx));
                frame.map(|frame| frame.map(clean_trailers).map_err(BodyError::from))
            }
            Kind::Stream(Some(call)) => {
                let frame = ready!(call.poll_frame(cx));
                frame.map(|frame| frame.map(clean_trailers).map_err(BodyError::from))
            }
            Kind::File(file) => {
                ready!(file.poll_chunk(cx)).map(|chunk| chunk.map(Frame::data).map_err(BodyError::from))
            }
            Kind::Socket(socket) => {
                ready!(socket.poll_piece(cx)).map(|piece| piece.map(Frame::data).map_err(BodyError::Socket))
            }
        };
        this.settle(frame.is_none());
        if let Some(record) = &mut this.record {
            match &frame {
                Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(error)) => record.broke(error),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => true,
            Kind::Text(_) => false,
            Kind::Backend(call) => call.is_none(),
            Kind::Stream(call) => call.is_none(),
            Kind::File(file) => file.is_end(),
            Kind::Socket(socket) => socket.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) | Kind::Backend(None) | Kind::Stream(None) => {
                SizeHint::with_exact(0)
            }
            Kind::Socket(_) => SizeHint::default(),
            Kind::Text(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Backend(Some(call)) => call.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Kind::Stream(Some(call)) => call.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Kind::File(file) => SizeHint::with_exact(file.left()),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            record.close(self.is_end_stream());
        }
    }
}

/// Trailers carry no fields that concern one connection.
fn clean_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        headers::strip_trailers(trailers);
    }
    frame
}
