//! What apps answer, well or badly.

use super::*;

/// What has to become of an app's answer.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// The client gets this status and this body.
    Given(u16, &'static str),
    /// The client gets a 502 in its place.
    Bad,
    /// The client gets its head and part of its body, and no end of it.
    Broken,
}
use Outcome::*;

/// The clause, what it is about, the method asked with, what the app answers before it closes, and the outcome.
type Answered = (&'static str, &'static str, &'static str, &'static str, Outcome);

const ANSWERS: &[Answered] = &[
    ("9112 §4", "a plain answer", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Given(200, "ok")),
    ("9112 §4", "no reason", "GET", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Given(200, "ok")),
    (
        "9112 §4",
        "a reason of many words",
        "GET",
        "HTTP/1.1 200 It went well\r\nContent-Length: 2\r\n\r\nok",
        Given(200, "ok"),
    ),
    (
        "9110 §15",
        "a status that nobody knows",
        "GET",
        "HTTP/1.1 299 x\r\nContent-Length: 2\r\n\r\nok",
        Given(299, "ok"),
    ),
    (
        "9112 §2.3",
        "an answer of HTTP/1.0",
        "GET",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Given(200, "ok"),
    ),
    ("9112 §6.3", "an answer that the close delimits", "GET", "HTTP/1.1 200 OK\r\n\r\nok", Given(200, "ok")),
    (
        "9112 §7.1",
        "an answer in chunks",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x\r\nk\r\n0\r\n\r\n",
        Given(200, "ok"),
    ),
    (
        "9110 §9.3.2",
        "the answer to HEAD has no body",
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        Given(200, ""),
    ),
    (
        "9110 §9.3.2",
        "not even in chunks",
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        Given(200, ""),
    ),
    ("9110 §15.3.5", "204 has no body", "GET", "HTTP/1.1 204 No Content\r\n\r\n", Given(204, "")),
    (
        "9110 §15.3.5",
        "204 has no body, whatever it says",
        "GET",
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        Given(204, ""),
    ),
    (
        "9110 §15.4.5",
        "304 has no body, whatever it says",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
        Given(304, ""),
    ),
    (
        "9110 §15.2",
        "an interim answer is none",
        "GET",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Given(200, "ok"),
    ),
    (
        "9110 §15.2",
        "several interim answers are none",
        "GET",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Given(200, "ok"),
    ),
    (
        "9112 §6.3",
        "more than the length is nobody's",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        Given(200, "ok"),
    ),
    ("9112 §6.3", "less than the length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Broken),
    (
        "9112 §8",
        "chunks without an end",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        Broken,
    ),
    (
        "9112 §7.1",
        "a chunk that is none",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nx\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "9112 §7.1",
        "a chunk with a bare LF",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\nno\r\n0\r\n\r\n",
        Broken,
    ),
    ("9112 §2.1", "nothing", "GET", "", Bad),
    ("9112 §2.1", "garbage", "GET", "hello\r\n\r\n", Bad),
    ("9112 §2.1", "half a head", "GET", "HTTP/1.1 200 OK\r\nContent-Le", Bad),
    ("9112 §2.1", "a request", "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", Bad),
    ("9112 §2.2", "an empty line first", "GET", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
    ("9112 §2.2", "bare LFs", "GET", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Bad),
    ("9112 §2.2", "one bare LF", "GET", "HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok", Bad),
    ("9112 §2.3", "HTTP/2", "GET", "HTTP/2 200\r\nContent-Length: 2\r\n\r\nok", Bad),
    ("9112 §2.3", "HTTP/3.7", "GET", "HTTP/3.7 200 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
    ("9110 §15", "a status of two digits", "GET", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
    ("9110 §15", "a status of four digits", "GET", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
    ("9110 §15", "status 0", "GET", "HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
    ("9110 §15", "a status of letters", "GET", "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok", Bad),
    ("9112 §5.1", "a space before a colon", "GET", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Bad),
    (
        "9112 §5.2",
        "a folded value",
        "GET",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        Bad,
    ),
    (
        "9110 §5.5",
        "a NUL in a value",
        "GET",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        Bad,
    ),
    (
        "9112 §6.3",
        "two lengths",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        Bad,
    ),
    (
        "9112 §6.3",
        "the same length twice",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        Bad,
    ),
    ("9112 §6.3", "a list of lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Bad),
    ("9110 §8.6", "a length that is none", "GET", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Bad),
    (
        "9112 §6.1",
        "both lengths",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Bad,
    ),
    (
        "9112 §6.1",
        "a coding that isn't known",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Bad,
    ),
    (
        "9112 §6.1",
        "chunks in HTTP/1.0",
        "GET",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Bad,
    ),
    (
        "9110 §15.2.2",
        "a change of protocol that nobody asked for",
        "GET",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        Bad,
    ),
];

#[tokio::test]
async fn answers_have_one_form() {
    let bench = Bench::start().await;
    for case in ANSWERS {
        let (_, _, method, answer, outcome) = *case;
        let mut client = bench.hub.client().await;
        client.write(&format!("{method} /public/a HTTP/1.1\r\n{HOST_LINE}Connection: close\r\n\r\n")).await;
        let mut app = bench.backend.accept().await;
        app.head().await;
        app.write(answer).await;
        drop(app);
        let got = client.rest().await;
        let (head, rest) = got.split_once("\r\n\r\n").unwrap_or((&got, ""));
        match outcome {
            Bad => assert_eq!(statuses(&got), [502], "{case:?} -> {got}"),
            Broken => {
                assert_eq!(statuses(&got), [200], "{case:?} -> {got}");
                assert!(!rest.ends_with("0\r\n\r\n"), "{case:?}: made whole");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                assert!(length.is_none_or(|length| length != rest.len().to_string()), "{case:?}: made whole");
            }
            Given(status, body) => {
                assert_eq!(statuses(&got), [status], "{case:?} -> {got}");
                let chunked = head.contains("transfer-encoding: chunked");
                let rest = if chunked { dechunk(rest) } else { rest.to_owned() };
                assert_eq!(rest, body, "{case:?} -> {got}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_has_said_more_than_itself_ends_its_connection() {
    let bench = Bench::start().await;
    let mut client = bench.hub.client().await;
    client.write(&get("/public/a")).await;
    let mut app = bench.backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        .await;
    assert_eq!(client.message().await.body, "ok");
    client.write(&get("/public/b")).await;
    let mut other = bench.backend.accept().await;
    other.head().await;
    other.write(OK).await;
    assert_eq!(client.message().await.body, "ok");
}

#[tokio::test]
async fn a_head_without_an_end_is_not_read_for_ever() {
    let bench = Bench::start().await;
    let mut client = bench.hub.client().await;
    client.write(&get("/public/a")).await;
    let mut app = bench.backend.accept().await;
    app.head().await;
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
    let _ = app.stream.write_all(endless.as_bytes()).await; // it may be cut off
    assert_eq!(client.message().await.status(), 502);
}

fn dechunk(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.push_str(&rest[..size]);
        chunks = &rest[size + 2..];
    }
    body
}
