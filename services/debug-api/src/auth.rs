//! Who may ask what. Every request must come from the proxy (its token, from its user); the developers' calls need to be an
//! administrator's, of whom the proxy says who it is, or to bring the operator token of this daemon; or the proxy says that they are
//! of a program on this machine, where its configuration lets those in without any. What is the platform's own
//! is asked by the admin app alone, and the proxy's word on who asks is enough for it; the login app may tell the audit log.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method};
use nexushub_chassis::{
    credentials::{Credentials, bearer},
    names::{ADMIN_INSTANCE, LOGIN_INSTANCE},
    trace,
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{audit::Who, error::ApiError, record::millis};

/// The header in which the proxy shows its token; the proxy strips it from what clients send.
pub(crate) const PROXY_TOKEN: &str = "nexushub-proxy-token";
/// The administrator whose access token came with a request; the proxy sets it once it has judged the token, and strips it from
/// what clients send.
const USER_ID: &str = "x-user-id";
/// The proxy's name for a request, in both logs.
const REQUEST_ID: &str = "x-request-id";
/// In which the proxy says which app asks; nobody else's word gets through it.
pub(crate) const CALLER: &str = "x-caller-id";
/// The caller that the proxy names for a program on this machine that may ask without a token. No app has an id like this.
const LOOPBACK: &str = "@loopback";
/// What the admin app alone may ask for,
const PLATFORM: &str = "/internal/platform/";
/// but for telling the audit log what was done there, which the login app does, too.
const TRAIL: &str = "/internal/platform/audit";
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
            Ok(()) => next.run(known(request)).await,
            Err(refused) => refused.into_response(),
        };
        let elapsed_ms = millis(began.elapsed());
        tracing::debug!(%method, path, status = response.status().as_u16(), elapsed_ms, request = id, "request");
        response
    }
    .instrument(span)
    .await
}

/// The request with who asks, for the audit log: whom the proxy speaks of.
fn known(mut request: Request) -> Request {
    let user = request.headers().get(USER_ID).and_then(|id| id.to_str().ok());
    let who = user.map(|id| Who(format!("user {id}")));
    let loopback = || is_asked_by(request.headers(), LOOPBACK).then(|| Who("loopback".to_owned()));
    if let Some(who) = who.or_else(loopback) {
        request.extensions_mut().insert(who);
    }
    request
}

/// Whether the proxy names this caller, and no other.
pub(crate) fn is_asked_by(headers: &HeaderMap, id: &str) -> bool {
    let mut callers = headers.get_all(CALLER).into_iter();
    let (caller, more) = (callers.next(), callers.next());
    caller.is_some_and(|caller| caller == id) && more.is_none()
}

fn admit(credentials: &Credentials, request: &Request) -> Result<(), ApiError> {
    let uid = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    let headers = request.headers();
    let token =
        headers.get(PROXY_TOKEN).and_then(|token| token.to_str().ok()).ok_or(ApiError::NotFromProxy)?;
    let proxy = credentials.verify(token, uid).filter(|caller| caller.name == "proxy" && caller.may(HTTP));
    proxy.ok_or(ApiError::NotFromProxy)?;
    let path = request.uri().path();
    if path.starts_with(PLATFORM) {
        let tells = || path == TRAIL && request.method() == Method::POST;
        let may = is_asked_by(headers, ADMIN_INSTANCE) || (is_asked_by(headers, LOGIN_INSTANCE) && tells());
        return may.then_some(()).ok_or(ApiError::NotFromProxy);
    }
    let vouched = || headers.contains_key(USER_ID) || is_asked_by(headers, LOOPBACK);
    if path.starts_with("/public/") || (path.starts_with("/debug/") && vouched()) {
        return Ok(());
    }
    let developer = bearer(headers).and_then(|token| credentials.verify(token, uid));
    developer
        .filter(|caller| caller.name == "operator" && caller.may(HTTP))
        .map(drop)
        .ok_or(ApiError::Unauthorized)
}
