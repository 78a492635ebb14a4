//! Who the VMM is: in a user namespace of its own that has one user, 1000, and no capability in any namespace. On the host
//! that is the instance's own id (as root), or the ordinary user who runs the platform.
#![allow(unsafe_code)]

use std::{fs, io, path::Path, ptr};

use nexushub_agent::APP_ID;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::{prctl, signal::SigSet, signal::Signal};
use nix::unistd::{Gid, Pid, Uid, getgid, getppid, getuid, setgroups, setresgid, setresuid};
use nix::{errno::Errno, libc};

/// Descriptors that a VMM may have: the guest's open files are among them.
const DESCRIPTORS: u64 = 1 << 16;

/// User and group of the VMM on the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// It is another one than ours.
    pub(crate) foreign: bool,
}

impl Owner {
    /// From `--uid`, without which root does not start a VMM.
    pub(crate) fn of(base: Option<u32>) -> io::Result<Self> {
        let root = getuid().is_root() && maps_everybody();
        match base {
            Some(base) => Ok(Self { uid: base + APP_ID, gid: base + APP_ID, foreign: true }),
            None if root => Err(io::Error::other("root needs --uid: a virtual machine never runs as root")),
            None => Ok(Self { uid: getuid().as_raw(), gid: getgid().as_raw(), foreign: false }),
        }
    }
}

/// Whether ids are the host's here.
fn maps_everybody() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().nth(2) == Some("4294967295"))
}

/// In the VMM's process: new namespaces, in which nobody is mapped yet.
pub(crate) fn part() -> io::Result<()> {
    let spaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWNET;
    unshare(spaces)
        .map_err(|error| io::Error::other(format!("could not make its namespaces: {}", error.desc())))
}

/// In the keeper: says who user 1000 of that process is.
pub(crate) fn map(process: Pid, owner: Owner) -> io::Result<()> {
    let folder = Path::new("/proc").join(process.to_string());
    let write = |name: &str, text: String| {
        fs::write(folder.join(name), text)
            .map_err(|error| io::Error::other(format!("could not write the VMM's {name}: {error}")))
    };
    if !owner.foreign {
        write("setgroups", "deny".into())?;
    }
    write("uid_map", format!("{APP_ID} {} 1", owner.uid))?;
    write("gid_map", format!("{APP_ID} {} 1", owner.gid))
}

/// In the VMM's process, once it is mapped: becomes that user and nothing else.
pub(crate) fn become_owner(owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(APP_ID), Gid::from_raw(APP_ID));
    // An ordinary user keeps its groups: /dev/kvm may be open to one of them.
    let groups = if owner.foreign { setgroups(&[]) } else { Ok(()) };
    groups.and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid))?;
    no_capabilities()?;
    prctl::set_no_new_privs()?;
    prctl::set_thp_disable(true)?; // a guest of 128 MB costs 8 MB less
    prctl::set_pdeathsig(Signal::SIGKILL)?; // after the change of user, which would undo it
    SigSet::empty().thread_set_mask()?;
    if getppid().as_raw() != 1 {
        return Err(io::Error::other("its keeper is gone"));
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let files = hard.min(DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Gives up every capability. The change of user does not: this namespace has no root to change from.
fn no_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        process: i32,
    }
    let header = Header { version: 0x2008_0522, process: 0 };
    let none = [0_u32; 6];
    // SAFETY: the header is of version 3, for which the kernel reads two sets of three words.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, ptr::from_ref(&header), none.as_ptr()) })?;
    Ok(())
}
