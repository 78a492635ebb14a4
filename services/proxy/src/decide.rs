//! What happens to a request: its head and the table in, a decision out. Pure, but that those who share requests take turns.
//!
//! The order (contract §3.1): is it a sane request -> `/debug/...` and the three login paths, for any host -> does the
//! certificate cover the host -> which app calls, if one does -> which instance -> may the caller -> is the instance ready ->
//! its static files, its development server or the app.
//!
//! An app proves who it is by its own secret; one that calls out of a box must be that box's app as well, so a secret that it
//! got hold of is worth nothing to it.

use std::{path::Path, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request::Parts,
};

use nexushub_chassis::credentials::bearer;

use crate::{
    certificate::Names,
    door::Caller,
    guard::Verified,
    headers::APPLICATION_ID,
    host::{self, Place},
    paths::{self, Class},
    refusal::{Refusal, printable},
    table::{Entry, Group, Route, Source, State, Table},
};

/// What decisions depend on besides the request and the table.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// Lower case, without a leading dot.
    pub(crate) base_domain: String,
    /// `/api/*` needs a bearer token.
    pub(crate) require_login: bool,
    /// How long a request may wait for an app, to tell which waits are worth it.
    pub(crate) hold_ms: u64,
}

/// What decisions depend on of the connection, and of what was tried for the request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin<'a> {
    /// What the connection's certificate covers, if the client asked for a name in the handshake.
    pub(crate) names: Option<&'a Names>,
    /// The app out of whose box it came.
    pub(crate) boxed: Option<&'a Caller>,
    /// Who the client proved to be in the handshake.
    pub(crate) client: Option<&'a Verified>,
    /// Who could not take the request, of those who share it.
    pub(crate) tried: &'a [Arc<Route>],
}

/// Where in the platform internal calls are addressed to, relative to the base domain; no app's name.
const INTERNAL: &str = "internal";

/// When it is worth asking again for an app that is closed.
const PAUSED_RETRY_SECONDS: u32 = 10;

/// What happens to a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// debug-api answers.
    Debug,
    /// The app answers. `caller`: the app that calls, if one proved itself.
    App { route: Arc<Route>, caller: Option<Caller> },
    /// The app's development server answers.
    Dev { route: Arc<Route>, caller: Option<Caller> },
    /// A static file of the app, or the app itself if it has none.
    Site { route: Arc<Route>, caller: Option<Caller> },
    /// Ask again once there is news: about this instance, or about all if nothing is known yet.
    Wait(Option<Arc<Route>>),
}

/// Why there is no route.
enum Miss {
    /// It is known not to exist.
    Refused(Refusal),
    /// It may exist: not everything is known yet.
    Unknown,
}

/// The authority that a request is for, as the client wrote it.
pub(crate) fn authority(parts: &Parts) -> Result<HeaderValue, Refusal> {
    let mut hosts = parts.headers.get_all(HOST).into_iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Refusal::bad_request("more than one Host"));
    }
    let Some(target) = parts.uri.authority() else {
        return host.cloned().ok_or_else(|| Refusal::bad_request("missing Host"));
    };
    match host {
        Some(host) if !host.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes()) => {
            Err(Refusal::bad_request("Host differs from the request's target"))
        }
        None if parts.version < Version::HTTP_2 => Err(Refusal::bad_request("missing Host")),
        _ => HeaderValue::from_str(target.as_str()).map_err(|_| Refusal::bad_request("malformed target")),
    }
}

