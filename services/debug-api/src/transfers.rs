//! The one engine below both protocols of resumable uploads: they begin, go on, end and expire here, within the bounds of
//! `config.rs`; `tus.rs` and `draft.rs` only say how a client asks and is answered.
//!
//! ```text
//! request ──▶ claim (ends who is at it) ──▶ place among `max_uploads` ──▶ sheet ──▶ judged ──▶ body ═▶ thread ═▶ disk
//!                                                                                          whole ──▶ digests ──▶ package
//! ```
//! The contract's chunks are beside it, not on it: they come in any order and of any size, so until the last is there they have
//! no offset that could be told. They share what comes after: digests, the package's place, the record, the disk's share.
//!
//! Locks are taken in this order: an upload's sheet, the application's `work`, `opening`.

use std::{io, path::Path, sync::Arc, time::Duration};

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use nexushub_chassis::chain;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    applications::{App, Hub, Visitor},
    digests::{Checksum, Sha256Hex},
    disk::{self, Held},
    error::{ApiError, StorageError},
    folders::{blocking, private, unhurried},
    receive, room,
    transfer::{self, About, Piece, Sheet, Transfer, Turn, Unkept},
    upload::{File, Session},
};

/// Pieces on their way to the disk; with what one read of the connection brings at most, a bound on memory.
const PIECES: usize = 16;
/// Where nobody said how much there will be, the disk's share is judged again each time so much has come.
const ROOM_EVERY: u64 = 8 << 20;
/// When nothing is there to be swept; what begins wakes the watch earlier.
const IDLE: Duration = Duration::from_secs(86_400);

/// What a request wants to add.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Where it begins.
    pub(crate) offset: u64,
    /// How many bytes it has, if that is known.
    pub(crate) bytes: Option<u64>,
    /// How many the whole upload has, if the client says so now.
    pub(crate) length: Option<u64>,
    /// It is the last, where the client is the one to say so.
    pub(crate) last: bool,
    /// What the whole upload shall be, if the client says so now.
    pub(crate) sha256: Option<Sha256Hex>,
    pub(crate) checksum: Option<Checksum>,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) offset: u64,
    /// It is the application's package now.
    pub(crate) placed: bool,
}

/// How an upload stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) offset: u64,
    pub(crate) about: About,
}

/// Refuses what would take more of the disk than uploads may have.
pub(crate) async fn room(hub: &Hub, more: u64) -> Result<(), ApiError> {
    let (free, percent) = (free(hub).await?, hub.config.max_upload_disk_percent);
    if disk::admits(free, held(hub), more, percent) { Ok(()) } else { Err(ApiError::NoRoom(percent)) }
}

async fn free(hub: &Hub) -> Result<u64, StorageError> {
    let (folder, gauge) = (hub.folders.uploads(), Arc::clone(&hub.disk));
    blocking(move || gauge(&folder).map_err(StorageError::of("measure", &folder))).await
}

/// What all uploads under way have, and packages that are being unpacked. Chunks are copied when they are assembled, so they need
/// their bytes twice.
pub(crate) fn held(hub: &Hub) -> Held {
    let of = |app: &Arc<App>| {
        let state = app.state();
        let chunks = state.upload.as_ref().map_or(0, Session::bytes);
        let chunks = Held { written: chunks, promised: chunks.saturating_mul(2) };
        state.transfers.values().map(|transfer| transfer.held()).fold(chunks, Held::and)
    };
    hub.list().iter().map(of).fold(room::unpacking(hub), Held::and)
}

