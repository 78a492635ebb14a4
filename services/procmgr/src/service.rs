//! The gRPC face: decode, judge, ask the owner task or read its table, answer.

use std::{io, path::PathBuf, sync::Arc, time::SystemTime};

use nexushub_chassis::{
    audit::{Asker, Audit},
    launch::clock::unix_ms,
    shutdown::Shutdown,
};
use nexushub_proto::procmgr::{
    GetInstanceRequest, GetInstanceResponse, InstanceStatus, ListDriversRequest, ListDriversResponse,
    ListInstancesRequest, ListInstancesResponse, PauseInstanceRequest, PauseInstanceResponse, ReadLogRequest,
    ReadLogResponse, ReleaseGenerationRequest, ReleaseGenerationResponse, ReportIdleRequest,
    ReportIdleResponse, RestartInstanceRequest, RestartInstanceResponse, ResumeInstanceRequest,
    ResumeInstanceResponse, StopAllInstancesRequest, StopAllInstancesResponse, WakeInstanceRequest,
    WakeInstanceResponse, WatchInstancesRequest, WatchInstancesResponse,
    procmgr_service_server::ProcmgrService,
};
use nexushub_shim::reader::LogCursor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    config::Config,
    error::ProcmgrError,
    generation,
    holders::{Holders, NAME_BYTES},
    ids::InstanceId,
    log,
    manager::Event,
    news::News,
    orders::{MESSAGE_BYTES, Pause},
    table::Table,
    usage,
};

/// Messages on their way to one caller.
const IN_FLIGHT: usize = 16;

/// What calls need.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    table: Table,
    holders: Holders,
    events: mpsc::Sender<Event>,
    instances: PathBuf,
    shutdown: Shutdown,
    audit: Audit,
    watchers: Bound,
    followers: Bound,
    news: News,
}

/// A bound on streams of one kind.
#[derive(Clone, Debug)]
struct Bound {
    places: Arc<Semaphore>,
    what: &'static str,
    limit: u32,
    key: &'static str,
}

impl Bound {
    fn new(what: &'static str, key: &'static str, limit: u32) -> Self {
        let places = Arc::new(Semaphore::new(usize::try_from(limit).unwrap_or(usize::MAX >> 4)));
        Self { places, what, limit, key }
    }

    fn take(&self) -> Result<OwnedSemaphorePermit, ProcmgrError> {
        let too_many = |_| ProcmgrError::TooMany { what: self.what, limit: self.limit, key: self.key };
        Arc::clone(&self.places).try_acquire_owned().map_err(too_many)
    }
}

impl Service {
    /// `instances` is the folder of all instances.
    pub(crate) fn new(
        config: &Config,
        (table, holders): (Table, Holders),
        events: mpsc::Sender<Event>,
        instances: PathBuf,
        (shutdown, audit): (Shutdown, Audit),
    ) -> Self {
        Self {
            table,
            holders,
            events,
            instances,
            shutdown,
            audit,
            watchers: Bound::new("watchers", "max_watchers", config.max_watchers),
            followers: Bound::new("log followers", "max_followers", config.max_followers),
            news: News::start(),
        }
    }

