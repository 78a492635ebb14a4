//! A client on the other side of the HTTPS port: HTTP/1.1 or h2, any name in SNI and Host, the platform's own CA.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Platform, soon, workshop::DOMAIN};

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listened.
    Refused,
    /// The connection was lost before a request was sent on it: a client may try again.
    Unsent(String),
    /// It was closed after the request and before the first byte of an answer: on a kept connection a client may try again
    /// what it may do twice.
    Cut(String),
    /// It was lost on the way: in the handshake, or between request and end of the answer.
    InFlight(String),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Which HTTP it came by.
    pub version: Version,
}

impl Answer {
    /// Its body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its body as JSON.
    ///
    /// # Panics
    /// When it isn't.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// One header's text; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The client.
#[derive(Debug, Clone)]
pub struct Https {
    address: SocketAddr,
    trust: Arc<RootCertStore>,
    /// Where it connects from, if that matters.
    from: Option<IpAddr>,
    shows: Option<Arc<Shown>>,
}

/// A client's own certificate and its key.
pub type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Platform {
    /// A client that trusts this platform's CA.
    #[must_use]
    pub fn https(&self) -> Https {
        Https::new(self.address, &self.home.certs().join("ca.crt"))
    }
}

impl Https {
    /// A client of an address that trusts a CA.
    ///
    /// # Panics
    /// When the CA's certificate can't be read.
    #[must_use]
    pub fn new(address: SocketAddr, ca: &Path) -> Self {
        let mut trust = RootCertStore::empty();
        let pem = fs::read(ca).unwrap();
        trust.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        Self { address, trust: Arc::new(trust), from: None, shows: None }
    }

    /// One that shows a certificate where it is asked for one.
    #[must_use]
    pub fn showing(self, shown: Shown) -> Self {
        Self { shows: Some(Arc::new(shown)), ..self }
    }

    /// One that connects from this address.
    #[must_use]
    pub fn calling_from(self, address: IpAddr) -> Self {
        Self { from: Some(address), ..self }
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The full name of a relative host name.
    #[must_use]
    pub fn name(host: &str) -> String {
        match host {
            "" => DOMAIN.to_owned(),
            _ if host == "localhost" || host.contains(DOMAIN) => host.to_owned(),
            _ => format!("{host}.{DOMAIN}"),
        }
    }

    /// The address as it stands in a Host header or a URL.
    #[must_use]
    pub fn authority(&self, host: &str) -> String {
        format!("{}:{}", Self::name(host), self.address.port())
    }

    /// GET, with an answer.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, host: &str, path: &str) -> Answer {
        let request = Request::get(path).body(Full::default()).unwrap();
        let answer = self.send(Protocol::Http1, host, request).await;
        answer.unwrap_or_else(|failure| panic!("no answer from {host}{path}: {failure:?}"))
    }

    /// POST, with an answer.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(&self, host: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(path).body(Full::new(body.into())).unwrap();
        let answer = self.send(Protocol::Http1, host, request).await;
        answer.unwrap_or_else(|failure| panic!("no answer from {host}{path}: {failure:?}"))
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn send(
        &self,
        protocol: Protocol,
        host: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Failure> {
        let mut connection = self.open(protocol, host).await?;
        connection.send(request).await
    }

    /// A connection, shaken hands on.
    ///
    /// # Errors
    /// When nobody listened, or the handshake broke.
    pub async fn open(&self, protocol: Protocol, host: &str) -> Result<Connection, Failure> {
        soon("a connection", self.open_unbounded(protocol, host)).await
    }

    async fn open_unbounded(&self, protocol: Protocol, host: &str) -> Result<Connection, Failure> {
        let alpn: &[u8] = if protocol == Protocol::Http1 { b"http/1.1" } else { b"h2" };
        let stream = TokioIo::new(self.tls(host, &[alpn]).await?);
        let lost = |error: hyper::Error| Failure::InFlight(format!("handshake: {error:?}"));
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.map_err(lost)?;
                tokio::spawn(connection.with_upgrades());
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.map_err(lost)?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, authority: self.authority(host) })
    }

    /// What this client shakes hands with; whoever keeps it keeps its sessions.
    ///
    /// # Panics
    /// When the client's cryptography has none of the protocol's versions.
    #[must_use]
    pub fn tls_config(&self, alpn: &[&[u8]]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(Arc::clone(&self.trust));
        let mut config = match self.shows.as_deref() {
            Some((chain, key)) => config.with_client_auth_cert(vec![chain.clone()], key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    pub(crate) async fn tcp(&self) -> io::Result<TcpStream> {
        let Some(from) = self.from else { return TcpStream::connect(self.address).await };
        let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Looking for a port that is free whoever is called takes the kernel long, with what floods leave behind.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind((from, 0).into())?;
        socket.connect(self.address).await
    }

    /// A TLS stream to a name, and nothing on it yet.
    ///
    /// # Errors
    /// When nobody listened, or the handshake broke.
    ///
    /// # Panics
    /// When the name can't be one.
    pub async fn tls(&self, host: &str, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>, Failure> {
        let tcp = self.tcp().await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            _ => Failure::InFlight(format!("connect: {error}")),
        })?;
        tcp.set_nodelay(true).ok();
        let config = self.tls_config(alpn);
        let name = ServerName::try_from(Self::name(host)).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        stream.map_err(|error| Failure::InFlight(format!("TLS: {error}")))
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection on which one request follows the other.
pub struct Connection {
    sender: Sender,
    authority: String,
}

impl Connection {
    /// A request and the head of its answer; the path may be relative to the connection's host.
    ///
    /// # Errors
    /// When no head came.
    ///
    /// # Panics
    /// When the path is none.
    pub async fn begin(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        // A server that goes away in peace has not looked at what it did not answer (RFC 9113, 6.8).
        let at_peace =
            |error: &hyper::Error| format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)");
        let lost = |error: &hyper::Error| match (
            error.is_canceled() || at_peace(error),
            error.is_incomplete_message(),
        ) {
            (true, _) => Failure::Unsent(format!("{error:?}")),
            (_, true) => Failure::Cut(format!("{error:?}")),
            _ => Failure::InFlight(format!("{error:?}")),
        };
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                if !request.headers().contains_key("host") {
                    request.headers_mut().insert("host", self.authority.parse().unwrap());
                }
                sender.ready().await.map_err(|error| Failure::Unsent(format!("{error:?}")))?;
                soon("the head of an answer", sender.send_request(request)).await
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
                *request.uri_mut() = format!("https://{}{path}", self.authority).parse().unwrap();
                sender.ready().await.map_err(|error| Failure::Unsent(format!("{error:?}")))?;
                soon("the head of an answer", sender.send_request(request)).await
            }
        };
        answer.map_err(|error| lost(&error))
    }

    /// A request and its whole answer.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let (head, body) = self.begin(request).await?.into_parts();
        let body = soon("the body of an answer", body.collect()).await;
        let body = body.map_err(|error| Failure::InFlight(format!("body: {error:?}")))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body, version: head.version })
    }
}
