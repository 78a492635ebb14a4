//! A walk over a folder that somebody hostile may be changing: no link is followed, no path is looked up twice, and however deep it
//! goes, no more than a few descriptors are held.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::{os::fd::AsFd as _, path::Path};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What is done with what is found.
pub(crate) trait Visit {
    /// An entry of this folder. Whether to look into it, if it is a folder.
    fn found(&mut self, folder: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> nix::Result<bool>;

    /// All in one of this folder's folders was seen.
    fn seen(&mut self, _folder: BorrowedFd<'_>, _name: &CStr) -> nix::Result<()> {
        Ok(())
    }

    /// A folder can't be read, or was moved away meanwhile: goes on without it, or not at all.
    fn missed(&mut self, why: Errno) -> nix::Result<()> {
        Err(why)
    }
}

/// Whether it is a folder.
pub(crate) fn is_folder(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// Opens the top of a walk, which is no link.
pub(crate) fn top(path: &Path) -> nix::Result<(OwnedFd, FileStat)> {
    let top = open(path, FOLDER, Mode::empty())?;
    let stat = fstat(&top)?;
    Ok((top, stat))
}

/// One of the folders from the top to where the walk is.
struct Level {
    name: CString,
    identity: (libc::dev_t, libc::ino_t),
    /// Its folders that are still to be looked into.
    left: Vec<CString>,
}

/// Shows all below this folder to the visitor, at most so many entries; a folder before what it holds.
pub(crate) fn walk(top: &OwnedFd, entries: usize, visit: &mut impl Visit) -> nix::Result<()> {
    let mut left = entries;
    let mut here = top.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    let mut levels = vec![level(&here, c"".into(), &mut left, visit)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            match enter(&here, name, &mut left, visit) {
                Ok((below, level)) => {
                    here = below;
                    levels.push(level);
                }
                Err(why) => visit.missed(why)?,
            }
            continue;
        }
        let name = levels.pop().map(|level| level.name).unwrap_or_default();
        let Some(parent) = levels.last() else { break };
        match above(&here, parent.identity) {
            Ok(folder) => {
                here = folder;
                visit.seen(here.as_fd(), &name)?;
            }
            Err(why) => {
                visit.missed(why)?;
                here = top.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
                levels.truncate(1);
            }
        }
    }
    Ok(())
}

fn enter(
    here: &OwnedFd,
    name: CString,
    left: &mut usize,
    visit: &mut impl Visit,
) -> nix::Result<(OwnedFd, Level)> {
    let below = openat(here, name.as_c_str(), FOLDER, Mode::empty())?;
    let level = level(&below, name, left, visit)?;
    Ok((below, level))
}

/// The folder above, if it still is the one that this one was found in.
fn above(here: &OwnedFd, parent: (libc::dev_t, libc::ino_t)) -> nix::Result<OwnedFd> {
    let above = openat(here, c"..", FOLDER, Mode::empty())?;
    if identity(&fstat(&above)?) == parent { Ok(above) } else { Err(Errno::ESTALE) }
}

fn identity(stat: &FileStat) -> (libc::dev_t, libc::ino_t) {
    (stat.st_dev, stat.st_ino)
}

/// Shows what a folder holds. Of all the names that it may hold only those of folders are remembered, each of which takes more of
/// the disk than of memory.
fn level(folder: &OwnedFd, name: CString, left: &mut usize, visit: &mut impl Visit) -> nix::Result<Level> {
    let mut level = Level { name, identity: identity(&fstat(folder)?), left: Vec::new() };
    let listed = folder.try_clone().map_err(|_| Errno::EMFILE)?;
    for entry in Dir::from_fd(listed)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Some(fewer) = left.checked_sub(1) else { break };
        *left = fewer;
        let stat = match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue, // gone meanwhile
            stat => stat?,
        };
        if visit.found(folder.as_fd(), name, &stat)? && is_folder(&stat) {
            level.left.push(name.to_owned());
        }
    }
    Ok(level)
}
