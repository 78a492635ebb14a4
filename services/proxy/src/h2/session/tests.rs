//! What RFC 9113 says a server does with frames, section by section: what is taken, what ends a stream, what ends the connection.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{
    super::{Lender, PACES, Pool, frame::PREFACE},
    *,
};
use crate::{
    address::{Client, Rates},
    door::{Door, Outer},
    h1::Limits,
};

const DATA: u8 = frame::DATA;
const PRIORITY: u8 = frame::PRIORITY;
const RST_STREAM: u8 = frame::RST_STREAM;
const SETTINGS: u8 = frame::SETTINGS;
const PING: u8 = frame::PING;
const GOAWAY: u8 = frame::GOAWAY;
const WINDOW_UPDATE: u8 = frame::WINDOW_UPDATE;
const CONTINUATION: u8 = frame::CONTINUATION;
const ACK: u8 = frame::ACK;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;
const OPEN: u8 = END_HEADERS;
const WHOLE: u8 = END_HEADERS | END_STREAM;

const STREAMS: usize = 4;
const HEAD_LIMIT: usize = 2000;

fn session() -> Session {
    Session::new(Terms {
        head: Limits { head_bytes: HEAD_LIMIT, fields: 20, target_bytes: 100 },
        streams: STREAMS,
        paces: PACES,
        taking: Duration::from_secs(60),
        lender: Some(Lender { pool: Arc::new(Pool::new(1, 2 * u64::from(ahead::BORROWED))), client: None }),
        culprit: None,
        counters: Arc::default(),
    })
}

/// A frame's bytes.
fn of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::head(payload.len(), kind, flags, stream)[..], payload].concat()
}

/// A section without tables and without the Huffman code.
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

const LINE: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "a.example")];

/// A request's section, and these fields after it.
fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    section(&[&LINE, fields].concat())
}

/// The frame that opens a stream and says all of a request.
fn get(stream: u32) -> Vec<u8> {
    of(HEADERS, WHOLE, stream, &request(&[]))
}

/// The frame that opens a stream whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    of(HEADERS, OPEN, stream, &request(&[]))
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    of(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    of(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    of(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// What becomes of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// They are taken, and the connection lives.
    Fine,
    /// This stream is reset.
    Stream(u32, Reason),
    /// The connection ends.
    Connection(Reason),
}
use End::{Connection, Fine};

fn code(number: u32) -> Reason {
    use Reason as R;
    let all = [
        R::None,
        R::Protocol,
        R::Internal,
        R::FlowControl,
        R::StreamClosed,
        R::FrameSize,
        R::RefusedStream,
        R::Cancel,
        R::Compression,
        R::EnhanceYourCalm,
    ];
    all.into_iter().find(|reason| *reason as u32 == number).unwrap()
}

/// What is ready to be written.
fn written(session: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !session.outbox.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); super::super::outbox::SLICES];
        let count = session.outbox.slices(&mut slices);
        let there: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.extend_from_slice(&there);
        session.outbox.advance(there.len());
    }
    bytes
}

fn frames(bytes: &[u8]) -> Vec<frame::Frame> {
    let mut bytes = BytesMut::from(bytes);
    std::iter::from_fn(|| frame::next(&mut bytes).unwrap()).collect()
}

/// A session that has read a client's first words.
fn begun() -> Session {
    let mut session = session();
    let first = [PREFACE, &of(SETTINGS, 0, 0, &[])].concat();
    session.receive(&mut BytesMut::from(&first[..]), &mut { usize::MAX }).unwrap();
    written(&mut session);
    session
}

/// Gives bytes to a session; of what is asked there, streams named are answered before more is taken.
fn end_of(session: &mut Session, pieces: &[&[u8]]) -> End {
    for piece in pieces {
        let mut bytes = BytesMut::from(*piece);
        if let Err(fatal) = session.receive(&mut bytes, &mut { usize::MAX }) {
            return Connection(fatal.reason);
        }
        while session.arrival().is_some() {}
    }
    let resets = frames(&written(session)).into_iter().filter(|frame| frame.kind == RST_STREAM);
    resets.map(|reset| End::Stream(reset.stream, code(reset.number().unwrap()))).next().unwrap_or(Fine)
}

/// Looks at what becomes of each, after a client's first words.
fn each(cases: &[(&str, &[&[u8]], End)]) {
    for (what, pieces, end) in cases {
        assert_eq!(end_of(&mut begun(), pieces), *end, "{what}");
    }
}

const FRAME_SIZE: End = Connection(Reason::FrameSize);
const PROTOCOL: End = Connection(Reason::Protocol);
const FLOW_CONTROL: End = Connection(Reason::FlowControl);
const fn stream_protocol(stream: u32) -> End {
    End::Stream(stream, Reason::Protocol)
}

