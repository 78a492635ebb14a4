//! The front: accepts connections by its doors, does their handshakes, and drives each until it closes, has been quiet for too
//! long, or its door drains.

use std::{
    future::{Future, poll_fn, ready},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::Either;
use http::{Request, Response};
use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::HandshakeKind;
use tokio::{
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use crate::{
    address::Client,
    body::{RequestBody, ResponseBody},
    clock,
    config::Config,
    counters::Stopped,
    door::{Door, Place},
    forward::{Proxy, handle, redirected, refuse},
    guard::Verified,
    h1::{self, Malformed, channel::Duplex},
    h2,
    link::{Link, Quiet, Waits},
    preface,
    tls::{Secured, Tls},
};

/// How long a connection that was told to close may take over it.
const CLOSING: Duration = Duration::from_secs(5);
/// So many connections are accepted in a row.
const IN_A_ROW: usize = 4;
/// Pause after an accept that failed for want of descriptors or memory: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a connection ended that did not end well; of interest to nobody but the log.
pub(crate) type Ended = Box<dyn std::error::Error + Send + Sync>;

/// What becomes of those who come by a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// They speak TLS and are served.
    Serve,
    /// They speak plain HTTP and are sent to this port.
    Redirect(u16),
}

/// What every connection needs.
pub(crate) struct Front {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) tls: Tls,
    terms: h2::Terms,
    /// What clients of HTTP/2 may borrow; out of a box nobody needs to, since its way is short.
    ahead: Arc<h2::Pool>,
    quiet: Quiet,
    drain_idle_ms: u64,
    handshake: Duration,
    /// Whose connections begin with the PROXY protocol.
    prefaced: Vec<IpNet>,
}

impl Front {
    /// A front for this proxy.
    pub(crate) fn new(proxy: Arc<Proxy>, tls: Tls, config: &Config) -> Arc<Self> {
        let terms = h2::Terms {
            head: config.head_limits(),
            streams: config.h2_streams as usize,
            paces: config.paces(),
            taking: Duration::from_millis(config.taking_ms),
            lender: None,
            culprit: None,
            counters: Arc::clone(&proxy.counters),
        };
        Arc::new(Self {
            proxy,
            tls,
            terms,
            ahead: Arc::new(config.ahead()),
            quiet: Quiet {
                idle_ms: config.idle_ms,
                header_ms: config.header_ms,
                beside_ms: config.header_ms,
                taking_ms: config.taking_ms,
                since_ms: 0,
            },
            drain_idle_ms: config.drain_idle_ms,
            handshake: Duration::from_millis(config.tls_handshake_ms),
            prefaced: config.proxy_protocol_from.clone(),
        })
    }

    /// Accepts by a door until it drains. The listener is closed when this returns; whoever handed it over and other
    /// generations hold it too.
    ///
    /// Between a few new ones everybody else is served.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener, door: Arc<Door>, manner: Manner) {
        let (mut troubled, mut in_a_row) = (false, 0);
        loop {
            if in_a_row == IN_A_ROW {
                in_a_row = 0;
                yield_now().await;
            }
            let accepted = tokio::select! {
                biased;
                () = door.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    (troubled, in_a_row) = (false, in_a_row + 1);
                    if let Some(place) = door.admit() {
                        let (seat, front) = (Arc::clone(&place.seat), Arc::clone(&self));
                        let connection = Box::pin(front.receive(stream, peer, place, manner));
                        self.proxy.tasks.spawn(seat.hold(connection));
                    }
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut troubled, true) {
                        tracing::warn!(%error, "could not accept connections; trying on");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn receive(self: Arc<Self>, mut stream: TcpStream, peer: SocketAddr, place: Place, manner: Manner) {
        let from_a_box = place.door.caller().is_some();
        let direct = !from_a_box && !self.announces(peer);
        let peer = match self.whose(&mut stream, peer, from_a_box).await {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!(%peer, %error, "a connection without the PROXY protocol that was to begin it");
                return;
            }
        };
        let place = if self.proxy.trusts(peer.ip()) { Some(place) } else { place.of(Client::at(peer.ip())) };
        let Some(place) = place else { return };
        let outcome = match manner {
            Manner::Serve => self.converse(stream, (peer, direct), place).await,
            Manner::Redirect(port) => Box::pin(self.redirect(stream, peer, place, port)).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%peer, error, "connection ended");
        }
    }

