//! Standard output. A reader that goes away (`nexushub logs APP | head`) ends the command quietly; it never makes it panic.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use ratatui::crossterm::terminal;

use crate::{failure::Failure, progress};

/// How the terminal is that standard output leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Characters of a line; none where there is no terminal.
    pub(crate) width: Option<usize>,
    /// Whether colours are wanted: on a terminal, but not where NO_COLOR says otherwise or the terminal has none.
    pub(crate) colours: bool,
}

static LOOK: OnceLock<Look> = OnceLock::new();

/// Looks where standard output leads to; what isn't looked at is plain and as wide as it likes.
pub(crate) fn look() {
    if !io::stdout().is_terminal() {
        return;
    }
    let colours = has_colours(env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref());
    let width = terminal::size().ok().map(|(width, _)| width.into()).filter(|width| *width > 0);
    LOOK.get_or_init(|| Look { width, colours });
}

/// Whether a terminal of this kind has colours that nobody said no to; what is said empty is not said.
fn has_colours(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && obeys(term)
}

/// Whether a terminal of this kind does what escape sequences tell it, rather than show them.
pub(crate) fn obeys(term: Option<&OsStr>) -> bool {
    term.is_none_or(|term| term != "dumb")
}

/// What was seen then.
pub(crate) fn seen() -> Look {
    LOOK.get().copied().unwrap_or_default()
}

/// Writes a line.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    write(format!("{line}\n").as_bytes())
}

/// Writes bytes, and sees to it that they are out.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    progress::make_way();
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::unread(),
        _ => Failure::new(format!("could not write to standard output: {error}"), "check where it leads"),
    })
}

/// Writes a line for people to standard error; what can't be written there can't be told at all.
pub(crate) fn tell(line: &str) {
    progress::make_way();
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_have_them_and_for_those_who_did_not_say_no() {
        let has = |no_color: Option<&str>, term: &str| {
            has_colours(no_color.map(OsStr::new), Some(OsStr::new(term)))
        };
        assert!(has(None, "xterm") && has(Some(""), "xterm") && has_colours(None, None));
        assert!(!has(Some("1"), "xterm") && !has(Some("0"), "xterm") && !has(None, "dumb"));
    }
}
