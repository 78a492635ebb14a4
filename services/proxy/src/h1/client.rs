//! One exchange with an app: a request out, its answer in, both at once if need be. It is driven by whoever polls it and by
//! nobody else.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header::LINK, response};
use http_body::Frame;
use nexushub_chassis::reach;

use super::{
    Limits, Malformed,
    decode::{Decoder, Item},
    fill::Room,
    framing::{self, Length},
    head,
    lines::Scan,
    outgoing::{Outgoing, Unsent},
};
use crate::{
    body::{Progress, RequestBody, RequestBroke},
    headers::has_connection_option,
    pool::Lease,
};

/// So many interim answers may come before the one that counts.
pub(crate) const INTERIM: usize = 16;

/// A connection to an app, and what came of it that nobody has taken.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: reach::Stream,
    bytes: BytesMut,
    room: Room,
}

impl Wire {
    /// Over this stream, nothing said yet.
    pub(crate) fn new(stream: reach::Stream) -> Self {
        Self { stream, bytes: BytesMut::new(), room: Room::default() }
    }

    /// Whether the app has neither closed it nor said anything unasked, as far as the event loop has heard.
    pub(crate) fn seems_quiet(&self) -> bool {
        self.bytes.is_empty() && self.stream.seems_quiet()
    }

    /// Whether it has not, as of now.
    pub(crate) fn is_quiet(&self) -> bool {
        self.bytes.is_empty() && self.stream.is_quiet()
    }

