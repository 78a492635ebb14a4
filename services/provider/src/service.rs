//! The gRPC side: decode, judge, ask the owner, answer. Nothing is decided here.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use nexushub_chassis::{
    audit::{Asker, Audit},
    names::InstanceId,
};
use nexushub_proto::provider::{
    ConfirmRemovalsRequest, ConfirmRemovalsResponse, Instance, ListInstancesRequest, ListInstancesResponse,
    ListReleasesRequest, ListReleasesResponse, PreviewDesiredRequest, PreviewDesiredResponse,
    PutInstanceRequest, PutInstanceResponse, Release, RemoveInstanceRequest, RemoveInstanceResponse,
    RevertReleaseRequest, RevertReleaseResponse, SetReleaseRequest, SetReleaseResponse, WatchDesiredRequest,
    WatchDesiredResponse, provider_service_server::ProviderService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    admin::follow::Contact,
    basis, changes,
    desired::{Handle, State},
    error::Error,
    merge::{self, Merged},
    typed::{BadField, Judge},
    wire,
};

/// Answers requests with what the owner says.
pub struct Service {
    handle: Handle,
    judge: Judge,
    contact: watch::Receiver<Contact>,
    audit: Audit,
}

impl Service {
    /// A service in front of this owner, whose changes are noted. Paths in requests must be absolute.
    #[must_use]
    pub fn new(handle: Handle, judge: Judge, contact: watch::Receiver<Contact>, audit: Audit) -> Self {
        Self { handle, judge: Judge { root: None, ..judge }, contact, audit }
    }

    fn state(&self) -> Arc<State> {
        self.handle.watch().borrow().clone()
    }

    async fn put(&self, sent: Option<Instance>) -> Result<u64, Error> {
        let sent = sent.ok_or(Error::Missing)?;
        let source = wire::source(&sent).map_err(Error::Bad)?;
        let entry =
            wire::typed(sent).and_then(|typed| self.judge.entry(typed, source)).map_err(Error::Bad)?;
        self.handle.put(entry).await
    }

    async fn set(&self, app_id: &str, release: Release) -> Result<u64, Error> {
        let (app_id, release) = wire::release(app_id.to_owned(), release, &self.judge).map_err(Error::Bad)?;
        self.handle.set_release(app_id, release).await
    }

    async fn confirm(&self, ids: &[String]) -> Result<(u64, Vec<String>), Error> {
        let ids = ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?;
        let (revision, removed) = self.handle.confirm(ids).await?;
        Ok((revision, removed.iter().map(ToString::to_string).collect()))
    }

    async fn preview(&self, asked: PreviewDesiredRequest) -> Result<Merged, Error> {
        let PreviewDesiredRequest { configuration, path } = asked;
        let read = tokio::task::spawn_blocking(move || basis::proposed(path.into(), configuration));
        let read = read.await.map_err(|_| Error::Stopping)?;
        let (statics, rules) = read.map_err(Error::Configuration)?;
        let merged = self.handle.preview(statics, rules).await?;
        let conflicts = merge::further(merged.conflicts, &self.state().conflicts);
        Ok(Merged { conflicts, ..merged })
    }

    async fn remove(&self, instance: &str) -> Result<(u64, bool), Error> {
        self.handle.remove(id(instance)?).await
    }
}

fn id(text: &str) -> Result<InstanceId, Error> {
    InstanceId::parse(text).map_err(|error| Error::Bad(BadField { key: "id", why: error.to_string() }))
}

#[tonic::async_trait]
impl ProviderService for Service {
    async fn put_instance(
        &self,
        request: Request<PutInstanceRequest>,
    ) -> Result<Response<PutInstanceResponse>, Status> {
        let (asker, sent) = (Asker::of(&request), request.into_inner().instance);
        let (id, release) =
            sent.as_ref().map(|sent| (sent.id.clone(), sent.release.clone())).unwrap_or_default();
        let put = self.put(sent).await;
        let revision = self.audit.noted(asker, ("instance.put", &id), put, |_| release)?;
        Ok(Response::new(PutInstanceResponse { revision }))
    }

    async fn remove_instance(
        &self,
        request: Request<RemoveInstanceRequest>,
    ) -> Result<Response<RemoveInstanceResponse>, Status> {
        let (asker, id) = (Asker::of(&request), request.into_inner().id);
        let removed = self.remove(&id).await;
        let told = |(_, removed): &(u64, bool)| if *removed { "" } else { "there was none" }.to_owned();
        let (revision, removed) = self.audit.noted(asker, ("instance.remove", &id), removed, told)?;
        Ok(Response::new(RemoveInstanceResponse { revision, removed }))
    }