#[test]
fn section_3_4_a_connection_begins_with_its_preface_and_settings() {
    for (what, bytes, end) in [
        ("both", [PREFACE, &of(SETTINGS, 0, 0, &[])].concat(), Fine),
        ("half of it, so far", PREFACE[..10].to_vec(), Fine),
        ("something else", b"GET / HTTP/1.1\r\n\r\n".to_vec(), PROTOCOL),
        ("half of it and something else", b"PRI * HTTP/2.0\r\n\r\nXX".to_vec(), PROTOCOL),
        ("no settings", [PREFACE, &of(PING, 0, 0, &[0; 8])].concat(), PROTOCOL),
        ("a request before settings", [PREFACE, &get(1)].concat(), PROTOCOL),
    ] {
        assert_eq!(end_of(&mut session(), &[&bytes]), end, "{what}");
    }
}

#[test]
fn what_is_granted_is_said_first_and_settings_are_acknowledged() {
    let mut session = session();
    let said = frames(&written(&mut session));
    let granted: Vec<_> = frame::settings(&said[0].payload).unwrap().collect();
    assert_eq!(granted, [(3, 4), (4, stream::WINDOW), (6, 2000), (8, 1)]);
    assert_eq!(said.len(), 1);
    end_of_bytes(&mut session, &[PREFACE, &of(SETTINGS, 0, 0, &[])].concat());
    let said = frames(&written(&mut session));
    assert!(matches!(&said[..], [ack] if ack.kind == SETTINGS && ack.is(ACK) && ack.payload.is_empty()));
}

fn end_of_bytes(session: &mut Session, bytes: &[u8]) {
    session.receive(&mut BytesMut::from(bytes), &mut { usize::MAX }).unwrap();
}

#[test]
fn sections_4_1_and_5_5_unknown_kinds_flags_and_settings_are_read_over() {
    each(&[
        ("an unknown kind", &[&of(0x16, 0xff, 0, b"?")], Fine),
        ("an unknown kind on a stream", &[&of(0x16, 0xff, 9, b"?")], Fine),
        ("unknown flags", &[&of(PING, 0xfe, 0, &[0; 8])], Fine),
        ("a reserved bit", &[&of(PING, 0, 0x8000_0000, &[0; 8])], Fine),
        ("an unknown setting", &[&setting(0xff, 1)], Fine),
        (
            "an unknown kind amid a section",
            &[&of(HEADERS, 0, 1, &request(&[])), &of(0x16, 0, 0, b"")],
            PROTOCOL,
        ),
    ]);
}

#[test]
fn section_4_2_frames_have_a_size() {
    each(&[
        ("the largest", &[&post(1), &of(DATA, 0, 1, &[0; 16_384])], Fine),
        ("data too large", &[&post(1), &of(DATA, 0, 1, &[0; 16_385])], FRAME_SIZE),
        ("headers too large", &[&of(HEADERS, OPEN, 1, &[0; 16_385])], FRAME_SIZE),
        ("settings too large", &[&of(SETTINGS, 0, 0, &[0; 16_386])], FRAME_SIZE),
    ]);
}

#[test]
fn section_4_3_a_header_block_is_read_whole_or_the_connection_ends() {
    each(&[
        ("no such entry", &[&of(HEADERS, WHOLE, 1, &[0xff])], Connection(Reason::Compression)),
        ("cut off", &[&of(HEADERS, WHOLE, 1, &[0x00, 0x05])], Connection(Reason::Compression)),
        ("another stream's", &[&of(HEADERS, 0, 1, &[]), &of(CONTINUATION, OPEN, 3, &[])], PROTOCOL),
        ("another frame between", &[&of(HEADERS, 0, 1, &[]), &of(PRIORITY, 0, 1, &[0; 5])], PROTOCOL),
    ]);
}

#[test]
fn section_5_1_what_an_idle_stream_takes() {
    each(&[
        ("data", &[&of(DATA, END_STREAM, 1, b"?")], PROTOCOL),
        ("a reset", &[&reset(1)], PROTOCOL),
        ("a window", &[&window(1, 100)], PROTOCOL),
        ("a continuation", &[&of(CONTINUATION, OPEN, 1, &request(&[]))], PROTOCOL),
        ("a priority", &[&of(PRIORITY, 0, 1, &[0, 0, 0, 9, 1])], Fine),
    ]);
}

#[test]
fn section_5_1_what_a_stream_takes_whose_client_has_ended_it() {
    let closed = End::Stream(1, Reason::StreamClosed);
    each(&[
        ("data", &[&get(1), &of(DATA, END_STREAM, 1, b"?")], closed),
        ("headers", &[&get(1), &get(1)], closed),
        ("a continuation", &[&get(1), &of(CONTINUATION, OPEN, 1, &[])], PROTOCOL),
        ("a window", &[&get(1), &window(1, 1)], Fine),
        ("a priority", &[&get(1), &of(PRIORITY, 0, 1, &[0, 0, 0, 9, 1])], Fine),
        ("a reset", &[&get(1), &reset(1)], Fine),
    ]);
}

