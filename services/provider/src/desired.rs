//! The owner of the desired state: one task, commands in, the present state out. A change is judged against a copy, made durable,
//! and only then seen by anybody.
//!
//! Revisions grow by one with each change and begin, at start, above both the last one on disk and the clock's milliseconds, so
//! that a reader which outlived us never meets a smaller one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use nexushub_chassis::{launch::clock, names::InstanceId};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument, Span, info, warn};

use crate::{
    admin::{
        list::{APPLICATIONS_MAX, List},
        listing::{Hold, Listing},
    },
    disk::{Disk, Part},
    error::Error,
    instance::{Driver, Egress, Entry, Fields, Source},
    merge::{Clash, Conflict, Desired, Ground, Merged, merge},
    releases::{Release, Releases},
    store::Entries,
    wire::snapshot_len,
};

/// Commands that may wait for the owner.
const QUEUE: usize = 32;
/// Largest snapshot that a change may lead to: half of what procmgr takes.
const SNAPSHOT_MAX: usize = 32 << 20;

/// What should run, at one revision.
#[derive(Debug, Default)]
pub struct State {
    /// Grows with each change.
    pub revision: u64,
    /// By id.
    pub desired: BTreeMap<InstanceId, Desired>,
    /// What would run if its application had a package, by id.
    pub waiting: BTreeMap<InstanceId, Desired>,
    /// What lost.
    pub conflicts: Vec<Conflict>,
    /// What the admin app lists, as far as it is in force.
    pub listing: Arc<Listing>,
    /// The packages of each application.
    pub releases: Arc<Releases>,
    /// How their instances are isolated.
    pub dynamic_driver: Driver,
}

/// The revision to begin with; see the head of this file.
#[must_use]
pub fn first_revision(stored: u64, unix_ms: i64) -> u64 {
    stored.saturating_add(1).max(u64::try_from(unix_ms).unwrap_or(0))
}

/// What entries are held to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What the merge knows.
    pub ground: Ground,
    /// Most debug instances.
    pub max_debug: usize,
    /// When missing dynamic instances are held.
    pub hold: Hold,
    /// Packages that are kept besides the current one of an application.
    pub keep_releases: usize,
    /// How dynamic instances are isolated, and what they may reach.
    pub dynamic: (Driver, Egress),
}

/// All entries by origin, and the rules they are held to. Pure: a change makes a candidate, nothing else.
#[derive(Debug)]
pub struct Book {
    /// Configuration.
    pub statics: Vec<Entry>,
    /// The admin app's, as far as it is in force.
    pub listing: Arc<Listing>,
    /// The packages of the admin app's applications.
    pub releases: Arc<Releases>,
    /// By RPC.
    pub debug: Entries,
    /// What they are held to.
    pub rules: Rules,
}

impl Book {
    /// What should run, with these debug instances.
    #[must_use]
    pub fn merged(&self, debug: &Entries) -> Merged {
        self.merged_with(debug, &self.listing, &self.releases)
    }

    /// What should run if the configuration were another one.
    fn merged_by(&self, statics: Vec<Entry>, rules: Rules) -> Merged {
        let (listing, releases) = (Arc::clone(&self.listing), Arc::clone(&self.releases));
        Self { statics, listing, releases, debug: Entries::new(), rules }.merged(&self.debug)
    }

    fn merged_with(&self, debug: &Entries, listing: &Listing, releases: &Releases) -> Merged {
        let equipped = |entry| self.equipped(entry, debug, releases);
        let dynamic: Vec<Entry> = listing.entries().map(equipped).collect();
        let alone = |entry: &&Entry| entry.source == Source::Debug && !listing.has(&entry.id);
        let debug: Vec<Entry> = debug.values().filter(alone).cloned().collect();
        merge(&self.statics, &dynamic, &debug, &self.rules.ground)
    }

    /// How large the snapshot with these is. What the packages ask for is summed up first: where that alone is too much, nothing is
    /// merged, since each instance would have its own copy.
    fn bytes_with(&self, listing: &Listing, releases: &Releases) -> usize {
        let app_ids = listing.entries().filter_map(|entry| entry.fields.app_id.as_ref());
        let asked: usize =
            app_ids.filter_map(|app_id| releases.current(app_id)).map(|one| one.asks.env_len()).sum();
        if asked > SNAPSHOT_MAX {
            return asked;
        }
        snapshot_len(&self.merged_with(&self.debug, listing, releases).desired)
    }

