//! A world to try the daemon in: its folders in a temporary place, real credentials, and peers that do as they are told.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{Extension, Router, body::Body, response::Response};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use md5::{Digest, Md5};
use nexushub_chassis::{
    audit::Audit,
    credentials::Credentials,
    launch::secret::{self, Secret},
    names::Zone,
    setup::AppPorts,
    shutdown::Shutdown,
};
use nexushub_proto::{
    procmgr::{
        Endpoint, InstanceStatus, InstancesSnapshot, LogEntry, LogGap, LogStream, ReadLogRequest,
        ReadLogResponse, State, Usage, WatchInstancesResponse, endpoint::Kind, read_log_response,
        watch_instances_response::Event,
    },
    provider::Instance,
};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::sync::{Barrier, broadcast, watch};
use tokio_stream::{StreamExt, wrappers::BroadcastStream};
use tonic::Status;
use tower::ServiceExt;

use crate::{
    applications::{Hub, Parts},
    auth::{PROXY_TOKEN, Peer},
    config::Config,
    digests::Sha256Hex,
    disk::{self, Gauge},
    folders::Folders,
    front_end::FrontEnds,
    http::router,
    live,
    peers::{Call, Flow, Peers},
    platform::{self, Facade, history::Histories, tests::FakeHouse},
    recover,
    register::Registration,
    releases, transfers,
    upload::Md5Hex,
};

/// The user that the proxy runs as here.
pub(crate) const PROXY_UID: u32 = 7;

/// Provider and procmgr in one: what is put runs at once.
pub(crate) struct Fakes {
    pub(crate) instances: Mutex<BTreeMap<String, Instance>>,
    pub(crate) puts: Mutex<u32>,
    /// What provider answers instead of doing as told, so many times.
    pub(crate) refusals: Mutex<Vec<Status>>,
    pub(crate) log: Mutex<Vec<LogEntry>>,
    /// Whether what is put comes up.
    pub(crate) fails: Mutex<bool>,
    /// What the admin app has taken over, and what it says instead, so many times.
    pub(crate) adopted: Mutex<Vec<Registration>>,
    pub(crate) admin_says: Mutex<Vec<Status>>,
    /// What provider lets go of does not end by itself.
    pub(crate) lingers: AtomicBool,
    /// Streams of the log that are open, and lines that were taken from any.
    pub(crate) readers: Arc<AtomicUsize>,
    pub(crate) taken: Arc<AtomicUsize>,
    /// After so many lines the next stream of the log breaks.
    pub(crate) breaks: Mutex<Option<usize>>,
    /// procmgr says of no instance how it is before so many are asked about.
    pub(crate) together: Mutex<Option<Arc<Barrier>>>,
    changes: broadcast::Sender<Event>,
}

impl Fakes {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            instances: Mutex::default(),
            puts: Mutex::default(),
            refusals: Mutex::default(),
            log: Mutex::default(),
            fails: Mutex::default(),
            adopted: Mutex::default(),
            admin_says: Mutex::default(),
            lingers: AtomicBool::default(),
            readers: Arc::default(),
            taken: Arc::default(),
            breaks: Mutex::default(),
            together: Mutex::default(),
            changes: broadcast::channel(64).0,
        })
    }

    /// procmgr says this of an instance.
    pub(crate) fn says(&self, status: InstanceStatus) {
        let _ = self.changes.send(Event::Changed(status));
    }

    /// procmgr says that this one is gone.
    pub(crate) fn gone(&self, id: &str) {
        let _ = self.changes.send(Event::RemovedId(id.to_owned()));
    }

    fn refusal(&self) -> Result<(), Status> {
        self.refusals.lock().unwrap().pop().map_or(Ok(()), Err)
    }

    pub(crate) fn logged(&self, from: u64, to: u64) {
        let line = |cursor| LogEntry {
            cursor,
            line: format!("line {cursor}").into_bytes(),
            stream: LogStream::Stdout.into(),
            pid: 42,
            position: format!("1:{cursor}"),
            ..LogEntry::default()
        };
        self.log.lock().unwrap().extend((from..=to).map(line));
    }

    pub(crate) fn host(&self, id: &str) -> Option<String> {
        self.instances.lock().unwrap().get(id).map(|instance| instance.host_name.clone())
    }
}

