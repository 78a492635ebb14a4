//! A small HTTPS client: one request after the other over one connection, as long as that lasts. The platform's certificate is
//! always checked: of one on this machine with its own CA and no other, of one elsewhere with what the session says. No answer is
//! followed to another place, so what opens one door is never shown at another.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Collected, Either, Full, Limited};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

use crate::{failure::Failure, place::reachable, session::Session};

/// How long a request may take while nothing of it is sent: that of which much is to be sent may take as long as it goes on.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stream may be silent: the platform says every half a minute that it is there.
const SILENCE: Duration = Duration::from_secs(90);
/// Largest answer.
const ANSWER_MAX: usize = 1 << 20;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where to connect to, where the host's name needs no looking up.
    pub(crate) address: Option<SocketAddr>,
}

impl Target {
    /// The server of an `https://` URL. Names below localhost lead to the platform's own listener.
    pub(crate) fn parse(url: &str, listen: SocketAddr) -> Result<Self, Failure> {
        let refused = || {
            Failure::usage(
                format!("`{url}` is not an https:// URL of a host"),
                "such as https://localhost:8443",
            )
        };
        let uri: http::Uri = url.parse().map_err(|_| refused())?;
        let authority =
            uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(refused)?;
        if uri.scheme_str() != Some("https")
            || authority.as_str().contains('@')
            || !matches!(uri.path(), "" | "/")
        {
            return Err(refused());
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let local = is_local(&host);
        let port = authority.port_u16().unwrap_or(if local { listen.port() } else { 443 });
        let address = local.then(|| SocketAddr::new(reachable(listen).ip(), port));
        Ok(Self { host, port, address })
    }

    /// The server of a URL that means a platform by itself: names below localhost are this machine's, by the usual port.
    pub(crate) fn elsewhere(url: &str) -> Result<Self, Failure> {
        Self::parse(url, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 443))
    }

    /// Its address, in one way only.
    pub(crate) fn url(&self) -> String {
        match self.port {
            443 => format!("https://{}", self.host),
            port => format!("https://{}:{port}", self.host),
        }
    }

    /// The server of this name.
    pub(crate) fn at(host: String, port: u16) -> Self {
        let address = is_local(&host).then(|| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        Self { host, port, address }
    }
}

/// Whether a name is this machine's, whoever is asked.
fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What it says, for people.
    pub(crate) fn text(&self) -> String {
        crate::table::one_line(String::from_utf8_lossy(&self.body).trim()).chars().take(500).collect()
    }
}

/// What is asked.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// Empty = no body.
    pub(crate) content_type: &'a str,
    /// Further header fields.
    pub(crate) fields: &'a [(&'a str, &'a str)],
    pub(crate) body: Bytes,
}

