//! Apps that sleep while nobody asks for them. procmgr is told of each that has had no request for its time; and the first request
//! for one that is asleep has it started, while that and all that follow wait in turn (`forward.rs`).
//!
//! Both are beside the path of requests to running apps: these only leave word when they came.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nexushub_chassis::{client::GrpcChannel, retry::Retry};
use nexushub_proto::procmgr::{
    ReportIdleRequest, WakeInstanceRequest, procmgr_service_client::ProcmgrServiceClient,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    clock,
    table::{Source, State, Table},
};

/// How long after a call nothing may have come of it before it is made again.
const CALL_AGAIN: Duration = Duration::from_secs(1);

/// When an app was asked for last.
#[derive(Debug)]
pub(crate) struct Activity(AtomicU64);

impl Default for Activity {
    fn default() -> Self {
        Self(AtomicU64::new(clock::now_ms()))
    }
}

impl Activity {
    /// It is asked for now.
    pub(crate) fn touch(&self) {
        self.0.store(clock::now_ms(), Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where it is said which apps are idle, and which are to be woken.
#[derive(Clone)]
pub(crate) struct Sleep {
    procmgr: Option<ProcmgrServiceClient<GrpcChannel>>,
    holder: String,
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep(..)")
    }
}

impl Sleep {
    /// To this procmgr, under the name by which this proxy watches.
    pub(crate) fn new(procmgr: Option<ProcmgrServiceClient<GrpcChannel>>, holder: String) -> Self {
        Self { procmgr, holder }
    }

    /// Says which apps are idle, for as long as the proxy lives.
    pub(crate) async fn follow(self, table: watch::Receiver<Arc<Table>>) {
        let say = |(id, generation)| {
            let Self { procmgr, holder } = self.clone();
            async move {
                let Some(mut procmgr) = procmgr else { return };
                // Said again in time, should it not be heard.
                let _ = procmgr.report_idle(ReportIdleRequest { id, generation, holder }).await;
            }
        };
        follow(table, say).await;
    }

    /// Has an app started whenever it sleeps. Never returns.
    pub(crate) async fn keep_awake(&self, mut table: watch::Receiver<Arc<Table>>, id: &str) {
        let Some(mut procmgr) = self.procmgr.clone() else { return std::future::pending().await };
        let mut retry = Retry::default();
        loop {
            if table.wait_for(|table| sleeps(table, id)).await.is_err() {
                return std::future::pending().await;
            }
            match procmgr.wake_instance(WakeInstanceRequest { id: id.to_owned() }).await {
                // Whoever heard it may have died of it.
                Ok(_) => drop(timeout(CALL_AGAIN, table.wait_for(|table| !sleeps(table, id))).await),
                Err(_) => sleep(retry.wait()).await,
            }
        }
    }
}

fn sleeps(table: &Table, id: &str) -> bool {
    table.by_id(id).is_some_and(|route| route.entry.state == State::Asleep && route.entry.pause.is_none())
}

async fn follow<F>(mut table: watch::Receiver<Arc<Table>>, say: impl Fn((String, u64)) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut saying = JoinSet::new();
    loop {
        let (idle, due) = look(&table.borrow_and_update(), clock::now_ms());
        idle.into_iter().for_each(|name| drop(saying.spawn(say(name))));
        let timer = async {
            match due {
                Some(due) => sleep_until(clock::instant(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = table.changed() => if changed.is_err() { return },
            Some(_) = saying.join_next() => {}
            () = timer => {}
        }
    }
}

/// The apps that have been idle for their time, and when the next may be. One that is told of counts as asked for, so that it
/// is told of again only after as long a time.
fn look(table: &Table, now: u64) -> (Vec<(String, u64)>, Option<u64>) {
    let (mut idle, mut due) = (Vec::new(), None);
    if table.source != Source::Procmgr {
        return (idle, due);
    }
    for route in table.all().filter(|route| route.entry.routed && route.entry.idle_stop_ms > 0) {
        if route.app.as_ref().is_some_and(|app| !app.is_quiet()) {
            route.activity.touch();
        }
        let limit = u64::from(route.entry.idle_stop_ms);
        if route.activity.last() + limit <= now {
            idle.push((route.entry.id.clone(), route.entry.generation));
            route.activity.touch();
        }
        due = due.into_iter().chain([route.activity.last() + limit]).min();
    }
    (idle, due)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        pool::Limits,
        table::{Change, Entry, tests::running},
    };

    #[test]
    fn an_app_is_idle_when_its_time_has_passed_without_a_request_and_is_told_of_once_in_that_time() {
        let drowsy = Entry { idle_stop_ms: 1_000, ..running("a", "a", 1) };
        let entries = vec![drowsy, running("b", "b", 2)];
        let table = Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true });
        let last = table.by_id("a").unwrap().activity.last();
        assert_eq!(look(&table, last + 999), (vec![], Some(last + 1_000)));
        let (idle, due) = look(&table, last + 1_000);
        assert_eq!(idle, [("a".to_owned(), 1)]);
        assert!(due.unwrap() >= last + 1_000);
        assert_eq!(look(&table, due.unwrap() - 1).0, []);
        assert_eq!(look(&table.apply(Change::Lost), last + 10_000), (vec![], None), "nobody hears it");
    }

    #[test]
    fn an_app_that_comes_up_has_its_time_from_then_on() {
        let coming = Entry { idle_stop_ms: 1_000, routed: false, ..running("a", "a", 1) };
        let up = Entry { routed: true, ..coming.clone() };
        let snapshot = Change::Snapshot { entries: vec![coming], reconciled: true };
        let before = Table::empty(Limits::default()).apply(snapshot);
        let activity = |table: &Table| Arc::clone(&table.by_id("a").unwrap().activity);
        let table = before.apply(Change::put(up.clone()));
        assert!(!Arc::ptr_eq(&activity(&before), &activity(&table)), "it begins anew");
        assert!(Arc::ptr_eq(&activity(&table), &activity(&table.apply(Change::put(up)))), "and goes on");
    }

    #[test]
    fn an_app_is_asleep_unless_it_is_paused() {
        let asleep = Entry { state: State::Asleep, routed: false, ..running("a", "a", 1) };
        let table = Table::empty(Limits::default()).apply(Change::put(asleep.clone()));
        assert!(sleeps(&table, "a") && !sleeps(&table, "b"));
        let pause = Some(crate::table::Pause { message: String::new(), closed: false });
        assert!(!sleeps(&table.apply(Change::put(Entry { pause, ..asleep })), "a"));
    }
}
