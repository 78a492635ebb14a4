//! Why something could not start, for people and for programs: one JSON line, one exit code.

use std::{error::Error, fmt, time::SystemTime};

use crate::{clock, json::Object};

/// Exit code of a failure.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code of a bad configuration or command line (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// A reason not to start, or to stop: what happened, to which object, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For programs: `certificate_expired`.
    pub code: &'static str,
    /// For people, lower case: what happened.
    pub msg: String,
    /// What it happened to: a path, an address, a key.
    pub object: String,
    /// What to do next; may be empty.
    pub hint: String,
    /// The process's exit code.
    pub exit: u8,
}

impl Fault {
    /// A failure (exit code 1).
    #[must_use]
    pub fn new(
        code: &'static str,
        msg: impl Into<String>,
        object: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { code, msg: msg.into(), object: object.into(), hint: hint.into(), exit: EXIT_FAILURE }
    }

    /// The line that is printed before the process exits; no newline.
    #[must_use]
    pub fn to_json_line(&self, daemon: &str) -> String {
        Object::new()
            .text("ts", &clock::rfc3339(SystemTime::now()))
            .text("level", "error")
            .text("daemon", daemon)
            .text("release", env!("CARGO_PKG_VERSION"))
            .text("msg", &self.msg)
            .text("code", self.code)
            .text("object", &self.object)
            .text("hint", &self.hint)
            .finish()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.msg, self.object)
    }
}

impl Error for Fault {}