/// A body that is not in memory: it is read as it is sent.
pub(crate) struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl Pieces {
    /// So many bytes, in pieces.
    pub(crate) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>, length: u64) -> Self {
        Self { pieces, left: length }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(self.pieces.poll_recv(cx)).transpose()?;
        self.left -= piece.as_ref().map_or(0, |piece| self.left.min(piece.len() as u64));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// What a request brings.
type Brought = Either<Full<Bytes>, Pieces>;

fn in_memory(ask: &Ask<'_>) -> Brought {
    Either::Left(Full::new(ask.body.clone()))
}

/// Whose certificates are believed.
pub(crate) enum Roots<'a> {
    /// Those of the authorities in this file, and no others.
    File(&'a Path),
    /// Those of these authorities, as PEM, and no others.
    Pem(&'a str),
    /// Those of the authorities that this machine trusts.
    System,
}

impl Roots<'_> {
    fn store(&self) -> Result<RootCertStore, Failure> {
        let mut store = RootCertStore::empty();
        let mut add = |found: CertificateDer<'static>| store.add(found).map_err(|error| error.to_string());
        let read = match self {
            Self::File(path) => CertificateDer::pem_file_iter(path)
                .map_err(|error| error.to_string())
                .and_then(|mut all| all.try_for_each(|found| add(found.map_err(|error| error.to_string())?))),
            Self::Pem(text) => CertificateDer::pem_slice_iter(text.as_bytes())
                .try_for_each(|found| add(found.map_err(|error| error.to_string())?)),
            Self::System => {
                // One that can't be read is one authority less, and no reason to trust no other.
                rustls_native_certs::load_native_certs().certs.into_iter().for_each(|found| drop(add(found)));
                Ok(())
            }
        };
        let read =
            read.and_then(|()| if store.is_empty() { Err("there is none in it".into()) } else { Ok(store) });
        read.map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &str) -> Failure {
        let (at, hint) = match self {
            Self::File(path) => (
                path.display().to_string(),
                "it is the CA beside the platform's certificate; [procmgr] ca_file names it",
            ),
            Self::Pem(_) => (
                "what was given with --ca".to_owned(),
                "it is the CA beside the platform's certificate, as PEM",
            ),
            Self::System => (
                "what this machine trusts".to_owned(),
                "install ca-certificates, or name the platform's CA: nexushub login URL --ca FILE",
            ),
        };
        Failure::new(format!("could not read a certificate from {at}: {error}"), hint)
    }
}

/// By what a request may pass.
pub(crate) enum Bearer {
    /// By nothing: it is for everybody.
    Nobody,
    /// By an operators' token of this machine.
    Operator(String),
    /// By access tokens of somebody who logged in.
    Person(Arc<Session>),
}

impl Bearer {
    async fn token(&self) -> Result<Option<String>, Failure> {
        match self {
            Self::Nobody => Ok(None),
            Self::Operator(token) => Ok(Some(token.clone())),
            Self::Person(session) => session.token().await.map(Some),
        }
    }

    /// Another one where there may be one, for this was refused.
    async fn instead_of(&self, refused: &str) -> Result<Option<String>, Failure> {
        match self {
            Self::Person(session) => session.instead_of(refused).await.map(Some),
            Self::Nobody | Self::Operator(_) => Ok(None),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Operator(_) => "is the platform up? see nexushub status",
            Self::Nobody | Self::Person(_) => "is the platform up, and to be reached from here?",
        }
    }
}

/// The client of one server.
pub(crate) struct Client {
    target: Target,
    connector: TlsConnector,
    bearer: Bearer,
    sent: Arc<AtomicU64>,
    /// The connection of the request before, if it may be used again.
    kept: Mutex<Option<Sender>>,
}

type Sender = http1::SendRequest<Brought>;

/// An answer whose body comes bit by bit.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    /// What the answer comes by ends with it.
    _connection: Sender,
}

impl Stream {
    /// The next bytes; none at the end. An error is why no more come, which may be a silence that is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| format!("nothing was heard for {} s", SILENCE.as_secs()))?;
            match frame.transpose().map_err(|error| said(&error))?.map(Frame::into_data) {
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                Some(Err(_)) => {} // trailers
                None => return Ok(None),
            }
        }
    }

    /// The whole of it, as an answer.
    pub(crate) async fn rest(self) -> Answer {
        let body = tokio::time::timeout(TIMEOUT, Limited::new(self.body, ANSWER_MAX).collect()).await;
        let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
        Answer { status: self.status, headers: self.headers, body }
    }
}

/// A connection of which the bytes that are sent are counted.
struct Counted {
    stream: TcpStream,
    sent: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Client {
    /// A client that believes these certificates.
    pub(crate) fn new(target: Target, roots: &Roots<'_>, bearer: Bearer) -> Result<Self, Failure> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions();
        let config = config.map_err(|error| Failure::new(format!("no TLS can be had: {error}"), ""))?;
        let mut config = config.with_root_certificates(roots.store()?).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { target, connector, bearer, sent: Arc::default(), kept: Mutex::default() })
    }

    /// How many bytes were sent so far.
    pub(crate) fn sent(&self) -> &AtomicU64 {
        &self.sent
    }

