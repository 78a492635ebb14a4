//! Line ends, first lines, fields, and what they say about the connection.

use super::{Fate::*, *};

const LINES: &[Case] = &[
    (
        "9112 §2.2",
        "an empty line before a request is read over",
        "\r\nGET /public/a HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    ("9112 §2.2", "two are too many", "\r\n\r\nGET /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.2", "a bare LF as an empty line", "\nGET /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.2", "a bare LF after the first line", "GET /public/a HTTP/1.1\n{H}\r\n", Refused(400)),
    (
        "9112 §2.2",
        "a bare LF after a field",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost\n\r\n",
        Refused(400),
    ),
    ("9112 §2.2", "a bare LF as the end", "GET /public/a HTTP/1.1\r\n{H}\n", Refused(400)),
    (
        "9112 §2.2",
        "bare LFs everywhere",
        "GET /public/a HTTP/1.1\nHost: hello.yesterday.localhost\n\n",
        Refused(400),
    ),
    ("9112 §2.2", "a bare CR within a value", "GET /public/a HTTP/1.1\r\n{H}X: a\rb\r\n\r\n", Refused(400)),
    (
        "9112 §2.2",
        "a bare CR as a line end",
        "GET /public/a HTTP/1.1\rHost: hello.yesterday.localhost\r\r\n\r\n",
        Refused(400),
    ),
    ("9112 §2.2", "a CR before the CR LF", "GET /public/a HTTP/1.1\r\r\n{H}\r\n", Refused(400)),
    ("9112 §2.2", "a CR before a field's CR LF", "GET /public/a HTTP/1.1\r\n{H}X: a\r\r\n\r\n", Refused(400)),
    (
        "9112 §2.2",
        "a field that hides a second request behind a bare LF",
        "GET /public/a HTTP/1.1\r\n{H}X: a\n\nGET /public/b HTTP/1.1\r\n{H}\r\n",
        Refused(400),
    ),
    ("9112 §2.2", "white space before the first field", "GET /public/a HTTP/1.1\r\n {H}\r\n", Refused(400)),
    (
        "9112 §2.2",
        "a tab before the first field",
        "GET /public/a HTTP/1.1\r\n\tX: a\r\n{H}\r\n",
        Refused(400),
    ),
    ("9112 §2.1", "nothing but an end", "", Dropped),
    ("9112 §8", "a head that breaks off", "GET /public/a HTTP/1.1\r\nHost: hello", Dropped),
    ("9112 §8", "a first line that breaks off", "GET /public", Dropped),
    ("9112 §2.3", "bytes of TLS", "\x16\x03\x01\x02\x00\r\n\r\n", Refused(400)),
    ("9112 §2.1", "zeros", "\0\0\0\0\r\n\r\n", Refused(400)),
    ("9112 §2.1", "an answer", "HTTP/1.1 200 OK\r\n\r\n", Refused(400)),
    ("9113 §3.4", "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(505)),
];

const FIRST_LINES: &[Case] = &[
    ("9112 §3", "no version", "GET /public/a\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "nothing but a method", "GET\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "no target", "GET  HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "two spaces before the target", "GET  /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "two spaces before the version", "GET /public/a  HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a tab for a space", "GET\t/public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a tab before the version", "GET /public/a\tHTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a vertical tab for a space", "GET\x0b/public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a form feed for a space", "GET\x0c/public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a space before the method", " GET /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a space after the version", "GET /public/a HTTP/1.1 \r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a word after the version", "GET /public/a HTTP/1.1 x\r\n{H}\r\n", Refused(400)),
    ("9112 §3", "a space within the target", "GET /public/a b HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTP/1.2", "GET /public/a HTTP/1.2\r\n{H}\r\n", Refused(505)),
    ("9112 §2.3", "HTTP/0.9", "GET /public/a HTTP/0.9\r\n{H}\r\n", Refused(505)),
    ("9112 §2.3", "HTTP/2.0", "GET /public/a HTTP/2.0\r\n{H}\r\n", Refused(505)),
    ("9112 §2.3", "HTTP/3.7", "GET /public/a HTTP/3.7\r\n{H}\r\n", Refused(505)),
    ("9112 §2.3", "HTTP/1", "GET /public/a HTTP/1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTP/1.", "GET /public/a HTTP/1.\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTP/1.10", "GET /public/a HTTP/1.10\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTP/01.1", "GET /public/a HTTP/01.1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTP/1,1", "GET /public/a HTTP/1,1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "http/1.1", "GET /public/a http/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTPS/1.1", "GET /public/a HTTPS/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTP 1.1", "GET /public/a HTTP 1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §2.3", "HTTP/1.1 of other digits", "GET /public/a HTTP/١.1\r\n{H}\r\n", Refused(400)),
    (
        "9110 §9.1",
        "a method of one's own",
        "PURGE-IT /public/a HTTP/1.1\r\n{H}\r\n",
        Passed("PURGE-IT /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §9.1",
        "a method is told by its case",
        "get /public/a HTTP/1.1\r\n{H}\r\n",
        Passed("get /public/a HTTP/1.1", ""),
    ),
    ("9110 §9.1", "a method with a slash", "GE/T /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9110 §9.1", "a method with a colon", "GET: /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9110 §9.1", "a method with a quote", "GE\"T /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9110 §9.1", "a method beyond ASCII", "GÉT /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9110 §9.1", "a method with a NUL", "GE\0T /public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9110 §9.3.6", "CONNECT", "CONNECT hello.yesterday.localhost:443 HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9110 §9.3.8", "TRACE", "TRACE /public/a HTTP/1.1\r\n{H}\r\n", Answered(405)),
];

const FIELDS: &[Case] = &[
    ("9112 §5.1", "a space before the colon", "GET /public/a HTTP/1.1\r\n{H}X : a\r\n\r\n", Refused(400)),
    ("9112 §5.1", "a tab before the colon", "GET /public/a HTTP/1.1\r\n{H}X\t: a\r\n\r\n", Refused(400)),
    (
        "9112 §5.1",
        "a space before the colon of Host",
        "GET /public/a HTTP/1.1\r\nHost : hello.yesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §5.1",
        "a space before the colon of Content-Length",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length : 2\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9112 §5.1",
        "a space before the colon of Transfer-Encoding",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 §5.2", "a folded value", "GET /public/a HTTP/1.1\r\n{H}X: a\r\n b\r\n\r\n", Refused(400)),
    (
        "9112 §5.2",
        "a value folded by a tab",
        "GET /public/a HTTP/1.1\r\n{H}X: a\r\n\tb\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §5.2",
        "a folded Transfer-Encoding",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 §5", "no colon", "GET /public/a HTTP/1.1\r\n{H}X\r\n\r\n", Refused(400)),
    ("9112 §5", "no name", "GET /public/a HTTP/1.1\r\n{H}: a\r\n\r\n", Refused(400)),
    ("9112 §5", "an equals sign for a colon", "GET /public/a HTTP/1.1\r\n{H}X= a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name with a space", "GET /public/a HTTP/1.1\r\n{H}X Y: a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name with a parenthesis", "GET /public/a HTTP/1.1\r\n{H}X(Y): a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name with a comma", "GET /public/a HTTP/1.1\r\n{H}X,Y: a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name with a slash", "GET /public/a HTTP/1.1\r\n{H}X/Y: a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name in quotes", "GET /public/a HTTP/1.1\r\n{H}\"X\": a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name with a bracket", "GET /public/a HTTP/1.1\r\n{H}X[1]: a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name with a NUL", "GET /public/a HTTP/1.1\r\n{H}X\0Y: a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name beyond ASCII", "GET /public/a HTTP/1.1\r\n{H}Xé: a\r\n\r\n", Refused(400)),
    ("9110 §5.1", "a name with a DEL", "GET /public/a HTTP/1.1\r\n{H}X\x7f: a\r\n\r\n", Refused(400)),
    ("9110 §5.5", "a value with a NUL", "GET /public/a HTTP/1.1\r\n{H}X: a\0b\r\n\r\n", Refused(400)),
    (
        "9110 §5.5",
        "a value with a control character",
        "GET /public/a HTTP/1.1\r\n{H}X: a\x01b\r\n\r\n",
        Refused(400),
    ),
    ("9110 §5.5", "a value with a DEL", "GET /public/a HTTP/1.1\r\n{H}X: a\x7fb\r\n\r\n", Refused(400)),
    ("9110 §5.5", "a value with an escape", "GET /public/a HTTP/1.1\r\n{H}X: \x1b[31m\r\n\r\n", Refused(400)),
    (
        "9110 §5.5",
        "a value with a vertical tab",
        "GET /public/a HTTP/1.1\r\n{H}X: a\x0bb\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §5.5",
        "a value with a tab in it",
        "GET /public/a HTTP/1.1\r\n{H}X: a\tb\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §5.5",
        "a value beyond ASCII",
        "GET /public/a HTTP/1.1\r\n{H}X: é\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §5.5",
        "an empty value",
        "GET /public/a HTTP/1.1\r\n{H}X:\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §5.5",
        "white space around a value",
        "GET /public/a HTTP/1.1\r\n{H}X: \t a \t\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §5.3",
        "a field on two lines",
        "GET /public/a HTTP/1.1\r\n{H}X: a\r\nX: b\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §17.10",
        "Content_Length",
        "POST /public/a HTTP/1.1\r\n{H}Content_Length: 2\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9110 §17.10",
        "Transfer_Encoding",
        "POST /public/a HTTP/1.1\r\n{H}Transfer_Encoding: chunked\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §17.10",
        "an underscore where it harms nobody",
        "GET /public/a HTTP/1.1\r\n{H}X_Y: a\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §10.1.1",
        "an unknown expectation",
        "POST /public/a HTTP/1.1\r\n{H}Expect: miracles\r\nContent-Length: 2\r\n\r\nhi",
        Refused(417),
    ),
    (
        "9110 §10.1.1",
        "an expectation of HTTP/1.0 is ignored",
        "GET /public/a HTTP/1.0\r\n{H}Expect: 100-continue\r\n\r\n",
        Last("GET /public/a HTTP/1.1"),
    ),
    (
        "9112 §9.6",
        "the client's last request",
        "GET /public/a HTTP/1.1\r\n{H}Connection: close\r\n\r\n",
        Last("GET /public/a HTTP/1.1"),
    ),
    (
        "9112 §9.6",
        "nothing after it is heard",
        "GET /public/a HTTP/1.1\r\n{H}Connection: close\r\n\r\nGET /public/b HTTP/1.1\r\n{H}\r\n",
        Last("GET /public/a HTTP/1.1"),
    ),
    (
        "9112 §9.3",
        "a client of HTTP/1.0 asks once",
        "GET /public/a HTTP/1.0\r\n{H}\r\n",
        Last("GET /public/a HTTP/1.1"),
    ),
    (
        "9112 §9.3.2",
        "requests sent at once are answered in order",
        "GET /public/a HTTP/1.1\r\n{H}\r\nGET /public/b HTTP/1.1\r\n{H}\r\nGET /public/c HTTP/1.1\r\n{H}\r\n",
        Each(&["GET /public/a HTTP/1.1", "GET /public/b HTTP/1.1", "GET /public/c HTTP/1.1"]),
    ),
    (
        "9112 §9.3.2",
        "after a bad one nothing is heard",
        "GET / HTTP/1.9\r\n\r\nGET /public/b HTTP/1.1\r\n{H}\r\n",
        Refused(505),
    ),
    (
        "9110 §7.8",
        "an upgrade to HTTP/2 is not passed on",
        "GET /public/a HTTP/1.1\r\n{H}Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §7.6.1",
        "Connection takes no field away that decides",
        "GET /public/a HTTP/1.1\r\n{H}Connection: host, content-length\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
];

#[tokio::test]
async fn lines_end_in_one_way() {
    judge_all(LINES).await;
}

#[tokio::test]
async fn first_lines_have_one_form() {
    judge_all(FIRST_LINES).await;
}

#[tokio::test]
async fn fields_have_one_form() {
    judge_all(FIELDS).await;
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let bench = Bench::start().await;
    let fields = |number: usize| format!("GET /public/a HTTP/1.1\r\n{{H}}{}\r\n", "X: 1\r\n".repeat(number));
    let bytes = |number: usize| format!("GET /public/a HTTP/1.1\r\n{{H}}X: {}\r\n\r\n", "x".repeat(number));
    let target = |number: usize| format!("GET /public/{} HTTP/1.1\r\n{{H}}\r\n", "x".repeat(number));
    for (what, sent, fate) in [
        ("as many fields as may be", fields(19), Passed("GET /public/a HTTP/1.1", "")),
        ("one field more", fields(20), Refused(431)),
        ("a large section", bytes(8_000), Passed("GET /public/a HTTP/1.1", "")),
        ("too large a section", bytes(8_192), Refused(431)),
        ("a section without an end", bytes(100_000)[..90_000].to_owned(), Refused(431)),
        ("a target too long", target(1_024), Refused(414)),
        ("a target without an end", target(100_000)[..90_000].to_owned(), Refused(414)),
        ("a method without an end", "X".repeat(90_000), Refused(414)),
    ] {
        let sent: &'static str = sent.leak();
        bench.judge(&("9110 §5.4", what, sent, fate)).await;
    }
}
