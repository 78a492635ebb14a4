//! App instances while they change. On this machine procmgr tells: one stream, asked for again when it breaks, so that what is known
//! is always what procmgr knew last. Elsewhere debug-api tells, of one app or of all that were pushed (`far/feed.rs`).

use std::collections::BTreeMap;

use nexushub_chassis::{names::Zone, retry::Retry};
use nexushub_proto::procmgr::{
    InstanceStatus, WatchInstancesRequest, WatchInstancesResponse, watch_instances_response::Event,
};
use tonic::{Code, Streaming};

use crate::{failure::Failure, far::feed::Feed, https::Client, instances, place::Place, rpc};

/// What procmgr told.
#[derive(Clone, Debug, Default)]
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

/// Who tells.
enum Source<'p> {
    /// procmgr, by its stream while there is one.
    Procmgr(&'p Place, Option<Box<Streaming<WatchInstancesResponse>>>),
    /// debug-api of a platform elsewhere.
    DebugApi(Feed),
}

/// News that go on.
pub(crate) struct Watch<'p> {
    source: Source<'p>,
    retry: Retry,
    pub(crate) known: Known,
}

impl<'p> Watch<'p> {
    /// Nothing is asked yet.
    pub(crate) fn new(place: &'p Place) -> Self {
        Self::of(Source::Procmgr(place, None))
    }

    /// The same, of one app of a platform elsewhere, or of all that were pushed there.
    pub(crate) fn elsewhere(client: Client, name: Option<&str>, zone: &Zone) -> Self {
        Self::of(Source::DebugApi(Feed::new(client, name, zone)))
    }

    fn of(source: Source<'p>) -> Self {
        Self { source, retry: Retry::default(), known: Known::default() }
    }

    /// With the first answer; a platform that is not up is said at once.
    pub(crate) async fn begun(mut self) -> Result<Self, Failure> {
        match &mut self.source {
            Source::Procmgr(place, stream) => {
                let refused = |status| rpc::failed(place, "procmgr", &status);
                let mut asked = ask(place).await?.map_err(refused)?;
                if let Some(said) = asked.message().await.map_err(refused)? {
                    self.known.take(said);
                }
                *stream = Some(Box::new(asked));
            }
            Source::DebugApi(feed) => self.known = feed.next().await?,
        }
        Ok(self)
    }

    /// Waits until something changed, or may have. Who is away is waited for; who refuses is not.
    pub(crate) async fn changed(&mut self) -> Result<(), Failure> {
        loop {
            let said = match &mut self.source {
                Source::Procmgr(place, stream) => next(place, stream).await?,
                Source::DebugApi(feed) => match feed.next().await {
                    Err(failure) if !failure.passing => return Err(failure),
                    said => said.ok().map(News::All),
                },
            };
            match said {
                Some(News::All(known)) => self.known = known,
                Some(News::Some(said)) => self.known.take(*said),
                None => {
                    tokio::time::sleep(self.retry.wait()).await;
                    continue;
                }
            }
            self.retry.reset();
            return Ok(());
        }
    }
}

/// What was told.
enum News {
    /// All there is to know.
    All(Known),
    /// Something of it.
    Some(Box<WatchInstancesResponse>),
}

/// The next message of procmgr's; none while it is away.
async fn next(
    place: &Place,
    stream: &mut Option<Box<Streaming<WatchInstancesResponse>>>,
) -> Result<Option<News>, Failure> {
    let said = match stream {
        Some(stream) => stream.message().await,
        None => match ask(place).await? {
            Ok(asked) => stream.insert(Box::new(asked)).message().await,
            Err(status) => Err(status),
        },
    };
    match said {
        Ok(Some(said)) => Ok(Some(News::Some(Box::new(said)))),
        Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unimplemented) => {
            Err(rpc::failed(place, "procmgr", &status))
        }
        _ => {
            *stream = None;
            Ok(None)
        }
    }
}

async fn ask(place: &Place) -> Result<Result<Streaming<WatchInstancesResponse>, tonic::Status>, Failure> {
    let mut client = instances::client(place)?; // with a token read anew: the platform may have been started anew
    let asked = client.watch_instances(WatchInstancesRequest::default()).await;
    Ok(asked.map(tonic::Response::into_inner))
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
