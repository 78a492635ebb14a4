//! Requests that readers could read differently: each framing with each body, each way to end a line, to write a chunk, a target, a
//! host; and any number of random changes to good ones, the same in every run.
//!
//! In the texts `{P}` stands for a path that is the case's own, `{H}` for the line that names the host.

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) number: usize,
    text: String,
}

impl Case {
    /// What is sent to a host.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let text = self.text.replace("{H}", &format!("Host: {host}\r\n")).replace("{N}", host);
        text.replace("{P}", &format!("/c/{}", self.number)).into_bytes()
    }

    /// For whoever reads of a failure.
    pub(crate) fn shown(&self) -> String {
        format!("case {}: {}", self.number, self.text.escape_debug())
    }
}

/// What says how long a body is, or seems to.
const FRAMINGS: [&str; 52] = [
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 05\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5,5\r\n",
    "Content-Length: 5, 6\r\n",
    "Content-Length: 5;6\r\n",
    "Content-Length: 5 \r\n",
    "Content-Length: 5\t\r\n",
    "Content-Length:5\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 5.0\r\n",
    "Content-Length: 5e0\r\n",
    "Content-Length: \"5\"\r\n",
    "Content-Length:\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: 18446744073709551621\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 0\r\n",
    "Content-Length : 5\r\n",
    "Content-Length\t: 5\r\n",
    " Content-Length: 5\r\n",
    "Content_Length: 5\r\n",
    "X: y\r\n Content-Length: 5\r\n",
    "X: y\nContent-Length: 5\r\n",
    "X: y\rContent-Length: 5\r\n",
    "Content-Length: 5\u{b}\r\n",
    "Content-Length: 5\0\r\n",
    "Connection: content-length\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: Chunked\r\n",
    "Transfer-Encoding:chunked\r\n",
    "Transfer-Encoding: chunked \r\n",
    "Transfer-Encoding: \tchunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n",
    "Transfer-Encoding:\u{b}chunked\r\nContent-Length: 5\r\n",
    "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
];
/// What follows a head: what one framing or another takes for the body, or for the next request.
const BODIES: [&str; 5] = [
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\nGET {P}/hidden HTTP/1.1\r\n{H}\r\n",
    "GET {P}/hidden HTTP/1.1\r\n{H}X: y",
];
/// Bodies in chunks, good and not.
const CHUNKS: [&str; 46] = [
    "5\r\nhello\r\n0\r\n\r\n",
    "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "5;a\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0;last\r\n\r\n",
    "5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\r\nhello\r\n0\r\n\r\n",
    "5 ;a\r\nhello\r\n0\r\n\r\n",
    "5;\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "5,\r\nhello\r\n0\r\n\r\n",
    "5g\r\nhello\r\n0\r\n\r\n",
    "5\u{b}\r\nhello\r\n0\r\n\r\n",
    "5\0\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\r\nhello\r\n0\r\n\r\n",
    "5;a\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhelloworld\r\n0\r\n\r\n",
    "5\r\nhe\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n00\r\n\r\n",
    "5\r\nhello\r\n000000000000000000000\r\n\r\n",
    "5\r\nhello\r\n\r\n",
    "00000000000000000005\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "100000005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n{H}\r\n",
    "5\r\nhello\r\n0\r\nX: y\n\r\n",
    "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
    "5\r\nhello\r\n0\r\nno field\r\n\r\n",
];
/// First lines, and what comes before them.
const LINES: [&str; 54] = [
    "GET {P}/a HTTP/1.1\r\n",
    "HEAD {P}/a HTTP/1.1\r\n",
    "OPTIONS {P}/a HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "TRACE {P}/a HTTP/1.1\r\n",
    "DELETE {P}/a HTTP/1.1\r\n",
    "PROPFIND {P}/a HTTP/1.1\r\n",
    "M-SEARCH {P}/a HTTP/1.1\r\n",
    "QUERY {P}/a HTTP/1.1\r\n",
    "get {P}/a HTTP/1.1\r\n",
    "!#$% {P}/a HTTP/1.1\r\n",
    "G(T {P}/a HTTP/1.1\r\n",
    "CONNECT {N} HTTP/1.1\r\n",
    "CONNECT {P}/a HTTP/1.1\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n",
    "\r\nGET {P}/a HTTP/1.1\r\n",
    "\r\n\r\nGET {P}/a HTTP/1.1\r\n",
    "\nGET {P}/a HTTP/1.1\r\n",
    " GET {P}/a HTTP/1.1\r\n",
    "GET  {P}/a HTTP/1.1\r\n",
    "GET {P}/a  HTTP/1.1\r\n",
    "GET {P}/a HTTP/1.1 \r\n",
    "GET\t{P}/a\tHTTP/1.1\r\n",
    "GET {P}/a HTTP/1.1\n",
    "GET {P}/a HTTP/1.1\r",
    "GET {P}/a\u{b}HTTP/1.1\r\n",
    "GET {P}/a\r\n",
    "GET {P}/a HTTP/0.9\r\n",
    "GET {P}/a HTTP/1.0\r\n",
    "GET {P}/a HTTP/1.0\r\nConnection: keep-alive\r\n",
    "GET {P}/a HTTP/1.2\r\n",
    "GET {P}/a HTTP/1.10\r\n",
    "GET {P}/a HTTP/2.0\r\n",
    "GET {P}/a http/1.1\r\n",
    "GET {P}/a HTTP/1,1\r\n",
    "GET {P}/a HTTPS/1.1\r\n",
    "GET {P}/a HTTP/1.1 HTTP/1.1\r\n",
    "GET {P}/a b HTTP/1.1\r\n",
    "GET {P}/a#b HTTP/1.1\r\n",
    "GET {P}/a\0 HTTP/1.1\r\n",
    "GET {P}/\u{e9} HTTP/1.1\r\n",
    "GET {P}/%00 HTTP/1.1\r\n",
    "GET {P}/%0d%0aX:%20y HTTP/1.1\r\n",
    "GET {P}/% HTTP/1.1\r\n",
    "GET {P}/a?b?c=d&&e HTTP/1.1\r\n",
    "GET {P}/a\\b HTTP/1.1\r\n",
    "GET c/1 HTTP/1.1\r\n",
    "GET http://{N}{P}/a HTTP/1.1\r\n",
    "GET https://{N}{P}/a HTTP/1.1\r\n",
    "GET https://other.yesterday.localhost{P}/a HTTP/1.1\r\n",
    "GET https://user@{N}{P}/a HTTP/1.1\r\n",
    "GET ftp://{N}{P}/a HTTP/1.1\r\n",
    "GET //{N}{P}/a HTTP/1.1\r\n",
    "GET ?{P} HTTP/1.1\r\n",
];
/// Fields of a request that has no body.
const FIELDS: [&str; 44] = [
    "{H}",
    "",
    "{H}{H}",
    "{H}Host: other.yesterday.localhost\r\n",
    "Host: other.yesterday.localhost\r\n{H}",
    "Host:\r\n",
    "Host: {N}, other\r\n",
    "Host: {N} other\r\n",
    "Host: user@{N}\r\n",
    "Host: {N}/x\r\n",
    "Host: {N}#\r\n",
    "Host:\t{N}\t\r\n",
    "Host:{N}\r\n",
    "Host : {N}\r\n",
    " Host: {N}\r\n",
    "HOST: {N}\r\n",
    "Host: {N}\0\r\n",
    "Host: [::1]\r\n",
    "X: y\r\n{H}",
    " X: y\r\n{H}",
    "{H}X: y\r\n z\r\n",
    "{H}X: y\r\n\tz: w\r\n",
    "{H}: y\r\n",
    "{H}X\r\n",
    "{H}X y: z\r\n",
    "{H}X : y\r\n",
    "{H}X\0: y\r\n",
    "{H}X: \0y\r\n",
    "{H}X: y\u{7f}\r\n",
    "{H}X: \u{1}\r\n",
    "{H}X: \u{e9}\r\n",
    "{H}X:\r\n",
    "{H}X: y\n",
    "{H}X: y\nY: z\r\n",
    "{H}X: y\r\r\n",
    "{H}X: y\rGET {P}/hidden HTTP/1.1\r\n",
    "{H}Connection: close, X\r\nX: y\r\n",
    "{H}Connection: host\r\n",
    "{H}Expect: 100-continue\r\n",
    "{H}Expect: 200-ok\r\n",
    "{H}Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "{H}Upgrade: websocket\r\nConnection: upgrade\r\n",
    "{H}TE: trailers, chunked\r\nTrailer: Content-Length\r\n",
    "{H}X-Forwarded-Host: a\r\nX-HTTP-Method-Override: DELETE\r\nX-Original-URL: /b\r\n",
];

