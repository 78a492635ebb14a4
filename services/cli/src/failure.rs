//! Why a command failed: what happened, to which object, and what to do next; and the exit codes.

use std::{fmt, io, path::Path};

use nexushub_launch::{Fault, config::ConfigError};

/// Everything is as it should be.
pub(crate) const OK: u8 = 0;
/// Something failed.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong; clap says the same.
pub(crate) const USAGE: u8 = 2;

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What happened, to which object.
    pub(crate) message: String,
    /// What to do next; may be empty.
    pub(crate) hint: String,
    /// The exit code.
    pub(crate) code: u8,
    /// Whether it may be otherwise in a moment: nobody answered.
    pub(crate) passing: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), code: FAILURE, passing: false }
    }

    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(message, hint) }
    }

    /// A file or folder that could not be dealt with.
    pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "run this as the user that owns it, or as root",
            io::ErrorKind::StorageFull => "free some space",
            _ => "check the path",
        };
        Self::new(format!("could not {what} {}: {error}", path.display()), hint)
    }

    /// The reader of our output is gone: nothing to say, and nobody to say it to.
    pub(crate) fn unread() -> Self {
        Self::new("", "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n  {}", self.hint) }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::new(format!("{}: {}", fault.object, fault.msg), fault.hint)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Fault::from(error).into()
    }
}
