//! A chunk on its way from the request to its place: the form's parts stream to a file in `tmp`, in whatever order they
//! come, and nothing is judged before the form is whole. The last chunk assembles the package.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{FromRequest, Multipart, Request, multipart::Field},
};
use futures_util::Stream;
use http::header;
use md5::{Digest, Md5};
use nexushub_chassis::launch::durable;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    applications::{App, Hub, Visitor},
    config::Config,
    digests::{Running, Sha256Hex},
    error::{ApiError, ChunkError, StorageError},
    folders::{Folders, blocking, private, remove_all, unhurried},
    transfers,
    upload::{self, Claim, Md5Hex, Progress, Session, Verdict},
};

const MAX_FIELD: usize = 1024;
const MAX_FIELDS: usize = 32;
/// What a form may have besides its chunk.
const FORM_OVERHEAD: u64 = 64 << 10;
const BUFFER: usize = 256 << 10;

/// What the client is told about its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    One,
    Completed,
}

/// The request's form, its chunk in a file.
#[derive(Default)]
struct Form {
    index: Option<String>,
    total: Option<String>,
    hash: Option<String>,
    sha256: Option<String>,
    chunk: Option<Scratch>,
}

/// A file in `tmp` that is removed unless it found its place.
struct Scratch {
    path: PathBuf,
    bytes: u64,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Receives one chunk.
pub(crate) async fn chunk(hub: Arc<Hub>, app: Arc<App>, request: Request) -> Result<Received, ApiError> {
    let place = Arc::clone(&hub.uploads).acquire_owned().await.expect("the semaphore is never closed");
    let visitor = Visitor::begin(&hub, &app);
    transfers::room(&hub, expected(&hub, &request)).await?;
    let gone = app.gone.clone();
    let form = tokio::select! {
        form = read_form(&hub, request) => form?,
        () = gone.cancelled() => return Err(ApiError::NoApplication),
    };
    let said = [form.index, form.total, form.hash, form.sha256];
    let claim = claimed(&said, hub.config.max_chunks)?;
    let chunk = form.chunk.ok_or(ApiError::NoChunk)?;
    // A client that hangs up now must not leave half of this undone.
    unhurried(async move {
        let (_place, _visitor) = (place, visitor);
        keep(&hub, &app, claim, chunk).await
    })
    .await
}

/// How many bytes it brings, as far as it says so.
fn expected(hub: &Hub, request: &Request) -> u64 {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0).min(hub.config.max_chunk_bytes)
}

/// What a form says of its chunk: index, total, MD5, SHA-256. Whole numbers as the contract's clients write them; anything else is
/// refused by its own text.
pub(crate) fn claimed(said: &[Option<String>; 4], max_chunks: u32) -> Result<Claim, ApiError> {
    let [index, total, hash, sha256] = said;
    let filled =
        |field: &Option<String>| field.clone().filter(|text| !text.is_empty()).ok_or(ApiError::Parameters);
    let (index, total, hash) = (filled(index)?, filled(total)?, filled(hash)?);
    let index: i64 = index.trim().parse().map_err(|_| ApiError::Index)?;
    let total: i64 = total.trim().parse().map_err(|_| ApiError::Total)?;
    let total =
        u32::try_from(total).ok().filter(|total| (1..=max_chunks).contains(total)).ok_or(ApiError::Total)?;
    let index = u32::try_from(index).ok().filter(|index| *index < total).ok_or(ApiError::Index)?;
    let hash = Md5Hex::parse(hash.trim()).ok_or(ApiError::Hash)?;
    let sha256 = sha256.as_deref().filter(|text| !text.is_empty());
    let sha256 = sha256.map(|text| Sha256Hex::parse(text.trim()).ok_or(ApiError::Hash)).transpose()?;
    Ok(Claim { index, file: upload::File { hash: Some(hash), sha256, total } })
}

