//! The applications: who there is, and how they come and go. Everything about one application that takes time (receiving
//! the last chunk, installing, stopping, deleting) happens under its `work` lock, one at a time; reading never waits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use nexushub_chassis::{audit::Audit, launch::durable, names::Zone, retry::Retry, shutdown::Shutdown};
use nexushub_proto::{procmgr::InstanceStatus, provider::ListInstancesResponse};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    claims,
    config::Config,
    disk::{Gauge, Held},
    error::{ApiError, StorageError},
    folders::{Folders, blocking, remove_all, remove_app},
    front_end::FrontEnds,
    live::Live,
    names::Asked,
    peers::Peers,
    places::Places,
    platform::history::Histories,
    platform::{house::House, outcome::Before},
    record::{Record, Wanted},
    status::{self, Standing},
    transfer::Transfer,
    upload::Session,
};

/// How long a new application waits for what provider has; it is no less good where nobody says.
const PATIENCE: Duration = Duration::from_secs(1);

/// One application.
pub(crate) struct App {
    pub(crate) id: String,
    state: Mutex<AppState>,
    /// Held by whoever changes the application's files or its record.
    pub(crate) work: tokio::sync::Mutex<()>,
    /// Cancelled when it is deleted: whatever is under way ends.
    pub(crate) gone: CancellationToken,
    /// Whoever makes provider agree with the record need not wait any longer before the next try.
    pub(crate) unsettled: Notify,
    settling: AtomicBool,
    /// Who reads its log now, or brings bytes.
    present: AtomicUsize,
    /// Who makes it permanent now.
    promoting: AtomicUsize,
}

/// Somebody who makes an application permanent: nobody else changes it meanwhile.
pub(crate) struct Promoting(Arc<App>);

impl Promoting {
    pub(crate) fn begin(app: &Arc<App>) -> Self {
        app.promoting.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(app))
    }
}

