//! The routing table: host name and path (`index.rs`) -> instance, or one of several (`group.rs`) -> where its requests go. Immutable; each change makes the next table and
//! shares every route that it doesn't touch, so one app's change disturbs no other's connections.
//!
//! What procmgr says replaces what was kept, with two reserves. Until procmgr has looked at every desired instance
//! (`reconciled`), an instance that it doesn't name is not gone; and an instance that it hasn't looked at (`unknown`) is
//! still routed where it was. A kept route gives way when its port or its host name turns up elsewhere.

mod group;
mod index;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use self::group::{Group, Standing};
use self::index::Index;
use crate::{
    files::Site,
    metrics::Traffic,
    pool::{Limits, Pool, Target},
    rules::Rules,
    sleep::Activity,
};

/// Where requests for an instance go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endpoint {
    /// A TCP port on 127.0.0.1.
    Tcp(u16),
    /// The control socket of a shim, which hands out connections into its box.
    Shim(PathBuf),
}

impl Endpoint {
    fn target(&self) -> Target {
        match self {
            Self::Tcp(port) => Target::local(*port),
            Self::Shim(socket) => Target::Boxed(socket.clone()),
        }
    }
}

/// procmgr's states, as far as routing tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Not looked at yet.
    Unknown,
    /// On its way up: requests may wait for it.
    Starting,
    /// Up.
    Running,
    /// Being replaced because its health check failed.
    Unhealthy,
    /// On its way down.
    Stopping,
    /// Down because it should be.
    Stopped,
    /// Down although it should be up.
    Failed,
    /// Down because nobody asked for it: its next request starts it.
    Asleep,
}

impl State {
    /// The word for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "not looked at yet",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Asleep => "asleep",
        }
    }
}

/// What routing knows about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// Relative to the base domain, lower case.
    pub(crate) host: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) display_name: String,
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) generation: u64,
    pub(crate) endpoint: Option<Endpoint>,
    /// It speaks HTTP/2 there, and nothing else.
    #[serde(default)]
    pub(crate) h2c: bool,
    /// Whether requests may be sent to it now.
    pub(crate) routed: bool,
    /// When its next start is due; 0 = none is planned.
    pub(crate) retry_unix_ms: i64,
    pub(crate) release: PathBuf,
    /// SHA-256 of its own secret; none when it has none.
    pub(crate) secret: Option<[u8; 32]>,
    /// A development server for its non-API paths; 0 = none.
    pub(crate) debug_port: u16,
    /// What lives of it besides.
    #[serde(default)]
    pub(crate) beside: Vec<Beside>,
    /// Requests are not sent to it, whatever its state.
    #[serde(default)]
    pub(crate) pause: Option<Pause>,
    /// How long without a request until it is put to sleep; 0 = never.
    #[serde(default)]
    pub(crate) idle_stop_ms: u32,
    /// What else is said of its requests.
    #[serde(default)]
    pub(crate) rules: Rules,
}

/// An instance that is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pause {
    /// For people; may be empty.
    pub(crate) message: String,
    /// Requests are refused; otherwise they wait.
    pub(crate) closed: bool,
}

/// A generation that gets no new requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beside {
    pub(crate) generation: u64,
    pub(crate) endpoint: Option<Endpoint>,
    /// It is stopped once it is let go of; otherwise it is coming up.
    pub(crate) draining: bool,
}

/// An instance with what its requests run over.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) entry: Entry,
    /// Connections to the app; none without a TCP endpoint.
    pub(crate) app: Option<Arc<Pool>>,
    /// Connections to its development server.
    pub(crate) dev: Option<Arc<Pool>>,
    /// Its static files.
    pub(crate) site: Arc<Site>,
    /// Generations that drain.
    pub(crate) leaving: Vec<Leaving>,
    /// When it was asked for last.
    pub(crate) activity: Arc<Activity>,
    /// Where requests wait for it, in the order in which they came.
    pub(crate) queue: Arc<Mutex<()>>,
    /// What is counted of it, over all its generations.
    pub(crate) traffic: Arc<Traffic>,
    /// How its present generation stands with those who send to it; of interest where it shares its requests.
    pub(crate) standing: Arc<Standing>,
    /// Said by procmgr in its present stream, not merely kept.
    pub(crate) confirmed: bool,
}