    /// What it goes through one after the other lies in boxes: else an open connection had room for all of it at once.
    async fn converse(
        &self,
        stream: TcpStream,
        (peer, direct): (SocketAddr, bool),
        place: Place,
    ) -> Result<(), Ended> {
        let shaken = Box::pin(timeout(self.handshake, self.shake(stream))).await;
        self.tls.look(); // a client that refuses our certificate has the more reason
        let (stream, client) = match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(shaken) => shaken,
            Err(error) => {
                self.proxy.counters.tls_failures.up();
                return Err(format!("handshake failed: {error}").into());
            }
        };
        let session = stream.session();
        let counters = &self.proxy.counters;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        if resumed { &counters.tls_resumed } else { &counters.tls_full }.up();
        let h2 = session.alpn_protocol() == Some(b"h2");
        let names = session.server_name().map(|name| self.tls.shelf.names(&name.to_ascii_lowercase()));
        let trusted = self.proxy.trusts(peer.ip()) && place.door.caller().is_none();
        let link = Link::new(peer, names, h2, place).verified(client).direct(direct).trust(trusted);
        let conversation: Pin<Box<dyn Future<Output = Result<(), Ended>> + Send>> = match link.is_h2() {
            true => Box::pin(self.speak_h2(stream, &link)),
            false => Box::pin(self.speak_h1(stream, &link)),
        };
        conversation.await
    }

    /// Shakes hands; only where some app wants to know its clients it matters for whom.
    async fn shake(&self, stream: TcpStream) -> io::Result<(Secured, Option<Verified>)> {
        let guarded = self.proxy.table.borrow().is_guarded();
        self.tls.accept(stream, |name| guarded.then(|| self.proxy.client_ca(name)).flatten()).await
    }

    /// Sends a client that came by plain HTTP to the listener for HTTPS, which has this port.
    async fn redirect(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        port: u16,
    ) -> Result<(), Ended> {
        let link = Link::new(peer, None, false, place).trust(false);
        let answer = |asked| ready(redirected(&self.proxy, &link, asked, port));
        let conversation = Box::pin(h1::server::serve(stream, &link, self.terms.head, answer));
        let ended = self.attend(conversation, &link).await;
        Ok(ended.transpose().map(drop)?)
    }

    /// Whose connection it is: the peer's, unless that is one that passes others' on and says so. No app is.
    async fn whose(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
        from_a_box: bool,
    ) -> io::Result<SocketAddr> {
        if from_a_box || !self.announces(peer) {
            return Ok(peer);
        }
        let said = timeout(self.handshake, preface::take(stream)).await;
        Ok(said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?.unwrap_or(peer))
    }

    /// Whether this is one that passes others' connections on, and says whose.
    fn announces(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        self.prefaced.iter().any(|net| net.contains(&address))
    }

    /// Converses in HTTP/1.1 until the connection ends.
    pub(crate) async fn speak_h1<S: Duplex + 'static>(
        &self,
        stream: S,
        link: &Arc<Link>,
    ) -> Result<(), Ended> {
        let answer = |asked| answer(Arc::clone(&self.proxy), Arc::clone(link), asked);
        let conversation = Box::pin(h1::server::serve(stream, link, self.terms.head, answer));
        match self.attend(conversation, link).await.transpose()?.flatten() {
            Some(upgraded) => Ok(Box::pin(upgraded.backend.run(upgraded.client)).await?),
            None => Ok(()),
        }
    }

    pub(crate) async fn speak_h2<S: Duplex>(&self, stream: S, link: &Arc<Link>) -> Result<(), Ended> {
        let answer = |asked| answer(Arc::clone(&self.proxy), Arc::clone(link), asked);
        let lender = link
            .door()
            .caller()
            .is_none()
            .then(|| h2::Lender { pool: Arc::clone(&self.ahead), client: link.client() });
        let terms = h2::Terms { lender, culprit: link.culprit(), ..self.terms.clone() };
        let conversation = Box::pin(h2::server::serve(stream, link, terms, answer));
        Ok(self.attend(conversation, link).await.unwrap_or(Ok(()))?)
    }

    /// Drives a connection to its end. When its door drains, an HTTP/2 connection says so at once, with no request lost; an
    /// HTTP/1.1 connection says so in its next answer, and is closed only if none is asked for: a request that is already on
    /// its way is served. Nothing is returned of one that was dropped.
    async fn attend<C: Future>(&self, mut connection: Pin<Box<C>>, link: &Link) -> Option<C::Output> {
        let mut drain = std::pin::pin!(link.door().drain.cancelled());
        let (mut alarm, mut quiet) = (Alarm::new(self.quiet), self.quiet);
        let (mut draining, mut closing) = (false, false);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                if !draining && drain.as_mut().poll(cx).is_ready() {
                    draining = true;
                    quiet = quiet.draining(self.drain_idle_ms);
                    link.wind_up();
                    closing = link.is_h2();
                } else {
                    match alarm.check(link, quiet, closing, cx) {
                        Verdict::Stay => return Poll::Pending,
                        Verdict::Drop(by) => {
                            by.filter(|_| !draining).into_iter().for_each(|by| self.proxy.counters.stop(by));
                            return Poll::Ready(None);
                        }
                        Verdict::Close => {
                            closing = true;
                            if !draining {
                                self.proxy.counters.stop(Stopped::Idle);
                            }
                        }
                    }
                }
                if closing {
                    link.close();
                    alarm.set(Instant::now() + CLOSING);
                }
            }
        })
        .await
    }
}

