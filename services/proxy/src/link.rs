//! One client's connection as its requests see it, and the judgement how long it may be quiet.
//!
//! ```text
//! waiting for a request --first byte--> reading its head --head complete--> busy --last answer ended--> waiting ...
//!   limit: idle                           limit: header                      no limit here
//! ```
//! A new connection starts as "reading its head", so that a client that connects and says nothing is soon gone. One of HTTP/2
//! that is busy may be reading another head beside that, with the same limit.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderValue};

use crate::{
    address::Client,
    certificate::Names,
    clock,
    door::{Culprit, Door, Place},
    guard::Verified,
    headers::Peer,
};

/// How long a connection may be quiet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet {
    pub(crate) idle_ms: u64,
    pub(crate) header_ms: u64,
    /// The same beside requests that are under way, in a drain, too: what they have to wait for is no reason to cut them off.
    pub(crate) beside_ms: u64,
    /// How long its client may take nothing of what is sent to it.
    pub(crate) taking_ms: u64,
    /// Quiet before this counts as quiet since this.
    pub(crate) since_ms: u64,
}

impl Quiet {
    /// The limit of a connection that drains: it may still bring the request that is on its way, and no other.
    pub(crate) fn draining(self, limit_ms: u64) -> Self {
        Self { idle_ms: limit_ms, header_ms: limit_ms, since_ms: clock::now_ms(), ..self }
    }
}

/// What a quiet connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// For its next request.
    Idle,
    /// For the rest of a request's head.
    Head,
    /// For its client to take what is sent to it.
    Taking,
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: SocketAddr,
    /// The same as apps hear of it, made once.
    pub(crate) peer_told: Peer,
    /// What its certificate covers, if the client asked for a name in the handshake.
    pub(crate) names: Option<Arc<Names>>,
    h2: bool,
    requests: AtomicU32,
    /// When the last request ended, or the connection began.
    rested_ms: AtomicU64,
    /// When the head that is being read began; 0 = none is.
    head_ms: AtomicU64,
    /// Since when its client has taken nothing that is ready for it; 0 = it takes what comes.
    blocked_ms: AtomicU64,
    /// The request waits for its app; of its body nothing is read meanwhile.
    held: AtomicBool,
    last: AtomicBool,
    closing: AtomicBool,
    /// What an app hinted at before its answer. Whoever drives that answer takes it before another one is driven.
    hints: Mutex<Option<Box<HeaderMap>>>,
    hinted: AtomicBool,
    /// Who the client proved to be in the handshake, if it was asked.
    pub(crate) client: Option<Verified>,
    /// The peer is believed when it says who its client is.
    pub(crate) trusted: bool,
    /// The peer is who asks: nobody announced another one, as the PROXY protocol does.
    pub(crate) direct: bool,
    /// The user whose process is at its other end, where that is one of this machine's, at the platform's own socket.
    pub(crate) uid: Option<u32>,
    place: Place,
}

impl Link {
    /// A connection whose handshake is done.
    pub(crate) fn new(peer: SocketAddr, names: Option<Arc<Names>>, h2: bool, place: Place) -> Self {
        let now = clock::now_ms();
        let address = HeaderValue::try_from(peer.ip().to_canonical().to_string())
            .expect("an address is printable ASCII");
        Self {
            peer,
            peer_told: Peer::at(address),
            names,
            h2,
            requests: AtomicU32::new(0),
            rested_ms: AtomicU64::new(now),
            head_ms: AtomicU64::new(now),
            blocked_ms: AtomicU64::new(0),
            held: AtomicBool::new(false),
            last: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            hints: Mutex::default(),
            hinted: AtomicBool::new(false),
            client: None,
            trusted: false,
            direct: false,
            uid: None,
            place,
        }
    }

    /// Its client proved to be this one.
    pub(crate) fn verified(self, client: Option<Verified>) -> Self {
        Self { client, ..self }
    }

    /// Nobody announced another one in its place.
    pub(crate) fn direct(self, direct: bool) -> Self {
        Self { direct, ..self }
    }

    /// Its peer is a process of this user, at the platform's own socket.
    pub(crate) fn of_daemon(self, uid: u32) -> Self {
        Self { uid: Some(uid), ..self }
    }

