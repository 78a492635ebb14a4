//! A new package of an application, and the way back to an earlier one. An archive becomes a folder named by its digest, provider
//! is told, and procmgr's word decides: what comes up stays, what doesn't is taken back, and the answer says why.
//!
//! ```text
//! body ▶ tmp/<uuid> ▶ packages/<sha256> ▶ SetRelease ▶ runs ─────────▶ stays; what nobody knows of any more is removed
//!                                                    ▶ doesn't come up ▶ RevertRelease ▶ the one before runs on
//! ```
//! A crash of this daemon between two of them leaves a folder that the next package removes, or a release whose outcome nobody
//! waited for: it is shown as it is, and there is a way back.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, State},
    response::Response,
};
use futures_util::StreamExt;
use http::StatusCode;
use nexushub_chassis::{
    launch::{durable, secret::hex},
    retry::Retry,
};
use nexushub_proto::{
    procmgr::{ReadLogRequest, read_log_response::Event},
    provider::{self, Origin},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, time::Instant};
use tonic::Status;

use super::{
    Facade, Target,
    acting::Acting,
    asking, audit,
    error::Refused,
    json,
    outcome::{self, Before, Outcome},
    releases,
};
use crate::{
    error::StorageError,
    folders::{blocking, private, remove_all, unhurried},
    manifest::Manifest,
    peers::{Call, is_refusal},
    room::Aside,
    unpack::{self, UnpackError},
};

/// How long a release may take to come up, its second try included.
const PATIENCE: Duration = Duration::from_secs(180);
/// Last lines of a release that did not come up.
const LAST_WORDS: usize = 20;
/// Bytes of them.
const LAST_BYTES: usize = 4096;
/// Lines among which they are looked for: the generation before may go on talking.
const LOOKED_AT: u32 = 200;
/// How long the log may take to be read.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// What became of a package.
#[derive(Debug, Default, Serialize)]
struct Reply {
    release: String,
    /// running or failed.
    state: &'static str,
    reason: String,
    log: Vec<String>,
    /// What it asks for and is not given.
    ungranted: String,
}

#[derive(Debug, Default, Deserialize)]
struct Back {
    release: Option<String>,
}

/// A file that is removed unless it found its place.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes a package and says what became of it.
pub(super) async fn push(
    State(facade): State<Arc<Facade>>,
    Target(id): Target,
    acting: Acting,
    request: Request,
) -> Result<Response, Refused> {
    let wanted = facade.wanted(&id).await?.changeable()?;
    let version = request.headers().get("x-package-version").and_then(|version| version.to_str().ok());
    let version = version.map(str::to_owned);
    let turn = facade.under_way.begin(&wanted.app_id)?;
    let place = Arc::clone(&facade.hub.uploads).acquire_owned().await.expect("the semaphore is never closed");
    let (archive, digest) = facade.receive(request.into_body()).await?;
    // A client that hangs up now must not leave half of this undone.
    unhurried(async move {
        let _turn = turn;
        let shelving = facade.shelving.lock().await;
        let (path, manifest) = facade.unpack(archive, &digest).await?;
        let asks = manifest.asks(facade.hub.config.grants());
        let version = version.or(manifest.version).unwrap_or_else(|| digest.chars().take(12).collect());
        let release = provider::Release { path, version, by: acting.who.clone(), asks, ..Default::default() };
        let before = facade.set(&wanted, &release).await?;
        drop((shelving, place));
        facade.await_outcome(&acting, "release.install", &wanted, (release.path, before)).await
    })
    .await
}

/// Goes back to an earlier package, and says what became of that.
pub(super) async fn roll_back(
    State(facade): State<Arc<Facade>>,
    Target(id): Target,
    acting: Acting,
    request: Request,
) -> Result<Response, Refused> {
    let body = Bytes::from_request(request, &()).await.map_err(|error| Refused::Body(error.to_string()))?;
    let back: Back = match &body[..] {
        [] => Back::default(),
        body => serde_json::from_slice(body).map_err(|error| Refused::Body(error.to_string()))?,
    };
    let wanted = facade.wanted(&id).await?.changeable()?;
    let turn = facade.under_way.begin(&wanted.app_id)?;
    unhurried(async move {
        let _turn = turn;
        let shelving = facade.shelving.lock().await;
        let shelves = facade.house.releases(wanted.app_id.clone()).await?;
        let all: Vec<_> = shelves.into_iter().flat_map(|shelf| shelf.releases).collect();
        let chosen = releases::chosen(&all, back.release.as_deref()).ok_or(Refused::NoRelease)?;
        let asks = asking::asks(&facade.hub, &chosen.path).await.map_err(Refused::Unread)?;
        let release = provider::Release { by: acting.who.clone(), asks, ..chosen.clone() };
        let before = facade.set(&wanted, &release).await?;
        drop(shelving);
        facade.await_outcome(&acting, "release.rollback", &wanted, (release.path, before)).await
    })
    .await
}

/// The applications of which a package is on its way: one at a time, so that each outcome is that of its own package.
#[derive(Debug, Default, Clone)]
pub(super) struct UnderWay(Arc<Mutex<BTreeSet<String>>>);

