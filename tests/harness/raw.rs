//! Bytes on a socket that no honest client sends, the same in every run.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::HANG;

/// How the peer of hostile bytes behaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It closed, after these many bytes.
    Closed(usize),
    /// It was still waiting when we had nothing more to say.
    Waited,
}

/// The beginning of every HTTP/2 connection.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame.
pub const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Bytes without meaning, from a seed (xorshift).
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| step()).collect()
}

/// Things to say to a server of HTTP/2: noise, half frames, frames that lie about themselves, frames in no order.
#[must_use]
pub fn insults() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |length: u32, kind: u8, flags: u8, stream: u32, body: &[u8]| {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(body);
        bytes
    };
    let after = |rest: Vec<u8>| [PREFACE, SETTINGS, &rest].concat();
    vec![
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
        ("noise", noise(1, 4096)),
        ("much noise", noise(2, 1 << 20)),
        ("half a preface", PREFACE[..9].to_vec()),
        ("a preface and noise", [PREFACE, &noise(3, 4096)].concat()),
        ("half a frame", after(frame(100, 0, 0, 1, b"half"))),
        ("an oversize frame", after(frame(0x00FF_FFFF, 0, 0, 1, &noise(4, 70_000)))),
        ("data on no stream", after(frame(4, 0, 0, 0, b"data"))),
        ("headers that are noise", after(frame(64, 1, 4, 1, &noise(5, 64)))),
        ("a window of nothing", after(frame(4, 8, 0, 0, &[0; 4]))),
        ("settings of a wrong length", [PREFACE, &frame(5, 4, 0, 0, &[0; 5])].concat()),
        ("a push from a client", after(frame(4, 5, 4, 1, &[0, 0, 0, 2]))),
        ("an unknown frame", after(frame(4, 0xEE, 0xFF, 7, b"what"))),
        ("many pings", after(frame(8, 6, 0, 0, b"12345678").repeat(10_000))),
        (
            "many resets",
            after(
                (0..5_000_u32)
                    .flat_map(|n| {
                        [frame(1, 1, 4, n * 2 + 1, &[0x82]), frame(4, 3, 0, n * 2 + 1, &[0, 0, 0, 8])]
                            .concat()
                    })
                    .collect(),
            ),
        ),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("a long line", [b"GET /".to_vec(), vec![b'a'; 1 << 20]].concat()),
        ("a negative length", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec()),
        (
            "two lengths",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        ),
        (
            "a chunk that lies",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n".to_vec(),
        ),
        ("a header without a name", b"GET / HTTP/1.1\r\nhost: x\r\n: x\r\n\r\n".to_vec()),
        ("bare line feeds and NULs", b"GET / HTTP/1.1\nhost: \0\n\n".to_vec()),
    ]
}

/// Says it to a Unix socket, hangs up its own side, and waits for the other's end.
///
/// # Panics
/// When nobody listens there.
#[allow(clippy::must_use_candidate)] // how it ended is often beside the point
pub fn say_unix(path: &Path, bytes: &[u8]) -> End {
    let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    converse(&stream, &stream, bytes, || stream.shutdown(Shutdown::Write).is_ok())
}

/// Says it to a TCP port, hangs up its own side, and waits for the other's end.
///
/// # Panics
/// When nobody listens there.
#[allow(clippy::must_use_candidate)] // how it ended is often beside the point
pub fn say_tcp(address: std::net::SocketAddr, bytes: &[u8], patience: Duration) -> End {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    converse(&stream, &stream, bytes, || stream.shutdown(Shutdown::Write).is_ok())
}

fn converse(mut from: impl Read, mut to: impl Write, bytes: &[u8], hang_up: impl Fn() -> bool) -> End {
    let said = to.write_all(bytes).is_ok(); // a peer that closes early is right to
    if said {
        hang_up();
    }
    let mut heard = 0;
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return End::Closed(heard),
            Ok(length) => heard += length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return End::Waited,
            Err(_) => return End::Closed(heard),
        }
    }
}
