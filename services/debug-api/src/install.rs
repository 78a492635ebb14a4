//! From an uploaded package to a desired instance, and the way back. The steps and their durable marks are drawn in
//! `record.rs`; every one of them may be the last before a crash, and may be done again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nexushub_chassis::{launch::durable, retry::Retry};
use nexushub_proto::{
    procmgr::InstanceStatus,
    provider::{Driver, Instance, Origin},
};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    applications::{App, Hub},
    digests::Sha256Hex,
    error::{ApiError, StorageError},
    folders::{blocking, private, remove_all},
    peers::is_refusal,
    record::{Record, Release, Wanted, millis, now_ms},
    room::Aside,
    unpack::{self, UnpackError, Unpacked},
    upload,
};

/// Between two tries to make provider agree, at most.
const SETTLE_EVERY: Duration = Duration::from_secs(30);

/// How long a stop waits for the app's end: clients expect an answer at once, and ask for the status from then on.
const STOP_ANSWER: Duration = Duration::from_millis(500);

/// Digits of its package's digest in a release's name.
const DIGITS: usize = 32;

/// What an install came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) unix_ms: i64,
    /// Why nothing was started, if nothing was.
    pub(crate) not_started: Option<String>,
}

/// What there is to do.
enum Plan {
    /// The release is in place; provider only has to know.
    Confirm(Release),
    /// It is one of those that are kept.
    TakeUp(Release),
    Unpack(upload::File),
}

/// Installs the uploaded package; no other than the expected one, if the caller says which that is. To be done to its end: the
/// caller sees to that.
pub(crate) async fn install(
    hub: &Arc<Hub>,
    app: &Arc<App>,
    expected: Option<Sha256Hex>,
) -> Result<Installed, ApiError> {
    app.touch();
    let _working = app.work.lock().await;
    app.changeable()?;
    let installed = match plan(hub, app, expected).await? {
        Plan::Confirm(release) => confirm(hub, app, release).await,
        Plan::TakeUp(release) => {
            let release = Release { installed_unix_ms: now_ms(), ..release };
            let unix_ms = release.installed_unix_ms;
            take_up(hub, app, release).await.map(|()| Installed { unix_ms, not_started: None })
        }
        Plan::Unpack(file) => replace(hub, app, file).await,
    };
    app.touch();
    installed
}

async fn plan(hub: &Hub, app: &App, expected: Option<Sha256Hex>) -> Result<Plan, ApiError> {
    let (record, whole) = {
        let state = app.state();
        (state.record.clone(), state.upload.as_ref().is_none_or(upload::Session::is_complete))
    };
    let file = record.package.filter(|_| whole).ok_or(ApiError::NoPackage)?;
    if let Some(expected) = expected.filter(|expected| file.sha256.as_ref() != Some(expected)) {
        let (found, expected) = (file.digest(), expected.to_string());
        return Err(ApiError::OtherPackage { found, expected });
    }
    let (folders, id) = (hub.folders.clone(), app.id.clone());
    blocking(move || {
        let there = |release: &Release| {
            release.file.same_bytes(&file) && folders.release(&id, &release.name).join(unpack::APP).is_file()
        };
        if let Some(release) = record.release.filter(there) {
            return Ok(Plan::Confirm(release));
        }
        match record.earlier.into_iter().find(there) {
            Some(release) => Ok(Plan::TakeUp(release)),
            None if folders.package(&id).is_file() => Ok(Plan::Unpack(file)),
            None => Err(ApiError::NoPackageFile),
        }
    })
    .await
}

/// The very release is installed already: cheap, and heals a provider that has forgotten it.
pub(crate) async fn confirm(hub: &Arc<Hub>, app: &Arc<App>, release: Release) -> Result<Installed, ApiError> {
    let record = app.record();
    let troubled = record.refused.is_some() || record.failed.is_some();
    let agreed = record.settled && record.wanted == Wanted::Run && !troubled;
    if !agreed {
        hub.change(app, Record::resume).await?;
    }
    let patience = Duration::from_millis(if agreed { 0 } else { hub.config.provider_wait_ms });
    match put(hub, app, patience).await {
        Ok(()) if agreed => {}
        Ok(()) => drop(hub.change(app, Record::settle).await?),
        Err(status) if agreed => {
            tracing::warn!(
                instance = app.id,
                error = status.message(),
                "could not confirm an installed application with provider"
            );
        }
        Err(status) => return Err(refused(hub, app, &status).await),
    }
    clear_package(hub, app).await;
    Ok(Installed { unix_ms: release.installed_unix_ms, not_started: None })
}

