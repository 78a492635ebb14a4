//! Lets go of generations whose place was taken: once nothing of this proxy's is under way at one that drains, procmgr is told, which
//! stops it when every proxy has said so.
//!
//! That nothing is under way is told by the end of its connections' pool: each request and each upgraded connection holds the
//! pool that it uses, and the table that names another hands it to nobody any more.

use std::{collections::BTreeMap, sync::Arc};

use nexushub_chassis::{client::GrpcChannel, retry::Retry};
use nexushub_proto::procmgr::{ReleaseGenerationRequest, procmgr_service_client::ProcmgrServiceClient};
use tokio::{sync::watch, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::table::{Source, Table};

/// A generation that drains.
type Name = (String, u64);

/// Where it is said that this proxy has let go of a generation.
#[derive(Clone)]
pub(crate) struct Releaser {
    procmgr: ProcmgrServiceClient<GrpcChannel>,
    holder: String,
}

impl Releaser {
    /// To this procmgr, under the name by which this proxy watches.
    pub(crate) fn new(procmgr: ProcmgrServiceClient<GrpcChannel>, holder: String) -> Self {
        Self { procmgr, holder }
    }

    /// Lets go of whatever the table says drains, for as long as the proxy lives.
    pub(crate) async fn follow(self, table: watch::Receiver<Arc<Table>>) {
        let say = |name| {
            let releaser = self.clone();
            async move { releaser.say(name).await }
        };
        follow(table, say).await;
    }

    /// Says it until it is heard.
    async fn say(mut self, (id, generation): Name) {
        let mut retry = Retry::default();
        loop {
            let request =
                ReleaseGenerationRequest { id: id.clone(), generation, holder: self.holder.clone() };
            match self.procmgr.release_generation(request).await {
                Ok(_) => return,
                Err(status) => {
                    let error = status.message();
                    tracing::debug!(instance = id, generation, error, "could not let go of a generation yet");
                }
            }
            sleep(retry.wait()).await;
        }
    }
}

/// What drains, by what procmgr says now: one that was started anew has to be told again, and is once it has looked at an instance.
/// What it hears of one before that is lost on it.
fn leaving(table: &Table) -> BTreeMap<Name, CancellationToken> {
    if table.source != Source::Procmgr {
        return BTreeMap::new();
    }
    let of_route = |route: &crate::table::Route| {
        let id = route.entry.id.clone();
        let named = route.leaving.iter().map(move |one| ((id.clone(), one.generation), one.gone.clone()));
        named.collect::<Vec<_>>()
    };
    table.all().filter(|route| route.confirmed).flat_map(|route| of_route(route)).collect()
}

async fn follow<F>(mut table: watch::Receiver<Arc<Table>>, say: impl Fn(Name) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut waiting: BTreeMap<Name, AbortOnDropHandle<()>> = BTreeMap::new();
    loop {
        let named = leaving(&table.borrow_and_update());
        waiting.retain(|name, _| named.contains_key(name));
        for (name, gone) in named {
            waiting.entry(name).or_insert_with_key(|name| {
                let said = say(name.clone());
                AbortOnDropHandle::new(tokio::spawn(async move {
                    gone.cancelled().await;
                    said.await;
                }))
            });
        }
        if table.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        pool::Limits,
        table::{
            Beside, Change, Endpoint, Entry, State,
            tests::{running, switched},
        },
    };

    #[tokio::test]
    async fn a_generation_is_let_go_of_when_the_last_that_used_it_has_ended_and_again_for_a_new_procmgr() {
        let entries = vec![running("a", "a", 1)];
        let first = Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true });
        let in_flight = first.by_host("a").unwrap().app.clone();
        let (publish, table) = watch::channel(Arc::new(first));
        let (tell, mut told) = mpsc::unbounded_channel();
        tokio::spawn(follow(table, move |name| {
            let tell = tell.clone();
            async move { drop(tell.send(name)) }
        }));
        let put = |change| {
            let next = publish.borrow().apply(change);
            publish.send_replace(Arc::new(next));
        };
        put(Change::put(switched("a", "a", 2)));
        put(Change::put(running("b", "b", 3)));
        tokio::task::yield_now().await;
        assert!(told.try_recv().is_err(), "a request is under way there");
        drop(in_flight);
        assert_eq!(told.recv().await, Some(("a".to_owned(), 1)));
        put(Change::Lost);
        tokio::task::yield_now().await;
        let unknown = Entry { state: State::Unknown, routed: false, beside: vec![], ..switched("a", "a", 2) };
        put(Change::Snapshot { entries: vec![unknown], reconciled: false });
        tokio::task::yield_now().await;
        assert!(told.try_recv().is_err(), "procmgr has not looked at it yet, and would not hear it");
        put(Change::put(switched("a", "a", 2)));
        assert_eq!(told.recv().await, Some(("a".to_owned(), 1)));
    }

    #[tokio::test]
    async fn a_generation_that_counts_again_is_held_by_those_that_used_it_before() {
        let old = running("a", "a", 1);
        let first = Table::empty(Limits::default()).apply(Change::put(old.clone()));
        let in_flight = first.by_host("a").unwrap().app.clone();
        let next = first.apply(Change::put(switched("a", "a", 2)));
        // procmgr was killed before it knew that the new generation had answered.
        let coming = Beside { generation: 2, endpoint: Some(Endpoint::Tcp(2)), draining: false };
        let back = next.apply(Change::put(Entry { beside: vec![coming], ..old }));
        drop((first, next));
        assert!(Arc::ptr_eq(in_flight.as_ref().unwrap(), back.by_host("a").unwrap().app.as_ref().unwrap()));
        let again = back.apply(Change::put(switched("a", "a", 2)));
        drop(back);
        let gone = leaving(&again).into_values().next().unwrap();
        assert!(!gone.is_cancelled());
        drop(in_flight);
        assert!(gone.is_cancelled());
    }
}
