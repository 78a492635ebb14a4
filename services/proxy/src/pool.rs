//! Connections to one backend: taken for a request, given back after its answer, bounded in number and age.
//!
//! An idle connection is in one of three states, changed by compare-and-swap, so that a request never goes out on a
//! connection that its own age limit is closing: `idle since t` -> `busy` (taken) or `closed` (too old); `busy` -> `idle`.
//! Each connection is driven by a task of its own, which also holds its age timer; nothing sweeps.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use nexushub_chassis::reach;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{body::RequestBody, clock, config::Config};

/// Where a pool's connections lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// The app in the box of a shim, whose control socket this is.
    Boxed(PathBuf),
}

impl Target {
    /// A port on 127.0.0.1.
    pub(crate) fn local(port: u16) -> Self {
        Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

/// What bounds a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests at once.
    pub(crate) requests: usize,
    /// Idle connections kept.
    pub(crate) idle: usize,
    /// How long they are kept.
    pub(crate) idle_age: Duration,
    /// Time for connecting.
    pub(crate) connect: Duration,
    /// How long a request waits for its turn.
    pub(crate) wait: Duration,
    /// Header fields of one answer.
    pub(crate) max_headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Config::default().pool_limits()
    }
}

/// Why there is no connection; nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// Nobody listens there, or nobody answered in time.
    #[error("could not connect")]
    Connect(#[source] io::Error),
    /// As many requests are under way as may be.
    #[error("too many requests at once")]
    Busy,
}

/// Connections to one backend.
#[derive(Debug)]
pub(crate) struct Pool {
    target: Target,
    limits: Limits,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    gone: CancellationToken,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    seat: Arc<Seat>,
}

/// A connection taken for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<RequestBody>,
    /// It has served before, so its backend may be closing it at this very moment.
    pub(crate) reused: bool,
    seat: Arc<Seat>,
    pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
}

/// The state that a connection's task and its pool share.
#[derive(Debug, Default)]
struct Seat(AtomicU64);

const BUSY: u64 = 0;
const CLOSED: u64 = u64::MAX;

impl Seat {
    fn rest(&self) {
        self.0.store(clock::now_ms(), Ordering::Release);
    }

    /// Takes an idle connection into use; false when its age limit was quicker.
    fn take(&self) -> bool {
        let since = self.0.load(Ordering::Acquire);
        since != CLOSED && self.0.compare_exchange(since, BUSY, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Closes the connection if it is too old, or says when to look again.
    fn expire(&self, age: Duration) -> Option<Instant> {
        let since = self.0.load(Ordering::Acquire);
        if since == BUSY {
            return Some(Instant::now() + age);
        }
        let due = clock::instant(since) + age;
        if due > Instant::now() {
            return Some(due);
        }
        match self.0.compare_exchange(since, CLOSED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => None,
            Err(_) => Some(Instant::now() + age),
        }
    }
}

impl Pool {
    /// A pool without connections yet; opens none.
    pub(crate) fn new(target: Target, limits: Limits) -> Self {
        let turns = Arc::new(Semaphore::new(limits.requests.clamp(1, Semaphore::MAX_PERMITS)));
        Self { target, limits, turns, idle: Mutex::new(Vec::new()), gone: CancellationToken::new() }
    }

    /// Whether no request is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.turns.available_permits() >= self.limits.requests.clamp(1, Semaphore::MAX_PERMITS)
    }

    /// Cancelled when nobody can take or holds a connection of it any more.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// A connection: an idle one if there is, else a new one.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Lease, Unavailable> {
        let turn = self.turn().await?;
        match self.take_idle() {
            Some(Idle { sender, seat }) => {
                Ok(Lease { sender, reused: true, seat, pool: Arc::clone(self), _turn: turn })
            }
            None => self.open(turn).await,
        }
    }

    /// A connection that has served nobody yet.
    pub(crate) async fn take_fresh(self: &Arc<Self>) -> Result<Lease, Unavailable> {
        let turn = self.turn().await?;
        self.open(turn).await
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Unavailable> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        match timeout(self.limits.wait, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Unavailable::Busy),
        }
    }

    async fn open(self: &Arc<Self>, turn: OwnedSemaphorePermit) -> Result<Lease, Unavailable> {
        let late = |_| Unavailable::Connect(io::ErrorKind::TimedOut.into());
        let (sender, seat) = timeout(self.limits.connect, self.connect())
            .await
            .map_err(late)?
            .map_err(Unavailable::Connect)?;
        Ok(Lease { sender, reused: false, seat, pool: Arc::clone(self), _turn: turn })
    }

    async fn connect(&self) -> io::Result<(SendRequest<RequestBody>, Arc<Seat>)> {
        match &self.target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                self.greet(stream).await
            }
            Target::Boxed(shim) => self.greet(reach::connect(shim).await?).await,
            Target::Unix(path) => self.greet(nexushub_chassis::client::connect(path).await?).await,
        }
    }

    async fn greet<S>(&self, stream: S) -> io::Result<(SendRequest<RequestBody>, Arc<Seat>)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        if self.limits.max_headers > 100 {
            builder.max_headers(self.limits.max_headers);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let seat = Arc::new(Seat::default());
        tokio::spawn(drive(connection, Arc::clone(&seat), self.limits.idle_age));
        Ok((sender, seat))
    }

    /// The connection that was used last, of those that are ready for a request.
    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.lock();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if idle[at].sender.is_closed() {
                idle.swap_remove(at);
            } else if idle[at].sender.is_ready() {
                let found = idle.remove(at);
                if found.seat.take() {
                    return Some(found);
                }
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that wait for a request.
    #[cfg(test)]
    pub(crate) fn idle_count(&self) -> usize {
        self.lock().iter().filter(|idle| idle.sender.is_ready()).count()
    }
}

impl Lease {
    /// Gives the connection back after its answer was read to the end. It may still be finishing with the request's body;
    /// it is used again only once it is ready.
    pub(crate) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let Self { sender, seat, pool, .. } = self;
        let mut idle = pool.lock();
        if idle.len() >= pool.limits.idle {
            idle.retain(|other| !other.sender.is_closed());
        }
        if idle.len() < pool.limits.idle {
            seat.rest();
            idle.push(Idle { sender, seat });
        }
    }
}

/// Drives one connection until it closes or has been idle for too long.
async fn drive<S>(connection: Connection<TokioIo<S>, RequestBody>, seat: Arc<Seat>, age: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let mut alarm = std::pin::pin!(sleep_until(Instant::now() + age));
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection to a backend ended");
                }
                return;
            }
            () = &mut alarm => match seat.expire(age) {
                Some(next) => alarm.as_mut().reset(next),
                None => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_closing_is_not_taken() {
        let seat = Seat::default();
        seat.rest();
        assert_eq!(seat.expire(Duration::ZERO), None);
        assert!(!seat.take());
    }

    #[test]
    fn a_connection_in_use_does_not_expire() {
        let seat = Seat::default();
        seat.rest();
        assert!(seat.take());
        assert!(seat.expire(Duration::ZERO).is_some());
    }

    #[test]
    fn a_young_connection_is_looked_at_again_when_it_is_due() {
        let seat = Seat::default();
        seat.rest();
        assert!(seat.expire(Duration::from_secs(3600)).is_some_and(|due| due > Instant::now()));
        assert!(seat.take());
    }
}
