//! Cookies (RFC 6265): what they say is between browsers and apps. Only the platform's own don't reach an app, and what no field can
//! hold reaches nobody.

use super::{Fate::*, *};

/// The clause, what it is about, the fields that the client sends, and the one that the app gets.
const PASSED: &[(&str, &str, &str, Option<&str>)] = &[
    ("6265 §4.2.1", "one", "Cookie: a=1\r\n", Some("a=1")),
    ("6265 §4.2.1", "several", "Cookie: a=1; b=2; c=3\r\n", Some("a=1; b=2; c=3")),
    ("6265 §4.2.1", "the same name twice", "Cookie: a=1; a=2\r\n", Some("a=1; a=2")),
    ("6265 §4.1.1", "an empty value", "Cookie: a=\r\n", Some("a=")),
    (
        "6265 §4.1.1",
        "a value in quotes, with what else it may hold",
        "Cookie: a=\"!#$%&'()*+-./:<=>?@[]^_`{|}~\"\r\n",
        Some("a=\"!#$%&'()*+-./:<=>?@[]^_`{|}~\""),
    ),
    ("6265 §5.4", "what is no pair", "Cookie: a\r\n", Some("a")),
    ("6265 §5.4", "nothing but signs", "Cookie: ===;;;\r\n", Some("===;;;")),
    ("6265 §5.4", "letters beyond ASCII", "Cookie: a=\u{e4}\r\n", Some("a=\u{e4}")),
    ("6265 §5.4", "nothing", "Cookie: \r\n", Some("")),
    ("6265 §5.4", "two fields, which are one to an app", "Cookie: a=1\r\nCookie: b=2\r\n", Some("a=1; b=2")),
    ("6265 §5.3", "the platform's own among others", "Cookie: a=1; YRT=x; b=2\r\n", Some("a=1; b=2")),
    (
        "6265 §5.3",
        "the platform's own in a field of its own",
        "Cookie: a=1\r\nCookie: __Host-YAT=x\r\n",
        Some("a=1"),
    ),
    ("6265 §5.3", "nothing but the platform's own", "Cookie: __Host-YRT=x\r\n", None),
    (
        "6265 §5.3",
        "names that only look like these",
        "Cookie: XYRT=1; YRT2=2; yrt=3\r\n",
        Some("XYRT=1; YRT2=2; yrt=3"),
    ),
];

const REFUSED: &[Case] = &[
    ("9110 §5.5", "a cookie with a NUL", "GET /public/a HTTP/1.1\r\n{H}Cookie: a=\0b\r\n\r\n", Refused(400)),
    (
        "9110 §5.5",
        "with a control character",
        "GET /public/a HTTP/1.1\r\n{H}Cookie: a=\x01\r\n\r\n",
        Refused(400),
    ),
    ("9110 §5.5", "with a bare CR", "GET /public/a HTTP/1.1\r\n{H}Cookie: a=1\rX: y\r\n\r\n", Refused(400)),
    ("9112 §5.2", "folded", "GET /public/a HTTP/1.1\r\n{H}Cookie: a=1;\r\n b=2\r\n\r\n", Refused(400)),
];

async fn passes(bench: &Bench, sent: &str, heard: Option<&str>, what: &str) {
    let mut client = bench.hub.client().await;
    client.write(&format!("GET /public/a HTTP/1.1\r\n{HOST_LINE}{sent}\r\n")).await;
    let mut app = bench.backend.accept().await;
    assert_eq!(app.head().await.field("cookie"), heard, "{what}: {sent:?}");
    app.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    assert_eq!(client.message().await.status(), 200, "{what}");
}

#[tokio::test]
async fn an_app_gets_a_browsers_cookies_as_they_are_and_none_of_the_platforms() {
    let bench = Bench::start().await;
    for (clause, what, sent, heard) in PASSED {
        passes(&bench, sent, *heard, &format!("{clause}: {what}")).await;
    }
    let many = (0..500).map(|number| format!("c{number}={number}")).collect::<Vec<_>>().join("; ");
    passes(&bench, &format!("Cookie: {many}\r\n"), Some(&many), "6265 §6.1: five hundred").await;
}

#[tokio::test]
async fn cookies_that_no_field_can_hold_are_refused() {
    judge_all(REFUSED).await;
    let large = format!("GET /public/a HTTP/1.1\r\n{{H}}Cookie: a={}\r\n\r\n", "x".repeat(9_000));
    judge_all(&[("6585 §5", "a cookie larger than a head may be", large.leak(), Refused(431))]).await;
}