/// One that is on its way.
struct Turn(UnderWay, String);

impl UnderWay {
    fn applications(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, app_id: &str) -> Result<Turn, Refused> {
        match self.applications().insert(app_id.to_owned()) {
            true => Ok(Turn(self.clone(), app_id.to_owned())),
            false => Err(Refused::Busy(app_id.to_owned())),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.applications().remove(&self.1);
    }
}

/// An instance as provider wants it.
pub(super) struct Wanted {
    pub(super) app_id: String,
    id: String,
    origin: Origin,
}

impl Wanted {
    /// Only what the admin app gave runs what is uploaded here.
    fn changeable(self) -> Result<Self, Refused> {
        match self.origin {
            Origin::Dynamic => Ok(self),
            Origin::Static => Err(Refused::Elsewhere("given by the configuration")),
            Origin::Debug | Origin::Unspecified => Err(Refused::Elsewhere("a developer's")),
        }
    }
}

impl Facade {
    /// One instance, desired or waiting for a package.
    pub(super) async fn wanted(&self, id: &str) -> Result<Wanted, Refused> {
        let all = self.house.wanted().await?;
        let found = all.instances.iter().chain(&all.waiting).find(|one| one.id == id);
        if let Some(one) = found {
            return Ok(Wanted { app_id: one.app_id.clone(), id: id.to_owned(), origin: one.origin() });
        }
        let conflict = all.conflicts.into_iter().find(|conflict| conflict.id == id);
        Err(conflict.map_or(Refused::NoInstance, |conflict| Refused::Conflict(conflict.reason)))
    }

    /// The body in a file, and its SHA-256.
    async fn receive(&self, body: Body) -> Result<(Scratch, String), Refused> {
        let config = &self.hub.config;
        let idle = Duration::from_millis(config.upload_idle_ms);
        let scratch = Scratch(self.hub.folders.scratch());
        let failed = |error| StorageError::of("write", &scratch.0)(error);
        let opened =
            tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch.0).await;
        let mut file = opened.map_err(failed)?;
        let (mut sha256, mut bytes, mut body) = (Sha256::new(), 0, body.into_data_stream());
        while let Some(frame) = tokio::time::timeout(idle, body.next()).await.map_err(|_| Refused::Stalled)? {
            let frame = frame.map_err(|error| Refused::Body(error.to_string()))?;
            bytes += frame.len() as u64;
            if bytes > config.max_package_bytes {
                return Err(Refused::TooLarge(config.max_package_bytes));
            }
            sha256.update(&frame);
            file.write_all(&frame).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        Ok((scratch, hex(&sha256.finalize())))
    }

    /// The folder of an archive, and what it says of itself; by one rename it is there, or it was already.
    async fn unpack(&self, archive: Scratch, digest: &str) -> Result<(String, Manifest), Refused> {
        let (rules, mut room) = (self.hub.config.rules(), Aside::new(&self.hub));
        let (folders, shutdown) = (self.hub.folders.clone(), self.hub.shutdown.clone());
        let place = folders.packages().join(digest);
        blocking(move || {
            let manifest = match place.join(unpack::APP).is_file() {
                true => Manifest::of_package(&place, rules.grants).map_err(UnpackError::Manifest)?,
                false => {
                    let scratch = folders.scratch();
                    let stop = || shutdown.is_draining();
                    let unpacked = unpack::unpack(&archive.0, &scratch, &rules, &mut room, &stop);
                    drop(room);
                    let placed = unpacked.map_err(unusable).and_then(|unpacked| {
                        if !unpacked.has_app {
                            return Err(Refused::NoApp);
                        }
                        put(&scratch, &place)?;
                        Ok(unpacked.manifest)
                    });
                    if placed.is_err() {
                        remove_all(&scratch)?;
                    }
                    placed?
                }
            };
            Ok((place.display().to_string(), manifest))
        })
        .await
    }

    /// Makes a package the current one; how the instance stood before that. The caller holds `shelving`.
    async fn set(&self, wanted: &Wanted, release: &provider::Release) -> Result<Before, Refused> {
        let before = Before::of(self.hub.live.borrow().get(&wanted.id));
        let set = || self.house.set_release(wanted.app_id.clone(), release.clone());
        self.patiently(set).await?;
        Ok(before)
    }

