//! What state each instance was in, since when and why: the newest of it, for as long as this daemon lives.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use nexushub_chassis::shutdown::Shutdown;
use nexushub_proto::procmgr::InstanceStatus;
use serde::Serialize;
use tokio::sync::watch;

use super::view;
use crate::{
    live::Live,
    record::{now_ms, rfc3339},
};

/// Most moments of one instance.
const MOMENTS: usize = 50;

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Moment {
    at: String,
    state: &'static str,
    reason: String,
    generation: u64,
}

/// The moments of each instance, the newest last; it holds those that are there.
#[derive(Debug, Default, Clone)]
pub(crate) struct Histories {
    moments: Arc<Mutex<HashMap<String, VecDeque<Moment>>>>,
    noted: Arc<watch::Sender<()>>,
}

impl Histories {
    /// Of one instance, the newest first.
    pub(crate) fn of(&self, id: &str) -> Vec<Moment> {
        let all = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(id).map(|moments| moments.iter().rev().cloned().collect()).unwrap_or_default()
    }

    /// Changes whenever procmgr's word was noted.
    pub(crate) fn noted(&self) -> watch::Receiver<()> {
        self.noted.subscribe()
    }

    /// Notes whatever differs from what was noted last.
    fn note<'a>(&self, now_unix_ms: i64, live: impl Iterator<Item = &'a InstanceStatus>) {
        let mut all = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = std::mem::take(&mut *all);
        for status in live {
            let mut moments = known.remove(&status.id).unwrap_or_default();
            let (state, reason) = (view::state(status), view::reason(status));
            if moments.back().is_none_or(|last| (last.state, &last.reason) != (state, &reason)) {
                let same = moments.back().is_some_and(|last| last.state == state);
                let at = if same { now_unix_ms } else { status.since_unix_ms };
                let (at, generation) = (rfc3339(at), status.generation);
                moments.push_back(Moment { at, state, reason, generation });
                moments.drain(..moments.len().saturating_sub(MOMENTS));
            }
            all.insert(status.id.clone(), moments);
        }
        drop(all);
        self.noted.send_replace(());
    }
}

/// Notes what procmgr says, until the drain.
pub(crate) async fn keep(histories: Histories, mut live: watch::Receiver<Live>, shutdown: Shutdown) {
    let noting = async {
        loop {
            histories.note(now_ms(), live.borrow_and_update().all());
            if live.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = noting => {}
        () = shutdown.draining() => {}
    }
}

#[cfg(test)]
mod tests {
    use nexushub_proto::procmgr::State;

    use super::*;

    fn status(id: &str, state: State, reason: &str, since_unix_ms: i64) -> InstanceStatus {
        let (id, reason) = (id.to_owned(), reason.to_owned());
        InstanceStatus { id, state: state.into(), reason, since_unix_ms, ..InstanceStatus::default() }
    }

    fn told(histories: &Histories, id: &str) -> Vec<(&'static str, String)> {
        histories.of(id).into_iter().map(|moment| (moment.state, moment.reason)).collect()
    }

    #[test]
    fn each_change_is_noted_once_the_newest_first_and_who_is_gone_is_forgotten() {
        let histories = Histories::default();
        let starting = status("a", State::Starting, "just started", 1);
        histories.note(1, [&starting, &status("b", State::Running, "", 1)].into_iter());
        histories.note(2, [&starting].into_iter());
        histories.note(3, [&status("a", State::Running, "", 3)].into_iter());
        assert_eq!(
            told(&histories, "a"),
            [("running", String::new()), ("starting", "just started".to_owned())]
        );
        assert_eq!(told(&histories, "b"), []);
        assert_eq!(histories.of("a")[0].at, "1970-01-01T00:00:00.003Z");
    }

    #[test]
    fn an_instance_that_never_rests_is_bounded() {
        let histories = Histories::default();
        for n in 0..200 {
            histories.note(n, [&status("a", State::Failed, &format!("try {n}"), 0)].into_iter());
        }
        let moments = told(&histories, "a");
        assert_eq!((moments.len(), moments[0].1.as_str()), (MOMENTS, "try 199"));
    }
}