/// Begins an upload.
pub(crate) async fn open(hub: &Arc<Hub>, app: &Arc<App>, about: About) -> Result<Arc<Transfer>, ApiError> {
    let most = hub.config.max_package_bytes;
    if about.length.is_some_and(|length| length > most) {
        return Err(ApiError::TooLarge(most));
    }
    app.touch();
    let (hub, app) = (Arc::clone(hub), Arc::clone(app));
    unhurried(async move {
        let _working = app.work.lock().await;
        app.changeable()?;
        let _opening = hub.opening.lock().await;
        count(&hub, &app)?;
        room(&hub, about.length.unwrap_or(1)).await?;
        let (folder, id) = (hub.folders.transfers(&app.id), uuid::Uuid::new_v4().to_string());
        let name = id.clone();
        let sheet = blocking(move || {
            private(&folder).map_err(StorageError::of("create", &folder))?;
            Sheet::create(&folder, &name, about)
        });
        let transfer = Transfer::new(id.clone(), sheet.await?);
        app.state().transfers.insert(id, Arc::clone(&transfer));
        hub.sweep.notify_one();
        Ok(transfer)
    })
    .await
}

/// Refuses one more than there may be.
fn count(hub: &Hub, app: &App) -> Result<(), ApiError> {
    let of = |app: &App| app.state().transfers.values().filter(|transfer| transfer.is_open()).count();
    let bounds = [
        (of(app), " of this application", hub.config.max_transfers_per_application),
        (hub.list().iter().map(|app| of(app)).sum(), "", hub.config.max_transfers),
    ];
    match bounds.into_iter().find(|(there, _, limit)| there >= limit) {
        Some((_, of, limit)) => Err(ApiError::TooManyTransfers { of, limit }),
        None => Ok(()),
    }
}

/// An upload by its id.
pub(crate) fn find(app: &App, id: &str) -> Result<Arc<Transfer>, ApiError> {
    app.state().transfers.get(id).cloned().ok_or(ApiError::NoTransfer)
}

/// How it stands, once nobody is at it any more.
pub(crate) async fn standing(
    hub: &Arc<Hub>,
    app: &Arc<App>,
    transfer: &Arc<Transfer>,
) -> Result<Standing, ApiError> {
    let mut sheet = turn(transfer).await?;
    transfer.touch();
    app.touch();
    if sheet.is_whole() {
        let (hub, app, transfer) = (Arc::clone(hub), Arc::clone(app), Arc::clone(transfer));
        let (left, finished) = unhurried(async move { finish(&hub, &app, &transfer, sheet).await }).await;
        finished?;
        sheet = left;
    }
    Ok(Standing { offset: sheet.length(), about: sheet.about.clone() })
}

/// The sheet, for whoever needs it and ends who has it.
async fn turn(transfer: &Transfer) -> Result<Turn, ApiError> {
    transfer.claim();
    let sheet = transfer.sheet().await;
    if sheet.is_removed() { Err(ApiError::NoTransfer) } else { Ok(sheet) }
}

/// File work on a sheet.
async fn on<T: Send + 'static>(
    mut sheet: Turn,
    work: impl FnOnce(&mut Sheet) -> T + Send + 'static,
) -> (Turn, T) {
    blocking(move || {
        let done = work(&mut sheet);
        (sheet, done)
    })
    .await
}

/// Removes an upload and all that came of it; a package that it became stays.
pub(crate) async fn end(hub: &Hub, app: &App, transfer: &Transfer) -> Result<(), ApiError> {
    let sheet = turn(transfer).await?;
    app.touch();
    hub.sweep.notify_one();
    remove(app, transfer, sheet).await
}

async fn remove(app: &App, transfer: &Transfer, sheet: Turn) -> Result<(), ApiError> {
    app.state().transfers.remove(&transfer.id);
    Ok(on(sheet, Sheet::remove).await.1?)
}

