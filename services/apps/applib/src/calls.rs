//! Calls to other apps and to the platform, over the internal entrance: `https://internal.<base>:8443` on this machine, whose
//! certificate is judged by the platform's own authority (`SSL_CERT_FILE`). Every call says who it is from by the app's own
//! secret, which the app called never gets to see; it is told who calls ([`crate::Identity::caller`]), and the rules of its entry
//! (`callers`, `internal_callers`) say who may.
//! ```no_run
//! # async fn example(settings: &nexushub_applib::Settings) -> Result<(), Box<dyn std::error::Error>> {
//! use http::Method;
//! use nexushub_applib::calls::{Call, Entrance};
//!
//! let entrance = Entrance::from_env(settings)?;
//! let stock: serde_json::Value = entrance.ask(Call::new(Some("shop"), Method::GET, "/api/stock")).await?;
//! # let _ = stock;
//! # Ok(())
//! # }
//! ```

use std::{
    collections::VecDeque,
    env, io,
    net::Ipv4Addr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    Refusal, Settings,
    tls::{self, Duplex},
};

/// Where the entrance is, where the platform does not say.
const ENTRANCE: &str = "internal.yesterday.localhost:8443";
/// How long a connection is kept for the next call: less than the platform keeps it.
const IDLE: Duration = Duration::from_secs(20);
/// Connections kept.
const IDLE_MAX: usize = 8;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the head of an answer may take, unless a call says otherwise.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer that is read whole.
const ANSWER_MAX: usize = 16 << 20;

/// A body that is sent as it comes.
pub type Stream = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entrance can't be reached.
    #[error("the internal entrance {at}: can't be reached")]
    Connect {
        /// Where it was looked for.
        at: String,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The conversation broke off.
    #[error("the internal entrance: the conversation broke off")]
    Broken(#[source] hyper::Error),
    /// No answer in time.
    #[error("the internal entrance: no answer in time")]
    Late,
    /// The answer is too long, or broke off.
    #[error("the answer can't be read")]
    Unread,
    /// The answer is no.
    #[error("the answer was {status}: {text}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// What it said, shortened.
        text: String,
    },
    /// The answer is not what was asked for.
    #[error("the answer is not what was asked for")]
    Garbled(#[source] serde_json::Error),
}

impl Error {
    /// What a refusal said: the `error` of its JSON, or its text.
    #[must_use]
    pub fn said(&self) -> String {
        let Self::Refused { text, .. } = self else { return self.to_string() };
        let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
        let said = json.as_ref().and_then(|json| json.get("error")?.as_str());
        said.unwrap_or(text.trim()).to_owned()
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        if let Self::Refused { status, .. } = self { Some(*status) } else { None }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        eprintln!("a call to another app failed: {error}");
        Self::away(format!("another part of the platform is away: {}", error.said()))
    }
}

/// A call.
#[derive(Debug)]
pub struct Call {
    request: http::request::Builder,
    body: Stream,
    patience: Duration,
    /// Whether the body can be had again, should the connection turn out to be closed.
    again: Option<Bytes>,
}

impl Call {
    /// To an app instance by its id, or to the platform with `None`.
    #[must_use]
    pub fn new(to: Option<&str>, method: Method, path: &str) -> Self {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(id) = to {
            request = request.header("x-application-id", id);
        }
        Self { request, body: full(Bytes::new()), patience: ANSWER, again: Some(Bytes::new()) }
    }

    /// With this JSON as its body.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> Self {
        let bytes = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
        self.request = self.request.header(header::CONTENT_TYPE, "application/json");
        self.again = Some(bytes.clone());
        self.body = full(bytes);
        self
    }

    /// With a body that is sent as it comes.
    #[must_use]
    pub fn stream(mut self, body: Stream) -> Self {
        self.again = None;
        self.body = body;
        self
    }

    /// With a further header; one that is none is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.request = self.request.header(name, value);
        }
        self
    }

    /// With this time until the head of the answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

