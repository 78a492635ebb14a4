//! Doors for the fuzzer into HTTP/2, whose promises `fuzzing.rs` of the proxy tells: what a client says, without its connection.

use std::{
    collections::VecDeque,
    io::IoSlice,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use http::{HeaderMap, request};

use super::{
    PACES, Reason, Terms,
    frame::{self, PREFACE, SETTINGS},
    hpack::{Decoder, Said, encode},
    outbox::SLICES,
    session::{Session, Shared},
};
use crate::h1::Limits;

/// Requests at once.
const STREAMS: usize = 8;

/// A request as it was read.
pub(crate) struct Asked {
    pub(crate) parts: request::Parts,
    pub(crate) has_body: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Its body has ended.
    pub(crate) whole: bool,
}

/// What was heard of a client.
pub(crate) struct Heard {
    /// Why its connection ended, if it did.
    pub(crate) ended: Option<Reason>,
    /// What was said to it.
    pub(crate) said: Vec<u8>,
    pub(crate) asked: Vec<Asked>,
}

/// Hears a client whose bytes, after its first words, come in these pieces.
pub(crate) fn hear(pieces: &[&[u8]], limits: Limits) -> Heard {
    let terms = Terms {
        head: limits,
        streams: STREAMS,
        paces: PACES,
        taking: Duration::MAX,
        lender: None,
        culprit: None,
        counters: Arc::default(),
    };
    let shared = Shared::new(terms);
    let mut session = shared.lock();
    let mut first = BytesMut::from(PREFACE);
    frame::put(&mut first, SETTINGS, 0, 0, &[]);
    let (mut bytes, mut said, mut ended) = (BytesMut::new(), Vec::new(), None);
    let mut pieces: VecDeque<&[u8]> = pieces.iter().copied().collect();
    pieces.push_front(&first);
    while let Some(piece) = pieces.pop_front()
        && ended.is_none()
    {
        bytes.extend_from_slice(piece);
        ended = loop {
            let heard = session.receive(&mut bytes, &mut { usize::MAX });
            let full = session.is_full();
            write(&mut session, &mut said);
            match heard {
                Err(fatal) => break Some(fatal.reason),
                Ok(()) if !full => break None,
                Ok(()) => {}
            }
        };
    }
    Heard { ended, said, asked: asked(&mut session) }
}

fn write(session: &mut Session, to: &mut Vec<u8>) {
    while !session.outbox().is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let before = to.len();
        let count = session.outbox().slices(&mut slices);
        slices[..count].iter().for_each(|slice| to.extend_from_slice(slice));
        session.outbox().advance(to.len() - before);
    }
}

fn asked(session: &mut Session) -> Vec<Asked> {
    let cx = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    while let Some(arrival) = session.arrival() {
        let Ok(parts) = arrival.asked else { continue };
        let mut asked = Asked {
            parts,
            has_body: arrival.has_body,
            data: Vec::new(),
            trailers: None,
            whole: !arrival.has_body,
        };
        while let Poll::Ready(Some(Ok(frame))) = session.poll_body(arrival.stream, &cx) {
            match frame.into_data() {
                Ok(data) => asked.data.extend_from_slice(&data),
                Err(frame) => asked.trailers = frame.into_trailers().ok(),
            }
        }
        asked.whole |= matches!(session.poll_body(arrival.stream, &cx), Poll::Ready(None));
        all.push(asked);
    }
    all
}

/// A header block: its fields, written again, are the same.
pub(crate) fn block(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut fields = Vec::new();
        Decoder::default()
            .decode(bytes, |field| {
                fields.push(field.said);
                true
            })
            .map(|()| fields)
    };
    let Ok(mut fields) = read(bytes) else { return };
    fields.retain(|said| matches!(said, Said::Field(..)));
    let mut again = BytesMut::new();
    for said in &fields {
        if let Said::Field(name, value) = said {
            encode::put_field(&mut again, name, value.as_bytes());
        }
    }
    assert_eq!(read(&again), Ok(fields));
}