impl Drop for Promoting {
    fn drop(&mut self) {
        self.0.promoting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Somebody who is at an application for as long as it takes: reads its log, or brings bytes. It does not expire meanwhile, and its time
/// begins anew when they leave.
pub(crate) struct Visitor {
    hub: Arc<Hub>,
    pub(crate) app: Arc<App>,
}

impl Visitor {
    pub(crate) fn begin(hub: &Arc<Hub>, app: &Arc<App>) -> Self {
        app.present.fetch_add(1, Ordering::AcqRel);
        Self { hub: Arc::clone(hub), app: Arc::clone(app) }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.app.touch();
        self.app.present.fetch_sub(1, Ordering::AcqRel);
        self.hub.expiry.notify_one();
    }
}

/// The one that makes provider agree with an application's record.
pub(crate) struct Settling<'a>(&'a AtomicBool);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What is known of it, behind short locks.
pub(crate) struct AppState {
    pub(crate) record: Record,
    pub(crate) upload: Option<Session>,
    /// When its last chunk came.
    pub(crate) received: Instant,
    /// Its resumable uploads, those that became the package included until they are forgotten.
    pub(crate) transfers: BTreeMap<String, Arc<Transfer>>,
    /// How it stood when the release was asked for that is the current one; in memory, since what procmgr says of earlier ones is
    /// old news within moments.
    pub(crate) before: Before,
    /// When somebody last cared.
    pub(crate) active: Instant,
    /// Its end has been announced since.
    pub(crate) warned: bool,
    /// It is removed because nobody did.
    pub(crate) expired: bool,
}

impl App {
    pub(crate) fn new(
        record: Record,
        upload: Option<Session>,
        transfers: impl IntoIterator<Item = Arc<Transfer>>,
    ) -> Arc<Self> {
        let transfers = transfers.into_iter().map(|transfer| (transfer.id.clone(), transfer)).collect();
        let now = Instant::now();
        Arc::new(Self {
            id: record.id.clone(),
            state: Mutex::new(AppState {
                record,
                upload,
                received: now,
                transfers,
                before: Before::default(),
                active: now,
                warned: false,
                expired: false,
            }),
            work: tokio::sync::Mutex::new(()),
            gone: CancellationToken::new(),
            unsettled: Notify::new(),
            settling: AtomicBool::new(false),
            present: AtomicUsize::new(0),
            promoting: AtomicUsize::default(),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, AppState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> Record {
        self.state().record.clone()
    }

    /// Makes the caller the one that settles; if there is one already, that one is hurried.
    pub(crate) fn begin_to_settle(&self) -> Option<Settling<'_>> {
        if self.settling.swap(true, Ordering::Acquire) {
            self.unsettled.notify_one();
            return None;
        }
        Some(Settling(&self.settling))
    }

    /// Restarts the expiry.
    pub(crate) fn touch(&self) {
        let mut state = self.state();
        (state.active, state.warned) = (Instant::now(), false);
    }

    /// Whether it is permanent, or is about to be.
    pub(crate) fn is_promoted(&self) -> bool {
        self.promoting.load(Ordering::Acquire) > 0 || self.is_permanent()
    }

    /// Whether it is noted that the admin app has it, or is about to.
    pub(crate) fn is_permanent(&self) -> bool {
        self.state().record.promotion.is_some()
    }

    /// Whether it may still be changed by who holds `work`, whatever it was when they began to wait for that.
    pub(crate) fn changeable(&self) -> Result<(), ApiError> {
        self.present()?;
        if self.is_permanent() { Err(ApiError::Permanent) } else { Ok(()) }
    }

    /// Has the upload that clients are told of be the package that an install means, unless chunks are on their way.
    pub(crate) fn tell_package(&self) {
        let mut state = self.state();
        if state.upload.as_ref().is_none_or(Session::has_ended) {
            state.upload = state.record.package.clone().map(Session::complete);
        }
    }

    /// Whether somebody is at it now.
    pub(crate) fn is_visited(&self) -> bool {
        self.present.load(Ordering::Acquire) > 0
    }

    /// Which package it has, for people: the digest of the file that was uploaded last.
    pub(crate) fn package(&self) -> String {
        let record = self.record();
        let file = record.package.or(record.release.map(|release| release.file));
        file.map_or_else(String::new, |file| format!("package {}", file.digest()))
    }

    pub(crate) fn present(&self) -> Result<(), ApiError> {
        if self.gone.is_cancelled() { Err(ApiError::NoApplication) } else { Ok(()) }
    }
}

/// The daemon's state and everything it needs.
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) zone: Zone,
    pub(crate) front_ends: FrontEnds,
    pub(crate) folders: Folders,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) house: Arc<dyn House>,
    pub(crate) live: watch::Receiver<Live>,
    pub(crate) histories: Histories,
    pub(crate) audit: Audit,
    pub(crate) disk: Gauge,
    pub(crate) shutdown: Shutdown,
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) log_streams: Places,
    pub(crate) status_streams: Places,
    /// A record did.
    pub(crate) changed: watch::Sender<()>,
    /// Something may expire earlier than thought.
    pub(crate) expiry: Notify,
    /// The same of an upload.
    pub(crate) sweep: Notify,
    /// One resumable upload begins at a time, or one package to be unpacked: their number and their share of the disk are counted.
    pub(crate) opening: tokio::sync::Mutex<()>,
    /// What the packages have that are being unpacked.
    pub(crate) unpacking: Mutex<Held>,
    apps: Mutex<HashMap<String, Arc<App>>>,
    /// One create at a time: two of the same appId must not both stay.
    creating: tokio::sync::Mutex<()>,
}

/// What a hub is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) zone: Zone,
    pub(crate) front_ends: FrontEnds,
    pub(crate) folders: Folders,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) house: Arc<dyn House>,
    pub(crate) live: watch::Receiver<Live>,
    pub(crate) histories: Histories,
    pub(crate) audit: Audit,
    pub(crate) disk: Gauge,
    pub(crate) shutdown: Shutdown,
}