/// Goes on with an upload. What has begun comes to its end though the client has gone.
pub(crate) async fn append(
    hub: &Arc<Hub>,
    app: &Arc<App>,
    transfer: &Arc<Transfer>,
    part: Part,
    body: Body,
) -> Result<Came, ApiError> {
    let (hub, app, transfer) = (Arc::clone(hub), Arc::clone(app), Arc::clone(transfer));
    unhurried(async move {
        let claim = transfer.claim();
        let place = tokio::select! {
            place = Arc::clone(&hub.uploads).acquire_owned() => place,
            () = claim.cancelled() => return Err(ApiError::TakenOver),
            () = app.gone.cancelled() => return Err(ApiError::NoApplication),
        };
        let _place = place.expect("the semaphore is never closed");
        let _visitor = Visitor::begin(&hub, &app);
        let sheet = transfer.sheet().await;
        app.changeable()?;
        let sheet = admit(&hub, &transfer, sheet, &part).await?;
        let inflow = Inflow { hub: &hub, app: &app, transfer: &transfer, claim };
        let (sheet, came) = inflow.take_down(sheet, part.checksum, body).await;
        transfer.note(&sheet);
        hub.sweep.notify_one();
        if let Err(ApiError::Longer(length)) = came {
            remove(&app, &transfer, sheet).await?; // it is not what it was said to be, and never will
            return Err(ApiError::Longer(length));
        }
        came?;
        let (offset, length) = (sheet.length(), sheet.about.length);
        if let Some(length) = length.filter(|length| part.last && *length != offset) {
            return Err(ApiError::Shorter { has: offset, length });
        }
        let placed = part.last || sheet.is_whole();
        if placed {
            finish(&hub, &app, &transfer, sheet).await.1?;
        }
        Ok(Came { offset, placed })
    })
    .await
}

/// Refuses what can't follow what is there; what the part says of the whole is noted.
async fn admit(hub: &Hub, transfer: &Transfer, sheet: Turn, part: &Part) -> Result<Turn, ApiError> {
    let length = judge(&sheet, part, hub.config.max_package_bytes)?;
    let sha256 = part.sha256.clone().or_else(|| sheet.about.sha256.clone());
    if sheet.about.length == length && sheet.about.sha256 == sha256 {
        return Ok(sheet);
    }
    let _opening = hub.opening.lock().await;
    if sheet.about.length != length {
        room(hub, length.unwrap_or(0).saturating_sub(sheet.length())).await?;
    }
    let (sheet, kept) = on(sheet, move |sheet| {
        (sheet.about.length, sheet.about.sha256) = (length, sha256);
        sheet.keep_about()
    })
    .await;
    kept?;
    transfer.note(&sheet);
    Ok(sheet)
}

/// Whether a part follows what is there, and how many bytes the whole has if it does. Pure.
fn judge(sheet: &Sheet, part: &Part, most: u64) -> Result<Option<u64>, ApiError> {
    let there = sheet.length();
    if sheet.is_removed() {
        return Err(ApiError::NoTransfer);
    }
    if !sheet.is_open() {
        return Err(ApiError::Whole);
    }
    if part.offset != there {
        return Err(ApiError::Offset { ours: there, said: part.offset });
    }
    let differ = |(known, said): (&Sha256Hex, &Sha256Hex)| known != said;
    if sheet.about.sha256.as_ref().zip(part.sha256.as_ref()).is_some_and(differ) {
        return Err(ApiError::Field("Repr-Digest: another was announced"));
    }
    let after = part.bytes.map(|bytes| there.saturating_add(bytes));
    let mut length = sheet.about.length;
    for said in [part.length, after.filter(|_| part.last)].into_iter().flatten() {
        match length {
            Some(known) if known != said => return Err(ApiError::Length { known, said }),
            None if said < there => return Err(ApiError::Length { known: there, said }),
            _ => length = Some(said),
        }
    }
    match (length, after) {
        (Some(length), Some(after)) if after > length => Err(ApiError::Longer(length)),
        (Some(bytes), _) | (None, Some(bytes)) if bytes > most => Err(ApiError::TooLarge(most)),
        _ => Ok(length),
    }
}

/// What a request's body is read for.
struct Inflow<'a> {
    hub: &'a Hub,
    app: &'a App,
    transfer: &'a Transfer,
    claim: CancellationToken,
}

