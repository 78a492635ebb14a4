//! A conversation with a client: one request after another, each answered before the next is looked at.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, EXPECT},
};
use tokio::io::AsyncWriteExt;

use super::{
    Limits, Malformed,
    channel::{Duplex, Shared},
    framing, head,
    outgoing::{self, Outgoing, Unsent},
};
use crate::{
    body::{RequestBody, ResponseBody},
    headers::{accepts_trailers, has_connection_option},
    linger::listen,
    link::Link,
    upgrade::Tunnel,
};

/// A connection that left HTTP: the client's side and the backend's.
pub(crate) struct Upgraded<S: ?Sized> {
    pub(crate) client: Shared<S>,
    pub(crate) backend: Tunnel,
}

/// What is to happen after an answer.
enum Next {
    /// The next request.
    Head,
    /// The end; whether the client may still be sending.
    Close { unread: bool },
    /// Another protocol.
    Upgrade(Tunnel),
}

/// What an answer is written for.
struct Asked {
    method: Method,
    version: Version,
    /// The client takes trailers.
    trailers: bool,
    /// The client asks for nothing more.
    last: bool,
}

/// Converses until the connection ends, or leaves HTTP. `answer` is told of each request, or why bytes are none; after one
/// that is none the conversation is over, since nobody knows where the next begins.
pub(crate) async fn serve<S, A, F>(
    stream: S,
    link: &Link,
    limits: Limits,
    answer: A,
) -> io::Result<Option<Upgraded<S>>>
where
    S: Duplex + 'static,
    A: Fn(Result<Request<RequestBody>, Malformed>) -> F,
    F: Future<Output = Response<ResponseBody>>,
{
    let channel = Shared::new(stream, limits);
    loop {
        let Some(head) = next_head(&channel, link).await? else {
            let _ = channel.clone().shutdown().await; // it may be gone already
            return Ok(None);
        };
        let (asked, request) = match head.and_then(|head| read(&channel, &head, &limits)) {
            Ok((asked, request)) => (asked, Ok(request)),
            Err(error) => (Asked::nothing(), Err(error)),
        };
        let answer = Box::pin(answer(request));
        let response = while_there(&channel, link, asked.version, answer).await?;
        match write(&channel, link, response, &asked).await? {
            Next::Head => link.rest(),
            Next::Close { unread } => return leave(channel, unread).await.map(|()| None),
            Next::Upgrade(backend) => return Ok(Some(Upgraded { client: channel, backend })),
        }
    }
}

/// The next head; none when the connection ends or is to end, or had to make way for another.
async fn next_head<S: Duplex + ?Sized>(
    channel: &Shared<S>,
    link: &Link,
) -> io::Result<Option<Result<Bytes, Malformed>>> {
    poll_fn(|cx| {
        let mut channel = channel.lock();
        if link.is_closing() && !channel.has_bytes() {
            return Poll::Ready(Ok(None));
        }
        let head = channel.poll_head(cx);
        match &head {
            Poll::Pending if channel.has_bytes() => link.received(),
            Poll::Ready(Ok(Some(_))) if !link.occupy() => return Poll::Ready(Ok(None)),
            _ => {}
        }
        head
    })
    .await
}

/// A head as a request, whose body is read from the channel.
fn read<S: Duplex + 'static>(
    channel: &Shared<S>,
    head: &Bytes,
    limits: &Limits,
) -> Result<(Asked, Request<RequestBody>), Malformed> {
    let parts = head::request(head, limits)?;
    let length = framing::of_request(parts.version, &parts.headers)?;
    let expects = expects(parts.version, &parts.headers)?;
    let mut body = RequestBody::Empty;
    if length != framing::Length::Exact(0) {
        channel.lock().begin_body(length, expects);
        body = RequestBody::h1(channel.body());
    }
    Ok((Asked::by(&parts), Request::from_parts(parts, body)))
}

fn expects(version: Version, headers: &HeaderMap) -> Result<bool, Malformed> {
    match headers.get(EXPECT) {
        Some(what) if !what.as_bytes().eq_ignore_ascii_case(b"100-continue") => Err(Malformed::Expectation),
        what => Ok(what.is_some() && version == Version::HTTP_11),
    }
}

