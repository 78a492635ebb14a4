//! A connection's state: what is open, what may be sent, what waits to be written. It is changed by frames (`intake.rs`) and by
//! those who answer, all of them in one task, so its lock is never waited for.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{StatusCode, request};
use http_body::Frame as BodyFrame;

use super::{
    Broken, ERRORS, Fatal, Reason, Terms,
    ahead::{self, Ahead},
    budget::Budget,
    frame::{self, END_HEADERS, END_STREAM, HEAD, HEADERS},
    hpack::{Decoder, encode},
    outbox::Outbox,
    stream::{self, Stream},
};
use crate::{clock, counters::Stopped, h1::Malformed};

mod intake;
#[cfg(test)]
mod tests;

/// What both sides may send before anything is agreed (RFC 9113 §6.9.2).
const DEFAULT_WINDOW: u32 = ahead::OWN;
/// No more is made ready to be written while so much is; nor are frames taken that want an answer.
const ENOUGH: usize = 64 * 1024;
/// So many of those that wait for room are called at once.
const CALLED: usize = 8;
/// Streams that ended early and are remembered: what was under way to them is read over.
const REMEMBERED: usize = 64;
/// The ping whose answer shows that a client has heard that the connection is about to end.
const FAREWELL: [u8; 8] = *b"farewell";

/// Frames that ask for nothing (PING, SETTINGS, empty DATA, ...): so many are taken at once,
/// and each second `h2_idle_frames_per_second` of them.
const IDLE: u32 = 10_000;
/// What a request, its end and each good piece of a body are worth of them: such a piece brings updates of two windows.
const WORTH: u32 = 3;
/// Bytes of a good piece. One that is made small by its client's window is none.
const GOOD: usize = 1024;
/// Streams that a client may reset at once (Rapid Reset, CVE-2023-44487), in times of how many it may have open; a browser that
/// leaves a page resets all that are.
const RESETS: u32 = 2;

/// A request that came.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) stream: u32,
    /// It, or why it is refused.
    pub(super) asked: Result<request::Parts, Malformed>,
    pub(super) has_body: bool,
}

/// How far a connection is with ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was told; what it has sent before it hears that is served.
    Told,
    /// It has heard, and which stream is the last one.
    Heard(u32),
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct Session {
    terms: Terms,
    /// The client's first words were read.
    begun: bool,
    /// And its settings.
    settled: bool,
    /// A header section whose end is still to come.
    block: Option<intake::Block>,
    decoder: Decoder,
    streams: HashMap<u32, Stream, BuildHasherDefault<ById>>,
    /// The streams that have not been reset.
    open: usize,
    /// The last stream that the client opened.
    last: u32,
    /// The last one that somebody was told of.
    told: u32,
    remembered: VecDeque<u32>,
    /// What a new stream may be sent at first.
    first_window: i64,
    /// Bytes of all bodies that may be sent to the client.
    window_out: i64,
    /// What it may send to us of all bodies.
    ahead: Ahead,
    outbox: Outbox,
    arrivals: VecDeque<Arrival>,
    /// Streams that wait for room in the outbox.
    line: VecDeque<u32>,
    leaving: Leaving,
    /// A section was written: the client knows that they use no table.
    no_table: bool,
    idle: Budget,
    errors: Budget,
    resets: Budget,
    /// Who writes; it sleeps while a body is read elsewhere.
    driver: Option<Waker>,
    gone: bool,
}

/// A connection's state, shared.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<Session>>);

