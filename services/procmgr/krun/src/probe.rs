//! Whether a microVM boots here. A `/dev/kvm` that opens proves nothing, nor does a virtual machine that can be made: some
//! machines interpret what a guest's kernel does. So a guest boots, with nothing but the agent in it, and says so, in time;
//! but not before a short loop has told that it could be in time.
#![allow(unsafe_code)]

use std::{fs, io, process::ExitCode, time::Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getgid, getuid};
use nix::{libc, sys::prctl, sys::signal::Signal};

use nexushub_agent::word::End;

use crate::args::Options;
use crate::watch::Outcome;
use crate::{keeper, speed};

const MEMORY_MIB: u32 = 64;
/// As root the VMM becomes the host's nobody: 65534 = this and the thousandth after it.
const NOBODY: u32 = 64_534;

/// Boots a guest and prints `ok`, or one line why it did not; the code is 0 or 1.
pub(crate) fn main(options: &Options) -> ExitCode {
    let tied = tie();
    let booted = tied.and_then(|()| apart(|| quick(options))).and_then(|quick| {
        if quick {
            space()?;
        }
        Ok(quick && apart(|| boots(options))?)
    });
    match booted {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Does this in a process of its own, which leaves nothing behind in this one, and says its answer.
fn apart(work: impl FnOnce() -> bool) -> io::Result<bool> {
    // SAFETY: this process has one thread: no lock is held by another.
    match (unsafe { fork() })? {
        ForkResult::Parent { child } => Ok(matches!(waitpid(child, None)?, WaitStatus::Exited(_, 0))),
        ForkResult::Child => {
            let code = i32::from(tie().is_err() || !work());
            // SAFETY: ends the child; what it printed is flushed, line by line.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Nothing of a trial outlives who asked for it.
fn tie() -> io::Result<()> {
    Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
}

fn quick(options: &Options) -> bool {
    let judged = speed::judge(options.boot);
    judged.as_ref().err().iter().for_each(|reason| println!("{reason}"));
    judged.is_ok()
}

/// The namespaces that a shim would have made.
fn space() -> io::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    let mut spaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET;
    if !uid.is_root() {
        spaces |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(spaces)
        .map_err(|error| io::Error::other(format!("could not make namespaces: {}", error.desc())))?;
    if uid.is_root() {
        return Ok(());
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn boots(options: &Options) -> bool {
    let start = Instant::now();
    let mut options = Options {
        memory_mib: MEMORY_MIB,
        kernel: options.kernel.clone(),
        boot: options.boot,
        silence: options.boot,
        uid: options.uid,
        ..Options::default()
    };
    if getuid().is_root() {
        options.uid = options.uid.or(Some(NOBODY));
    }
    let said = match keeper::keep(&options) {
        Ok(Outcome::End(End::Code(0))) if start.elapsed() <= options.boot * 2 => None,
        Ok(Outcome::End(_)) => Some("the trial guest did not do as it was told".into()),
        Ok(Outcome::Reason(reason)) => Some(reason),
        Err(error) => Some(error.to_string()),
    };
    println!("{}", said.as_deref().unwrap_or("ok"));
    said.is_none()
}
