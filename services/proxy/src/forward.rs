//! One request from its head to its answer: decide, wait where waiting is allowed, send (`backend.rs`), stream back.
//!
//! A request is sent a second time only where that can't do it twice: nothing of it was sent, or it is idempotent, has no
//! body, and the connection had served before, so that its backend may just have closed it.

mod account;
mod admission;
mod ask;
mod backend;
mod browser;
mod debug;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, LOCATION, STRICT_TRANSPORT_SECURITY},
    request::Parts,
    response,
};
use ipnet::IpNet;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Record,
    address::{Client, Rates},
    audit::Trail,
    body::{RequestBody, ResponseBody},
    clock, cookies, cors,
    counters::{Counters, Stopped},
    decide::{Decision, Origin, Policy, Shown, authority, decide, unknown_yet, unready, waits},
    door::Caller,
    error::Failure,
    files,
    gate::Gate,
    h1::{Malformed, client::Call},
    headers::{self, Edge, Told},
    host::{Place, place},
    id,
    identity::Identity,
    link::Link,
    pool::{Pool, Unavailable},
    redirect,
    refusal::{Form, Reader, Refusal},
    shares::{Seat, Shares},
    sleep::Sleep,
    table::{Entry, Route, Table},
    tokens::Bad,
    upgrade::{self, Tunnel},
    websocket::{self, Wanted},
    wellknown::LOGIN,
};

/// How long a request may take over its steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) first_byte: Duration,
    pub(crate) debug_first_byte: Duration,
    pub(crate) body_idle: Duration,
    pub(crate) hold: Duration,
    pub(crate) pause: Duration,
    pub(crate) switch: Duration,
    pub(crate) upgrade_linger: Duration,
    /// For the whole request, if that is bounded.
    pub(crate) whole: Option<Duration>,
}

/// What every request needs; one per proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) policy: Policy,
    pub(crate) timing: Timing,
    pub(crate) table: watch::Receiver<Arc<Table>>,
    pub(crate) counters: Arc<Counters>,
    /// What judges tokens.
    pub(crate) gate: Gate,
    /// What of access is worth a line that lasts.
    pub(crate) trail: Trail,
    /// The pace of what each client posts to the login app, if it is bounded.
    pub(crate) logins: Option<Rates>,
    /// debug-api's plain-HTTP socket.
    pub(crate) debug: Arc<Pool>,
    /// What proves to debug-api that it is the proxy who calls.
    pub(crate) debug_token: Option<HeaderValue>,
    /// Programs on this machine may ask it without a token.
    pub(crate) debug_without_token: bool,
    /// Where requests wait for apps that are starting.
    pub(crate) waiting: Shares<String>,
    /// The same of requests out of boxes: none of them takes a seat from the outside.
    pub(crate) inward_waiting: Shares<String>,
    /// Bytes of one request's body.
    pub(crate) body_bytes: u64,
    /// How apps that sleep are woken.
    pub(crate) sleep: Sleep,
    /// Of so many requests that went well one is written to the log; 0 = none, nor others.
    pub(crate) access_log_every: u32,
    /// How long browsers shall come by HTTPS only, as they are told.
    pub(crate) hsts: Option<HeaderValue>,
    /// Proxies before this one, whose word about their clients is believed.
    pub(crate) trusted: Vec<IpNet>,
    /// Everything that the drain waits for.
    pub(crate) tasks: TaskTracker,
    /// The drain's limit is reached.
    pub(crate) end: CancellationToken,
}

impl Proxy {
    /// Whether this is a proxy whose word about its clients is believed.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address.to_canonical()))
    }

    /// Who issues the certificates that clients need who ask for this name in the handshake.
    pub(crate) fn client_ca(&self, name: &str) -> Option<PathBuf> {
        let name = name.to_ascii_lowercase();
        let Place::Under(relative) = place(&name, &self.policy.base_domain) else { return None };
        self.table.borrow().client_ca(relative).map(Path::to_path_buf)
    }
}

