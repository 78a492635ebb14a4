//! A small HTTPS client: one request after the other over one connection, as long as that lasts; the platform's certificate checked
//! with its own CA and no other.

use std::{
    io,
    net::SocketAddr,
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
use http_body_util::{BodyExt, Either, Full, Limited};
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

use crate::{failure::Failure, place::reachable};

/// How long a request may take while nothing of it is sent: that of which much is to be sent may take as long as it goes on.
const TIMEOUT: Duration = Duration::from_secs(60);
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
        let local = host == "localhost" || host.ends_with(".localhost");
        let port = authority.port_u16().unwrap_or(if local { listen.port() } else { 443 });
        let address = local.then(|| SocketAddr::new(reachable(listen).ip(), port));
        Ok(Self { host, port, address })
    }
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

/// The client of one server.
pub(crate) struct Client {
    target: Target,
    connector: TlsConnector,
    bearer: String,
    sent: Arc<AtomicU64>,
    /// The connection of the request before, if it may be used again.
    kept: Mutex<Option<Sender>>,
}

type Sender = http1::SendRequest<Brought>;

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
    /// A client that trusts the CA of this file.
    pub(crate) fn new(target: Target, ca_file: &Path, token: &str) -> Result<Self, Failure> {
        let hint = "it is the CA beside the platform's certificate; [procmgr] ca_file names it";
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!("could not read a certificate from {}: {error}", ca_file.display()), hint)
        };
        let mut roots = RootCertStore::empty();
        for found in CertificateDer::pem_file_iter(ca_file).map_err(|error| failed(&error))? {
            roots.add(found.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
        }
        if roots.is_empty() {
            return Err(failed(&"there is none in it"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(|error| failed(&error))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            target,
            connector: TlsConnector::from(Arc::new(config)),
            bearer: format!("Bearer {token}"),
            sent: Arc::default(),
            kept: Mutex::default(),
        })
    }

    /// How many bytes were sent so far.
    pub(crate) fn sent(&self) -> &AtomicU64 {
        &self.sent
    }

    /// One request. What the server says is an answer, whatever its status; an error means that there was none.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let body = Either::Left(Full::new(ask.body.clone()));
        self.bring(ask, body).await
    }

    /// One request whose body is read as it is sent.
    pub(crate) async fn ask_with(&self, ask: Ask<'_>, pieces: Pieces) -> Result<Answer, Failure> {
        self.bring(ask, Either::Right(pieces)).await
    }

    async fn bring(&self, ask: Ask<'_>, body: Brought) -> Result<Answer, Failure> {
        let Target { host, port, .. } = &self.target;
        let what = format!("{} https://{host}:{port}{}", ask.method, ask.path);
        let failed =
            |why: String| Failure::new(format!("{what}: {why}"), "is the platform up? see nexushub status");
        let mut exchange = std::pin::pin!(self.exchange(ask, body));
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            match tokio::time::timeout(TIMEOUT, &mut exchange).await {
                Ok(answer) => return answer.map_err(failed),
                Err(_) if self.sent.load(Ordering::Relaxed) > before => {}
                Err(_) => return Err(failed(format!("no answer within {} s", TIMEOUT.as_secs()))),
            }
        }
    }

    async fn exchange(&self, ask: Ask<'_>, body: Brought) -> Result<Answer, String> {
        let (sender, answer) = self.send(self.request(ask, body)?).await?;
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

    fn request(&self, ask: Ask<'_>, body: Brought) -> Result<Request<Brought>, String> {
        let mut request = Request::builder().method(ask.method).uri(ask.path);
        request = request.header(HOST, format!("{}:{}", self.target.host, self.target.port));
        request = request.header(AUTHORIZATION, &self.bearer);
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
        assert!(Client::new(target.clone(), &ca, "t").is_err(), "no CA, no client");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let client = Client::new(target, &ca, "t").unwrap();
        let path = "/debug/application";
        let ask = Ask { method: Method::GET, path, content_type: "", fields: &[], body: Bytes::new() };
        let failure = client.ask(ask).await.unwrap_err();
        assert!(
            failure.message.contains("GET https://localhost:1/debug/application: could not connect"),
            "{failure}"
        );
    }
}
