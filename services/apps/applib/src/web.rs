//! Questions to servers of others: by HTTPS, judged by the system's authorities and those that it is given; by HTTP on this machine only.
//! An answer is read whole, up to a bound and within a time; a redirect is an answer like any other, and followed nowhere.
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use nexushub_applib::web::{Authorities, Url, Web};
//!
//! let web = Web::new(&Authorities::System)?;
//! let answer = web.get(&Url::parse("https://example.org/rates.json").ok_or("no URL")?).await?;
//! # let _ = answer;
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::TlsConnector;

use crate::tls::{self, Duplex};

/// The system's authorities, as Debian and most others have them; a box sees them too.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// How long a question may take, to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer's head.
const HEAD_MAX: usize = 64 * 1024;
/// Bytes of its body.
const BODY_MAX: usize = 256 * 1024;
/// Bytes of a URL.
const URL_MAX: usize = 2048;

/// Where something is: `https`, or `http` at a loopback address; without user and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    plain: bool,
    host: String,
    port: u16,
    target: String,
}

impl Url {
    /// None when it is not one that may be asked.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let clean = text.len() <= URL_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let plain = text.starts_with("http://");
        let uri: Uri = text.parse().ok().filter(|_| clean && (plain || text.starts_with("https://")))?;
        let authority = uri.authority()?;
        let host = authority.host();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == host => {
                if plain {
                    80
                } else {
                    443
                }
            }
            None => return None,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let local = bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let good = port > 0
            && (!plain || local)
            && !authority.as_str().contains('@')
            && ServerName::try_from(bare).is_ok();
        good.then(|| Self {
            text: text.to_owned(),
            plain,
            host: bare.to_ascii_lowercase(),
            port,
            target: if target.starts_with('/') { target.to_owned() } else { format!("/{target}") },
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The server's name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is asked without TLS, on this machine.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    fn authority(&self) -> &str {
        let (_, rest) = self.text.split_once("://").unwrap_or_default();
        rest.split(['/', '?']).next().unwrap_or_default()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server can't be reached.
    #[error("{host}: can't be reached: {cause}")]
    Connect {
        /// Which server.
        host: String,
        /// Why not.
        cause: io::Error,
    },
    /// It is not who it should be, as far as anybody trusted says.
    #[error("{host}: its certificate is not trusted: {cause}")]
    Distrust {
        /// Which server.
        host: String,
        /// Why not.
        cause: io::Error,
    },
    /// The conversation broke off.
    #[error("{host}: the conversation broke off: {cause}")]
    Broken {
        /// With whom.
        host: String,
        /// Why.
        cause: hyper::Error,
    },
    /// The answer is too long, or broke off.
    #[error("{0}: its answer is too long, or broke off")]
    Unread(String),
    /// No whole answer in time.
    #[error("{0}: no whole answer in time")]
    Late(String),
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Whose word counts for who a server is, besides that of the system's authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Nobody's.
    System,
    /// Those of a PEM file.
    File(PathBuf),
    /// Those of such a file's text.
    Text(String),
}

/// Asks servers of others.
#[derive(Clone)]
pub struct Web {
    tls: TlsConnector,
    trusts: usize,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").field("trusts", &self.trusts).finish()
    }
}

impl Web {
    /// Trusts the system's authorities, if it has some, and these.
    ///
    /// # Errors
    /// When they can't be read, or there is none where there should be.
    pub fn new(authorities: &Authorities) -> io::Result<Self> {
        let mut roots = tls::authorities(Path::new(SYSTEM)).unwrap_or_else(|_| RootCertStore::empty());
        let more = match authorities {
            Authorities::System => None,
            Authorities::File(path) => Some((path.display().to_string(), tls::authorities(path)?)),
            Authorities::Text(pem) => Some(("the text".to_owned(), tls::authorities_in(pem.as_bytes()))),
        };
        if let Some((whose, more)) = more {
            if more.is_empty() {
                return Err(io::Error::other(format!("{whose}: there is no certificate in it")));
            }
            roots.extend(more.roots);
        }
        let trusts = roots.len();
        Ok(Self { tls: tls::connector(roots)?, trusts })
    }

    /// Whether it trusts anybody, so that HTTPS can be asked at all.
    #[must_use]
    pub fn trusts_somebody(&self) -> bool {
        self.trusts > 0
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn get(&self, url: &Url) -> Result<Answer, Error> {
        self.ask(url, Request::get(&url.target), String::new()).await
    }

    /// Sends a form, by whom this `Authorization` says if there is one, and asks for JSON.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn post(&self, url: &Url, form: String, by: Option<HeaderValue>) -> Result<Answer, Error> {
        let mut request =
            Request::post(&url.target).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(mut by) = by {
            by.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, by);
        }
        self.ask(url, request, form).await
    }

    async fn ask(&self, url: &Url, head: http::request::Builder, body: String) -> Result<Answer, Error> {
        let request = head
            .header(header::HOST, url.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "nexushub")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Error::Unread(url.host.clone()))?;
        let answer = timeout(PATIENCE, self.converse(url, request));
        answer.await.map_err(|_| Error::Late(url.host.clone()))?
    }

    async fn converse(&self, url: &Url, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let host = || url.host.clone();
        let broken = |cause| Error::Broken { host: host(), cause };
        let unreached = |cause| match tls::is_distrust(&cause) {
            true => Error::Distrust { host: host(), cause },
            false => Error::Connect { host: host(), cause },
        };
        let io = self.reach(url).await.map_err(unreached)?;
        let mut builder = http1::Builder::new();
        let (mut sender, connection) =
            builder.max_buf_size(HEAD_MAX).handshake(TokioIo::new(io)).await.map_err(broken)?;
        // Ends with this function, whatever the server still does.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(|_| Error::Unread(host()))?;
        Ok(Answer { status: head.status, body: body.to_bytes() })
    }

    async fn reach(&self, url: &Url) -> io::Result<Pin<Box<dyn Duplex>>> {
        let tcp = TcpStream::connect((url.host.as_str(), url.port)).await?;
        tcp.set_nodelay(true)?;
        if url.plain {
            return Ok(Box::pin(tcp));
        }
        let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
        Ok(Box::pin(self.tls.connect(name, tcp).await?))
    }
}

#[cfg(test)]
mod tests;
