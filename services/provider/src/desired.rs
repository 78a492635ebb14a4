//! The owner of the desired state: one task, commands in, the present state out. A change is judged against a copy, made durable,
//! and only then seen by anybody.
//!
//! Revisions grow by one with each change and begin, at start, above both the last one on disk and the clock's milliseconds, so
//! that a reader which outlived us never meets a smaller one.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use nexushub_chassis::names::InstanceId;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, Span, info, warn};

use crate::{
    error::Error,
    instance::Entry,
    merge::{Clash, Conflict, Desired, Merged, merge},
    store::{Entries, Store},
    wire::snapshot_len,
};

/// Commands that may wait for the owner.
const QUEUE: usize = 32;
/// Largest snapshot: below the 4 MiB that a gRPC client takes by default.
const SNAPSHOT_MAX: usize = 3 << 20;

/// What should run, at one revision.
#[derive(Debug, Default)]
pub struct State {
    /// Grows with each change.
    pub revision: u64,
    /// By id.
    pub desired: BTreeMap<InstanceId, Desired>,
}

/// The revision to begin with; see the head of this file.
#[must_use]
pub fn first_revision(stored: u64, unix_ms: i64) -> u64 {
    stored.saturating_add(1).max(u64::try_from(unix_ms).unwrap_or(0))
}

/// All entries by origin, and the rules they are held to. Pure: a change makes a candidate, nothing else.
#[derive(Debug)]
pub struct Book {
    /// Configuration.
    pub statics: Vec<Entry>,
    /// The admin app's; empty until it is asked.
    pub dynamic: Vec<Entry>,
    /// By RPC.
    pub debug: Entries,
    /// Where data folders lie by default.
    pub data_root: PathBuf,
    /// Most debug instances.
    pub max_debug: usize,
}

impl Book {
    /// What should run, with these debug instances.
    #[must_use]
    pub fn merged(&self, debug: &Entries) -> Merged {
        let debug: Vec<Entry> = debug.values().cloned().collect();
        merge(&self.statics, &self.dynamic, &debug, &self.data_root)
    }

    /// The debug instances with this one put; none when nothing changes.
    ///
    /// # Errors
    /// When it would take what is another's, or more room than there is.
    pub fn put(&self, entry: Entry) -> Result<Option<Entries>, Error> {
        if self.debug.get(&entry.id) == Some(&entry) {
            return Ok(None);
        }
        let id = entry.id.clone();
        let mut debug = self.debug.clone();
        debug.insert(id.clone(), entry);
        if debug.len() > self.max_debug && debug.len() > self.debug.len() {
            return Err(Error::TooMany(self.debug.len()));
        }
        let merged = self.merged(&debug);
        if let Some(conflict) =
            merged.conflicts.iter().find_map(|conflict| of_newcomer(conflict, &id, &debug))
        {
            return Err(Error::Taken(Box::new(conflict)));
        }
        match snapshot_len(&merged) {
            bytes if bytes > SNAPSHOT_MAX => Err(Error::TooLarge(bytes)),
            _ => Ok(Some(debug)),
        }
    }

    /// The debug instances without this one; none when there is no such.
    ///
    /// # Errors
    /// When the id is another origin's.
    pub fn remove(&self, id: &InstanceId) -> Result<Option<Entries>, Error> {
        if self.debug.contains_key(id) {
            let mut debug = self.debug.clone();
            debug.remove(id);
            return Ok(Some(debug));
        }
        match self.statics.iter().chain(&self.dynamic).find(|entry| entry.id == *id) {
            Some(entry) => Err(Error::NotDebug { id: id.clone(), origin: entry.source.to_string() }),
            None => Ok(None),
        }
    }
}

/// The conflict as it looks to the instance that is put: it is refused whether it lost to another, or a debug instance that
/// was there first lost to it.
fn of_newcomer(conflict: &Conflict, id: &InstanceId, debug: &Entries) -> Option<Conflict> {
    match &conflict.clash {
        _ if conflict.id == *id => Some(conflict.clone()),
        Clash::Host(host, winner, source) | Clash::ClientCa(host, winner, source)
            if winner == id && debug.contains_key(&conflict.id) =>
        {
            let clash = Clash::Host(host.clone(), conflict.id.clone(), conflict.source.clone());
            Some(Conflict { id: id.clone(), source: source.clone(), clash })
        }
        _ => None,
    }
}

