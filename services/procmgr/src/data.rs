//! What an app keeps where no disk of its own bounds that: measured, and refused past the bound. A soft bound: between two looks
//! an app can take more, and is ended for it at the next.
//!
//! Where an ordinary user gave the app's box an id of its own, these data are that id's, and that user can't look at them: then
//! `nexushub-sandbox` does, in a user namespace with the ids of all boxes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nexushub_volume::taken;
use nix::unistd::{AccessFlags, access, getegid, geteuid};

/// Shortest time between two looks at what is within its bound, and at what isn't.
const RHYTHM: Duration = Duration::from_secs(10);
const HURRY: Duration = Duration::from_secs(1);
/// A look costs at most this part of the time until the next.
const SHARE: u32 = 100;
/// No more files and folders are looked at; who has more is judged by these.
const ENTRIES: usize = 1_000_000;
/// The same where somebody waits for an answer.
const ENTRIES_AT_ONCE: usize = 20_000;

/// The data of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Data {
    /// Where they are.
    pub folder: PathBuf,
    /// The program that looks after them where they are somebody else's.
    pub keeper: Option<PathBuf>,
}

impl Data {
    /// The program that looks after them, if they are somebody else's than ours and root's.
    fn foreign(&self) -> Option<&Path> {
        self.keeper.as_deref().filter(|_| is_foreign(&self.folder))
    }
}

/// Where they are: whoever configures them may say that by a link.
pub(crate) fn resolved(folder: &Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

/// Whether these data are another user's, so that we may not use them.
fn is_foreign(folder: &Path) -> bool {
    let own = geteuid();
    !own.is_root() && fs::metadata(folder).is_ok_and(|meta| meta.uid() != own.as_raw())
}

/// Whether these data are another user's, who lets us use them.
pub(crate) fn is_shared(folder: &Path) -> bool {
    let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    is_foreign(folder) && access(folder, all).is_ok()
}

/// The name of something among our own data that isn't ours, or is of another group, if there is any: who else has to do with them
/// would have no more of them once they are an app's own id's. Blocks.
pub(crate) fn stranger(folder: &Path) -> Option<String> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if is_foreign(folder) { None } else { nexushub_volume::stranger(folder, uid, gid) }
}

/// Makes the data of an app that has no id of its own ours again, if they are an id's that we may give; else they stay whose they are,
/// who may let us use them. Blocks.
pub(crate) fn reclaim(keeper: &Path, folder: &Path) -> Result<(), String> {
    if !is_foreign(folder) {
        return Ok(());
    }
    let done = ask(keeper, ["--reclaim"], &[folder]);
    if is_shared(folder) {
        return Ok(());
    }
    done.map(drop).map_err(|why| {
        let (folder, uid, gid) = (folder.display(), geteuid(), getegid());
        format!(
            "its data belong to an id that it had before, which can't be used now ({why}): mend that, or have root give them back: \
             chown -hR {uid}:{gid} {folder}"
        )
    })
}

/// Has the keeper do something with these folders. What it says.
fn ask<const N: usize>(keeper: &Path, task: [&str; N], folders: &[&Path]) -> Result<String, String> {
    let mut command = Command::new(keeper);
    command.args(task).env_clear().stdin(Stdio::null());
    for folder in folders {
        command.arg("--folder").arg(folder);
    }
    let output = command.output().map_err(|error| format!("{}: {error}", keeper.display()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', " ")),
    }
}

/// How much of the disk an app's data may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The data.
    pub data: Data,
    /// Not 0.
    pub bytes: u64,
}

impl Bound {
    /// Says so where more is taken. Blocks.
    pub(crate) fn judge(&self) -> Result<(), String> {
        let taken = all_taken(std::slice::from_ref(&self.data), ENTRIES).into_iter().sum::<u64>();
        if taken <= self.bytes {
            return Ok(());
        }
        Err(format!(
            "its data take {taken} bytes of the disk, more than its data_bytes, {}: remove some of {}, or raise the bound",
            self.bytes,
            self.data.folder.display()
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

/// Bytes of the disk that each of these apps' data take, for people: of many files an estimate from below. Blocks.
pub(crate) fn used(all: &[Data]) -> Vec<u64> {
    all_taken(all, ENTRIES_AT_ONCE)
}

/// What each takes, of at most so many entries; those that are somebody else's are asked for together.
fn all_taken(all: &[Data], entries: usize) -> Vec<u64> {
    let mut asked: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for data in all {
        if let Some(keeper) = data.foreign() {
            asked.entry(keeper).or_default().push(&data.folder);
        }
    }
    let mut told: BTreeMap<&Path, u64> = BTreeMap::new();
    for (keeper, folders) in asked {
        match ask(keeper, ["--measure", &entries.to_string()], &folders) {
            Ok(text) => {
                told.extend(folders.into_iter().zip(text.lines().filter_map(|line| line.parse().ok())));
            }
            Err(why) => {
                tracing::warn!(error = why, "data of apps that have ids of their own could not be measured");
            }
        }
    }
    let one = |data: &Data| match data.foreign() {
        Some(_) => told.get(data.folder.as_path()).copied().unwrap_or(0),
        None => taken(&data.folder, entries),
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn filled(path: &Path, mib: usize) {
        fs::write(path, vec![b'x'; mib << 20]).unwrap();
    }

    fn bound(folder: &Path) -> Bound {
        Bound { data: Data { folder: folder.into(), keeper: None }, bytes: MIB }
    }

    #[test]
    fn what_is_ours_is_looked_at_without_a_keeper_and_stays_ours() {
        let dir = tempfile::tempdir().unwrap();
        filled(&dir.path().join("file"), 2);
        let keeper = || PathBuf::from("/nonexistent/keeper");
        let own = Data { folder: dir.path().into(), keeper: Some(keeper()) };
        let none = Data { folder: dir.path().join("none"), keeper: Some(keeper()) };
        let told = used(&[none.clone(), own, Data::default()]);
        assert!(told[0] == 0 && (2 * MIB..3 * MIB).contains(&told[1]) && told[2] == 0, "{told:?}");
        assert_eq!((reclaim(&keeper(), dir.path()), reclaim(&keeper(), &none.folder)), (Ok(()), Ok(())));
    }

    #[test]
    fn more_than_the_bound_is_refused_with_both_numbers_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let bound = bound(dir.path());
        assert_eq!(bound.judge(), Ok(()));
        filled(&dir.path().join("file"), 2);
        let why = bound.judge().unwrap_err();
        assert!(why.contains("more than its data_bytes, 1048576: remove some of"), "{why}");
    }

    #[test]
    fn looks_keep_their_rhythm_and_an_excess_is_looked_at_again_sooner() {
        let dir = tempfile::tempdir().unwrap();
        let watched = Watched::new(bound(dir.path()));
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
