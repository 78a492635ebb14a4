//! The two files that a machine is made of beside the app's: the agent and the library with the guest's kernel.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const AGENT: &str = "nexushub-agent";
const KERNEL: &str = "libkrunfw.so.5";
/// Where `dist/libkrunfw` puts it for everybody.
const SHARED: &str = "/usr/lib/nexushub";

/// The agent's program, which is installed beside this one.
pub(crate) fn agent() -> io::Result<Vec<u8>> {
    let path = beside()?.join(AGENT);
    fs::read(&path).map_err(|error| match error.kind() {
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

fn missing() -> io::Error {
    io::Error::other(format!("there is no guest kernel ({KERNEL}): fetch it with dist/libkrunfw"))
}

fn beside() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
}