    async fn list_instances(
        &self,
        _request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let admin = self.contact.borrow().clone();
        Ok(Response::new(wire::listed(&self.state(), admin)))
    }

    async fn preview_desired(
        &self,
        request: Request<PreviewDesiredRequest>,
    ) -> Result<Response<PreviewDesiredResponse>, Status> {
        let merged = self.preview(request.into_inner()).await?;
        Ok(Response::new(wire::preview(&merged)))
    }

    async fn set_release(
        &self,
        request: Request<SetReleaseRequest>,
    ) -> Result<Response<SetReleaseResponse>, Status> {
        let (asker, SetReleaseRequest { app_id, release }) = (Asker::of(&request), request.into_inner());
        let release = release.unwrap_or_default();
        let path = release.path.clone();
        let set = self.set(&app_id, release).await;
        let revision = self.audit.noted(asker, ("release.set", &app_id), set, |_| path)?;
        Ok(Response::new(SetReleaseResponse { revision }))
    }

    async fn revert_release(
        &self,
        request: Request<RevertReleaseRequest>,
    ) -> Result<Response<RevertReleaseResponse>, Status> {
        let (asker, asked) = (Asker::of(&request), request.into_inner());
        let RevertReleaseRequest { app_id, path, reason } = asked;
        let detail = [path.as_str(), &reason].join(": ");
        let reverted = self.handle.revert_release(app_id.clone(), path.as_ref(), reason).await;
        let revision = self.audit.noted(asker, ("release.revert", &app_id), reverted, |_| detail)?;
        let current =
            self.state().releases.current(&app_id).map(|release| release.path.to_string_lossy().into_owned());
        Ok(Response::new(RevertReleaseResponse { revision, current: current.unwrap_or_default() }))
    }

    async fn list_releases(
        &self,
        request: Request<ListReleasesRequest>,
    ) -> Result<Response<ListReleasesResponse>, Status> {
        let wanted = request.into_inner().app_id;
        let state = self.state();
        let shelves = state.releases.applications.iter();
        let shelves = shelves.filter(|(app_id, _)| wanted.is_empty() || wanted == **app_id);
        let applications =
            shelves.map(|(app_id, shelf)| wire::shelf(app_id, shelf, state.dynamic_driver)).collect();
        Ok(Response::new(ListReleasesResponse { applications }))
    }

    async fn confirm_removals(
        &self,
        request: Request<ConfirmRemovalsRequest>,
    ) -> Result<Response<ConfirmRemovalsResponse>, Status> {
        let (asker, ids) = (Asker::of(&request), request.into_inner().ids);
        let confirmed = self.confirm(&ids).await;
        let told = |(_, removed): &(u64, Vec<String>)| removed.join(" ");
        let (revision, removed) = self.audit.noted(asker, ("removals.confirm", ""), confirmed, told)?;
        Ok(Response::new(ConfirmRemovalsResponse { revision, removed }))
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
        desired::{Book, Owner, Rules},
        disk::Disk,
        store::Entries,
    };
    use futures_util::StreamExt;
    use nexushub_chassis::{audit, names::Zone};
    use nexushub_proto::provider::watch_desired_response::Event as Change;
    use tonic::Code;

    fn service(folder: &tempfile::TempDir) -> Service {
        let rules = Rules { max_debug: 4, ..crate::desired::tests::rules() };
        let book =
            Book { statics: Vec::new(), debug: Entries::new(), rules, ..crate::desired::tests::book() };
        let (owner, handle) = Owner::new(book, Disk::open(folder.path()).unwrap(), 1);
        tokio::spawn(owner.run(std::future::pending()));
        let audit = Audit::of(folder.path(), "provider");
        let (_, contact) = watch::channel(Contact::default());
        Service::new(handle, Judge { zone: Zone::new("b", 1), root: Some("/p".into()) }, contact, audit)
    }

    fn instance(id: &str, host_name: &str) -> Instance {
        let (id, host_name, release) = (id.into(), host_name.into(), "/r".into());
        Instance { id, host_name, release, ..Default::default() }
    }

