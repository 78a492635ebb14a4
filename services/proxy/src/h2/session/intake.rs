//! What a client's frames change (RFC 9113 §5, §6).

use bytes::{Buf, BytesMut};
use http::request;

use super::{
    super::{
        Fatal, Reason,
        frame::{self, ACK, END_HEADERS, END_STREAM, Frame, MASK, PREFACE},
        head::{Fault, Section},
        stream::Stream,
    },
    Arrival, FAREWELL, Leaving, Session, WORTH,
};
use crate::{
    clock,
    counters::{Calmed, Stopped},
    door::Culprit,
};

/// So many bytes of a turn the smallest frame is worth: it is not its bytes that cost.
const LEAST: usize = 1024;
/// So many bytes of a turn a byte of a header section is worth: each may be a field.
const OF_FIELDS: usize = 4;
/// So many frames may continue a header section.
const CONTINUATIONS: usize = 64;
/// A section may have so many times the bytes that it may have at most, for it to be refused and not its connection.
const SLACK: usize = 4;

/// A header section whose end is still to come.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends: bool,
    /// Its priority makes no sense.
    odd: bool,
    bytes: BytesMut,
    frames: usize,
}

type Taken = Result<(), Fatal>;

fn protocol(why: &'static str) -> Fatal {
    Fatal::new(Reason::Protocol, why)
}

/// What a frame takes of its client's turn.
fn worth(frame: &Frame) -> usize {
    let byte = if matches!(frame.kind, frame::HEADERS | frame::CONTINUATION) { OF_FIELDS } else { 1 };
    (byte * frame.payload.len()).max(LEAST)
}

impl Session {
    /// Takes what is whole of these bytes, while there is room for what it wants and something left of the turn.
    pub(in super::super) fn receive(&mut self, bytes: &mut BytesMut, turn: &mut usize) -> Taken {
        if !self.begun && !self.begin(bytes)? {
            return Ok(());
        }
        while self.has_room()
            && *turn > 0
            && let Some(frame) = frame::next(bytes)?
        {
            *turn = turn.saturating_sub(worth(&frame));
            self.take(frame)?;
        }
        Ok(())
    }

    fn begin(&mut self, bytes: &mut BytesMut) -> Result<bool, Fatal> {
        let there = bytes.len().min(PREFACE.len());
        if bytes[..there] != PREFACE[..there] {
            return Err(protocol("this is no HTTP/2"));
        }
        self.begun = there == PREFACE.len();
        if self.begun {
            bytes.advance(there);
        }
        Ok(self.begun)
    }

    fn take(&mut self, frame: Frame) -> Taken {
        match &self.block {
            Some(block) if frame.kind != frame::CONTINUATION || frame.stream != block.stream => {
                return Err(protocol("a header section was broken into"));
            }
            None if !self.settled && frame.kind != frame::SETTINGS => {
                return Err(protocol("the first frame is none of settings"));
            }
            _ => {}
        }
        let of_connection = matches!(frame.kind, frame::SETTINGS | frame::PING | frame::GOAWAY);
        let of_stream =
            frame.kind <= frame::CONTINUATION && !of_connection && frame.kind != frame::WINDOW_UPDATE;
        if (of_connection && frame.stream != 0) || (of_stream && frame.stream == 0) {
            return Err(protocol("a frame is of a stream that it can't be of"));
        }
        match frame.kind {
            frame::DATA => self.data(frame),
            frame::HEADERS => self.headers(frame),
            frame::PRIORITY => self.priority(&frame),
            frame::RST_STREAM => self.reset(&frame),
            frame::SETTINGS => self.settings(&frame),
            frame::PUSH_PROMISE => Err(protocol("a client can't promise")),
            frame::PING => self.ping(&frame),
            frame::GOAWAY if frame.payload.len() < 8 => Err(size("a farewell is too short")),
            frame::WINDOW_UPDATE => self.window(&frame),
            frame::CONTINUATION => self.continuation(&frame),
            _ => self.spend_idle(Calmed::Unknown), // a farewell, or a kind of frame that is not known: read over (§5.5)
        }
    }

    fn headers(&mut self, mut frame: Frame) -> Taken {
        frame.unpad()?;
        let odd = frame.skip_priority()?;
        let ends = frame.is(END_STREAM);
        if frame.is(END_HEADERS) {
            return self.section(frame.stream, ends, odd, &frame.payload);
        }
        let bytes = BytesMut::from(&*frame.payload);
        self.block = Some(Block { stream: frame.stream, ends, odd, bytes, frames: 0 });
        Ok(())
    }