/// The requests that random changes are made to.
const GOOD: [&str; 6] = [
    "GET {P}/a HTTP/1.1\r\n{H}\r\n",
    "POST {P}/a HTTP/1.1\r\n{H}Content-Length: 5\r\n\r\nhello",
    "POST {P}/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT {P}/a HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
    "GET {P}/a HTTP/1.1\r\n{H}\r\nPOST {P}/b HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc",
    "POST {P}/a HTTP/1.1\r\n{H}Content-Length: 40\r\n\r\nGET {P}/hidden HTTP/1.1\r\nX: y\r\n\r\n1234567890",
];
/// What is put into them.
const PIECES: [&str; 30] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\n\n",
    "\r\n ",
    "\r\n\t",
    " ",
    "\t",
    ";",
    ":",
    ",",
    "=",
    "\"",
    "0",
    "5",
    "a",
    "-",
    "_",
    "\0",
    "\u{b}",
    "\u{a0}",
    "%0d%0a",
    "0\r\n\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: keep-alive\r\n",
    "{H}",
    "GET {P}/hidden HTTP/1.1\r\n{H}\r\n",
    "HTTP/1.1",
];

/// All that are written down, then so many random ones.
pub(crate) fn all(random: usize) -> Vec<Case> {
    let framed = FRAMINGS.iter().flat_map(|framing| {
        BODIES.iter().map(move |body| format!("POST {{P}}/a HTTP/1.1\r\n{{H}}{framing}\r\n{body}"))
    });
    let chunked = CHUNKS
        .iter()
        .map(|body| format!("POST {{P}}/a HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{body}"));
    let lines = LINES.iter().map(|line| format!("{line}{{H}}\r\n"));
    let fields = FIELDS.iter().map(|fields| format!("GET {{P}}/a HTTP/1.1\r\n{fields}\r\n"));
    let random = (1..=random as u64).map(changed);
    let texts = framed.chain(chunked).chain(lines).chain(fields).chain(random);
    texts.enumerate().map(|(number, text)| Case { number, text }).collect()
}

/// A good one with one to three changes.
fn changed(seed: u64) -> String {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut text: Vec<char> = GOOD[dice.below(GOOD.len())].chars().collect();
    for _ in 0..=dice.below(3) {
        let at = dice.below(text.len());
        let piece = PIECES[dice.below(PIECES.len())].chars();
        let until = (at + dice.below(4)).min(text.len());
        match dice.below(4) {
            0 => drop(text.drain(at..until)),
            1 => drop(text.splice(at..until, piece)),
            _ => drop(text.splice(at..at, piece)),
        }
    }
    text.into_iter().collect()
}

/// The same throws in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).expect("it is below a usize")
    }
}