enum Command {
    Put(Box<Entry>, oneshot::Sender<Result<u64, Error>>),
    Remove(InstanceId, oneshot::Sender<Result<(u64, bool), Error>>),
}

/// The way to the owner; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// Each with the span of the call that asked for it: the owner's log lines belong to the caller's trace.
    commands: mpsc::Sender<(Command, Span)>,
    state: watch::Receiver<Arc<State>>,
}

impl Handle {
    /// Puts a debug instance; the revision that holds it.
    ///
    /// # Errors
    /// As [`Book::put`], or when it could not be made durable.
    pub async fn put(&self, entry: Entry) -> Result<u64, Error> {
        self.ask(|reply| Command::Put(Box::new(entry), reply)).await
    }

    /// Removes a debug instance; the revision without it, and whether there was one.
    ///
    /// # Errors
    /// As [`Book::remove`], or when it could not be made durable.
    pub async fn remove(&self, id: InstanceId) -> Result<(u64, bool), Error> {
        self.ask(|reply| Command::Remove(id, reply)).await
    }

    /// The present state, and word of the next; it ends with the owner.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send((command(reply), Span::current())).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)?
    }
}

/// The task that owns the book.
pub struct Owner {
    book: Book,
    store: Store,
    state: watch::Sender<Arc<State>>,
    commands: mpsc::Receiver<(Command, Span)>,
}

impl Owner {
    /// An owner of this book, at this revision.
    #[must_use]
    pub fn new(book: Book, store: Store, revision: u64) -> (Self, Handle) {
        let merged = book.merged(&book.debug);
        warn_of(&merged);
        let (state, watched) = watch::channel(Arc::new(State { revision, desired: merged.desired }));
        let (send, commands) = mpsc::channel(QUEUE);
        (Self { book, store, state, commands }, Handle { commands: send, state: watched })
    }

    /// Serves commands until `draining` resolves; watchers learn of the end by the end of their watch.
    pub async fn run(mut self, draining: impl Future<Output = ()>) {
        tokio::pin!(draining);
        loop {
            let command = tokio::select! {
                () = &mut draining => return,
                command = self.commands.recv() => command,
            };
            let Some((command, span)) = command else { return };
            self.carry_out(command).instrument(span).await;
        }
    }

    /// Whoever asked may be gone by now; the change stands all the same.
    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Put(entry, reply) => drop(reply.send(self.put(*entry).await)),
            Command::Remove(id, reply) => drop(reply.send(self.remove(&id).await)),
        }
    }

    async fn put(&mut self, entry: Entry) -> Result<u64, Error> {
        let id = entry.id.clone();
        let Some(debug) = self.book.put(entry)? else { return Ok(self.state.borrow().revision) };
        let revision = self.commit(debug).await?;
        info!(instance = %id, revision, "debug instance put");
        Ok(revision)
    }

    async fn remove(&mut self, id: &InstanceId) -> Result<(u64, bool), Error> {
        let Some(debug) = self.book.remove(id)? else { return Ok((self.state.borrow().revision, false)) };
        let revision = self.commit(debug).await?;
        info!(instance = %id, revision, "debug instance removed");
        Ok((revision, true))
    }

    /// On disk first, then for all to see.
    async fn commit(&mut self, debug: Entries) -> Result<u64, Error> {
        let revision = self.state.borrow().revision + 1;
        let store = self.store.clone();
        let saved = tokio::task::spawn_blocking(move || store.save(revision, &debug).map(|()| debug)).await;
        let saved = saved.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let path = self.store.path().to_owned();
        self.book.debug = saved.map_err(|source| Error::Unwritable { path, source })?;
        let merged = self.book.merged(&self.book.debug);
        warn_of(&merged);
        self.state.send_replace(Arc::new(State { revision, desired: merged.desired }));
        Ok(revision)
    }
}

fn warn_of(merged: &Merged) {
    for conflict in &merged.conflicts {
        warn!(instance = %conflict.id, error = %conflict, "instance is not desired");
    }
}

#[cfg(test)]
mod tests;
