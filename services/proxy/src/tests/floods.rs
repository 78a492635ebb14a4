//! HTTP/2 clients that send what costs them little and a server much. Each is sent away once it has gone past what an honest
//! client does, or costs no more than reading it; and others are served meanwhile.

use super::*;
use crate::counters::Stopped;

/// The client's first words (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET` or `POST https://HOST/public/a`, in HPACK without its tables.
pub(super) fn head(method: u8) -> Vec<u8> {
    let literal =
        |index: u8, value: &str| [&[index, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    [vec![method, 0x87], literal(0x01, HOST), literal(0x04, "/public/a")].concat()
}

pub(super) const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// The stream that a client opens as its nth.
fn nth(number: u32) -> u32 {
    2 * number + 1
}

/// What became of who floods.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The connection was closed with an error (RFC 9113 §7), or at once while more was sent.
    SentAway,
    /// All of it was read, and the connection lives.
    Endured,
}

/// Sends so many pieces and reads meanwhile.
async fn flood(hub: &Hub, start: Vec<u8>, pieces: u32, piece: impl Fn(u32) -> Vec<u8>) -> End {
    let stream = hub.connect(&[b"h2"], HOST).await;
    let (mut from, mut to) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        let _ = from.read_to_end(&mut read).await; // it may be cut off
        read
    });
    let preface = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), start].concat();
    let mut whole = patient(to.write_all(&preface)).await.is_ok();
    for number in 0..pieces {
        whole = whole && patient(to.write_all(&piece(number))).await.is_ok();
    }
    // Only a connection that still lives answers this.
    whole = whole && patient(to.write_all(&frame(PING, 0, 0, b"are you?"))).await.is_ok();
    let _ = patient(to.flush()).await;
    let _ = patient(to.shutdown()).await;
    let read = patient(reading).await.unwrap();
    let lives = whole && read.windows(8).any(|bytes| bytes == b"are you?");
    if lives && !is_sent_away(&read) { End::Endured } else { End::SentAway }
}

/// Whether these frames say that the connection ends with an error.
fn is_sent_away(mut frames: &[u8]) -> bool {
    while let [a, b, c, kind, rest @ ..] = frames {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        let Some(payload) = rest.get(5..5 + length) else { return false };
        if *kind == GOAWAY && payload.get(4..8) != Some(&[0; 4]) {
            return true;
        }
        frames = &rest[5 + length..];
    }
    false
}

async fn hub() -> (Hub, Backend) {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    (hub, backend)
}

