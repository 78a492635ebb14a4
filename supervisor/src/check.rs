//! `--check`: a daemon judges its own configuration, certificates and files before it is started from them. The error line is
//! the daemon's, on the stderr that it shares with us.

use nexushub_launch::Fault;
use nexushub_launch::daemon::{DAEMONS, Daemon};
use nexushub_launch::fault::{EXIT_FAILURE, EXIT_USAGE};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::child::{NOT_EXECUTED, Program};
use crate::site::{Build, Site};

/// Starts a check; an alarm ends it in bounded time.
pub(crate) fn begin(site: &Site, daemon: &Daemon, build: &Build) -> Result<Pid, Fault> {
    let args = &[&*format!("nexushub-{}", daemon.name), "--check"];
    let (env, alarm) = (site.env(daemon, site.config.path.clone()), site.settings.check_timeout_s.max(1));
    let program = Program { exe: &build.exe, args, env, folder: &site.config.root, fds: &[], alarm };
    program.start().map_err(|error| lost(daemon, &error.to_string()))
}

/// The exit code of a check that judged; a fault if it could not.
pub(crate) fn verdict(daemon: &Daemon, status: WaitStatus) -> Result<u8, Fault> {
    match status {
        WaitStatus::Exited(_, 0) => Ok(0),
        WaitStatus::Exited(_, 1) => Ok(EXIT_FAILURE),
        WaitStatus::Exited(_, 64) => Ok(EXIT_USAGE),
        WaitStatus::Exited(_, NOT_EXECUTED) => Err(lost(daemon, "program can't be executed on this machine")),
        status => Err(lost(daemon, &format!("check did not end as it should: {status:?}"))),
    }
}

/// Checks every daemon, all at once; the first bad exit code, or 0.
pub(crate) fn all(site: &Site, builds: &[Build]) -> Result<u8, Fault> {
    let checks = DAEMONS.iter().zip(builds).map(|(daemon, build)| (daemon, begin(site, daemon, build)));
    let checks: Vec<_> = checks.collect(); // all run at once
    let end = |(daemon, check): (&Daemon, Result<Pid, Fault>)| {
        verdict(daemon, waitpid(check?, None).map_err(|error| lost(daemon, error.desc()))?)
    };
    let verdicts: Vec<_> = checks.into_iter().map(end).collect(); // every check ends before we do
    verdicts.into_iter().find(|verdict| *verdict != Ok(0)).unwrap_or(Ok(0))
}

fn lost(daemon: &Daemon, msg: &str) -> Fault {
    let object = format!("nexushub-{}", daemon.name);
    Fault::new("check_failed", msg, object, "run it by hand with --check; see supervisor.check_timeout_s")
}
