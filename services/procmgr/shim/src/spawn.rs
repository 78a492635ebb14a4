//! How the process manager starts a shim, and what the shim finds: three inherited descriptors and nothing else.
//!
//! ```text
//! 0  the spec, in memory    1  the locked lock file    2  the port's reservation, or /dev/null
//! ```
//! They are the three standard ones because the standard library moves just those safely from a parent with threads:
//! no code of ours runs between fork and exec. The shim moves them away at once and has `/dev/null` there.

use std::os::{fd::OwnedFd, unix::process::CommandExt as _};
use std::process::{Child, Command, Stdio};
use std::{fs::File, io, io::Seek as _, io::Write as _, path::Path};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::spec::Spec;

/// Name of the lock file in the generation's folder; locked (flock) by the manager before the intent is written, and free
/// again only when manager and shim have both let go of it.
pub const LOCK: &str = "lock";

/// Starts a shim. Its environment is empty; its arguments show instance and generation. `shim` may be
/// `/proc/self/fd/<n>` of a held executable. The caller's descriptors of lock and port are closed: from now on they live
/// as long as the shim.
///
/// The shim is the caller's child until the caller ends: it has to be waited for, or stays a zombie (whose lock is free).
/// Dropping the [`Child`] neither ends nor reaps it.
///
/// # Errors
/// When the spec can't be passed on or the shim can't be started; the lock is then free.
pub fn launch(shim: &Path, spec: &Spec, lock: OwnedFd, port: Option<OwnedFd>) -> io::Result<Child> {
    let mut memory = File::from(memfd_create("nexushub-spec", MFdFlags::MFD_CLOEXEC)?);
    memory.write_all(&spec.encode()?)?;
    memory.rewind()?;
    let mut command = Command::new(shim);
    command.arg0("nexushub-shim").arg(&spec.instance).arg(spec.generation.to_string()).env_clear();
    command.stdin(memory).stdout(lock).stderr(port.map_or_else(Stdio::null, Stdio::from));
    command.spawn()
}
