//! A conversation with a client: reads, writes, and drives the answers to all that it asks.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures_util::stream::{FuturesUnordered, Stream as _};
use http::{Method, Request, Response, header::EXPECT};
use tokio::io::AsyncWriteExt;

use super::{
    Fatal, Incoming, Terms,
    outbox::SLICES,
    send,
    session::{Arrival, Shared},
};
use crate::{
    body::{RequestBody, ResponseBody},
    h1::{Malformed, channel::Duplex, fill::Room},
    linger,
    link::Link,
};

/// So much is read before what was asked in it is looked at.
const AT_ONCE: usize = 64 * 1024;

/// How a conversation ends.
enum End {
    /// As both wanted, or by the client's leaving.
    Over,
    /// The client went wrong.
    Fatal(Fatal),
    Io(io::Error),
}

/// Converses until the connection ends. `answer` is told of each request, or why one can't be served.
pub(crate) async fn serve<S, A, F>(stream: S, link: &Link, terms: Terms, answer: A) -> io::Result<()>
where
    S: Duplex,
    A: Fn(Result<Request<RequestBody>, Malformed>) -> F,
    F: Future<Output = Response<ResponseBody>>,
{
    let mut driver = Driver::new(stream, terms.clone());
    let mut answers = FuturesUnordered::new();
    let ended = poll_fn(|cx| {
        driver.poll(cx, link, |cx, session| {
            loop {
                let arrival = session.lock().arrival();
                let Some(arrival) = arrival else { break };
                let head_only = arrival.asked.as_ref().is_ok_and(|parts| parts.method == Method::HEAD);
                let (id, asked) = (arrival.stream, request(session, arrival));
                let ask = || answer(asked);
                answers.push(send::answer(session.clone(), link, id, head_only, terms.taking, ask));
            }
            while let Poll::Ready(Some(())) = Pin::new(&mut answers).poll_next(cx) {}
        })
    })
    .await;
    drop(answers);
    driver.leave(ended).await
}

/// What arrived, as the rest of the proxy knows requests.
fn request(session: &Shared, arrival: Arrival) -> Result<Request<RequestBody>, Malformed> {
    let Arrival { stream, asked, has_body } = arrival;
    let incoming = has_body.then(|| Incoming::new(session.clone(), stream));
    let parts = asked?;
    match parts.headers.get(EXPECT) {
        Some(what) if !what.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            return Err(Malformed::Expectation);
        }
        Some(_) => session.lock().expects(stream),
        None => {}
    }
    Ok(Request::from_parts(parts, incoming.map_or(RequestBody::Empty, RequestBody::h2)))
}

struct Driver<S> {
    stream: S,
    input: BytesMut,
    room: Room,
    session: Shared,
    /// Something was given to the stream that it may not have sent.
    unflushed: bool,
    /// The client says nothing more.
    ended: bool,
}

impl<S: Duplex> Driver<S> {
    fn new(stream: S, terms: Terms) -> Self {
        let (input, room, session) = (BytesMut::new(), Room::default(), Shared::new(terms));
        Self { stream, input, room, session, unflushed: false, ended: false }
    }

    /// Reads, has `work` done, and writes, until all that is left is to wait.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &Link,
        mut work: impl FnMut(&mut Context<'_>, &Shared),
    ) -> Poll<End> {
        self.session.lock().driven_by(cx);
        let mut progress = false;
        loop {
            let received = match self.receive(cx) {
                Ok(received) => received,
                Err(end) => return Poll::Ready(end),
            };
            if link.is_closing() {
                self.session.lock().wind_up();
            }
            work(cx, &self.session);
            match self.write(cx) {
                Ok(written) => progress |= written,
                Err(error) => return Poll::Ready(End::Io(error)),
            }
            let mut session = self.session.lock();
            if !session.call() && (!received || session.is_full()) {
                drop(session);
                return self.pause(link, progress);
            }
        }
    }

    /// Nothing is left to be done now.
    fn pause(&mut self, link: &Link, progress: bool) -> Poll<End> {
        let mut session = self.session.lock();
        let blocked = self.unflushed || !session.outbox().is_empty();
        if session.is_over() && !blocked || self.ended {
            return Poll::Ready(End::Over);
        }
        link.blocked(blocked, progress);
        link.reading(session.is_amid(&self.input));
        if !session.is_busy() {
            session.outbox().rest();
            self.room.reset();
        }
        Poll::Pending
    }

    /// Reads and takes what there is; whether there may be more.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut read = 0;
        while read < AT_ONCE && !self.ended {
            let mut session = self.session.lock();
            session.receive(&mut self.input).map_err(End::Fatal)?;
            if session.is_full() {
                break; // it is written first
            }
            match self.room.poll_fill(Pin::new(&mut self.stream), &mut self.input, cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(length)) => read += length,
                Poll::Ready(Err(error)) => return Err(End::Io(error)),
            }
        }
        Ok(!self.ended)
    }

    /// Writes what there is, as far as the connection takes it; whether anything.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut session = self.session.lock();
        let outbox = session.outbox();
        let mut written = false;
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = outbox.slices(&mut slices);
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(length)) => outbox.advance(length),
                Poll::Ready(Err(error)) => return Err(error),
            }
            (written, self.unflushed) = (true, true);
        }
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(written)
    }

    /// Ready when all is written.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx)?;
        let done = !self.unflushed && self.session.lock().outbox().is_empty();
        if done { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Ends the connection; a client that went wrong is told why.
    async fn leave(mut self, end: End) -> io::Result<()> {
        self.session.lock().close();
        self.input = BytesMut::new();
        match end {
            End::Over => {
                let _ = self.stream.shutdown().await; // it may be gone already
                Ok(())
            }
            End::Io(error) => Err(error),
            End::Fatal(fatal) => {
                self.session.lock().leave(fatal);
                linger::part(async {
                    poll_fn(|cx| self.poll_written(cx)).await?;
                    self.stream.shutdown().await
                })
                .await?;
                linger::listen(&mut self.stream).await;
                Err(io::Error::other(fatal))
            }
        }
    }
}