/// A generation that drains, as far as this proxy has to do with it.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    pub(crate) generation: u64,
    /// Cancelled when nothing is under way there any more.
    pub(crate) gone: CancellationToken,
    /// For as long as something is.
    pool: Weak<Pool>,
}

/// Where a table came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// No table was ever known: nothing can be said about any host name.
    Nothing,
    /// The last one known; procmgr's stream is down.
    Kept,
    /// procmgr's stream is live.
    Procmgr,
}

/// A piece of news.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// All instances that procmgr knows.
    Snapshot { entries: Vec<Entry>, reconciled: bool },
    /// One instance, new or changed.
    Put(Box<Entry>),
    /// One instance is gone.
    Removed(String),
    /// procmgr's stream ended.
    Lost,
}

impl Change {
    /// News of one instance.
    pub(crate) fn put(entry: Entry) -> Self {
        Self::Put(Box::new(entry))
    }
}

/// All routes at one instant.
#[derive(Debug)]
pub(crate) struct Table {
    /// One more for each change.
    pub(crate) revision: u64,
    pub(crate) source: Source,
    /// Whether an unknown host name is known not to exist.
    pub(crate) complete: bool,
    by_id: BTreeMap<String, Arc<Route>>,
    index: Index,
    by_secret: HashMap<u64, Vec<Arc<Route>>>,
    limits: Limits,
}

impl Table {
    /// The table before anything is known.
    pub(crate) fn empty(limits: Limits) -> Self {
        Self::build(0, Source::Nothing, false, BTreeMap::new(), limits)
    }

    /// The table of a kept file.
    pub(crate) fn kept(entries: Vec<Entry>, limits: Limits) -> Self {
        let none = BTreeMap::new();
        let routes = entries
            .into_iter()
            .map(|entry| (entry.id.clone(), route(entry, false, &none, &limits)))
            .collect();
        Self::build(1, Source::Kept, false, routes, limits)
    }

    /// The next table.
    pub(crate) fn apply(&self, change: Change) -> Self {
        let mut routes = self.by_id.clone();
        let (mut source, mut complete) = (Source::Procmgr, self.complete);
        match change {
            Change::Snapshot { entries, reconciled } => {
                routes = if reconciled { BTreeMap::new() } else { unconfirmed(&self.by_id) };
                complete |= reconciled;
                for entry in entries {
                    self.put(&mut routes, entry);
                }
            }
            Change::Put(entry) => self.put(&mut routes, *entry),
            Change::Removed(id) => {
                routes.remove(&id);
            }
            Change::Lost if self.source == Source::Nothing => source = Source::Nothing,
            Change::Lost => source = Source::Kept,
        }
        give_way(&mut routes);
        spare_apps(&mut routes);
        Self::build(self.revision + 1, source, complete, routes, self.limits)
    }

    fn put(&self, routes: &mut BTreeMap<String, Arc<Route>>, mut entry: Entry) {
        if let Some(before) = self.by_id.get(&entry.id)
            && entry.state == State::Unknown
            && before.entry.routed
        {
            let Entry { host, display_name, rules, .. } = entry;
            entry = Entry { host, display_name, rules, ..before.entry.clone() };
            routes.insert(entry.id.clone(), route(entry, false, &self.by_id, &self.limits));
            return;
        }
        routes.insert(entry.id.clone(), route(entry, true, &self.by_id, &self.limits));
    }

