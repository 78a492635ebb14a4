//! Connections to one backend: taken for a request, given back after its answer, bounded in number and age.
//!
//! An idle connection is looked at when it is taken: one that the backend has closed meanwhile, or said something on, is not
//! used. Those that nobody takes are closed when their age is reached, by one task for each pool that has any. The connections
//! to an app that speaks h2c are shared, and looked after by `streams.rs`.

pub(crate) mod streams;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use nexushub_chassis::reach::{self, Stream};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::streams::Lines;
use crate::{
    clock,
    config::Config,
    h1::{self, client::Wire},
    workers,
};

/// Where a pool's connections lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A port of this machine's loopback addresses, on whichever somebody listens: what runs at `localhost` may be at either.
    Localhost(u16),
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
    /// The head of an answer.
    pub(crate) head: h1::Limits,
    /// How many workers there are, among whom the idle connections are divided.
    pub(crate) workers: usize,
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
    /// What rests, for each thread its own: a connection is driven by the event loop that opened it.
    rest: Box<[Mutex<Rest>]>,
    /// The same of shared connections; none where the app speaks HTTP/1.1.
    shared: Box<[Lines]>,
    gone: CancellationToken,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// What isn't in use.
#[derive(Debug, Default)]
struct Rest {
    /// The one that has rested longest first.
    idle: Vec<Idle>,
    /// A task looks after their age.
    swept: bool,
}

#[derive(Debug)]
struct Idle {
    wire: Wire,
    since_ms: u64,
}

/// A request's place at its backend, which is there for as long as anybody holds one.
#[derive(Debug)]
pub(crate) struct Hold {
    _pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
}

/// A connection taken for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    wire: Wire,
    /// It has served before, so its backend may be closing it at this very moment.
    pub(crate) reused: bool,
    pool: Arc<Pool>,
    turn: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool without connections yet; opens none.
    pub(crate) fn new(target: Target, limits: Limits) -> Self {
        let turns = Arc::new(Semaphore::new(limits.requests.clamp(1, Semaphore::MAX_PERMITS)));
        let rest = (0..=limits.workers).map(|_| Mutex::default()).collect();
        Self { target, limits, turns, rest, shared: Box::default(), gone: CancellationToken::new() }
    }

    /// One to an app that speaks h2c.
    pub(crate) fn h2c(target: Target, limits: Limits) -> Self {
        let shared = (0..=limits.workers).map(|_| Lines::default()).collect();
        let mut pool = Self::new(target, limits);
        pool.shared = shared;
        pool
    }

    /// Whether the app speaks h2c.
    pub(crate) fn is_h2c(&self) -> bool {
        !self.shared.is_empty()
    }

    /// Requests under way.
    pub(crate) fn under_way(&self) -> usize {
        self.limits.requests.saturating_sub(self.turns.available_permits())
    }

    /// Connections that rest, of all threads; of an app that speaks h2c none does.
    pub(crate) fn resting(&self) -> usize {
        let rest = self.rest.iter().map(|rest| rest.lock().unwrap_or_else(PoisonError::into_inner));
        rest.map(|rest| rest.idle.len()).sum()
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
            Some(wire) => Ok(Lease { wire, reused: true, pool: Arc::clone(self), turn }),
            None => Box::pin(self.open(turn)).await, // rare, and large
        }
    }

    /// A connection that has served nobody yet.
    pub(crate) async fn take_fresh(self: &Arc<Self>) -> Result<Lease, Unavailable> {
        let turn = self.turn().await?;
        Box::pin(self.open(turn)).await
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Unavailable> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        match Box::pin(timeout(self.limits.wait, Arc::clone(&self.turns).acquire_owned())).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Unavailable::Busy),
        }
    }

    async fn open(self: &Arc<Self>, turn: OwnedSemaphorePermit) -> Result<Lease, Unavailable> {
        let late = |_| Unavailable::Connect(io::ErrorKind::TimedOut.into());
        let stream = timeout(self.limits.connect, self.connect())
            .await
            .map_err(late)?
            .map_err(Unavailable::Connect)?;
        Ok(Lease { wire: Wire::new(stream), reused: false, pool: Arc::clone(self), turn })
    }

    async fn connect(&self) -> io::Result<Stream> {
        match &self.target {
            Target::Tcp(address) => tcp(*address).await,
            Target::Localhost(port) => match tcp((Ipv4Addr::LOCALHOST, *port).into()).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tcp((Ipv6Addr::LOCALHOST, *port).into()).await.map_err(|_| error)
                }
                connected => connected,
            },
            Target::Boxed(shim) => reach::connect(shim).await,
            Target::Unix(path) => nexushub_chassis::client::connect(path).await.map(Stream::Unix),
        }
    }

    /// The connection that was used last, of those that are fit for a request.
    fn take_idle(&self) -> Option<Wire> {
        let mut rest = self.lock();
        let oldest_ms = self.oldest_ms();
        while let Some(Idle { wire, since_ms }) = rest.idle.pop() {
            if since_ms < oldest_ms {
                rest.idle.clear(); // the others are older
            } else if wire.seems_quiet() {
                return Some(wire);
            }
        }
        None
    }

    /// What has rested since before this is too old.
    fn oldest_ms(&self) -> u64 {
        clock::now_ms().saturating_sub(self.age_ms())
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.limits.idle_age.as_millis()).unwrap_or(u64::MAX)
    }

    fn put_back(self: &Arc<Self>, wire: Wire) {
        let mut rest = self.lock();
        if rest.idle.len() >= self.limits.idle.div_ceil(self.limits.workers.max(1)) {
            return;
        }
        rest.idle.push(Idle { wire, since_ms: clock::about_ms() });
        if !std::mem::replace(&mut rest.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), clock::now_ms() + self.age_ms()));
        }
    }

    /// Closes what is too old; when to look again, if anything is left.
    fn expire(&self) -> Option<u64> {
        let mut rest = self.lock();
        let oldest_ms = self.oldest_ms();
        let fit = rest.idle.partition_point(|idle| idle.since_ms < oldest_ms);
        rest.idle.drain(..fit);
        let next = rest.idle.first().map(|idle| idle.since_ms + self.age_ms() + 1);
        rest.swept = next.is_some();
        next
    }

    /// What belongs to this thread.
    fn seat(&self) -> usize {
        workers::seat().min(self.limits.workers)
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        self.rest[self.seat()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that would be taken for a request.
    #[cfg(test)]
    pub(crate) fn idle_count(&self) -> usize {
        self.lock().idle.iter().filter(|idle| idle.wire.seems_quiet()).count()
    }
}

async fn tcp(address: SocketAddr) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}