/// The answer to what a client says, by whichever version of HTTP.
fn answer(
    proxy: Arc<Proxy>,
    link: Arc<Link>,
    asked: Result<Request<RequestBody>, Malformed>,
) -> impl Future<Output = Response<ResponseBody>> {
    match asked {
        Ok(request) => Either::Left(handle(proxy, link, request)),
        Err(error) => Either::Right(ready(refuse(&proxy, &link, error))),
    }
}

/// What is to become of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    /// It finishes what it does.
    Close,
    /// It is gone now, for reaching that limit.
    Drop(Option<Stopped>),
}

/// The one timer of a connection. It is set back rarely: when it rings too early it looks when it is due and sleeps on.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new(quiet: Quiet) -> Self {
        let latest = Duration::from_millis(quiet.idle_ms);
        Self { sleep: Box::pin(sleep_until(Instant::now() + latest)) }
    }

    fn set(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
    }

    fn check(&mut self, link: &Link, quiet: Quiet, closing: bool, cx: &mut Context<'_>) -> Verdict {
        let idle = Duration::from_millis(quiet.idle_ms);
        let due = link.due(quiet).map(|(at, waits)| (clock::instant(at), waits));
        if let Some((at, _)) = due
            && !closing
            && at < self.sleep.deadline()
        {
            self.set(at);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match due {
                _ if closing && link.is_quiet() => return Verdict::Drop(None),
                Some((at, _)) if at > now => self.set(at),
                Some((_, Waits::Head)) => return Verdict::Drop(Some(Stopped::SlowHeader)),
                Some((_, Waits::Taking)) => return Verdict::Drop(Some(Stopped::NotTaking)),
                Some((_, Waits::Idle)) => return Verdict::Close,
                None => self.set(now + if closing { CLOSING } else { idle }),
            }
        }
        Verdict::Stay
    }
}

/// Linux hands these options on to what a listener accepts, which saves three calls a connection: answers leave at once, and
/// a peer that vanished is noticed after two minutes although nothing is sent to it.
pub(crate) fn prepare(listener: &std::net::TcpListener) -> io::Result<()> {
    setsockopt(listener, sockopt::TcpNoDelay, &true)?;
    setsockopt(listener, sockopt::KeepAlive, &true)?;
    setsockopt(listener, sockopt::TcpKeepIdle, &60)?;
    setsockopt(listener, sockopt::TcpKeepInterval, &15)?;
    setsockopt(listener, sockopt::TcpKeepCount, &4)?;
    Ok(())
}

/// Errors that the connection about to be accepted brought with it (accept(2)); the next one may be well.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NetworkDown, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | NetworkDown | NetworkUnreachable
    )
}
