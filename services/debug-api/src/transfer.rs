//! One resumable upload: a file that is appended to, and what is known of it. The file's own length is how far the upload has
//! come, so a process that is killed at any byte leaves nothing to guess.
//!
//! ```text
//! <id>.json   what is known: length, digest, stage; written whole or not at all, before the first byte and at each stage
//! <id>.data   the bytes, in order, until they are the application's package
//!
//! open ──last byte──▶ digests right ──▶ placing ──(data becomes the package)──▶ placed
//!                           │ wrong: both are removed
//! ```
//! Invariants: one at a time holds the sheet, and whoever comes later ends who came before; bytes that a checksum was announced
//! for don't count before it was found right, not even after a crash (`unproven_from`).

mod beside;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::body::Bytes;
use nexushub_chassis::launch::durable;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    digests::{Check, Checksum, Running, Sha256Hex},
    disk::Held,
    error::StorageError,
    upload,
};
use beside::Beside;

/// Bytes read at once where digests were not taken along.
const BUFFER: usize = 256 << 10;

/// When an upload is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ends {
    /// As soon as it has its length (tus).
    AtLength,
    /// When a request that says that it is the last has been taken down (the draft).
    WhenSaid,
}

/// How far it is on its way to be a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Open,
    /// All of it is there and right; its place is next.
    Placing(upload::File),
    /// It is the package, or was.
    Placed,
}

/// What is known of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// All bytes, once the client has said so.
    pub(crate) length: Option<u64>,
    /// What they shall be.
    pub(crate) sha256: Option<Sha256Hex>,
    /// The client's words about it, told again as they are.
    pub(crate) metadata: Option<String>,
    pub(crate) ends: Ends,
    /// Bytes from here on wait for their checksum.
    pub(crate) unproven_from: Option<u64>,
    pub(crate) stage: Stage,
}

impl About {
    /// Of one that begins.
    pub(crate) fn new(ends: Ends, length: Option<u64>, sha256: Option<Sha256Hex>) -> Self {
        Self { length, sha256, metadata: None, ends, unproven_from: None, stage: Stage::Open }
    }
}

/// One resumable upload.
pub(crate) struct Transfer {
    pub(crate) id: String,
    /// What its client said of it when it began.
    pub(crate) metadata: Option<String>,
    sheet: Arc<tokio::sync::Mutex<Sheet>>,
    /// Whose turn it is; cancelled when it is the next one's.
    turn: Mutex<CancellationToken>,
    seen: Mutex<Seen>,
}

/// What can be known of it without waiting for a turn.
#[derive(Debug, Clone, Copy)]
struct Seen {
    held: Held,
    active: Instant,
    open: bool,
}

/// The right to an upload's file. Dropped, it is the next one's.
pub(crate) type Turn = OwnedMutexGuard<Sheet>;

impl Transfer {
    pub(crate) fn new(id: String, sheet: Sheet) -> Arc<Self> {
        let seen = Seen { held: sheet.held(), active: sheet.touched, open: sheet.is_open() };
        Arc::new(Self {
            id,
            metadata: sheet.about.metadata.clone(),
            sheet: Arc::new(tokio::sync::Mutex::new(sheet)),
            turn: Mutex::default(),
            seen: Mutex::new(seen),
        })
    }

    /// Ends whoever has the turn, or waits for it. The caller's own turn ends when what is returned is cancelled.
    pub(crate) fn claim(&self) -> CancellationToken {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *turn).cancel();
        turn.clone()
    }

    /// The sheet, as soon as the one before has let go of it.
    pub(crate) async fn sheet(&self) -> Turn {
        Arc::clone(&self.sheet).lock_owned().await
    }

    /// The sheet, if nobody has it.
    pub(crate) fn idle(&self) -> Option<Turn> {
        Arc::clone(&self.sheet).try_lock_owned().ok()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody cared: its life begins anew.
    pub(crate) fn touch(&self) {
        self.seen().active = Instant::now();
    }

    /// Notes how far it is, for those who don't wait for a turn.
    pub(crate) fn note(&self, sheet: &Sheet) {
        *self.seen() = Seen { held: sheet.held(), active: Instant::now(), open: sheet.is_open() };
    }

    /// Notes that it is about to have so many bytes, of which nobody said how many there will be.
    pub(crate) fn reach(&self, bytes: u64) {
        self.seen().held = Held { written: bytes, promised: bytes };
    }

    /// When it is removed, if nobody cares until then.
    pub(crate) fn due(&self, life: Duration) -> Instant {
        self.seen().active + life
    }

    pub(crate) fn held(&self) -> Held {
        self.seen().held
    }

    /// Whether it still takes bytes.
    pub(crate) fn is_open(&self) -> bool {
        self.seen().open
    }
}

