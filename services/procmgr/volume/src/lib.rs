//! The data of one app instance, as whoever builds a box around the app prepares them, and as who looks after them finds them:
//! whose they are, and how much.

mod disk;
mod flags;
mod walk;

pub use disk::{bound, trial};
pub use flags::kept;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CStr,
    fs, io,
    path::Path,
};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::FileStat;
use nix::unistd::{self, Gid, Uid, UnlinkatFlags, unlinkat};

use walk::{Visit, is_folder, walk};

/// The unit of a file's blocks, whatever the file system.
const BLOCK: u64 = 512;

/// Makes the data this user's, if their folder isn't: a file that has another name elsewhere stays as it is, no link is followed,
/// no other file system is entered. One that is interrupted is begun again the next time.
///
/// # Errors
/// Those of the file system, with the folder.
pub fn own(data: &Path, uid: u32, gid: u32) -> io::Result<()> {
    take_all(data, uid, gid).map_err(|error| not_given(data, error))
}

fn not_given(data: &Path, error: Errno) -> io::Error {
    let why = if error == Errno::EPERM { " (some of it belongs to somebody else)" } else { "" };
    io::Error::other(format!("could not give {} to its user: {}{why}", data.display(), error.desc()))
}

fn take_all(data: &Path, uid: u32, gid: u32) -> nix::Result<()> {
    let (folder, stat) = walk::top(data)?;
    if stat.st_uid == uid {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    own_below(&folder, stat.st_dev, uid, gid)?;
    unistd::fchown(&folder, Some(uid), Some(gid)) // last: it says that all below is done
}

/// Gives this user's data to an id of its app's own, as `own` does. From the first of them on their folder is that id's, so that
/// `own` takes back what was interrupted; its group becomes that id's when all is done.
///
/// # Errors
/// Those of `own`.
pub fn give(data: &Path, uid: u32, gid: u32) -> io::Result<()> {
    give_all(data, uid, gid).map_err(|error| not_given(data, error))
}

fn give_all(data: &Path, uid: u32, gid: u32) -> nix::Result<()> {
    let (folder, stat) = walk::top(data)?;
    if (stat.st_uid, stat.st_gid) == (uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    unistd::fchown(&folder, Some(uid), None)?;
    own_below(&folder, stat.st_dev, uid, gid)?;
    unistd::fchown(&folder, None, Some(gid))
}

fn own_below(folder: &OwnedFd, device: libc::dev_t, uid: Uid, gid: Gid) -> nix::Result<()> {
    walk(folder, usize::MAX, &mut Owner { uid, gid, device, names: BTreeMap::new() })
}

/// The name of something among the data that isn't this user's and this group's, if there is any: who could give away the rest could
/// not give that away.
#[must_use]
pub fn stranger(data: &Path, uid: u32, gid: u32) -> Option<String> {
    let (folder, stat) = walk::top(data).ok()?;
    let mut search = Search { uid, gid, device: stat.st_dev, found: None };
    let _ = walk(&folder, usize::MAX, &mut search);
    search.found
}

struct Search {
    uid: u32,
    gid: u32,
    device: libc::dev_t,
    found: Option<String>,
}

impl Visit for Search {
    fn found(&mut self, _: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> nix::Result<bool> {
        if stat.st_dev == self.device && (stat.st_uid, stat.st_gid) != (self.uid, self.gid) {
            self.found = Some(name.to_string_lossy().into_owned());
            return Err(Errno::ECANCELED);
        }
        Ok(stat.st_dev == self.device)
    }

    /// What this user has closed to itself is nevertheless its own.
    fn missed(&mut self, why: Errno) -> nix::Result<()> {
        if self.found.is_none() { Ok(()) } else { Err(why) }
    }
}

struct Owner {
    uid: Uid,
    gid: Gid,
    device: libc::dev_t,
    /// Of files with several names those that were found.
    names: BTreeMap<libc::ino_t, libc::nlink_t>,
}

impl Owner {
    /// Whether a file has no name but those that were found.
    fn has_all_names(&mut self, stat: &FileStat) -> bool {
        if is_folder(stat) || stat.st_nlink <= 1 {
            return true;
        }
        let found = self.names.entry(stat.st_ino).or_default();
        *found += 1;
        let all = *found == stat.st_nlink;
        if all {
            self.names.remove(&stat.st_ino);
        }
        all
    }
}

impl Visit for Owner {
    fn found(&mut self, folder: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> nix::Result<bool> {
        if stat.st_dev != self.device || !self.has_all_names(stat) {
            return Ok(false);
        }
        unistd::fchownat(folder, name, Some(self.uid), Some(self.gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(true)
    }
}

/// Bytes of the disk that a folder takes with all in it, of at most so many entries: what links lead to and other file systems
/// don't count, and a file with several names counts once. What can't be read counts nothing.
#[must_use]
pub fn taken(folder: &Path, entries: usize) -> u64 {
    let Ok((folder, stat)) = walk::top(folder) else { return 0 };
    let mut sum = Sum { device: stat.st_dev, bytes: 0, seen: BTreeSet::new() };
    let _ = walk(&folder, entries, &mut sum);
    sum.bytes
}

struct Sum {
    device: libc::dev_t,
    bytes: u64,
    seen: BTreeSet<libc::ino_t>,
}

impl Visit for Sum {
    fn found(&mut self, _: BorrowedFd<'_>, _: &CStr, stat: &FileStat) -> nix::Result<bool> {
        let another = stat.st_nlink > 1 && !is_folder(stat) && !self.seen.insert(stat.st_ino);
        if stat.st_dev != self.device || another {
            return Ok(false);
        }
        self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
        Ok(true)
    }

    fn missed(&mut self, _: Errno) -> nix::Result<()> {
        Ok(())
    }
}

/// Removes a folder with all in it, however deep. Stops at what is on another file system.
///
/// # Errors
/// Those of the file system.
pub fn remove(folder: &Path) -> io::Result<()> {
    let (top, stat) = walk::top(folder)?;
    walk(&top, usize::MAX, &mut Remover { device: stat.st_dev })?;
    fs::remove_dir(folder)
}

struct Remover {
    device: libc::dev_t,
}

impl Visit for Remover {
    fn found(&mut self, folder: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> nix::Result<bool> {
        if stat.st_dev != self.device {
            return Err(Errno::EXDEV);
        }
        if !is_folder(stat) {
            gone(unlinkat(folder, name, UnlinkatFlags::NoRemoveDir))?;
        }
        Ok(true)
    }

    fn seen(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
        gone(unlinkat(folder, name, UnlinkatFlags::RemoveDir))
    }

    fn missed(&mut self, why: Errno) -> nix::Result<()> {
        gone(Err(why))
    }
}

/// What somebody else has removed meanwhile is gone, too.
fn gone(removed: nix::Result<()>) -> nix::Result<()> {
    if removed == Err(Errno::ENOENT) { Ok(()) } else { removed }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::CString;
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};

    use super::*;

    const MIB: u64 = 1 << 20;
    /// Deeper than a process may have files open, or a path may be long.
    const DEPTH: usize = 2100;

    fn filled(path: &Path, mib: usize) {
        fs::write(path, vec![b'x'; mib << 20]).unwrap();
    }

    /// So many folders in each other, and a file of 1 MiB in the last.
    fn deep(top: &Path, depth: usize) {
        let mut here = OwnedFd::from(File::open(top).unwrap());
        for _ in 0..depth {
            mkdirat(&here, c"a", Mode::S_IRWXU).unwrap();
            here = openat(&here, c"a", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        let file = openat(&here, c"file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).unwrap();
        io::Write::write_all(&mut File::from(file), &vec![b'x'; 1 << 20]).unwrap();
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
        File::create(dir.path().join("holes")).unwrap().set_len(64 * MIB).unwrap();
        let bytes = taken(dir.path(), usize::MAX);
        assert!((2 * MIB..3 * MIB).contains(&bytes), "{bytes}");
        assert!(taken(dir.path(), 1) < 2 * MIB + 65_536, "no more than asked for is looked at");
        assert_eq!(taken(&dir.path().join("none"), usize::MAX), 0);
        assert_eq!(taken(&dir.path().join("folder"), usize::MAX), 0, "a link is no folder");
    }

    #[test]
    fn depth_hides_nothing_and_ends_no_removal() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        deep(&data, DEPTH);
        assert!(taken(&data, usize::MAX) >= MIB);
        assert!(taken(&data, DEPTH / 2) < MIB * 16 && taken(&data, 0) == 0);
        if unistd::geteuid().is_root() {
            own(&data, 1234, 1234).unwrap();
            assert_eq!(fs::metadata(data.join("a/a/a")).unwrap().uid(), 1234);
        }
        remove(&data).unwrap();
        assert!(!data.exists());
    }

    #[test]
    fn a_removal_leaves_what_links_lead_to() {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("kept"), "").unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("a/b")).unwrap();
        symlink(outside.path(), data.join("a/link")).unwrap();
        symlink(&data, dir.path().join("link")).unwrap();
        assert!(remove(&dir.path().join("link")).is_err(), "a link is no folder");
        remove(&data).unwrap();
        assert!(!data.exists() && outside.path().join("kept").exists());
        assert_eq!(remove(&data).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_was_given_in_part_is_the_ids_and_given_or_taken_back_whole() {
        if !can_give() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let of =
            |name: &str| fs::metadata(dir.path().join(name)).map(|meta| (meta.uid(), meta.gid())).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        give(dir.path(), 1234, 1234).unwrap();
        fs::write(dir.path().join("later"), "").unwrap();
        give(dir.path(), 1234, 1234).unwrap();
        assert_eq!((of("a"), of("later")), ((1234, 1234), (0, 0)), "it is all done");
        std::os::unix::fs::chown(dir.path(), None, Some(0)).unwrap(); // as one that was interrupted leaves it
        give(dir.path(), 1234, 1234).unwrap();
        assert_eq!((of("."), of("later")), ((1234, 1234), (1234, 1234)));
        std::os::unix::fs::chown(dir.path(), None, Some(0)).unwrap();
        own(dir.path(), 0, 0).unwrap();
        assert_eq!((of("."), of("a"), of("later")), ((0, 0), (0, 0), (0, 0)));
    }

    #[test]
    fn what_is_another_users_or_another_groups_is_found() {
        if !can_give() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        assert_eq!(stranger(dir.path(), 0, 0), None);
        for (uid, gid) in [(Some(1234), None), (None, Some(1234))] {
            let one = dir.path().join("a/b/one");
            fs::write(&one, "").unwrap();
            std::os::unix::fs::chown(&one, uid, gid).unwrap();
            assert_eq!(stranger(dir.path(), 0, 0).as_deref(), Some("one"));
            fs::remove_file(one).unwrap();
        }
        assert_eq!(stranger(&dir.path().join("none"), 0, 0), None);
    }

    /// Only root gives files away, which CI is.
    fn can_give() -> bool {
        let root = unistd::geteuid().is_root();
        if !root {
            assert!(std::env::var_os("CI").is_none(), "CI is root");
            println!("not tried: only root gives files away");
        }
        root
    }

    #[test]
    fn many_entries_in_one_folder_are_all_removed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        (0..5_000).for_each(|number| drop(File::create(data.join(number.to_string())).unwrap()));
        (0..500).for_each(|number| fs::create_dir(data.join(format!("d{number}"))).unwrap());
        remove(&data).unwrap();
        assert!(!data.exists());
    }

    #[test]
    fn a_file_is_given_away_with_all_its_names_or_not_at_all() {
        if !can_give() {
            return;
        }
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("a/b")).unwrap();
        for name in ["within", "without"] {
            fs::write(data.join(name), "").unwrap();
        }
        fs::hard_link(data.join("within"), data.join("a/b/again")).unwrap();
        fs::hard_link(data.join("without"), outside.path().join("again")).unwrap();
        own(&data, 1234, 1234).unwrap();
        let of = |name: &str| fs::metadata(data.join(name)).unwrap().uid();
        assert_eq!((of("within"), of("a/b/again"), of("without")), (1234, 1234, 0));
    }

    /// Moves the first folder that is looked into away from under the walk.
    struct Mover<'a> {
        from: &'a Path,
        to: &'a Path,
        names: Vec<CString>,
    }

    impl Visit for Mover<'_> {
        fn found(&mut self, _: BorrowedFd<'_>, name: &CStr, _: &FileStat) -> nix::Result<bool> {
            self.names.push(name.into());
            if name == c"inner" {
                fs::rename(self.from, self.to).unwrap();
            }
            Ok(true)
        }

        fn missed(&mut self, why: Errno) -> nix::Result<()> {
            assert_eq!(why, Errno::ESTALE);
            Ok(())
        }
    }

    #[test]
    fn a_folder_that_is_moved_away_leads_the_walk_nowhere_else() {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (dir.path().join("a/b"), outside.path().join("b"));
        fs::create_dir_all(from.join("inner")).unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/last"), "").unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        let mut mover = Mover { from: &from, to: &to, names: Vec::new() };
        let (top, _) = walk::top(dir.path()).unwrap();
        walk(&top, usize::MAX, &mut mover).unwrap();
        mover.names.sort();
        let names: Vec<_> = mover.names.iter().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "inner", "last", "other"]);
    }
}