    fn build(
        revision: u64,
        source: Source,
        complete: bool,
        by_id: BTreeMap<String, Arc<Route>>,
        limits: Limits,
    ) -> Self {
        let mut by_secret: HashMap<u64, Vec<Arc<Route>>> = HashMap::new();
        for route in by_id.values() {
            if let Some(digest) = &route.entry.secret {
                by_secret.entry(bucket(digest)).or_default().push(Arc::clone(route));
            }
        }
        let index = Index::new(by_id.values());
        Self { revision, source, complete, by_id, index, by_secret, limits }
    }

    /// Who gets a request for this path of a host name relative to the base domain.
    pub(crate) fn find(&self, relative: &str, path: &str) -> Option<&Group> {
        self.index.find(relative, path)
    }

    /// Who issues the certificates that clients of a host name relative to the base domain need.
    pub(crate) fn client_ca(&self, relative: &str) -> Option<&Path> {
        self.index.client_ca(relative)
    }

    /// Whether any of them needs some.
    pub(crate) fn is_guarded(&self) -> bool {
        self.index.guarded
    }

    /// Whether somebody who shares the requests of this instance can take them.
    pub(crate) fn is_shared(&self, id: &str) -> bool {
        let entry = self.by_id(id).map(|route| &route.entry).filter(|entry| !entry.rules.group.is_empty());
        let group = entry.and_then(|entry| self.find(&entry.host, &entry.rules.prefix));
        group.is_some_and(Group::is_able)
    }

    /// The first instance of a host name.
    #[cfg(test)]
    pub(crate) fn by_host(&self, relative: &str) -> Option<&Arc<Route>> {
        self.find(relative, "/").map(Group::first)
    }

    /// The instance of an id.
    pub(crate) fn by_id(&self, id: &str) -> Option<&Arc<Route>> {
        self.by_id.get(id)
    }

    /// The instance whose own secret this is. Digests are compared in constant time; finding the few that share a bucket
    /// tells no more than eight bytes of a digest of what the caller itself sent.
    pub(crate) fn by_secret(&self, secret: &[u8]) -> Option<&Arc<Route>> {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let candidates = self.by_secret.get(&bucket(&digest))?;
        candidates
            .iter()
            .find(|route| route.entry.secret.is_some_and(|known| bool::from(known.ct_eq(&digest))))
    }

    /// Every route.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_id.values()
    }

    /// Every route, by host name.
    pub(crate) fn routes(&self) -> Vec<&Arc<Route>> {
        let mut routes: Vec<_> = self.by_id.values().collect();
        routes.sort_by(|a, b| a.entry.host.cmp(&b.entry.host));
        routes
    }

    /// What a kept file holds.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values().map(|route| &route.entry)
    }
}

impl Route {
    /// Whether requests may be sent to it now.
    pub(crate) fn takes_requests(&self) -> bool {
        self.entry.routed && self.entry.pause.is_none()
    }

    /// Which of two instances of one host name wins: the routed one, then the one that procmgr confirms, then the first id.
    fn rank(&self) -> (bool, bool) {
        (self.entry.routed, self.confirmed)
    }

    fn left(&self, generation: u64) -> Option<&Leaving> {
        self.leaving.iter().find(|one| one.generation == generation)
    }
}

