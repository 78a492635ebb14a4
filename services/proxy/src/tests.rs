//! The front and the forwarder on real sockets: a proxy of its own for each test, backends that do what the test scripts,
//! clients that write bytes. Everything waits on what it reads; `patient` turns a hang into a failure.
#![allow(clippy::unwrap_used)]

mod accounts;
mod backends;
mod clients;
mod conformance;
mod crowds;
mod entrances;
mod floods;
mod guards;
mod limits;
mod shares;
mod staples;
mod streams;
mod upgrades;

use std::{
    fs::Permissions,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    pin::Pin,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::counters::Counters;
use crate::table::{Change, Entry};

/// The host name of the app that most tests ask.
const HOST: &str = "hello.yesterday.localhost";

/// What a test waits for must come; how long is of no interest unless it never does.
async fn patient<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(60), future).await.expect("waited in vain")
}

/// Has so many milliseconds pass at once, for the proxy and for us: a deadline ends when the test has come to it, on whatever machine.
async fn pass(milliseconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(milliseconds)).await;
    tokio::time::resume();
}

/// A proxy on a port of its own.
struct Hub {
    address: SocketAddr,
    publish: watch::Sender<Arc<Table>>,
    proxy: Arc<Proxy>,
    drain: CancellationToken,
    front: Arc<Front>,
    accepting: JoinHandle<()>,
    roots: RootCertStore,
    folder: tempfile::TempDir,
}