/// Decides; an error is the proxy's own answer. `authority` is that of the request, `now` the wall clock.
pub(crate) fn decide(
    parts: &Parts,
    authority: &HeaderValue,
    origin: Origin<'_>,
    table: &Table,
    policy: &Policy,
    now_unix_ms: i64,
) -> Result<Decision, Refusal> {
    sane(parts)?;
    let bad_host = || Refusal::bad_request("malformed host name");
    let host = host::parse(authority.to_str().map_err(|_| bad_host())?).map_err(|_| bad_host())?;
    let class = paths::classify(parts.uri.path());
    if class == Class::Debug {
        return if origin.boxed.is_none() { Ok(Decision::Debug) } else { Err(not_for_apps()) };
    }
    if origin.names.is_some_and(|names| !names.covers(&host)) {
        return Err(misdirected("the certificate of this connection does not cover host", &host));
    }
    let caller = caller(&parts.headers, table, origin.boxed);
    let found = match (&caller, parts.headers.get(APPLICATION_ID)) {
        (Some(_), Some(id)) => by_id(table, id),
        (None, _) if table.complete && is_internal(&host, &policy.base_domain) => return Err(unauthorized()),
        _ => {
            let coming = |entry: &Entry| waits(entry, policy.hold_ms, now_unix_ms);
            let pick = |group: &Group| Arc::clone(group.pick(origin.tried, coming));
            by_host(table, &host, parts.uri.path(), &policy.base_domain).map(pick)
        }
    };
    let route = match found {
        Ok(route) => route,
        Err(Miss::Refused(refusal)) => return Err(refusal),
        Err(Miss::Unknown) => return Ok(Decision::Wait(None)),
    };
    let rules = &route.entry.rules;
    if let Some(ca) = &rules.client_ca {
        is_verified(ca, origin, &host)?;
    }
    let class = if rules.strip { paths::classify_rest(class, rules.inner(parts.uri.path())) } else { class };
    may(caller.as_ref(), class, &route, policy)?;
    if waits(&route.entry, policy.hold_ms, now_unix_ms) {
        return Ok(Decision::Wait(Some(route)));
    }
    if route.entry.pause.is_some() || !route.entry.routed {
        let in_ms = until_retry(&route.entry, now_unix_ms);
        let seconds = u32::try_from(in_ms.div_ceil(1000)).unwrap_or(u32::MAX).clamp(1, 60);
        let paused = route.entry.pause.is_some();
        return Err(unready(&route, if paused { PAUSED_RETRY_SECONDS } else { seconds }));
    }
    if class == Class::Other {
        return Ok(if route.dev.is_some() {
            Decision::Dev { route, caller }
        } else {
            Decision::Site { route, caller }
        });
    }
    Ok(Decision::App { route, caller })
}

/// What the parser lets through but nobody should send.
fn sane(parts: &Parts) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        let allow = Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        return Err(Refusal { allow, ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") });
    }
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).into_iter();
    let (length, more) = (lengths.next(), lengths.next());
    let plain = |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    if more.is_some() || length.is_some_and(|length| !plain(length)) {
        return Err(Refusal::bad_request("malformed Content-Length"));
    }
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).into_iter();
    let (coding, more) = (codings.next(), codings.next());
    // A coding that isn't passed on would reach the app undone and unsaid.
    if more.is_some() || coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(Refusal::bad_request("unsupported Transfer-Encoding"));
    }
    target(&parts.method, &parts.uri)
}

fn target(method: &Method, uri: &Uri) -> Result<(), Refusal> {
    if uri.scheme_str().is_some_and(|scheme| scheme != "https" && scheme != "http") {
        return Err(Refusal::bad_request("unsupported scheme"));
    }
    match uri.path() {
        "*" if method == Method::OPTIONS => {
            Err(Refusal { allow: Some("*"), ..Refusal::new(StatusCode::NO_CONTENT, "") })
        }
        path if path.starts_with('/') || path.is_empty() => Ok(()),
        _ => Err(Refusal::bad_request("malformed target")),
    }
}

/// The app whose own secret came with the request; out of a box only that box's app.
fn caller(headers: &HeaderMap, table: &Table, boxed: Option<&Caller>) -> Option<Caller> {
    let id = &table.by_secret(bearer(headers)?.as_bytes())?.entry.id;
    if boxed.is_some_and(|boxed| !boxed.is(id)) {
        return None;
    }
    Caller::of(id)
}

