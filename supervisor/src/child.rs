//! Starting a program from a held executable. Between fork and exec only system calls run, on memory that was prepared
//! before.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::{fs::File, io, io::Write, iter::once, path::Path, ptr};

use nexushub_launch::fds::FIRST;
use nix::libc::{self, c_char};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, setpgid};

/// Exit code of a child that could not become the program.
pub(crate) const NOT_EXECUTED: i32 = 127;
/// Variables that carry the child's pid; its digits are filled in after the fork.
const PID_SLOTS: [&str; 2] = ["LISTEN_PID=", "WATCHDOG_PID="];

/// What is to be started.
pub(crate) struct Program<'a> {
    pub(crate) exe: &'a File,
    pub(crate) args: &'a [&'a str],
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) folder: &'a Path,
    /// Inherited descriptors with their names, from number 3 on.
    pub(crate) fds: &'a [(&'a str, BorrowedFd<'a>)],
    /// Seconds after which it dies by SIGALRM; 0 = never.
    pub(crate) alarm: u32,
}

impl Program<'_> {
    /// Forks and execs. The child dies with us, has a process group of its own, and no signal blocked or ignored.
    pub(crate) fn start(self) -> io::Result<Pid> {
        let names = self.fds.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(":");
        let listen = [("LISTEN_FDS", self.fds.len().to_string().into()), ("LISTEN_FDNAMES", names.into())];
        let plain = self.env.into_iter().chain(listen);
        let plain = plain.map(|(name, value)| [name.as_bytes(), b"=", &value.into_vec(), b"\0"].concat());
        let slots = PID_SLOTS.map(|slot| [slot.as_bytes(), &[0; 11]].concat());
        let mut env: Vec<_> = slots.into_iter().chain(plain).collect();
        let args = self.args.iter().map(|arg| CString::new(*arg)).collect::<Result<Vec<_>, _>>()?;
        let args: Vec<_> = args.iter().map(|arg| arg.as_ptr()).chain(once(ptr::null())).collect();
        let (mut pointers, parent) = (vec![ptr::null::<c_char>(); env.len() + 1], getpid());
        let fds = self.fds.iter().map(|(_, fd)| fd.as_raw_fd());
        let mut fds: Vec<_> = fds.chain(once(self.exe.as_raw_fd())).collect();
        let folder = CString::new(self.folder.as_os_str().as_bytes())?;
        // SAFETY: this process has one thread, and the child makes nothing but system calls on memory allocated above.
        if let ForkResult::Parent { child } = unsafe { fork() }? {
            return Ok(child);
        }
        for (slot, entry) in PID_SLOTS.iter().zip(&mut env) {
            let _ = write!(&mut entry[slot.len()..], "{}", getpid());
        }
        pointers.iter_mut().zip(&env).for_each(|(pointer, entry)| *pointer = entry.as_ptr().cast());
        // SAFETY: this is the child, with one thread; all pointers are to null-terminated strings and arrays owned above.
        unsafe {
            if settle(parent, self.alarm) && libc::chdir(folder.as_ptr()) == 0 && place(&mut fds) {
                let exe = fds[fds.len() - 1];
                let (empty, args, env) = (c"".as_ptr(), args.as_ptr(), pointers.as_ptr());
                libc::syscall(libc::SYS_execveat, exe, empty, args, env, libc::AT_EMPTY_PATH);
            }
            libc::_exit(NOT_EXECUTED)
        }
    }
}

/// Ties the child to its parent and its parent's terminal no longer to it.
///
/// # Safety
/// Only in a child just forked.
unsafe fn settle(parent: Pid, alarm: u32) -> bool {
    for signal in 1..32 {
        // SAFETY: resetting a disposition touches no memory of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: a plain system call.
    unsafe { libc::alarm(alarm) };
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).is_ok()
        && prctl::set_pdeathsig(Signal::SIGKILL).is_ok()
        && getppid() == parent // it may have died before the line above
        && SigSet::empty().thread_set_mask().is_ok()
}

/// Moves the descriptors to their numbers, first all of them out of the way; the last one, the executable, stays there.
///
/// # Safety
/// Only in a child just forked: descriptors that are open under these numbers are closed.
unsafe fn place(fds: &mut [RawFd]) -> bool {
    let above = FIRST + fds.len() as RawFd;
    // SAFETY: plain system calls on numbers.
    let raised = fds.iter_mut().all(|fd| unsafe {
        *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, above);
        *fd >= above
    });
    // SAFETY: as above.
    raised && (FIRST..above - 1).zip(&*fds).all(|(number, fd)| unsafe { libc::dup2(*fd, number) == number })
}
