//! What happens to a request: its head and the table in, a decision out. Pure, but that those who share requests take turns.
//!
//! The order (contract §3.1): is it a sane request -> `/debug/...` and what is about logging in, for any host -> does the
//! certificate cover the host -> which app calls, if one does -> which instance -> may who asks (`may.rs`) -> is the instance
//! ready -> its static files, its development server or the app.
//!
//! An app proves who it is by its own secret; one that calls out of a box must be that box's app as well, so a secret that it
//! got hold of is worth nothing to it.

mod may;

use std::{path::Path, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, Version,
    header::{ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN},
    request::Parts,
};

use nexushub_chassis::credentials::bearer;

use self::may::{Claim, No};
pub(crate) use self::may::{Shown, cross_site, is_cross_site, is_same_origin};
use crate::{
    certificate::Names,
    door::Caller,
    guard::Verified,
    headers::APPLICATION_ID,
    host::{self, Place},
    identity::Identity,
    paths::{self, Account, Class},
    refusal::{Refusal, printable},
    rules::Rules,
    table::{Entry, Group, Route, State, Table},
    tokens::Tokens,
    wellknown::{ADMIN, DEBUG_API, INTERNAL, LOGIN, PROVIDER},
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
    /// The daemon of the platform that asks by the platform's own socket.
    pub(crate) daemon: Option<&'a Caller>,
    /// Who the client proved to be in the handshake.
    pub(crate) client: Option<&'a Verified>,
    /// Who could not take the request, of those who share it.
    pub(crate) tried: &'a [Arc<Route>],
    /// Its access tokens.
    pub(crate) shown: Option<&'a Shown>,
}

/// When it is worth asking again for an app that is closed.
const PAUSED_RETRY_SECONDS: u32 = 10;

/// Where the admin app takes over debug applications.
const ADOPT: &str = "/internal/adopt";

/// What of the platform an app asks for, at the internal entrance.
const PLATFORM: &str = "/internal/platform/";

/// What happens to a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// debug-api answers.
    Debug,
    /// debug-api answers this app, which may ask for everything.
    Platform(Caller),
    /// The proxy itself answers.
    Ours(Ours),
    /// The app answers.
    App { route: Arc<Route>, by: Identity },
    /// The app's development server answers.
    Dev { route: Arc<Route>, by: Identity },
    /// A static file of the app, or the app itself if it has none.
    Site { route: Arc<Route>, by: Identity },
    /// Ask again once there is news: about this instance, or about all if nothing is known yet.
    Wait(Option<Arc<Route>>),
}

/// What the proxy itself answers, with the help of the login app.
#[derive(Debug)]
pub(crate) enum Ours {
    /// All sessions of a user are to end.
    Logout,
    /// An access token for this instance is asked for; `public`: in the words of the later clients.
    Token { audience: String, public: bool },
    /// A browser is to be signed in first.
    ToSignIn,
    /// A browser signs in at this app.
    SignIn { route: Arc<Route>, audience: String },
    /// It comes back from the login app.
    Session { audience: String },
    /// It leaves.
    SignOut,
    /// The login app sends it back to the app where it signs in.
    Return,
    /// A script asks whether it may ask.
    Preflight(Arc<Route>),
    /// The login app says who was logged out.
    Revocations,
}

/// Who gets a request, and the id by which access to it is asked for.
struct Found<'a> {
    route: Arc<Route>,
    audience: &'a str,
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
    Scene { parts, authority, host: &host, origin, table, policy, now_unix_ms }.decide()
}

/// All that a decision depends on.
struct Scene<'a> {
    parts: &'a Parts,
    authority: &'a HeaderValue,
    host: &'a str,
    origin: Origin<'a>,
    table: &'a Table,
    policy: &'a Policy,
    now_unix_ms: i64,
}

impl<'a> Scene<'a> {
    fn decide(&self) -> Result<Decision, Refusal> {
        if let Some(daemon) = self.origin.daemon {
            return self.of_daemon(daemon);
        }
        let mut class = paths::classify(self.path());
        if let Class::Account(account) = class {
            match self.account(account) {
                Some(decided) => return decided,
                None if account == Account::ApiToken => class = Class::Api,
                None => class = Class::Debug,
            }
        }
        if class == Class::Debug {
            if self.origin.boxed.is_some() {
                return Err(not_for_apps());
            }
            return self.verified_for(ADMIN).map(|()| Decision::Debug);
        }
        if self.origin.names.is_some_and(|names| !names.covers(self.host)) {
            return Err(misdirected("the certificate of this connection does not cover host", self.host));
        }
        let claim = claim(&self.parts.headers, self.table, self.origin.boxed);
        if let Some(caller) = self.asks_platform(&claim) {
            return self.of_platform(caller);
        }
        match self.find(&claim) {
            Ok(found) => self.admit(class, claim, found),
            Err(Miss::Refused(refusal)) => Err(refusal),
            Err(Miss::Unknown) => Ok(Decision::Wait(None)),
        }
    }

