//! The platform's audit log: who did what, to what, from where, and what came of it.
//!
//! ```text
//! $STATE/audit/<daemon>.log      JSON lines, the newest last; append only
//!              <daemon>.log.1    what was there before it, and so on; the oldest go
//! ```
//! Each line bears a digest of itself (`sum`) and that of the line before it (`prev`), over the ends of files too. So a line that
//! was changed shows by itself, and one that was taken out, put in or moved by its neighbours. Lines cut off at the end show
//! only to who has kept a later digest: `nexushub audit verify` prints the last one. `entry.rs` says what a line is, `writer.rs`
//! appends, `reader.rs` tells and verifies; `asked.rs` makes entries of calls.
//!
//! Invariant: noting never waits. What can't be written is counted, and the count is written when something can be. Only who hands
//! over what somebody else has kept so far waits until it is written (`keep`), and hands it over again where it was not.

mod asked;
mod entry;
mod reader;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::SystemTime,
};

use nexushub_launch::clock::rfc3339;

pub use asked::Asker;
pub use entry::Entry;
pub use reader::{Break, Chain, tail, verify};
use writer::{BOUNDS, Writer};

/// Entries that wait to be written.
const QUEUE: usize = 1024;
/// Entries that are written, and made durable, at once.
const AT_ONCE: usize = 256;

/// What came of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    #[default]
    Done,
    /// Whoever asked may not.
    Refused,
    /// It could not be done.
    Failed,
}

/// Something that was done, or asked for.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// A user, `operator`, a daemon's name, or an app's id.
    pub who: String,
    /// What, as `application.install`.
    pub what: &'static str,
    /// To what: an id or a name.
    pub object: String,
    /// Where whoever asked is: an address, or which way it came.
    pub from: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What else there is to say, for people; why, where it was not done.
    pub detail: String,
}

/// One daemon's audit log. Clones write to the same; when the last one is dropped, all is written.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    daemon: &'static str,
    /// Who writes, once there was something to write.
    running: Mutex<Option<Running>>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Running {
    to: SyncSender<Noted>,
    thread: JoinHandle<()>,
}

/// What waits to be written.
#[derive(Debug)]
struct Noted {
    entries: Vec<Entry>,
    /// Who waits to hear whether it was; nobody does who could not note it once more.
    heard: Option<SyncSender<bool>>,
}

/// The folder of all audit logs of a platform with this state.
#[must_use]
pub fn folder(state: &Path) -> PathBuf {
    state.join("audit")
}

impl Audit {
    /// That of a daemon. Nothing is opened, and no thread started, before something is noted.
    #[must_use]
    pub fn of(state: &Path, daemon: &'static str) -> Self {
        let (running, lost) = (Mutex::default(), Arc::default());
        Self(Some(Arc::new(Inner { folder: folder(state), daemon, running, lost })))
    }

    /// Notes what was done, with the time that it is now. One that was made by `default` notes nothing.
    pub fn note(&self, event: Event) {
        let Some(inner) = &self.0 else { return };
        let noted = Noted { entries: vec![inner.entry(event)], heard: None };
        let taken = inner.writer().is_some_and(|to| to.try_send(noted).is_ok());
        if !taken {
            inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes what somebody else has kept so far, all of it or nothing: whether it is on the disk. Blocking.
    #[must_use]
    pub fn keep(&self, events: Vec<Event>) -> bool {
        let Some(inner) = &self.0 else { return true };
        let entries = events.into_iter().map(|event| inner.entry(event)).collect();
        let (heard, hear) = sync_channel(1);
        let noted = Noted { entries, heard: Some(heard) };
        let taken = inner.writer().is_some_and(|to| to.send(noted).is_ok());
        taken && hear.recv().unwrap_or(false)
    }
}

impl Inner {
    fn entry(&self, event: Event) -> Entry {
        Entry::new(rfc3339(SystemTime::now()), self.daemon, event)
    }

    /// The way to who writes, who is started for the first word.
    fn writer(&self) -> Option<SyncSender<Noted>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            *running = self.start();
        }
        running.as_ref().map(|running| running.to.clone())
    }

    fn start(&self) -> Option<Running> {
        let (to, from) = sync_channel(QUEUE);
        let writer = Writer::new(self.folder.clone(), self.daemon, BOUNDS);
        let lost = Arc::clone(&self.lost);
        let thread = thread::Builder::new().name("audit".into()).spawn(move || write(writer, &from, &lost));
        match thread {
            Ok(thread) => Some(Running { to, thread }),
            Err(error) => {
                tracing::error!(%error, "nobody could be started to write the audit log");
                None
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { to, thread }) = running {
            drop(to); // it ends when it has written all
            let _ = thread.join();
        }
    }
}

/// Writes what comes, until nothing more can.
fn write(mut writer: Writer, from: &Receiver<Noted>, lost: &AtomicU64) {
    while let Ok(first) = from.recv() {
        let (mut batch, mut waiting, mut unheard) = (Vec::new(), Vec::new(), lost.swap(0, Ordering::Relaxed));
        if unheard > 0 {
            let detail = format!("{unheard} entries before this one could not be written");
            batch.push(writer.own("audit.lost", detail));
        }
        for Noted { entries, heard } in [first].into_iter().chain(from.try_iter().take(AT_ONCE - 1)) {
            unheard += if heard.is_none() { entries.len() as u64 } else { 0 };
            batch.extend(entries);
            waiting.extend(heard);
        }
        let entries = batch.len();
        let written = writer.append(batch);
        if let Err(error) = &written {
            lost.fetch_add(unheard, Ordering::Relaxed);
            tracing::error!(%error, entries, "the audit log could not be written");
        }
        for heard in waiting {
            let _ = heard.send(written.is_ok()); // it may have given up waiting
        }
    }
}

#[cfg(test)]
mod tests;
