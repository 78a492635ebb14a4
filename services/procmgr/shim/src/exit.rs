//! The exit record: how a generation ended. It is on disk, durably, before anybody is told.

use std::{fmt, str::FromStr};

use crate::document::document;

/// Name of the exit record in the generation's folder.
pub const FILE: &str = "exit";

/// How an app's main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// Its shim was killed with it: nobody saw how. Written by the process manager.
    Lost,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code={code}"),
            Self::Signal(signal) => write!(f, "signal={signal}"),
            Self::Lost => write!(f, "lost=1"),
        }
    }
}

impl FromStr for End {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once('=').ok_or(())? {
            ("code", code) => code.parse().map(Self::Code).map_err(|_| ()),
            ("signal", signal) => signal.parse().map(Self::Signal).map_err(|_| ()),
            ("lost", "1") => Ok(Self::Lost),
            _ => Err(()),
        }
    }
}

document! {
    "exit record", b'\n', |_| None, @ FILE,
    /// The end of one generation.
    #[derive(Debug)]
    Exit {
        /// The generation's nonce.
        nonce: String,
        /// How it ended.
        end: End,
        /// When.
        unix_ms: i64,
        /// Why, when it was never started: `could not start /path: No such file or directory`. One line.
        reason: Option<String>,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_exit_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Exit::read(folder.path()).unwrap(), None);
        for (end, reason) in
            [(End::Code(-1), None), (End::Signal(9), Some("a b = c".into())), (End::Lost, None)]
        {
            let exit = Exit { nonce: "ab".into(), end, unix_ms: -5, reason };
            exit.write(folder.path()).unwrap();
            assert_eq!(Exit::read(folder.path()).unwrap(), Some(exit));
        }
    }

    #[test]
    fn a_forged_exit_is_an_error() {
        for text in [
            "",
            "\n",
            "nonce=a\nend=code=\nunix_ms=1\n",
            "nonce=a\nend=code=1\nunix_ms=1",
            "nonce=a\nend=lost=2\nunix_ms=1\n",
        ] {
            assert!(Exit::decode(text.as_bytes()).is_err(), "{text}");
        }
        let lines = Exit { nonce: "a".into(), end: End::Lost, unix_ms: 1, reason: Some("a\nb".into()) };
        assert!(lines.encode().is_err());
    }
}
