//! A conversation with a client: reads, writes, and drives the answers to all that it asks.

use std::{
    future::{Future, pending, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures_util::{
    future::Either,
    stream::{FuturesUnordered, Stream as _},
};
use http::{Method, Request, Response, header::EXPECT};
use tokio::{io::AsyncWriteExt, sync::Semaphore, task::yield_now};

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

/// So much is taken of a client before everybody else has a turn who is ready, and the kernel is asked who has become so meanwhile:
/// else a few that pour were all that the others of their worker wait for.
const TURN: usize = 64 * 1024;

/// So many that were displaced take their leave at once; others are cut off, with what is under way of their last answers.
static PARTING: Semaphore = Semaphore::const_new(256);

/// How a conversation ends.
enum End {
    /// As both wanted, or by the client's leaving.
    Over,
    /// Its place is another's.
    Displaced,
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
    // With one that is never ready there is always one that was not polled; else, once all were, it would wake this task for nothing.
    answers.push(Either::Left(pending()));
    let ended = poll_fn(|cx| {
        driver.poll(cx, link, |cx, session| {
            loop {
                let arrival = session.lock().arrival();
                let Some(arrival) = arrival else { break };
                let head_only = arrival.asked.as_ref().is_ok_and(|parts| parts.method == Method::HEAD);
                let (id, asked) = (arrival.stream, request(session, arrival));
                let ask = || answer(asked);
                let answer = send::answer(session.clone(), link, id, head_only, terms.taking, ask);
                answers.push(Either::Right(answer));
            }
            while let Poll::Ready(Some(())) = Pin::new(&mut answers).poll_next(cx) {}
        })
    })
    .await;
    drop(answers);
    driver.leave(ended, link).await
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
        let (mut progress, mut turn) = (false, TURN);
        loop {
            let received = match self.receive(cx, &mut turn) {
                Ok(received) => received,
                Err(end) => return Poll::Ready(end),
            };
            if link.is_closing() {
                self.session.lock().wind_up();
            }
            if !self.keeps(link) {
                return Poll::Ready(End::Displaced);
            }
            work(cx, &self.session);
            match self.write(cx) {
                Ok(written) => progress |= written,
                Err(error) => return Poll::Ready(End::Io(error)),
            }
            if turn == 0 {
                let _ = pin!(yield_now()).poll(cx); // it wakes this again
                self.note(link, progress);
                link.reading(false); // it owes nothing: what is there is to be taken
                return Poll::Pending;
            }
            let mut session = self.session.lock();
            if !session.call() && (!received || session.is_full()) {
                drop(session);
                return self.pause(link, progress);
            }
        }
    }

    /// Whether the connection keeps its place; with a stream open nobody takes it.
    fn keeps(&self, link: &Link) -> bool {
        if self.session.lock().is_busy() { link.occupy() } else { !link.is_displaced() }
    }

    /// Nothing is left to be done now.
    fn pause(&mut self, link: &Link, progress: bool) -> Poll<End> {
        let blocked = self.note(link, progress);
        let mut session = self.session.lock();
        if session.is_over() && !blocked || self.ended {
            return Poll::Ready(End::Over);
        }
        link.reading(session.is_amid(&self.input));
        if !session.is_busy() {
            session.outbox().rest();
            self.room.reset();
            if !blocked {
                link.rest();
            }
        }
        Poll::Pending
    }

    /// Tells the connection's clock whether the client has yet to take something, and returns it.
    fn note(&self, link: &Link, progress: bool) -> bool {
        let blocked = self.unflushed || !self.session.lock().outbox().is_empty();
        link.blocked(blocked, progress);
        blocked
    }

    /// Reads and takes what there is, within its turn; whether there may be more.
    fn receive(&mut self, cx: &mut Context<'_>, turn: &mut usize) -> Result<bool, End> {
        let mut read = 0;
        while read < AT_ONCE && !self.ended {
            let mut session = self.session.lock();
            session.receive(&mut self.input, turn).map_err(End::Fatal)?;
            if session.is_full() || *turn == 0 {
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
    async fn leave(mut self, end: End, link: &Link) -> io::Result<()> {
        self.session.lock().close();
        self.input = BytesMut::new();
        match end {
            End::Over => {
                let _ = self.stream.shutdown().await; // it may be gone already
                Ok(())
            }
            End::Io(error) => Err(error),
            End::Displaced => {
                self.session.lock().make_way();
                let _ = poll_fn(|cx| Poll::Ready(self.write(cx))).await; // it is heard, or not
                let Ok(_place) = PARTING.try_acquire() else { return Ok(()) };
                link.part();
                self.part().await
            }
            End::Fatal(fatal) => {
                self.session.lock().leave(fatal);
                self.part().await?;
                Err(io::Error::other(fatal))
            }
        }
    }

    /// Says what is to be said, and listens until the client has heard it, and the end of its last answers.
    async fn part(&mut self) -> io::Result<()> {
        linger::part(async {
            poll_fn(|cx| self.poll_written(cx)).await?;
            self.stream.shutdown().await
        })
        .await?;
        linger::listen(&mut self.stream).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{cell::Cell, time::Duration};

    use tokio::io::{AsyncReadExt, duplex};

    use super::{
        super::frame::{self, PREFACE},
        *,
    };
    use crate::{door::Place, h1::Limits};

    #[tokio::test]
    async fn who_pours_has_one_turn_after_the_other() {
        const FRAMES: usize = 2_000;
        let (mut client, server) = duplex(1 << 20);
        let mut said = BytesMut::from(PREFACE);
        frame::put(&mut said, frame::SETTINGS, 0, 0, &[]);
        (0..FRAMES).for_each(|_| frame::put(&mut said, frame::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()));
        frame::put(&mut said, frame::PING, 0, 0, b"all that");
        client.write_all(&said).await.unwrap();

        let head = Limits { head_bytes: 1_000, fields: 10, target_bytes: 100 };
        let terms = Terms {
            head,
            streams: 1,
            paces: super::super::PACES,
            taking: Duration::MAX,
            lender: None,
            culprit: None,
            counters: Default::default(),
        };
        let link = Link::new("192.0.2.7:1".parse().unwrap(), None, true, Place::single());
        let answer = async |_| unreachable!("nothing is asked");
        let (turns, mut heard) = (Cell::new(0), Vec::new());
        let mut serving = Box::pin(serve(server, &link, terms, answer));
        let turn_by_turn = poll_fn(|cx| {
            turns.set(turns.get() + 1);
            serving.as_mut().poll(cx)
        });
        let reading = async {
            while !heard.windows(8).any(|bytes| bytes == b"all that") {
                client.read_buf(&mut heard).await.unwrap();
            }
        };
        tokio::select! {
            _ = turn_by_turn => unreachable!("the client is there"),
            () = reading => {}
        }
        assert!(turns.get() > FRAMES * 1024 / TURN, "{} turns", turns.get());
    }
}
