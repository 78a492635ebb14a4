//! What every call passes before it reaches a service, top to bottom: trace → peer uid → token → method rights → deadline →
//! load limit. The checks that cost nothing to fail come before the limit, so a flood of wrong tokens takes no caller's place.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body, transport::server::UdsConnectInfo};
use tower::{Layer, Service};
use tracing::{Instrument, debug, info_span};

use crate::{
    credentials::{Caller, Credentials, bearer},
    trace,
};

/// Services that are open to every caller who is known at all.
const COMMON: [&str; 3] = [
    "grpc.health.v1.Health/",
    "grpc.reflection.v1.ServerReflection/",
    "grpc.reflection.v1alpha.ServerReflection/",
];

/// The checks of one daemon.
#[derive(Clone)]
pub(crate) struct Gate {
    rules: Arc<Rules>,
}

struct Rules {
    credentials: Credentials,
    /// Users whose processes may call at all.
    peers: Vec<u32>,
    timeout: Duration,
    calls: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(
        credentials: Credentials,
        mut peers: Vec<u32>,
        timeout: Duration,
        calls: usize,
    ) -> Self {
        peers.extend([0, nix::unistd::geteuid().as_raw()]);
        peers.extend(credentials.uids());
        Self {
            rules: Arc::new(Rules { credentials, peers, timeout, calls: Arc::new(Semaphore::new(calls)) }),
        }
    }
}

impl Rules {
    /// Peer, token and rights, in this order.
    fn admit(&self, uid: Option<u32>, headers: &HeaderMap, method: &str) -> Result<Caller, Status> {
        if !uid.is_some_and(|uid| self.peers.contains(&uid)) {
            return Err(Status::permission_denied("this user may not call this daemon"));
        }
        let token =
            bearer(headers).ok_or_else(|| Status::unauthenticated("no bearer token in `authorization`"))?;
        let caller = self.credentials.verify(token, uid);
        let caller = caller
            .ok_or_else(|| Status::unauthenticated("the token is not one of this daemon's callers'"))?;
        if caller.may(method) || COMMON.iter().any(|service| method.starts_with(service)) {
            return Ok(caller);
        }
        Err(Status::permission_denied(format!("{} may not call {method}", caller.name)))
    }

    /// The caller's own deadline where it is nearer than ours.
    fn deadline(&self, headers: &HeaderMap) -> Duration {
        let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout);
        asked.map_or(self.timeout, |asked| asked.min(self.timeout))
    }
}

/// `<at most 8 digits><H|M|S|m|u|n>`, as gRPC over HTTP/2 writes it.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    let count: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    Some(match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, rules: Arc::clone(&self.rules) }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let rules = Arc::clone(&self.rules);
        let mut inner = self.inner.clone();
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let uid = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred)
            .map(|cred| cred.uid());
        let span = info_span!("rpc", method, caller = tracing::field::Empty);
        trace::extract(request.headers(), &span);
        let admitted = async move {
            let caller = rules.admit(uid, request.headers(), &method)?;
            tracing::Span::current().record("caller", caller.name.as_str());
            let deadline = rules.deadline(request.headers());
            let permit = Arc::clone(&rules.calls).try_acquire_owned();
            let permit =
                permit.map_err(|_| Status::resource_exhausted("too many calls at once; try again"))?;
            request.extensions_mut().insert(caller);
            // The head of the answer: the whole of a unary call. A stream may go on for as long as it likes.
            let answer = tokio::time::timeout(deadline, inner.call(request)).await;
            let answer = answer.map_err(|_| Status::deadline_exceeded("the call took too long"))?;
            Ok(answer
                .unwrap_or_else(|never| match never {})
                .map(|body| Body::new(Counted { body, _permit: permit })))
        };
        Box::pin(
            async move {
                let answer: Result<_, Status> = admitted.await;
                Ok(answer.unwrap_or_else(|status| {
                    debug!(code = ?status.code(), error = status.message(), "call refused");
                    status.into_http()
                }))
            }
            .instrument(span),
        )
    }
}

/// An answer that counts as an open call until its last byte is sent.
struct Counted {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_as_the_protocol_writes_it() {
        assert_eq!(grpc_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for hostile in ["", "S", "5", "5é", "999999999S", "-1S", "5s"] {
            assert_eq!(grpc_timeout(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn a_stranger_is_refused_before_its_token_is_looked_at() {
        let gate = Gate::new(Credentials::default(), vec![], Duration::from_secs(1), 1);
        let code = |uid| gate.rules.admit(uid, &HeaderMap::new(), "x/y").unwrap_err().code();
        assert_eq!(code(None), tonic::Code::PermissionDenied);
        assert_eq!(code(Some(4_000_000)), tonic::Code::PermissionDenied);
        assert_eq!(code(Some(0)), tonic::Code::Unauthenticated);
    }
}