    fn path(&self) -> &'a str {
        self.parts.uri.path()
    }

    /// What the platform's own daemons ask the admin app for by the platform's own socket: provider, which applications there are, and
    /// debug-api, to take one over.
    fn of_daemon(&self, daemon: &Caller) -> Result<Decision, Refusal> {
        let id = self.parts.headers.get(APPLICATION_ID);
        let id = id.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "missing X-Application-Id"))?;
        let class = paths::classify(self.path());
        let adopts = class == Class::Internal && self.path() == ADOPT && self.parts.method == Method::POST;
        let may = (daemon.is(PROVIDER) && class == Class::Api) || (daemon.is(DEBUG_API) && adopts);
        if id != ADMIN || !may {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden"));
        }
        match by_id(self.table, id) {
            Ok(found) => {
                let by = Identity { caller: Some(daemon.clone()), spent: true, ..Identity::default() };
                self.ready(class, found.route, by)
            }
            Err(Miss::Refused(refusal)) => Err(refusal),
            Err(Miss::Unknown) => Ok(Decision::Wait(None)),
        }
    }

    /// What is about logging in, on behalf of any host; none where there is no login app, and none of it for apps.
    fn account(&self, account: Account) -> Option<Result<Decision, Refusal>> {
        if self.origin.boxed.is_some() {
            return None;
        }
        let login = self.table.by_id(LOGIN)?;
        if is_cross_site(&self.parts.headers, self.authority) {
            return Some(Err(cross_site()));
        }
        let method = &self.parts.method;
        if let Err(refusal) = self.verified_for(LOGIN) {
            return Some(Err(refusal));
        }
        let public = account == Account::PublicToken;
        Some(match account {
            Account::Login => self.ready(Class::Public, Arc::clone(login), Identity::default()),
            Account::ApiToken if method == Method::GET => self.token(public),
            _ if method != Method::POST => Err(only("POST")),
            Account::Logout => Ok(Decision::Ours(Ours::Logout)),
            Account::PublicToken | Account::ApiToken => self.token(public),
        })
    }

    /// An access token is asked for; at a host of nobody for the admin app, where the command line logs in.
    fn token(&self, public: bool) -> Result<Decision, Refusal> {
        let group = by_host(self.table, self.host, self.path(), &self.policy.base_domain);
        let audience = group.map_or(ADMIN, Group::audience).to_owned();
        self.verified_for(&audience)?;
        Ok(Decision::Ours(Ours::Token { audience, public }))
    }

    /// What stands for an instance on any host needs the client's certificate, too, where that instance does.
    fn verified_for(&self, id: &str) -> Result<(), Refusal> {
        let route = self.table.by_id(id);
        let ca = route.and_then(|route| route.entry.rules.client_ca.as_ref());
        ca.map_or(Ok(()), |ca| is_verified(ca, self.origin, self.host))
    }

    /// The app that asks at the internal entrance for what is the platform's own.
    fn asks_platform<'c>(&self, claim: &'c Claim) -> Option<&'c Caller> {
        let is_asked = self.path().starts_with(PLATFORM)
            && !self.parts.headers.contains_key(APPLICATION_ID)
            && is_internal(self.host, &self.policy.base_domain);
        claim.caller.as_ref().filter(|_| is_asked)
    }

    /// Who was logged out, said by the login app; what was done, told by both; and everything else, asked by the admin app.
    fn of_platform(&self, caller: &Caller) -> Result<Decision, Refusal> {
        let what = self.path().strip_prefix(PLATFORM);
        let revocations = what == Some("revocations");
        let tells = what == Some("audit") && self.parts.method == Method::POST;
        let permitted = (caller.is(LOGIN) && (revocations || tells)) || (caller.is(ADMIN) && !revocations);
        if !permitted || !paths::is_unambiguous(self.path()) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden"));
        }
        match revocations {
            true if self.parts.method != Method::POST => Err(only("POST")),
            true => Ok(Decision::Ours(Ours::Revocations)),
            false => Ok(Decision::Platform(caller.clone())),
        }
    }

    /// Who gets the request: for an app that calls the instance that it names, else by host name and path.
    fn find(&self, claim: &Claim) -> Result<Found<'a>, Miss> {
        match (&claim.caller, self.parts.headers.get(APPLICATION_ID)) {
            (Some(_), Some(id)) => return by_id(self.table, id),
            (None, _) if self.table.complete && is_internal(self.host, &self.policy.base_domain) => {
                return Err(Miss::Refused(unauthorized()));
            }
            _ => {}
        }
        let group = by_host(self.table, self.host, self.path(), &self.policy.base_domain)?;
        let coming = |entry: &Entry| waits(entry, self.policy.hold_ms, self.now_unix_ms);
        let route = Arc::clone(group.pick(self.origin.tried, coming));
        Ok(Found { route, audience: group.audience() })
    }

    /// Whether the request may be passed on.
    fn admit(&self, class: Class, claim: Claim, found: Found<'_>) -> Result<Decision, Refusal> {
        let rules = &found.route.entry.rules;
        if let Some(ca) = &rules.client_ca {
            is_verified(ca, self.origin, self.host)?;
        }
        let class = if rules.strip { paths::classify_rest(class, rules.inner(self.path())) } else { class };
        if let Some(ours) = self.page(&found) {
            return Ok(Decision::Ours(ours));
        }
        let nothing = Shown::default();
        let shown = self.origin.shown.unwrap_or(&nothing);
        match may::may(self.parts, self.authority, (class, claim), shown, &found, self.policy) {
            Ok(by) => self.ready(class, found.route, by),
            Err(No::Refused(refusal)) => Err(refusal),
            Err(No::SignIn) => Ok(Decision::Ours(Ours::ToSignIn)),
        }
    }

    /// What the proxy answers in place of this app.
    fn page(&self, found: &Found<'_>) -> Option<Ours> {
        let (headers, entry) = (&self.parts.headers, &found.route.entry);
        let asks =
            self.parts.method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if asks && headers.contains_key(ORIGIN) && !entry.rules.cors.is_empty() {
            return Some(Ours::Preflight(Arc::clone(&found.route)));
        }
        if entry.id == LOGIN {
            return (self.path() == "/public/return").then_some(Ours::Return);
        }
        let audience = || found.audience.to_owned();
        match self.path() {
            _ if !entry.rules.sign_in => None,
            "/public/signin" => Some(Ours::SignIn { route: Arc::clone(&found.route), audience: audience() }),
            "/public/session" => Some(Ours::Session { audience: audience() }),
            "/public/signout" => Some(Ours::SignOut),
            _ => None,
        }
    }

    /// The answer of an app that may be asked, once it can be.
    fn ready(&self, class: Class, route: Arc<Route>, by: Identity) -> Result<Decision, Refusal> {
        if is_awaited(&route, self.policy.hold_ms, self.now_unix_ms)? {
            return Ok(Decision::Wait(Some(route)));
        }
        Ok(match class {
            Class::Other if route.dev.is_some() => Decision::Dev { route, by },
            Class::Other => Decision::Site { route, by },
            _ => Decision::App { route, by },
        })
    }
}

