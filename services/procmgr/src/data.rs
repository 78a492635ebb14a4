//! What an app keeps where no disk of its own bounds that: measured, and refused past the bound. A soft bound: between two looks
//! an app can take more, and is ended for it at the next.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shortest time between two looks at what is within its bound, and at what isn't.
const RHYTHM: Duration = Duration::from_secs(10);
const HURRY: Duration = Duration::from_secs(1);
/// A look costs at most this part of the time until the next.
const SHARE: u32 = 100;
/// No more files and folders are looked at; who has more is judged by these.
const ENTRIES: usize = 1_000_000;
/// The same where somebody waits for an answer.
const ENTRIES_AT_ONCE: usize = 20_000;
/// The unit of a file's blocks, whatever the file system.
const BLOCK: u64 = 512;

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

/// Bytes of the disk that a folder takes with all in it, of at most so many entries: what links lead to and other file systems
/// don't count, and a file with several names counts once. What can't be read counts nothing.
fn taken(folder: &Path, entries: usize) -> u64 {
    let Ok(top) = fs::symlink_metadata(folder) else { return 0 };
    let (mut sum, mut seen) = (0, BTreeSet::new());
    let mut folders = vec![folder.to_owned()];
    let mut left = entries;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if left == 0 {
                return sum;
            }
            left -= 1;
            if meta.dev() != top.dev() || (meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino())) {
                continue;
            }
            sum += meta.blocks() * BLOCK;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn filled(path: &Path, mib: usize) {
        fs::write(path, vec![b'x'; mib << 20]).unwrap();
    }

    #[test]
    fn what_a_folder_takes_is_its_files_once_each_and_nothing_elsewhere() {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        filled(&outside.path().join("big"), 8);
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        filled(&dir.path().join("a/b/file"), 2);
        fs::hard_link(dir.path().join("a/b/file"), dir.path().join("again")).unwrap();
        symlink(outside.path().join("big"), dir.path().join("soft")).unwrap();
        symlink(outside.path(), dir.path().join("folder")).unwrap();
        fs::File::create(dir.path().join("holes")).unwrap().set_len(64 * MIB).unwrap();
        let bytes = taken(dir.path(), ENTRIES);
        assert!((2 * MIB..3 * MIB).contains(&bytes), "{bytes}");
        assert!(taken(dir.path(), 1) < 2 * MIB + 65_536, "no more than asked for is looked at");
        assert_eq!(taken(&dir.path().join("none"), ENTRIES), 0);
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
