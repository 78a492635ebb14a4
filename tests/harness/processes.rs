//! Processes that the harness did not start: held by pidfd, so that a signal never reaches a stranger that got the number.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};

/// One process, by a handle that stays its own.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    fd: OwnedFd,
}

impl Process {
    /// The process that has this number now; none if there is none.
    #[must_use]
    pub fn open(pid: u32) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(raw, PidfdFlags::empty()).ok().map(|fd| Self { pid, fd })
    }

    /// Sends a signal; a process that is gone has no more use for it.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.fd, signal).ok();
    }

    /// Waits for its end; false when the deadline passed first.
    #[must_use]
    pub fn ended_within(&self, deadline: Duration) -> bool {
        let deadline = Timespec::try_from(deadline).ok(); // what can't be written is for ever
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, deadline.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Kills it and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        assert!(self.ended_within(crate::HANG), "process {} did not die", self.pid);
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended_within(Duration::ZERO)
    }

    /// Its descriptor, to be polled with others.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Every process of the machine, by number.
#[must_use]
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes that work below a folder, name it in their command line or, as shims do, hold files there: all of one
/// platform.
#[must_use]
pub fn below(folder: &Path) -> Vec<u32> {
    let name = folder.as_os_str().as_encoded_bytes();
    let names = |pid: u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(name.len()).any(|part| part == name))
    };
    let works = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let holds = |pid: u32| {
        let ours =
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("nexushub"));
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        ours && fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| target.starts_with(folder))
    };
    let others = all().into_iter().filter(|pid| *pid != std::process::id() && !is_zombie(*pid));
    others.filter(|pid| works(*pid) || names(*pid) || holds(*pid)).collect()
}

/// The executables of the processes below a folder.
#[must_use]
pub fn programs_below(folder: &Path) -> BTreeMap<u32, String> {
    below(folder).into_iter().map(|pid| (pid, command(pid))).collect()
}

/// A process's command line, words joined by blanks.
#[must_use]
pub fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()
}

/// The processes whose executable lies below a folder: the apps of a platform.
#[must_use]
pub fn running_from(folder: &Path) -> Vec<u32> {
    let runs = |pid: u32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe: PathBuf| exe.starts_with(folder))
    };
    all().into_iter().filter(|pid| !is_zombie(*pid) && runs(*pid)).collect()
}

/// One field of `/proc/<pid>/status`.
#[must_use]
pub fn field(pid: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
}

/// So many KiB of a process's memory, as a field of its status says it.
///
/// # Panics
/// When it doesn't.
#[must_use]
pub fn kib(pid: u32, name: &str) -> usize {
    let said = field(pid, name).unwrap_or_else(|| panic!("process {pid} says nothing of {name}"));
    said.trim_end_matches(" kB").trim().parse().unwrap()
}

/// Has the peak of a process's memory (`VmHWM`) count from now on, and gives what it has now, in KiB. Who may not ask for that has
/// the peak of its whole life.
#[must_use]
pub fn forget_peak(pid: u32) -> usize {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").ok();
    kib(pid, "VmRSS")
}

/// The process's parent.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    field(pid, "PPid")?.parse().ok()
}

fn is_zombie(pid: u32) -> bool {
    field(pid, "State").is_none_or(|state| state.starts_with('Z') || state.starts_with('X'))
}
