//! Sockets that the parent bound and this process inherited (`sd_listen_fds(3)`).
#![allow(unsafe_code)]

use std::{
    env, io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Number of the first inherited descriptor.
pub const FIRST: RawFd = 3;

/// Takes the inherited descriptors with their names, and closes them on exec. To be called before any thread exists; a
/// second call gets none.
///
/// # Errors
/// When a descriptor that the environment promises isn't open.
pub fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let var = |name| env::var(name).unwrap_or_default();
    let names = promised(&var("LISTEN_PID"), &var("LISTEN_FDS"), &var("LISTEN_FDNAMES"), std::process::id());
    names.into_iter().zip(FIRST..).map(|(name, fd)| Ok((name, own(fd)?))).collect()
}

fn own(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the parent promised this descriptor to this very process, nobody took it before (TAKEN), and fcntl below
    // proves that it is open before anybody uses it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    match fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Ok(_) => Ok(owned),
        Err(error) => {
            std::mem::forget(owned); // not open, so not ours to close
            Err(error.into())
        }
    }
}

/// The names of the promised descriptors; unnamed ones are called `unknown`, as systemd does.
fn promised(listen_pid: &str, count: &str, names: &str, pid: u32) -> Vec<String> {
    if listen_pid.parse() != Ok(pid) {
        return Vec::new();
    }
    let count = count.parse::<usize>().unwrap_or(0).min(1024);
    let mut names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned);
    (0..count).map(|_| names.next().unwrap_or_else(|| "unknown".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_meant_for_this_process_is_taken() {
        assert_eq!(promised("7", "2", "grpc:https", 7), ["grpc", "https"]);
        assert_eq!(promised("8", "2", "grpc:https", 7), [""; 0]);
        assert_eq!(promised("7", "2", "grpc", 7), ["grpc", "unknown"]);
        assert_eq!(promised("", "x", "", 7), [""; 0]);
    }
}