impl Hub {
    pub(crate) fn new(parts: Parts, apps: Vec<Arc<App>>) -> Arc<Self> {
        Arc::new(Self {
            uploads: Arc::new(Semaphore::new(parts.config.max_uploads)),
            log_streams: Places::new("logs", parts.config.max_log_streams),
            status_streams: Places::new("statuses", parts.config.max_status_streams),
            changed: watch::Sender::new(()),
            expiry: Notify::new(),
            sweep: Notify::new(),
            opening: tokio::sync::Mutex::new(()),
            unpacking: Mutex::default(),
            apps: Mutex::new(apps.into_iter().map(|app| (app.id.clone(), app)).collect()),
            creating: tokio::sync::Mutex::new(()),
            config: parts.config,
            zone: parts.zone,
            front_ends: parts.front_ends,
            folders: parts.folders,
            peers: parts.peers,
            house: parts.house,
            live: parts.live,
            histories: parts.histories,
            audit: parts.audit,
            disk: parts.disk,
            shutdown: parts.shutdown,
        })
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<String, Arc<App>>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<App>> {
        let mut apps: Vec<_> = self.apps().values().cloned().collect();
        apps.sort_by_cached_key(|app| (app.state().record.created_unix_ms, app.id.clone()));
        apps
    }

    /// By the server's id, or else by the client's: the one that is not permanent, if there are two.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<App>, ApiError> {
        if let Some(app) = self.apps().get(id) {
            return Ok(Arc::clone(app));
        }
        let apps = self.list().into_iter();
        let named = apps.filter(|app| app.state().record.description.app_id.as_str() == id);
        named.min_by_key(|app| app.is_promoted()).ok_or(ApiError::NoApplication)
    }

    /// Changes a record on disk, then in memory. The caller holds `work`.
    pub(crate) async fn change(
        &self,
        app: &App,
        change: impl FnOnce(&mut Record),
    ) -> Result<Record, StorageError> {
        let mut record = app.record();
        change(&mut record);
        record.updated_unix_ms = crate::record::now_ms();
        self.save(&record).await?;
        let mut state = app.state();
        for release in state.record.healthy() {
            record.came_up(&release.name); // seen meanwhile
        }
        state.record = record.clone();
        drop(state);
        self.changed.send_replace(());
        Ok(record)
    }

    async fn save(&self, record: &Record) -> Result<(), StorageError> {
        let (path, record) = (self.folders.record(&record.id), record.clone());
        blocking(move || record.keep(&path)).await
    }

    /// A new application; one of the same appId is removed first, unless it is permanent.
    pub(crate) async fn create(self: &Arc<Self>, asked: Asked) -> Result<Arc<App>, ApiError> {
        if !asked.complete() {
            return Err(ApiError::Fields);
        }
        let given = self.given().await;
        let _creating = self.creating.lock().await;
        let apps = self.list();
        let goes =
            |app: &&Arc<App>| !app.is_promoted() && asked.is_of(&app.state().record.description.app_id);
        let others = apps.iter().filter(|app| !goes(app)).map(|app| app.record().description);
        let taken: Vec<String> = others.map(|other| other.host_name.to_string()).collect();
        let is_taken =
            |host: &str| taken.iter().any(|name| name == host) || claims::holder(&given, host).is_some();
        let asked = asked.with_host(is_taken);
        let judged = asked.judge(&self.zone, &self.config.reserved_hosts, &self.front_ends);
        let description = judged.map_err(ApiError::Name)?;
        let same = |app: &&Arc<App>| {
            !app.is_promoted() && app.state().record.description.app_id == description.app_id
        };
        let taken = apps.iter().filter(|app| !same(app)).find_map(|app| {
            let other = app.record().description;
            (other.host_name == description.host_name).then_some(other.app_id)
        });
        if let Some(by) = taken {
            return Err(ApiError::HostTaken { host: description.host_name.to_string(), by: by.to_string() });
        }
        let host = description.host_name.to_string();
        if let Some(by) = claims::holder(&given, &host) {
            return Err(ApiError::HostGiven { host, by: by.id.clone() });
        }
        let older = apps.iter().find(same);
        let temporary = apps.iter().filter(|app| !app.is_promoted()).count();
        if older.is_none() && temporary >= self.config.max_applications {
            return Err(ApiError::TooMany(self.config.max_applications));
        }
        if let Some(older) = older {
            self.make_way(older).await?;
        }
        let record = Record::new(uuid::Uuid::new_v4().to_string(), description);
        self.save(&record).await?;
        tracing::info!(instance = record.id, app_id = %record.description.app_id, host = %record.description.host_name, "application created");
        let app = App::new(record, None, None);
        self.apps().insert(app.id.clone(), Arc::clone(&app));
        self.changed.send_replace(());
        self.expiry.notify_one();
        Ok(app)
    }

