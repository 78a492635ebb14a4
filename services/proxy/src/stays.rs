//! Developers' sessions that outlive their tokens: which token was used when last. Their tools show one access token for hours and
//! can't fetch another, so a token of an administrator that was good when it was last used on `/debug/*` stays good there for as
//! long as it is used, twelve hours at most. What is kept, a minute late at most, are digests: a restart ends nobody's work.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use nexushub_chassis::launch::{
    durable,
    secret::{digest, hex},
};

use crate::tokens::LIFETIME_MS;

/// Tokens that are known at once.
const MOST: usize = 4096;
/// A file of them is smaller than this.
const MOST_BYTES: u64 = 1024 * 1024;
/// Uses are written so much later at most.
const LATE_MS: i64 = 60_000;

/// By the digest of the token, when it was used last.
type Used = HashMap<String, i64>;

/// Which token was used when last.
#[derive(Debug)]
pub(crate) struct Stays {
    path: PathBuf,
    used: Mutex<Used>,
    kept_ms: AtomicI64,
}

impl Stays {
    /// Those that are kept below this state folder. What can't be read is none: its developers log in again.
    pub(crate) fn load(state: &Path) -> Self {
        let path = state.join("proxy").join("developers.json");
        let read = || -> io::Result<Used> {
            if fs::metadata(&path)?.len() > MOST_BYTES {
                return Err(io::Error::other("too large"));
            }
            Ok(serde_json::from_slice(&fs::read(&path)?)?)
        };
        let used = Mutex::new(read().unwrap_or_default());
        Self { path, used, kept_ms: AtomicI64::new(i64::MIN) }
    }

    /// A token is used whose own time is over or not: whether it is good. Whether it was good once is not asked here.
    pub(crate) fn is_good(&self, token: &str, expires_ms: i64, now_ms: i64) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = |at: i64| now_ms < at.saturating_add(LIFETIME_MS);
        let token = hex(&digest(token));
        let good = now_ms < expires_ms || used.get(&token).is_some_and(|at| stays(*at));
        if !good {
            return false;
        }
        if used.len() >= MOST {
            used.retain(|_, at| stays(*at));
        }
        if used.len() < MOST {
            used.insert(token, now_ms);
        }
        true
    }

    /// Whether uses are to be written now; who is told so writes them.
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        let kept_ms = self.kept_ms.load(Ordering::Relaxed);
        let mine = || self.kept_ms.compare_exchange(kept_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        now_ms >= kept_ms.saturating_add(LATE_MS) && mine().is_ok()
    }

    /// Writes them.
    pub(crate) fn keep(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = serde_json::to_vec(&used).unwrap_or_default();
        let folder = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = folder.and_then(|()| durable::write(&self.path, &bytes, 0o600)) {
            tracing::warn!(object = %self.path.display(), %error, "developers' sessions are not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn a_token_stays_good_for_as_long_as_it_is_used_over_a_restart_too() {
        let state = tempfile::tempdir().unwrap();
        let stays = Stays::load(state.path());
        assert!(!stays.is_good("token", NOW, NOW), "it is over, and was not used before");
        assert!(stays.is_good("token", NOW + 1, NOW));
        assert!(stays.is_good("token", NOW + 1, NOW + LIFETIME_MS - 1));
        stays.keep();
        let text = fs::read_to_string(state.path().join("proxy/developers.json")).unwrap();
        assert!(!text.contains("token"), "{text}");
        let next = Stays::load(state.path());
        assert!(next.is_good("token", NOW + 1, NOW + 2 * LIFETIME_MS - 2));
        assert!(!next.is_good("token", NOW + 1, NOW + 4 * LIFETIME_MS));
    }

    #[test]
    fn uses_are_written_once_a_minute() {
        let state = tempfile::tempdir().unwrap();
        let stays = Stays::load(state.path());
        assert!(stays.is_due(NOW) && !stays.is_due(NOW + LATE_MS - 1) && stays.is_due(NOW + LATE_MS));
    }
}