fn running(instance: &Instance) -> InstanceStatus {
    InstanceStatus {
        id: instance.id.clone(),
        state: State::Running.into(),
        release: instance.release.clone(),
        pid: 42,
        endpoint: Some(Endpoint { kind: Some(Kind::TcpPort(10_000)), h2c: false }),
        ..InstanceStatus::default()
    }
}

/// A stream of the log, for as long as it is open: what counts its lines, and its readers.
struct Reader(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Reader {
    fn new(fakes: &Fakes) -> Self {
        fakes.readers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&fakes.taken), Arc::clone(&fakes.readers))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers for Fakes {
    fn put(&self, instance: Instance) -> Call<'_, ()> {
        Box::pin(async move {
            self.refusal()?;
            *self.puts.lock().unwrap() += 1;
            let mut status = running(&instance);
            if *self.fails.lock().unwrap() {
                status.state = State::Failed.into();
            }
            self.says(status);
            self.instances.lock().unwrap().insert(instance.id.clone(), instance);
            Ok(())
        })
    }

    fn remove(&self, id: String) -> Call<'_, ()> {
        Box::pin(async move {
            self.refusal()?;
            self.instances.lock().unwrap().remove(&id);
            if !self.lingers.load(Ordering::Acquire) {
                self.gone(&id);
            }
            Ok(())
        })
    }

    fn register(&self, registration: Registration) -> Call<'_, ()> {
        Box::pin(async move {
            let said = self.admin_says.lock().unwrap().pop();
            if said.as_ref().is_none_or(|status| status.code() == tonic::Code::Unknown) {
                self.adopted.lock().unwrap().push(registration);
            }
            said.map_or(Ok(()), Err)
        })
    }

    fn watch(&self) -> Call<'_, Flow<WatchInstancesResponse>> {
        let further = BroadcastStream::new(self.changes.subscribe()).filter_map(Result::ok);
        let instances = self.instances.lock().unwrap().values().map(running).collect();
        let snapshot = Event::Snapshot(InstancesSnapshot { instances, reconciled: true });
        let events = tokio_stream::once(snapshot).chain(further);
        let flow = events.map(|event| Ok(WatchInstancesResponse { revision: 0, event: Some(event) }));
        Box::pin(async move { Ok(Box::pin(flow) as Flow<_>) })
    }

    fn read_log(&self, request: ReadLogRequest) -> Call<'_, Flow<ReadLogResponse>> {
        let (log, broken) = (self.log.lock().unwrap().clone(), self.breaks.lock().unwrap().take());
        let reader = Reader::new(self);
        Box::pin(async move {
            if log.is_empty() {
                return Err(Status::not_found("no log"));
            }
            let after = match request.position.strip_prefix("1:").unwrap_or(&request.position) {
                "" => 0,
                number => number.parse().map_err(|_| Status::invalid_argument("no position"))?,
            };
            let newer: Vec<_> = log.into_iter().filter(|entry| entry.cursor > after).collect();
            let skipped =
                if request.tail == 0 { 0 } else { newer.len().saturating_sub(request.tail as usize) };
            let gap = LogGap { dropped: 3, position: "1:0".to_owned() };
            let gap = (request.position == "0").then_some(read_log_response::Event::Gap(gap));
            let entries = newer.into_iter().skip(skipped).map(read_log_response::Event::Entry);
            let events =
                gap.into_iter().chain(entries).map(|event| Ok(ReadLogResponse { event: Some(event) }));
            let mut events: Vec<_> = events.collect();
            if let Some(at) = broken.filter(|at| *at < events.len()) {
                events.truncate(at);
                events.push(Err(Status::unavailable("killed")));
            }
            let kept = tokio_stream::iter(events).map(move |event| {
                reader.0.fetch_add(1, Ordering::Relaxed);
                event
            });
            Ok(if request.follow {
                Box::pin(kept.chain(tokio_stream::pending())) as Flow<_>
            } else {
                Box::pin(kept)
            })
        })
    }

    fn instance(&self, id: String) -> Call<'_, InstanceStatus> {
        let known = self.instances.lock().unwrap().get(&id).map(running);
        let usage = Some(Usage { memory_bytes: 7, ..Usage::default() });
        let used = known.map(|status| InstanceStatus { usage, ..status });
        let together = self.together.lock().unwrap().clone();
        Box::pin(async move {
            if let Some(all) = together {
                all.wait().await;
            }
            used.ok_or_else(|| Status::not_found("no instance"))
        })
    }
}

