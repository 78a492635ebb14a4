//! Processes that we did not start, held by descriptor: a pid alone may be somebody else's by the time it is signalled. A pid and
//! the time at which its process started name one process for good; a pidfd opened before both are compared is that process.

use std::{io, os::fd::OwnedFd, time::Duration};

use nexushub_launch::clock;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};

pub(crate) use rustix::process::Signal;

/// One process, whatever becomes of its pid.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: OwnedFd,
    pub(crate) pid: u32,
}

impl Process {
    /// The process of this pid that started then; none when there is no such process (any more).
    pub(crate) fn open(pid: u32, start_time: u64) -> Option<Self> {
        let process = Self::open_any(pid).ok()?;
        (clock::start_time(pid).ok()? == start_time).then_some(process)
    }

    /// The process that has this pid now; for a child of our own that was not waited for.
    pub(crate) fn open_any(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a pid"))?;
        Ok(Self { pidfd: pidfd_open(raw, PidfdFlags::empty())?, pid })
    }

    /// Sends a signal; a process that is gone needs none.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Waits for its end; whether it came in time.
    pub(crate) fn ended_within(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).ok();
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, patience.as_ref()).is_ok_and(|ended| ended > 0)
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        !self.ended_within(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        let me = std::process::id();
        let started = clock::start_time(me).unwrap();
        assert!(Process::open(me, started).unwrap().is_alive());
        assert!(Process::open(me, started + 1).is_none());
        assert!(Process::open(0, started).is_none());
        assert!(Process::open(u32::MAX, started).is_none());
    }

    #[test]
    fn a_process_that_was_signalled_is_seen_to_end() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::open_any(child.id()).unwrap();
        process.signal(Signal::TERM).unwrap();
        assert!(process.ended_within(Duration::from_secs(20)));
        child.wait().unwrap();
        process.signal(Signal::TERM).unwrap();
    }
}