    /// What others have, as far as that can be known in time; provider says the rest at the install.
    async fn given(&self) -> ListInstancesResponse {
        let asked = tokio::time::timeout(PATIENCE, self.house.wanted()).await;
        asked.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Removes an application, or waits until whoever was quicker has told provider so.
    pub(crate) async fn make_way(self: &Arc<Self>, older: &Arc<App>) -> Result<(), ApiError> {
        match self.delete(older).await {
            Err(ApiError::NoApplication) => {
                drop(older.work.lock().await);
                Ok(())
            }
            deleted => deleted,
        }
    }

    /// Removes an application. It answers to nobody from the first line on; its app is stopped before this returns if
    /// provider is there, and whatever remains is done in the background or by the next start.
    pub(crate) async fn delete(self: &Arc<Self>, app: &Arc<App>) -> Result<(), ApiError> {
        if app.is_promoted() {
            return Err(ApiError::Permanent);
        }
        if self.apps().remove(&app.id).is_none() {
            return Err(ApiError::NoApplication);
        }
        app.gone.cancel();
        let working = app.work.lock().await;
        if let Err(error) = self.change(app, |record| record.wanted = Wanted::Gone).await {
            tracing::warn!(
                instance = app.id,
                error = nexushub_chassis::chain(&error),
                "could not note the removal; removing all the same"
            );
            app.state().record.wanted = Wanted::Gone;
        }
        let removed = self.peers.remove(app.id.clone()).await;
        drop(working);
        tracing::info!(instance = app.id, stopped = removed.is_ok(), "application deleted");
        tokio::spawn(Arc::clone(self).bury(Arc::clone(app), removed.is_ok()));
        Ok(())
    }

    /// Sees a deleted application off: provider must have forgotten it, its process should have ended, then its files go.
    pub(crate) async fn bury(self: Arc<Self>, app: Arc<App>, mut removed: bool) {
        let mut retry = Retry::default();
        while !removed {
            match self.peers.remove(app.id.clone()).await {
                Ok(()) => removed = true,
                Err(status) if crate::peers::is_refusal(&status) => {
                    tracing::warn!(
                        instance = app.id,
                        error = status.message(),
                        "provider refused to remove a deleted application; its files stay"
                    );
                    return;
                }
                Err(_) if self.shutdown.is_draining() => return,
                Err(_) => tokio::time::sleep(retry.wait()).await,
            }
        }
        self.ended(&app.id, Duration::from_millis(self.config.stop_wait_ms)).await;
        let _working = app.work.lock().await;
        let (folders, id) = (self.folders.clone(), app.id.clone());
        let cleared = blocking(move || {
            remove_all(&folders.upload(&id))?;
            remove_app(&folders.app(&id))?;
            let record = folders.record(&id);
            durable::remove(&record).map_err(StorageError::of("remove", &record))
        });
        if let Err(error) = cleared.await {
            tracing::warn!(
                instance = app.id,
                error = nexushub_chassis::chain(&error),
                "could not remove all files; the next start tries again"
            );
        }
    }

    /// Waits until procmgr says that the app's process has ended, within reason.
    pub(crate) async fn ended(&self, id: &str, patience: Duration) -> bool {
        let mut live = self.live.clone();
        let ended = live.wait_for(|live| live.is_gone(id));
        tokio::time::timeout(patience, ended).await.is_ok_and(|ended| ended.is_ok())
    }

    /// What procmgr says of it, but for what came of an earlier try to replace what runs: the same release may have been asked for
    /// again since.
    pub(crate) fn news(&self, app: &App) -> Option<InstanceStatus> {
        let mut news = self.live.borrow().get(&app.id).cloned()?;
        let state = app.state();
        news.next.take_if(|next| state.before.has(next));
        Some(news)
    }

    /// Something else is asked for: what comes of what is tried already says nothing of it.
    pub(crate) fn begin_anew(&self, app: &App) {
        let before = Before::of(self.live.borrow().get(&app.id));
        app.state().before = before;
    }

    /// How it stands now.
    pub(crate) fn standing(&self, app: &App) -> Standing {
        let record = app.record();
        let release = record.release.as_ref().map(|release| self.folders.release(&app.id, &release.name));
        let release = release.map(|path| path.display().to_string()).unwrap_or_default();
        let live = self.news(app);
        let live = live.as_ref();
        // Which package a permanent one runs is the admin app's to say.
        let release =
            live.filter(|_| record.promotion.is_some()).map_or(release, |live| live.release.clone());
        status::judge(&record, live, &release, self.config.failed_after)
    }
}