/// An entry with its connections: those of the route before it, where the place is the same.
fn route(
    entry: Entry,
    confirmed: bool,
    before: &BTreeMap<String, Arc<Route>>,
    limits: &Limits,
) -> Arc<Route> {
    let old = before.get(&entry.id);
    if let Some(old) = old
        && old.entry == entry
        && old.confirmed == confirmed
    {
        return Arc::clone(old);
    }
    let place = |entry: &Entry| (entry.endpoint.clone(), entry.generation, entry.h2c);
    let same_place = |old: &&Arc<Route>| place(&old.entry) == place(&entry);
    let standing = old.filter(same_place).map(|old| Arc::clone(&old.standing)).unwrap_or_default();
    let app = match (&entry.endpoint, old.filter(same_place)) {
        (Some(_), Some(old)) => old.app.clone(),
        (Some(endpoint), None) => {
            let known = old.and_then(|old| old.left(entry.generation)).and_then(|one| one.pool.upgrade());
            let new = if entry.h2c { Pool::h2c } else { Pool::new };
            Some(known.unwrap_or_else(|| Arc::new(new(endpoint.target(), *limits))))
        }
        (None, _) => None,
    };
    let draining = entry.beside.iter().filter(|one| one.draining).map(|one| one.generation);
    let leaving = draining.map(|generation| leaving(generation, old)).collect();
    let dev = match old.filter(|old| old.entry.debug_port == entry.debug_port) {
        Some(old) => old.dev.clone(),
        None if entry.debug_port == 0 => None,
        None => Some(Arc::new(Pool::new(Target::Localhost(entry.debug_port), *limits))),
    };
    let site = match old.filter(|old| old.entry.release == entry.release) {
        Some(old) => Arc::clone(&old.site),
        None => Arc::new(Site::new(entry.release.join("static"))),
    };
    let queue = old.map(|old| Arc::clone(&old.queue)).unwrap_or_default();
    // Who comes into service was asked for just now, by those that waited for it.
    let stays = |old: &&Arc<Route>| old.entry.routed || !entry.routed;
    let activity = old.filter(stays).map(|old| Arc::clone(&old.activity)).unwrap_or_default();
    let traffic = old.map(|old| Arc::clone(&old.traffic)).unwrap_or_default();
    Arc::new(Route { entry, app, dev, site, leaving, activity, queue, traffic, standing, confirmed })
}

/// What this proxy has to do with a generation that drains, by what the route was before.
fn leaving(generation: u64, old: Option<&Arc<Route>>) -> Leaving {
    if let Some(pool) = old.filter(|old| old.entry.generation == generation).and_then(|old| old.app.as_ref())
    {
        return Leaving { generation, gone: pool.gone(), pool: Arc::downgrade(pool) };
    }
    let unused = || {
        let gone = CancellationToken::new();
        gone.cancel();
        Leaving { generation, gone, pool: Weak::new() }
    };
    old.and_then(|old| old.left(generation)).cloned().unwrap_or_else(unused)
}

/// The same routes, none of them confirmed any more.
fn unconfirmed(routes: &BTreeMap<String, Arc<Route>>) -> BTreeMap<String, Arc<Route>> {
    let demoted = |old: &Arc<Route>| Arc::new(Route { confirmed: false, ..Route::clone(old) });
    routes
        .iter()
        .map(|(id, old)| (id.clone(), if old.confirmed { demoted(old) } else { Arc::clone(old) }))
        .collect()
}

/// A kept route whose port a confirmed instance has now leads to a stranger: it is not followed.
fn give_way(routes: &mut BTreeMap<String, Arc<Route>>) {
    if routes.values().all(|route| route.confirmed) {
        return;
    }
    let taken: HashSet<Endpoint> = routes
        .values()
        .filter(|route| route.confirmed)
        .filter_map(|route| route.entry.endpoint.clone())
        .collect();
    for route in routes.values_mut() {
        let lost = !route.confirmed
            && route.entry.endpoint.as_ref().is_some_and(|endpoint| taken.contains(endpoint));
        if lost {
            let entry = Entry {
                state: State::Starting,
                reason: "its port serves another instance now".into(),
                endpoint: None,
                routed: false,
                ..route.entry.clone()
            };
            *route = Arc::new(Route { entry, app: None, ..Route::clone(route) });
        }
    }
}