impl Hub {
    async fn start(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) =
            certificate::tests::make(&["*.yesterday.localhost", "localhost", "127.0.0.1"], (2020, 2090));
        let place = shelf::Place {
            certificate: folder.path().join("server.crt"),
            key: folder.path().join("server.key"),
        };
        std::fs::write(&place.certificate, &certificate).unwrap();
        std::fs::write(&place.key, key).unwrap();
        std::fs::set_permissions(&place.key, Permissions::from_mode(0o600)).unwrap();
        let shelf = Shelf::load(vec![place], tls::provider()).unwrap();
        let tls = Tls::new(shelf, Tickets::load(folder.path(), now_unix())).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let (publish, table) = watch::channel(Arc::new(Table::empty(config.pool_limits())));
        let proxy = proxy_for(&config, table, folder.path().join("debug.sock"));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        front::prepare(&listener).unwrap();
        let address = listener.local_addr().unwrap();
        let drain = CancellationToken::new();
        let front = Front::new(Arc::clone(&proxy), tls, &config);
        let door = Door::outside(config.outer_bounds(), Arc::clone(&proxy.counters), drain.clone());
        let listener = TcpListener::from_std(listener).unwrap();
        let accepting = tokio::spawn(Arc::clone(&front).accept(listener, door, Manner::Serve));
        tokio::spawn(Entrances::new(Arc::clone(&front), &config, drain.clone()).follow(publish.subscribe()));
        Self { address, publish, proxy, drain, front, accepting, roots, folder }
    }

    /// A proxy with one app, `HOST`, at this backend.
    async fn with(backend: &Backend, config: Config) -> Self {
        let hub = Self::start(config).await;
        hub.route(vec![table::tests::running("h1", "hello", backend.port)]);
        hub
    }

    fn route(&self, entries: Vec<Entry>) {
        self.change(Change::Snapshot { entries, reconciled: true });
    }

    fn change(&self, change: Change) {
        let next = self.publish.borrow().apply(change);
        self.publish.send_replace(Arc::new(next));
    }

    async fn connect(&self, alpn: &[&[u8]], name: &str) -> TlsStream<TcpStream> {
        self.connect_to(self.address, alpn, name).await
    }

    async fn connect_to(&self, address: SocketAddr, alpn: &[&[u8]], name: &str) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        self.shake(stream, alpn, name).await
    }

    async fn shake(&self, stream: TcpStream, alpn: &[&[u8]], name: &str) -> TlsStream<TcpStream> {
        let config = self.client_config(alpn);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        patient(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }

    fn client_config(&self, alpn: &[&[u8]]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }

    /// An HTTP/1.1 client.
    async fn client(&self) -> Peer {
        Peer::new(self.connect(&[b"http/1.1"], HOST).await)
    }

    /// What one HTTP/1.1 request is answered.
    async fn ask(&self, request: &str) -> Message {
        let mut client = self.client().await;
        client.write(request).await;
        client.message().await
    }

    /// An HTTP/2 client.
    async fn client_h2(&self) -> hyper::client::conn::http2::SendRequest<clients::TestBody> {
        let stream = self.connect(&[b"h2"], HOST).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Waits until a counter shows a number.
    async fn until(&self, counter: impl Fn(&Counters) -> u64, number: u64) {
        patient(async {
            while counter(&self.proxy.counters) != number {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// As `lib.rs` makes it, without a chassis.
fn proxy_for(config: &Config, table: watch::Receiver<Arc<Table>>, debug: PathBuf) -> Arc<Proxy> {
    let state = debug.parent().unwrap();
    let parts = ProxyParts {
        base_domain: "yesterday.localhost".into(),
        gate: Gate::load(state, Default::default(), now_unix() * 1000),
        audit: Default::default(),
        table,
        debug_socket: debug,
        debug_token: token("the-token"),
        sleep: Sleep::new(None, String::new()),
    };
    build(config, parts)
}

/// Deadlines that no test reaches but the one that is about them.
fn calm() -> Config {
    Config { access_log: false, switch_ms: 0, ..Config::default() }
}

/// A backend: a listener whose connections the test accepts and scripts.
struct Backend {
    listener: TcpListener,
    port: u16,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    async fn accept(&self) -> Peer {
        Peer::new(patient(self.listener.accept()).await.unwrap().0)
    }

    /// One with as many connections that nobody accepts as fit: the kernel answers no further one.
    async fn full() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect(address).await.unwrap(); // it stays in the queue although it is closed
        Self { listener, port: address.port() }
    }

    /// A port where nobody listens.
    async fn nobody() -> u16 {
        Self::start().await.port
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One end of a connection, read and written by hand.
struct Peer {
    stream: Pin<Box<dyn Stream>>,
    read: Vec<u8>,
}

/// A head and the body that its `Content-Length` announces.
#[derive(Debug)]
struct Message {
    head: String,
    body: String,
}

impl Message {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|found| found.eq_ignore_ascii_case(line))
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let matches =
            |line: &&str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        self.head
            .lines()
            .skip(1)
            .find(matches)
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
    }
}

impl Peer {
    fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::pin(stream), read: Vec::new() }
    }

    async fn write(&mut self, text: &str) {
        patient(self.stream.write_all(text.as_bytes())).await.unwrap();
        patient(self.stream.flush()).await.unwrap();
    }

    /// More bytes; false at the end, be it clean or not.
    async fn fill(&mut self) -> bool {
        let mut piece = [0; 4096];
        let length = patient(self.stream.read(&mut piece)).await.unwrap_or(0);
        self.read.extend_from_slice(&piece[..length]);
        length > 0
    }

    /// Everything up to and with these bytes.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self.read.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.fill().await, "ended before {end:?} after {so_far:?}");
        }
    }

    async fn head(&mut self) -> Message {
        Message { head: self.until("\r\n\r\n").await, body: String::new() }
    }

    async fn message(&mut self) -> Message {
        let mut message = self.head().await;
        let length: usize = message.field("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.fill().await, "ended within the body of {}", message.head);
        }
        let rest = self.read.split_off(length);
        message.body = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
        message
    }

    /// Reads to the end and returns what came.
    async fn rest(&mut self) -> String {
        while self.fill().await {}
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }
}

/// The debug-api's socket of this proxy.
fn debug_api(hub: &Hub) -> UnixListener {
    UnixListener::bind(hub.folder.path().join("debug.sock")).unwrap()
}

async fn accept_unix(listener: &UnixListener) -> Peer {
    let stream: UnixStream = patient(listener.accept()).await.unwrap().0;
    Peer::new(stream)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