async fn read_form(hub: &Hub, request: Request) -> Result<Form, ApiError> {
    let config = &hub.config;
    let trouble = Arc::new(std::sync::Mutex::new(None));
    let noted = Arc::clone(&trouble);
    let request = request.map(|body| Body::from_stream(Paced::new(body, config, noted)));
    let read = async {
        let mut parts = Multipart::from_request(request, &()).await.map_err(|_| ApiError::Form)?;
        let mut form = Form::default();
        for _ in 0..MAX_FIELDS {
            let Some(field) = parts.next_field().await.map_err(|_| ApiError::Form)? else { return Ok(form) };
            let slot = match field.name() {
                Some("chunkIndex") => &mut form.index,
                Some("totalChunks") => &mut form.total,
                Some("fileHash") => &mut form.hash,
                Some("fileSha256") => &mut form.sha256,
                Some("chunk") => {
                    form.chunk = Some(to_disk(field, &hub.folders, config.max_chunk_bytes).await?);
                    continue;
                }
                _ => {
                    short(field).await?;
                    continue;
                }
            };
            *slot = Some(short(field).await?);
        }
        Err(ApiError::Form)
    };
    let read: Result<Form, ApiError> = read.await;
    // The body's own trouble explains the form's.
    let trouble = trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    match (read, trouble) {
        (Err(ApiError::Form), Some(trouble)) => Err(trouble),
        (read, _) => read,
    }
}

async fn short(mut field: Field<'_>) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(|_| ApiError::Form)? {
        if text.len() + bytes.len() > MAX_FIELD {
            return Err(ApiError::Form);
        }
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).map_err(|_| ApiError::Form)
}

async fn to_disk(mut field: Field<'_>, folders: &Folders, max: u64) -> Result<Scratch, ApiError> {
    let mut scratch = Scratch { path: folders.scratch(), bytes: 0 };
    let failed = |error| ApiError::Chunk(StorageError::of("write", &folders.tmp())(error).into());
    let opened =
        tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch.path).await;
    let mut file = tokio::io::BufWriter::with_capacity(BUFFER, opened.map_err(failed)?);
    while let Some(bytes) = field.chunk().await.map_err(|_| ApiError::Form)? {
        scratch.bytes += bytes.len() as u64;
        if scratch.bytes > max {
            return Err(ApiError::TooLarge(max));
        }
        file.write_all(&bytes).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(scratch)
}

/// Puts a chunk in its place and assembles the package when it was the last one missing.
async fn keep(hub: &Hub, app: &App, claim: Claim, chunk: Scratch) -> Result<Received, ApiError> {
    let _working = app.work.lock().await;
    app.changeable()?;
    app.state().received = Instant::now();
    hub.sweep.notify_one();
    let verdict = upload::judge(app.state().upload.as_ref(), &claim);
    match verdict {
        Verdict::Superfluous => return Ok(Received::Completed),
        Verdict::Foreign => return Err(ApiError::Chunk(ChunkError::Foreign(claim.index))),
        Verdict::StartOver => {
            let (chunks, file) = (hub.folders.chunks(&app.id), claim.file.clone());
            blocking(move || begin(&chunks, &file)).await.map_err(|error| ApiError::Chunk(error.into()))?;
            app.state().upload = Some(Session::new(claim.file.clone()));
        }
        Verdict::Take => {}
    }
    let progress = match app.state().upload.as_mut() {
        Some(session) => session.receive(claim.index, chunk.bytes, hub.config.max_package_bytes),
        None => return Err(ApiError::NoSession),
    };
    if progress == Progress::TooLarge {
        return Err(ApiError::TooLarge(hub.config.max_package_bytes));
    }
    let place = hub.folders.chunks(&app.id).join(claim.index.to_string());
    let moved =
        blocking(move || fs::rename(&chunk.path, &place).map_err(StorageError::of("write", &place))).await;
    if let Err(error) = moved {
        give_up(hub, app, "a chunk could not be stored".to_owned()).await;
        return Err(ApiError::Chunk(error.into()));
    }
    match progress {
        Progress::Whole => complete(hub, app).await.map(|()| Received::Completed).map_err(ApiError::Chunk),
        Progress::Partial | Progress::TooLarge => Ok(Received::One),
    }
}

