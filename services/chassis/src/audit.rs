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
//! Invariant: noting never waits. What can't be written is counted, and the count is written when something can be.

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
    to: SyncSender<Entry>,
    thread: JoinHandle<()>,
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
        let entry = Entry::new(rfc3339(SystemTime::now()), inner.daemon, event);
        let mut running = inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            *running = inner.start();
        }
        let taken = running.as_ref().is_some_and(|running| running.to.try_send(entry).is_ok());
        if !taken {
            inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Inner {
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
fn write(mut writer: Writer, from: &Receiver<Entry>, lost: &AtomicU64) {
    while let Ok(first) = from.recv() {
        let mut batch = vec![first];
        batch.extend(from.try_iter().take(AT_ONCE - 1));
        let missed = lost.swap(0, Ordering::Relaxed);
        let entries = batch.len() as u64 + missed;
        if missed > 0 {
            let detail = format!("{missed} entries before this one could not be written");
            batch.insert(0, writer.own("audit.lost", detail));
        }
        if let Err(error) = writer.append(batch) {
            lost.fetch_add(entries, Ordering::Relaxed);
            tracing::error!(%error, entries, "the audit log could not be written");
        }
    }
}

#[cfg(test)]
mod tests;
