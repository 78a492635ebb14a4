//! What state each instance was in, since when and why: the newest of it. It is kept in a file, so a restart of this daemon loses
//! nothing but the last of it before a kill; how it stands since procmgr tells again.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nexushub_chassis::{launch::durable, shutdown::Shutdown};
use nexushub_proto::procmgr::InstanceStatus;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::view;
use crate::{
    folders::blocking,
    live::Live,
    record::{now_ms, rfc3339},
};

/// Most moments of one instance.
const MOMENTS: usize = 50;
/// Longest reason that is kept, in bytes.
const REASON_BYTES: usize = 512;
/// Largest file.
const FILE_BYTES: usize = 64 << 20;
/// How often they are written, at most: they are worth little each, and all of them are written. So much once more for each such
/// part of the file.
const SAVE_EVERY: Duration = Duration::from_secs(5);
const SAVE_PART: usize = 1 << 20;

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    at: String,
    state: Cow<'static, str>,
    reason: String,
    generation: u64,
}

/// The moments of each instance, the newest last.
type Moments = HashMap<String, VecDeque<Moment>>;

/// Those of the instances that are there.
#[derive(Debug, Default, Clone)]
pub(crate) struct Histories {
    moments: Arc<Mutex<Moments>>,
    /// Where they are kept.
    path: PathBuf,
    noted: Arc<watch::Sender<()>>,
}

impl Histories {
    /// As they were kept. What can't be read is no reason not to start: then they begin anew. Blocking.
    pub(crate) fn load(path: &Path) -> Self {
        let moments = match read(path, FILE_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Moments::new()),
            read => read,
        };
        let moments = moments.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "what became of the instances before can't be read");
            Moments::new()
        });
        Self { moments: Arc::new(Mutex::new(moments)), path: path.to_owned(), ..Self::default() }
    }

    /// Keeps them, and says how soon they may be kept again.
    async fn save(&self) -> Duration {
        let own = self.clone();
        let saved = blocking(move || {
            let text = text(own.copied(), FILE_BYTES);
            (text.len(), durable::write(&own.path, &text, 0o600))
        });
        let (bytes, kept) = saved.await;
        if let Err(error) = kept {
            tracing::warn!(%error, "could not keep what became of the instances");
        }
        pause(bytes)
    }

    fn all(&self) -> MutexGuard<'_, Moments> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, one instance at a time: whoever asks for one meanwhile doesn't wait for the others.
    fn copied(&self) -> Moments {
        let ids: Vec<String> = self.all().keys().cloned().collect();
        let copy = |id: String| {
            let moments = self.all().get(&id)?.clone();
            Some((id, moments))
        };
        ids.into_iter().filter_map(copy).collect()
    }

    /// Of one instance, the newest first.
    pub(crate) fn of(&self, id: &str) -> Vec<Moment> {
        self.all().get(id).map(|moments| moments.iter().rev().cloned().collect()).unwrap_or_default()
    }

    /// Changes whenever procmgr's word was noted.
    pub(crate) fn noted(&self) -> watch::Receiver<()> {
        self.noted.subscribe()
    }

    /// Notes whatever differs from what was noted last, and says whether anything did. `whole` = what is not told of is gone.
    fn note<'a>(
        &self,
        now_unix_ms: i64,
        live: impl Iterator<Item = &'a InstanceStatus>,
        whole: bool,
    ) -> bool {
        let mut all = self.all();
        let mut known = std::mem::take(&mut *all);
        let mut news = false;
        for status in live {
            let mut moments = known.remove(&status.id).unwrap_or_default();
            let (state, mut reason) = (view::state(status), view::reason(status));
            reason.truncate(reason.floor_char_boundary(REASON_BYTES));
            if moments.back().is_none_or(|last| (&*last.state, &last.reason) != (state, &reason)) {
                let same = moments.back().is_some_and(|last| last.state == state);
                let at = if same { now_unix_ms } else { status.since_unix_ms };
                let (at, generation) = (rfc3339(at), status.generation);
                moments.push_back(Moment { at, state: state.into(), reason, generation });
                news = true;
                moments.drain(..moments.len().saturating_sub(MOMENTS));
            }
            all.insert(status.id.clone(), moments);
        }
        news |= whole && !known.is_empty();
        all.extend(known.into_iter().filter(|_| !whole));
        drop(all);
        self.noted.send_replace(());
        news
    }

    /// Notes what procmgr says and keeps it, until the drain.
    pub(crate) async fn keep(self, mut live: watch::Receiver<Live>, shutdown: Shutdown) {
        let (mut unsaved, mut due) = (false, Instant::now());
        loop {
            {
                let live = live.borrow_and_update();
                unsaved |= self.note(now_ms(), live.all(), live.is_current());
            }
            tokio::select! {
                () = shutdown.draining() => break,
                Ok(()) = live.changed() => {}
                () = tokio::time::sleep_until(due), if unsaved => {
                    let pause = self.save().await; // to its end: no older one is written after the last
                    (unsaved, due) = (false, Instant::now() + pause);
                }
            }
        }
        self.save().await;
    }
}

