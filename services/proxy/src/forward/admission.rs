//! What a request shows, judged before anything is decided; and what becomes of who is refused: counted, noted, slowed down.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::ORIGIN};

use super::{Exchange, Proxy, too_fast};
use crate::{
    access::Record,
    address::Client,
    body::{RequestBody, ResponseBody},
    clock, cors,
    decide::{authority, rules_at, unauthorized},
    door::Caller,
    headers, id,
    identity::Identity,
    link::Link,
    paths::{Class, classify},
    refusal::Refusal,
    upgrade,
    websocket::{self, Wanted},
    wellknown::LOGIN,
};

/// The address of whose request it is: of the other end, or of whom a trusted proxy there passes it on for.
fn client_of(proxy: &Proxy, link: &Link, headers: &HeaderMap) -> IpAddr {
    let peer = link.peer.ip().to_canonical();
    if link.trusted { headers::client(headers, |hop| proxy.trusts(hop)).unwrap_or(peer) } else { peer }
}

/// The number of a request: a new one, unless a trusted proxy has given it one.
fn id_of(link: &Link, headers: &HeaderMap) -> HeaderValue {
    let theirs = if link.trusted { headers::request_id(headers) } else { None };
    theirs.cloned().unwrap_or_else(id::next)
}

impl Exchange {
    /// A request as it came.
    pub(super) fn begin(proxy: Arc<Proxy>, link: Arc<Link>, request: Request<RequestBody>) -> Self {
        let (mut parts, mut body) = request.into_parts();
        let id = id_of(&link, &parts.headers);
        let line = (parts.method.clone(), parts.uri.clone());
        let mut record = Record::begin(
            Arc::clone(&proxy.counters),
            Arc::clone(&link),
            id.clone(),
            line,
            proxy.access_log_every,
        );
        record.in_trace(headers::join_trace(&mut parts.headers, &id));
        let socket = websocket::take(&mut parts, &mut body);
        Self {
            client: client_of(&proxy, &link, &parts.headers),
            first_byte: proxy.timing.first_byte,
            proxy,
            link,
            id,
            upgrade: if socket.is_some() { Some(Wanted::protocol()) } else { upgrade::asked(&parts) },
            socket,
            parts,
            told: Vec::new(),
            body,
            record,
            held: None,
            switched: false,
            tried: Vec::new(),
            shown: None,
            daemon: None,
            bad: None,
        }
    }

    /// Judges the tokens that come with the request; what they open is decided later.
    pub(super) fn judge_tokens(&mut self, authority: &HeaderValue) -> Result<(), Refusal> {
        let gate = &self.proxy.gate;
        (self.shown, self.bad) = gate.shown(&self.parts.headers, clock::about_unix_ms);
        if let Some(uid) = self.link.uid {
            let daemon = gate.daemon(&self.parts.headers, uid).ok_or_else(unauthorized);
            self.daemon = Some(daemon.inspect_err(|refusal| self.note_refusal(refusal, authority))?);
        }
        Ok(())
    }

    /// Refuses who guesses passwords: of each client only so many are passed on, whoever they are for; of apps, which have nobody to
    /// sign in, none.
    pub(super) fn pace_login(&mut self, by: &Identity) -> Result<(), Refusal> {
        if self.link.door().caller().is_some() && classify(self.parts.uri.path()) != Class::Internal {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden"));
        }
        let Some(rates) = self.proxy.logins.as_ref().filter(|_| by.caller.is_none()) else { return Ok(()) };
        rates.ask(Client::at(self.client), clock::since_start()).map_err(|wait| {
            self.proxy.counters.requests_limited.up();
            self.audit("session.log_in", "", LOGIN, Some("too fast"));
            too_fast(wait)
        })
    }

    /// Counts who reached a limit, and lets a script read why it was refused, where it might have read the answer.
    pub(super) fn open_refusal(&self, refusal: Refusal) -> Response<ResponseBody> {
        refusal.by.into_iter().for_each(|by| self.proxy.counters.stop(by));
        let mut refused = refusal.into_response(&self.reader());
        if !self.parts.headers.contains_key(ORIGIN) {
            return refused;
        }
        let (table, path) = (Arc::clone(&self.proxy.table.borrow()), self.parts.uri.path());
        let base = &self.proxy.policy.base_domain;
        let rules = authority(&self.parts).ok().and_then(|host| rules_at(&table, &host, path, base));
        if let Some(rules) = rules.filter(|rules| !rules.cors.is_empty()) {
            cors::say(refused.headers_mut(), cors::listed(&self.parts.headers, &rules));
        }
        refused
    }

    /// Notes who was refused for what was shown, or was not.
    pub(super) fn note_refusal(&self, refusal: &Refusal, authority: &HeaderValue) {
        if !matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return;
        }
        self.proxy.counters.access_refused.up();
        let why = self.bad.map(|bad| bad.to_string());
        let who = self.link.door().caller().map(Caller::id).unwrap_or_default();
        let object = format!("{}{}", authority.to_str().unwrap_or_default(), self.parts.uri.path());
        self.audit("access.refuse", who, &object, Some(why.as_deref().unwrap_or(&refusal.text)));
    }
}