async fn replace(hub: &Arc<Hub>, app: &Arc<App>, file: upload::File) -> Result<Installed, ApiError> {
    let began = Instant::now();
    let digest: String = file.digest().chars().take(DIGITS).collect();
    let name = format!("{digest}-{}", app.record().next);
    let next = name.clone();
    hub.change(app, |record| {
        record.next += 1;
        record.installing = Some(next);
    })
    .await?;
    let unpacked = match unpack_release(hub, app, &name).await {
        Ok(unpacked) => unpacked,
        Err(error) => {
            hub.change(app, |record| record.installing = None).await?;
            return Err(error);
        }
    };
    let unix_ms = now_ms();
    if !unpacked.has_app {
        let why = format!("{} is missing in the package; nothing was started", unpack::APP);
        let refused = why.clone();
        hub.change(app, |record| (record.installing, record.refused) = (None, Some(refused))).await?;
        return Ok(Installed { unix_ms, not_started: Some(why) });
    }
    let manifest = unpacked.manifest;
    take_up(hub, app, Release { name, file, installed_unix_ms: unix_ms, manifest, healthy: false }).await?;
    tracing::info!(instance = app.id, elapsed_ms = millis(began.elapsed()), "application installed");
    Ok(Installed { unix_ms, not_started: None })
}

/// A release that is in its place becomes the current one. The caller holds `work`.
async fn take_up(hub: &Arc<Hub>, app: &Arc<App>, release: Release) -> Result<(), ApiError> {
    let keep = hub.config.keep_releases;
    hub.change(app, |record| record.adopt(release, keep)).await?;
    bring(hub, app).await
}

/// Has provider run what the record says since it changed, or takes the change back. The caller holds `work`.
pub(crate) async fn bring(hub: &Arc<Hub>, app: &Arc<App>) -> Result<(), ApiError> {
    hub.begin_anew(app);
    if let Err(status) = put(hub, app, Duration::from_millis(hub.config.provider_wait_ms)).await {
        return Err(refused(hub, app, &status).await);
    }
    hub.change(app, Record::settle).await?;
    clear_package(hub, app).await;
    prune(hub, app).await;
    Ok(())
}

/// Unpacks into `tmp`, and by one rename it is a release; without a `bin/app` it is thrown away.
async fn unpack_release(hub: &Arc<Hub>, app: &App, name: &str) -> Result<Unpacked, ApiError> {
    let (folders, id, gone) = (hub.folders.clone(), app.id.clone(), app.gone.clone());
    let (rules, mut room, name) = (hub.config.rules(), Aside::new(hub), name.to_owned());
    blocking(move || {
        let (scratch, release) = (folders.scratch(), folders.release(&id, &name));
        let archive = folders.package(&id);
        let unpacked = unpack::unpack(&archive, &scratch, &rules, &mut room, &|| gone.is_cancelled());
        drop(room); // before the bytes are gone, so that they never count as free and as written, too
        let placed = match unpacked {
            Ok(unpacked) if unpacked.has_app => {
                place(&scratch, &release, &folders.data(&id)).map(|()| unpacked).map_err(ApiError::Storage)
            }
            Ok(unpacked) => Ok(unpacked),
            Err(UnpackError::Cancelled) => Err(ApiError::NoApplication),
            Err(UnpackError::Disk(error)) => Err(ApiError::Storage(error)),
            Err(error) => Err(ApiError::Preparation(error)),
        };
        if !placed.as_ref().is_ok_and(|unpacked| unpacked.has_app) {
            remove_all(&scratch)?;
        }
        placed
    })
    .await
}

