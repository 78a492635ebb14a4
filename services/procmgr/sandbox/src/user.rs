//! Who the app is: its ids inside and outside the box, its capabilities (none), its data's owner.
#![allow(unsafe_code)]

use std::{fs, os::fd::AsFd as _, path::Path, ptr};

use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{self, Gid, Pid, Uid};
use nix::{errno::Errno, libc};

use crate::report::{Because as _, Reason};
use crate::subordinate;

/// Ids of one box.
const RANGE: u32 = 65_536;
/// The app's id within its range.
const APP: u32 = 1000;

/// The ids of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// As root: a range of its own on the host, from this one on.
    Range(u32),
    /// As an ordinary user who may give ids away: one user and one group of these.
    Given(u32, u32),
    /// As any other user: the user's, inside as outside.
    One(u32, u32),
}

impl Ids {
    /// The ids for a box that is built by whoever runs this.
    ///
    /// # Errors
    /// Root needs a range, which lies above the host's own ids; nobody else can have one, but a slot of those that it may give.
    pub fn of(first: Option<u32>, slot: Option<u32>) -> Result<Self, Reason> {
        let (uid, gid) = (unistd::geteuid(), unistd::getegid());
        if let (Some(slot), false) = (slot, uid.is_root()) {
            return subordinate::of_slot(slot).map(|(uid, gid)| Self::Given(uid, gid));
        }
        match first {
            Some(first) if uid.is_root() && (RANGE..=u32::MAX - 2 * RANGE).contains(&first) => {
                Ok(Self::Range(first))
            }
            None if !uid.is_root() => Ok(Self::One(uid.as_raw(), gid.as_raw())),
            Some(_) if !uid.is_root() => Err(Reason::new("--uid needs root")),
            Some(first) => Err(Reason::new(format_args!("--uid {first} is no range of ids for a box"))),
            None => Err(Reason::new("--uid is missing: as root a box has ids of its own")),
        }
    }

    /// The app's user and group as it sees them.
    #[must_use]
    pub fn inside(self) -> (u32, u32) {
        match self {
            Self::Range(_) | Self::Given(..) => (APP, APP),
            Self::One(uid, gid) => (uid, gid),
        }
    }

    /// Gives the process its ids, in the user namespace that it has made for itself.
    pub(crate) fn map(self, pid: Pid) -> Result<(), Reason> {
        let write = |file: &str, text: String| {
            fs::write(format!("/proc/{pid}/{file}"), text).because(|| format!("write the app's {file}"))
        };
        let (uids, gids) = match self {
            Self::Range(first) => (format!("0 {first} {RANGE}"), format!("0 {first} {RANGE}")),
            Self::Given(uid, gid) => (format!("{APP} {uid} 1"), format!("{APP} {gid} 1")),
            Self::One(uid, gid) => (format!("{uid} {uid} 1"), format!("{gid} {gid} 1")),
        };
        if let Self::One(..) = self {
            write("setgroups", "deny".into())?;
        }
        write("uid_map", uids)?;
        write("gid_map", gids)
    }

    /// Becomes the app's user and gives up every capability, for good.
    pub(crate) fn settle(self) -> Result<(), Reason> {
        // Inherited none, raised none, and none for a user called root.
        let bits = libc::SECBIT_NOROOT
            | libc::SECBIT_NOROOT_LOCKED
            | libc::SECBIT_KEEP_CAPS_LOCKED
            | libc::SECBIT_NO_CAP_AMBIENT_RAISE
            | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL)
            .because(|| "clear ambient capabilities")?;
        prctl(libc::PR_SET_SECUREBITS, bits).because(|| "lock the capabilities of root")?;
        // The kernel's last capability is followed by one that it doesn't know.
        (0..64).all(|capability| prctl(libc::PR_CAPBSET_DROP, capability).is_ok());
        if !matches!(self, Self::One(..)) {
            unistd::setgroups(&[]).because(|| "leave the platform's groups")?;
        }
        let (uid, gid) = self.inside();
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        unistd::setresgid(gid, gid, gid).because(|| "take the app's group")?;
        unistd::setresuid(uid, uid, uid).because(|| "take the app's user")?;
        renounce()
    }

    /// Makes the data the app's, if its folder isn't.
    pub(crate) fn own(self, data: &Path) -> Result<(), Reason> {
        let done = match (self, self.outside()) {
            (Self::Given(uid, gid), _) => nexushub_volume::give(data, uid, gid),
            (_, Some((uid, gid))) => nexushub_volume::own(data, uid, gid),
            (_, None) => Ok(()),
        };
        done.map_err(Reason::new)
    }

    /// Makes the pipes for its output the app's, which may then open them by name (`/dev/stderr`); another's stay that other's.
    pub(crate) fn own_outputs(self) {
        let Some((uid, gid)) = self.outside() else { return };
        for output in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
            let kind = fstat(output).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode));
            if kind & SFlag::S_IFMT == SFlag::S_IFIFO {
                let _ = unistd::fchown(output, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            }
        }
    }

    /// The app's user and group on the host, if they aren't those of who builds the box.
    fn outside(self) -> Option<(u32, u32)> {
        match self {
            Self::Range(first) => Some((first + APP, first + APP)),
            Self::Given(uid, gid) => Some((uid, gid)),
            Self::One(..) => None,
        }
    }
}

/// Gives up every capability that this process holds.
pub(crate) fn renounce() -> Result<(), Reason> {
    /// The kernel's `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = ([VERSION, 0], [0_u32; 6]);
    // SAFETY: the kernel reads a header of two words and two sets of three words.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    Errno::result(done).map(drop).because(|| "renounce capabilities")
}

fn prctl(option: i32, value: i32) -> nix::Result<()> {
    // SAFETY: these options take numbers only.
    Errno::result(unsafe { libc::prctl(option, libc::c_long::from(value), 0_u64, 0_u64, ptr::null::<u8>()) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_needs_a_range_above_the_hosts_own_ids_and_nobody_else_may_have_one() {
        if unistd::geteuid().is_root() {
            let of = |first| Ids::of(first, None);
            assert_eq!(of(Some(100_000)), Ok(Ids::Range(100_000)));
            assert!(of(None).is_err() && of(Some(0)).is_err() && of(Some(u32::MAX)).is_err());
            assert!(Ids::of(None, Some(0)).is_err(), "root has ranges");
        } else {
            assert!(Ids::of(None, None).is_ok() && Ids::of(Some(100_000), None).is_err());
        }
    }
}