/// An answer with its header fields.
pub(crate) struct Ask {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Ask {
    /// One field's text; empty when it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The daemon without its sockets.
pub(crate) struct World {
    pub(crate) state: TempDir,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) house: Arc<FakeHouse>,
    pub(crate) hub: Arc<Hub>,
    facade: Arc<Facade>,
    pub(crate) proxy_token: String,
    pub(crate) operator_token: String,
    credentials: Credentials,
    drain: watch::Sender<bool>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self::with(tempfile::tempdir().unwrap(), Fakes::new(), config, Arc::new(disk::free))
    }

    /// On a disk that always has so many bytes left.
    pub(crate) fn on_disk(config: Config, free: u64) -> Self {
        Self::with(tempfile::tempdir().unwrap(), Fakes::new(), config, Arc::new(move |_: &Path| Ok(free)))
    }

    /// The next process over the same state and the same peers.
    pub(crate) fn restarted(self) -> Self {
        self.drain.send_replace(true);
        let (config, disk) = (self.hub.config.clone(), Arc::clone(&self.hub.disk));
        Self::with(self.state, self.fakes, config, disk)
    }

    /// The same, configured otherwise; provider knows what it knew.
    pub(crate) fn restarted_with(self, change: impl FnOnce(&mut Config)) -> Self {
        self.drain.send_replace(true);
        let (mut config, disk) = (self.hub.config.clone(), Arc::clone(&self.hub.disk));
        change(&mut config);
        let next = Self::with(self.state, self.fakes, config, disk);
        next.house.remember(&self.house);
        next
    }

    fn with(state: TempDir, fakes: Arc<Fakes>, config: Config, disk: Gauge) -> Self {
        let run = tempfile::tempdir().unwrap();
        let secret = Secret::generate().unwrap();
        secret.write_credentials(run.path(), Some(PROXY_UID)).unwrap();
        let credentials = Credentials::load(&secret::credentials(run.path(), "debug-api")).unwrap();
        let (drain, shutdown) = Shutdown::by_hand();
        let folders = Folders::create(state.path()).unwrap();
        let revived = recover::revive(recover::read(&folders, config.max_package_bytes).unwrap());
        let (sender, live) = watch::channel(live::Live::default());
        let peers: Arc<dyn Peers> = fakes.clone();
        tokio::spawn(live::follow(Arc::clone(&peers), sender, shutdown.clone()));
        let zone = Zone::new("yesterday.localhost", 8443);
        let histories = Histories::load(&folders.history());
        tokio::spawn(histories.clone().keep(live.clone(), shutdown.clone()));
        let audit = Audit::of(state.path(), "debug-api");
        let front_ends = FrontEnds::of(config.static_ports().unwrap(), Vec::new(), AppPorts::default());
        let house = FakeHouse::new(Arc::clone(&fakes));
        let parts = Parts {
            config,
            zone,
            front_ends,
            folders,
            peers,
            house: house.clone(),
            live,
            histories,
            audit,
            disk,
            shutdown,
        };
        let hub = Hub::new(parts, recover::present(&revived));
        tokio::spawn(recover::resume_all(Arc::clone(&hub), revived));
        tokio::spawn(crate::expiry::watch(Arc::clone(&hub)));
        tokio::spawn(crate::promotion::pursue(Arc::clone(&hub)));
        tokio::spawn(crate::promotion::watch(Arc::clone(&hub)));
        tokio::spawn(transfers::sweep(Arc::clone(&hub)));
        tokio::spawn(releases::watch(Arc::clone(&hub)));
        tokio::spawn(crate::retreat::watch(Arc::clone(&hub)));
        let (proxy_token, operator_token) =
            (secret.token("proxy", "debug-api"), secret.token("operator", "debug-api"));
        let facade = Facade::new(Arc::clone(&hub), house.clone(), state.path());
        Self { state, fakes, house, hub, facade, proxy_token, operator_token, credentials, drain }
    }