    /// Runs a stream's work until it is done or procmgr is ending; a stream holds its place for as long.
    fn spawn(&self, place: OwnedSemaphorePermit, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = work => {}
                () = shutdown.draining() => {}
            }
        });
    }

    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, ProcmgrError> {
        let (reply, answer) = oneshot::channel();
        self.events.send(event(reply)).await.map_err(|_| ProcmgrError::Ending)?;
        answer.await.map_err(|_| ProcmgrError::Ending)
    }

    /// Statuses with what the live ones among them use, which is read from files.
    async fn with_usage(
        &self,
        mut statuses: Vec<InstanceStatus>,
    ) -> Result<Vec<InstanceStatus>, ProcmgrError> {
        let instances = self.instances.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let live: Vec<_> = statuses.iter_mut().filter(|status| status.pid != 0).collect();
            let folder = |status: &&mut InstanceStatus| {
                instances.join(&status.id).join(format!("g{}", status.generation))
            };
            let folders: Vec<_> = live.iter().map(folder).collect();
            for (status, usage) in live.into_iter().zip(usage::of_all(&folders)) {
                status.usage = usage;
            }
            statuses
        });
        reading.await.map_err(|_| ProcmgrError::Ending)
    }

    async fn restart(&self, id: &str) -> Result<(), ProcmgrError> {
        let id = InstanceId::parse(id)?;
        let (kept, keeping) = oneshot::channel();
        self.ask(|reply| Event::Restart { id, reply, kept }).await??;
        is_kept(keeping).await
    }

    /// Has an instance be paused, or be so no longer, and waits until that is kept. Whether it was.
    async fn pause(&self, id: &str, pause: Option<Pause>) -> Result<bool, ProcmgrError> {
        let id = InstanceId::parse(id)?;
        let (kept, keeping) = oneshot::channel();
        let before = self.ask(|reply| Event::Pause { id, pause, reply, kept }).await??;
        is_kept(keeping).await?;
        Ok(before)
    }

    /// The folder of an instance that has a log; of one that is known the log is made if need be, so that it can be followed.
    /// One look, and at most the making of one folder: too little to hand to another thread.
    fn logged(&self, id: &InstanceId) -> Result<PathBuf, ProcmgrError> {
        let instance = self.instances.join(id.as_str());
        let folder = generation::log(&instance);
        if folder.is_dir() {
            return Ok(instance);
        }
        if self.table.get(id).is_none() {
            return Err(ProcmgrError::NoLog(id.clone()));
        }
        generation::make(&folder).map_err(|error| ProcmgrError::Log(id.clone(), error))?;
        Ok(instance)
    }
}

/// Waits until an order is kept.
async fn is_kept(keeping: oneshot::Receiver<io::Result<()>>) -> Result<(), ProcmgrError> {
    keeping.await.map_err(|_| ProcmgrError::Ending)?.map_err(ProcmgrError::NotKept)
}

fn judge_holder(name: String) -> Result<String, ProcmgrError> {
    let usable = !name.is_empty() && name.len() <= NAME_BYTES;
    if usable { Ok(name) } else { Err(ProcmgrError::BadHolder) }
}

#[tonic::async_trait]
impl ProcmgrService for Service {
    type WatchInstancesStream = ReceiverStream<Result<WatchInstancesResponse, Status>>;
    type ReadLogStream = ReceiverStream<Result<ReadLogResponse, Status>>;