fn full(bytes: Bytes) -> Stream {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// How the entrance is reached.
#[derive(Clone)]
enum Way {
    Tls(TlsConnector, ServerName<'static>, u16),
    Plain(u16),
}

struct Kept {
    sender: SendRequest<Stream>,
    since: Instant,
}

/// The entrance; clones share their connections.
#[derive(Clone)]
pub struct Entrance(Arc<Inner>);

struct Inner {
    way: Way,
    authority: String,
    bearer: HeaderValue,
    kept: Mutex<VecDeque<Kept>>,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entrance").field(&self.0.authority).finish()
    }
}

impl Entrance {
    /// As the platform's environment says: `NEXUSHUB_ENTRANCE` (or the usual place) and `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// When the authority's certificate can't be read, or the place is none.
    pub fn from_env(settings: &Settings) -> io::Result<Self> {
        let at = env::var("NEXUSHUB_ENTRANCE").unwrap_or_else(|_| ENTRANCE.to_owned());
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: `{at}`"));
        let (name, port) = at.split_once(':').ok_or_else(|| invalid("NEXUSHUB_ENTRANCE has no port"))?;
        let port = port.parse().map_err(|_| invalid("NEXUSHUB_ENTRANCE has no port"))?;
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| invalid("NEXUSHUB_ENTRANCE has no name"))?;
        let roots = match env::var_os("SSL_CERT_FILE") {
            Some(path) => tls::authorities(Path::new(&path))?,
            None => RootCertStore::empty(),
        };
        Ok(Self::over(Way::Tls(tls::connector(roots)?, name, port), at, &settings.secret))
    }

    /// A server on this machine that plays the entrance without TLS: for tests of apps.
    #[must_use]
    pub fn played_by(port: u16, secret: &str) -> Self {
        Self::over(Way::Plain(port), format!("127.0.0.1:{port}"), secret)
    }

    fn over(way: Way, authority: String, secret: &str) -> Self {
        let bearer = HeaderValue::from_str(&format!("Bearer {secret}"));
        let mut bearer = bearer.unwrap_or(HeaderValue::from_static("Bearer none"));
        bearer.set_sensitive(true);
        Self(Arc::new(Inner { way, authority, bearer, kept: Mutex::new(VecDeque::new()) }))
    }

    /// Calls, and answers with what came back as it comes, whatever its status.
    ///
    /// # Errors
    /// When nothing came back.
    pub async fn open(&self, call: Call) -> Result<(Response<Incoming>, Connection), Error> {
        let Call { request, body, patience, again } = call;
        let request = request
            .header(header::HOST, &self.0.authority)
            .header(header::AUTHORIZATION, self.0.bearer.clone())
            .body(body)
            .map_err(|_| Error::Unread)?;
        let heard = timeout(patience, self.converse(request, again));
        heard.await.map_err(|_| Error::Late)?
    }

    /// Over a connection that was kept, if there is one and it is still good; else over a new one.
    async fn converse(
        &self,
        mut request: Request<Stream>,
        again: Option<Bytes>,
    ) -> Result<(Response<Incoming>, Connection), Error> {
        if let Some((bytes, mut sender)) = again.and_then(|bytes| Some((bytes, self.kept()?))) {
            let mut copy = Request::new(full(bytes));
            *copy.method_mut() = request.method().clone();
            *copy.uri_mut() = request.uri().clone();
            *copy.headers_mut() = request.headers().clone();
            let sent = std::mem::replace(&mut request, copy);
            match sender.send_request(sent).await {
                Ok(answer) => return Ok((answer, Connection { sender: Some(sender), home: self.clone() })),
                // Nothing of it was sent: the other side had closed the connection.
                Err(error) if error.is_canceled() || error.is_closed() => {}
                Err(error) => return Err(Error::Broken(error)),
            }
        }
        let mut sender = self.connect().await?;
        let answer = sender.send_request(request).await.map_err(Error::Broken)?;
        Ok((answer, Connection { sender: Some(sender), home: self.clone() }))
    }

    /// Calls, and reads the whole answer.
    ///
    /// # Errors
    /// When nothing came back, or a status that is no success.
    pub async fn call(&self, call: Call) -> Result<Bytes, Error> {
        let patience = call.patience;
        let (answer, connection) = self.open(call).await?;
        let status = answer.status();
        let whole = timeout(patience, Limited::new(answer.into_body(), ANSWER_MAX).collect());
        let bytes = whole.await.map_err(|_| Error::Late)?.map_err(|_| Error::Unread)?.to_bytes();
        connection.keep();
        if status.is_success() {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2048)]).into_owned();
        Err(Error::Refused { status, text })
    }

    /// Calls, and reads the answer as JSON.
    ///
    /// # Errors
    /// When nothing came back, or a status that is no success, or another thing.
    pub async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        serde_json::from_slice(&self.call(call).await?).map_err(Error::Garbled)
    }

    fn kept(&self) -> Option<SendRequest<Stream>> {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one.since.elapsed() < IDLE && one.sender.is_ready());
        kept.pop_back().map(|one| one.sender)
    }

    async fn connect(&self) -> Result<SendRequest<Stream>, Error> {
        let failed = |cause| Error::Connect { at: self.0.authority.clone(), cause };
        let late = |_| failed(io::ErrorKind::TimedOut.into());
        let io = timeout(CONNECT, self.reach()).await.map_err(late)?.map_err(failed)?;
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(Error::Broken)?;
        tokio::spawn(connection); // ends with its sender; why is told to who waits for an answer
        Ok(sender)
    }

    async fn reach(&self) -> io::Result<Pin<Box<dyn Duplex>>> {
        let (Way::Tls(_, _, port) | Way::Plain(port)) = &self.0.way;
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?;
        tcp.set_nodelay(true)?;
        match &self.0.way {
            Way::Tls(tls, name, _) => Ok(Box::pin(tls.connect(name.clone(), tcp).await?)),
            Way::Plain(_) => Ok(Box::pin(tcp)),
        }
    }
}