/// Another client is served.
async fn is_well(hub: &Hub) {
    let other = hub.ask("GET /public/a HTTP/1.1\r\nHost: nobody.yesterday.localhost\r\n\r\n").await;
    assert_eq!(other.status(), 404);
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once() {
    let (hub, _backend) = hub().await;
    let piece = |number| {
        let open = frame(HEADERS, END_HEADERS | END_STREAM, nth(number), &head(GET));
        [open, frame(RST_STREAM, 0, nth(number), &[0, 0, 0, 8])].concat()
    };
    // All of it at once, so that no reset stream is forgotten before the next one comes.
    let burst = (0..1000).flat_map(piece).collect();
    assert_eq!(flood(&hub, burst, 0, |_| Vec::new()).await, End::SentAway);
    is_well(&hub).await;
}

#[tokio::test]
async fn streams_that_the_server_is_made_to_reset() {
    let (hub, _backend) = hub().await;
    let piece = |number| {
        let open = frame(HEADERS, END_HEADERS | END_STREAM, nth(number), &head(POST));
        [open, frame(DATA, 0, nth(number), b"more")].concat() // after its end: an error of the stream
    };
    assert_eq!(flood(&hub, Vec::new(), 5000, piece).await, End::SentAway);
    is_well(&hub).await;
}

/// A field of so many bytes.
fn field(bytes: u8) -> Vec<u8> {
    [&[0x00, 1, b'x', bytes][..], &vec![b'y'; bytes.into()]].concat()
}

#[tokio::test]
async fn a_header_section_that_never_ends() {
    for piece in [field(100).repeat(100), Vec::new()] {
        let (hub, _backend) = hub().await;
        let start = frame(HEADERS, 0, 1, &head(GET));
        assert_eq!(flood(&hub, start, 5000, |_| frame(CONTINUATION, 0, 1, &piece)).await, End::SentAway);
        is_well(&hub).await;
    }
}

#[tokio::test]
async fn a_header_section_that_is_too_large_is_refused_and_its_connection_only_after_many() {
    let (hub, _backend) = hub().await;
    let large = |number| {
        let first = frame(HEADERS, END_STREAM, nth(number), &[head(GET), field(126).repeat(110)].concat());
        let more = |flags| frame(CONTINUATION, flags, nth(number), &field(126).repeat(120));
        [first, more(0), more(END_HEADERS)].concat()
    };
    assert_eq!(flood(&hub, Vec::new(), 1, large).await, End::Endured);
    assert_eq!(flood(&hub, Vec::new(), 1000, large).await, End::SentAway);
    is_well(&hub).await;
    assert_eq!(flood(&hub, Vec::new(), 50, large).await, End::SentAway, "who comes again is known");
    let good = |number| frame(HEADERS, END_HEADERS | END_STREAM, nth(number), &head(GET));
    assert_eq!(
        flood(&hub, Vec::new(), 50, good).await,
        End::Endured,
        "what is no error is none of anybody's"
    );
}

#[tokio::test]
async fn a_header_section_that_stays_half_beside_an_open_stream() {
    let (hub, backend) = hub().await;
    let mut client = Peer::new(hub.connect(&[b"h2"], HOST).await);
    let begin = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    let open = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(GET));
    patient(client.stream.write_all(&[begin, open.clone()].concat())).await.unwrap();
    let mut app = backend.accept().await;
    app.head().await;
    let ping = frame(PING, 0, 0, b"half of?");
    patient(client.stream.write_all(&[&ping, &open[..20]].concat())).await.unwrap();
    while !client.read.windows(8).any(|bytes| bytes == b"half of?") {
        assert!(client.fill().await, "sent away at once");
    }
    pass(calm().header_ms + 1).await;
    while client.fill().await {}
    assert_eq!(hub.proxy.counters.stopped[Stopped::SlowHeader as usize].get(), 1);
    is_well(&hub).await;
}

#[tokio::test]
async fn frames_that_ask_for_nothing() {
    let (hub, _backend) = hub().await;
    for (kind, payload) in [(PING, &[7; 8][..]), (SETTINGS, &[]), (WINDOW_UPDATE, &[0, 0, 0, 1]), (99, b"?")]
    {
        let piece = |_| frame(kind, 0, 0, payload).repeat(100);
        assert_eq!(flood(&hub, Vec::new(), 80, piece).await, End::Endured, "{kind}");
        assert_eq!(flood(&hub, Vec::new(), 2000, piece).await, End::SentAway, "{kind}");
    }
    let told = metrics::text(&hub.publish.borrow(), &hub.proxy.counters);
    for why in ["ping", "settings", "window", "unknown"] {
        let counted = format!("nexushub_proxy_h2_calmed_total{{why=\"{why}\"}} 1");
        assert!(told.lines().any(|line| line == counted), "{why}");
    }
    is_well(&hub).await;
}

#[tokio::test]
async fn a_body_of_nothing_is_read_or_its_client_sent_away() {
    let (hub, backend) = hub().await;
    let start = frame(HEADERS, END_HEADERS, 1, &head(POST));
    let flooding = flood(&hub, start, 2000, |_| frame(DATA, 0, 1, &[]).repeat(10));
    let (_, mut app) = tokio::join!(flooding, backend.accept());
    app.head().await;
    assert!(!app.rest().await.ends_with("0\r\n\r\n"), "the app hears no end of it");
    is_well(&hub).await;
}
