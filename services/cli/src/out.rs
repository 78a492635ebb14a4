//! Standard output. A reader that goes away (`nexushub logs APP | head`) ends the command quietly; it never makes it panic.

use std::io::{self, Write};

use crate::failure::Failure;

/// Writes a line.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    write(format!("{line}\n").as_bytes())
}

/// Writes bytes, and sees to it that they are out.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::unread(),
        _ => Failure::new(format!("could not write to standard output: {error}"), "check where it leads"),
    })
}

/// Writes a line for people to standard error; what can't be written there can't be told at all.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
