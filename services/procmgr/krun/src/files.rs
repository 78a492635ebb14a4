//! The two files that a machine is made of beside the app's: the agent and the library with the guest's kernel.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::{env, fs::File, io, ptr, slice};

use nix::libc;

const AGENT: &str = "nexushub-agent";
const KERNEL: &str = "libkrunfw.so.5";
/// Where `dist/libkrunfw` puts it for everybody.
const SHARED: &str = "/usr/lib/nexushub";

/// The agent's program, which is installed beside this one; mapped, as every machine here holds the same.
pub(crate) fn agent() -> io::Result<&'static [u8]> {
    let path = beside()?.join(AGENT);
    File::open(&path).and_then(|file| mapped(&file)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!(
            "there is no {}: build it with dist/build, on a machine that links statically",
            path.display()
        )),
        _ => io::Error::other(format!("could not read {}: {error}", path.display())),
    })
}

/// The library with the guest's kernel.
pub(crate) fn kernel(named: Option<&Path>) -> io::Result<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_path_buf()).filter(|path| path.is_file()).ok_or_else(missing);
    }
    let mut places = [beside()?, PathBuf::from(SHARED)].into_iter().map(|folder| folder.join(KERNEL));
    places.find(|path| path.is_file()).ok_or_else(missing)
}

/// For ever. Who installs programs puts new files in the place of old ones, so this one never changes.
fn mapped(file: &File) -> io::Result<&'static [u8]> {
    let length = file.metadata()?.len().try_into().map_err(io::Error::other)?;
    // SAFETY: a new mapping of a whole file, which is never unmapped; the slice is as long as the file.
    unsafe {
        let at = libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(slice::from_raw_parts(at.cast::<u8>(), length))
    }
}

fn missing() -> io::Error {
    io::Error::other(format!("there is no guest kernel ({KERNEL}): fetch it with dist/libkrunfw"))
}

fn beside() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
}