    pub(crate) fn router(&self, uid: u32) -> Router {
        let platform = platform::router(Arc::clone(&self.facade));
        router(Arc::clone(&self.hub), platform, self.credentials.clone()).layer(Extension(Peer(Some(uid))))
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router(PROXY_UID).oneshot(request).await.unwrap()
    }

    /// A developer's request as the proxy passes it on.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(PROXY_TOKEN, &self.proxy_token)
            .header("authorization", format!("Bearer {}", self.operator_token))
    }

    /// Sends it and reads the answer.
    pub(crate) async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let response = self.send(self.request(method, path).body(body.into()).unwrap()).await;
        read(response).await
    }

    /// Sends it with these header fields and says all of the answer.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Ask {
        let body = body.into();
        let mut request = self.request(method, path);
        if let Some(bytes) = axum::body::HttpBody::size_hint(&body).exact() {
            request = request.header("content-length", bytes);
        }
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.send(request.body(body).unwrap()).await;
        let headers = response.headers().clone();
        let (status, text) = read(response).await;
        Ask { status, headers, text }
    }

    /// Installs what was uploaded.
    pub(crate) async fn install(&self, id: &str) -> (StatusCode, String) {
        self.call("POST", &format!("/debug/application/{id}/install"), "").await
    }

    /// Creates an application and says its id.
    pub(crate) async fn create(&self, app_id: &str, host: &str) -> String {
        let body = format!(r#"{{"appId":"{app_id}","displayName":"A","hostName":"{host}","dbName":"a.db"}}"#);
        let (status, text) = self.call("POST", "/debug/application", body).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        json(&text)["id"].as_str().unwrap().to_owned()
    }

    /// Uploads one chunk.
    pub(crate) async fn chunk(
        &self,
        id: &str,
        (index, total): (i64, i64),
        hash: &str,
        chunk: &[u8],
    ) -> (StatusCode, String) {
        let fields = [
            ("chunkIndex", index.to_string()),
            ("totalChunks", total.to_string()),
            ("fileHash", hash.to_owned()),
        ];
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| (*name, value.as_bytes())).chain([("chunk", chunk)]).collect();
        self.form(id, &fields).await
    }

    /// Uploads a form with these fields in this order.
    pub(crate) async fn form(&self, id: &str, fields: &[(&str, &[u8])]) -> (StatusCode, String) {
        let mut body = Vec::new();
        for (name, value) in fields {
            let file = if *name == "chunk" {
                "; filename=\"chunk\"\r\nContent-Type: application/octet-stream"
            } else {
                ""
            };
            body.extend_from_slice(
                format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XX--\r\n");
        let request = self.request("POST", &format!("/debug/application/{id}/upload"));
        let request = request
            .header("content-type", "multipart/form-data; boundary=XX")
            .body(Body::from(body))
            .unwrap();
        read(self.send(request).await).await
    }

    /// Uploads a package in one chunk and installs it.
    pub(crate) async fn push(&self, id: &str, package: &[u8]) -> (StatusCode, String) {
        let (status, text) = self.chunk(id, (0, 1), &md5(package), package).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        self.call("POST", &format!("/debug/application/{id}/install"), "").await
    }

    /// Waits until the status call says so.
    pub(crate) async fn until(&self, id: &str, word: &str) {
        let mut live = self.hub.live.clone();
        let said = async {
            while json(&self.call("GET", &format!("/debug/application/{id}/status"), "").await.1)["status"]
                != word
            {
                live.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), said).await.unwrap();
    }

    /// Waits until the release that runs is known to be healthy.
    pub(crate) async fn until_healthy(&self, id: &str) {
        let known = || self.hub.find(id).unwrap().record().release.is_some_and(|release| release.healthy);
        let seen = async {
            while !known() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), seen).await.unwrap();
    }

    pub(crate) fn releases(&self, id: &str) -> Vec<String> {
        names(&self.hub.folders.releases(id))
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn md5(bytes: &[u8]) -> String {
    Md5Hex::of(&Md5::digest(bytes)).to_string()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256Hex::of(&digest(bytes)).unwrap().to_string()
}

/// SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    assert!(text.ends_with('\n'), "{text:?}");
    serde_json::from_str(text).unwrap()
}

pub(crate) async fn read(response: Response) -> (StatusCode, String) {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