#[test]
fn section_5_1_what_a_stream_takes_that_its_client_has_reset() {
    each(&[
        (
            "data",
            &[&post(1), &reset(1), &of(DATA, END_STREAM, 1, b"?")],
            End::Stream(1, Reason::StreamClosed),
        ),
        ("headers", &[&post(1), &reset(1), &get(1)], Connection(Reason::StreamClosed)),
        ("a window", &[&post(1), &reset(1), &window(1, 1)], Fine),
        ("a priority", &[&post(1), &reset(1), &of(PRIORITY, 0, 1, &[0, 0, 0, 9, 1])], Fine),
        ("a reset", &[&post(1), &reset(1), &reset(1)], Fine),
    ]);
}

#[test]
fn section_5_1_what_was_under_way_to_a_stream_that_was_answered_is_read_over() {
    let mut session = begun();
    assert_eq!(end_of(&mut session, &[&post(1)]), Fine);
    session.put_section(1, true, |_| {});
    session.finish(1);
    assert_eq!(end_of(&mut session, &[]), End::Stream(1, Reason::None), "it need not go on (§8.1)");
    let rest: [&[u8]; 3] =
        [&of(DATA, 0, 1, b"?"), &of(HEADERS, WHOLE, 1, &section(&[("x", "1")])), &reset(1)];
    assert_eq!(end_of(&mut session, &rest), Fine);
    // A stream that its client had ended is no such: nothing can be under way to it.
    let closed = Reason::StreamClosed;
    for (stream, frame, end) in
        [(3, of(DATA, 0, 3, b"?"), End::Stream(3, closed)), (5, get(5), Connection(closed))]
    {
        assert_eq!(end_of(&mut session, &[&get(stream)]), Fine);
        session.put_section(stream, true, |_| {});
        session.finish(stream);
        assert_eq!(end_of(&mut session, &[&frame]), end);
    }
}

#[test]
fn section_5_1_1_streams_have_odd_numbers_that_grow() {
    each(&[
        ("an even one", &[&get(2)], PROTOCOL),
        ("zero", &[&get(0)], PROTOCOL),
        ("some left out", &[&get(5), &get(9)], Fine),
        ("a smaller one", &[&get(5), &get(3)], Connection(Reason::StreamClosed)),
    ]);
}

#[test]
fn what_only_costs_is_taken_at_once_and_each_second_as_it_was_granted() {
    let mut session = session();
    let (start, second) = (clock::now_ms(), clock::now_ms() + 1_000);
    let most = |budget: &mut Budget, now| (0..=IDLE).take_while(|_| budget.spend(|| now)).count() as u32;
    for (budget, at_once, a_second) in [
        (&mut session.idle, IDLE, PACES.idle),
        (&mut session.errors, ERRORS, PACES.errors),
        (&mut session.resets, RESETS * STREAMS as u32, PACES.resets),
    ] {
        assert_eq!((most(budget, start), most(budget, second)), (at_once, a_second));
    }
}

#[test]
fn the_errors_of_a_client_count_together_on_all_its_connections() {
    let bounds = Outer { errors: Some(Rates::per_minute(3)), ..Outer::of(1) };
    let place = Door::outside(bounds, Arc::default(), CancellationToken::new()).admit().unwrap();
    let of = |client: &str| {
        let mut session = begun();
        session.terms.culprit = Some(place.culprit(Client::at(client.parse().unwrap())));
        end_of(&mut session, &[&get(1), &window(1, 0)])
    };
    for _ in 0..3 {
        assert_eq!(of("192.0.2.7"), stream_protocol(1));
    }
    assert_eq!(of("192.0.2.7"), Connection(Reason::EnhanceYourCalm));
    assert_eq!(of("192.0.2.8"), stream_protocol(1));
}

#[test]
fn section_5_1_2_no_more_streams_are_open_than_may_be() {
    let all: Vec<Vec<u8>> = (0..5).map(|number| get(2 * number + 1)).collect();
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    assert_eq!(end_of(&mut begun(), &all[..STREAMS]), Fine);
    let mut session = begun();
    assert_eq!(end_of(&mut session, &all), End::Stream(9, Reason::RefusedStream));
    assert_eq!(session.terms.counters.stopped[Stopped::Streams as usize].get(), 1);
    let (reset, next) = (reset(3), get(9));
    let replaced = [&all[..STREAMS], &[&reset[..], &next]].concat();
    assert_eq!(end_of(&mut begun(), &replaced), Fine);
}