impl Inflow<'_> {
    /// Reads the body here and writes it in a thread of its own, at most `PIECES` behind.
    async fn take_down(
        &self,
        sheet: Turn,
        checksum: Option<Checksum>,
        body: Body,
    ) -> (Turn, Result<(), ApiError>) {
        let (there, length) = (sheet.length(), sheet.about.length);
        let (sender, pieces) = mpsc::channel(PIECES);
        let writing = on(sheet, move |sheet| sheet.take_down(pieces, checksum));
        let reading = async move {
            let came = self.read(body.into_data_stream(), &sender, (there, length)).await;
            if came.is_ok() {
                let _ = sender.send(Piece::End).await; // a thread that has ended says why
            }
            came
        };
        let ((sheet, kept), came) = tokio::join!(writing, reading);
        let kept = kept.map_err(|unkept| match unkept {
            Unkept::Checksum => ApiError::Checksum,
            Unkept::Storage(error) if error.cause.kind() == io::ErrorKind::StorageFull => {
                ApiError::NoRoom(self.hub.config.max_upload_disk_percent)
            }
            Unkept::Storage(error) => error.into(),
        });
        (sheet, came.and(kept)) // what broke off has no right checksum either
    }

    async fn read(
        &self,
        mut body: BodyDataStream,
        pieces: &mpsc::Sender<Piece>,
        (mut at, length): (u64, Option<u64>),
    ) -> Result<(), ApiError> {
        let config = &self.hub.config;
        let idle = Duration::from_millis(config.upload_idle_ms);
        let mut judged = at;
        loop {
            let next = tokio::select! {
                biased;
                () = self.claim.cancelled() => return Err(ApiError::TakenOver),
                () = self.app.gone.cancelled() => return Err(ApiError::NoApplication),
                next = timeout(idle, body.next()) => next,
            };
            let next = next.map_err(|_| ApiError::Stalled(config.upload_idle_ms))?;
            let Some(bytes) = next else { return Ok(()) };
            let bytes = bytes.map_err(|_| ApiError::BrokeOff)?;
            at = at.saturating_add(bytes.len() as u64);
            match length {
                Some(length) if at > length => return Err(ApiError::Longer(length)),
                None if at > config.max_package_bytes => {
                    return Err(ApiError::TooLarge(config.max_package_bytes));
                }
                None if at - judged >= ROOM_EVERY => {
                    self.transfer.reach(at);
                    room(self.hub, 0).await?;
                    judged = at;
                }
                _ => {}
            }
            if pieces.send(Piece::Bytes(bytes)).await.is_err() {
                return Ok(()); // the thread has ended, and says why
            }
        }
    }
}

/// All bytes are there: if they are those that were announced, they are the package now.
pub(crate) async fn finish(
    hub: &Hub,
    app: &App,
    transfer: &Transfer,
    sheet: Turn,
) -> (Turn, Result<(), ApiError>) {
    let _working = app.work.lock().await;
    if let Err(gone) = app.present() {
        return (sheet, Err(gone));
    }
    let (package, gone) = (hub.folders.package(&app.id), app.gone.clone());
    let (sheet, placed) = on(sheet, move |sheet| place(sheet, &package, &gone)).await;
    let (sheet, done) = match placed {
        Ok(file) => adopt(hub, app, transfer, (sheet, file)).await,
        Err(refused) => (sheet, Err(refused)),
    };
    transfer.note(&sheet);
    if sheet.is_removed() {
        app.state().transfers.remove(&transfer.id);
    }
    if let Err(refused) = done {
        let (file, error) = *refused;
        receive::fail(hub, app, file, &error).await;
        return (sheet, Err(error));
    }
    (sheet, Ok(()))
}

/// Finishes those whose last byte came just before the last process ended.
pub(crate) async fn finish_all(hub: &Hub, app: &App) {
    let transfers: Vec<_> = app.state().transfers.values().cloned().collect();
    for transfer in transfers {
        let sheet = transfer.sheet().await;
        if sheet.is_whole()
            && let Err(error) = finish(hub, app, &transfer, sheet).await.1
        {
            tracing::warn!(instance = app.id, error = chain(&error), "could not finish an upload");
        }
    }
}

/// What a file that isn't the package is, and why it is not.
type Refused = Box<(File, ApiError)>;

fn refused(file: &File, error: impl Into<ApiError>) -> Refused {
    Box::new((file.clone(), error.into()))
}

