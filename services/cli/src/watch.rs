//! App instances as procmgr tells of them while they change: one stream, asked for again when it breaks, so that what is known is
//! always what procmgr knew last.

use std::collections::BTreeMap;

use nexushub_chassis::retry::Retry;
use nexushub_proto::procmgr::{
    InstanceStatus, WatchInstancesRequest, WatchInstancesResponse, watch_instances_response::Event,
};
use tonic::{Code, Streaming};

use crate::{failure::Failure, instances, place::Place, rpc};

/// What procmgr told.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) all: BTreeMap<String, InstanceStatus>,
    /// Whether every desired instance was looked at: before that one that is missing is not gone.
    pub(crate) whole: bool,
}

impl Known {
    /// One message of the stream.
    fn take(&mut self, said: WatchInstancesResponse) {
        match said.event {
            Some(Event::Snapshot(snapshot)) => {
                let by_id = |status: InstanceStatus| (status.id.clone(), status);
                self.all = snapshot.instances.into_iter().map(by_id).collect();
                self.whole = snapshot.reconciled;
            }
            Some(Event::Changed(status)) => drop(self.all.insert(status.id.clone(), status)),
            Some(Event::RemovedId(id)) => drop(self.all.remove(&id)),
            None => {}
        }
    }

    /// Everything, as `instances::named` takes it.
    pub(crate) fn list(&self) -> Vec<InstanceStatus> {
        self.all.values().cloned().collect()
    }
}

/// A stream that goes on.
pub(crate) struct Watch<'p> {
    place: &'p Place,
    stream: Option<Streaming<WatchInstancesResponse>>,
    retry: Retry,
    pub(crate) known: Known,
}

impl<'p> Watch<'p> {
    /// Nothing is asked yet.
    pub(crate) fn new(place: &'p Place) -> Self {
        Self { place, stream: None, retry: Retry::default(), known: Known::default() }
    }

    /// The first answer; a platform that is not up is said at once.
    pub(crate) async fn begun(place: &'p Place) -> Result<Self, Failure> {
        let mut watch = Self::new(place);
        let refused = |status| rpc::failed(place, "procmgr", &status);
        let mut stream = watch.ask().await?.map_err(refused)?;
        if let Some(said) = stream.message().await.map_err(refused)? {
            watch.known.take(said);
        }
        watch.stream = Some(stream);
        Ok(watch)
    }

    /// Waits until something changed. A procmgr that is away is waited for; one that refuses is not.
    pub(crate) async fn changed(&mut self) -> Result<(), Failure> {
        loop {
            let said = match &mut self.stream {
                Some(stream) => stream.message().await,
                None => match self.ask().await? {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(status) => Err(status),
                },
            };
            match said {
                Ok(Some(said)) => {
                    self.known.take(said);
                    self.retry.reset();
                    return Ok(());
                }
                Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unimplemented) => {
                    return Err(rpc::failed(self.place, "procmgr", &status));
                }
                _ => {
                    self.stream = None;
                    tokio::time::sleep(self.retry.wait()).await;
                }
            }
        }
    }

    async fn ask(&self) -> Result<Result<Streaming<WatchInstancesResponse>, tonic::Status>, Failure> {
        let mut client = instances::client(self.place)?; // with a token read anew: the platform may have been started anew
        let asked = client.watch_instances(WatchInstancesRequest::default()).await;
        Ok(asked.map(tonic::Response::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexushub_proto::procmgr::InstancesSnapshot;

    #[test]
    fn a_snapshot_replaces_what_was_known_and_changes_add_to_it() {
        let status = |id: &str, pid| InstanceStatus { id: id.into(), pid, ..Default::default() };
        let said = |event| WatchInstancesResponse { revision: 1, event: Some(event) };
        let mut known = Known::default();
        let all = vec![status("a", 1), status("b", 2)];
        known.take(said(Event::Snapshot(InstancesSnapshot { instances: all, reconciled: false })));
        known.take(said(Event::Changed(status("b", 3))));
        known.take(said(Event::RemovedId("a".into())));
        assert_eq!((known.list(), known.whole), (vec![status("b", 3)], false));
        known.take(said(Event::Snapshot(InstancesSnapshot { instances: Vec::new(), reconciled: true })));
        assert!(known.all.is_empty() && known.whole);
        known.take(WatchInstancesResponse::default());
        assert!(known.all.is_empty());
    }
}
