//! Answers that readers could read differently, and an app that gives them: asked for `/r/7` it says the seventh, byte for byte, and
//! then hangs up if that is how it goes; whatever else it is asked for it answers `safe`.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

/// How an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The connection is kept.
    Keep,
    /// It is closed.
    Close,
}
use Then::{Close, Keep};

/// Each with the method that it answers.
pub(crate) const ALL: [(&str, Then, &str); 62] = [
    ("GET", Keep, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Keep, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("GET", Keep, "HTTP/1.1 200 OK\r\nContent-Length: 05\r\n\r\nhello"),
    (
        "GET",
        Keep,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden",
    ),
    (
        "GET",
        Keep,
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden",
    ),
    ("GET", Keep, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.0 200 OK\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1  200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 999 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/2 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "hello"),
    ("GET", Close, ""),
    ("GET", Close, "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nX: y\rContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nno field\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Keep, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("GET", Keep, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    (
        "GET",
        Keep,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden",
    ),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello"),
    (
        "GET",
        Close,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "GET",
        Close,
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ("GET", Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello"),
    (
        "GET",
        Close,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    ("GET", Keep, "HTTP/1.1 204 No Content\r\n\r\n"),
    ("GET", Keep, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Keep, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n"),
    (
        "GET",
        Keep,
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden",
    ),
    (
        "GET",
        Keep,
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    ("GET", Keep, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("GET", Close, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"),
    ("HEAD", Keep, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("HEAD", Keep, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("HEAD", Keep, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    ("HEAD", Close, "HTTP/1.1 200 OK\r\n\r\n"),
];

/// Starts the app; its port.
pub(crate) fn start() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || converse(stream));
        }
    });
    port
}

fn converse(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut field = String::new();
        while reader.read_line(&mut field)? > 2 {
            field.clear();
        }
        let asked = first.split(' ').nth(1).and_then(|target| target.strip_prefix("/r/"));
        match asked.and_then(|number| number.parse::<usize>().ok()).map(|number| ALL[number]) {
            None => writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsafe")?,
            Some((_, then, answer)) => {
                writer.write_all(answer.as_bytes())?;
                if then == Close {
                    return Ok(());
                }
            }
        }
    }
}