/// Whether requests for this instance wait; an error if it takes none and that is not worth waiting for.
pub(crate) fn is_awaited(route: &Route, hold_ms: u64, now_unix_ms: i64) -> Result<bool, Refusal> {
    let entry = &route.entry;
    if waits(entry, hold_ms, now_unix_ms) {
        return Ok(true);
    }
    if entry.pause.is_some() {
        return Err(unready(route, PAUSED_RETRY_SECONDS));
    }
    if !entry.routed {
        let seconds = u32::try_from(until_retry(entry, now_unix_ms).div_ceil(1000)).unwrap_or(u32::MAX);
        return Err(unready(route, seconds.clamp(1, 60)));
    }
    Ok(false)
}

/// What the parsers let through but nobody should send.
fn sane(parts: &Parts) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        let allow = Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        return Err(Refusal { allow, ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") });
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

/// The app whose own secret came with the request; out of a box only that box's app. What is a secret or a token of the platform is
/// nobody else's business, whatever it is worth.
fn claim(headers: &HeaderMap, table: &Table, boxed: Option<&Caller>) -> Claim {
    let nothing = Claim { caller: None, spent: false };
    let Some(bearer) = bearer(headers) else { return nothing };
    if Tokens::is_one(bearer) {
        return Claim { spent: true, ..nothing };
    }
    let Some(route) = table.by_secret(bearer.as_bytes()) else { return nothing };
    let id = &route.entry.id;
    let its_own = boxed.is_none_or(|boxed| boxed.is(id));
    Claim { caller: Caller::of(id).filter(|_| its_own), spent: true }
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

pub(crate) fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized")
}

/// A method that is not had here.
pub(crate) fn only(allow: &'static str) -> Refusal {
    Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") }
}

/// What operators and people may ask the platform for, and no app.
fn not_for_apps() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "Not Found")
}

fn by_id<'a>(table: &'a Table, id: &HeaderValue) -> Result<Found<'a>, Miss> {
    let id = id.to_str().unwrap_or_default();
    match table.by_id(id) {
        Some(route) => Ok(Found { route: Arc::clone(route), audience: &route.entry.id }),
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
        None if table.complete => Err(Miss::Refused(not_found("host", host))),
        None => Err(Miss::Unknown),
    }
}

/// The rules of who would get a request at this host and path, if anybody.
pub(crate) fn rules_at(table: &Table, authority: &HeaderValue, path: &str, base: &str) -> Option<Rules> {
    let host = host::parse(authority.to_str().ok()?).ok()?;
    let group = by_host(table, &host, path, base).ok()?;
    Some(group.first().entry.rules.clone())
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
