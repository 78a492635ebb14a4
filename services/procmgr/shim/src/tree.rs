//! The app's processes: reaping, and signals to all of them. The shim is a subreaper, so whatever the app starts
//! stays below it. Children are pinned by not being reaped; the rest is signalled in the breath in which it is seen.
#![allow(unsafe_code)]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, id};

use nexushub_shim::identity::{Stat, processes};
use nix::sys::signal::{Signal, kill, killpg};
use nix::{errno::Errno, libc, unistd::Pid};

/// Reaps the next child that has ended. `Ok(None)`: none has yet; an error: there are no children.
pub(crate) fn reap() -> nix::Result<Option<(u32, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: waitpid writes to the integer that it is given. (nix's own refuses real-time signals after having reaped.)
    match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })? {
        0 => Ok(None),
        pid => Ok(Some((pid.cast_unsigned(), ExitStatus::from_raw(status)))),
    }
}

/// SIGTERM to the app's process group, and to what has left the group but not the session, or is an orphan of it. In a box its
/// first process does that.
pub(crate) fn terminate(app: u32, boxed: bool) {
    let first = Pid::from_raw(app.cast_signed());
    if boxed {
        let _ = kill(first, Signal::SIGTERM);
        return;
    }
    let _ = killpg(first, Signal::SIGTERM);
    signal(Signal::SIGTERM, |stat| stat.group != app && (stat.session == id() || stat.parent == id()));
}

/// SIGKILL to every child. Theirs become the shim's, and the end of each is another call: so the whole tree goes.
pub(crate) fn kill_children() {
    signal(Signal::SIGKILL, |stat| stat.parent == id());
}

fn signal(signal: Signal, to: impl Fn(&Stat) -> bool) {
    for (pid, _) in processes().into_iter().flatten().filter(|(pid, stat)| *pid != id() && to(stat)) {
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}
