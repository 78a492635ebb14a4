//! The threads that converse with clients: one for each core, each with an event loop, timers and connections to apps of its
//! own, all accepting from the same listeners. A request is never moved from one to another, and they share nothing that is
//! waited for: the table, which is replaced and not changed, and counters.
//!
//! Everything else (the table's feed, the RPC server, the entrances of boxes) runs on the daemon's first thread.

use std::{
    cell::Cell,
    io,
    net::TcpListener,
    num::NonZero,
    pin::pin,
    sync::Arc,
    thread::{self, JoinHandle},
};

use futures_util::{StreamExt, future::ready, stream::FuturesUnordered};
use tokio::{runtime, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    door::Door,
    front::{Front, Manner},
};

/// No more threads are started, however many cores there are, unless the configuration says so.
const MOST: usize = 16;
/// Threads of one event loop that wait for files.
const FILE_THREADS: usize = 16;

thread_local! {
    static SEAT: Cell<usize> = const { Cell::new(0) };
}

/// Which of the threads this is: 0 is the daemon's first, the workers are counted from 1.
pub(crate) fn seat() -> usize {
    SEAT.get()
}

/// How many workers there are to be; `asked` = 0: one for each core.
pub(crate) fn number(asked: u32) -> usize {
    match asked {
        0 => thread::available_parallelism().map_or(1, NonZero::get).min(MOST),
        asked => asked as usize,
    }
}

/// The workers. They end when they are dropped, and with them whatever they still do.
#[derive(Debug)]
pub(crate) struct Workers {
    over: CancellationToken,
    threads: Vec<JoinHandle<()>>,
    lives: Vec<oneshot::Receiver<()>>,
}

impl Workers {
    /// Starts them; each accepts from all listeners by the same door.
    pub(crate) fn start(
        number: usize,
        front: &Arc<Front>,
        listeners: &[TcpListener],
        door: &Arc<Door>,
    ) -> io::Result<Self> {
        let mut workers = Self { over: CancellationToken::new(), threads: Vec::new(), lives: Vec::new() };
        for seat in 1..=number {
            let own = listeners.iter().map(TcpListener::try_clone).collect::<io::Result<Vec<_>>>()?;
            workers.add(seat, Arc::clone(front), own, Arc::clone(door))?;
        }
        Ok(workers)
    }

    fn add(
        &mut self,
        seat: usize,
        front: Arc<Front>,
        listeners: Vec<TcpListener>,
        door: Arc<Door>,
    ) -> io::Result<()> {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().max_blocking_threads(FILE_THREADS).build()?;
        let (life, lives) = oneshot::channel::<()>();
        let over = self.over.clone();
        let work = move || {
            SEAT.set(seat);
            let accepting = {
                let _inside = runtime.enter();
                listeners.into_iter().map(tokio::net::TcpListener::from_std).collect::<io::Result<Vec<_>>>()
            };
            match accepting {
                Ok(listeners) => runtime.block_on(accept(front, listeners, door, over)),
                Err(error) => tracing::error!(%error, "a worker could not use its listeners"),
            }
            drop(life);
        };
        self.threads.push(thread::Builder::new().name(format!("worker-{seat}")).spawn(work)?);
        self.lives.push(lives);
        Ok(())
    }

    /// Resolves when one of them has ended, which none does by itself.
    pub(crate) fn ended(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let mut lives: tokio::task::JoinSet<_> = self.lives.drain(..).collect();
        async move {
            lives.join_next().await;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.over.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it has told of a panic itself
        }
    }
}

async fn accept(
    front: Arc<Front>,
    listeners: Vec<tokio::net::TcpListener>,
    door: Arc<Door>,
    over: CancellationToken,
) {
    let accept = |listener| Arc::clone(&front).accept(listener, Arc::clone(&door), Manner::Serve);
    let all: FuturesUnordered<_> =
        listeners.into_iter().map(|listener| front.proxy.tasks.spawn(accept(listener))).collect();
    // Each ends when the door drains. One that ends otherwise has panicked, and its worker with it.
    let mut broken = pin!(all.filter_map(|ended| ready(ended.err())));
    tokio::select! {
        Some(_) = broken.next() => {}
        () = over.cancelled() => {}
    }
}