    async fn watch_instances(
        &self,
        request: Request<WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        let holder = request.into_inner().holder;
        let place = self.watchers.take()?;
        let presence = match holder.as_str() {
            "" => None,
            _ => Some(self.holders.enter(judge_holder(holder)?, self.events.clone())),
        };
        let (sink, stream) = mpsc::channel(IN_FLIGHT);
        let table = self.table.clone();
        self.spawn(place, async move {
            let _presence = presence;
            table.watch(sink).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_instances(
        &self,
        _: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let (instances, reconciled) = self.table.list();
        let instances = self.with_usage(instances).await?;
        Ok(Response::new(ListInstancesResponse { instances, reconciled }))
    }

    async fn get_instance(
        &self,
        request: Request<GetInstanceRequest>,
    ) -> Result<Response<GetInstanceResponse>, Status> {
        let id = InstanceId::parse(&request.into_inner().id).map_err(ProcmgrError::from)?;
        let instance = self.table.get(&id).ok_or(ProcmgrError::UnknownInstance(id))?;
        let instance = self.with_usage(vec![instance]).await?.pop();
        Ok(Response::new(GetInstanceResponse { instance }))
    }

    async fn restart_instance(
        &self,
        request: Request<RestartInstanceRequest>,
    ) -> Result<Response<RestartInstanceResponse>, Status> {
        let (asker, id) = (Asker::of(&request), request.into_inner().id);
        let restarted = self.restart(&id).await;
        self.audit.noted(asker, ("instance.restart", &id), restarted, |()| String::new())?;
        Ok(Response::new(RestartInstanceResponse {}))
    }

    async fn release_generation(
        &self,
        request: Request<ReleaseGenerationRequest>,
    ) -> Result<Response<ReleaseGenerationResponse>, Status> {
        let ReleaseGenerationRequest { id, generation, holder } = request.into_inner();
        let id = InstanceId::parse(&id).map_err(ProcmgrError::from)?;
        let holder = judge_holder(holder)?;
        let released = Event::Released { id, generation, holder };
        self.events.send(released).await.map_err(|_| ProcmgrError::Ending)?;
        Ok(Response::new(ReleaseGenerationResponse {}))
    }

    async fn report_idle(
        &self,
        request: Request<ReportIdleRequest>,
    ) -> Result<Response<ReportIdleResponse>, Status> {
        let ReportIdleRequest { id, generation, holder } = request.into_inner();
        let id = InstanceId::parse(&id).map_err(ProcmgrError::from)?;
        let idle = Event::Idle { id, generation, holder: judge_holder(holder)? };
        self.events.send(idle).await.map_err(|_| ProcmgrError::Ending)?;
        Ok(Response::new(ReportIdleResponse {}))
    }

    async fn wake_instance(
        &self,
        request: Request<WakeInstanceRequest>,
    ) -> Result<Response<WakeInstanceResponse>, Status> {
        let id = InstanceId::parse(&request.into_inner().id).map_err(ProcmgrError::from)?;
        self.events.send(Event::Wake(id)).await.map_err(|_| ProcmgrError::Ending)?;
        Ok(Response::new(WakeInstanceResponse {}))
    }

    async fn pause_instance(
        &self,
        request: Request<PauseInstanceRequest>,
    ) -> Result<Response<PauseInstanceResponse>, Status> {
        let (asker, asked) = (Asker::of(&request), request.into_inner());
        let PauseInstanceRequest { id, message, closed } = asked;
        if message.len() > MESSAGE_BYTES {
            return Err(ProcmgrError::LongMessage.into());
        }
        let (since_unix, said) = (unix_ms(SystemTime::now()), message.clone());
        let paused = self.pause(&id, Some(Pause { message, closed, since_unix })).await;
        self.audit.noted(asker, ("instance.pause", &id), paused, |_| said)?;
        Ok(Response::new(PauseInstanceResponse {}))
    }

    async fn resume_instance(
        &self,
        request: Request<ResumeInstanceRequest>,
    ) -> Result<Response<ResumeInstanceResponse>, Status> {
        let (asker, id) = (Asker::of(&request), request.into_inner().id);
        let resumed = self.pause(&id, None).await;
        let told = |was: &bool| if *was { "" } else { "it was not paused" }.to_owned();
        let resumed = self.audit.noted(asker, ("instance.resume", &id), resumed, told)?;
        Ok(Response::new(ResumeInstanceResponse { resumed }))
    }

    async fn list_drivers(
        &self,
        _: Request<ListDriversRequest>,
    ) -> Result<Response<ListDriversResponse>, Status> {
        Ok(Response::new(self.ask(Event::ListDrivers).await?))
    }

    async fn read_log(
        &self,
        request: Request<ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let request = request.into_inner();
        let id = InstanceId::parse(&request.id).map_err(ProcmgrError::from)?;
        let after = match request.position.as_str() {
            "" => LogCursor::from_number(request.after),
            position => position.parse().map_err(ProcmgrError::BadPosition)?,
        };
        let instance = self.logged(&id)?;
        let place = if request.follow { Some(self.followers.take()?) } else { None };
        let (sink, stream) = mpsc::channel(IN_FLIGHT);
        let tail = usize::try_from(request.tail).unwrap_or(usize::MAX);
        let wanted = log::Request { id, instance, after, tail, follow: request.follow };
        let (news, shutdown, cut) = (self.news.clone(), self.shutdown.clone(), sink.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = log::send(wanted, news, sink) => {}
                () = shutdown.draining() => {
                    // An end without a status would say that this is all there is.
                    let _ = cut.send(Err(ProcmgrError::Ending.into())).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn stop_all_instances(
        &self,
        request: Request<StopAllInstancesRequest>,
    ) -> Result<Response<StopAllInstancesResponse>, Status> {
        let (asker, stopped) = (Asker::of(&request), self.ask(Event::StopAll).await);
        let told = |stopped: &u32| format!("{stopped} stopped");
        let stopped = self.audit.noted(asker, ("instance.stop_all", ""), stopped, told)?;
        Ok(Response::new(StopAllInstancesResponse { stopped }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_chassis::audit;
    use tonic::Code;

    use super::*;

    struct Stage {
        service: Service,
        _dir: tempfile::TempDir,
        _drain: tokio::sync::watch::Sender<bool>,
    }

    fn stage() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let (drain, shutdown) = Shutdown::by_hand();
        let (events, _) = mpsc::channel(1);
        let config = Config { max_watchers: 1, max_followers: 1, ..Config::default() };
        let ending = (shutdown, Audit::of(dir.path(), "procmgr"));
        let service = Service::new(&config, Default::default(), events, dir.path().into(), ending);
        Stage { service, _dir: dir, _drain: drain }
    }

    fn get(id: &str) -> Request<GetInstanceRequest> {
        Request::new(GetInstanceRequest { id: id.into() })
    }

    fn follow(id: &str) -> Request<ReadLogRequest> {
        Request::new(ReadLogRequest { id: id.into(), follow: true, ..Default::default() })
    }

    #[tokio::test]
    async fn an_unknown_instance_and_a_bad_id_are_told_apart() {
        let Stage { service, .. } = stage();
        assert_eq!(service.get_instance(get("nobody")).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(service.get_instance(get("../x")).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(service.read_log(follow("../x")).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(service.read_log(follow("nobody")).await.unwrap_err().code(), Code::NotFound);
    }

    #[tokio::test]
    async fn a_position_that_is_none_is_refused_before_anything_is_read() {
        let Stage { service, _dir, .. } = stage();
        service.table.put(&InstanceId::parse("a").unwrap(), Default::default());
        for position in ["latest", "1:1,1:1", "-1", &"1:1,".repeat(100_000)] {
            let request = ReadLogRequest { id: "a".into(), position: position.into(), ..Default::default() };
            let refused = service.read_log(Request::new(request)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().len() < 200, "it does not repeat what it was sent");
        }
        for position in ["", "7", "1:5,3:8"] {
            let request = ReadLogRequest { id: "a".into(), position: position.into(), ..Default::default() };
            service.read_log(Request::new(request)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn streams_are_bounded_and_a_place_is_free_again_after_a_stream() {
        let Stage { service, _dir, _drain } = stage();
        let id = InstanceId::parse("a").unwrap();
        service.table.put(&id, Default::default());
        let first = service.read_log(follow("a")).await.unwrap();
        assert_eq!(service.read_log(follow("a")).await.unwrap_err().code(), Code::ResourceExhausted);
        drop(first);
        while service.read_log(follow("a")).await.is_err() {
            tokio::task::yield_now().await;
        }
        let _watching =
            service.watch_instances(Request::new(WatchInstancesRequest::default())).await.unwrap();
        let second = service.watch_instances(Request::new(WatchInstancesRequest::default())).await;
        assert_eq!(second.err().unwrap().code(), Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn a_log_that_procmgr_breaks_off_does_not_look_like_one_that_was_read_to_its_end() {
        let Stage { service, _dir, _drain: drain } = stage();
        service.table.put(&InstanceId::parse("a").unwrap(), Default::default());
        let mut stream = service.read_log(follow("a")).await.unwrap().into_inner();
        drain.send_replace(true);
        let last = tokio_stream::StreamExt::next(&mut stream).await;
        assert_eq!(last.unwrap().unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn calls_to_an_owner_that_is_gone_are_unavailable() {
        let Stage { service, .. } = stage();
        let stopped = service.stop_all_instances(Request::new(StopAllInstancesRequest {})).await;
        assert_eq!(stopped.unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn what_is_asked_for_is_noted_with_what_came_of_it() {
        let Stage { service, _dir, _drain } = stage();
        let restart = RestartInstanceRequest { id: "../x".into() };
        service.restart_instance(Request::new(restart)).await.unwrap_err();
        service.resume_instance(Request::new(ResumeInstanceRequest { id: "a".into() })).await.unwrap_err();
        service.stop_all_instances(Request::new(StopAllInstancesRequest {})).await.unwrap_err();
        drop(service);
        let noted = audit::tail(&audit::folder(_dir.path()), 9).unwrap();
        let told: Vec<_> = noted.iter().map(|entry| [&*entry.what, &*entry.object, &*entry.result]).collect();
        let failed = "failed";
        let pause = ["instance.resume", "a", failed];
        assert_eq!(told, [["instance.restart", "../x", failed], pause, ["instance.stop_all", "", failed]]);
    }
}