    /// Its peer is a proxy before this one, whose word about its clients is believed.
    pub(crate) fn trust(self, trusted: bool) -> Arc<Self> {
        Arc::new(Self { trusted, ..self })
    }

    /// Whether it may go on with a request whose head has come; not if its place was given to another connection meanwhile. Nobody
    /// takes it until it rests.
    pub(crate) fn occupy(&self) -> bool {
        self.place.seat.occupy()
    }

    /// Nothing is under way on it, and all was taken: it may have to make way.
    pub(crate) fn rest(&self) {
        self.place.seat.rest(self.rested_ms.load(Ordering::Acquire));
    }

    /// Whether its place was given to another connection.
    pub(crate) fn is_displaced(&self) -> bool {
        self.place.seat.is_displaced()
    }

    /// It was displaced, and takes its leave.
    pub(crate) fn part(&self) {
        self.place.seat.part();
    }

    /// The door that it came by.
    pub(crate) fn door(&self) -> &Door {
        &self.place.door
    }

    /// Who makes its errors; nobody alone, where its peer passes on those of others.
    pub(crate) fn culprit(&self) -> Option<Culprit> {
        self.client().map(|client| self.place.culprit(client))
    }

    /// Whose it is; nobody's, where its peer passes on those of others. An app has all addresses of its box.
    pub(crate) fn client(&self) -> Option<Client> {
        let boxed = self.door().caller().is_some();
        let address = if boxed { Ipv4Addr::LOCALHOST.into() } else { self.peer.ip() };
        (!self.trusted).then(|| Client::at(address))
    }

    /// Whether it speaks HTTP/2.
    pub(crate) fn is_h2(&self) -> bool {
        self.h2
    }

    /// A request's head is complete.
    pub(crate) fn begin(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.head_ms.store(0, Ordering::Release);
        self.hold(false);
    }