    /// One request. What the server says is an answer, whatever its status; an error means that there was none.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let token = self.bearer.token().await?;
        let answer = self.whole(ask.clone(), token.as_deref()).await?;
        match self.another(token.as_deref(), answer.status).await? {
            Some(token) => self.whole(ask, Some(&token)).await,
            None => Ok(answer),
        }
    }

    /// One request whose body is read as it is sent, so that it can't be made twice: where its token has ended meanwhile there is
    /// another one for the next.
    pub(crate) async fn ask_with(&self, ask: Ask<'_>, pieces: Pieces) -> Result<Answer, Failure> {
        let token = self.bearer.token().await?;
        let what = self.what(&ask);
        let answer = self.within(&what, self.exchange(ask, Either::Right(pieces), token.as_deref())).await?;
        match self.another(token.as_deref(), answer.status).await? {
            Some(_) => Err(self.failed(&what, "the access token has ended")),
            None => Ok(answer),
        }
    }

    /// The same, but the answer's body is read as it comes.
    pub(crate) async fn stream(&self, ask: Ask<'_>) -> Result<Stream, Failure> {
        let token = self.bearer.token().await?;
        let answer = self.begun(ask.clone(), token.as_deref()).await?;
        match self.another(token.as_deref(), answer.status).await? {
            Some(token) => self.begun(ask, Some(&token)).await,
            None => Ok(answer),
        }
    }

    /// The token to try once more with, if that is worth it.
    async fn another(&self, refused: Option<&str>, status: StatusCode) -> Result<Option<String>, Failure> {
        match refused {
            Some(refused) if status == StatusCode::UNAUTHORIZED => self.bearer.instead_of(refused).await,
            _ => Ok(None),
        }
    }

    async fn whole(&self, ask: Ask<'_>, token: Option<&str>) -> Result<Answer, Failure> {
        let (what, body) = (self.what(&ask), in_memory(&ask));
        self.within(&what, self.exchange(ask, body, token)).await
    }

    async fn begun(&self, ask: Ask<'_>, token: Option<&str>) -> Result<Stream, Failure> {
        let (what, body) = (self.what(&ask), in_memory(&ask));
        let begun = async {
            let (sender, answer) = self.send(self.request(ask, body, token)?).await?;
            let (head, body) = answer.into_parts();
            Ok(Stream { status: head.status, headers: head.headers, body, _connection: sender })
        };
        self.within(&what, begun).await
    }

    fn what(&self, ask: &Ask<'_>) -> String {
        let Target { host, port, .. } = &self.target;
        let path = ask.path.split('?').next().unwrap_or_default();
        format!("{} https://{host}:{port}{path}", ask.method)
    }

    fn failed(&self, what: &str, why: &str) -> Failure {
        Failure { passing: true, ..Failure::new(format!("{what}: {why}"), self.bearer.hint()) }
    }

    /// Waits for it, as long as something is sent meanwhile.
    async fn within<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            match tokio::time::timeout(TIMEOUT, &mut work).await {
                Ok(done) => return done.map_err(|why| self.failed(what, &why)),
                Err(_) if self.sent.load(Ordering::Relaxed) > before => {}
                Err(_) => return Err(self.failed(what, &format!("no answer within {} s", TIMEOUT.as_secs()))),
            }
        }
    }

    async fn exchange(&self, ask: Ask<'_>, body: Brought, token: Option<&str>) -> Result<Answer, String> {
        let (sender, answer) = self.send(self.request(ask, body, token)?).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    /// Over the connection that is kept, or over a new one if that takes it no more.
    async fn send(&self, request: Request<Brought>) -> Result<(Sender, Response<Incoming>), String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut request = request;
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((sender, answer)),
                Err(mut unsent) => match unsent.take_message() {
                    Some(back) => request = back,
                    None => return Err(said(unsent.error())),
                },
            }
        }
        let mut sender = self.open().await?;
        let answer = sender.send_request(request).await.map_err(|error| said(&error))?;
        Ok((sender, answer))
    }

    fn request(&self, ask: Ask<'_>, body: Brought, token: Option<&str>) -> Result<Request<Brought>, String> {
        let mut request = Request::builder().method(ask.method).uri(ask.path);
        request = request.header(HOST, format!("{}:{}", self.target.host, self.target.port));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !ask.content_type.is_empty() {
            request = request.header(CONTENT_TYPE, ask.content_type);
        }
        request = ask.fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(body).map_err(|error| said(&error))
    }

    /// A connection of its own.
    async fn open(&self) -> Result<Sender, String> {
        let stream = Counted { stream: self.connect().await?, sent: Arc::clone(&self.sent) };
        let name = ServerName::try_from(self.target.host.clone()).map_err(|error| said(&error))?;
        let stream = self.connector.connect(name, stream).await.map_err(|error| said(&error))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
        tokio::spawn(connection); // it ends when its sender is let go of
        Ok(sender)
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let Target { host, port, address } = &self.target;
        let addresses: Vec<SocketAddr> = match address {
            Some(address) => vec![*address],
            None => {
                let found = lookup_host((host.as_str(), *port)).await;
                found.map_err(|error| format!("could not look up {host}: {error}"))?.collect()
            }
        };
        let mut last = format!("{host} has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("could not connect to {address}: {error}"),
            }
        }
        Err(last)
    }
}

