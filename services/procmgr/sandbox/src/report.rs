//! What goes out of the box: how the app ended, or one line on why it could not be started.
#![allow(unsafe_code)]

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::{fmt, fs::File, io, io::Write as _};

use nix::{errno::Errno, libc};

/// The descriptor that the shim leaves for the report.
const NUMBER: i32 = 3;
/// The code of an app that could not be started, as shells have it.
const NOT_STARTED: u8 = 127;

/// Why something could not be done: `could not mount /proc: Operation not permitted`. One line.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    /// A reason in these words.
    pub fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string().replace('\n', " "))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what could not be done when it could not.
pub trait Because<T> {
    /// `could not <what>: <cause>`.
    ///
    /// # Errors
    /// When it could not be done.
    fn because<W: fmt::Display>(self, what: impl FnOnce() -> W) -> Result<T, Reason>;
}

impl<T, E: Into<io::Error>> Because<T> for Result<T, E> {
    fn because<W: fmt::Display>(self, what: impl FnOnce() -> W) -> Result<T, Reason> {
        self.map_err(|error| {
            let error = error.into();
            let cause =
                error.raw_os_error().map_or_else(|| error.to_string(), |n| Errno::from_raw(n).desc().into());
            Reason::new(format_args!("could not {}: {cause}", what()))
        })
    }
}

/// Where the report goes.
pub struct Report(Option<File>);

impl Report {
    /// The inherited descriptor, or standard error when there is none; every descriptor above it is closed.
    #[must_use]
    pub fn take() -> Self {
        // SAFETY: the program has just begun: nothing in it owns a descriptor yet.
        let held = unsafe {
            libc::syscall(libc::SYS_close_range, NUMBER + 1, u32::MAX, 0);
            libc::fcntl(NUMBER, libc::F_SETFD, libc::FD_CLOEXEC) == 0
        };
        // SAFETY: as above; whoever has it from here on is its one owner.
        let inherited = held.then(|| unsafe { File::from_raw_fd(NUMBER) });
        let copy = || {
            io::stderr().as_fd().try_clone_to_owned().or_else(|_| File::create("/dev/null").map(Into::into))
        };
        Self(inherited.or_else(|| copy().ok().map(File::from)))
    }

    /// In a process that is not to hold it.
    pub(crate) fn close(&self) {
        if let Some(file) = &self.0 {
            // SAFETY: the process is a fork that execs or exits, so that the owner is never dropped there.
            unsafe { libc::close(file.as_raw_fd()) };
        }
    }

    fn tell(self, text: &dyn fmt::Display) {
        let _ = self.0.map(|mut file| file.write_all(format!("{text}\n").as_bytes()));
    }

    /// A report to a pipe of one's own.
    #[must_use]
    pub fn to(file: File) -> Self {
        Self(Some(file))
    }

    /// Tells why the app could not be started.
    #[must_use]
    pub fn failed(self, reason: &Reason) -> ExitCode {
        self.tell(reason);
        ExitCode::from(NOT_STARTED)
    }

    /// Tells how the app ended.
    #[must_use]
    pub fn ended(self, status: ExitStatus) -> ExitCode {
        let (text, code) = match (status.code(), status.signal()) {
            (Some(code), _) => (format!("code={code}"), code),
            (None, signal) => (format!("signal={}", signal.unwrap_or(0)), 128 + signal.unwrap_or(0)),
        };
        self.tell(&text);
        ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_object_and_cause_in_one_line() {
        let failed: nix::Result<()> = Err(Errno::EPERM);
        let reason = failed.because(|| "mount\n/proc").err().map(|reason| reason.to_string());
        assert_eq!(reason.as_deref(), Some("could not mount /proc: Operation not permitted"));
    }
}