    fn continuation(&mut self, frame: &Frame) -> Taken {
        let Some(mut block) = self.block.take() else { return Err(protocol("nothing is to be continued")) };
        block.frames += 1;
        block.bytes.extend_from_slice(&frame.payload);
        if block.frames > CONTINUATIONS || block.bytes.len() > SLACK * self.terms.head.head_bytes {
            return Err(Fatal::calm(Calmed::Continuation, "a header section does not end"));
        }
        if frame.is(END_HEADERS) {
            return self.section(block.stream, block.ends, block.odd, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A section is whole. It is read in any case, for the table that it changes.
    fn section(&mut self, id: u32, ends: bool, odd: bool, block: &[u8]) -> Taken {
        let mut section = Section::new(self.terms.head);
        let read = self.decoder.decode(block, |field| section.take(field));
        read.map_err(|_| Fatal::new(Reason::Compression, "a header section can't be read"))?;
        if id <= self.last {
            return self.trailers(id, ends, section);
        }
        if id.is_multiple_of(2) {
            return Err(protocol("a client opens streams of odd numbers"));
        }
        self.last = id;
        if matches!(self.leaving, Leaving::Heard(_)) {
            return self.spend_idle(Calmed::Late); // the client opens it elsewhere
        }
        if odd {
            return self.fail(id, Reason::Protocol);
        }
        if self.open >= self.terms.streams {
            self.terms.counters.stop(Stopped::Streams);
            self.put_reset(id, Reason::RefusedStream);
            return self.spend_idle(Calmed::Late);
        }
        match section.request() {
            Ok((_, length)) if ends && length.is_some_and(|length| length > 0) => {
                self.fail(id, Reason::Protocol)
            }
            Ok((parts, length)) => self.open(id, Ok(parts), !ends, length),
            Err(Fault::Refused(why)) => {
                self.spend_error()?;
                self.open(id, Err(why), !ends, None)
            }
            Err(Fault::Malformed) => {
                self.terms.counters.requests_malformed.up();
                self.fail(id, Reason::Protocol)
            }
        }
    }

    fn open(
        &mut self,
        id: u32,
        asked: Result<request::Parts, crate::h1::Malformed>,
        has_body: bool,
        length: Option<u64>,
    ) -> Taken {
        self.streams.insert(id, Stream::new(has_body, length, self.first_window));
        self.open += 1;
        self.idle.earn(WORTH);
        self.arrivals.push_back(Arrival { stream: id, asked, has_body });
        Ok(())
    }

    fn trailers(&mut self, id: u32, ends: bool, section: Section) -> Taken {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.reset) else {
            return match self.remembered.contains(&id) {
                true => self.spend_idle(Calmed::Late),
                false => Err(Fatal::new(Reason::StreamClosed, "headers of a stream that is closed")),
            };
        };
        let taken = match section.trailers() {
            Ok(trailers) if ends => stream.trailers(trailers),
            _ if !stream.more => Err(Reason::StreamClosed),
            _ => Err(Reason::Protocol),
        };
        taken.or_else(|reason| self.fail(id, reason))
    }

    fn data(&mut self, mut frame: Frame) -> Taken {
        let framed = frame.payload.len() as u32;
        let Some(more) = self.ahead.come(framed) else {
            return Err(Fatal::new(Reason::FlowControl, "more was sent than may be"));
        };
        self.grant(0, more);
        frame.unpad()?;
        let ends = frame.is(END_STREAM);
        if frame.payload.is_empty() && !ends {
            self.spend_idle(Calmed::EmptyData)?;
        }
        self.earn(frame.payload.len(), ends);
        let (id, piece) = (frame.stream, frame.payload);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.reset) else {
            return self.stray(id, framed);
        };
        let taken = stream.data(piece, framed, ends);
        let credit = stream.take_credit();
        self.grant(id, credit);
        self.let_go(*taken.as_ref().unwrap_or(&framed));
        taken.map(drop).or_else(|reason| self.fail(id, reason))
    }

    /// Data of a stream that isn't there.
    fn stray(&mut self, id: u32, framed: u32) -> Taken {
        if id > self.last {
            return Err(protocol("data of a stream that was not opened"));
        }
        self.let_go(framed);
        match self.remembered.contains(&id) {
            true => self.spend_idle(Calmed::Late), // it was under way when the stream ended
            false => self.fail(id, Reason::StreamClosed),
        }
    }

    fn priority(&mut self, frame: &Frame) -> Taken {
        let Some((parent, [_weight])) = frame.payload.split_first_chunk::<4>() else {
            return Err(size("a priority has another size"));
        };
        if u32::from_be_bytes(*parent) & MASK == frame.stream {
            return Err(protocol("a stream depends on itself"));
        }
        self.spend_idle(Calmed::Priority)
    }

    fn reset(&mut self, frame: &Frame) -> Taken {
        frame.number()?;
        if frame.stream > self.last {
            return Err(protocol("the end of a stream that was not opened"));
        }
        if self.streams.get(&frame.stream).is_none_or(|stream| stream.reset) {
            return self.spend_idle(Calmed::Late);
        }
        self.break_off(frame.stream);
        let over = || Fatal::calm(Calmed::Reset, "too many streams were reset");
        if self.resets.spend(clock::now_ms) { Ok(()) } else { Err(over()) }
    }

    fn settings(&mut self, frame: &Frame) -> Taken {
        if frame.is(ACK) {
            return if frame.payload.is_empty() {
                self.spend_idle(Calmed::Settings)
            } else {
                Err(size("an empty frame is not"))
            };
        }
        self.spend_idle(Calmed::Settings)?;
        let mut window = None;
        for (name, value) in frame::settings(&frame.payload)? {
            judge_setting(name, value)?;
            window = if name == frame::INITIAL_WINDOW_SIZE { Some(value) } else { window };
        }
        // Each walks over all streams, and a frame has room for thousands: only what it comes to is done.
        window.map_or(Ok(()), |window| self.resize_windows(window))?;
        self.settled = true;
        frame::put(self.outbox.near(), frame::SETTINGS, ACK, 0, &[]);
        Ok(())
    }

    /// All windows change with that of new streams; they may become negative (§6.9.2).
    fn resize_windows(&mut self, window: u32) -> Taken {
        let change = i64::from(window) - self.first_window;
        self.first_window = window.into();
        for stream in self.streams.values_mut() {
            stream.window_out += change;
            if stream.window_out > MASK.into() {
                return Err(overflow());
            }
            stream.wake();
        }
        Ok(())
    }

    fn ping(&mut self, frame: &Frame) -> Taken {
        if frame.payload.len() != FAREWELL.len() {
            return Err(size("a ping has another size"));
        }
        if !frame.is(ACK) {
            frame::put(self.outbox.near(), frame::PING, ACK, 0, &frame.payload);
        } else if self.leaving == Leaving::Told && frame.payload == FAREWELL[..] {
            self.leaving = Leaving::Heard(self.last);
            frame::put_goaway(self.outbox.near(), self.last, Reason::None, "");
        }
        self.spend_idle(Calmed::Ping)
    }

    fn window(&mut self, frame: &Frame) -> Taken {
        let (id, more) = (frame.stream, frame.number()? & MASK);
        self.spend_idle(Calmed::Window)?;
        if id == 0 {
            return self.widen(more);
        }
        if id > self.last {
            return Err(protocol("a window of a stream that was not opened"));
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.reset) else { return Ok(()) };
        stream.window_out += i64::from(more);
        stream.wake();
        match stream.window_out > MASK.into() {
            _ if more == 0 => self.fail(id, Reason::Protocol),
            true => self.fail(id, Reason::FlowControl),
            false => Ok(()),
        }
    }

    fn widen(&mut self, more: u32) -> Taken {
        let was = self.window_out;
        self.window_out += i64::from(more);
        if was <= 0 {
            self.streams.values().for_each(Stream::wake);
        }
        match self.window_out > MASK.into() {
            _ if more == 0 => Err(protocol("a window is widened by nothing")),
            true => Err(overflow()),
            false => Ok(()),
        }
    }

    /// Resets a stream that its client does not use as it should.
    fn fail(&mut self, id: u32, reason: Reason) -> Taken {
        self.break_off(id);
        self.put_reset(id, reason);
        self.spend_error()
    }

    fn spend_error(&mut self) -> Taken {
        let over = || Fatal::calm(Calmed::Error, "too many streams went wrong");
        let borne = self.terms.culprit.as_ref().is_none_or(Culprit::is_borne);
        if borne && self.errors.spend(clock::now_ms) { Ok(()) } else { Err(over()) }
    }

    fn spend_idle(&mut self, by: Calmed) -> Taken {
        let over = || Fatal::calm(by, "too many frames ask for nothing");
        if self.idle.spend(clock::now_ms) { Ok(()) } else { Err(over()) }
    }
}

/// Of the table that the client's side would keep nothing is used, nor is a larger section sent than an app sends.
fn judge_setting(name: u16, value: u32) -> Taken {
    let size = usize::try_from(value).unwrap_or(usize::MAX);
    match name {
        frame::ENABLE_PUSH if value > 1 => Err(protocol("a setting is neither yes nor no")),
        frame::INITIAL_WINDOW_SIZE if value > MASK => Err(overflow()),
        frame::MAX_FRAME_SIZE if !(frame::LARGEST..1 << 24).contains(&size) => {
            Err(protocol("a frame can't be so large, or so small"))
        }
        _ => Ok(()),
    }
}

fn size(why: &'static str) -> Fatal {
    Fatal::new(Reason::FrameSize, why)
}

fn overflow() -> Fatal {
    Fatal::new(Reason::FlowControl, "a window is larger than it can be")
}