    /// A dynamic entry with the package of its application. Where there is a static one below, that one says how it is boxed. One
    /// that was a debug instance keeps its data, and its release until there is another.
    fn equipped(&self, entry: &Entry, debug: &Entries, releases: &Releases) -> Entry {
        let below = debug.get(&entry.id);
        let package = entry.fields.app_id.as_ref().and_then(|app_id| releases.current(app_id));
        let package = package.filter(|_| below.is_none_or(|below| below.source == Source::Promoted));
        let fixed = self.statics.iter().find(|fixed| fixed.id == entry.id).map(|fixed| &fixed.fields);
        let release = package.map(|package| package.path.clone());
        let fields = Fields { release, ..entry.fields.over(&self.given(package, fixed), &BTreeSet::new()) };
        let ground = below.map(|below| ground(&below.fields, package));
        let fields = ground.map_or(fields.clone(), |ground| fields.over(&ground, &BTreeSet::new()));
        Entry { fields, ..entry.clone() }
    }

    /// What an instance is given of what its package asks for, and of what the configuration has for all of the admin app. What a
    /// static entry of it says goes before both, and its box is the one it says, or `auto` where it is silent.
    fn given(&self, package: Option<&Release>, fixed: Option<&Fields>) -> Fields {
        let (driver, egress) = self.rules.dynamic;
        let asked = package.map(|package| package.asks.fields(driver)).unwrap_or_default();
        let Some(fixed) = fixed else {
            return Fields { driver: asked.driver.or(Some(driver)), egress: Some(egress), ..asked };
        };
        Fields {
            env: asked.env.filter(|_| fixed.env.is_none()),
            health: asked.health.filter(|_| fixed.health.is_none()),
            limits: asked.limits.filter(|_| fixed.limits.is_none()),
            ..Fields::default()
        }
    }

    /// The applications of the configuration and of the admin app.
    fn applications(&self) -> BTreeSet<&str> {
        let entries = self.statics.iter().chain(self.listing.entries());
        entries.filter_map(|entry| entry.fields.app_id.as_deref()).collect()
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
        if entry.source == Source::Debug && self.listing.has(&id) && !self.debug.contains_key(&id) {
            let clash = Clash::Id(Source::Dynamic);
            return Err(Error::Taken(Box::new(Conflict { id, source: entry.source, clash })));
        }
        let mut debug = self.debug.clone();
        debug.insert(id.clone(), entry);
        let (before, after) = (count(&self.debug), count(&debug));
        if after > self.rules.max_debug && after > before {
            return Err(Error::TooMany(before));
        }
        if debug.len() - after > APPLICATIONS_MAX {
            return Err(Error::TooMany(debug.len()));
        }
        let merged = self.merged(&debug);
        if let Some(conflict) =
            merged.conflicts.iter().find_map(|conflict| of_newcomer(conflict, &id, &debug))
        {
            return Err(Error::Taken(Box::new(conflict)));
        }
        match snapshot_len(&merged.desired) {
            bytes if bytes > SNAPSHOT_MAX => Err(Error::TooLarge(bytes)),
            _ => Ok(Some(debug)),
        }
    }

    /// The debug instances without this one; none when there is no such.
    ///
    /// # Errors
    /// When the id is another origin's.
    pub fn remove(&self, id: &InstanceId) -> Result<Option<Entries>, Error> {
        if self.debug.contains_key(id) && !self.listing.has(id) {
            let mut debug = self.debug.clone();
            debug.remove(id);
            return Ok(Some(debug));
        }
        match self.statics.iter().chain(self.listing.entries()).find(|entry| entry.id == *id) {
            Some(entry) => Err(Error::NotDebug { id: id.clone(), origin: entry.source.to_string() }),
            None => Ok(None),
        }
    }
}

/// What stays of a debug instance that the admin app has: not what was its developer's alone, nor, where another package is meant, what the
/// last one asked for.
fn ground(below: &Fields, package: Option<&Release>) -> Fields {
    let mut ground = Fields { debug_port: None, static_service_url: None, ..below.clone() };
    if package.is_some() {
        (ground.env, ground.health, ground.limits) = (None, None, None);
    }
    ground
}