/// Whether this caller may ask this app for a path of this class. What is internal to an app is the app's own: until there are
/// rules that grant it to others, nobody else asks for it.
fn may(caller: Option<&Caller>, class: Class, route: &Route, policy: &Policy) -> Result<(), Refusal> {
    match (class, caller) {
        (Class::Internal, None) => Err(unauthorized()),
        (Class::Internal, Some(caller)) if !caller.is(&route.entry.id) => {
            Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden"))
        }
        (Class::Api, None) if policy.require_login => Err(unauthorized()),
        _ => Ok(()),
    }
}

/// Whether the connection's handshake asked for what this app wants of its clients. A connection that was opened for another name
/// did not, so its client is to open one for this name.
fn is_verified(ca: &Path, origin: Origin<'_>, host: &str) -> Result<(), Refusal> {
    if origin.client.is_some_and(|client| client.ca == ca) {
        return Ok(());
    }
    if origin.names.is_some() {
        return Err(misdirected("this connection brought no certificate for host", host));
    }
    let text = "Forbidden: this host needs a client certificate, and a connection that asks for its name";
    Err(Refusal::new(StatusCode::FORBIDDEN, text))
}

fn is_internal(host: &str, base: &str) -> bool {
    matches!(host::place(host, base), Place::Under(INTERNAL))
}

fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized")
}

/// What operators and people may ask the platform for, and no app.
fn not_for_apps() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "Not Found")
}

fn by_id(table: &Table, id: &HeaderValue) -> Result<Arc<Route>, Miss> {
    let id = id.to_str().unwrap_or_default();
    match table.by_id(id) {
        Some(route) => Ok(Arc::clone(route)),
        None if table.complete => Err(Miss::Refused(not_found("app", &printable(id)))),
        None => Err(Miss::Unknown),
    }
}

fn by_host<'a>(table: &'a Table, host: &str, path: &str, base: &str) -> Result<&'a Group, Miss> {
    let relative = match host::place(host, base) {
        Place::Under(relative) => relative,
        Place::Base => "",
        Place::Outside => return Err(Miss::Refused(misdirected("Request for invalid host name", host))),
    };
    match table.find(relative, path) {
        Some(group) => Ok(group),
        None if table.complete && table.source != Source::Nothing => {
            Err(Miss::Refused(not_found("host", host)))
        }
        None => Err(Miss::Unknown),
    }
}

fn not_found(what: &str, name: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("Service not found for {what}:{name}"))
}

fn misdirected(text: &str, host: &str) -> Refusal {
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, format!("{text} {host}"))
}

/// Nothing is known yet, and that took too long.
pub(crate) fn unknown_yet() -> Refusal {
    Refusal::unavailable("Service Unavailable: the platform is starting and its apps are not known yet", 1)
}

/// Whether requests wait for an instance: while it is paused, but for one that is closed, and while it is coming up.
pub(crate) fn waits(entry: &Entry, hold_ms: u64, now_unix_ms: i64) -> bool {
    if let Some(pause) = &entry.pause {
        return !pause.closed;
    }
    let switching = entry.state == State::Stopping && entry.retry_unix_ms > 0;
    let coming = switching || matches!(entry.state, State::Starting | State::Unknown | State::Asleep);
    !entry.routed && coming && until_retry(entry, now_unix_ms) <= hold_ms
}

/// Milliseconds until its next start is due.
fn until_retry(entry: &Entry, now_unix_ms: i64) -> u64 {
    u64::try_from(entry.retry_unix_ms - now_unix_ms).unwrap_or(0)
}

/// A known instance without a route: what it is and why.
pub(crate) fn unready(route: &Route, retry_after: u32) -> Refusal {
    let entry = &route.entry;
    let (word, reason) = match &entry.pause {
        Some(pause) => ("paused", &pause.message),
        None => (entry.state.word(), &entry.reason),
    };
    let mut text = format!("Service Unavailable: {} is {word}", entry.host);
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(&printable(reason));
    }
    Refusal::unavailable(text, retry_after)
}

#[cfg(test)]
mod tests;
