//! What an app keeps where no disk of its own bounds that: measured, and refused past the bound. A soft bound: between two looks
//! an app can take more, and is ended for it at the next.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nexushub_volume::taken;

/// Shortest time between two looks at what is within its bound, and at what isn't.
const RHYTHM: Duration = Duration::from_secs(10);
const HURRY: Duration = Duration::from_secs(1);
/// A look costs at most this part of the time until the next.
const SHARE: u32 = 100;
/// No more files and folders are looked at; who has more is judged by these.
const ENTRIES: usize = 1_000_000;
/// The same where somebody waits for an answer.
const ENTRIES_AT_ONCE: usize = 20_000;

/// A folder and how much of the disk it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Of the data.
    pub folder: PathBuf,
    /// Not 0.
    pub bytes: u64,
}

impl Bound {
    /// Says so where more is taken. Blocks.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let taken = taken(&self.folder, ENTRIES);
        if taken <= self.bytes {
            return Ok(());
        }
        Err(format!(
            "its data take {taken} bytes of the disk, more than its data_bytes, {}: remove some of {}, or raise the bound",
            self.bytes,
            self.folder.display()
        ))
    }
}

/// A bound that is looked at again and again, in a rhythm that keeps the looking cheap.
#[derive(Debug)]
pub(crate) struct Watched {
    bound: Bound,
    /// The outcome of the last look, and when the next is due.
    last: Mutex<Option<(Result<(), String>, Instant)>>,
}

impl Watched {
    /// Nothing is known of it yet.
    pub(crate) fn new(bound: Bound) -> Self {
        Self { bound, last: Mutex::default() }
    }

    /// What the last look found; looks if that is due at this time. May block.
    pub(crate) fn judge(&self, now: Instant) -> Result<(), String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((found, due)) = &*last
            && now < *due
        {
            return found.clone();
        }
        let began = Instant::now();
        let found = self.bound.judge();
        let rhythm = if found.is_ok() { RHYTHM } else { HURRY };
        *last = Some((found.clone(), now + rhythm.max(began.elapsed() * SHARE)));
        found
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.bound == other.bound
    }
}

impl Eq for Watched {}

/// Bytes of the disk that an app's data take, for people: of many files an estimate from below. Blocks.
pub(crate) fn used(folder: &Path) -> u64 {
    taken(folder, ENTRIES_AT_ONCE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn filled(path: &Path, mib: usize) {
        fs::write(path, vec![b'x'; mib << 20]).unwrap();
    }

    #[test]
    fn more_than_the_bound_is_refused_with_both_numbers_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let bound = Bound { folder: dir.path().into(), bytes: MIB };
        assert_eq!(bound.judge(), Ok(()));
        filled(&dir.path().join("file"), 2);
        let why = bound.judge().unwrap_err();
        assert!(why.contains("more than its data_bytes, 1048576: remove some of"), "{why}");
    }

    #[test]
    fn looks_keep_their_rhythm_and_an_excess_is_looked_at_again_sooner() {
        let dir = tempfile::tempdir().unwrap();
        let watched = Watched::new(Bound { folder: dir.path().into(), bytes: MIB });
        let now = Instant::now();
        assert_eq!(watched.judge(now), Ok(()));
        filled(&dir.path().join("file"), 2);
        assert_eq!(watched.judge(now + RHYTHM / 2), Ok(()), "it isn't looked at yet");
        let later = now + RHYTHM * 10;
        assert!(watched.judge(later).is_err());
        fs::remove_file(dir.path().join("file")).unwrap();
        assert!(watched.judge(later + HURRY / 2).is_err());
        assert_eq!(watched.judge(later + RHYTHM * 10), Ok(()));
    }
}
