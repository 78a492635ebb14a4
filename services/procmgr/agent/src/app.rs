//! The app: how it is started, and what becomes of its processes.
#![allow(unsafe_code)]

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};
use std::{fs, fs::File, io, path::Path};

use nexushub_agent::config::{Config, variable};
use nexushub_agent::{APP_ID, word::End};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::{prctl, signal::Signal, signal::kill};
use nix::{errno::Errno, libc, unistd::Pid};

/// Starts the app's main process as an ordinary user and says its id.
pub(crate) fn start(config: &Config) -> io::Result<u32> {
    let Some((program, args)) = config.args.split_first() else {
        return Err(io::Error::other("there is no program"));
    };
    let [stdout, stderr] = [port("krun-stdout")?, port("krun-stderr")?];
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(config.env.iter().map(|entry| variable(entry)));
    command.current_dir("/app").stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    command.uid(APP_ID).gid(APP_ID).process_group(0); // from root: without further groups and without capabilities
    let bounds = [(Resource::RLIMIT_NOFILE, config.open_files), (Resource::RLIMIT_NPROC, config.processes)];
    // SAFETY: only system calls, no allocation, between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (resource, most) in bounds.into_iter().filter(|(_, most)| *most > 0) {
                setrlimit(resource, most, most)?;
            }
            setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
            Ok(prctl::set_no_new_privs()?)
        });
    }
    let child = command.spawn().map_err(|error| {
        io::Error::other(format!("could not start {}: {error}", Path::new(program).display()))
    })?;
    Ok(child.id())
}

/// Waits until some child has ended; nobody's children are this process's.
pub(crate) fn reap() -> nix::Result<(u32, End)> {
    let mut status = 0;
    // SAFETY: waitpid writes to the integer that it is given. (nix's own refuses real-time signals after having reaped.)
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, 0) })?;
    let status = ExitStatus::from_raw(status);
    let end = status.code().map_or_else(|| End::Signal(status.signal().unwrap_or_default()), End::Code);
    Ok((pid.cast_unsigned(), end))
}

/// Signals every process but this one; the kernel's own threads ignore it.
pub(crate) fn signal(signal: Signal) {
    let _ = kill(Pid::from_raw(-1), signal);
}

/// The port of the console with this name, for writing. There is no udev that would name its device.
fn port(name: &str) -> io::Result<File> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
            return File::options().write(true).open(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::other(format!("there is no port {name}")))
}
