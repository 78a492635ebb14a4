//! One exchange with an app over HTTP/2: a stream among others of a connection. As over HTTP/1.1 it is driven by whoever polls
//! it, both ways at once; the connection itself is driven by a task of its own, since it serves others too. Dropping an exchange
//! that has not ended resets its stream, which is how an app hears that its client has gone.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE},
    request, response,
    uri::{PathAndQuery, Scheme},
};
use http_body::{Body, Frame};

use crate::{
    body::RequestBody,
    h1::{
        Malformed,
        client::{Broke, INTERIM, merge},
    },
    headers::{self, Told},
    pool::streams::Lease,
};

/// One exchange.
#[derive(Debug)]
pub(crate) struct Call {
    answer: ResponseFuture,
    to: SendStream<Bytes>,
    request: RequestBody,
    /// More of the request may have to be sent.
    sending: bool,
    /// What was taken of the request and waits until the app takes it.
    piece: Bytes,
    /// Nothing was taken of the request yet.
    untouched: bool,
    /// Interim answers that came, and what the app hinted at in them until it is taken.
    interim: usize,
    hints: Option<Box<HeaderMap>>,
    /// The answer has no body, whatever it says.
    bodiless: bool,
    /// The answer's body, once its head is there and until it ends.
    from: Option<RecvStream>,
    /// Bytes that were handed on since the app was last told that it may send more.
    handed: usize,
    /// Bytes still to come, where the app said how many.
    left: Option<u64>,
    /// Where it took place; kept to the end.
    lease: Lease,
}

/// A prepared head as a request of HTTP/2, where the connection's own fields have no place.
pub(crate) fn request(parts: &request::Parts, told: &Told) -> Result<Request<()>, Malformed> {
    let mut request = Request::new(());
    let host = parts.headers.get(HOST).ok_or(Malformed::Field)?;
    let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(host.as_bytes()).path_and_query(target);
    *request.uri_mut() = uri.build().map_err(|_| Malformed::Target)?;
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers::whole(&parts.headers, told);
    for name in [HOST, CONNECTION, UPGRADE] {
        request.headers_mut().remove(name);
    }
    Ok(request)
}

impl Call {
    /// Begins one; the body comes back if nothing can be begun there.
    pub(crate) fn begin(
        mut lease: Lease,
        request: Request<()>,
        body: RequestBody,
    ) -> Result<Box<Self>, (Broke, RequestBody)> {
        let ends = body.is_end_stream();
        let bodiless = request.method() == Method::HEAD;
        match lease.sender().send_request(request, ends) {
            Ok((answer, to)) => Ok(Box::new(Self {
                answer,
                to,
                request: body,
                sending: !ends,
                piece: Bytes::new(),
                untouched: true,
                interim: 0,
                hints: None,
                bodiless,
                from: None,
                handed: 0,
                left: None,
                lease,
            })),
            Err(error) => Err((broke(error), body)),
        }
    }

    /// The head of the answer.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, Broke>> {
        self.send(cx)?;
        self.hear(cx)?;
        let (parts, from) = ready!(Pin::new(&mut self.answer).poll(cx)).map_err(broke)?.into_parts();
        let bodiless = self.bodiless || parts.status == 204 || parts.status == 304 || from.is_end_stream();
        if !bodiless {
            let length =
                parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
            (self.from, self.left) = (Some(from), length);
        }
        Poll::Ready(Ok(parts))
    }

    /// Takes the interim answers that have come; of them hints are for the client.
    fn hear(&mut self, cx: &mut Context<'_>) -> Result<(), Broke> {
        while let Poll::Ready(Some(interim)) = self.answer.poll_informational(cx) {
            let (parts, ()) = interim.map_err(broke)?.into_parts();
            self.interim += 1;
            if self.interim > INTERIM {
                return Err(Broke::Malformed(Malformed::FirstLine));
            }
            if parts.status == StatusCode::EARLY_HINTS {
                merge(self.hints.get_or_insert_default(), parts.headers);
            }
        }
        Ok(())
    }

    /// What the app hinted at since this was asked last.
    pub(crate) fn take_hints(&mut self) -> Option<Box<HeaderMap>> {
        self.hints.take()
    }

    /// Sends on, as far as the app takes it. An app that takes no more may answer nevertheless.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Broke> {
        while self.sending {
            if self.piece.is_empty() {
                let Poll::Ready(frame) = Pin::new(&mut self.request).poll_frame(cx) else {
                    self.sending = self.to.poll_reset(cx).is_pending();
                    return Ok(());
                };
                self.untouched = false;
                let taken = match frame.transpose().map_err(Broke::Request)?.map(Frame::into_data) {
                    Some(Ok(data)) => {
                        self.to.reserve_capacity(data.len());
                        self.piece = data;
                        continue;
                    }
                    Some(Err(frame)) => self.to.send_trailers(frame.into_trailers().unwrap_or_default()),
                    None => self.to.send_data(Bytes::new(), true),
                };
                drop(taken); // where it was not taken, the answer says why
                self.sending = false;
                return Ok(());
            }
            let Poll::Ready(room) = self.to.poll_capacity(cx) else { return Ok(()) };
            let room = room.and_then(Result::ok).map(|room| room.min(self.piece.len()));
            let Some(room) = room else {
                self.sending = false;
                return Ok(());
            };
            let part = self.piece.split_to(room);
            let ends = self.piece.is_empty() && self.request.is_end_stream();
            self.sending = self.to.send_data(part, ends).is_ok() && !ends;
        }
        Ok(())
    }

    /// The next piece of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        self.send(cx)?;
        let Some(from) = &mut self.from else { return Poll::Ready(None) };
        let _ = from.flow_control().release_capacity(std::mem::take(&mut self.handed)); // of a stream that is there
        if let Some(data) = ready!(from.poll_data(cx)).transpose().map_err(broke)? {
            self.handed = data.len();
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(from.poll_trailers(cx)).map_err(broke)?;
        self.from = None;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// Whether the answer has been taken whole.
    pub(crate) fn is_ended(&self) -> bool {
        self.from.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// Bytes of the answer still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        if self.is_ended() { Some(0) } else { self.left }
    }

    /// Its request, to be sent anew after it broke like this, if that can't do it twice: the app said that it did not touch it,
    /// or, where it is `repeatable`, just closed a connection that had served before.
    pub(crate) fn give_up(self, broke: &Broke, repeatable: bool) -> Option<RequestBody> {
        let Broke::Closed(error) = broke else { return None };
        let error = error.get_ref().and_then(|error| error.downcast_ref::<h2::Error>())?;
        let closed = error.is_io() || (error.is_reset() && !error.is_remote());
        let safe = is_unseen(error) || (repeatable && self.lease.reused && closed);
        (safe && self.untouched).then_some(self.request)
    }

    /// Gives no more exchanges to this connection: one was not answered in time.
    pub(crate) fn distrust(&self) {
        self.lease.distrust();
    }
}

/// Whether the app has said that it did nothing with the request (RFC 9113 §8.7).
fn is_unseen(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// What went wrong with a stream or its connection, as it is told of any connection to an app.
fn broke(error: h2::Error) -> Broke {
    Broke::Closed(io::Error::other(error))
}

/// What begins exchanges on a connection.
pub(crate) type Sender = SendRequest<Bytes>;
