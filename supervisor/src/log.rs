//! Log lines: JSON on stderr, in the schema of every daemon.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{io::Write, time::SystemTime};

use nexushub_launch::{clock::rfc3339, json::Object};

pub(crate) const ERROR: usize = 0;
pub(crate) const WARN: usize = 1;
pub(crate) const INFO: usize = 2;
const NAMES: [&str; 3] = ["error", "warn", "info"];

static LEVEL: AtomicUsize = AtomicUsize::new(if cfg!(test) { ERROR } else { INFO });

/// Sets the least level that is written; there is nothing below `info`.
pub(crate) fn set_level(name: &str) {
    LEVEL.store(NAMES.iter().position(|known| *known == name).unwrap_or(INFO), Relaxed);
}

/// Writes one line, with what `fields` adds to it.
pub(crate) fn line(level: usize, msg: &str, fields: impl FnOnce(Object) -> Object) {
    if level <= LEVEL.load(Relaxed) {
        let head = Object::new().text("ts", &rfc3339(SystemTime::now())).text("level", NAMES[level]);
        let head = head.text("daemon", "supervisor").text("release", env!("CARGO_PKG_VERSION"));
        raw(&fields(head.text("msg", msg)).finish());
    }
}

/// Writes what went wrong where nobody can be told.
pub(crate) fn trouble(level: usize, msg: &str, error: &dyn std::error::Error) {
    line(level, msg, |line| line.text("error", &error.to_string()));
}

/// Writes a finished line in one piece, so that the daemons' own lines don't get into it. Nobody to read it is no error.
pub(crate) fn raw(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
