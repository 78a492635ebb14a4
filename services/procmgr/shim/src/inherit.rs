//! What the shim was started with, taken out of the way before anything else happens.
#![allow(unsafe_code)]

use std::io::{self, Read as _, stderr, stdin, stdout};
use std::{fs::File, os::fd::AsFd as _, os::fd::OwnedFd};

use nexushub_shim::spec::{MAX_BYTES, Spec};
use nix::{errno::Errno, libc, unistd::dup2_stderr, unistd::dup2_stdin, unistd::dup2_stdout};

/// Takes the spec and moves lock and port reservation away (see `nexushub_shim::spawn`). Everything else that leaked in is
/// closed. The two are to be kept for as long as the shim lives; no app gets at them. On an error the standard descriptors
/// are still as they were.
pub(crate) fn take() -> io::Result<(Spec, [OwnedFd; 2])> {
    // SAFETY: first thing in main, so nothing in this process owns a descriptor above the standard ones.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) })?;
    let mut bytes = Vec::new();
    stdin().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let spec = Spec::decode(&bytes)?;
    let (lock, port) = (stdout().as_fd().try_clone_to_owned()?, stderr().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null))?;
    Ok((spec, [lock, port]))
}
