//! A message on its way out, a request or an answer: its head, then its body as it comes, framed and written. Small pieces
//! are gathered into one write, large ones are written where they lie; what is there is sent before more is waited for.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
    request, response,
};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::framing::{Length, is_bodiless};
use crate::clock;

/// Pieces up to this size are copied together.
const SMALL: usize = 8 * 1024;
/// No more is gathered before it is written.
const ENOUGH: usize = 16 * 1024;

/// Why a message did not go out whole.
#[derive(Debug)]
pub(crate) enum Unsent<E> {
    /// The connection took no more.
    Io(io::Error),
    /// Its body broke off.
    Body(E),
    /// Its body is not as long as its head says.
    Length,
}

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing<B: Body> {
    queue: Queue,
    /// Kept to the end: with it ends what it belongs to.
    body: B,
    /// More may come of the body.
    open: bool,
    /// The body broke off; said once what came of it is written.
    broken: Option<Unsent<B::Error>>,
    framing: Length,
    /// Whether the reader takes trailers.
    trailers: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// A request, with what the proxy tells of it. Its head says by which framing its body goes, whatever its fields say.
    pub(crate) fn request(parts: &request::Parts, told: &[(HeaderName, HeaderValue)], body: B) -> Self {
        let mut head = sheet();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        for piece in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(piece.as_bytes());
        }
        put_fields(&mut head, &parts.headers);
        told.iter().for_each(|(name, value)| put_field(&mut head, name, value.as_bytes()));
        let framing = if body.is_end_stream() {
            Length::Exact(0)
        } else {
            body.size_hint().exact().map_or(Length::Chunked, Length::Exact)
        };
        let says_none = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
        if framing != Length::Exact(0) || says_none || parts.headers.contains_key(CONTENT_LENGTH) {
            put_framing(&mut head, framing);
        }
        head.extend_from_slice(b"\r\n");
        Self::new(head, body, framing, true)
    }

    /// The answer to a request of this method and version; `trailers`: whether its client takes some.
    pub(crate) fn answer(
        parts: &response::Parts,
        body: B,
        (method, version): (&Method, Version),
        trailers: bool,
    ) -> Self {
        let mut head = sheet();
        put_status(&mut head, parts.status);
        put_fields(&mut head, &parts.headers);
        if !parts.headers.contains_key(DATE) {
            put_field(&mut head, &DATE, clock::http_date().as_bytes());
        }
        let bodiless = is_bodiless(parts.status);
        let framing = match body.size_hint().exact() {
            _ if *method == Method::HEAD || bodiless => Length::Exact(0),
            Some(size) => Length::Exact(size),
            None if version == Version::HTTP_10 => Length::UntilClose,
            None => Length::Chunked,
        };
        match parts.headers.get(CONTENT_LENGTH) {
            // It tells of a body that isn't sent.
            Some(told) if *method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED => {
                put_field(&mut head, &CONTENT_LENGTH, told.as_bytes());
            }
            _ if bodiless || *method == Method::HEAD => {}
            _ => put_framing(&mut head, framing),
        }
        if framing == Length::UntilClose && !parts.headers.contains_key(CONNECTION) {
            put_field(&mut head, &CONNECTION, b"close");
        }
        head.extend_from_slice(b"\r\n");
        Self::new(head, body, framing, trailers)
    }

    fn new(head: Vec<u8>, body: B, framing: Length, trailers: bool) -> Self {
        let queue = Queue { near: head, gone: 0, far: Bytes::new(), tail: b"", written: 0 };
        Self { queue, body, open: framing != Length::Exact(0), broken: None, framing, trailers }
    }

    /// Its body.
    pub(crate) fn body(&self) -> &B {
        &self.body
    }

    /// Whether no byte of it was written.
    pub(crate) fn is_untouched(&self) -> bool {
        self.queue.written == 0
    }

    /// Bytes written.
    pub(crate) fn written(&self) -> u64 {
        self.queue.written
    }

    /// Whether it waits for its reader, not for its body.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Writes what there is, as far as the connection takes it; ready when all of it is written and flushed.
    pub(crate) fn poll_drive<W>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent<B::Error>>>
    where
        W: AsyncWrite + Unpin,
    {
        loop {
            let starved = self.gather(cx);
            if self.queue.poll_write(to, cx).map_err(Unsent::Io)?.is_pending() {
                return Poll::Pending;
            }
            if !self.open || starved {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Unsent::Io)?;
                if let Some(broken) = self.broken.take() {
                    return Poll::Ready(Err(broken));
                }
                return if starved { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
    }

    /// Takes what the body has, up to a bound; whether it has no more for now.
    fn gather(&mut self, cx: &mut Context<'_>) -> bool {
        while self.open && !self.queue.is_full() {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else { return true };
            if let Err(broken) = self.take(frame) {
                (self.open, self.broken) = (false, Some(broken));
            }
        }
        false
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, B::Error>>) -> Result<(), Unsent<B::Error>> {
        match frame.transpose().map_err(Unsent::Body)?.map(Frame::into_data) {
            None => self.end(None),
            Some(Ok(data)) => self.data(data),
            Some(Err(frame)) => self.end(frame.into_trailers().ok()),
        }
    }

    fn data(&mut self, data: Bytes) -> Result<(), Unsent<B::Error>> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Length::Exact(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Unsent::Length)?;
                self.open = *left > 0;
                self.queue.push(data, b"");
            }
            Length::Chunked => {
                self.queue.text(format_args!("{:x}\r\n", data.len()));
                self.queue.push(data, b"\r\n");
            }
            Length::UntilClose => self.queue.push(data, b""),
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Unsent<B::Error>> {
        self.open = false;
        match self.framing {
            Length::Exact(0) | Length::UntilClose => Ok(()),
            Length::Exact(_) => Err(Unsent::Length),
            Length::Chunked => {
                self.queue.near.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers.filter(|_| self.trailers) {
                    put_fields(&mut self.queue.near, &trailers);
                }
                self.queue.near.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// So many sheets of a thread wait for their next use, none of them larger than so many bytes.
const SHEETS: usize = 64;
const SHEET: usize = 16 * 1024;

thread_local! {
    /// Sheets that were written on. Asking for new memory would cost each message more than writing on it.
    static USED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty sheet.
fn sheet() -> Vec<u8> {
    USED.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(2 * 1024))
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut sheet = std::mem::take(&mut self.near);
        if sheet.capacity() == 0 || sheet.capacity() > SHEET {
            return;
        }
        sheet.clear();
        let _ = USED.try_with(|used| {
            let mut used = used.borrow_mut();
            if used.len() < SHEETS {
                used.push(sheet);
            }
        }); // the thread may be ending
    }
}

/// What waits to be written: small pieces together, then one large one, then the line end after it.
#[derive(Debug)]
struct Queue {
    near: Vec<u8>,
    /// Of `near` so much is written.
    gone: usize,
    far: Bytes,
    tail: &'static [u8],
    written: u64,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.unwritten().is_empty() && self.far.is_empty() && self.tail.is_empty()
    }

    fn is_full(&self) -> bool {
        !self.far.is_empty() || !self.tail.is_empty() || self.unwritten().len() >= ENOUGH
    }

    /// The small pieces that are left.
    fn unwritten(&self) -> &[u8] {
        &self.near[self.gone..]
    }

    /// Takes a piece; only while it is not full.
    fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= SMALL {
            self.near.extend_from_slice(&data);
            self.near.extend_from_slice(tail);
        } else {
            (self.far, self.tail) = (data, tail);
        }
    }

    fn text(&mut self, text: std::fmt::Arguments<'_>) {
        self.near.write_fmt(text).expect("memory takes what is written to it");
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let to = Pin::new(&mut *to);
            let length = if self.far.is_empty() && self.tail.is_empty() {
                ready!(to.poll_write(cx, self.unwritten()))?
            } else {
                let parts =
                    [IoSlice::new(self.unwritten()), IoSlice::new(&self.far), IoSlice::new(self.tail)];
                ready!(to.poll_write_vectored(cx, &parts))?
            };
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(length);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, length: usize) {
        self.written += length as u64;
        let near = length.min(self.unwritten().len());
        self.gone += near;
        if self.gone == self.near.len() {
            self.gone = 0;
            self.near.clear();
        }
        let far = (length - near).min(self.far.len());
        self.far.advance(far);
        self.tail = &self.tail[length - near - far..];
        if self.far.is_empty() {
            self.far = Bytes::new(); // lets go of what it was read into
        }
    }
}

/// Hints at what an answer will need, before it (RFC 8297).
pub(crate) fn early_hints(hints: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    put_status(&mut head, StatusCode::EARLY_HINTS);
    put_fields(&mut head, hints);
    head.extend_from_slice(b"\r\n");
    head
}

fn put_status(head: &mut Vec<u8>, status: StatusCode) {
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.extend_from_slice(b" ");
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
}

/// All fields but those that say how the body is framed: that is known here better.
fn put_fields(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            put_field(head, name, value.as_bytes());
        }
    }
}

fn put_field(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    head.reserve(name.len() + value.len() + 4); // once, not for each piece
    for piece in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(piece);
    }
}

fn put_framing(head: &mut Vec<u8>, framing: Length) {
    match framing {
        Length::Exact(size) => put_field(head, &CONTENT_LENGTH, HeaderValue::from(size).as_bytes()),
        Length::Chunked => put_field(head, &TRANSFER_ENCODING, b"chunked"),
        Length::UntilClose => {}
    }
}
