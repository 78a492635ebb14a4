//! Starts the app. The shim has one thread, so between fork and exec the child may do anything.
//!
//! ```text
//! fork ─► child: folder, pipes, signals, die-with-parent ─► waits at the gate ─► exec
//!      └► shim: completes the record on disk ───────────────────► opens the gate
//! ```
//! A shim that ends before it opened the gate leaves no app behind.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::{fd::OwnedFd, unix::ffi::OsStrExt as _};
use std::{convert::Infallible, fs::File, io, io::Read as _, io::Write as _, iter, mem};

use crate::entrance;
use nexushub_shim::{control::REPORT, spec::Spec};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{self, ForkResult, dup2_stderr, dup2_stdout, execve, fork, pipe2};
use nix::{libc, sys::prctl, sys::signal::SigSet, sys::signal::Signal};

/// The code of an app that could not be started, as shells have it.
pub(crate) const NOT_STARTED: i32 = 127;

/// The app's main process, held at the gate.
pub(crate) struct App {
    pub(crate) pid: u32,
    /// Standard output and error, non-blocking.
    pub(crate) outputs: [File; 2],
    /// A byte lets it begin, the end of the file lets it end.
    pub(crate) gate: File,
    /// Why it could not be started, or the report of a box; non-blocking, empty when there is nothing to say.
    pub(crate) failure: File,
}

/// Forks the app's process.
pub(crate) fn start(spec: &Spec) -> io::Result<App> {
    let [(stdout, stdout_end), (stderr, stderr_end)] = [pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?];
    let [(failure, failure_end), (gate_end, gate)] = [pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?];
    for end in [&stdout, &stderr, &failure] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    // SAFETY: this process has one thread: no lock is held by another.
    let ForkResult::Parent { child } = (unsafe { fork() })? else {
        drop(gate);
        let Err(error) = become_app(spec, [stdout_end, stderr_end], gate_end, &failure_end);
        let _ = File::from(failure_end).write_all(error.to_string().as_bytes());
        // SAFETY: ends the child at once; nothing of the shim's is run or flushed a second time.
        unsafe { libc::_exit(NOT_STARTED) }
    };
    let _ = unistd::setpgid(child, child); // before the gate opens, so that the group exists whenever it is signalled
    let outputs = [stdout.into(), stderr.into()];
    Ok(App { pid: child.as_raw().cast_unsigned(), outputs, gate: gate.into(), failure: failure.into() })
}

/// In the child: becomes the app or says why not.
fn become_app(
    spec: &Spec,
    outputs: [OwnedFd; 2],
    gate: OwnedFd,
    failure: &OwnedFd,
) -> io::Result<Infallible> {
    let [stdout, stderr] = outputs;
    tell(unistd::chdir(&spec.cwd), || format!("enter {}", spec.cwd.display()))?;
    tell(dup2_stdout(stdout).and_then(|()| dup2_stderr(stderr)), || "connect its output".into())?;
    // Without it a set-uid program below the app could be neither tied to the shim's life nor ended by it.
    tell(prctl::set_no_new_privs(), || "renounce privileges".into())?;
    // The shim may be gone already: then the gate never opens.
    tell(prctl::set_pdeathsig(Signal::SIGKILL), || "be tied to its shim".into())?;
    tell(SigSet::empty().thread_set_mask(), || "unblock signals".into())?;
    if File::from(gate).read(&mut [0])? == 0 {
        return Err(io::Error::other("could not start: its shim is gone"));
    }
    if spec.boxed {
        tell(entrance::keep_rights(), || "keep its rights".into())?;
        // SAFETY: what has this number in the child is its copy of the lock, which only the shim's own is to hold.
        tell(unsafe { unistd::dup2_raw(failure, REPORT) }.map(mem::forget), || "open its report".into())?;
    }
    let text = |bytes: &[u8]| CString::new(bytes).expect("a spec holds no NUL: it separates its entries");
    let program = text(spec.program.as_os_str().as_bytes());
    let args: Vec<_> =
        iter::once(program.clone()).chain(spec.args.iter().map(|arg| text(arg.as_bytes()))).collect();
    let variable =
        |(name, value): &(OsString, OsString)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat());
    let env: Vec<_> = spec.env.iter().map(variable).collect();
    tell(execve(&program, &args, &env), || format!("start {}", spec.program.display()))
}

/// Says what could not be done.
fn tell<T>(done: nix::Result<T>, what: impl FnOnce() -> String) -> io::Result<T> {
    done.map_err(|error| io::Error::other(format!("could not {}: {}", what(), error.desc())))
}
