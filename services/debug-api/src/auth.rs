//! Who may ask what. Every request must come from the proxy (its token, from its user); the developers' calls need a bearer
//! of their own besides: the operator token of this daemon until logins exist.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use nexushub_chassis::{
    credentials::{Credentials, bearer},
    trace,
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{error::ApiError, record::millis};

/// The header in which the proxy shows its token; the proxy strips it from what clients send.
pub(crate) const PROXY_TOKEN: &str = "nexushub-proxy-token";
/// The proxy's name for a request, in both logs.
const REQUEST_ID: &str = "x-request-id";
/// The right that such a caller must have.
const HTTP: &str = "http";

/// The user at the other end of the socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) Option<u32>);

/// Judges every request before anything else sees it.
pub(crate) async fn guard(State(credentials): State<Credentials>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let span = tracing::info_span!("http");
    trace::extract(request.headers(), &span);
    async move {
        let response = match admit(&credentials, &request) {
            Ok(()) => next.run(request).await,
            Err(refused) => refused.into_response(),
        };
        let elapsed_ms = millis(began.elapsed());
        tracing::debug!(%method, path, status = response.status().as_u16(), elapsed_ms, request = id, "request");
        response
    }
    .instrument(span)
    .await
}

fn admit(credentials: &Credentials, request: &Request) -> Result<(), ApiError> {
    let uid = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    let headers = request.headers();
    let token =
        headers.get(PROXY_TOKEN).and_then(|token| token.to_str().ok()).ok_or(ApiError::NotFromProxy)?;
    let proxy = credentials.verify(token, uid).filter(|caller| caller.name == "proxy" && caller.may(HTTP));
    proxy.ok_or(ApiError::NotFromProxy)?;
    if request.uri().path().starts_with("/public/") {
        return Ok(());
    }
    let developer = bearer(headers).and_then(|token| credentials.verify(token, uid));
    developer
        .filter(|caller| caller.name == "operator" && caller.may(HTTP))
        .map(drop)
        .ok_or(ApiError::Unauthorized)
}