/// A new session's folder, with the file it is for, so that a restart can go on with it.
fn begin(chunks: &Path, file: &upload::File) -> Result<(), StorageError> {
    remove_all(chunks)?;
    private(chunks).map_err(StorageError::of("create", chunks))?;
    let text = serde_json::to_vec(file).expect("a digest and a number are JSON");
    durable::write(&chunks.join("session.json"), &text, 0o600).map_err(StorageError::of("write", chunks))
}

/// Assembles a session whose chunks are all there. The caller holds `work`.
pub(crate) async fn complete(hub: &Hub, app: &App) -> Result<(), ChunkError> {
    let Some(file) = app.state().upload.as_ref().map(|session| session.file().clone()) else { return Ok(()) };
    let (folders, id, wanted, gone) = (hub.folders.clone(), app.id.clone(), file.clone(), app.gone.clone());
    let assembled = blocking(move || assemble(&folders, &id, &wanted, &gone)).await;
    let assembled = match assembled {
        Ok(file) => {
            let changed = hub.change(app, |record| record.package = Some(file.clone())).await;
            changed.map(|_| file).map_err(Into::into)
        }
        refused => refused,
    };
    match assembled {
        Ok(file) => {
            tracing::info!(
                instance = app.id,
                sha256 = file.digest(),
                chunks = file.total,
                "package uploaded"
            );
            if let Some(session) = app.state().upload.as_mut() {
                session.finish(file);
            }
            clear_chunks(hub, app).await;
            Ok(())
        }
        Err(error) => {
            give_up(hub, app, error.to_string()).await;
            Err(error)
        }
    }
}

/// Gives up chunks that wait for others for too long; until when the others have time, if they have.
pub(crate) async fn sweep(hub: &Hub, app: &App, now: Instant) -> Option<Instant> {
    let due = || {
        let state = app.state();
        let receiving = state.upload.as_ref().is_some_and(Session::is_receiving);
        receiving.then(|| state.received + hub.config.upload_life())
    };
    if due()? > now {
        return due();
    }
    let _working = app.work.lock().await;
    if due()? <= now {
        give_up(hub, app, format!("no chunk came for {} s", hub.config.upload_life_s)).await;
    }
    None
}

/// What was uploaded otherwise is not the package, and neither is what was there before.
pub(crate) async fn fail(hub: &Hub, app: &App, file: upload::File, why: &ApiError) {
    clear_chunks(hub, app).await;
    let mut session = Session::new(file);
    session.fail(nexushub_chassis::chain(why));
    app.state().upload = Some(session);
}

async fn give_up(hub: &Hub, app: &App, why: String) {
    if let Some(session) = app.state().upload.as_mut() {
        session.fail(why);
    }
    clear_chunks(hub, app).await;
}

pub(crate) async fn clear_chunks(hub: &Hub, app: &App) {
    let chunks = hub.folders.chunks(&app.id);
    if let Err(error) = blocking(move || remove_all(&chunks)).await {
        tracing::warn!(
            instance = app.id,
            error = nexushub_chassis::chain(&error),
            "could not remove the chunks of an upload"
        );
    }
}