fn said(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(url: &str) -> Result<Target, Failure> {
        Target::parse(url, "0.0.0.0:9443".parse().unwrap())
    }

    #[test]
    fn names_below_localhost_lead_to_the_platforms_listener() {
        let target = parse("https://debug.yesterday.localhost").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("debug.yesterday.localhost", 9443));
        assert_eq!(target.address, Some("127.0.0.1:9443".parse().unwrap()));
        assert_eq!(
            parse("https://localhost:8443/").unwrap().address,
            Some("127.0.0.1:8443".parse().unwrap())
        );
    }

    #[test]
    fn other_names_are_looked_up() {
        let target = parse("https://Hub.example.com").unwrap();
        assert_eq!(target, Target { host: "hub.example.com".into(), port: 443, address: None });
        assert_eq!(parse("https://[::1]:8443").unwrap().host, "::1");
    }

    #[test]
    fn a_platform_elsewhere_has_the_usual_port_and_one_address() {
        for (url, address, local) in [
            ("https://Admin.Example.org/", "https://admin.example.org", None),
            ("https://example.org:443", "https://example.org", None),
            ("https://x.localhost:8443", "https://x.localhost:8443", Some("127.0.0.1:8443")),
            ("https://localhost", "https://localhost", Some("127.0.0.1:443")),
            ("https://localhost.example.org", "https://localhost.example.org", None),
        ] {
            let target = Target::elsewhere(url).unwrap();
            assert_eq!(target.url(), address);
            assert_eq!(target.address, local.map(|local| local.parse().unwrap()), "{url}");
            assert_eq!(Target::at(target.host.clone(), target.port), target);
        }
    }

    #[test]
    fn what_is_no_https_url_is_wrong_usage() {
        for bad in [
            "",
            "localhost",
            "http://localhost",
            "https://",
            "https://a/path",
            "https://u:p@a",
            "https://a b",
        ] {
            assert_eq!(parse(bad).unwrap_err().code, crate::failure::USAGE, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.crt");
        let target = parse("https://localhost:1").unwrap();
        let client =
            |ca: &Path| Client::new(target.clone(), &Roots::File(ca), Bearer::Operator("t".to_owned()));
        assert!(client(&ca).is_err(), "no CA, no client");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let client = client(&ca).unwrap();
        let path = "/debug/application";
        let ask = Ask { method: Method::GET, path, content_type: "", fields: &[], body: Bytes::new() };
        let failure = client.ask(ask).await.unwrap_err();
        assert!(
            failure.message.contains("GET https://localhost:1/debug/application: could not connect"),
            "{failure}"
        );
    }
}
