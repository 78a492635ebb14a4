//! Keys that are kept in a file of `$STATE/proxy`, shared by the generations of the proxy, and replaced as time goes on: so a
//! restart costs nobody anything, and a stolen key is good for some hours only. Whoever reads them takes no lock.
//!
//! ```text
//! born --12 h: seals and opens--> --24 h: opens only--> forgotten
//! ```

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use nexushub_chassis::launch::{durable, lock::Lock, secret};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long a key seals, in seconds.
pub(crate) const SEALS: i64 = 12 * 3600;
/// How long it opens.
pub(crate) const OPENS: i64 = 3 * SEALS;
/// A key of a later time than this is of a clock that was wrong.
const SKEW: i64 = 300;
/// Longest wait for another generation of the proxy that makes a key.
const PATIENCE: Duration = Duration::from_secs(10);
/// A file of keys is smaller than this.
const MOST_BYTES: u64 = 64 * 1024;
/// Bytes of the name by which what was sealed says with which key.
pub(crate) const NAME_LEN: usize = 16;

/// A key as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// 64 hexadecimal digits.
    secret: String,
    born_unix: i64,
}

/// A key in use, as the tool that it is used by.
pub(crate) struct Key<T> {
    /// First half of SHA-256 of the key.
    pub(crate) name: [u8; NAME_LEN],
    pub(crate) tool: T,
    kept: Kept,
}

impl<T> Key<T> {
    fn seals(&self, now: i64) -> bool {
        self.opens(now) && now < self.kept.born_unix + SEALS
    }

    fn opens(&self, now: i64) -> bool {
        (self.kept.born_unix - SKEW..self.kept.born_unix + OPENS).contains(&now)
    }
}

/// Keys of one purpose.
pub(crate) struct Keys<T> {
    path: PathBuf,
    /// Makes a tool of 32 bytes.
    tool: fn(&[u8; 32]) -> Option<T>,
    /// The one that seals first.
    ring: ArcSwap<Vec<Key<T>>>,
    /// When the file was last looked at for an unknown name.
    searched_unix: AtomicI64,
}

impl<T> fmt::Debug for Keys<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<T> Keys<T> {
    /// Those that are kept in this file below a state folder, or new ones. Without a place to keep them they are good for this
    /// process only, which the log says.
    pub(crate) fn load(state: &Path, file: &str, tool: fn(&[u8; 32]) -> Option<T>, now_unix: i64) -> Self {
        let path = state.join("proxy").join(file);
        let keys = Self { path, tool, ring: ArcSwap::default(), searched_unix: AtomicI64::new(0) };
        keys.tend(now_unix);
        keys
    }

    /// All that open, the one that seals first.
    pub(crate) fn ring(&self) -> Guard<Arc<Vec<Key<T>>>> {
        self.ring.load()
    }

    /// Sees to it that there is a key that seals: that of another generation, or a new one. Reads and writes files then.
    pub(crate) fn tend(&self, now_unix: i64) {
        if self.ring().first().is_some_and(|key| key.seals(now_unix)) {
            return;
        }
        let keys = self.renew(now_unix).or_else(|error| {
            let error = nexushub_chassis::chain(&error);
            tracing::warn!(object = %self.path.display(), error, "the keys of the proxy are not kept");
            self.make(now_unix).map(|key| vec![key])
        });
        match keys {
            Ok(keys) => self.ring.store(Arc::new(keys)),
            Err(error) => tracing::warn!(object = %self.path.display(), %error, "there is no new key"),
        }
    }

    /// Looks for a key that another generation may have made just now, at most once a second. Whether there is news.
    pub(crate) fn search(&self, now_unix: i64) -> bool {
        if self.searched_unix.swap(now_unix, Ordering::Relaxed) == now_unix {
            return false;
        }
        let kept = self.kept(now_unix);
        let known = self.ring();
        let news = kept.iter().any(|key| known.iter().all(|known| known.name != key.name));
        if news {
            self.ring.store(Arc::new(kept));
        }
        news
    }

    fn use_as(&self, kept: Kept) -> Option<Key<T>> {
        let bytes = secret::from_hex(&kept.secret)?;
        let name = *Sha256::digest(bytes).first_chunk()?;
        Some(Key { name, tool: (self.tool)(&bytes)?, kept })
    }

    fn make(&self, now: i64) -> io::Result<Key<T>> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
        let kept = Kept { secret: secret::hex(&bytes), born_unix: now };
        self.use_as(kept).ok_or_else(|| io::Error::other("the key can't be used"))
    }

    fn renew(&self, now: i64) -> io::Result<Vec<Key<T>>> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let turn = Lock::acquire_within(&self.path.with_extension("lock"), PATIENCE)?;
        let _turn = turn.ok_or_else(|| io::Error::other("another proxy holds them"))?;
        let mut keys = self.kept(now);
        if !keys.first().is_some_and(|key| key.seals(now)) {
            keys.insert(0, self.make(now)?);
            let kept: Vec<&Kept> = keys.iter().map(|key| &key.kept).collect();
            durable::write(&self.path, &serde_json::to_vec(&kept)?, 0o600)?;
        }
        Ok(keys)
    }

    /// The keys of the file that still open, the youngest first. What can't be read is none: what they sealed is nobody's due.
    fn kept(&self, now: i64) -> Vec<Key<T>> {
        let read = || -> io::Result<Vec<Kept>> {
            if fs::metadata(&self.path)?.len() > MOST_BYTES {
                return Err(io::Error::other("too large"));
            }
            Ok(serde_json::from_slice(&fs::read(&self.path)?)?)
        };
        let kept = read().unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(object = %self.path.display(), %error, "kept keys are ignored");
            }
            Vec::new()
        });
        let keys = kept.into_iter().filter_map(|kept| self.use_as(kept));
        let mut keys: Vec<Key<T>> = keys.filter(|key| key.opens(now)).collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.kept.born_unix));
        keys
    }
}