impl Shared {
    /// Nothing said yet.
    pub(super) fn new(terms: Terms) -> Self {
        Self(Arc::new(Mutex::new(Session::new(terms))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// One that says first what it grants.
    fn new(terms: Terms) -> Self {
        let streams = u32::try_from(terms.streams).unwrap_or(u32::MAX);
        let (budget, paces) =
            (|most, per_second| Budget::new(most, per_second, clock::now_ms()), terms.paces);
        let mut outbox = Outbox::default();
        let head = u32::try_from(terms.head.head_bytes).unwrap_or(u32::MAX);
        let granted = [
            (frame::MAX_CONCURRENT_STREAMS, streams),
            (frame::INITIAL_WINDOW_SIZE, stream::WINDOW),
            (frame::MAX_HEADER_LIST_SIZE, head),
            (frame::ENABLE_CONNECT_PROTOCOL, 1),
        ];
        frame::put_settings(outbox.near(), &granted);
        Self {
            ahead: Ahead::new(terms.lender.clone()),
            terms,
            begun: false,
            settled: false,
            block: None,
            decoder: Decoder::default(),
            streams: HashMap::default(),
            open: 0,
            last: 0,
            told: 0,
            remembered: VecDeque::new(),
            first_window: DEFAULT_WINDOW.into(),
            window_out: DEFAULT_WINDOW.into(),
            outbox,
            arrivals: VecDeque::new(),
            line: VecDeque::new(),
            leaving: Leaving::No,
            no_table: false,
            idle: budget(IDLE, paces.idle),
            errors: budget(ERRORS, paces.errors),
            resets: budget(streams.saturating_mul(RESETS), paces.resets),
            driver: None,
            gone: false,
        }
    }

    // For the driver.

    /// The next request that came.
    pub(super) fn arrival(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front().inspect(|arrival| self.told = arrival.stream)
    }

    /// What waits to be written.
    pub(super) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Whether so much waits to be written that no more is taken.
    pub(super) fn is_full(&self) -> bool {
        !self.has_room()
    }

    /// A client took nothing of an answer for too long.
    pub(super) fn stalled(&self) {
        self.terms.counters.stop(Stopped::NotTaking);
    }

    /// Calls some of those that wait for room, if there is some; whether any.
    pub(super) fn call(&mut self) -> bool {
        let mut called = 0;
        while self.has_room()
            && called < CALLED
            && let Some(id) = self.line.pop_front()
        {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.in_line = false;
                stream.wake();
                called += 1;
            }
        }
        called > 0
    }

    /// Whether what has come is less than a client must say at once: its first words, a header section; a frame of any kind,
    /// unless a stream is open, where that of a body has limits of its own.
    pub(super) fn is_amid(&self, unread: &[u8]) -> bool {
        let begun = match self.is_busy() {
            true => !self.is_full() && frame::is_of_headers(unread), // else it may be there whole, and wait for us
            false => !unread.is_empty(),
        };
        begun || !self.settled || self.block.is_some()
    }

    /// Whether a stream is open.
    pub(super) fn is_busy(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Tells the client that the connection is to end (RFC 9113 §6.8): streams that it opens before it has heard are served.
    pub(super) fn wind_up(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Told;
            frame::put_goaway(self.outbox.near(), frame::MASK, Reason::None, "");
            frame::put(self.outbox.near(), frame::PING, 0, 0, &FAREWELL);
        }
    }

    /// Whether it has ended as it should.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.leaving, Leaving::Heard(_)) && !self.is_busy() && self.outbox.is_empty()
    }

    /// Tells the client why it is left; nothing but that is written any more.
    pub(super) fn leave(&mut self, fatal: Fatal) {
        fatal.calmed.into_iter().for_each(|by| self.terms.counters.calmed(by));
        frame::put_goaway(self.outbox.near(), self.last, fatal.reason, fatal.why);
    }

    /// Tells the client that the connection ends now, and that of what it has sent last nothing was done: it may ask for that again
    /// (RFC 9113 §8.7).
    pub(super) fn make_way(&mut self) {
        frame::put_goaway(self.outbox.near(), self.told, Reason::None, "");
    }

    /// Who is to be woken when something is to be written.
    pub(super) fn driven_by(&mut self, cx: &Context<'_>) {
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }

    /// Nobody drives it any more. While its client is still listened to, nothing is kept of what it has asked and sent.
    pub(super) fn close(&mut self) {
        self.gone = true;
        self.arrivals = VecDeque::new();
        self.ahead.close();
        for stream in self.streams.values_mut() {
            stream.break_off();
            stream.forget_body();
        }
    }

    // For those who read a request's body.

    /// The next piece of a body.
    pub(super) fn poll_body(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Broken>>> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.reset && !self.gone) else {
            return Poll::Ready(Some(Err(Broken::Gone)));
        };
        if let Some(piece) = stream.piece() {
            let credit = stream.take_credit();
            self.grant(id, credit);
            self.let_go(piece.len() as u32);
            return Poll::Ready(Some(Ok(BodyFrame::data(piece))));
        }
        if let Some(trailers) = stream.take_trailers() {
            return Poll::Ready(Some(Ok(BodyFrame::trailers(trailers))));
        }
        if stream.is_read() {
            return Poll::Ready(None);
        }
        stream.read_by(cx);
        if !std::mem::replace(&mut stream.invited, true) {
            self.put_section(id, false, |block| encode::put_status(block, StatusCode::CONTINUE));
            self.wake_driver();
        }
        Poll::Pending
    }

    /// Whether a body was read to its end.
    pub(super) fn is_read(&self, id: u32) -> bool {
        !self.gone && self.streams.get(&id).is_none_or(Stream::is_read)
    }

    /// Bytes of a body that are still to be read, where that is known.
    pub(super) fn unread(&self, id: u32) -> Option<u64> {
        self.streams.get(&id).and_then(Stream::unread)
    }

