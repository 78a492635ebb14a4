//! The rows of the table: what is asked of every contender.

use std::rc::Rc;

use super::{
    contenders::{HOST, route},
    generator::Life,
    sizes::{LARGE, MIDDLE, SMALL},
    speech::{H1, H2, Speech, WebSocket},
};

/// Routes besides the app's own, where there are many.
pub(crate) const ROUTES: usize = 10_000;
/// Every how many-th of them is asked for: ours keeps connections to each app, and it is not their number that is measured.
const ROUTES_APART: usize = 20;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Its short name, for the command line.
    pub(crate) name: &'static str,
    /// For readers.
    pub(crate) says: &'static str,
    pub(crate) measure: Measure,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measure {
    /// As much as goes: how much, and what each costs.
    Peak(Shape),
    /// How long requests take at half of what goes.
    HalfLoad(Shape),
    /// How much longer a lonely request takes than without a proxy.
    Added(Shape),
    /// What a connection costs that does nothing.
    Memory(usize),
}

/// A load's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) talk: Talk,
    pub(crate) links: usize,
    /// Requests at once on each link.
    pub(crate) depth: usize,
    pub(crate) life: Life,
    /// Sessions are taken up again.
    pub(crate) resumes: bool,
    /// Further connections that do nothing.
    pub(crate) idle: usize,
    /// Figures are of bytes, not of requests.
    pub(crate) bulk: bool,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talk {
    Small,
    Middle,
    Download,
    /// So many bytes, for a small answer.
    Upload(usize),
    /// A connection for one small answer.
    Close,
    /// The small answer over HTTP/2.
    Small2,
    Middle2,
    /// The small answer of each of many names, out of very many.
    Routes,
    Echo,
}

impl Talk {
    /// What a client of an address says; `requests` are those to routes.
    pub(crate) fn speech(self, port: u16, number: usize, requests: &Rc<[Vec<u8>]>) -> Box<dyn Speech> {
        let host = format!("{HOST}:{port}");
        match self {
            Self::Small => Box::new(H1::get(&host, "/1k", "")),
            Self::Middle => Box::new(H1::get(&host, "/100k", "")),
            Self::Download => Box::new(H1::get(&host, "/100m", "")),
            Self::Upload(bytes) => Box::new(H1::post(&host, "/upload", bytes)),
            Self::Close => Box::new(H1::get(&host, "/1k", "Connection: close\r\n")),
            Self::Small2 => Box::new(H2::get(&host, "/1k")),
            Self::Middle2 => Box::new(H2::get(&host, "/100k")),
            Self::Routes => Box::new(H1::of(Rc::clone(requests), number * 7 % requests.len())),
            Self::Echo => Box::new(WebSocket::of(&host, "/ws")),
        }
    }

    /// Requests to routes of an address; none where they aren't asked for.
    pub(crate) fn requests(self, port: u16) -> Rc<[Vec<u8>]> {
        let count = if self == Self::Routes { ROUTES } else { 0 };
        let request = |name: String| format!("GET /1k HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n").into_bytes();
        (0..count).step_by(ROUTES_APART).map(route).map(request).collect()
    }

    /// The protocol that the handshake agrees on.
    pub(crate) fn alpn(self) -> &'static [u8] {
        if matches!(self, Self::Small2 | Self::Middle2) { b"h2" } else { b"http/1.1" }
    }
}

/// A load of kept connections.
const fn kept(talk: Talk, links: usize, depth: usize) -> Shape {
    Shape { talk, links, depth, life: Life::Kept, resumes: false, idle: 0, bulk: false }
}

const fn fresh(resumes: bool) -> Shape {
    Shape { life: Life::Once, resumes, ..kept(Talk::Close, 16, 1) }
}

const fn bulk(talk: Talk) -> Shape {
    Shape { bulk: true, ..kept(talk, 4, 1) }
}

const fn row(name: &'static str, says: &'static str, measure: Measure) -> Row {
    Row { name, says, measure }
}

/// All of them, in the order of the table.
pub(crate) const ALL: [Row; 18] = {
    use Measure::{Added, HalfLoad, Memory, Peak};
    use Talk::{Download, Echo, Middle, Middle2, Routes, Small, Small2, Upload};
    let crowd = Shape { idle: 1000, ..kept(Small, 100, 1) };
    [
        row("h1-1k", "HTTP/1.1 kept alive, 1 KiB, 64 connections", Peak(kept(Small, 64, 1))),
        row("h1-100k", "HTTP/1.1 kept alive, 100 KiB, 32 connections", Peak(kept(Middle, 32, 1))),
        row("up-1k", "HTTP/1.1 kept alive, 1 KiB up, 64 connections", Peak(kept(Upload(SMALL), 64, 1))),
        row("up-100k", "HTTP/1.1 kept alive, 100 KiB up, 32 connections", Peak(kept(Upload(MIDDLE), 32, 1))),
        row("tls-full", "a new TLS connection for each request, full handshake", Peak(fresh(false))),
        row("tls-resumed", "a new TLS connection for each request, resumed", Peak(fresh(true))),
        row("h2-1", "HTTP/2, 1 KiB, 32 connections of 1 stream", Peak(kept(Small2, 32, 1))),
        row("h2-10", "HTTP/2, 1 KiB, 8 connections of 10 streams", Peak(kept(Small2, 8, 10))),
        row("h2-100", "HTTP/2, 1 KiB, 4 connections of 100 streams", Peak(kept(Small2, 4, 100))),
        row("h2-100k", "HTTP/2, 100 KiB, 8 connections of 4 streams", Peak(kept(Middle2, 8, 4))),
        row("down-100m", "HTTP/1.1, 100 MiB down, 4 connections", Peak(bulk(Download))),
        row("up-100m", "HTTP/1.1, 100 MiB up, 4 connections", Peak(bulk(Upload(LARGE)))),
        row("crowd", "HTTP/1.1, 1 KiB, 100 busy connections among 1,000 idle ones", Peak(crowd)),
        row(
            "routes",
            "HTTP/1.1, 1 KiB, 500 of 10,000 host names in turn, 64 connections",
            Peak(kept(Routes, 64, 1)),
        ),
        row("websocket", "WebSocket, echoes of 100 bytes, 64 connections", Peak(kept(Echo, 64, 1))),
        row("latency", "HTTP/1.1, 1 KiB, at half of the peak, 64 connections", HalfLoad(kept(Small, 64, 1))),
        row("added", "HTTP/1.1, 1 KiB, one request at a time", Added(kept(Small, 1, 1))),
        row("memory", "idle TLS connections, 5,000 of them", Memory(5000)),
    ]
};

impl Row {
    /// Whether it needs a field with all routes.
    pub(crate) fn needs_routes(&self) -> bool {
        matches!(self.measure, Measure::Peak(Shape { talk: Talk::Routes, .. }))
    }
}

/// Bytes of what a bulk row counts.
pub(crate) const MIB: f64 = (1 << 20) as f64;