    /// A request waits for its app, or does so no longer.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Release);
    }

    /// Whether its one request waits for its app; of a connection of HTTP/2 that says nothing.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// A request's answer ended.
    pub(crate) fn end(&self) {
        self.rested_ms.store(clock::about_ms(), Ordering::Release);
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether no request is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }

    /// A part of a request's head came in.
    pub(crate) fn received(&self) {
        if self.head_ms.load(Ordering::Acquire) == 0 {
            let now = clock::about_ms();
            self.head_ms.store(now, Ordering::Release);
            self.place.seat.stir(now);
        }
    }

    /// Bytes came in of which the client owes more, or no such are left.
    pub(crate) fn reading(&self, amid: bool) {
        if amid { self.received() } else { self.head_ms.store(0, Ordering::Release) }
    }

    /// Something is ready for its client, who does not take it; or all is taken. `progress`: a part was taken.
    pub(crate) fn blocked(&self, blocked: bool, progress: bool) {
        if !blocked {
            self.blocked_ms.store(0, Ordering::Release);
        } else if progress || self.blocked_ms.load(Ordering::Acquire) == 0 {
            self.blocked_ms.store(clock::about_ms(), Ordering::Release);
        }
    }

    /// When patience ends, and with what; nothing while all that is under way are whole requests.
    pub(crate) fn due(&self, quiet: Quiet) -> Option<(u64, Waits)> {
        let blocked_ms = self.blocked_ms.load(Ordering::Acquire);
        if blocked_ms != 0 {
            return Some((blocked_ms + quiet.taking_ms, Waits::Taking));
        }
        match self.head_ms.load(Ordering::Acquire) {
            0 if !self.is_quiet() => None,
            0 => Some((
                self.rested_ms.load(Ordering::Acquire).max(quiet.since_ms) + quiet.idle_ms,
                Waits::Idle,
            )),
            began if self.is_quiet() => Some((began.max(quiet.since_ms) + quiet.header_ms, Waits::Head)),
            began => Some((began + quiet.beside_ms, Waits::Head)),
        }
    }

    /// An app hints at something before its answer.
    pub(crate) fn hint(&self, hints: Box<HeaderMap>) {
        *self.hints.lock().unwrap_or_else(PoisonError::into_inner) = Some(hints);
        self.hinted.store(true, Ordering::Release);
    }

    /// What it hinted at, once.
    pub(crate) fn take_hints(&self) -> Option<Box<HeaderMap>> {
        if !self.hinted.load(Ordering::Acquire) {
            return None;
        }
        self.hinted.store(false, Ordering::Release);
        self.hints.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The next answer is to be its last.
    pub(crate) fn wind_up(&self) {
        self.last.store(true, Ordering::Release);
    }

    /// It takes no further request.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether it takes no further request.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether an answer given now is to say that the connection closes; HTTP/2 has its own way to say so.
    pub(crate) fn says_close(&self) -> bool {
        !self.h2 && self.last.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::door::{Bounds, Caller};

    const QUIET: Quiet =
        Quiet { idle_ms: 1_000_000, header_ms: 1_000, beside_ms: 1_000, taking_ms: 500, since_ms: 0 };

    fn link(h2: bool) -> Arc<Link> {
        Link::new("192.0.2.7:1".parse().unwrap(), None, h2, Place::single()).trust(false)
    }

    fn waits(link: &Link) -> Option<Waits> {
        link.due(QUIET).map(|(_, waits)| waits)
    }

    #[test]
    fn an_app_is_one_client_whatever_address_of_its_box_it_calls_from() {
        let shared = Arc::new(Semaphore::new(2));
        let bounds = Bounds { connections: 2, requests: 1, errors_per_second: 1, shared };
        let caller = Caller::of("app").unwrap();
        let door = Door::of_box(caller, &bounds, Arc::default(), CancellationToken::new());
        let link =
            |peer: &str| Link::new(peer.parse().unwrap(), None, true, door.admit().unwrap()).trust(false);
        let (one, other) = (link("127.0.0.7:1"), link("127.0.0.8:1"));
        assert!(one.client().is_some() && one.client() == other.client());
    }

    #[test]
    fn a_connection_waits_for_a_head_then_for_the_next_request() {
        let link = link(false);
        assert_eq!(waits(&link), Some(Waits::Head));
        link.begin();
        assert_eq!(waits(&link), None);
        link.end();
        assert_eq!(waits(&link), Some(Waits::Idle));
        link.received();
        assert_eq!(waits(&link), Some(Waits::Head));
    }

    #[test]
    fn a_client_that_takes_nothing_is_waited_for_from_the_moment_it_stopped() {
        let link = link(false);
        link.begin();
        link.blocked(true, true);
        assert_eq!(waits(&link), Some(Waits::Taking));
        let since = link.due(QUIET);
        link.blocked(true, false);
        assert_eq!(link.due(QUIET), since);
        link.blocked(false, true);
        assert_eq!(waits(&link), None);
    }

    #[test]
    fn a_connection_is_quiet_when_its_last_request_has_ended() {
        let link = link(true);
        link.begin();
        link.begin();
        link.end();
        assert!(!link.is_quiet());
        link.end();
        assert!(link.is_quiet());
    }

    #[test]
    fn a_head_that_begins_beside_a_request_has_the_same_limit_and_ends_with_it() {
        let link = link(true);
        link.begin();
        link.reading(true);
        assert_eq!(waits(&link), Some(Waits::Head));
        assert_eq!(link.due(QUIET.draining(1)), link.due(QUIET), "a drain cuts nothing off");
        link.begin();
        assert_eq!(waits(&link), None);
        link.reading(true);
        link.reading(false);
        assert_eq!(waits(&link), None);
    }

    #[test]
    fn quiet_before_a_drain_counts_from_its_beginning() {
        let link = link(false);
        let drain = Quiet { idle_ms: 500, header_ms: 500, since_ms: u64::MAX / 2, ..QUIET };
        assert_eq!(link.due(drain), Some((u64::MAX / 2 + 500, Waits::Head)));
        link.begin();
        link.end();
        assert_eq!(link.due(drain), Some((u64::MAX / 2 + 500, Waits::Idle)));
    }

    #[test]
    fn only_http1_is_told_in_a_header_that_the_connection_closes() {
        for h2 in [false, true] {
            let link = link(h2);
            assert!(!link.says_close());
            link.wind_up();
            assert_eq!(link.says_close(), !h2);
        }
    }

    #[test]
    fn a_mapped_address_is_written_as_the_client_knows_it() {
        let link = Link::new("[::ffff:192.0.2.7]:1".parse().unwrap(), None, false, Place::single());
        assert_eq!(link.peer_told.address(), "192.0.2.7");
    }
}
