//! The command that people type, on a terminal: a real pseudo-terminal that keys are pressed on, and whose screen is read.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, Weak},
    thread,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{Termios, tcgetattr},
};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{HANG, processes::Process, workshop::program};

/// What came out of it, and the notice that more did.
type Seen = Arc<(Mutex<String>, Condvar)>;

/// Both ends of a new terminal, of 100 × 30. Nobody inherits them who is not given them: it is closed when we close it.
fn pair() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let mut slave = OpenOptions::new();
    slave.read(true).write(true).custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits());
    let slave = OwnedFd::from(slave.open(name).unwrap());
    tcsetwinsize(&slave, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (master, slave)
}

/// What is to be read of what came out, each letter with where it stands: no sequences that move or colour, no blanks.
fn letters(said: &str) -> Vec<(usize, char)> {
    let mut letters = Vec::new();
    let mut chars = said.char_indices().peekable();
    while let Some((at, letter)) = chars.next() {
        match letter {
            '\u{1b}' if chars.next_if(|(_, next)| *next == '[').is_some() => {
                while chars.next().is_some_and(|(_, next)| !next.is_ascii_alphabetic()) {}
            }
            letter if letter.is_control() || letter == ' ' => {}
            letter => letters.push((at, letter)),
        }
    }
    letters
}

/// Reads the screen for as long as somebody looks at it: the terminal is closed once nobody does.
fn collect(mut screen: File, seen: &Weak<(Mutex<String>, Condvar)>) {
    let mut buffer = [0; 4096];
    while let Some(seen) = seen.upgrade() {
        let ready = poll(&mut [PollFd::new(screen.as_fd(), PollFlags::POLLIN)], PollTimeout::from(50u8));
        if ready != Ok(1) {
            continue;
        }
        let Ok(length @ 1..) = screen.read(&mut buffer) else { return };
        seen.0.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
        seen.1.notify_all();
    }
}

/// A terminal, and the command that was started on it.
pub struct Terminal {
    child: Child,
    keys: File,
    /// Held so that the terminal can be looked at after the command has ended.
    line: Option<OwnedFd>,
    seen: Seen,
    before: Termios,
}

impl Terminal {
    /// Starts `nexushub` on a terminal of 100 × 30.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(home: &Path, folder: &Path, arguments: &[&str]) -> Self {
        let home = [OsStr::new("--home"), home.as_os_str()];
        Self::begin(folder, home.into_iter().chain(arguments.iter().map(OsStr::new)), &[])
    }

    /// Starts `nexushub` with these variables, and with no platform of its own.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start_elsewhere(folder: &Path, arguments: &[&str], variables: &[(&str, &Path)]) -> Self {
        Self::begin(folder, arguments.iter().map(OsStr::new), variables)
    }

    fn begin<'a>(
        folder: &Path,
        arguments: impl Iterator<Item = &'a OsStr>,
        variables: &[(&str, &Path)],
    ) -> Self {
        let (master, slave) = pair();
        let before = tcgetattr(&slave).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new("setsid"); // so that the terminal is its own, and its signals come from there
        command.arg("--ctty").arg(program("nexushub")).args(arguments).envs(variables.iter().copied());
        command.current_dir(folder).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let seen = Seen::default();
        let (ours, screen) = (Arc::downgrade(&seen), File::from(master.try_clone().unwrap()));
        thread::spawn(move || collect(screen, &ours));
        Self { child, keys: File::from(master), line: Some(slave), seen, before }
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until what came out since the last such wait holds a text, whatever moves and colours are between its letters, and
    /// forgets it up to there. Blanks don't count: a screen is written without those that are there already.
    ///
    /// # Panics
    /// When it does not come.
    pub fn shows(&self, text: &str) {
        drop(self.reads(text));
    }

    /// As [`Self::shows`], and returns all that came up to its end.
    ///
    /// # Panics
    /// When it does not come.
    #[must_use]
    pub fn reads(&self, text: &str) -> String {
        let wanted: String = text.chars().filter(|c| *c != ' ').collect();
        self.until(text, |said| {
            let letters = letters(said);
            let bare: String = letters.iter().map(|(_, letter)| *letter).collect();
            let at = bare.find(&wanted)?;
            let last = bare[..at].chars().count() + wanted.chars().count() - 1;
            Some(letters[last].0 + letters[last].1.len_utf8())
        })
    }

    /// Waits until the screen on which full-screen programs draw is left.
    ///
    /// # Panics
    /// When it is not.
    pub fn leaves_its_screen(&self) {
        const LEAVES: &str = "\u{1b}[?1049l";
        drop(self.until("the end of the screen", |said| said.find(LEAVES).map(|at| at + LEAVES.len())));
    }

    /// Waits until something is found, and forgets what came up to its end.
    fn until(&self, what: &str, found: impl Fn(&str) -> Option<usize>) -> String {
        let (said, more) = &*self.seen;
        let missing = |said: &mut String| found(said).is_none();
        let (mut said, late) = more.wait_timeout_while(said.lock().unwrap(), HANG, missing).unwrap();
        assert!(!late.timed_out(), "{what:?} did not come: {said:?}");
        let end = found(&said).unwrap();
        said.drain(..end).collect()
    }

    /// The process of the command.
    ///
    /// # Panics
    /// When it has ended and was waited for.
    #[must_use]
    pub fn process(&self) -> Process {
        Process::open(self.child.id()).unwrap()
    }

    /// Waits until the command has ended.
    ///
    /// # Panics
    /// When it does not, or leaves the terminal other than it was.
    pub fn end(&mut self) -> ExitStatus {
        assert!(self.process().ended_within(HANG), "it goes on: {:?}", self.seen.0.lock().unwrap());
        let status = self.child.wait().unwrap();
        if let Some(line) = &self.line {
            assert!(tcgetattr(line).unwrap() == self.before, "the terminal is as it was");
        }
        status
    }

    /// Closes the terminal, as when its window is closed; the command goes on for as long as it likes.
    #[must_use]
    pub fn hang_up(self) -> Process {
        self.process()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.line = None;
        if thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