/// How many debug instances these are, without those that were made permanent: the admin app has those.
fn count(debug: &Entries) -> usize {
    debug.values().filter(|entry| entry.source == Source::Debug).count()
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

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Command {
    Put(Box<Entry>, Reply<u64>),
    Remove(InstanceId, Reply<(u64, bool)>),
    Preview(Vec<Entry>, Box<Rules>, Reply<Merged>),
    List(List, Reply<u64>),
    Confirm(BTreeSet<InstanceId>, Reply<(u64, Vec<InstanceId>)>),
    SetRelease(String, Box<Release>, Reply<u64>),
    RevertRelease(String, Box<Path>, String, Reply<u64>),
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

    /// What would be desired with these static instances and rules. Nothing is changed.
    ///
    /// # Errors
    /// When the owner has ended.
    pub async fn preview(&self, statics: Vec<Entry>, rules: Rules) -> Result<Merged, Error> {
        self.ask(|reply| Command::Preview(statics, Box::new(rules), reply)).await
    }

    /// Takes over a list of the admin app; the revision that holds it.
    ///
    /// # Errors
    /// When no message would hold what it leads to, or it could not be made durable.
    pub async fn list(&self, list: List) -> Result<u64, Error> {
        self.ask(|reply| Command::List(list, reply)).await
    }

    /// Lets go of held instances; the revision without them, and which they were.
    ///
    /// # Errors
    /// When no message would hold what it leads to, or it could not be made durable.
    pub async fn confirm(&self, ids: BTreeSet<InstanceId>) -> Result<(u64, Vec<InstanceId>), Error> {
        self.ask(|reply| Command::Confirm(ids, reply)).await
    }

    /// Makes a package the current one of an application; the revision in which it is. When it is set is filled in.
    ///
    /// # Errors
    /// When no message would hold what it leads to, or it could not be made durable.
    pub async fn set_release(&self, app_id: String, release: Release) -> Result<u64, Error> {
        self.ask(|reply| Command::SetRelease(app_id, Box::new(release), reply)).await
    }

    /// Takes a package of an application back; the revision in which it is no longer current.
    ///
    /// # Errors
    /// When there is no such, no message would hold what it leads to, or it could not be made durable.
    pub async fn revert_release(&self, app_id: String, path: &Path, reason: String) -> Result<u64, Error> {
        let path = path.into();
        self.ask(|reply| Command::RevertRelease(app_id, path, reason, reply)).await
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
    disk: Disk,
    state: watch::Sender<Arc<State>>,
    commands: mpsc::Receiver<(Command, Span)>,
}

impl Owner {
    /// An owner of this book, at this revision.
    #[must_use]
    pub fn new(book: Book, disk: Disk, revision: u64) -> (Self, Handle) {
        let first = state(&book, revision);
        warn_of(&first.conflicts, &[]);
        let (state, watched) = watch::channel(Arc::new(first));
        let (send, commands) = mpsc::channel(QUEUE);
        (Self { book, disk, state, commands }, Handle { commands: send, state: watched })
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
            Command::Preview(statics, rules, reply) => {
                drop(reply.send(Ok(self.book.merged_by(statics, *rules))));
            }
            Command::List(list, reply) => drop(reply.send(self.list(list).await)),
            Command::Confirm(ids, reply) => drop(reply.send(self.confirm(&ids).await)),
            Command::SetRelease(app_id, release, reply) => {
                drop(reply.send(self.set_release(&app_id, *release).await));
            }
            Command::RevertRelease(app_id, path, reason, reply) => {
                drop(reply.send(self.revert_release(&app_id, &path, &reason).await));
            }
        }
    }

    fn revision(&self) -> u64 {
        self.state.borrow().revision
    }

    async fn put(&mut self, entry: Entry) -> Result<u64, Error> {
        let id = entry.id.clone();
        let Some(debug) = self.book.put(entry)? else { return Ok(self.revision()) };
        let revision = self.commit(Part::Debug(debug)).await?;
        info!(instance = %id, revision, "debug instance put");
        Ok(revision)
    }

    async fn remove(&mut self, id: &InstanceId) -> Result<(u64, bool), Error> {
        let Some(debug) = self.book.remove(id)? else { return Ok((self.revision(), false)) };
        let revision = self.commit(Part::Debug(debug)).await?;
        info!(instance = %id, revision, "debug instance removed");
        Ok((revision, true))
    }

    async fn list(&mut self, list: List) -> Result<u64, Error> {
        let next = self.fitting(self.book.listing.after(list, self.book.rules.hold));
        if next == *self.book.listing {
            return Ok(self.revision());
        }
        self.fits(&next, &self.book.releases)?;
        let (before, held, refused) = (self.book.listing.held.len(), next.held.len(), next.refused.len());
        let instances = next.listed.len();
        let revision = self.commit(Part::Listing(next)).await?;
        info!(revision, instances, refused, "the admin app's list was taken over");
        if held > before {
            warn!(
                held,
                "the admin app no longer lists many instances; they are kept until `nexushub apply --confirm-removals` says that they go"
            );
        }
        Ok(revision)
    }

    /// Of the next listing all that goes, and of what comes or changes as many, by their ids, as a message holds.
    fn fitting(&self, next: Listing) -> Listing {
        let (before, releases) = (&*self.book.listing, &self.book.releases);
        let fits = |next: &Listing| self.fits(next, releases).is_ok();
        if next == *before || fits(&next) {
            return next;
        }
        let (mut few, mut many) = (0, next.news(before));
        while few + 1 < many {
            let half = usize::midpoint(few, many);
            *(if fits(&next.with_news(before, half)) { &mut few } else { &mut many }) = half;
        }
        next.with_news(before, few)
    }

    async fn confirm(&mut self, ids: &BTreeSet<InstanceId>) -> Result<(u64, Vec<InstanceId>), Error> {
        let Some((next, removed)) = self.book.listing.confirmed(ids) else {
            return Ok((self.revision(), Vec::new()));
        };
        self.fits(&next, &self.book.releases)?;
        let revision = self.commit(Part::Listing(next)).await?;
        info!(revision, removed = removed.len(), "held instances were let go");
        Ok((revision, removed))
    }

    async fn set_release(&mut self, app_id: &str, release: Release) -> Result<u64, Error> {
        let set_unix_ms = clock::unix_ms(SystemTime::now());
        let (version, release) = (release.version.clone(), Release { set_unix_ms, ..release });
        let next = self.book.releases.set(app_id, release, self.book.rules.keep_releases);
        let Some(next) = next else { return Ok(self.revision()) };
        let mut used = self.book.applications();
        used.insert(app_id);
        let next = next.pruned(&used);
        self.fits(&self.book.listing, &next)?;
        let revision = self.commit(Part::Releases(next)).await?;
        info!(app_id, version, revision, "package of an application set");
        Ok(revision)
    }

    async fn revert_release(&mut self, app_id: &str, path: &Path, reason: &str) -> Result<u64, Error> {
        let unknown = || Error::NoRelease { app_id: app_id.to_owned(), path: path.to_owned() };
        let next = self.book.releases.revert(app_id, path, reason).ok_or_else(unknown)?;
        if next == *self.book.releases {
            return Ok(self.revision());
        }
        self.fits(&self.book.listing, &next)?;
        let revision = self.commit(Part::Releases(next)).await?;
        warn!(app_id, revision, error = reason, "package of an application taken back");
        Ok(revision)
    }

    /// Refuses what no message holds, unless it is no more than there is already.
    fn fits(&self, listing: &Listing, releases: &Releases) -> Result<(), Error> {
        let present = || snapshot_len(&self.state.borrow().desired);
        match self.book.bytes_with(listing, releases) {
            bytes if bytes > SNAPSHOT_MAX && bytes > present() => Err(Error::TooLarge(bytes)),
            _ => Ok(()),
        }
    }

    /// On disk first, then for all to see.
    async fn commit(&mut self, part: Part) -> Result<u64, Error> {
        let revision = self.revision() + 1;
        match self.disk.save(revision, part).await? {
            Part::Debug(debug) => self.book.debug = debug,
            Part::Listing(listing) => self.book.listing = Arc::new(listing),
            Part::Releases(releases) => self.book.releases = Arc::new(releases),
        }
        let next = state(&self.book, revision);
        warn_of(&next.conflicts, &self.state.borrow().conflicts);
        self.state.send_replace(Arc::new(next));
        Ok(revision)
    }
}

/// What the book comes to.
fn state(book: &Book, revision: u64) -> State {
    let Merged { desired, waiting, conflicts } = book.merged(&book.debug);
    let (listing, releases) = (Arc::clone(&book.listing), Arc::clone(&book.releases));
    State { revision, desired, waiting, conflicts, listing, releases, dynamic_driver: book.rules.dynamic.0 }
}

/// Of the conflicts, says those that were not there before.
fn warn_of(conflicts: &[Conflict], before: &[Conflict]) {
    let told: BTreeSet<&Conflict> = before.iter().collect();
    for conflict in conflicts.iter().filter(|conflict| !told.contains(conflict)) {
        warn!(instance = %conflict.id, error = %conflict, "instance is not desired");
    }
}

#[cfg(test)]
pub(crate) mod tests;
