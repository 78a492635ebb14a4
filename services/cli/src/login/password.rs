//! A name and a password, from whoever sits at the terminal, the latter unseen; or a line of standard input, where that is none.
//! However it ends, the terminal is as it was: signals are keys in the meantime.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Read, Write, stderr, stdin},
    os::fd::AsFd,
};

use nexushub_chassis::names::shown;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::failure::Failure;

/// Bytes of a line; the platform takes no longer password.
const LINE_MAX: usize = 1024;

/// A terminal that shows nothing of what is typed; as it was once this is let go of.
struct Unseen(Termios);

impl Unseen {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.0); // a terminal that is gone needs none
    }
}

/// How typing ended.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Line(String),
    GivenUp,
    TooLong,
}

/// Who somebody is; for the terminal only.
pub(crate) fn user(url: &str) -> Result<String, Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask for a name at",
            "name the user: --user NAME",
        ));
    }
    ask(&format!("user at {url}: "));
    match keys().and_then(line).map_err(|error| unread(&error))? {
        Typed::Line(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        _ => Err(given_up()),
    }
}

/// Their password.
pub(crate) fn password(user: &str, url: &str) -> Result<String, Failure> {
    let typed = if stdin().is_terminal() {
        // Before it is asked for: what is typed early is not shown either.
        let unseen = Unseen::begin().map_err(|error| unread(&error))?;
        ask(&format!("password of {} at {url}: ", shown(user)));
        let typed = keys().and_then(typed);
        drop(unseen);
        ask("\n");
        typed
    } else {
        keys().and_then(line)
    };
    match typed.map_err(|error| unread(&error))? {
        Typed::Line(password) if !password.is_empty() => Ok(password),
        Typed::TooLong => {
            Err(Failure::usage(format!("no password is longer than {LINE_MAX} bytes"), "try again"))
        }
        Typed::Line(_) | Typed::GivenUp => Err(given_up()),
    }
}

fn ask(text: &str) {
    let _ = stderr().write_all(text.as_bytes()); // who can't be asked may still know what to type
    let _ = stderr().flush();
}

fn given_up() -> Failure {
    Failure::new("nobody was logged in: nothing was typed", "")
}

fn unread(error: &io::Error) -> Failure {
    Failure::new(
        format!("could not read from standard input: {error}"),
        "type the password at a terminal, or send it as a line",
    )
}

/// Standard input byte by byte, so that nothing behind the line is taken from whoever reads it next.
fn keys() -> io::Result<impl Iterator<Item = io::Result<u8>>> {
    let mut input = File::from(stdin().as_fd().try_clone_to_owned()?);
    let mut key = [0];
    Ok(std::iter::from_fn(move || {
        loop {
            match input.read(&mut key) {
                Ok(0) => return None,
                Ok(_) => return Some(Ok(key[0])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }))
}

/// A line that comes from a program.
fn line(bytes: impl Iterator<Item = io::Result<u8>>) -> io::Result<Typed> {
    let mut line = Vec::new();
    for byte in bytes {
        match byte? {
            b'\n' => break,
            byte if line.len() <= LINE_MAX => line.push(byte),
            _ => return Ok(Typed::TooLong),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(text(line))
}

/// A line that is typed, with the keys that take something of it back.
fn typed(keys: impl Iterator<Item = io::Result<u8>>) -> io::Result<Typed> {
    let mut line = Vec::new();
    for key in keys {
        match key? {
            b'\r' | b'\n' => return Ok(text(line)),
            3 | 4 => return Ok(Typed::GivenUp), // Ctrl-C, Ctrl-D
            8 | 127 => while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            21 => line.clear(), // Ctrl-U
            byte if line.len() <= LINE_MAX => line.push(byte),
            _ => {}
        }
    }
    Ok(Typed::GivenUp)
}

fn text(line: Vec<u8>) -> Typed {
    match String::from_utf8(line) {
        Ok(line) if line.len() <= LINE_MAX => Typed::Line(line),
        Ok(_) => Typed::TooLong,
        // No password is other than text, so this is none.
        Err(_) => Typed::GivenUp,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(text: &str) -> impl Iterator<Item = io::Result<u8>> {
        text.bytes().map(Ok).collect::<Vec<_>>().into_iter()
    }

    fn is(text: &str) -> Typed {
        Typed::Line(text.to_owned())
    }

    #[test]
    fn what_is_typed_may_be_taken_back_and_given_up() {
        assert_eq!(typed(bytes("secret\r")).unwrap(), is("secret"));
        assert_eq!(typed(bytes("sä\u{7f}\u{8}\u{8}a b\n")).unwrap(), is("a b"));
        assert_eq!(typed(bytes("wrong\u{15}right\n")).unwrap(), is("right"));
        for given_up in ["secret\u{3}\n", "\u{4}", "secret"] {
            assert_eq!(typed(bytes(given_up)).unwrap(), Typed::GivenUp, "{given_up:?}");
        }
    }

    #[test]
    fn a_program_sends_one_line_and_the_rest_is_left() {
        let mut sent = bytes("secret\r\nmore");
        assert_eq!(line(sent.by_ref()).unwrap(), is("secret"));
        assert_eq!(sent.next().unwrap().unwrap(), b'm');
        assert_eq!(line(bytes("no end")).unwrap(), is("no end"));
        assert_eq!(line(bytes("\u{3}\u{7f}\n")).unwrap(), is("\u{3}\u{7f}"), "there are no keys");
    }

    #[test]
    fn a_line_has_a_bound() {
        let longest = "x".repeat(LINE_MAX);
        for read in [|text: &str| typed(bytes(text)), |text: &str| line(bytes(text))] {
            assert_eq!(read(&format!("{longest}\n")).unwrap(), is(&longest));
            assert_eq!(read(&format!("{longest}x\n")).unwrap(), Typed::TooLong);
            assert_eq!(read(&format!("{longest}{longest}\n")).unwrap(), Typed::TooLong);
        }
    }
}