/// An upload's two files and what is known of them.
#[derive(Debug)]
pub(crate) struct Sheet {
    about_path: PathBuf,
    data_path: PathBuf,
    data: Option<Arc<File>>,
    pub(crate) about: About,
    length: u64,
    running: Running,
    removed: bool,
    touched: Instant,
}

/// What is written next.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    /// That was all of the request.
    End,
}

/// Why bytes were not kept.
#[derive(Debug)]
pub(crate) enum Unkept {
    Checksum,
    Storage(StorageError),
}

impl From<StorageError> for Unkept {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

fn paths(folder: &Path, id: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{id}.json")), folder.join(format!("{id}.data")))
}

/// The id that a file's name in an application's folder tells of.
pub(crate) fn id_of(name: &str) -> Option<&str> {
    name.strip_suffix(".json").filter(|id| !id.starts_with('.'))
}

/// Forgets one whose bytes have become a package.
pub(crate) fn forget(folder: &Path, id: &str) -> Result<(), StorageError> {
    let (about, _) = paths(folder, id);
    durable::remove(&about).map_err(StorageError::of("remove", &about))
}

/// Everything here is file work: it blocks.
impl Sheet {
    /// A new one.
    pub(crate) fn create(folder: &Path, id: &str, about: About) -> Result<Self, StorageError> {
        let (about_path, data_path) = paths(folder, id);
        let data = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&data_path);
        let data = Some(Arc::new(data.map_err(StorageError::of("create", &data_path))?));
        let (running, touched) = (Running::default(), Instant::now());
        let sheet = Self { about_path, data_path, data, about, length: 0, running, removed: false, touched };
        sheet.keep_about()?;
        Ok(sheet)
    }

    /// As the last process left it; none if it can't be gone on with.
    pub(crate) fn read(folder: &Path, id: &str) -> Result<Option<Self>, StorageError> {
        let (about_path, data_path) = paths(folder, id);
        let text = fs::read(&about_path).map_err(StorageError::of("read", &about_path))?;
        let Ok(about) = serde_json::from_slice::<About>(&text) else { return Ok(None) };
        let data = OpenOptions::new().read(true).write(true).open(&data_path).ok().map(Arc::new);
        let metadata = data.as_ref().and_then(|data| data.metadata().ok());
        let (length, modified) = match (&metadata, &about.stage) {
            (Some(metadata), _) => (metadata.len(), metadata.modified().ok()),
            (None, Stage::Open) => return Ok(None),
            (None, _) => {
                let written = fs::metadata(&about_path).and_then(|metadata| metadata.modified());
                (about.length.unwrap_or(0), written.ok())
            }
        };
        let quiet = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        let touched = Instant::now().checked_sub(quiet.unwrap_or_default()).unwrap_or_else(Instant::now);
        let (running, removed) = (Running::default(), false);
        let mut sheet = Self { about_path, data_path, data, about, length, running, removed, touched };
        if let Some(from) = sheet.about.unproven_from.take() {
            sheet.cut(from)?;
            sheet.keep_about()?;
        }
        Ok(Some(sheet))
    }

