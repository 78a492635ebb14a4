//! The gRPC side: decode, judge, ask the owner, answer. Nothing is decided here.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use nexushub_chassis::names::InstanceId;
use nexushub_proto::provider::{
    ListInstancesRequest, ListInstancesResponse, PutInstanceRequest, PutInstanceResponse,
    RemoveInstanceRequest, RemoveInstanceResponse, WatchDesiredRequest, WatchDesiredResponse,
    provider_service_server::ProviderService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    changes,
    desired::{Handle, State},
    error::Error,
    instance::Source,
    typed::{BadField, Judge},
    wire,
};

/// Answers requests with what the owner says.
pub struct Service {
    handle: Handle,
    judge: Judge,
}

impl Service {
    /// A service in front of this owner. Paths in requests must be absolute.
    #[must_use]
    pub fn new(handle: Handle, judge: Judge) -> Self {
        Self { handle, judge: Judge { root: None, ..judge } }
    }
}

#[tonic::async_trait]
impl ProviderService for Service {
    async fn put_instance(
        &self,
        request: Request<PutInstanceRequest>,
    ) -> Result<Response<PutInstanceResponse>, Status> {
        let sent = request.into_inner().instance.ok_or(Error::Missing)?;
        let entry =
            wire::typed(sent).and_then(|typed| self.judge.entry(typed, Source::Debug)).map_err(Error::Bad)?;
        let revision = self.handle.put(entry).await?;
        Ok(Response::new(PutInstanceResponse { revision }))
    }

    async fn remove_instance(
        &self,
        request: Request<RemoveInstanceRequest>,
    ) -> Result<Response<RemoveInstanceResponse>, Status> {
        let id = InstanceId::parse(&request.into_inner().id)
            .map_err(|error| Error::Bad(BadField { key: "id", why: error.to_string() }))?;
        let (revision, removed) = self.handle.remove(id).await?;
        Ok(Response::new(RemoveInstanceResponse { revision, removed }))
    }

    async fn list_instances(
        &self,
        _request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let state = self.handle.watch().borrow().clone();
        let instances = state.desired.values().map(wire::instance).collect();
        Ok(Response::new(ListInstancesResponse { revision: state.revision, instances }))
    }

    type WatchDesiredStream = Pin<Box<dyn Stream<Item = Result<WatchDesiredResponse, Status>> + Send>>;

    async fn watch_desired(
        &self,
        _request: Request<WatchDesiredRequest>,
    ) -> Result<Response<Self::WatchDesiredStream>, Status> {
        let reader = Reader { state: self.handle.watch(), known: None, due: VecDeque::new() };
        let changes = stream::unfold(reader, |mut reader| async {
            let next = reader.next().await?;
            Some((Ok(next), reader))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// One reader: what it knows, and what it is still to be told.
struct Reader {
    state: watch::Receiver<Arc<State>>,
    known: Option<Arc<State>>,
    due: VecDeque<WatchDesiredResponse>,
}

impl Reader {
    /// The next message; none when the owner has ended.
    async fn next(&mut self) -> Option<WatchDesiredResponse> {
        loop {
            if let Some(message) = self.due.pop_front() {
                return Some(message);
            }
            if self.known.is_some() {
                self.state.changed().await.ok()?;
            }
            let now = self.state.borrow_and_update().clone();
            let changes = changes::between(self.known.as_deref(), &now);
            self.due = changes.iter().map(|change| wire::change(now.revision, change)).collect();
            self.known = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        desired::{Book, Owner},
        store::{Entries, Store},
    };
    use futures_util::StreamExt;
    use nexushub_chassis::names::Zone;
    use nexushub_proto::provider::{self as proto, watch_desired_response::Event};
    use tonic::Code;

    fn service(folder: &tempfile::TempDir) -> Service {
        let book = Book {
            statics: Vec::new(),
            dynamic: Vec::new(),
            debug: Entries::new(),
            data_root: "/d".into(),
            max_debug: 4,
        };
        let (owner, handle) = Owner::new(book, Store::open(folder.path()).unwrap(), 1);
        tokio::spawn(owner.run(std::future::pending()));
        Service::new(handle, Judge { zone: Zone::new("b", 1), root: Some("/p".into()) })
    }

    fn instance(id: &str, host_name: &str) -> proto::Instance {
        let (id, host_name, release) = (id.into(), host_name.into(), "/r".into());
        proto::Instance { id, host_name, release, ..Default::default() }
    }

    async fn put(service: &Service, instance: Option<proto::Instance>) -> Result<u64, Code> {
        let answer = service.put_instance(Request::new(PutInstanceRequest { instance })).await;
        answer.map(|answer| answer.into_inner().revision).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_watch_begins_with_the_whole_and_goes_on_with_changes() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder);
        put(&service, Some(instance("a", "x"))).await.unwrap();
        let watch = service.watch_desired(Request::new(WatchDesiredRequest {})).await.unwrap();
        let mut watch = watch.into_inner();
        let first = watch.next().await.unwrap().unwrap();
        assert!(matches!(first.event, Some(Event::Snapshot(all)) if all.instances.len() == 1));
        let revision = put(&service, Some(instance("b", "y"))).await.unwrap();
        let second = watch.next().await.unwrap().unwrap();
        assert!(second.revision == revision && matches!(second.event, Some(Event::Put(b)) if b.id == "b"));
        let id = "a".to_owned();
        service.remove_instance(Request::new(RemoveInstanceRequest { id })).await.unwrap();
        let third = watch.next().await.unwrap().unwrap();
        assert!(matches!(third.event, Some(Event::RemovedId(id)) if id == "a"));
    }

    #[tokio::test]
    async fn refusals_carry_the_codes_of_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder);
        put(&service, Some(instance("a", "x"))).await.unwrap();
        assert_eq!(put(&service, None).await, Err(Code::InvalidArgument));
        assert_eq!(put(&service, Some(instance("../a", "z"))).await, Err(Code::InvalidArgument));
        assert_eq!(put(&service, Some(instance("b", "no name"))).await, Err(Code::InvalidArgument));
        let relative = proto::Instance { release: "r".into(), ..instance("b", "z") };
        assert_eq!(put(&service, Some(relative)).await, Err(Code::InvalidArgument));
        assert_eq!(put(&service, Some(instance("b", "X.b:1"))).await, Err(Code::AlreadyExists));
        for id in ["c", "d", "e"] {
            put(&service, Some(instance(id, id))).await.unwrap();
        }
        let one_too_many = put(&service, Some(instance("f", "f"))).await;
        assert_eq!(one_too_many, Err(Code::FailedPrecondition), "final: not to be tried again");
        let id = "no/id".to_owned();
        let status = service.remove_instance(Request::new(RemoveInstanceRequest { id })).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
}