    /// Waits for what becomes of a package, and takes it back if it doesn't come up.
    async fn await_outcome(
        &self,
        acting: &Acting,
        what: &'static str,
        wanted: &Wanted,
        (path, before): (String, Before),
    ) -> Result<Response, Refused> {
        let (mut live, mut outcome) = (self.hub.live.clone(), Outcome::Pending);
        let known = live.wait_for(|live| {
            outcome = outcome::judge(live.get(&wanted.id), &path, &before);
            outcome != Outcome::Pending
        });
        tokio::select! {
            _ = tokio::time::timeout(PATIENCE, known) => {}
            () = self.hub.shutdown.draining() => return Err(Refused::Unknown("debug-api is stopping".into())),
        }
        let release = releases::id(&path);
        let reason = match outcome {
            Outcome::Running => {
                self.prune().await;
                audit::outcome(&self.hub.audit, acting, what, &wanted.id, Ok(&release));
                let ungranted = self.ungranted(wanted, &path).await;
                let reply = Reply { release, state: "running", ungranted, ..Reply::default() };
                return Ok(json(StatusCode::OK, &reply));
            }
            Outcome::Pending if !self.hub.live.borrow().is_current() => {
                return Err(Refused::Unknown("procmgr does not answer".into()));
            }
            Outcome::Pending => format!("it did not come up within {} s", PATIENCE.as_secs()),
            Outcome::Failed(reason) => reason,
        };
        let log = self.last_words(&wanted.id, before.newest).await;
        let revert = || self.house.revert_release(wanted.app_id.clone(), path.clone(), reason.clone());
        self.patiently(revert).await?;
        audit::outcome(&self.hub.audit, acting, what, &wanted.id, Err(&reason));
        Ok(json(StatusCode::OK, &Reply { release, state: "failed", reason, log, ..Reply::default() }))
    }

    /// What a package asks for and is not given; nothing where provider can't tell just now: it is told with the releases, too.
    async fn ungranted(&self, wanted: &Wanted, path: &str) -> String {
        let shelves = self.house.releases(wanted.app_id.clone()).await.unwrap_or_default();
        let found = shelves.into_iter().flat_map(|shelf| shelf.releases).find(|one| one.path == path);
        found.map(|release| release.ungranted).unwrap_or_default()
    }

    /// Asks again while provider is merely away.
    async fn patiently<'c, T>(&self, ask: impl Fn() -> Call<'c, T>) -> Result<T, Status> {
        let deadline = Instant::now() + Duration::from_millis(self.hub.config.provider_wait_ms);
        let mut retry = Retry::default();
        loop {
            match ask().await {
                Err(status) if !is_refusal(&status) && Instant::now() < deadline => {
                    tokio::time::sleep(retry.wait()).await;
                }
                answer => return answer,
            }
        }
    }

    /// What the generations after this one said last, as far as it can be had.
    async fn last_words(&self, id: &str, before: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let request = ReadLogRequest { id: id.to_owned(), tail: LOOKED_AT, ..ReadLogRequest::default() };
        let reading = async {
            let Ok(mut log) = self.hub.peers.read_log(request).await else { return };
            while let Some(Ok(message)) = log.next().await {
                match message.event {
                    Some(Event::Entry(entry)) if entry.generation > before => {
                        lines.push(String::from_utf8_lossy(&entry.line).into_owned());
                    }
                    _ => {}
                }
            }
        };
        let _ = tokio::time::timeout(LOG_PATIENCE, reading).await; // what was read so far will do
        newest(lines)
    }

    /// Removes packages that provider no longer knows and nothing runs.
    async fn prune(&self) {
        let _shelving = self.shelving.lock().await;
        let Ok(shelves) = self.house.releases(String::new()).await else { return };
        let known = shelves.into_iter().flat_map(|shelf| shelf.releases).map(|release| release.path);
        let mut kept: BTreeSet<PathBuf> = known.map(PathBuf::from).collect();
        {
            let live = self.hub.live.borrow();
            if !live.is_current() {
                return; // something may run that isn't seen
            }
            kept.extend(live.all().flat_map(crate::install::in_use));
        }
        let packages = self.hub.folders.packages();
        let pruned = blocking(move || remove_all_but(&packages, &kept));
        if let Err(error) = pruned.await {
            tracing::warn!(error = nexushub_chassis::chain(&error), "could not remove old packages");
        }
    }
}

fn unusable(error: UnpackError) -> Refused {
    match error {
        UnpackError::Cancelled => Refused::Unknown("debug-api is stopping".into()),
        UnpackError::Disk(error) => Refused::Storage(error),
        error => Refused::Package(error),
    }
}

fn put(scratch: &Path, place: &Path) -> Result<(), StorageError> {
    let packages = place.parent().unwrap_or(place);
    private(packages).map_err(StorageError::of("create", packages))?;
    remove_all(place)?; // one that has no app is none
    fs::rename(scratch, place).map_err(StorageError::of("create", place))?;
    durable::sync_dir(packages).map_err(StorageError::of("sync", packages))
}

fn remove_all_but(packages: &Path, kept: &BTreeSet<PathBuf>) -> Result<(), StorageError> {
    let unread = |error| StorageError::of("read", packages)(error);
    for entry in fs::read_dir(packages).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        if !kept.contains(&path) {
            remove_all(&path)?;
        }
    }
    Ok(())
}

/// The last of these lines, within bounds.
fn newest(lines: Vec<String>) -> Vec<String> {
    let mut bytes = 0;
    let fits = |line: &String| {
        bytes += line.len();
        bytes <= LAST_BYTES
    };
    let mut last: Vec<String> = lines.into_iter().rev().take(LAST_WORDS).take_while(fits).collect();
    last.reverse();
    last
}