/// A development server at an app's port is none: who may ask for one app would ask another past its rules.
fn spare_apps(routes: &mut BTreeMap<String, Arc<Route>>) {
    if routes.values().all(|route| route.dev.is_none()) {
        return;
    }
    let port = |route: &Arc<Route>| match route.entry.endpoint {
        Some(Endpoint::Tcp(port)) => Some(port),
        _ => None,
    };
    let apps: HashSet<u16> = routes.values().filter_map(port).collect();
    for route in routes.values_mut() {
        if route.dev.is_some() && apps.contains(&route.entry.debug_port) {
            tracing::warn!(
                instance = route.entry.id,
                port = route.entry.debug_port,
                "an app listens where its development server should"
            );
            *route = Arc::new(Route { dev: None, ..Route::clone(route) });
        }
    }
}

fn bucket(digest: &[u8; 32]) -> u64 {
    digest[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A running instance of this id and host name on this port.
    pub(crate) fn running(id: &str, host: &str, port: u16) -> Entry {
        Entry {
            id: id.into(),
            host: host.into(),
            display_name: String::new(),
            state: State::Running,
            reason: String::new(),
            generation: 1,
            endpoint: Some(Endpoint::Tcp(port)),
            routed: true,
            retry_unix_ms: 0,
            release: PathBuf::from("/nowhere").join(id),
            secret: Some(Sha256::digest(format!("secret of {id}")).into()),
            debug_port: 0,
            beside: Vec::new(),
            pause: None,
            idle_stop_ms: 0,
            h2c: false,
            rules: Rules::default(),
        }
    }

    /// The second generation of one whose first, on port 1, drains.
    pub(crate) fn switched(id: &str, host: &str, port: u16) -> Entry {
        let old = Beside { generation: 1, endpoint: Some(Endpoint::Tcp(1)), draining: true };
        Entry { generation: 2, beside: vec![old], ..running(id, host, port) }
    }

    /// The same in another state, not routed.
    pub(crate) fn idle(id: &str, host: &str, state: State, reason: &str) -> Entry {
        let base = running(id, host, 0);
        Entry { state, reason: reason.into(), endpoint: None, routed: false, ..base }
    }

    fn snapshot(entries: Vec<Entry>, reconciled: bool) -> Change {
        Change::Snapshot { entries, reconciled }
    }

    fn table(entries: Vec<Entry>) -> Table {
        Table::empty(Limits::default()).apply(snapshot(entries, true))
    }

    fn port_of(table: &Table, host: &str) -> Option<u16> {
        match table.by_host(host)?.entry.endpoint {
            Some(Endpoint::Tcp(port)) => Some(port),
            _ => None,
        }
    }

    #[test]
    fn a_reconciled_snapshot_is_the_whole_truth() {
        let next = table(vec![running("a", "a", 1), running("b", "b", 2)])
            .apply(snapshot(vec![running("b", "b", 3)], true));
        assert!(next.by_host("a").is_none());
        assert_eq!(port_of(&next, "b"), Some(3));
        assert!(next.complete);
    }

    #[test]
    fn until_reconciled_a_missing_instance_keeps_its_route() {
        let next = table(vec![running("a", "a", 1), running("b", "b", 2)])
            .apply(snapshot(vec![running("b", "b", 3)], false));
        assert!(next.by_host("a").unwrap().entry.routed);
        assert_eq!((port_of(&next, "a"), port_of(&next, "b")), (Some(1), Some(3)));
        let after = next.apply(snapshot(vec![running("b", "b", 3)], true));
        assert!(after.by_host("a").is_none());
    }

    #[test]
    fn an_instance_not_looked_at_yet_stays_routed() {
        let next = table(vec![running("a", "a", 1)])
            .apply(snapshot(vec![idle("a", "a", State::Unknown, "new")], false));
        assert!(next.by_host("a").unwrap().entry.routed);
        let after = next.apply(Change::put(idle("a", "a", State::Failed, "exit 1")));
        assert!(!after.by_host("a").unwrap().entry.routed);
    }

    #[test]
    fn a_kept_route_gives_way_when_its_port_serves_another() {
        let kept = Table::kept(vec![running("a", "a", 1)], Limits::default());
        let next = kept.apply(snapshot(vec![running("b", "b", 1)], false));
        assert!(!next.by_host("a").unwrap().entry.routed);
        assert!(next.by_host("b").unwrap().entry.routed);
    }

    #[test]
    fn of_two_instances_of_one_host_the_routed_one_wins() {
        let next = table(vec![idle("a", "x", State::Failed, "exit 1"), running("b", "x", 2)]);
        assert_eq!(next.by_host("x").unwrap().entry.id, "b");
        let both = table(vec![running("a", "x", 1), running("b", "x", 2)]);
        assert_eq!(both.by_host("x").unwrap().entry.id, "a");
    }

    #[test]
    fn a_development_server_is_never_another_apps_port() {
        let with_dev = |debug_port| Entry { debug_port, ..running("a", "a", 1) };
        let has = |table: &Table| table.by_id("a").unwrap().dev.is_some();
        let other = running("b", "b", 2);
        assert!(has(&table(vec![with_dev(5173), other.clone()])));
        assert!(!has(&table(vec![with_dev(2), other.clone()])));
        assert!(!has(&table(vec![with_dev(5173)]).apply(Change::put(running("b", "b", 5173)))));
        assert!(!has(&table(vec![with_dev(1)])), "nor its own");
    }

    #[test]
    fn puts_and_removals_touch_one_route_only() {
        let before = table(vec![running("a", "a", 1), running("b", "b", 2)]);
        let after = before.apply(Change::put(running("a", "a", 9)));
        assert!(Arc::ptr_eq(before.by_id("b").unwrap(), after.by_id("b").unwrap()));
        assert_eq!(port_of(&after, "a"), Some(9));
        let gone = after.apply(Change::Removed("a".into()));
        assert!(gone.by_host("a").is_none() && gone.by_host("b").is_some());
        assert!(gone.apply(Change::Removed("a".into())).by_host("b").is_some());
    }

    #[test]
    fn connections_outlive_a_change_that_leaves_the_place_alone() {
        let before = table(vec![running("a", "a", 1)]);
        let renamed = before.apply(Change::put(running("a", "other", 1)));
        let pool = |table: &Table| Arc::clone(table.by_id("a").unwrap().app.as_ref().unwrap());
        assert!(Arc::ptr_eq(&pool(&before), &pool(&renamed)));
        let restarted = renamed.apply(Change::put(Entry { generation: 2, ..running("a", "other", 1) }));
        assert!(!Arc::ptr_eq(&pool(&before), &pool(&restarted)));
    }

    #[test]
    fn the_source_says_whether_the_stream_is_live() {
        let empty = Table::empty(Limits::default());
        assert_eq!(empty.apply(Change::Lost).source, Source::Nothing);
        let live = table(vec![running("a", "a", 1)]);
        assert_eq!(live.source, Source::Procmgr);
        let lost = live.apply(Change::Lost);
        assert_eq!(lost.source, Source::Kept);
        assert!(lost.by_host("a").unwrap().entry.routed);
    }

    #[test]
    fn an_unreconciled_snapshot_leaves_an_empty_table_incomplete() {
        let next = Table::empty(Limits::default()).apply(snapshot(vec![running("a", "a", 1)], false));
        assert!(!next.complete && next.by_host("a").is_some());
    }

    #[test]
    fn an_app_is_known_by_its_own_secret_only() {
        let both = table(vec![running("a", "a", 1), running("b", "b", 2)]);
        assert_eq!(both.by_secret(b"secret of b").unwrap().entry.id, "b");
        assert!(both.by_secret(b"secret of c").is_none());
        assert!(both.by_secret(b"").is_none());
        let without = table(vec![Entry { secret: None, ..running("a", "a", 1) }]);
        assert!(without.by_secret(b"").is_none());
    }
}