#[test]
fn section_5_3_a_stream_does_not_depend_on_itself() {
    let itself = [&[0, 0, 0, 1, 9][..], &request(&[])].concat();
    let other = [&[0x80, 0, 0, 7, 9][..], &request(&[])].concat();
    each(&[
        ("headers", &[&of(HEADERS, WHOLE | WITH_PRIORITY, 1, &itself)], stream_protocol(1)),
        ("headers that depend on another", &[&of(HEADERS, WHOLE | WITH_PRIORITY, 1, &other)], Fine),
        ("a priority", &[&of(PRIORITY, 0, 1, &[0, 0, 0, 1, 9])], PROTOCOL),
        ("a priority of another size", &[&of(PRIORITY, 0, 1, &[0; 4])], FRAME_SIZE),
        ("a priority of no stream", &[&of(PRIORITY, 0, 0, &[0; 5])], PROTOCOL),
        ("headers too short for one", &[&of(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0; 4])], FRAME_SIZE),
    ]);
}

#[test]
fn section_6_1_data_is_of_a_stream_and_its_padding_no_longer_than_it() {
    each(&[
        ("of none", &[&of(DATA, 0, 0, b"?")], PROTOCOL),
        ("padded", &[&post(1), &of(DATA, PADDED, 1, &[1, b'x', 0])], Fine),
        ("nothing but padding", &[&post(1), &of(DATA, PADDED, 1, &[2, 0, 0])], Fine),
        ("padding too long", &[&post(1), &of(DATA, PADDED, 1, &[3, 0, 0])], PROTOCOL),
        ("no length of it", &[&post(1), &of(DATA, PADDED, 1, &[])], FRAME_SIZE),
    ]);
}

#[test]
fn sections_6_2_and_6_10_headers_are_of_a_stream_and_are_continued() {
    let whole = request(&[("x-a", "1")]);
    let (one, two) = whole.split_at(9);
    let padded = [&[2][..], &whole, &[0, 0]].concat();
    each(&[
        ("of none", &[&of(HEADERS, WHOLE, 0, &whole)], PROTOCOL),
        ("padded", &[&of(HEADERS, WHOLE | PADDED, 1, &padded)], Fine),
        ("padding too long", &[&of(HEADERS, WHOLE | PADDED, 1, &[9, 0])], PROTOCOL),
        ("continued", &[&of(HEADERS, END_STREAM, 1, one), &of(CONTINUATION, OPEN, 1, two)], Fine),
        (
            "continued by nothing",
            &[&of(HEADERS, END_STREAM, 1, &whole), &of(CONTINUATION, OPEN, 1, &[])],
            Fine,
        ),
        ("continued twice", &[&get(1), &of(CONTINUATION, OPEN, 1, &[])], PROTOCOL),
        ("continued on no stream", &[&of(HEADERS, 0, 1, one), &of(CONTINUATION, OPEN, 0, two)], PROTOCOL),
        ("another request amid it", &[&of(HEADERS, 0, 1, one), &get(3)], PROTOCOL),
    ]);
}

#[test]
fn section_6_4_a_reset_has_four_bytes_and_a_stream() {
    each(&[
        ("of none", &[&reset(0)], PROTOCOL),
        ("too short", &[&get(1), &of(RST_STREAM, 0, 1, &[0; 3])], FRAME_SIZE),
        ("of one that is open", &[&get(1), &reset(1)], Fine),
    ]);
}

#[test]
fn section_6_5_settings_are_of_the_connection_and_make_sense() {
    let flow = Connection(Reason::FlowControl);
    each(&[
        ("of a stream", &[&of(SETTINGS, 0, 1, &[])], PROTOCOL),
        ("acknowledged", &[&of(SETTINGS, ACK, 0, &[])], Fine),
        ("acknowledged with something", &[&of(SETTINGS, ACK, 0, &[0])], FRAME_SIZE),
        ("half a pair", &[&of(SETTINGS, 0, 0, &[0; 3])], FRAME_SIZE),
        ("push", &[&setting(frame::ENABLE_PUSH, 2)], PROTOCOL),
        ("no push", &[&setting(frame::ENABLE_PUSH, 0)], Fine),
        ("the largest window", &[&setting(frame::INITIAL_WINDOW_SIZE, 0x7fff_ffff)], Fine),
        ("a window too large", &[&setting(frame::INITIAL_WINDOW_SIZE, 0x8000_0000)], flow),
        ("frames too small", &[&setting(frame::MAX_FRAME_SIZE, 16_383)], PROTOCOL),
        ("frames too large", &[&setting(frame::MAX_FRAME_SIZE, 16_777_216)], PROTOCOL),
        ("the largest frames", &[&setting(frame::MAX_FRAME_SIZE, 16_777_215)], Fine),
    ]);
}

