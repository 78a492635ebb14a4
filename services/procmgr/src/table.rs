//! What others see of the instances: the table that calls read and watchers follow. Only the owner task writes to it.
//!
//! A watcher takes the snapshot and its place in the stream of changes under one lock, so it misses nothing and sees nothing
//! twice; one that falls too far behind takes a fresh snapshot.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nexushub_proto::procmgr::{
    self, DrainingGeneration, Endpoint, InstanceStatus, InstancesSnapshot, NextGeneration,
    WatchInstancesResponse, endpoint::Kind, watch_instances_response::Event,
};
use tokio::sync::{broadcast, mpsc};
use tonic::Status;

use crate::{
    generation::{Endpoint as Reached, Generation},
    ids::InstanceId,
    orders::Pause,
    overlap::Drain,
    state::{Machine, State},
};

/// Changes that a watcher may be behind before it gets a snapshot instead.
const BACKLOG: usize = 1024;

/// The table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    shared: Arc<Mutex<Shared>>,
    changes: broadcast::Sender<Arc<WatchInstancesResponse>>,
}

#[derive(Debug, Default)]
struct Shared {
    revision: u64,
    reconciled: bool,
    instances: BTreeMap<InstanceId, InstanceStatus>,
}

impl Default for Table {
    fn default() -> Self {
        Self { shared: Arc::default(), changes: broadcast::channel(BACKLOG).0 }
    }
}

impl Table {
    /// Every instance, by id, and whether the first reconcile is done.
    pub(crate) fn list(&self) -> (Vec<InstanceStatus>, bool) {
        let shared = self.lock();
        (shared.instances.values().cloned().collect(), shared.reconciled)
    }

    /// One instance.
    pub(crate) fn get(&self, id: &InstanceId) -> Option<InstanceStatus> {
        self.lock().instances.get(id).cloned()
    }

    /// Publishes how an instance stands now; nothing happens if that is known. Whether it was news.
    pub(crate) fn put(&self, id: &InstanceId, status: InstanceStatus) -> bool {
        let mut shared = self.lock();
        if shared.instances.get(id) == Some(&status) {
            return false;
        }
        shared.instances.insert(id.clone(), status.clone());
        self.tell(&mut shared, Event::Changed(status));
        true
    }

    /// Publishes that an instance is gone.
    pub(crate) fn remove(&self, id: &InstanceId) {
        let mut shared = self.lock();
        if shared.instances.remove(id).is_some() {
            self.tell(&mut shared, Event::RemovedId(id.to_string()));
        }
    }

    /// Publishes the first-reconcile milestone: every watcher gets a snapshot that says so.
    pub(crate) fn reconciled(&self) {
        let mut shared = self.lock();
        shared.reconciled = true;
        let snapshot = Event::Snapshot(shared.snapshot());
        self.tell(&mut shared, snapshot);
    }

    fn tell(&self, shared: &mut MutexGuard<'_, Shared>, event: Event) {
        shared.revision += 1;
        // An error only says that nobody watches.
        let _ = self
            .changes
            .send(Arc::new(WatchInstancesResponse { revision: shared.revision, event: Some(event) }));
    }

    fn subscribe(&self) -> (WatchInstancesResponse, broadcast::Receiver<Arc<WatchInstancesResponse>>) {
        let shared = self.lock();
        let first = WatchInstancesResponse {
            revision: shared.revision,
            event: Some(Event::Snapshot(shared.snapshot())),
        };
        (first, self.changes.subscribe())
    }

