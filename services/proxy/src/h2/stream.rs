//! One request's stream: what has come of its body, what may still come and go, and who waits for that.

use std::task::{Context, Waker};

use bytes::Bytes;
use http::HeaderMap;

use super::{Reason, inbox::Inbox};

/// Bytes of a body that a client may send ahead of what was taken.
pub(super) const WINDOW: u32 = 256 * 1024;

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    inbox: Inbox,
    /// The client has more to send.
    pub(super) more: bool,
    /// Bytes still to come, as the client said.
    left: Option<u64>,
    /// The body is read; else what comes of it is forgotten.
    pub(super) wanted: bool,
    /// The client waits to hear that its body is wanted.
    pub(super) invited: bool,
    /// Bytes that the client may send, and those of which it has not been told.
    window_in: i64,
    credit: u32,
    /// Bytes that may be sent to the client.
    pub(super) window_out: i64,
    /// It ended before its time.
    pub(super) reset: bool,
    /// It stands among those that wait for room.
    pub(super) in_line: bool,
    /// Who answers.
    task: Option<Waker>,
    /// Who reads the body.
    reader: Option<Waker>,
}

impl Stream {
    /// A request's; `more`: it has a body, which is so long if the client said so.
    pub(super) fn new(more: bool, left: Option<u64>, window_out: i64) -> Self {
        Self {
            inbox: Inbox::default(),
            more,
            left,
            wanted: more,
            invited: true,
            window_in: WINDOW.into(),
            credit: 0,
            window_out,
            reset: false,
            in_line: false,
            task: None,
            reader: None,
        }
    }

    /// Takes a piece of the body, whose frame had so many bytes; the number that nobody will read, or what is wrong.
    pub(super) fn data(&mut self, piece: Bytes, framed: u32, ends: bool) -> Result<u32, Reason> {
        if !self.more {
            return Err(Reason::StreamClosed);
        }
        self.window_in -= i64::from(framed);
        if self.window_in < 0 {
            return Err(Reason::FlowControl);
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(piece.len() as u64).ok_or(Reason::Protocol)?;
        }
        if ends {
            self.end()?; // before any of it lies here, for of what is refused all is given back
        }
        let mut unread = framed;
        if self.wanted {
            unread -= piece.len() as u32; // its padding
            self.inbox.push(piece);
        }
        self.credit += unread;
        self.wake_reader();
        Ok(unread)
    }

    /// Takes what follows the body.
    pub(super) fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Reason> {
        if !self.more {
            return Err(Reason::StreamClosed);
        }
        self.end()?;
        if self.wanted {
            self.inbox.end(trailers);
        }
        self.wake_reader();
        Ok(())
    }

    fn end(&mut self) -> Result<(), Reason> {
        self.more = false;
        if self.left.is_some_and(|left| left > 0) { Err(Reason::Protocol) } else { Ok(()) }
    }

    /// What to tell the client that it may send more of, once that is worth a word.
    pub(super) fn take_credit(&mut self) -> u32 {
        if !self.more || !self.wanted || self.credit < WINDOW / 2 {
            return 0;
        }
        self.window_in += i64::from(self.credit);
        std::mem::take(&mut self.credit)
    }

    /// The next piece of the body, for its reader.
    pub(super) fn piece(&mut self) -> Option<Bytes> {
        let piece = self.inbox.piece()?;
        self.credit += piece.len() as u32;
        Some(piece)
    }

    /// What followed the body, for its reader.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.inbox.trailers()
    }

    /// Whether the body was read to its end.
    pub(super) fn is_read(&self) -> bool {
        !self.more && self.inbox.is_empty()
    }

    /// Bytes of the body that its reader has not had, where that is known.
    pub(super) fn unread(&self) -> Option<u64> {
        let ahead = self.inbox.len() as u64;
        match self.left {
            Some(left) => Some(ahead + left),
            None if self.more => None,
            None => (!self.inbox.has_trailers()).then_some(ahead),
        }
    }

    /// Nobody reads the body any more; the number of its bytes that lay here.
    pub(super) fn forget_body(&mut self) -> u32 {
        self.wanted = false;
        std::mem::take(&mut self.inbox).len() as u32
    }

    /// It ended before its time: whoever waits for it hears it.
    pub(super) fn break_off(&mut self) {
        self.reset = true;
        self.wake();
        self.wake_reader();
    }

    /// Who answers, from now on.
    pub(super) fn answered_by(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    /// Who reads, from now on.
    pub(super) fn read_by(&mut self, cx: &Context<'_>) {
        self.reader = Some(cx.waker().clone());
    }

    /// Tells who answers that there is news.
    pub(super) fn wake(&self) {
        self.task.iter().for_each(Waker::wake_by_ref);
    }

    /// Tells who reads the body that there is news.
    pub(super) fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stream(left: Option<u64>) -> Stream {
        Stream::new(true, left, 0)
    }

    #[test]
    fn a_body_is_as_long_as_was_said() {
        let mut exact = stream(Some(3));
        assert_eq!(exact.unread(), Some(3));
        exact.data(Bytes::from_static(b"ab"), 2, false).unwrap();
        assert_eq!((exact.unread(), exact.piece().unwrap().len(), exact.unread()), (Some(3), 2, Some(1)));
        exact.data(Bytes::from_static(b"c"), 1, true).unwrap();
        assert_eq!(exact.data(Bytes::new(), 0, true), Err(Reason::StreamClosed));
        assert_eq!(stream(Some(1)).data(Bytes::from_static(b"ab"), 2, false), Err(Reason::Protocol));
        assert_eq!(stream(Some(3)).data(Bytes::from_static(b"ab"), 2, true), Err(Reason::Protocol));
        let mut short = stream(Some(3));
        assert_eq!(short.data(Bytes::from_static(b"ab"), 2, true), Err(Reason::Protocol));
        assert_eq!(short.forget_body(), 0, "what was refused is given back by who refused it");
        assert_eq!(stream(Some(3)).trailers(HeaderMap::new()), Err(Reason::Protocol));
    }

    #[test]
    fn no_more_is_taken_than_was_granted_and_more_is_granted_when_half_was_read() {
        let mut stream = stream(None);
        let half = Bytes::from(vec![0; WINDOW as usize / 2]);
        for _ in 0..2 {
            stream.data(half.clone(), WINDOW / 2, false).unwrap();
        }
        assert_eq!(stream.take_credit(), 0);
        stream.piece().unwrap();
        assert_eq!((stream.take_credit(), stream.take_credit()), (WINDOW / 2, 0));
        stream.data(half.clone(), WINDOW / 2, false).unwrap();
        assert_eq!(stream.data(half.slice(..1), 1, false), Err(Reason::FlowControl));
    }

    #[test]
    fn padding_and_what_nobody_wants_is_given_back_at_once() {
        let mut stream = stream(None);
        assert_eq!(stream.data(Bytes::from_static(b"ab"), 10, false), Ok(8));
        assert_eq!(stream.forget_body(), 2);
        assert_eq!(stream.data(Bytes::from_static(b"ab"), 10, false), Ok(10));
    }
}