/// How often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_frame_of_thousands_of_windows_is_worked_off_as_one() {
    let (mut session, woken) = (begun(), Arc::new(Woken::default()));
    end_of_bytes(&mut session, &get(1));
    assert!(session.enter(1, &Context::from_waker(&Waker::from(Arc::clone(&woken)))));
    let pair = |window| setting(frame::INITIAL_WINDOW_SIZE, window).split_off(HEAD);
    let pairs = [pair(MOST).repeat(2000), pair(0), pair(7)].concat();
    end_of_bytes(&mut session, &of(SETTINGS, 0, 0, &pairs));
    assert_eq!((woken.0.load(Ordering::Relaxed), session.allowance(1, 100)), (1, 7));
    assert_eq!(end_of(&mut session, &[&setting(frame::INITIAL_WINDOW_SIZE, MOST + 1)]), FLOW_CONTROL);
}

#[test]
fn beside_an_open_stream_only_the_rest_of_a_header_section_is_owed_at_once() {
    let mut session = begun();
    let (data, headers) = (of(DATA, 0, 1, &[0; 20]), of(HEADERS, 0, 3, &request(&[])));
    assert!(session.is_amid(&data[..1]) && !session.is_amid(&[]));
    end_of_bytes(&mut session, &post(1));
    assert!(!session.is_amid(&data[..20]) && session.is_amid(&headers[..20]));
    end_of_bytes(&mut session, &headers);
    assert!(session.is_amid(&[]), "its frame is whole, the section is not");
    end_of_bytes(&mut session, &of(CONTINUATION, OPEN, 3, &[]));
    assert!(!session.is_amid(&[]));
    session.put_data(1, Bytes::from(vec![0; ENOUGH]), false);
    assert!(!session.is_amid(&headers[..20]), "more may have come than was taken");
}

#[test]
fn sections_6_6_to_6_8_pushes_pings_and_farewells() {
    each(&[
        ("a promise", &[&get(1), &of(frame::PUSH_PROMISE, OPEN, 1, &[0, 0, 0, 2])], PROTOCOL),
        ("a ping of a stream", &[&of(PING, 0, 1, &[0; 8])], PROTOCOL),
        ("a ping too short", &[&of(PING, 0, 0, &[0; 7])], FRAME_SIZE),
        ("a ping that answers nothing", &[&of(PING, ACK, 0, &[0; 8])], Fine),
        ("a farewell", &[&of(GOAWAY, 0, 0, &[0; 8]), &get(1)], Fine),
        ("a farewell of a stream", &[&of(GOAWAY, 0, 1, &[0; 8])], PROTOCOL),
        ("a farewell too short", &[&of(GOAWAY, 0, 0, &[0; 7])], FRAME_SIZE),
    ]);
    let mut session = begun();
    end_of_bytes(&mut session, &of(PING, 0, 0, b"whothere"));
    let said = frames(&written(&mut session));
    assert!(matches!(&said[..], [pong] if pong.is(ACK) && pong.payload == "whothere"));
}

#[test]
fn section_6_9_windows_are_widened_by_something_and_not_too_much() {
    let flow = |stream| End::Stream(stream, Reason::FlowControl);
    each(&[
        ("the connection's, by nothing", &[&window(0, 0)], PROTOCOL),
        ("a stream's, by nothing", &[&get(1), &window(1, 0)], stream_protocol(1)),
        ("the connection's, too far", &[&window(0, MOST), &window(0, MOST)], Connection(Reason::FlowControl)),
        ("a stream's, too far", &[&get(1), &window(1, MOST)], flow(1)),
        (
            "all streams', too far",
            &[
                &get(1),
                &window(1, MOST - DEFAULT_WINDOW),
                &setting(frame::INITIAL_WINDOW_SIZE, DEFAULT_WINDOW + 1),
            ],
            Connection(Reason::FlowControl),
        ),
        ("by another size", &[&of(WINDOW_UPDATE, 0, 0, &[0; 3])], FRAME_SIZE),
    ]);
}

const MOST: u32 = 0x7fff_ffff;

#[test]
fn section_6_9_no_more_is_taken_than_was_granted() {
    let piece = of(DATA, 0, 1, &[0; 16_384]);
    let taken = (stream::WINDOW / 16_384) as usize;
    let open = post(1);
    let all = [&[&open[..]], &vec![&piece[..]; taken][..]].concat();
    assert_eq!(end_of(&mut begun(), &all), Fine);
    let more = [&all[..], &[&piece[..]]].concat();
    assert_eq!(end_of(&mut begun(), &more), End::Stream(1, Reason::FlowControl));
    let streams: Vec<Vec<u8>> =
        (0..4).flat_map(|n| [post(2 * n + 1), of(DATA, 0, 2 * n + 1, &[0; 16_384]).repeat(taken)]).collect();
    let all: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
    let mut session = begun();
    assert_eq!(end_of(&mut session, &all), Fine);
    assert_eq!(end_of(&mut session, &[&piece]), Connection(Reason::FlowControl));
}

