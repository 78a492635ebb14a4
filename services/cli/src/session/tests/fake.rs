//! A platform that answers as the test likes, over real TLS on the loopback, with a CA of its own.

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::session::store::Kept;

/// Its base domain.
pub(crate) const BASE: &str = "b.localhost";

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) host: String,
    pub(crate) cookie: String,
    pub(crate) bearer: String,
    pub(crate) body: String,
}

pub(crate) type Said = Response<Full<Bytes>>;

/// The platform, for as long as the test runs.
pub(crate) struct Fake {
    pub(crate) port: u16,
    pub(crate) ca: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// One that answers so.
    pub(crate) async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Asked) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Said> + Send,
    {
        let names = [BASE, "*.b.localhost"].map(str::to_owned);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<Asked>>>::default());
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, all) = (acceptor.clone(), answer.clone(), Arc::clone(&all));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| {
                        let (answer, all) = (answer.clone(), Arc::clone(&all));
                        async move {
                            let asked = read(request).await;
                            all.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
                            Ok::<_, Infallible>(answer(asked).await)
                        }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, ca: certificate.pem(), asked }
    }

    /// What came so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests with this line.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.asked().iter().filter(|asked| asked.line == line).count()
    }

    /// What is kept of somebody who has this refresh token.
    pub(crate) fn kept(&self, refresh_token: &str) -> Kept {
        Kept {
            url: format!("https://admin.{BASE}:{}", self.port),
            base_domain: BASE.to_owned(),
            user: "ada".to_owned(),
            refresh_token: refresh_token.to_owned(),
            ca: Some(self.ca.clone()),
        }
    }
}

async fn read(request: Request<Incoming>) -> Asked {
    let field = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let line = format!("{} {target}", request.method());
    let (host, cookie, bearer) = (field("host"), field("cookie"), field("authorization"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    Asked { line, host, cookie, bearer, body: String::from_utf8_lossy(&body).into_owned() }
}

/// An answer of this status and with this text.
pub(crate) fn said(status: u16, text: impl Into<Bytes>) -> Said {
    Response::builder().status(status).body(Full::new(text.into())).unwrap()
}

/// The same with a refresh token.
pub(crate) fn with_cookie(status: u16, text: &str, token: &str) -> Said {
    let set = format!("YRT={token}; Path=/; HttpOnly; Secure; SameSite=Lax");
    Response::builder()
        .status(status)
        .header("set-cookie", set)
        .body(Full::new(text.to_owned().into()))
        .unwrap()
}
