//! How a generation ended, as far as anybody saw it.

use std::fmt;

use nexushub_proto::procmgr;
use nexushub_shim::exit::End;

/// The ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It exited.
    Code(i32),
    /// It was killed.
    Signal(i32),
    /// Its shim was killed with it.
    Lost,
}

/// The ending, its time, and why if it was never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The ending.
    pub how: How,
    /// When, wall clock; for a lost one, when that was noticed.
    pub unix_ms: i64,
    /// Why the app could not be executed at all.
    pub reason: Option<String>,
    /// The bound on its memory, in bytes, if the kernel killed some of it shortly before for reaching that.
    pub out_of_memory: Option<u64>,
    /// The last lines that it logged; empty where there are none, or nobody looked.
    pub last_words: String,
}

impl Exit {
    /// As it goes over the wire.
    pub(crate) fn to_proto(&self) -> procmgr::Exit {
        let how = match self.how {
            How::Code(code) => procmgr::exit::How::Code(code),
            How::Signal(signal) => procmgr::exit::How::Signal(signal),
            How::Lost => procmgr::exit::How::Lost(true),
        };
        procmgr::Exit { how: Some(how), unix_ms: self.unix_ms }
    }
}

impl How {
    /// Whether the kernel may have ended it: by SIGKILL, seen directly or through a shell that ran it.
    fn may_be_a_kill(self) -> bool {
        matches!(self, Self::Signal(9) | Self::Code(137) | Self::Lost)
    }
}

impl From<nexushub_shim::exit::Exit> for Exit {
    fn from(exit: nexushub_shim::exit::Exit) -> Self {
        let how = match exit.end {
            End::Code(code) => How::Code(code),
            End::Signal(signal) => How::Signal(signal),
            End::Lost => How::Lost,
        };
        Self {
            how,
            unix_ms: exit.unix_ms,
            reason: exit.reason,
            out_of_memory: None,
            last_words: String::new(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.reason {
            return f.write_str(reason);
        }
        match self.out_of_memory.map(|bound| bound >> 20) {
            Some(bound) if self.how.may_be_a_kill() => {
                write!(f, "out of memory: its bound is {bound} MiB ({})", self.how)
            }
            Some(bound) => {
                write!(
                    f,
                    "{}; shortly before, some of it was killed at its bound of {bound} MiB memory",
                    self.how
                )
            }
            None => self.how.fmt(f),
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => write!(f, "killed by {name}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::Lost => f.write_str("killed together with its shim"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_read_as_sentences() {
        let exit =
            |how| Exit { how, unix_ms: 0, reason: None, out_of_memory: None, last_words: String::new() };
        let text = |how| exit(how).to_string();
        assert_eq!(text(How::Code(3)), "exited with code 3");
        assert_eq!(text(How::Signal(9)), "killed by SIGKILL");
        assert_eq!(text(How::Signal(40)), "killed by signal 40");
        assert_eq!(text(How::Lost), "killed together with its shim");
        let starved = Exit { out_of_memory: Some(512 << 20), ..exit(How::Signal(9)) };
        assert_eq!(starved.to_string(), "out of memory: its bound is 512 MiB (killed by SIGKILL)");
        let bereaved = Exit { out_of_memory: Some(512 << 20), ..exit(How::Code(3)) };
        assert_eq!(
            bereaved.to_string(),
            "exited with code 3; shortly before, some of it was killed at its bound of 512 MiB memory"
        );
    }
}