/// Closes a pool's connections as they come of age, until none is left or the pool is gone.
async fn sweep(pool: Weak<Pool>, mut due_ms: u64) {
    loop {
        sleep_until(clock::instant(due_ms)).await;
        let Some(next) = pool.upgrade().and_then(|pool| pool.expire()) else { return };
        due_ms = next;
    }
}

impl Lease {
    /// The connection.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// What bounds the head of an answer.
    pub(crate) fn head_limits(&self) -> h1::Limits {
        self.pool.limits.head
    }

    /// Whether its backend has not closed it, as of now.
    pub(crate) fn is_quiet(&self) -> bool {
        self.wire.is_quiet()
    }

    /// Gives the connection back, fit for another request.
    pub(crate) fn give_back(self) {
        self.pool.put_back(self.wire);
    }

    /// The connection alone, and the request's place at the backend, which it keeps.
    pub(crate) fn into_wire(self) -> (Wire, Hold) {
        (self.wire, Hold { _pool: self.pool, _turn: self.turn })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    async fn pool(idle: usize, idle_age: Duration) -> (Arc<Pool>, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        (Arc::new(Pool::new(target, Limits { idle, idle_age, workers: 1, ..Limits::default() })), listener)
    }

    #[tokio::test]
    async fn the_connection_used_last_is_taken_first_and_so_many_are_kept() {
        let (pool, _listener) = pool(2, Duration::from_secs(3600)).await;
        let leases = [pool.take().await.unwrap(), pool.take().await.unwrap(), pool.take().await.unwrap()];
        assert!(leases.iter().all(|lease| !lease.reused));
        leases.into_iter().for_each(Lease::give_back);
        assert_eq!(pool.idle_count(), 2);
        assert!(pool.take().await.unwrap().reused);
    }

    #[tokio::test]
    async fn a_connection_that_has_rested_for_too_long_is_closed_and_not_taken() {
        let (pool, listener) = pool(2, Duration::ZERO).await;
        let lease = pool.take().await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        lease.give_back();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert!(!pool.take().await.unwrap().reused);
    }

    #[tokio::test]
    async fn a_connection_that_its_backend_spoke_on_unasked_is_not_taken() {
        let (pool, listener) = pool(2, Duration::from_secs(3600)).await;
        let lease = pool.take().await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        lease.give_back();
        far.try_write(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while pool.idle_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!pool.take().await.unwrap().reused);
    }
}