impl Asked {
    fn by(parts: &http::request::Parts) -> Self {
        Self {
            method: parts.method.clone(),
            version: parts.version,
            trailers: accepts_trailers(&parts.headers),
            last: parts.version == Version::HTTP_10 || has_connection_option(&parts.headers, "close"),
        }
    }

    /// What was asked isn't known.
    fn nothing() -> Self {
        Self { method: Method::GET, version: Version::HTTP_11, trailers: false, last: true }
    }
}

/// Waits for the answer, for as long as the client does, and tells it hints as they come. The answer lies in a box: a
/// connection that waits for a request has none.
async fn while_there<S: Duplex + ?Sized, T>(
    channel: &Shared<S>,
    link: &Link,
    version: Version,
    mut answer: Pin<Box<impl Future<Output = T>>>,
) -> io::Result<T> {
    let (mut answered, mut blocked) = (None, false);
    poll_fn(|cx| {
        if answered.is_none()
            && let Poll::Ready(answer) = answer.as_mut().poll(cx)
        {
            answered = Some(answer);
        }
        let mut channel = channel.lock();
        if let Some(hints) = link.take_hints()
            && version == Version::HTTP_11
        {
            channel.hint(&outgoing::early_hints(&hints));
        }
        let told = channel.poll_hints(cx)?.is_ready();
        if blocked == told {
            blocked = !told;
            link.blocked(blocked, true);
        }
        match answered.take_if(|_| told) {
            Some(answer) => Poll::Ready(Ok(answer)),
            None if answered.is_none() => channel.poll_gone(cx, link.is_held()).map(Err),
            None => Poll::Pending,
        }
    })
    .await
}

async fn write<S: Duplex + ?Sized>(
    channel: &Shared<S>,
    link: &Link,
    response: Response<ResponseBody>,
    asked: &Asked,
) -> io::Result<Next> {
    let (mut parts, mut body) = response.into_parts();
    let tunnel = body.take_tunnel();
    let upgrades = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let says_close = has_connection_option(&parts.headers, "close");
    if asked.last && !says_close && !upgrades {
        parts.headers.insert(CONNECTION, http::HeaderValue::from_static("close"));
    }
    let mut outgoing = Outgoing::answer(&parts, body, (&asked.method, asked.version), asked.trailers);
    let mut to = channel.clone();
    poll_fn(|cx| drive(&mut outgoing, &mut to, link, cx)).await?;
    drop(outgoing); // the request has ended
    if let Some(tunnel) = tunnel {
        return Ok(Next::Upgrade(tunnel));
    }
    let read = channel.lock().skip_body();
    Ok(if asked.last || says_close || !read {
        Next::Close { unread: !read || asked.last }
    } else {
        Next::Head
    })
}

/// Writes on; tells the link whether it is the client that is waited for.
fn drive<S: Duplex + ?Sized>(
    outgoing: &mut Outgoing<ResponseBody>,
    to: &mut Shared<S>,
    link: &Link,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let before = outgoing.written();
    let driven = outgoing.poll_drive(to, cx);
    link.blocked(driven.is_pending() && outgoing.is_blocked(), outgoing.written() > before);
    match driven {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(Unsent::Io(error))) => Poll::Ready(Err(error)),
        // The client must notice that the answer is not whole: nothing ends it but the connection's end.
        Poll::Ready(Err(Unsent::Body(error))) => Poll::Ready(Err(io::Error::other(error))),
        Poll::Ready(Err(Unsent::Length)) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        Poll::Pending => to.lock().poll_gone(cx, false).map(Err),
    }
}

/// Says that nothing more is said, and listens for a moment to a client that may not have noticed.
async fn leave<S: Duplex + ?Sized>(mut channel: Shared<S>, unread: bool) -> io::Result<()> {
    channel.shutdown().await?;
    if !unread {
        return Ok(());
    }
    listen(&mut channel).await;
    Ok(())
}