fn place(scratch: &Path, release: &Path, data: &Path) -> Result<(), StorageError> {
    let releases = release.parent().unwrap_or(release);
    for folder in [releases, data] {
        private(folder).map_err(StorageError::of("create", folder))?;
    }
    fs::rename(scratch, release).map_err(StorageError::of("create", release))?;
    for folder in [releases, releases.parent().unwrap_or(releases)] {
        durable::sync_dir(folder).map_err(StorageError::of("sync", folder))?;
    }
    Ok(())
}

/// Tells provider what should run, and goes on while provider is merely away.
async fn put(hub: &Hub, app: &App, patience: Duration) -> Result<(), Status> {
    let deadline = Instant::now() + patience;
    let mut retry = Retry::default();
    let instance = instance(hub, &app.record());
    loop {
        let status = match hub.peers.put(instance.clone()).await {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        if is_refusal(&status)
            || Instant::now() >= deadline
            || app.gone.is_cancelled()
            || hub.shutdown.is_draining()
        {
            return Err(status);
        }
        tokio::time::sleep(retry.wait()).await;
    }
}

fn instance(hub: &Hub, record: &Record) -> Instance {
    let folders = &hub.folders;
    let release = record.release.as_ref().map(|release| folders.release(&record.id, &release.name));
    let description = &record.description;
    let promoted = record.promotion.as_ref().is_some_and(|promotion| promotion.done);
    // An address that was accepted once may be none that is forwarded to now.
    let front_end = description.static_service_url.as_deref().and_then(|url| hub.front_ends.port(url).ok());
    let mut instance = Instance {
        id: record.id.clone(),
        app_id: description.app_id.to_string(),
        display_name: description.display_name.clone(),
        host_name: description.host_name.to_string(),
        release: release.map(|path| path.display().to_string()).unwrap_or_default(),
        data: folders.data(&record.id).display().to_string(),
        driver: hub.config.driver().unwrap_or(Driver::Unspecified).into(),
        egress: hub.config.egress().unwrap_or_default().into(),
        origin: if promoted { Origin::Dynamic } else { Origin::Debug }.into(),
        static_service_url: description.static_service_url.clone().unwrap_or_default(),
        debug_port: front_end.map_or(0, u32::from),
        ..Instance::default()
    };
    if let Some(release) = &record.release {
        release.manifest.apply(&mut instance, hub.config.grants());
    }
    instance
}

/// Provider said no: back to what was. Provider said nothing: it may have heard, so it is asked again in the background.
async fn refused(hub: &Arc<Hub>, app: &Arc<App>, status: &Status) -> ApiError {
    tracing::warn!(instance = app.id, code = ?status.code(), error = status.message(), "provider did not take the application");
    if is_refusal(status) {
        if let Err(error) = roll_back(hub, app, status).await {
            return error.into();
        }
        if !app.state().record.settled {
            tokio::spawn(settle(Arc::clone(hub), Arc::clone(app)));
        }
        return ApiError::refused(status);
    }
    tokio::spawn(settle(Arc::clone(hub), Arc::clone(app)));
    ApiError::Installation(format!("provider does not answer ({}); try again shortly", status.message()))
}

async fn roll_back(hub: &Hub, app: &App, status: &Status) -> Result<(), StorageError> {
    let (mut thrown, why) = (None, status.message().to_owned());
    hub.change(app, |record| thrown = record.roll_back(why)).await?;
    app.tell_package();
    let Some(thrown) = thrown else { return Ok(()) };
    let path = hub.folders.release(&app.id, &thrown.name);
    blocking(move || remove_all(&path)).await
}

/// Makes provider agree with the record, however long provider is away. Ends when it agrees, at the drain, or when the
/// application is deleted. One at a time for an application: a second call hurries the first and returns.
pub(crate) async fn settle(hub: Arc<Hub>, app: Arc<App>) {
    let Some(settling) = app.begin_to_settle() else { return };
    let mut retry = Retry::default();
    while !app.gone.is_cancelled() && !hub.shutdown.is_draining() {
        let wait = {
            let _working = app.work.lock().await;
            match settle_once(&hub, &app).await {
                Ok(()) => {
                    tidy(&hub, &app).await;
                    drop(settling); // under `work`, so that whoever unsettles the record next finds nobody at it
                    return;
                }
                Err(Some(status)) if is_refusal(&status) => SETTLE_EVERY,
                Err(_) => retry.wait(),
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = app.unsettled.notified() => retry.reset(),
            () = app.gone.cancelled() => {}
            () = hub.shutdown.draining() => {}
        }
    }
}

/// What an install does once provider has agreed, for one that was no longer waited for. The archive stays if it is a newer
/// one than what runs. The caller holds `work`.
async fn tidy(hub: &Hub, app: &App) {
    let record = app.record();
    if record.wanted != Wanted::Run {
        return;
    }
    if record.package.is_some()
        && record.package == record.release.as_ref().map(|release| release.file.clone())
    {
        clear_package(hub, app).await;
    }
    prune(hub, app).await;
}

/// One try; the caller holds `work`. An error without a status is one of the disk, logged already.
pub(crate) async fn settle_once(hub: &Hub, app: &App) -> Result<(), Option<Status>> {
    let record = app.record();
    let told = match record.wanted {
        Wanted::Nothing | Wanted::Gone => Ok(()),
        Wanted::Stopped => hub.peers.remove(app.id.clone()).await,
        Wanted::Run => put(hub, app, Duration::ZERO).await,
    };
    let noted = match &told {
        Ok(()) if record.settled && record.undo.is_none() => Ok(()),
        Ok(()) => hub.change(app, Record::settle).await.map(drop),
        Err(status) if is_refusal(status) => {
            tracing::warn!(instance = app.id, error = status.message(), "provider refused the application");
            roll_back(hub, app, status).await
        }
        Err(_) => Ok(()),
    };
    if let Err(error) = noted {
        tracing::warn!(
            instance = app.id,
            error = nexushub_chassis::chain(&error),
            "could not note what provider said"
        );
        return Err(None);
    }
    told.map_err(Some)
}

/// Stops the app and says whether its process has ended already. To be done to its end, as an install.
pub(crate) async fn stop(hub: &Arc<Hub>, app: &Arc<App>) -> Result<bool, ApiError> {
    app.touch();
    {
        let _working = app.work.lock().await;
        app.changeable()?;
        hub.change(app, Record::stop).await?;
        if settle_once(hub, app).await.is_err() {
            tokio::spawn(settle(Arc::clone(hub), Arc::clone(app)));
            return Ok(false);
        }
    }
    Ok(hub.ended(&app.id, STOP_ANSWER).await)
}

/// The archive has served: the release is what counts now.
async fn clear_package(hub: &Hub, app: &App) {
    let package = hub.folders.package(&app.id);
    let removed =
        blocking(move || durable::remove(&package).map_err(StorageError::of("remove", &package))).await;
    if let Err(error) = removed {
        tracing::warn!(
            instance = app.id,
            error = nexushub_chassis::chain(&error),
            "could not remove an installed package"
        );
    }
}

/// The releases of whatever of an instance lives.
pub(crate) fn in_use(live: &InstanceStatus) -> Vec<PathBuf> {
    let next = live.next.iter().map(|next| &next.release);
    let draining = live.draining.iter().map(|one| &one.release);
    next.chain(draining).chain([&live.release]).map(PathBuf::from).collect()
}

/// Removes releases that nothing needs any more; never one that procmgr says is in use.
pub(crate) async fn prune(hub: &Hub, app: &App) {
    let record = app.record();
    let in_use = hub.live.borrow().get(&app.id).map(in_use).unwrap_or_default();
    let releases = hub.folders.releases(&app.id);
    let pruned = blocking(move || {
        let unread = |error| StorageError::of("read", &releases)(error);
        let kept = record.kept();
        if !releases.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(&releases).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let used = in_use.iter().any(|used| *used == entry.path());
            if !used && !kept.iter().any(|name| entry.file_name() == **name) {
                remove_all(&entry.path())?;
            }
        }
        Ok::<_, StorageError>(())
    });
    if let Err(error) = pruned.await {
        tracing::warn!(
            instance = app.id,
            error = nexushub_chassis::chain(&error),
            "could not remove old releases"
        );
    }
}