#[test]
fn section_6_9_2_what_is_sent_keeps_to_windows_that_shrink() {
    let mut session = begun();
    end_of_bytes(&mut session, &[setting(frame::INITIAL_WINDOW_SIZE, 5), get(1)].concat());
    assert_eq!(session.allowance(1, 9), 5);
    session.put_data(1, Bytes::from_static(b"abc"), false);
    assert_eq!(session.allowance(1, 9), 2);
    end_of_bytes(&mut session, &setting(frame::INITIAL_WINDOW_SIZE, 2));
    assert_eq!(session.allowance(1, 9), 0, "it is below nothing now");
    end_of_bytes(&mut session, &window(1, 2));
    assert_eq!(session.allowance(1, 9), 1);
    end_of_bytes(&mut session, &window(1, 100_000));
    let all: usize = std::iter::from_fn(|| {
        let allowed = session.allowance(1, 100_000);
        session.put_data(1, vec![0; allowed].into(), false);
        written(&mut session);
        Some(allowed).filter(|allowed| *allowed > 0)
    })
    .sum();
    assert_eq!(all as u32, DEFAULT_WINDOW - 3, "all streams together have a window");
}

#[test]
fn section_7_a_code_that_nobody_knows_is_a_code() {
    let unknown = 0xdead_beef_u32.to_be_bytes();
    let farewell = of(GOAWAY, 0, 0, &[&[0; 4], &unknown[..]].concat());
    each(&[
        ("of a reset", &[&get(1), &of(RST_STREAM, 0, 1, &unknown), &get(3)], Fine),
        ("of a farewell", &[&farewell, &get(1)], Fine),
    ]);
}

#[test]
fn section_8_1_a_request_is_headers_data_and_at_most_trailers() {
    let trailers = section(&[("x-a", "1")]);
    each(&[
        ("trailers", &[&post(1), &of(DATA, 0, 1, b"x"), &of(HEADERS, WHOLE, 1, &trailers)], Fine),
        ("headers that don't end it", &[&post(1), &of(HEADERS, OPEN, 1, &trailers)], stream_protocol(1)),
        (
            "trailers with a pseudo field",
            &[&post(1), &of(HEADERS, WHOLE, 1, &section(&LINE))],
            stream_protocol(1),
        ),
        (
            "a length that is right",
            &[&of(HEADERS, OPEN, 1, &request(&[("content-length", "1")])), &of(DATA, END_STREAM, 1, b"x")],
            Fine,
        ),
        (
            "more than its length",
            &[&of(HEADERS, OPEN, 1, &request(&[("content-length", "1")])), &of(DATA, END_STREAM, 1, b"xy")],
            stream_protocol(1),
        ),
        (
            "less than its length",
            &[
                &of(HEADERS, OPEN, 1, &request(&[("content-length", "2")])),
                &of(DATA, 0, 1, b"x"),
                &of(DATA, END_STREAM, 1, b""),
            ],
            stream_protocol(1),
        ),
        (
            "a length and nothing",
            &[&of(HEADERS, WHOLE, 1, &request(&[("content-length", "1")]))],
            stream_protocol(1),
        ),
        (
            "two lengths",
            &[&of(HEADERS, OPEN, 1, &request(&[("content-length", "1"); 2]))],
            stream_protocol(1),
        ),
    ]);
}

