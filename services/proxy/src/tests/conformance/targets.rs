//! Targets and hosts: whom a request is for, and that both say the same.

use super::{Fate::*, *};

const TARGETS: &[Case] = &[
    (
        "9112 §3.2.1",
        "a query",
        "GET /public/a?b=c&d HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/a?b=c&d HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.1",
        "an empty query",
        "GET /public/a? HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/a? HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.1",
        "characters that browsers leave as they are",
        "GET /public/a?b={c}|d^e`f HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/a?b={c}|d^e`f HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.1",
        "escapes stay as they were written",
        "GET /public/%61%2F%3f%zz HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/%61%2F%3f%zz HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.1",
        "two slashes stay two",
        "GET /public//a HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public//a HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.1",
        "dots that lead nowhere else stay",
        "GET /public/a/./b/../c HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/a/./b/../c HTTP/1.1", ""),
    ),
    ("9112 §3.2", "a fragment", "GET /public/a#b HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2", "no slash", "GET public/a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2", "a question mark for a slash", "GET ?a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2", "a backslash for a slash", "GET \\public\\a HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2", "bytes beyond ASCII", "GET /public/é HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2", "a NUL", "GET /public/\0 HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2", "a control character", "GET /public/\x01 HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2", "a DEL", "GET /public/\x7f HTTP/1.1\r\n{H}\r\n", Refused(400)),
    (
        "9112 §3.2.2",
        "the absolute form",
        "GET https://hello.yesterday.localhost/public/a HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.1",
        "the absolute form with a query and no path",
        "GET https://hello.yesterday.localhost?a=b HTTP/1.1\r\n{H}\r\n",
        Passed("GET /?a=b HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.2",
        "the absolute form in capitals",
        "GET HTTPS://HELLO.yesterday.localhost/public/a HTTP/1.1\r\n{H}\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9112 §3.2.2",
        "the absolute form for another host",
        "GET https://other.yesterday.localhost/public/a HTTP/1.1\r\n{H}\r\n",
        Refused(400),
    ),
    (
        "9112 §3.2.2",
        "the absolute form of another scheme",
        "GET ftp://hello.yesterday.localhost/public/a HTTP/1.1\r\n{H}\r\n",
        Refused(400),
    ),
    (
        "9112 §3.2.2",
        "the absolute form without Host",
        "GET https://hello.yesterday.localhost/public/a HTTP/1.1\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §3.2.2",
        "the absolute form with a user",
        "GET https://me@hello.yesterday.localhost/public/a HTTP/1.1\r\n{H}\r\n",
        Refused(400),
    ),
    (
        "9112 §3.2.2",
        "the absolute form with another port",
        "GET https://hello.yesterday.localhost:1/public/a HTTP/1.1\r\n{H}\r\n",
        Refused(400),
    ),
    (
        "9112 §3.2.3",
        "the authority form without CONNECT",
        "GET hello.yesterday.localhost:443 HTTP/1.1\r\n{H}\r\n",
        Refused(400),
    ),
    ("9112 §3.2.4", "OPTIONS for everything", "OPTIONS * HTTP/1.1\r\n{H}\r\n", Answered(204)),
    ("9112 §3.2.4", "a star without OPTIONS", "GET * HTTP/1.1\r\n{H}\r\n", Refused(400)),
    ("9112 §3.2.4", "a star and more", "OPTIONS *x HTTP/1.1\r\n{H}\r\n", Refused(400)),
];

const HOSTS: &[Case] = &[
    ("9112 §3.2", "no Host", "GET /public/a HTTP/1.1\r\n\r\n", Refused(400)),
    ("9112 §3.2", "no Host in HTTP/1.0", "GET /public/a HTTP/1.0\r\n\r\n", Refused(400)),
    ("9112 §3.2", "an empty Host", "GET /public/a HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
    ("9112 §3.2", "the same Host twice", "GET /public/a HTTP/1.1\r\n{H}{H}\r\n", Refused(400)),
    (
        "9112 §3.2",
        "two Hosts",
        "GET /public/a HTTP/1.1\r\n{H}Host: other.yesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §3.2",
        "two Hosts on one line",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost, other.yesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §17.10",
        "Host and one that looks like it, HTTP_HOST's way",
        "GET /public/a HTTP/1.1\r\n{H}host_: other.yesterday.localhost\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §7.2",
        "capitals",
        "GET /public/a HTTP/1.1\r\nHost: HELLO.Yesterday.LOCALHOST\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §7.2",
        "a port",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost:8443\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §7.2",
        "a trailing dot",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost.\r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §7.2",
        "white space around it",
        "GET /public/a HTTP/1.1\r\nHost:   hello.yesterday.localhost  \r\n\r\n",
        Passed("GET /public/a HTTP/1.1", ""),
    ),
    (
        "9110 §7.2",
        "a user",
        "GET /public/a HTTP/1.1\r\nHost: me@hello.yesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a path",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost/x\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a scheme",
        "GET /public/a HTTP/1.1\r\nHost: https://hello.yesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a query",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost?x\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a fragment",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost#x\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a space in it",
        "GET /public/a HTTP/1.1\r\nHost: hello .yesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a comma in it",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost,x\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a backslash in it",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost\\x\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "an escape in it",
        "GET /public/a HTTP/1.1\r\nHost: hello%2eyesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "no port after the colon",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost:\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a port that is none",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost:x\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "a port too large",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost:65536\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.2",
        "two ports",
        "GET /public/a HTTP/1.1\r\nHost: hello.yesterday.localhost:1:2\r\n\r\n",
        Refused(400),
    ),
    ("9110 §7.2", "an empty label", "GET /public/a HTTP/1.1\r\nHost: hello..localhost\r\n\r\n", Refused(400)),
    (
        "9110 §7.2",
        "bytes beyond ASCII",
        "GET /public/a HTTP/1.1\r\nHost: hellö.yesterday.localhost\r\n\r\n",
        Refused(400),
    ),
    (
        "9110 §7.4",
        "a name that the certificate does not cover",
        "GET /public/a HTTP/1.1\r\nHost: example.com\r\n\r\n",
        Answered(421),
    ),
    (
        "9110 §7.4",
        "a name that nobody has",
        "GET /public/a HTTP/1.1\r\nHost: nobody.yesterday.localhost\r\n\r\n",
        Answered(404),
    ),
    (
        "9110 §17.1",
        "a path disguised by an escape",
        "GET /public/%2e%2e/internal/a HTTP/1.1\r\n{H}\r\n",
        Answered(401),
    ),
    ("9110 §17.1", "a path disguised by capitals", "GET /Internal/a HTTP/1.1\r\n{H}\r\n", Answered(401)),
    ("9110 §17.1", "a path disguised by two slashes", "GET //internal/a HTTP/1.1\r\n{H}\r\n", Answered(401)),
    (
        "9110 §17.1",
        "a path disguised by a backslash",
        "GET /public\\..\\internal/a HTTP/1.1\r\n{H}\r\n",
        Answered(401),
    ),
];

#[tokio::test]
async fn a_target_has_one_of_its_forms() {
    judge_all(TARGETS).await;
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    judge_all(HOSTS).await;
}