/// What an answer comes by; kept for the next call once the answer was read.
#[derive(Debug)]
pub struct Connection {
    sender: Option<SendRequest<Stream>>,
    home: Entrance,
}

impl Connection {
    /// The answer was read to its end.
    fn keep(mut self) {
        let Some(sender) = self.sender.take() else { return };
        let mut kept = self.home.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < IDLE_MAX {
            kept.push_back(Kept { sender, since: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::{Router, extract::Request as Asked, routing::any};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers with what it was asked, and how many connections it has had.
    async fn mirror() -> Entrance {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let echo = any(async |request: Asked| {
            let head =
                |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let said = json!({ "to": head("x-application-id"), "by": head("authorization"), "path": request.uri().path() });
            axum::Json(said)
        });
        let app = Router::new().route("/refused", any(async || Refusal::bad("not so"))).fallback(echo);
        tokio::spawn(async { axum::serve(listener, app).await });
        Entrance::played_by(port, "s3cret")
    }

    #[tokio::test]
    async fn a_call_says_to_whom_and_by_whom_and_its_connection_is_kept() {
        let entrance = mirror().await;
        for _ in 0..3 {
            let said: Value = entrance.ask(Call::new(Some("a"), Method::GET, "/api/x")).await.unwrap();
            assert_eq!(said, json!({ "to": "a", "by": "Bearer s3cret", "path": "/api/x" }));
            assert_eq!(entrance.0.kept.lock().unwrap().len(), 1);
        }
        let said: Value =
            entrance.ask(Call::new(None, Method::POST, "/internal/platform/x").json(&1)).await.unwrap();
        assert_eq!(said["to"], Value::Null);
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_that_says_what_was_said() {
        let refused = mirror().await.call(Call::new(None, Method::GET, "/refused")).await.unwrap_err();
        assert_eq!((refused.status(), refused.said()), (Some(StatusCode::BAD_REQUEST), "not so".into()));
        let nobody = Entrance::played_by(1, "s").call(Call::new(None, Method::GET, "/")).await.unwrap_err();
        assert!(matches!(nobody, Error::Connect { .. }), "{nobody:?}");
    }
}
