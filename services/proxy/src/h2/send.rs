//! One request's answer on its way: its head, its body as it comes and as its client takes it, and what follows it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING},
    response,
};
use http_body::Body;
use tokio::time::timeout;

use super::{Reason, hpack::encode, session::Shared};
use crate::{
    body::{BodyError, ResponseBody},
    clock,
    h1::framing::is_bodiless,
    link::Link,
};

/// Why an answer was not sent whole.
pub(super) enum Unsent {
    /// It broke off.
    Broken(BodyError),
    /// Its client took nothing of it for too long.
    Stalled,
}

/// An answer on its way, which is given up when the client changes its mind.
pub(super) struct Answer<'l, F> {
    session: Shared,
    link: &'l Link,
    id: u32,
    /// Boxed, since it is large and is never to be moved.
    sending: Pin<Box<F>>,
}

/// Sends what is answered. `head_only`: its client asked for nothing else.
pub(super) fn answer<F: Future<Output = Response<ResponseBody>>>(
    session: Shared,
    link: &Link,
    id: u32,
    head_only: bool,
    taking: Duration,
    ask: impl FnOnce() -> F,
) -> Answer<'_, impl Future<Output = Result<(), Unsent>>> {
    let sending = Sending { session: session.clone(), link, id, taking };
    let sending = Box::pin(async move {
        let answer = ask().await;
        sending.send(answer, head_only).await
    });
    Answer { session, link, id, sending }
}

impl<F: Future<Output = Result<(), Unsent>>> Future for Answer<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.session.lock().enter(self.id, cx) {
            let sent = self.sending.as_mut().poll(cx);
            // Of an answer that has begun they were told before it.
            hint(&self.session, self.link, self.id);
            if let Err(unsent) = ready!(sent) {
                self.session.lock().abort(self.id, unsent.reason());
            }
        }
        self.session.lock().finish(self.id);
        Poll::Ready(())
    }
}

impl Unsent {
    fn reason(&self) -> Reason {
        match self {
            Self::Broken(BodyError::Late | BodyError::Socket(_)) | Self::Stalled => Reason::Cancel,
            Self::Broken(_) => Reason::Internal,
        }
    }
}

struct Sending<'l> {
    session: Shared,
    link: &'l Link,
    id: u32,
    /// How long its client may take nothing.
    taking: Duration,
}

/// Tells what an app has hinted at; a client that takes nothing is told no hints either.
fn hint(session: &Shared, link: &Link, id: u32) {
    let Some(hints) = link.take_hints() else { return };
    let mut session = session.lock();
    if !session.is_full() {
        session.put_section(id, false, |block| {
            encode::put_status(block, StatusCode::EARLY_HINTS);
            hints.iter().for_each(|(name, value)| encode::put_field(block, name, value.as_bytes()));
        });
    }
}

impl Sending<'_> {
    async fn send(&self, response: Response<ResponseBody>, head_only: bool) -> Result<(), Unsent> {
        hint(&self.session, self.link, self.id);
        let (parts, mut body) = response.into_parts();
        let bodiless = head_only || is_bodiless(parts.status) || body.is_end_stream();
        let length = length(&parts, head_only, &body);
        poll_fn(|_| if self.session.lock().room(self.id) { Poll::Ready(()) } else { Poll::Pending }).await;
        self.session.lock().put_section(self.id, bodiless, |block| put_head(block, &parts, length.as_ref()));
        if bodiless { Ok(()) } else { self.body(&mut body).await }
    }

    async fn body(&self, body: &mut ResponseBody) -> Result<(), Unsent> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            let Some(frame) = frame.transpose().map_err(Unsent::Broken)? else {
                return self.data(Bytes::new(), true).await;
            };
            match frame.into_data() {
                Ok(piece) => {
                    let ends = body.is_end_stream();
                    self.data(piece, ends).await?;
                    if ends {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    self.trailers(&frame.into_trailers().unwrap_or_default());
                    return Ok(());
                }
            }
        }
    }

    async fn data(&self, mut piece: Bytes, ends: bool) -> Result<(), Unsent> {
        if piece.is_empty() {
            if ends {
                self.session.lock().put_data(self.id, piece, true);
            }
            return Ok(());
        }
        while !piece.is_empty() {
            let allowed = self.allowance(piece.len()).await?;
            let mut session = self.session.lock();
            let now = piece.split_to(allowed);
            session.put_data(self.id, now, ends && piece.is_empty());
        }
        Ok(())
    }

    fn trailers(&self, trailers: &HeaderMap) {
        self.session.lock().put_section(self.id, true, |block| {
            trailers.iter().for_each(|(name, value)| encode::put_field(block, name, value.as_bytes()));
        });
    }

    /// How much may be sent now; waits until it is something, for as long as a client may take nothing.
    async fn allowance(&self, wanted: usize) -> Result<usize, Unsent> {
        match self.session.lock().allowance(self.id, wanted) {
            0 => {}
            allowed => return Ok(allowed),
        }
        let allowed = poll_fn(|_| match self.session.lock().allowance(self.id, wanted) {
            0 => Poll::Pending,
            allowed => Poll::Ready(allowed),
        });
        timeout(self.taking, allowed).await.map_err(|_| {
            self.session.lock().stalled();
            Unsent::Stalled
        })
    }
}

/// How long the body is, where a client is told that: also of one that isn't sent.
fn length(parts: &response::Parts, head_only: bool, body: &ResponseBody) -> Option<HeaderValue> {
    let told = parts.headers.get(CONTENT_LENGTH);
    match body.size_hint().exact() {
        _ if head_only || parts.status == StatusCode::NOT_MODIFIED => told.cloned(),
        Some(size) if !is_bodiless(parts.status) => Some(size.into()),
        _ => None,
    }
}

fn put_head(block: &mut bytes::BytesMut, parts: &response::Parts, length: Option<&HeaderValue>) {
    encode::put_status(block, parts.status);
    for (name, value) in &parts.headers {
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            encode::put_field(block, name, value.as_bytes());
        }
    }
    if let Some(length) = length {
        encode::put_field(block, &CONTENT_LENGTH, length.as_bytes());
    }
    if !parts.headers.contains_key(DATE) {
        encode::put_field(block, &DATE, clock::http_date().as_bytes());
    }
}
