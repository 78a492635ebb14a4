//! The app behind every contender: HTTP/1.1 kept alive, one thread, one system call in and one out for each request, so that it
//! takes as little as can be of the core that it shares with the generator.
//!
//! | path | answer |
//! |---|---|
//! | `/100k`, `/100m` | so many bytes |
//! | `/ws` | a WebSocket that echoes short messages |
//! | anything else | 1 KiB; what a POST brings is read and forgotten |

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd,
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tungstenite::handshake::derive_accept_key;

use super::sizes::{LARGE, MIDDLE, SMALL};

/// The variable that makes this program the backend; procmgr says on which port.
pub(crate) const ROLE: &str = "PROXY_BENCH_BACKEND";
/// The listener's place among the connections.
const LISTENER: u64 = 0;
/// Where long bodies are taken from, and what is read at once.
const CHUNK: usize = 256 * 1024;

/// Serves until the process is ended.
///
/// # Errors
/// When port or descriptors can't be had.
pub(crate) fn serve(port: u16) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?; // each route may keep connections of its own
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut guests: HashMap<u64, Guest> = HashMap::new();
    let (mut next, mut events) = (LISTENER, Vec::with_capacity(1024));
    let mut answers = Answers::prepare();
    loop {
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for Event { data, .. } in events.drain(..) {
            if data.u64() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    next += 1;
                    guests.insert(next, Guest::welcome(&poll, stream, next)?);
                }
            } else if let Some(guest) = guests.get_mut(&data.u64())
                && guest.attend(&poll, data, &mut answers).is_err()
            {
                guests.remove(&data.u64()); // it hung up, or said what we don't understand
            }
        }
    }
}

/// What is said, made once; and the room for what is heard.
struct Answers {
    small: Vec<u8>,
    middle: Vec<u8>,
    large: Vec<u8>,
    zeros: Vec<u8>,
    heard: Vec<u8>,
}

impl Answers {
    fn prepare() -> Self {
        let head = |size: usize| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ";
            format!("{head}{size}\r\n\r\n").into_bytes()
        };
        let with_body = |size: usize| [head(size), vec![b'x'; size]].concat();
        let (small, middle) = (with_body(SMALL), with_body(MIDDLE));
        Self { small, middle, large: head(LARGE), zeros: vec![b'x'; CHUNK], heard: vec![0; CHUNK] }
    }
}

/// One connection.
struct Guest {
    stream: TcpStream,
    /// What it said and we have not understood yet: the beginning of a head, or of a frame.
    heard: Vec<u8>,
    /// Bytes of a request's body that are still to come.
    body: usize,
    /// What the socket did not take.
    unsaid: Vec<u8>,
    /// Bytes of a long body that are still to be said after that.
    long: usize,
    /// Only frames come from now on.
    upgraded: bool,
    /// The poll tells when the socket takes more.
    waits: bool,
}

impl Guest {
    fn welcome(poll: impl AsFd, stream: TcpStream, place: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll::add(poll, &stream, EventData::new_u64(place), EventFlags::IN)?;
        let (heard, unsaid) = (Vec::new(), Vec::new());
        Ok(Self { stream, heard, body: 0, unsaid, long: 0, upgraded: false, waits: false })
    }

    /// Reads what there is, answers it, and goes on with what could not be said before.
    fn attend(&mut self, poll: impl AsFd, place: EventData, answers: &mut Answers) -> io::Result<()> {
        if self.unsaid.is_empty() && self.long == 0 {
            self.listen(answers)?;
        }
        self.speak(&answers.zeros)?;
        let waits = !self.unsaid.is_empty() || self.long > 0;
        if waits != self.waits {
            self.waits = waits;
            let interest = if waits { EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(poll, &self.stream, place, interest)?;
        }
        Ok(())
    }

    fn listen(&mut self, answers: &mut Answers) -> io::Result<()> {
        let length = match self.stream.read(&mut answers.heard) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let rest = length.saturating_sub(self.body);
        if self.body > 0 {
            self.body -= length - rest;
            if self.body == 0 {
                self.unsaid.extend_from_slice(&answers.small);
            }
        }
        self.heard.extend_from_slice(&answers.heard[length - rest..length]);
        while !self.heard.is_empty() && self.body == 0 {
            let used = if self.upgraded { self.echo()? } else { self.answer(answers) };
            if used == 0 {
                break; // the rest comes later
            }
            self.heard.drain(..used);
        }
        Ok(())
    }

    /// One request; how many bytes it was.
    fn answer(&mut self, answers: &Answers) -> usize {
        let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") else { return 0 };
        let (head, here) = (&self.heard[..end], self.heard.len() - end - 4);
        if head.starts_with(b"POST") {
            let whole = field(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            let had = here.min(whole);
            self.body = whole - had;
            if self.body == 0 {
                self.unsaid.extend_from_slice(&answers.small);
            }
            return end + 4 + had;
        }
        if head.starts_with(b"GET /ws") {
            let accept = derive_accept_key(field(head, "sec-websocket-key").unwrap_or_default().as_bytes());
            self.unsaid.extend_from_slice(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
            );
            self.unsaid.extend_from_slice(format!("Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
            self.upgraded = true;
        } else if head.starts_with(b"GET /100m") {
            self.unsaid.extend_from_slice(&answers.large);
            self.long = LARGE;
        } else {
            let answer = if head.starts_with(b"GET /100k") { &answers.middle } else { &answers.small };
            self.unsaid.extend_from_slice(answer);
        }
        end + 4
    }

    /// One masked frame of less than 126 bytes, said back; how many bytes it was.
    fn echo(&mut self) -> io::Result<usize> {
        let &[kind, length, ..] = self.heard.as_slice() else { return Ok(0) };
        let length = usize::from(length & 0x7F);
        if length > 125 || kind & 0x0F == 8 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let Some(frame) = self.heard.get(2..6 + length) else { return Ok(0) };
        let (mask, body) = frame.split_at(4);
        self.unsaid.extend([kind, u8::try_from(length).expect("seven bits")]);
        self.unsaid.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        Ok(6 + length)
    }

    /// Says what there is until the socket takes no more.
    fn speak(&mut self, zeros: &[u8]) -> io::Result<()> {
        while !self.unsaid.is_empty() || self.long > 0 {
            let short = !self.unsaid.is_empty();
            let said = if short { &self.unsaid } else { &zeros[..self.long.min(zeros.len())] };
            match self.stream.write(said) {
                Ok(length) if short => drop(self.unsaid.drain(..length)),
                Ok(length) => self.long -= length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A header field's value, of a head that proxies wrote.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = str::from_utf8(head).ok()?.split("\r\n");
    let mut pairs = lines.filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
