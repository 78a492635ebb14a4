//! What procmgr last said about every instance, kept up by its watch. Status calls read it without a call of their own,
//! and it stays readable while procmgr is away.

use std::{collections::HashMap, sync::Arc};

use nexushub_chassis::{retry::Retry, shutdown::Shutdown};
use nexushub_proto::procmgr::{
    InstanceStatus, State, WatchInstancesResponse, watch_instances_response::Event,
};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::Status;

use crate::peers::{Flow, Peers};

/// The instances by id.
#[derive(Debug, Default)]
pub(crate) struct Live {
    instances: HashMap<String, InstanceStatus>,
    /// Whether procmgr said so in this very connection.
    current: bool,
}

impl Live {
    pub(crate) fn get(&self, id: &str) -> Option<&InstanceStatus> {
        self.instances.get(id)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &InstanceStatus> {
        self.instances.values()
    }

    /// Whether procmgr can be heard, and has looked at every instance.
    pub(crate) fn is_current(&self) -> bool {
        self.current
    }

    /// Whether the instance is known to have no process any more.
    pub(crate) fn is_gone(&self, id: &str) -> bool {
        let ended = |status: &InstanceStatus| {
            status.pid == 0 && matches!(status.state(), State::Stopped | State::Failed)
        };
        self.current && self.get(id).is_none_or(ended)
    }

    fn apply(&mut self, change: WatchInstancesResponse) {
        match change.event {
            Some(Event::Snapshot(snapshot)) => {
                if snapshot.reconciled {
                    self.instances.clear();
                }
                self.current = snapshot.reconciled;
                self.instances
                    .extend(snapshot.instances.into_iter().map(|status| (status.id.clone(), status)));
            }
            Some(Event::Changed(status)) => {
                self.instances.insert(status.id.clone(), status);
            }
            Some(Event::RemovedId(id)) => {
                self.instances.remove(&id);
            }
            None => {}
        }
    }
}

/// Keeps `live` up to date until the drain.
pub(crate) async fn follow(peers: Arc<dyn Peers>, live: watch::Sender<Live>, shutdown: Shutdown) {
    let (mut retry, mut told) = (Retry::default(), None);
    let watching = async {
        loop {
            match peers.watch().await {
                Ok(mut changes) => {
                    let ended = take(&mut changes, &live, || {
                        retry.reset();
                        told = None;
                    })
                    .await;
                    live.send_modify(|live| live.current = false);
                    let ended = ended.err().unwrap_or_else(|| Status::unavailable("the stream ended"));
                    if told.replace(ended.code()) != Some(ended.code()) {
                        tracing::warn!(code = ?ended.code(), error = ended.message(), "procmgr's watch broke; watching again");
                    }
                }
                Err(status) => {
                    tracing::debug!(error = status.message(), "procmgr can't be watched; trying again");
                }
            }
            tokio::time::sleep(retry.wait()).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = shutdown.draining() => {}
    }
}

/// Applies changes until the stream ends; the status that broke it, if one did.
async fn take(
    changes: &mut Flow<WatchInstancesResponse>,
    live: &watch::Sender<Live>,
    mut progress: impl FnMut(),
) -> Result<(), Status> {
    while let Some(change) = changes.next().await {
        let change = change?;
        progress();
        live.send_modify(|live| live.apply(change));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nexushub_proto::procmgr::InstancesSnapshot;

    use super::*;

    fn status(id: &str, state: State) -> InstanceStatus {
        InstanceStatus { id: id.to_owned(), state: state.into(), ..InstanceStatus::default() }
    }

    fn snapshot(instances: Vec<InstanceStatus>, reconciled: bool) -> WatchInstancesResponse {
        let event = Some(Event::Snapshot(InstancesSnapshot { instances, reconciled }));
        WatchInstancesResponse { revision: 1, event }
    }

    #[test]
    fn a_missing_instance_is_no_news_until_procmgr_has_looked_at_all() {
        let mut live = Live::default();
        live.apply(snapshot(vec![status("a", State::Running)], true));
        live.apply(snapshot(vec![], false));
        assert!(live.get("a").is_some());
        assert!(!live.is_gone("a") && !live.is_gone("b"));
        live.apply(snapshot(vec![], true));
        assert!(live.is_gone("a"));
    }

    #[tokio::test]
    async fn the_status_that_breaks_the_watch_is_not_lost() {
        let (live, seen) = watch::channel(Live::default());
        let answers = [
            Ok(snapshot(vec![status("a", State::Running)], true)),
            Err(Status::permission_denied("no right to watch")),
        ];
        let (mut changes, mut applied): (Flow<_>, _) = (Box::pin(tokio_stream::iter(answers)), 0);
        let ended = take(&mut changes, &live, || applied += 1).await;
        assert_eq!(
            ended.err().map(|status| status.message().to_owned()).as_deref(),
            Some("no right to watch")
        );
        assert!(applied == 1 && seen.borrow().get("a").is_some());
        assert!(take(&mut changes, &live, || ()).await.is_ok(), "an end without a status");
    }

    #[test]
    fn an_instance_is_gone_when_removed_or_ended() {
        let mut live = Live::default();
        live.apply(snapshot(vec![status("a", State::Stopping)], true));
        assert!(!live.is_gone("a"));
        let event = Some(Event::Changed(status("a", State::Stopped)));
        live.apply(WatchInstancesResponse { revision: 2, event });
        assert!(live.is_gone("a"));
        live.apply(WatchInstancesResponse { revision: 3, event: Some(Event::RemovedId("a".to_owned())) });
        assert!(live.is_gone("a"));
    }
}
