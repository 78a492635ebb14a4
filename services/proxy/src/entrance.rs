//! The internal entrance: where an app in a box finds the platform. A listener in each box leads here; which one a connection
//! came by says who calls. Behind it is the same front, with a door of its own for each box.
//!
//! ```text
//! the table names a generation in a box --> asked of its shim, again and again --> accepting --> the table names it no more:
//!                                                                               closed, its connections wound up
//! ```
//! The shim keeps the listener: a proxy that starts anew asks for it again, two generations of the proxy accept side by side
//! while one drains, and what connects in between waits in the backlog.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nexushub_chassis::{reach, retry::Retry};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::Config,
    door::{Bounds, Caller, Door},
    front::{self, Front, Manner},
    table::{Endpoint, Table},
};

/// A generation of an app in a box.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Boxed {
    id: String,
    generation: u64,
    shim: PathBuf,
}

/// Every generation in a box that the table names, whether requests are sent to it or not: an app may call while it starts, and
/// while it drains.
fn boxes(table: &Table) -> BTreeSet<Boxed> {
    let named = table.entries().flat_map(|entry| {
        let beside = entry.beside.iter().map(|one| (one.generation, &one.endpoint));
        let all = beside.chain([(entry.generation, &entry.endpoint)]);
        all.map(|(generation, endpoint)| (entry.id.as_str(), generation, endpoint))
    });
    let boxed = named.filter_map(|(id, generation, endpoint)| match endpoint {
        Some(Endpoint::Shim(shim)) => Some(Boxed { id: id.to_owned(), generation, shim: shim.clone() }),
        _ => None,
    });
    boxed.collect()
}

/// The entrances of all boxes.
pub(crate) struct Entrances {
    front: Arc<Front>,
    bounds: Bounds,
    /// Time for a shim's answer.
    patience: Duration,
    drain: CancellationToken,
}

impl Entrances {
    /// Entrances to this front, none of them open yet.
    pub(crate) fn new(front: Arc<Front>, config: &Config, drain: CancellationToken) -> Self {
        let bounds = Bounds {
            connections: config.inward_connections_per_app as usize,
            requests: config.inward_requests_per_app as usize,
            errors_per_second: config.h2_errors_per_second,
            shared: Arc::new(Semaphore::new(config.inward_connections as usize)),
        };
        Self { front, bounds, patience: Duration::from_millis(config.connect_ms), drain }
    }

    /// Keeps an entrance open for each box that the table names, until the drain.
    pub(crate) async fn follow(self, mut table: watch::Receiver<Arc<Table>>) {
        let mut open: BTreeMap<Boxed, DropGuard> = BTreeMap::new();
        loop {
            let named = boxes(&table.borrow_and_update());
            open.retain(|boxed, _| named.contains(boxed));
            for boxed in named {
                open.entry(boxed).or_insert_with_key(|boxed| self.open(boxed));
            }
            tokio::select! {
                () = self.drain.cancelled() => return,
                changed = table.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Opens one; it closes when the guard is dropped.
    fn open(&self, boxed: &Boxed) -> DropGuard {
        let drain = self.drain.child_token();
        let proxy = &self.front.proxy;
        match Caller::of(&boxed.id) {
            Some(caller) => {
                let door = Door::of_box(caller, &self.bounds, Arc::clone(&proxy.counters), drain.clone());
                proxy.tasks.spawn(serve(Arc::clone(&self.front), boxed.clone(), door, self.patience));
            }
            None => {
                tracing::warn!(
                    instance = boxed.id,
                    "no entrance is opened for an id that no header can hold"
                );
            }
        }
        drain.drop_guard()
    }
}

/// Asks for the listener until it comes, and accepts from it until the door closes.
async fn serve(front: Arc<Front>, boxed: Boxed, door: Arc<Door>, patience: Duration) {
    let taken = door.drain.run_until_cancelled(take(&boxed, patience)).await;
    let Some(listener) = taken else { return };
    let open = &front.proxy.counters.inward_listeners_open;
    open.up();
    Arc::clone(&front).accept(listener, door, Manner::Serve).await;
    open.down();
}

/// Asks for the listener until it comes.
async fn take(boxed: &Boxed, patience: Duration) -> TcpListener {
    let (mut retry, mut troubled) = (Retry::default(), false);
    loop {
        let error = match ask(&boxed.shim, patience).await {
            Ok(listener) => return listener,
            Err(error) => error,
        };
        if !std::mem::replace(&mut troubled, true) {
            let (instance, generation) = (boxed.id.as_str(), boxed.generation);
            tracing::warn!(instance, generation, %error, "the way out of a box is not to be had; trying on");
        }
        sleep(retry.wait()).await;
    }
}

async fn ask(shim: &Path, patience: Duration) -> io::Result<TcpListener> {
    let listener = timeout(patience, reach::listener(shim)).await??;
    front::prepare(&listener)?;
    TcpListener::from_std(listener)
}