/// Answers one request. What the answer needs is gathered before it is waited for: the arguments of an `async fn` would lie beside
/// it, too, and be moved with it.
pub(crate) fn handle(
    proxy: Arc<Proxy>,
    link: Arc<Link>,
    request: Request<RequestBody>,
) -> impl Future<Output = Response<ResponseBody>> {
    let mut exchange = Exchange::begin(proxy, link, request);
    async move {
        let whole = exchange.proxy.timing.whole.map(|whole| Instant::now() + whole);
        // What is waited for here and in `run` by way of a box is rare or large: it does not make every request larger.
        let answered = match whole {
            None => exchange.run().await,
            Some(whole) => {
                let run = Box::pin(exchange.run());
                timeout_at(whole, run).await.unwrap_or_else(|_| Err(too_late()))
            }
        };
        let response = match answered.and_then(|answer| exchange.believable(answer)) {
            Ok(response) => response.map(|body| body.until(whole)),
            Err(refusal) => exchange.open_refusal(refusal),
        };
        exchange.end(response)
    }
}

/// Answers a request, or what is none, that came by plain HTTP: there is nothing here but where to go.
pub(crate) fn redirected(
    proxy: &Proxy,
    link: &Link,
    asked: Result<Request<RequestBody>, Malformed>,
    port: u16,
) -> Response<ResponseBody> {
    proxy.counters.redirects.up();
    let form = asked.as_ref().map_or(Form::Text, |request| Form::of(request.headers()));
    let head_only = asked.as_ref().is_ok_and(|request| request.method() == Method::HEAD);
    let reader = Reader { form, head_only, h2: false, id: id::next() };
    link.begin();
    link.end();
    match redirect::location(asked, port) {
        Ok(location) => {
            let mut response = redirect::refusal().into_response(&reader);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(refusal) => refusal.into_response(&reader),
    }
}

/// Answers bytes that are no request.
pub(crate) fn refuse(proxy: &Proxy, link: &Link, error: Malformed) -> Response<ResponseBody> {
    proxy.counters.requests_malformed.up();
    error.limit().into_iter().for_each(|by| proxy.counters.stop(by));
    let id = id::next();
    if proxy.access_log_every > 0 {
        let request_id = id.to_str().unwrap_or_default();
        tracing::info!(peer = %link.peer, status = error.status().as_u16(), request_id, %error, "request refused");
    }
    let reader = Reader { form: Form::Text, head_only: false, h2: link.is_h2(), id: id.clone() };
    let mut response = Refusal::malformed(error).into_response(&reader);
    response.headers_mut().insert(headers::REQUEST_ID, id);
    response
}

/// A request that waits.
struct Held {
    seat: Seat<String>,
    until: Instant,
    /// For the end of a pause.
    paused: bool,
}

/// A request under way.
struct Exchange {
    proxy: Arc<Proxy>,
    link: Arc<Link>,
    /// Whose request it is.
    client: IpAddr,
    id: HeaderValue,
    parts: Parts,
    /// What goes out with the prepared head.
    told: Told,
    body: RequestBody,
    /// The protocol asked for.
    upgrade: Option<HeaderValue>,
    /// The WebSocket that a client of HTTP/2 asks for, until it is open.
    socket: Option<Wanted>,
    record: Box<Record>,
    /// Its seat among those that wait, and until when.
    held: Option<Held>,
    /// It has waited for a switch once.
    switched: bool,
    /// Who took no connection for it, of those who share it.
    tried: Vec<Arc<Route>>,
    /// Patience with the backend once the request is sent.
    first_byte: Duration,
    /// Its access tokens.
    shown: Option<Shown>,
    /// The daemon that asks, at the platform's own socket.
    daemon: Option<Caller>,
    /// Why the access token that it shows is not good.
    bad: Option<Bad>,
}

impl Exchange {
    /// The answer as it goes out, with what every answer says.
    fn end(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let Self { proxy, id, link, mut record, .. } = self;
        response.headers_mut().insert(headers::REQUEST_ID, id);
        if let Some(hsts) = &proxy.hsts {
            response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
        }
        if link.says_close() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        record.answered(response.status().as_u16());
        response.map(|body| body.with_record(record))
    }

    async fn run(&mut self) -> Result<Response<ResponseBody>, Refusal> {
        self.record.came_from(self.client);
        self.pace()?;
        websocket::judge(&self.parts)?;
        let authority = authority(&self.parts)?;
        self.record.for_host(&authority);
        self.record.in_turn(self.link.door().turn().ok_or_else(too_many)?);
        self.judge_tokens(&authority)?;
        loop {
            let (decision, revision) = self.decide(&authority)?;
            if !matches!(decision, Decision::Wait(_) | Decision::App { .. } | Decision::Dev { .. }) {
                self.held = None; // it waits no more
            }
            let (route, by, pool) = match decision {
                Decision::Debug => return Box::pin(self.debug(&authority)).await,
                Decision::Platform(caller) => {
                    let by = Identity { caller: Some(caller), spent: true, ..Identity::default() };
                    return Box::pin(self.ask_debug_api(&authority, &by)).await;
                }
                Decision::Ours(ours) => return Box::pin(self.answer(ours, &authority)).await,
                Decision::Wait(route) => {
                    route.iter().for_each(|route| self.record.for_route(route));
                    self.link.hold(true);
                    Box::pin(self.hold(route.as_deref(), revision)).await?;
                    self.link.hold(false);
                    continue;
                }
                Decision::Site { route, by } => {
                    match route.site.folder().map_err(|error| no_files(&error))? {
                        Some(folder) => {
                            self.record.for_route(&route);
                            let path = route.entry.rules.inner(self.parts.uri.path());
                            let method = &self.parts.method;
                            let answer =
                                Box::pin(files::answer(folder, method, path, &self.parts.headers)).await;
                            return answer.map(|answer| self.open_to_origins(&route, answer));
                        }
                        None => (Arc::clone(&route), by, route.app.clone()),
                    }
                }
                Decision::Dev { route, by } => (Arc::clone(&route), by, route.dev.clone()),
                Decision::App { route, by } => (Arc::clone(&route), by, route.app.clone()),
            };
            self.record.for_route(&route);
            if self.parts.method == Method::POST && route.entry.id == LOGIN {
                self.pace_login(&by)?;
            }
            let Some(pool) = pool else { return Err(unreachable(&route)) };
            if self.socket.is_some() && pool.is_h2c() {
                return Err(websocket::not_here("Not Implemented: the app takes no WebSocket"));
            }
            if let Some(answer) = self.pass(&route, &pool, &by, &authority).await? {
                return Ok(self.open_to_origins(&route, answer));
            }
        }
    }

    /// Passes the request to an app; nothing if it is to be decided anew, because the app took no connection.
    async fn pass(
        &mut self,
        route: &Arc<Route>,
        pool: &Arc<Pool>,
        by: &Identity,
        authority: &HeaderValue,
    ) -> Result<Option<Response<ResponseBody>>, Refusal> {
        let most = route.entry.rules.body_bytes.unwrap_or(self.proxy.body_bytes);
        self.body.bound(most).map_err(|_| too_large())?;
        let taken = match self.take(pool).await {
            Ok(taken) => taken,
            Err(error) if self.try_another(route, &error) => return Ok(None),
            Err(error) => {
                Box::pin(self.await_switch(route, pool, error)).await?;
                return Ok(None);
            }
        };
        self.held = None;
        self.prepare(authority, by, None, route.entry.id == LOGIN);
        // Only the app itself hears the signed word: on a development server's port anybody of this machine may listen.
        let to_app = route.app.as_ref().is_some_and(|app| Arc::ptr_eq(app, pool));
        by.tell(
            &mut self.parts.headers,
            route.entry.secret.as_ref().filter(|_| to_app),
            clock::about_unix_ms,
        );
        self.fit(route);
        let mut answer = self.exchange(Some(route), pool, taken).await?;
        if route.entry.id != LOGIN {
            cookies::strip_set(answer.headers_mut());
        }
        Ok(Some(answer))
    }

    /// Says with an answer which scripts may read it, where the app's rules do.
    fn open_to_origins(&self, route: &Route, mut answer: Response<ResponseBody>) -> Response<ResponseBody> {
        let rules = &route.entry.rules;
        if !rules.cors.is_empty() {
            cors::say(answer.headers_mut(), cors::listed(&self.parts.headers, rules));
        }
        answer
    }

    /// Refuses a request that comes faster than its client may send them.
    fn pace(&self) -> Result<(), Refusal> {
        self.link.door().pace(Client::at(self.client)).map_err(too_fast)
    }

    /// Decides by the table as it is now, whose revision comes with the decision. The table itself is not kept: it holds on to
    /// what all apps drain.
    fn decide(&self, authority: &HeaderValue) -> Result<(Decision, u64), Refusal> {
        let table = Arc::clone(&self.proxy.table.borrow());
        let origin = Origin {
            names: self.link.names.as_deref(),
            boxed: self.link.door().caller(),
            client: self.link.client.as_ref(),
            tried: &self.tried,
            daemon: self.daemon.as_ref(),
            shown: self.shown.as_ref(),
        };
        let now = clock::about_unix_ms();
        let decision = decide(&self.parts, authority, origin, &table, &self.proxy.policy, now);
        let decision = decision.inspect_err(|refusal| self.note_refusal(refusal, authority))?;
        if let Decision::App { route, .. } | Decision::Dev { route, .. } | Decision::Site { route, .. } =
            &decision
            && route.entry.idle_stop_ms > 0
        {
            route.activity.touch();
        }
        Ok((decision, table.revision))
    }

    /// Waits until it is worth deciding anew: for an instance in turn with those that came before, else until the table has
    /// changed. No reader has the request's body meanwhile.
    async fn hold(&mut self, route: Option<&Route>, seen: u64) -> Result<(), Refusal> {
        let in_vain = |by| route.map_or_else(unknown_yet, |route| unready(route, 1)).by(by);
        let timing = &self.proxy.timing;
        let (paused, limit, by) = match route.is_some_and(|route| route.entry.pause.is_some()) {
            true => (true, timing.pause, Stopped::Pause),
            false => (false, timing.hold, Stopped::Hold),
        };
        let held = match self.held.take() {
            Some(held) if held.paused == paused => held,
            before => {
                let app = route.map_or("", |route| &route.entry.id);
                let seat = before.map_or_else(|| self.seat(app), |held| Some(held.seat));
                let seat = seat.ok_or_else(|| in_vain(Stopped::Holds))?;
                Held { seat, until: Instant::now() + limit, paused }
            }
        };
        let until = self.held.insert(held).until;
        let mut table = self.proxy.table.clone();
        let Some(route) = route else {
            let news = table.wait_for(|table| table.revision != seen);
            return if matches!(timeout_at(until, news).await, Ok(Ok(_))) {
                Ok(())
            } else {
                Err(in_vain(by))
            };
        };
        let (id, hold_ms) = (route.entry.id.as_str(), self.proxy.policy.hold_ms);
        let same = |now: &Entry| now.pause.is_some() == paused && waits(now, hold_ms, clock::about_unix_ms());
        let news = async {
            let _turn = route.queue.lock().await;
            let comes = |table: &Arc<Table>| {
                !table.by_id(id).is_some_and(|now| same(&now.entry)) || table.is_shared(id)
            };
            let settled = table.wait_for(comes);
            // Who is first in turn wakes it for all.
            tokio::select! {
                settled = settled => settled.is_ok(),
                () = self.proxy.sleep.keep_awake(self.proxy.table.clone(), id) => false,
            }
        };
        if timeout_at(until, news).await == Ok(true) { Ok(()) } else { Err(in_vain(by)) }
    }

    /// A seat among those that wait for this app, if one is free and there is room for what it brings.
    fn seat(&self, app: &str) -> Option<Seat<String>> {
        let boxed = self.link.door().caller().is_some();
        let room = if boxed { &self.proxy.inward_waiting } else { &self.proxy.waiting };
        room.take(app, headers::bytes(&self.parts) + self.body.ahead())
    }

    /// An app that refuses connections may just have been replaced: once, news about it are waited for.
    async fn await_switch(
        &mut self,
        route: &Route,
        failed: &Arc<Pool>,
        error: Unavailable,
    ) -> Result<(), Refusal> {
        let is_app = route.app.as_ref().is_some_and(|app| Arc::ptr_eq(app, failed));
        if matches!(error, Unavailable::Connect(_)) && is_app && !self.switched {
            self.switched = true;
            let mut table = self.proxy.table.clone();
            let id = route.entry.id.as_str();
            let same = |now: &Route| {
                now.entry.routed && now.app.as_ref().is_some_and(|app| Arc::ptr_eq(app, failed))
            };
            let news = table.wait_for(|table| !table.by_id(id).is_some_and(|now| same(now)));
            if matches!(timeout(self.proxy.timing.switch, news).await, Ok(Ok(_))) {
                return Ok(());
            }
        }
        Err(self.fail(&error.into()))
    }

    /// Makes the head fit for a backend. What decided about the request may be gone from it then: it is not decided anew.
    fn prepare(
        &mut self,
        authority: &HeaderValue,
        by: &Identity,
        token: Option<&HeaderValue>,
        keeps_cookies: bool,
    ) {
        let upgrade = self.upgrade.clone();
        let (peer, passed_on) = (&self.link.peer_told, self.link.trusted.then_some(self.client));
        let edge = Edge { peer, passed_on, authority, id: &self.id, by, keeps_cookies, upgrade, token };
        self.told = headers::toward_backend(&mut self.parts.headers, edge);
    }

    /// Makes the prepared head fit for an app with rules of its own: says who its client is, and leaves of the target what
    /// the app is asked for.
    fn fit(&mut self, route: &Route) {
        let rules = &route.entry.rules;
        if let Some(client) = self.link.client.as_ref().filter(|_| rules.client_ca.is_some()) {
            headers::identify(&mut self.parts.headers, client);
        }
        if !rules.strip {
            return;
        }
        let mut target = rules.inner(self.parts.uri.path()).to_owned();
        if let Some(query) = self.parts.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        if let Ok(target) = target.parse() {
            self.parts.uri = target; // a part of a target is one
        }
    }

    /// Makes the client's answer of the backend's.
    fn receive(
        &mut self,
        answered: Result<(response::Parts, Box<Call>), Failure>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let (mut parts, call) = answered.map_err(|failure| self.fail(&failure))?;
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.change_protocol(parts, call);
        }
        headers::toward_client(&mut parts.headers, None);
        parts.version = Version::HTTP_11;
        Ok(Response::from_parts(parts, ResponseBody::backend(call)))
    }

    /// The backend agreed to an upgrade: from here on bytes are copied.
    fn change_protocol(
        &mut self,
        mut parts: response::Parts,
        call: Box<Call>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let agreed = self.upgrade.take().filter(|asked| {
            let answers_key = self.socket.as_ref().is_none_or(|wanted| wanted.is_agreed(&parts.headers));
            answers_key && upgrade::agreed(asked, &parts.headers)
        });
        let Some(protocol) = agreed else { return Err(self.fail(&Failure::Protocol)) };
        let (wire, hold) = call.into_lease().into_wire();
        let tunnel = Tunnel {
            wire,
            hold,
            counters: Arc::clone(&self.proxy.counters),
            linger: self.proxy.timing.upgrade_linger,
            end: self.proxy.end.clone(),
        };
        let body = match self.socket.take() {
            Some(wanted) => wanted.open(&mut parts, tunnel),
            None => {
                headers::toward_client(&mut parts.headers, Some(protocol));
                ResponseBody::tunnel(tunnel)
            }
        };
        Ok(Response::from_parts(parts, body))
    }

    /// Over HTTP/2 any success would tell a client that the WebSocket that it asked for is open.
    fn believable(&mut self, answer: Response<ResponseBody>) -> Result<Response<ResponseBody>, Refusal> {
        match self.socket.is_some() && answer.status().is_success() {
            true => Err(self.fail(&Failure::Protocol)),
            false => Ok(answer),
        }
    }

    /// Who reads an answer of the proxy's own to it.
    fn reader(&self) -> Reader {
        let (form, head_only) = (Form::of(&self.parts.headers), self.parts.method == Method::HEAD);
        Reader { form, head_only, h2: self.link.is_h2(), id: self.id.clone() }
    }

    fn fail(&mut self, failure: &Failure) -> Refusal {
        self.record.broke(failure);
        failure.refusal()
    }
}

pub(crate) fn too_large() -> Refusal {
    let text = "Payload Too Large: the request's body has more bytes than it may";
    Refusal { close: true, ..Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text).by(Stopped::Body) }
}

fn too_fast(wait: Duration) -> Refusal {
    let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    let text = "Too Many Requests: this address sends faster than it may";
    Refusal { retry_after: Some(seconds), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, text) }
}

fn too_late() -> Refusal {
    let text = "Gateway Timeout: the request took too long";
    Refusal { close: true, ..Refusal::new(StatusCode::GATEWAY_TIMEOUT, text).by(Stopped::Whole) }
}

fn too_many() -> Refusal {
    Refusal::unavailable("Service Unavailable: too many requests of this app are under way", 1)
}

fn unreachable(route: &Route) -> Refusal {
    tracing::warn!(instance = route.entry.id, "the instance is routed but has no endpoint");
    Refusal::unavailable("Service Unavailable: the app can't be reached", 1)
}

fn no_files(error: &std::io::Error) -> Refusal {
    tracing::warn!(%error, "static files can't be opened");
    Refusal::unavailable("Service Unavailable: the files of the app can't be opened now", 1)
}