fn place(sheet: &mut Sheet, package: &Path, gone: &CancellationToken) -> Result<File, Refused> {
    let unread = File { hash: None, sha256: sheet.about.sha256.clone(), total: 1 };
    let digest = sheet.digest(&|| gone.is_cancelled()).map_err(|error| refused(&unread, error))?;
    let sha256 = digest.ok_or_else(|| refused(&unread, ApiError::NoApplication))?;
    let expected = sheet.about.sha256.clone().filter(|expected| *expected != sha256);
    let file = File { hash: None, sha256: Some(sha256.clone()), total: 1 };
    if let Some(expected) = expected {
        sheet.remove().map_err(|error| refused(&file, error))?;
        let (found, expected) = (sha256.to_string(), expected.to_string());
        return Err(refused(&file, ApiError::Digest { found, expected }));
    }
    sheet.place(file.clone(), package).map_err(|error| refused(&file, error))?;
    Ok(file)
}

/// The record learns of the package, and of what was there before nothing stays.
async fn adopt(
    hub: &Hub,
    app: &App,
    transfer: &Transfer,
    (sheet, file): (Turn, File),
) -> (Turn, Result<(), Refused>) {
    let package = file.clone();
    if let Err(error) = hub.change(app, |record| record.package = Some(package)).await {
        return (sheet, Err(refused(&file, error)));
    }
    let (sheet, kept) = on(sheet, Sheet::placed).await;
    if let Err(error) = kept {
        return (sheet, Err(refused(&file, error)));
    }
    receive::clear_chunks(hub, app).await;
    tracing::info!(instance = app.id, sha256 = file.digest(), bytes = sheet.length(), "package uploaded");
    app.state().upload = Some(Session::complete(file));
    forget_ended(hub, app, Some(&transfer.id)).await;
    (sheet, Ok(()))
}

/// Forgets the uploads that became packages, which are the package no more, but for this one.
pub(crate) async fn forget_ended(hub: &Hub, app: &App, but: Option<&str>) {
    let mut ended = Vec::new();
    app.state().transfers.retain(|id, transfer| {
        let stays = but == Some(id) || transfer.is_open();
        ended.extend((!stays).then(|| id.clone()));
        stays
    });
    let folder = hub.folders.transfers(&app.id);
    let forgotten = move || ended.iter().try_for_each(|id| transfer::forget(&folder, id));
    if let Err(error) = blocking(forgotten).await {
        tracing::warn!(instance = app.id, error = chain(&error), "could not forget an earlier upload");
    }
}

/// How long an upload lives if nobody goes on with it: no longer than its application, which every request keeps alive, too.
pub(crate) fn life(hub: &Hub, app: &App) -> Duration {
    let own = hub.config.upload_life();
    let kept = app.state().record.description.keep;
    hub.config.expiry().filter(|_| !kept).map_or(own, |expiry| own.min(expiry))
}

/// Removes uploads that nobody went on with for too long, until the drain.
pub(crate) async fn sweep(hub: Arc<Hub>) {
    let life = hub.config.upload_life();
    while !hub.shutdown.is_draining() {
        let now = Instant::now();
        let mut next = now + IDLE;
        for app in hub.list() {
            let transfers: Vec<_> = app.state().transfers.values().cloned().collect();
            for transfer in transfers {
                match transfer.due(life) {
                    due if due > now => next = next.min(due),
                    _ => expire(&app, &transfer, now, life).await,
                }
            }
            next = receive::sweep(&hub, &app, now).await.unwrap_or(next).min(next);
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = hub.sweep.notified() => {}
            () = hub.shutdown.draining() => {}
        }
    }
}

/// Somebody who is at it right now notes that when it ends, and wakes the watch.
async fn expire(app: &App, transfer: &Transfer, now: Instant, life: Duration) {
    let Some(sheet) = transfer.idle() else { return };
    if transfer.due(life) > now {
        return;
    }
    tracing::info!(instance = app.id, upload = transfer.id, "upload expired");
    if let Err(error) = remove(app, transfer, sheet).await {
        tracing::warn!(instance = app.id, error = chain(&error), "could not remove an expired upload");
    }
}