#[test]
fn section_8_2_fields_are_small_letters_and_not_about_the_connection() {
    for field in [
        ("X-Upper", "1"),
        ("x a", "1"),
        ("x-a", " 1"),
        ("x-a", "1\r\nx-b: 2"),
        ("x-a", "1\0"),
        ("connection", "keep-alive"),
        ("keep-alive", "1"),
        ("proxy-connection", "1"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        (":path", "/again"),
        (":unknown", "1"),
        (":status", "200"),
    ] {
        let end = end_of(&mut begun(), &[&of(HEADERS, WHOLE, 1, &request(&[field]))]);
        assert_eq!(end, stream_protocol(1), "{field:?}");
    }
    let end = end_of(&mut begun(), &[&of(HEADERS, WHOLE, 1, &request(&[("te", "trailers")]))]);
    assert_eq!(end, Fine);
}

#[test]
fn section_8_3_a_request_has_its_pseudo_fields_once_and_first() {
    for left_out in [0, 1, 2] {
        let mut line = LINE.to_vec();
        line.remove(left_out);
        let end = end_of(&mut begun(), &[&of(HEADERS, WHOLE, 1, &section(&line))]);
        assert_eq!(end, stream_protocol(1), "without {:?}", LINE[left_out]);
    }
    for twice in LINE {
        let line = [&LINE[..], &[twice]].concat();
        let end = end_of(&mut begun(), &[&of(HEADERS, WHOLE, 1, &section(&line))]);
        assert_eq!(end, stream_protocol(1), "twice {twice:?}");
    }
    let late = [&LINE[..3], &[("x", "1")], &LINE[3..]].concat();
    assert_eq!(end_of(&mut begun(), &[&of(HEADERS, WHOLE, 1, &section(&late))]), stream_protocol(1));
}

#[test]
fn a_section_that_is_too_large_is_refused_and_one_without_end_ends_the_connection() {
    let large = request(&[("x", "y".repeat(120).as_str()); 16]); // 16 of 153 bytes each
    let mut session = begun();
    end_of_bytes(&mut session, &of(HEADERS, WHOLE, 1, &large));
    assert_eq!(session.arrival().unwrap().asked.unwrap_err(), Malformed::TooLarge);
    assert_eq!(end_of(&mut session, &[&get(3)]), Fine, "its table is whole");
    let calm = Connection(Reason::EnhanceYourCalm);
    let more = of(CONTINUATION, 0, 1, &large);
    let open = of(HEADERS, 0, 1, &large);
    for (piece, times) in [(more, 9), (of(CONTINUATION, 0, 1, &[]), 99)] {
        let endless = [&[&open[..]], &vec![&piece[..]; times][..]].concat();
        assert_eq!(end_of(&mut begun(), &endless), calm);
    }
}

#[test]
fn a_client_that_has_a_body_sent_byte_by_byte_is_sent_away() {
    let mut session = begun();
    end_of_bytes(&mut session, &[setting(frame::INITIAL_WINDOW_SIZE, 0), get(1)].concat());
    let taken = (0..50_000).map_while(|_| {
        let taken = session.receive(&mut BytesMut::from(&window(1, 1)[..]), &mut { usize::MAX });
        session.put_data(1, Bytes::from_static(b"x"), false);
        written(&mut session);
        taken.ok()
    });
    assert!((10_000..11_000).contains(&taken.count()));
}

#[test]
fn a_request_that_was_taken_back_is_never_seen() {
    let mut session = begun();
    end_of_bytes(&mut session, &[get(1), get(3), reset(1)].concat());
    assert_eq!((session.arrivals.len(), session.streams.len(), session.open), (1, 1, 1));
    assert_eq!(session.arrival().map(|arrival| arrival.stream), Some(3));
    assert!(session.arrival().is_none());
}

#[test]
fn a_connection_that_winds_up_serves_what_comes_before_its_client_has_heard() {
    let mut session = begun();
    session.wind_up();
    session.wind_up();
    let said = frames(&written(&mut session));
    let [farewell, ping] = &said[..] else { panic!("{said:?}") };
    assert_eq!((farewell.kind, &farewell.payload[..4]), (GOAWAY, &MOST.to_be_bytes()[..]));
    end_of_bytes(&mut session, &get(1));
    assert!(session.arrival().is_some() && !session.is_over());
    end_of_bytes(&mut session, &[of(PING, ACK, 0, &ping.payload), get(3)].concat());
    assert!(session.arrival().is_none(), "it came after the client had heard");
    assert_eq!(frames(&written(&mut session))[0].payload[..4], 1u32.to_be_bytes());
    assert!(!session.is_over());
    session.finish(1);
    assert!(session.is_over());
    let late: Vec<u8> = (2..=IDLE + 2).flat_map(|number| get(2 * number + 1)).collect();
    assert_eq!(end_of(&mut session, &[&late]), Connection(Reason::EnhanceYourCalm));
}

#[test]
fn a_large_section_of_ours_is_continued() {
    let mut session = begun();
    end_of_bytes(&mut session, &get(1));
    let name = http::HeaderName::from_static("x-large");
    let value = vec![b'x'; 40_000];
    session.put_section(1, true, |block| encode::put_field(block, &name, &value));
    let said = frames(&written(&mut session));
    let kinds: Vec<_> = said.iter().map(|frame| (frame.kind, frame.flags)).collect();
    assert_eq!(kinds[0], (HEADERS, END_STREAM));
    assert_eq!(kinds.last(), Some(&(CONTINUATION, END_HEADERS)));
    let block: Vec<u8> = said.iter().flat_map(|frame| frame.payload.to_vec()).collect();
    let mut fields = 0;
    Decoder::default()
        .decode(&block, |_| {
            fields += 1;
            true
        })
        .unwrap();
    assert_eq!(fields, 1);
}

#[test]
fn those_who_wait_for_room_are_called_in_turn() {
    let mut session = begun();
    end_of_bytes(&mut session, &[get(1), get(3)].concat());
    session.outbox.push(vec![0; ENOUGH].into());
    assert!(!session.room(3) && !session.room(3) && !session.room(1));
    assert_eq!(session.line, [3, 1]);
    assert!(!session.call(), "there is no room");
    session.outbox.advance(ENOUGH);
    assert!(session.call() && session.line.is_empty() && session.room(1));
}

#[test]
fn a_body_is_read_as_it_comes_and_its_windows_are_given_back() {
    let mut session = begun();
    let half = stream::WINDOW / 2;
    let body = of(DATA, 0, 1, &[0; 16_384]).repeat(half as usize / 16_384);
    end_of_bytes(&mut session, &[post(1), body].concat());
    let cx = &Context::from_waker(Waker::noop());
    let mut read = 0;
    while let Poll::Ready(Some(Ok(frame))) = session.poll_body(1, cx) {
        read += frame.into_data().unwrap().len();
    }
    assert_eq!(read as u32, half);
    let said = frames(&written(&mut session));
    let windows: Vec<_> = said.iter().map(|said| (said.stream, said.number().unwrap())).collect();
    assert_eq!(windows, [(0, ahead::BORROWED - ahead::OWN), (1, half)], "and it borrows");
    end_of_bytes(&mut session, &of(HEADERS, WHOLE, 1, &section(&[("x-a", "1")])));
    let Poll::Ready(Some(Ok(trailers))) = session.poll_body(1, cx) else { panic!("no trailers") };
    assert_eq!(trailers.into_trailers().unwrap()["x-a"], "1");
    assert!(matches!(session.poll_body(1, cx), Poll::Ready(None)));
}

#[test]
fn a_client_that_waits_to_hear_that_its_body_is_wanted_hears_it_once() {
    let mut session = begun();
    end_of_bytes(&mut session, &post(1));
    session.expects(1);
    let cx = &Context::from_waker(Waker::noop());
    assert!(session.poll_body(1, cx).is_pending() && session.poll_body(1, cx).is_pending());
    let said = frames(&written(&mut session));
    let [go_on] = &said[..] else { panic!("{said:?}") };
    assert!(go_on.kind == HEADERS && !go_on.is(END_STREAM) && go_on.payload.ends_with(b"\x03100"));
}

#[test]
fn nobody_waits_for_a_stream_whose_connection_has_ended() {
    let mut session = begun();
    end_of_bytes(&mut session, &post(1));
    session.close();
    let cx = &Context::from_waker(Waker::noop());
    assert!(matches!(session.poll_body(1, cx), Poll::Ready(Some(Err(Broken::Gone)))));
    assert!(!session.enter(1, cx));
}

#[test]
fn nothing_is_kept_of_what_was_asked_on_a_connection_that_has_ended() {
    let mut session = begun();
    end_of_bytes(&mut session, &[post(1), of(DATA, END_STREAM, 1, b"body"), get(3)].concat());
    assert_eq!(session.unread(1), Some(4));
    session.close();
    assert!(session.arrival().is_none());
    assert_eq!(session.unread(1), Some(0));
    assert!(!session.is_read(1), "what was cut off is not taken for a whole body");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut session = begun();
        let _ = session.receive(&mut BytesMut::from(&bytes[..]), &mut { usize::MAX });
    }

    /// Frames of all kinds, of few streams, with what looks like their payloads.
    #[test]
    fn what_frames_do_does_not_depend_on_where_they_are_cut(
        pieces in prop::collection::vec((0u8..11, any::<u8>(), 0u32..8, 0usize..30), 1..20),
        cut in 1usize..40,
    ) {
        let block = request(&[]);
        let bytes: Vec<u8> = pieces
            .iter()
            .flat_map(|(kind, flags, stream, length)| match kind {
                1 => of(1, flags & 5, *stream, &block),
                10 => setting(u16::from(*flags % 7), *stream * 20_000),
                _ => of(*kind, *flags, *stream, &vec![1; *length]),
            })
            .collect();
        let (mut one, mut many) = (begun(), begun());
        let at_once = one.receive(&mut BytesMut::from(&bytes[..]), &mut { usize::MAX }).map_err(|fatal| fatal.reason);
        let mut left = BytesMut::new();
        let mut in_parts = Ok(());
        for part in bytes.chunks(cut) {
            left.extend_from_slice(part);
            in_parts = in_parts.and_then(|()| many.receive(&mut left, &mut { usize::MAX }));
        }
        prop_assert_eq!(at_once, in_parts.map_err(|fatal| fatal.reason));
        prop_assert_eq!(written(&mut one), written(&mut many));
        prop_assert_eq!(one.open, one.streams.values().filter(|stream| !stream.reset).count());
    }
}