    async fn put(service: &Service, instance: Option<Instance>) -> Result<u64, Code> {
        let answer = service.put_instance(Request::new(PutInstanceRequest { instance })).await;
        answer.map(|answer| answer.into_inner().revision).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_preview_tells_what_a_configuration_would_come_to_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder);
        put(&service, Some(instance("a", "x"))).await.unwrap();
        put(&service, Some(instance("b", "y"))).await.unwrap();
        let preview = async |configuration: &str| {
            let (configuration, path) = (configuration.to_owned(), "/new.toml".to_owned());
            service.preview_desired(Request::new(PreviewDesiredRequest { configuration, path })).await
        };
        let entry = "[[provider.instance]]\nid='s'\nhost_name='x'\nrelease='/r'\n";
        let told = preview(entry).await.unwrap().into_inner();
        let ids: Vec<_> = told.instances.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["b", "s"], "a static instance goes before one that was put");
        assert!(told.conflicts[0].id == "a" && told.conflicts[0].reason.contains("`x`"), "{told:?}");
        assert_eq!(service.state().desired.len(), 2);
        let refused = preview("[provider]\nx=1\n").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("/new.toml:2: provider.x"), "{refused}");
    }

    #[tokio::test]
    async fn a_watch_begins_with_the_whole_and_goes_on_with_changes() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder);
        put(&service, Some(instance("a", "x"))).await.unwrap();
        let watch = service.watch_desired(Request::new(WatchDesiredRequest {})).await.unwrap();
        let mut watch = watch.into_inner();
        let first = watch.next().await.unwrap().unwrap();
        assert!(matches!(first.event, Some(Change::Snapshot(all)) if all.instances.len() == 1));
        let revision = put(&service, Some(instance("b", "y"))).await.unwrap();
        let second = watch.next().await.unwrap().unwrap();
        assert!(second.revision == revision && matches!(second.event, Some(Change::Put(b)) if b.id == "b"));
        let id = "a".to_owned();
        service.remove_instance(Request::new(RemoveInstanceRequest { id })).await.unwrap();
        let third = watch.next().await.unwrap().unwrap();
        assert!(matches!(third.event, Some(Change::RemovedId(id)) if id == "a"));
    }

    #[tokio::test]
    async fn who_changes_what_is_noted_and_what_came_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder);
        put(&service, Some(instance("a", "x"))).await.unwrap();
        put(&service, Some(instance("b", "no name"))).await.unwrap_err();
        for id in ["a", "a"] {
            service.remove_instance(Request::new(RemoveInstanceRequest { id: id.into() })).await.unwrap();
        }
        drop(service);
        let noted = audit::tail(&audit::folder(folder.path()), 9).unwrap();
        let told: Vec<_> = noted.iter().map(|entry| [&*entry.what, &*entry.object, &*entry.result]).collect();
        let (put, remove) = ("instance.put", "instance.remove");
        assert_eq!(told, [[put, "a", "ok"], [put, "b", "failed"], [remove, "a", "ok"], [remove, "a", "ok"]]);
        assert!(noted[0].detail == "/r" && noted[1].detail.contains("host_name"), "{:?}", noted[1]);
        assert_eq!(noted[3].detail, "there was none");
    }

    #[tokio::test]
    async fn refusals_carry_the_codes_of_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder);
        put(&service, Some(instance("a", "x"))).await.unwrap();
        assert_eq!(put(&service, None).await, Err(Code::InvalidArgument));
        assert_eq!(put(&service, Some(instance("../a", "z"))).await, Err(Code::InvalidArgument));
        assert_eq!(put(&service, Some(instance("b", "no name"))).await, Err(Code::InvalidArgument));
        let relative = Instance { release: "r".into(), ..instance("b", "z") };
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

    fn with_path(path: &str) -> SetReleaseRequest {
        let release = Release { path: path.into(), version: "1".into(), ..Default::default() };
        SetReleaseRequest { app_id: "shop".into(), release: Some(release) }
    }

    async fn shelf(service: &Service) -> Vec<(String, bool, String)> {
        let asked = ListReleasesRequest { app_id: "shop".into() };
        let answer = service.list_releases(Request::new(asked)).await.unwrap().into_inner();
        let releases = answer.applications.into_iter().flat_map(|application| application.releases);
        releases.map(|one| (one.path, one.current, one.failed)).collect()
    }

    #[tokio::test]
    async fn packages_are_set_listed_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let service = service(&folder);
        let set = |path: &str| service.set_release(Request::new(with_path(path)));
        assert_eq!(set("relative").await.unwrap_err().code(), Code::InvalidArgument);
        let first = set("/one").await.unwrap().into_inner().revision;
        assert_eq!(set("/one").await.unwrap().into_inner().revision, first, "the same again is no change");
        set("/two").await.unwrap();
        let revert = |path: &str| {
            let (app_id, path, reason) = ("shop".into(), path.into(), "broken".into());
            service.revert_release(Request::new(RevertReleaseRequest { app_id, path, reason }))
        };
        assert_eq!(revert("/none").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(revert("/two").await.unwrap().into_inner().current, "/one");
        let expected = [("/two", false, "broken"), ("/one", true, "")];
        assert_eq!(shelf(&service).await, expected.map(|(p, c, f)| (p.to_owned(), c, f.to_owned())));
    }
}