    /// The stream and what came ahead.
    pub(crate) fn into_parts(self) -> (reach::Stream, BytesMut) {
        (self.stream, self.bytes)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.room.poll_fill(Pin::new(&mut self.stream), &mut self.bytes, cx)
    }
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broke {
    /// The app closed the connection, or it broke.
    #[error("the app closed the connection")]
    Closed(#[source] io::Error),
    /// What the app sent is no answer.
    #[error("the app's answer is malformed")]
    Malformed(#[from] Malformed),
    /// The client's request broke off.
    #[error("the request broke off")]
    Request(#[source] RequestBroke),
}

impl Broke {
    fn at_end() -> Self {
        Self::Closed(io::ErrorKind::UnexpectedEof.into())
    }
}

/// One exchange.
#[derive(Debug)]
pub(crate) struct Call {
    lease: Lease,
    /// What is left of the request.
    request: Option<Outgoing<RequestBody>>,
    /// The app took no more of the request; its answer may still come.
    refused: Option<io::Error>,
    method: Method,
    limits: Limits,
    scan: Scan,
    interim: usize,
    /// What the app hinted at before its answer, until it is taken.
    hints: Option<Box<HeaderMap>>,
    /// Bytes of an answer came.
    heard: bool,
    body: Decoder,
    /// The app keeps the connection for another request.
    keeps: bool,
}

impl Call {
    /// Begins one; nothing is sent before it is polled. It lies in a box, which goes on with the answer.
    pub(crate) fn begin(lease: Lease, method: Method, request: Outgoing<RequestBody>) -> Box<Self> {
        let limits = lease.head_limits();
        Box::new(Self {
            lease,
            request: Some(request),
            refused: None,
            method,
            limits,
            scan: Scan::default(),
            interim: 0,
            hints: None,
            heard: false,
            body: Decoder::new(Length::Exact(0), limits),
            keeps: false,
        })
    }

    /// How far the request's body has come; none if there is none of it.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.request.as_ref()?.body().progress()
    }

    /// The head of the answer.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Broke>> {
        self.send(cx)?;
        loop {
            if let Some(parts) = self.head()? {
                return Poll::Ready(Ok(parts));
            }
            let read = ready!(self.lease.wire().poll_fill(cx));
            match read {
                Ok(0) => return Poll::Ready(Err(self.closed(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => self.heard = true,
                Err(error) => return Poll::Ready(Err(self.closed(error))),
            }
        }
    }

    fn closed(&mut self, error: io::Error) -> Broke {
        Broke::Closed(self.refused.take().unwrap_or(error))
    }

    /// What the app hinted at since this was asked last.
    pub(crate) fn take_hints(&mut self) -> Option<Box<HeaderMap>> {
        self.hints.take()
    }

    /// The head, once it is there. Of interim answers hints are for the client; the others were for this hop: the client is told
    /// to continue by the front.
    fn head(&mut self) -> Result<Option<response::Parts>, Malformed> {
        loop {
            let bytes = &mut self.lease.wire().bytes;
            let Some(end) = self.scan.end(bytes)? else {
                return if bytes.len() > self.limits.head_bytes {
                    Err(Malformed::TooLarge)
                } else {
                    Ok(None)
                };
            };
            if end > self.limits.head_bytes {
                return Err(Malformed::TooLarge);
            }
            let parts = head::answer(&bytes.split_to(end).freeze(), &self.limits)?;
            self.scan = Scan::default();
            if parts.status.is_informational() && parts.status != StatusCode::SWITCHING_PROTOCOLS {
                self.interim += 1;
                if self.interim > INTERIM {
                    return Err(Malformed::FirstLine);
                }
                if parts.status == StatusCode::EARLY_HINTS {
                    merge(self.hints.get_or_insert_default(), parts.headers);
                }
                continue;
            }
            let length = framing::of_answer(&self.method, parts.version, parts.status, &parts.headers)?;
            self.keeps = parts.version == Version::HTTP_11
                && length != Length::UntilClose
                && !has_connection_option(&parts.headers, "close");
            self.body = Decoder::new(length, self.limits);
            return Ok(Some(parts));
        }
    }

    /// Sends on. An app that takes no more may have answered nevertheless.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Broke> {
        let (Some(request), None) = (&mut self.request, &self.refused) else { return Ok(()) };
        match request.poll_drive(&mut self.lease.wire().stream, cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => self.request = None,
            Poll::Ready(Err(Unsent::Io(error))) => self.refused = Some(error),
            Poll::Ready(Err(Unsent::Body(error))) => return Err(Broke::Request(error)),
            Poll::Ready(Err(Unsent::Length)) => {
                return Err(Broke::Request(RequestBroke::Length));
            }
        }
        Ok(())
    }

    /// The next piece of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        self.send(cx)?;
        loop {
            match self.body.next(&mut self.lease.wire().bytes) {
                Ok(Item::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Item::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Item::End) => return Poll::Ready(None),
                Ok(Item::Starved) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            if ready!(self.lease.wire().poll_fill(cx)).map_err(Broke::Closed)? == 0 {
                return Poll::Ready((!self.body.close()).then(|| Err(Broke::at_end())));
            }
        }
    }

    /// Whether the answer has been taken whole.
    pub(crate) fn is_ended(&self) -> bool {
        self.body.is_ended()
    }

    /// Bytes of the answer still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.body.left()
    }

    /// Gives the connection back, if it is fit for another request: both messages whole, nothing beyond them.
    pub(crate) fn finish(self: Box<Self>) {
        let Self { mut lease, keeps, request, body, .. } = *self;
        if keeps && request.is_none() && body.is_ended() {
            lease.wire().room.reset();
            lease.give_back();
        }
    }

    /// The request, if nothing of it was sent; or else whether nothing of an answer was heard.
    pub(crate) fn give_up(self: Box<Self>) -> (bool, Option<Outgoing<RequestBody>>) {
        (!self.heard, self.request.filter(Outgoing::is_untouched))
    }

    /// The connection that has left HTTP.
    pub(crate) fn into_lease(self: Box<Self>) -> Lease {
        self.lease
    }
}

/// Keeps of hints what a client can use.
pub(crate) fn merge(hints: &mut HeaderMap, mut more: HeaderMap) {
    if let http::header::Entry::Occupied(links) = more.entry(LINK) {
        for link in links.remove_entry_mult().1 {
            hints.append(LINK, link);
        }
    }
}