fn read(path: &Path, most: usize) -> io::Result<Moments> {
    let bytes = fs::metadata(path)?.len();
    if bytes > most as u64 {
        return Err(io::Error::other(format!("it has {bytes} bytes, more than {most}")));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// As they are written; of what is too much for the file the older half of each instance's is left out.
fn text(mut moments: Moments, most: usize) -> Vec<u8> {
    loop {
        let text = serde_json::to_vec(&moments).expect("text and numbers are JSON");
        if text.len() <= most || moments.is_empty() {
            return text;
        }
        moments.retain(|_, moments| {
            moments.drain(..moments.len().div_ceil(2));
            !moments.is_empty()
        });
    }
}

fn pause(bytes: usize) -> Duration {
    SAVE_EVERY * u32::try_from(1 + bytes / SAVE_PART).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::procmgr::State;

    use super::*;

    fn status(id: &str, state: State, reason: &str, since_unix_ms: i64) -> InstanceStatus {
        let (id, reason) = (id.to_owned(), reason.to_owned());
        InstanceStatus { id, state: state.into(), reason, since_unix_ms, ..InstanceStatus::default() }
    }

    fn told(histories: &Histories, id: &str) -> Vec<(Cow<'static, str>, String)> {
        histories.of(id).into_iter().map(|moment| (moment.state, moment.reason)).collect()
    }

    #[test]
    fn each_change_is_noted_once_the_newest_first_and_who_is_gone_is_forgotten() {
        let histories = Histories::default();
        let starting = status("a", State::Starting, "just started", 1);
        assert!(histories.note(1, [&starting, &status("b", State::Running, "", 1)].into_iter(), true));
        assert!(!histories.note(2, [&starting].into_iter(), false), "procmgr is away, or has not looked yet");
        assert_eq!(told(&histories, "b").len(), 1);
        assert!(histories.note(2, [&starting].into_iter(), true));
        assert!(histories.note(3, [&status("a", State::Running, "", 3)].into_iter(), true));
        let both = [("running".into(), String::new()), ("starting".into(), "just started".to_owned())];
        assert_eq!(told(&histories, "a"), both);
        assert_eq!(told(&histories, "b"), []);
        assert_eq!(histories.of("a")[0].at, "1970-01-01T00:00:00.003Z");
    }

    #[test]
    fn an_instance_that_never_rests_is_bounded() {
        let histories = Histories::default();
        for n in 0..200 {
            histories.note(n, [&status("a", State::Failed, &format!("try {n}"), 0)].into_iter(), true);
        }
        let moments = told(&histories, "a");
        assert_eq!((moments.len(), moments[0].1.as_str()), (MOMENTS, "try 199"));
    }

    #[test]
    fn a_reason_is_bounded_and_its_bounded_form_is_no_news_the_next_time() {
        let histories = Histories::default();
        let long = status("a", State::Failed, &format!("{}ä…", "x".repeat(REASON_BYTES - 1)), 1);
        assert!(histories.note(1, [&long].into_iter(), true));
        assert_eq!(histories.of("a")[0].reason, "x".repeat(REASON_BYTES - 1));
        assert!(!histories.note(2, [&long].into_iter(), true));
    }

    #[test]
    fn the_file_is_bounded_and_the_larger_it_is_the_more_seldom_it_is_written() {
        let histories = Histories::default();
        for n in 0..4 {
            let tried = ["a", "b"].map(|id| status(id, State::Failed, &format!("try {n}"), 0));
            histories.note(n, tried.iter(), true);
        }
        let whole = text(histories.copied(), FILE_BYTES);
        let half: Moments = serde_json::from_slice(&text(histories.copied(), whole.len() - 1)).unwrap();
        let reasons = |id: &str| half[id].iter().map(|moment| &*moment.reason).collect::<Vec<_>>();
        assert_eq!((reasons("a"), reasons("b")), (vec!["try 2", "try 3"], vec!["try 2", "try 3"]));
        assert_eq!(text(histories.copied(), 10), b"{}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.json");
        fs::write(&path, &whole).unwrap();
        assert_eq!(read(&path, whole.len()).unwrap().len(), 2);
        let said = read(&path, whole.len() - 1).unwrap_err().to_string();
        assert_eq!(said, format!("it has {} bytes, more than {}", whole.len(), whole.len() - 1));
        let all = [0, SAVE_PART - 1, SAVE_PART, FILE_BYTES].map(|bytes| pause(bytes).as_secs());
        assert_eq!(all, [5, 5, 10, 325]);
    }

    #[tokio::test]
    async fn what_was_noted_is_read_as_it_was_written_and_what_is_torn_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.json");
        assert!(Histories::load(&path).of("a").is_empty());
        let histories = Histories::load(&path);
        let failed = status("a", State::Failed, "exited with code 3", 7);
        histories.note(9, [&failed].into_iter(), true);
        histories.save().await;
        let loaded = Histories::load(&path);
        assert_eq!((loaded.of("a"), loaded.of("a").len()), (histories.of("a"), 1));
        assert!(!loaded.note(99, [&failed].into_iter(), true), "it is no news after a restart");
        fs::write(&path, "{\"a\":[").unwrap();
        assert!(Histories::load(&path).of("a").is_empty());
    }
}
