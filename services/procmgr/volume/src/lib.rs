//! The data of one app instance, as whoever builds a box around the app prepares them: whose they are, and how much.

mod disk;
mod flags;

pub use disk::{bound, trial};
pub use flags::kept;

use std::{ffi::CStr, io, os::fd::AsFd, path::Path};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{self, Gid, Uid};

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Makes the data this user's, if their folder isn't: what has another name elsewhere stays as it is, no link is followed, no
/// other file system is entered. One that is interrupted is begun again the next time.
///
/// # Errors
/// Those of the file system, with the folder.
pub fn own(data: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let named = |error: nix::Error| {
        io::Error::other(format!("could not give {} to the app: {}", data.display(), error.desc()))
    };
    take_all(data, &Owner(Uid::from_raw(uid), Gid::from_raw(gid))).map_err(named)
}

fn take_all(data: &Path, owner: &Owner) -> nix::Result<()> {
    let mut folder = Dir::open(data, FOLDER, Mode::empty())?;
    let stat = fstat(&folder)?;
    if stat.st_uid == owner.0.as_raw() {
        return Ok(());
    }
    owner.take_below(&mut folder, stat.st_dev)?;
    owner.take(&folder, c"") // last: it says that all below is done
}

struct Owner(Uid, Gid);

impl Owner {
    fn take(&self, folder: impl AsFd, name: &CStr) -> nix::Result<()> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
        unistd::fchownat(folder, name, Some(self.0), Some(self.1), flags)
    }

    fn take_below(&self, folder: &mut Dir, device: libc::dev_t) -> nix::Result<()> {
        let names: Vec<_> = folder
            .iter()
            .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
            .collect::<Result<_, _>>()?;
        for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
            let stat: FileStat = fstatat(&*folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let is_folder = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            if stat.st_dev != device || (!is_folder && stat.st_nlink > 1) {
                continue;
            }
            if is_folder {
                let mut below = Dir::openat(&*folder, name.as_c_str(), FOLDER, Mode::empty())?;
                self.take_below(&mut below, device)?;
            }
            self.take(&*folder, name)?;
        }
        Ok(())
    }
}