    /// Tells one watcher everything, until it goes away.
    pub(crate) async fn watch(&self, watcher: mpsc::Sender<Result<WatchInstancesResponse, Status>>) {
        let (mut message, mut changes) = self.subscribe();
        while watcher.send(Ok(message)).await.is_ok() {
            let next = tokio::select! {
                next = changes.recv() => next,
                () = watcher.closed() => return,
            };
            message = match next {
                Ok(change) => Arc::unwrap_or_clone(change),
                Err(broadcast::error::RecvError::Closed) => return,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (snapshot, fresh) = self.subscribe();
                    changes = fresh;
                    snapshot
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn snapshot(&self) -> InstancesSnapshot {
        InstancesSnapshot {
            instances: self.instances.values().cloned().collect(),
            reconciled: self.reconciled,
        }
    }
}

/// How an instance stands, as others see it.
pub(crate) fn status(id: &InstanceId, m: &Machine, driver: &str, pause: Option<&Pause>) -> InstanceStatus {
    let desired = m.desired.as_deref();
    let live = m.live.as_deref();
    InstanceStatus {
        id: id.to_string(),
        app_id: desired.map(|d| d.app_id.clone()).unwrap_or_default(),
        display_name: desired.map(|d| d.display_name.clone()).unwrap_or_default(),
        host_name: desired.map(|d| d.host_name.clone()).unwrap_or_default(),
        state: procmgr::State::from(m.state).into(),
        reason: reason(m),
        since_unix_ms: m.since,
        generation: live.map_or(m.generation, |run| run.number),
        pid: live.map_or(0, |run| run.pid),
        endpoint: live.map(endpoint),
        routed: m.routed(),
        flagged: m.flagged,
        restarts: m.restarts,
        last_exit: m.last_exit.as_ref().map(crate::exit::Exit::to_proto),
        retry_unix_ms: m.retry_unix,
        release: m.release().map(|path| path.display().to_string()).unwrap_or_default(),
        secret_sha256: live.map(|run| run.secret_sha256.clone()).unwrap_or_default(),
        debug_port: desired.map_or(0, |d| d.debug_port.into()),
        static_service_url: desired.map(|d| d.static_service_url.clone()).unwrap_or_default(),
        driver: live.map_or_else(|| driver.to_owned(), |run| run.driver.clone()),
        not_enforced: live.map(|run| run.not_enforced.clone()).unwrap_or_default(),
        usage: None,
        next: m.next.as_deref().map(next),
        draining: m.draining.iter().map(draining).collect(),
        idle_stop_ms: desired.map_or(0, |d| d.idle_stop_ms),
        route: desired.and_then(|d| d.route.clone()),
        last_words: last_words(m).to_owned(),
        pause: pause.map(|pause| procmgr::Pause {
            message: pause.message.clone(),
            closed: pause.closed,
            since_unix_ms: pause.since_unix,
        }),
    }
}

fn next(m: &Machine) -> NextGeneration {
    NextGeneration {
        generation: m.live.as_ref().map_or(m.generation, |run| run.number),
        state: procmgr::State::from(m.state).into(),
        reason: m.reason.clone(),
        restarts: m.restarts,
        retry_unix_ms: m.retry_unix,
        release: m.release().map(|path| path.display().to_string()).unwrap_or_default(),
        pid: m.live.as_ref().map_or(0, |run| run.pid),
        endpoint: m.live.as_deref().map(endpoint),
        last_words: m.last_words.clone(),
    }
}

fn draining(drain: &Drain) -> DrainingGeneration {
    let run = &drain.run;
    DrainingGeneration {
        generation: run.number,
        endpoint: Some(endpoint(run)),
        release: run.release.display().to_string(),
        pid: run.pid,
        until_unix_ms: drain.until_unix,
    }
}

fn endpoint(run: &Generation) -> Endpoint {
    let kind = match &run.endpoint {
        Reached::Port(port) => Kind::TcpPort((*port).into()),
        Reached::Shim(path) => Kind::Shim(path.display().to_string()),
    };
    Endpoint { kind: Some(kind), h2c: run.health.as_ref().is_some_and(|health| health.h2c) }
}

/// A running instance has a reason only where there is something to say of it.
fn reason(m: &Machine) -> String {
    let problem = m.desired.as_ref().and_then(|d| d.problem.as_ref()).or(m.held_back.as_ref());
    match problem {
        Some(problem) if m.state == State::Running => {
            format!("runs as it was; what is wanted now cannot run: {problem}")
        }
        None if m.runs_as_it_was() => match (m.state, m.trouble()) {
            (State::Unhealthy, Some(trouble)) => format!("{}; {trouble}", m.reason),
            (_, Some(trouble)) => trouble,
            (_, None) => m.reason.clone(),
        },
        _ => m.reason.clone(),
    }
}

/// What it said before it failed; of one that runs, what the next generation said.
fn last_words(m: &Machine) -> &str {
    let next = m.next.as_deref().filter(|_| m.runs_as_it_was());
    &next.unwrap_or(m).last_words
}

impl From<State> for procmgr::State {
    fn from(state: State) -> Self {
        match state {
            State::Unknown => Self::Unknown,
            State::Starting => Self::Starting,
            State::Running => Self::Running,
            State::Unhealthy => Self::Unhealthy,
            State::Stopping => Self::Stopping,
            State::Stopped => Self::Stopped,
            State::Failed => Self::Failed,
            State::Asleep => Self::Asleep,
        }
    }
}

/// Says in the log what an instance has become.
pub(crate) fn log_transition(id: &InstanceId, machine: &Machine) {
    let (generation, reason) = (machine.generation, &machine.reason);
    let state = format!("{:?}", machine.state).to_lowercase();
    match machine.state {
        State::Failed | State::Unhealthy => {
            tracing::warn!(instance = %id, generation, state, reason, "an instance changed its state");
        }
        _ => tracing::info!(instance = %id, generation, state, reason, "an instance changed its state"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn named(name: &str, restarts: u32) -> InstanceStatus {
        InstanceStatus { id: name.into(), restarts, ..Default::default() }
    }

    #[tokio::test]
    async fn a_watcher_sees_a_snapshot_then_every_change_once_in_order() {
        let table = Table::default();
        table.put(&id("a"), named("a", 0));
        let (tx, mut rx) = mpsc::channel(1);
        let watched = table.clone();
        let watching = tokio::spawn(async move { watched.watch(tx).await });
        let first = rx.recv().await.unwrap().unwrap();
        let Some(Event::Snapshot(snapshot)) = first.event else { unreachable!() };
        assert_eq!((first.revision, snapshot.instances.len(), snapshot.reconciled), (1, 1, false));
        assert!(!table.put(&id("a"), named("a", 0)), "nothing new");
        table.put(&id("a"), named("a", 1));
        table.remove(&id("a"));
        table.remove(&id("a"));
        table.reconciled();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.push(rx.recv().await.unwrap().unwrap());
        }
        assert_eq!(seen.iter().map(|m| m.revision).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(matches!(&seen[2].event, Some(Event::Snapshot(s)) if s.reconciled && s.instances.is_empty()));
        drop(rx);
        watching.await.unwrap();
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_gets_a_fresh_snapshot() {
        let table = Table::default();
        let (tx, mut rx) = mpsc::channel(1);
        let watched = table.clone();
        tokio::spawn(async move { watched.watch(tx).await });
        assert_eq!(rx.recv().await.unwrap().unwrap().revision, 0);
        let last = u64::try_from(BACKLOG).unwrap() + 50;
        for n in 1..=last {
            table.put(&id("a"), named("a", u32::try_from(n).unwrap()));
        }
        let message = rx.recv().await.unwrap().unwrap();
        let Some(Event::Snapshot(snapshot)) = message.event else { unreachable!() };
        assert_eq!((message.revision, snapshot.instances[0].restarts), (last, u32::try_from(last).unwrap()));
    }

    #[test]
    fn only_a_failed_instance_has_a_retry_and_only_a_live_one_an_endpoint() {
        use crate::state::{Found, tests as samples};
        let now = samples::at(0);
        let mut m = Machine::new(now);
        m.examined(
            Found::Live { run: samples::run(3, "d"), was_healthy: true, ending: false },
            3,
            &samples::rules(),
            now,
        );
        let up = status(&id("a"), &m, "process", None);
        assert!(up.endpoint.is_some() && up.routed && up.retry_unix_ms == 0 && up.pid != 0);
        m.exited(samples::exit(1), &samples::rules(), 0.0, now);
        let down = status(&id("a"), &m, "process", None);
        assert!(down.endpoint.is_none() && !down.routed && down.pid == 0 && down.last_exit.is_some());
        assert!(down.retry_unix_ms >= now.unix);
    }
}