    /// Nobody reads a body any more.
    pub(super) fn forget_body(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let unread = stream.forget_body();
            self.let_go(unread);
        }
    }

    /// The client waits to hear that this body is wanted.
    pub(super) fn expects(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.invited = false;
        }
    }

    // For those who answer.

    /// Whether an answer is still wanted; who gives it is woken when there is news.
    pub(super) fn enter(&mut self, id: u32, cx: &Context<'_>) -> bool {
        let stream = self.streams.get_mut(&id).filter(|stream| !stream.reset);
        stream.map(|stream| stream.answered_by(cx)).is_some()
    }

    /// Whether there is room to write more; if not, the stream is called when there is.
    pub(super) fn room(&mut self, id: u32) -> bool {
        if self.has_room() {
            return true;
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.in_line, true)
        {
            self.line.push_back(id);
        }
        false
    }

    /// Bytes of a body that may be sent now, at most so many; 0 = none, and the stream is called when that changes.
    pub(super) fn allowance(&mut self, id: u32, wanted: usize) -> usize {
        if !self.room(id) {
            return 0;
        }
        let Some(stream) = self.streams.get(&id) else { return 0 };
        let window = stream.window_out.min(self.window_out).max(0);
        wanted.min(frame::LARGEST).min(usize::try_from(window).unwrap_or(usize::MAX))
    }

    /// Sends an answer's head, or what follows its body.
    pub(super) fn put_section(&mut self, id: u32, ends: bool, fill: impl FnOnce(&mut BytesMut)) {
        let near = self.outbox.near();
        let start = near.len();
        near.put_slice(&[0; HEAD]);
        if !std::mem::replace(&mut self.no_table, true) {
            near.put_u8(encode::NO_TABLE);
        }
        fill(near);
        let flag = if ends { END_STREAM } else { 0 };
        let length = near.len() - start - HEAD;
        if length <= frame::LARGEST {
            near[start..start + HEAD].copy_from_slice(&frame::head(length, HEADERS, END_HEADERS | flag, id));
            return;
        }
        let block = near.split_off(start + HEAD);
        near.truncate(start);
        let (mut kind, mut flags) = (HEADERS, flag);
        for piece in block.chunks(frame::LARGEST) {
            frame::put(near, kind, flags, id, piece);
            (kind, flags) = (frame::CONTINUATION, 0);
        }
        frame::put(near, kind, END_HEADERS, id, &[]);
    }

    /// Sends a piece of a body, no more than was allowed.
    pub(super) fn put_data(&mut self, id: u32, piece: Bytes, ends: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.window_out -= piece.len() as i64;
        self.window_out -= piece.len() as i64;
        self.earn(piece.len(), ends);
        let flags = if ends { END_STREAM } else { 0 };
        self.outbox.near().put_slice(&frame::head(piece.len(), frame::DATA, flags, id));
        self.outbox.push(piece);
    }

    /// An answer broke off.
    pub(super) fn abort(&mut self, id: u32, reason: Reason) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.reset, true)
        {
            self.open -= 1;
            self.put_reset(id, reason);
        }
    }

    /// Who answered is done. A client that is still sending hears that it need not (RFC 9113 §8.1).
    pub(super) fn finish(&mut self, id: u32) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        let unread = stream.forget_body();
        stream.wake_reader(); // one that goes on by itself, as a WebSocket's does
        self.let_go(unread);
        if !stream.reset {
            self.open -= 1;
            if stream.more {
                self.put_reset(id, Reason::None);
            }
        }
        if self.streams.is_empty() {
            self.streams.shrink_to(0);
        }
    }

    // For all.

    fn has_room(&self) -> bool {
        self.outbox.len() < ENOUGH
    }

    /// So much of a body went, either way.
    fn earn(&mut self, bytes: usize, ends: bool) {
        if ends || bytes >= GOOD {
            self.idle.earn(WORTH);
        }
    }

    /// A stream ends before its time; that of a request which nobody has seen yet is as if it had never been.
    fn break_off(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.reset) else { return };
        stream.break_off();
        self.open -= 1;
        if let Some(place) = self.arrivals.iter().rposition(|arrival| arrival.stream == id) {
            self.arrivals.remove(place);
            self.finish(id);
        }
    }

    fn put_reset(&mut self, id: u32, reason: Reason) {
        frame::put(self.outbox.near(), frame::RST_STREAM, 0, id, &(reason as u32).to_be_bytes());
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(id);
    }

    /// Tells the client that it may send so many bytes more on a stream.
    fn grant(&mut self, id: u32, credit: u32) {
        if credit > 0 {
            frame::put(self.outbox.near(), frame::WINDOW_UPDATE, 0, id, &credit.to_be_bytes());
            self.wake_driver();
        }
    }

    /// So many bytes of bodies have gone: others may come.
    fn let_go(&mut self, bytes: u32) {
        let credit = self.ahead.go(bytes);
        self.grant(0, credit);
    }

    fn wake_driver(&self) {
        self.driver.iter().for_each(Waker::wake_by_ref);
    }
}

/// Spreads stream numbers, of which a client may choose no more than it may have open.
#[derive(Default)]
struct ById(u64);

impl Hasher for ById {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