fn assemble(
    folders: &Folders,
    id: &str,
    file: &upload::File,
    gone: &CancellationToken,
) -> Result<upload::File, ChunkError> {
    let (chunks, package) = (folders.chunks(id), folders.package(id));
    let whole = Scratch { path: folders.scratch(), bytes: 0 };
    let unwritten = |error| StorageError::of("write", &whole.path)(error);
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole.path).map_err(unwritten)?;
    let (mut md5, mut sha256) = (Md5::new(), Running::default());
    // The slower digest has a thread of its own: it takes as long as all the rest.
    let (summed, copied) = thread::scope(|scope| {
        let sum = || {
            read_chunks(&chunks, file.total, gone, |piece| {
                md5.update(piece);
                Ok(())
            })
        };
        let summing = thread::Builder::new().name("digest".into()).spawn_scoped(scope, sum);
        let copied = read_chunks(&chunks, file.total, gone, |piece| {
            sha256.update(piece);
            out.write_all(piece).map_err(unwritten)
        });
        (summing.map(|summing| summing.join().unwrap_or(Err(ChunkError::Cancelled))), copied)
    });
    summed.map_err(StorageError::of("take the digest of", &chunks))??;
    copied?;
    let hash = Md5Hex::of(&md5.finalize());
    let found = upload::File { hash: Some(hash), sha256: Some(sha256.finish()), total: file.total };
    judge_digests(&found, file)?;
    out.sync_all().map_err(unwritten)?;
    fs::rename(&whole.path, &package).map_err(StorageError::of("write", &package))?;
    durable::sync_dir(&folders.upload(id)).map_err(StorageError::of("sync", &package))?;
    Ok(found)
}

/// Hands out the bytes of all chunks, in order.
fn read_chunks(
    chunks: &Path,
    total: u32,
    gone: &CancellationToken,
    mut take: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), ChunkError> {
    let mut buffer = vec![0; BUFFER];
    for index in 0..total {
        let path = chunks.join(index.to_string());
        let unread = |error| StorageError::of("read", &path)(error);
        let mut chunk = File::open(&path).map_err(unread)?;
        loop {
            if gone.is_cancelled() {
                return Err(ChunkError::Cancelled);
            }
            match chunk.read(&mut buffer).map_err(unread)? {
                0 => break,
                read => take(&buffer[..read])?,
            }
        }
    }
    Ok(())
}

fn judge_digests(found: &upload::File, said: &upload::File) -> Result<(), ChunkError> {
    fn judge<T: ToString + PartialEq>(
        what: &'static str,
        found: Option<&T>,
        said: Option<&T>,
    ) -> Result<(), ChunkError> {
        match found.zip(said).filter(|(found, said)| found != said) {
            None => Ok(()),
            Some((found, said)) => {
                Err(ChunkError::Digest { what, found: found.to_string(), expected: said.to_string() })
            }
        }
    }
    judge("MD5", found.hash.as_ref(), said.hash.as_ref())?;
    judge("SHA-256", found.sha256.as_ref(), said.sha256.as_ref())
}

/// A body that hands out one frame at a time, however fast they come (the form's parser would hoard them in memory), and
/// ends with an error when it is silent for too long or too large (`linger.rs` then reads on, so that the client gets to
/// hear why).
struct Paced {
    body: BodyDataStream,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
    yielded: bool,
    left: u64,
    max: u64,
    trouble: Arc<std::sync::Mutex<Option<ApiError>>>,
}

impl Paced {
    fn new(body: Body, config: &Config, trouble: Arc<std::sync::Mutex<Option<ApiError>>>) -> Self {
        let idle = Duration::from_millis(config.upload_idle_ms);
        Self {
            body: body.into_data_stream(),
            idle,
            silence: Box::pin(tokio::time::sleep(idle)),
            yielded: false,
            left: config.max_chunk_bytes + FORM_OVERHEAD,
            max: config.max_chunk_bytes,
            trouble,
        }
    }

    fn fail(&self, trouble: ApiError) -> Poll<Option<Result<Bytes, io::Error>>> {
        let error = io::Error::other(trouble.to_string());
        *self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(trouble);
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.yielded) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut self.body).poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.yielded = true;
                let deadline = Instant::now() + self.idle;
                self.silence.as_mut().reset(deadline);
                let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
                    return self.fail(ApiError::TooLarge(self.max));
                };
                self.left = left;
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(io::Error::other(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.silence.as_mut().poll(cx).is_ready() => {
                let idle = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
                self.fail(ApiError::Stalled(idle))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