    /// How many bytes it has.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.removed && self.about.stage == Stage::Open
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed
    }

    /// Whether nothing is missing but its place.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_open() && self.about.ends == Ends::AtLength && self.about.length == Some(self.length)
    }

    fn held(&self) -> Held {
        if !self.is_open() {
            return Held::default();
        }
        Held { written: self.length, promised: self.about.length.unwrap_or(0).max(self.length) }
    }

    /// Makes what is known durable.
    pub(crate) fn keep_about(&self) -> Result<(), StorageError> {
        let text = serde_json::to_vec(&self.about).expect("numbers and text are JSON");
        durable::write(&self.about_path, &text, 0o600).map_err(StorageError::of("write", &self.about_path))
    }

    /// Takes down the bytes of one request. What came is kept even if there is more that didn't; but where a checksum was
    /// announced, all of them count or none.
    pub(crate) fn take_down(
        &mut self,
        mut pieces: mpsc::Receiver<Piece>,
        checksum: Option<Checksum>,
    ) -> Result<(), Unkept> {
        let Some(checksum) = checksum else {
            let written = self.gather(&mut pieces, None);
            return Ok(self.sync().and(written.map(drop))?);
        };
        let (from, before) = (self.length, self.running.clone());
        self.about.unproven_from = Some(from);
        self.keep_about()?;
        let mut check = checksum.check();
        let written = match self.gather(&mut pieces, Some(&mut check)) {
            Ok(true) if check.holds() => Ok(()),
            Ok(_) => Err(Unkept::Checksum),
            Err(error) => Err(Unkept::Storage(error)),
        };
        if written.is_err() {
            self.cut(from)?;
            self.running = before;
        }
        self.sync()?;
        self.about.unproven_from = None;
        self.keep_about()?;
        written
    }

    /// Writes what comes of one request, and what is to be done beside that; whether its end came.
    fn gather(
        &mut self,
        pieces: &mut mpsc::Receiver<Piece>,
        mut check: Option<&mut Check>,
    ) -> Result<bool, StorageError> {
        let data = Arc::clone(self.data()?);
        let mut beside = Beside::start(std::mem::take(&mut self.running), self.length, data);
        let came = loop {
            let bytes = match pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => bytes,
                last => break Ok(last.is_some()),
            };
            if let Some(check) = &mut check {
                check.update(&bytes);
            }
            match self.write(&bytes) {
                Ok(()) => beside.wrote(bytes),
                Err(error) => break Err(error),
            }
        };
        let (running, synced) = beside.finish();
        self.running = running;
        let synced = synced.map_err(StorageError::of("sync", &self.data_path));
        came.and_then(|ended| synced.map(|()| ended))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let (length, path) = (self.length, self.data_path.clone());
        let unwritten = StorageError::of("write", &path);
        let data = self.data()?;
        if let Err(error) = data.write_all_at(bytes, length) {
            let _ = data.set_len(length); // half a piece is none
            return Err(unwritten(error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn cut(&mut self, length: u64) -> Result<(), StorageError> {
        if length < self.length {
            let failed = StorageError::of("cut", &self.data_path);
            self.data()?.set_len(length).map_err(failed)?;
            self.length = length;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.data()?.sync_data().map_err(StorageError::of("sync", &self.data_path))
    }

    fn data(&self) -> Result<&Arc<File>, StorageError> {
        let gone = || StorageError::of("open", &self.data_path)(io::ErrorKind::NotFound.into());
        self.data.as_ref().ok_or_else(gone)
    }

    /// The SHA-256 of all bytes. What was not seen as it came, because another process took it, is read now.
    pub(crate) fn digest(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Option<Sha256Hex>, StorageError> {
        let mut running = std::mem::take(&mut self.running);
        if running.bytes() < self.length {
            let path = self.data_path.clone();
            let unread = |error| StorageError::of("read", &path)(error);
            let (data, mut buffer) = (self.data()?, vec![0; BUFFER]);
            loop {
                if cancelled() {
                    return Ok(None);
                }
                let read = data.read_at(&mut buffer, running.bytes()).map_err(unread)?;
                if read == 0 {
                    break;
                }
                running.update(&buffer[..read]);
            }
        }
        self.running = running.clone();
        Ok(Some(running.finish()))
    }

    /// Its bytes become the package, of which the caller knows that they are right.
    pub(crate) fn place(&mut self, file: upload::File, package: &Path) -> Result<(), StorageError> {
        self.about.length = Some(self.length);
        self.about.stage = Stage::Placing(file);
        let placed = self.keep_about().and_then(|()| self.take_place(package));
        if placed.is_err() && self.data.is_some() {
            self.about.stage = Stage::Open;
        }
        placed
    }

    /// The last step of it, which may be done again by the next process.
    pub(crate) fn take_place(&mut self, package: &Path) -> Result<(), StorageError> {
        if let Some(data) = &self.data {
            data.sync_all().map_err(StorageError::of("sync", &self.data_path))?;
            fs::rename(&self.data_path, package).map_err(StorageError::of("write", package))?;
            self.data = None;
            for folder in [package.parent(), self.data_path.parent()].into_iter().flatten() {
                durable::sync_dir(folder).map_err(StorageError::of("sync", folder))?;
            }
        }
        Ok(())
    }

    /// The record knows of the package.
    pub(crate) fn placed(&mut self) -> Result<(), StorageError> {
        self.about.stage = Stage::Placed;
        self.keep_about()
    }

    /// Forgets it: first that there is one, then its bytes.
    pub(crate) fn remove(&mut self) -> Result<(), StorageError> {
        (self.removed, self.data) = (true, None);
        for path in [&self.about_path, &self.data_path] {
            durable::remove(path).map_err(StorageError::of("remove", path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
