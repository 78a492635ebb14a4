//! How long a request's body is, and chunks.

use super::{Fate::*, *};

const A: &str = "POST /public/a HTTP/1.1";

const LENGTHS: &[Case] = &[
    ("9112 §6.3", "a length", "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2\r\n\r\nhi", Passed(A, "hi")),
    (
        "9112 §6.3",
        "a length of nothing",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0\r\n\r\n",
        Passed(A, ""),
    ),
    ("9112 §6.3", "no length", "POST /public/a HTTP/1.1\r\n{H}\r\n", Passed(A, "")),
    (
        "9112 §6.3",
        "a length with zeros before it",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0002\r\n\r\nhi",
        Passed(A, "hi"),
    ),
    (
        "9112 §6.3",
        "GET may have a body",
        "GET /public/a HTTP/1.1\r\n{H}Content-Length: 2\r\n\r\nhi",
        Passed("GET /public/a HTTP/1.1", "hi"),
    ),
    (
        "9112 §6.3",
        "what follows a body is the next request",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0\r\n\r\nGET /public/b HTTP/1.1\r\n{H}\r\n",
        Each(&["POST /public/a HTTP/1.1", "GET /public/b HTTP/1.1"]),
    ),
    (
        "9112 §6.3",
        "a body that looks like a request is a body",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 28\r\n\r\nGET /internal/b HTTP/1.1\r\n\r\n",
        Passed(A, "GET /internal/b HTTP/1.1\r\n\r\n"),
    ),
    (
        "9112 §6.3",
        "the same length twice",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9112 §6.3",
        "two lengths",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        Refused(400),
    ),
    (
        "9112 §6.3",
        "a list of lengths",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2, 2\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9112 §6.3",
        "a list of different lengths",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2, 3\r\n\r\nhi!",
        Refused(400),
    ),
    (
        "9112 §6.3",
        "a length and a comma",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2,\r\n\r\nhi",
        Refused(400),
    ),
    ("9110 §8.6", "a plus", "POST /public/a HTTP/1.1\r\n{H}Content-Length: +2\r\n\r\nhi", Refused(400)),
    ("9110 §8.6", "a minus", "POST /public/a HTTP/1.1\r\n{H}Content-Length: -2\r\n\r\nhi", Refused(400)),
    (
        "9110 §8.6",
        "a minus before nothing",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: -0\r\n\r\n",
        Refused(400),
    ),
    ("9110 §8.6", "hexadecimal", "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0x2\r\n\r\nhi", Refused(400)),
    ("9110 §8.6", "a fraction", "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2.0\r\n\r\nhi", Refused(400)),
    ("9110 §8.6", "an exponent", "POST /public/a HTTP/1.1\r\n{H}Content-Length: 2e0\r\n\r\nhi", Refused(400)),
    (
        "9110 §8.6",
        "an underscore",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0_2\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9110 §8.6",
        "a space in it",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0 2\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9110 §8.6",
        "a tab in it",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0\t2\r\n\r\nhi",
        Refused(400),
    ),
    ("9110 §8.6", "quotes", "POST /public/a HTTP/1.1\r\n{H}Content-Length: \"2\"\r\n\r\nhi", Refused(400)),
    ("9110 §8.6", "nothing", "POST /public/a HTTP/1.1\r\n{H}Content-Length:\r\n\r\nhi", Refused(400)),
    ("9110 §8.6", "a word", "POST /public/a HTTP/1.1\r\n{H}Content-Length: two\r\n\r\nhi", Refused(400)),
    (
        "9110 §8.6",
        "more than 64 bits",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 18446744073709551618\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9110 §8.6",
        "digits beyond ASCII",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: ٢\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "both lengths",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "both lengths, the other way round",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "both lengths and a second request in disguise",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5c\r\nGET /internal/x HTTP/1.1\r\nHost: hello.yesterday.localhost\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "both lengths, one of nothing",
        "POST /public/a HTTP/1.1\r\n{H}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "a coding that isn't known",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: gzip\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "a coding before chunked",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "a coding after chunked",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "chunked twice",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "chunked on two lines",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "chunked and identity",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "identity",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "chunked with a parameter",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "xchunked",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "chunked in quotes",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "a comma before chunked",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 §6.1",
        "a vertical tab before chunked",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 §6.1", "no coding", "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding:\r\n\r\n", Refused(400)),
    (
        "9112 §6.1",
        "chunked in capitals",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        Passed(A, ""),
    ),
    (
        "9112 §6.1",
        "chunked in HTTP/1.0",
        "POST /public/a HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 §9.3", "a length in HTTP/1.0", "POST /public/a HTTP/1.0\r\n{H}Content-Length: 0\r\n\r\n", Last(A)),
];

const CHUNKS: &[Case] = &[
    (
        "9112 §7.1",
        "a chunk",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Passed(A, "hi"),
    ),
    (
        "9112 §7.1",
        "chunks",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        Passed(A, "hi"),
    ),
    (
        "9112 §7.1",
        "a size in capitals",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\nA\r\nhellohello\r\n0\r\n\r\n",
        Passed(A, "hellohello"),
    ),
    (
        "9112 §7.1",
        "a size with zeros before it",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0002\r\nhi\r\n000\r\n\r\n",
        Passed(A, "hi"),
    ),
    (
        "9112 §7.1.1",
        "an extension is not passed on",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d;e\"\r\nhi\r\n0;x\r\n\r\n",
        Passed(A, "hi"),
    ),
    (
        "9112 §7.1.2",
        "trailers",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        Passed(A, "hi"),
    ),
    (
        "9112 §7.1",
        "what follows the last chunk is the next request",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /public/b HTTP/1.1\r\n{H}\r\n",
        Each(&["POST /public/a HTTP/1.1", "GET /public/b HTTP/1.1"]),
    ),
    (
        "9112 §7.1",
        "a chunk that looks like an end is a chunk",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        Passed(A, "0\r\n\r\n"),
    ),
    (
        "9112 §7.1",
        "a bare LF after the size",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a bare LF after the data",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a bare CR after the size",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\rhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a bare LF at the end",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\n\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a bare LF after the last size",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "more data than the size",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "less data than the size",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n4\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "no size",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with a prefix",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with a plus",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with a minus",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with an underscore",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0_2\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with a space before it",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n 2\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with a space after it",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with a tab after it",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\t\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "two sizes",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2 2\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size that is none",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\ng\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size of more than 64 bits",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size that wraps to what it says",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff2\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1",
        "a size with a NUL",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\0\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.1",
        "an extension without a name",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2;\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.1",
        "an extension without a value",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2;a=\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.1",
        "an extension with a bare LF",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2;a\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.1",
        "an extension with a bare CR",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2;a\rb\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.1",
        "an extension with a string that never ends",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2;a=\"b\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.1",
        "an extension with a NUL",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2;a=\"\0\"\r\nhi\r\n0\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.1",
        "an extension of the last chunk with a bare LF",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.2",
        "a folded trailer",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n b\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.2",
        "a trailer with a space before its colon",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nX : a\r\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.2",
        "a trailer with a bare LF",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\n\r\n",
        CutOff(400),
    ),
    (
        "9112 §7.1.2",
        "a trailer that is a request",
        "POST /public/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nGET /internal/b HTTP/1.1\r\n\r\n",
        CutOff(400),
    ),
];

#[tokio::test]
async fn a_body_has_one_length() {
    judge_all(LENGTHS).await;
}

#[tokio::test]
async fn chunks_have_one_form() {
    judge_all(CHUNKS).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_made_whole() {
    let bench = Bench::start().await;
    for sent in [
        "Content-Length: 5\r\n\r\nhi",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhi",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    ] {
        let mut client = bench.hub.client().await;
        client.write(&format!("POST /public/a HTTP/1.1\r\n{HOST_LINE}{sent}")).await;
        let mut app = bench.backend.accept().await;
        app.until("hi").await;
        drop(client);
        let heard = app.rest().await;
        assert!(!heard.contains("0\r\n\r\n"), "{sent:?}: the app heard an end: {heard:?}");
    }
}
