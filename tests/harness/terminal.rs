//! The command that people type, on a terminal: a real pseudo-terminal that keys are pressed on, and whose screen is read.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, Weak},
    thread,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::termios::{Termios, tcgetattr},
};

use crate::{HANG, processes::Process, workshop::program};

/// What came out of it, and the notice that more did.
type Seen = Arc<(Mutex<String>, Condvar)>;

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
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = Command::new("setsid"); // so that the terminal is its own, and its signals come from there
        command.arg("--ctty").arg(program("nexushub")).arg("--home").arg(home).args(arguments);
        command.current_dir(folder).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let seen = Seen::default();
        let (ours, screen) = (Arc::downgrade(&seen), File::from(pty.master.try_clone().unwrap()));
        thread::spawn(move || collect(screen, &ours));
        Self { child, keys: File::from(pty.master), line: Some(pty.slave), seen, before }
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until what came out since the last such wait holds a text, and forgets it up to there.
    ///
    /// # Panics
    /// When it does not come.
    pub fn shows(&self, text: &str) {
        let (said, more) = &*self.seen;
        let missing = |said: &mut String| !said.contains(text);
        let (mut said, late) = more.wait_timeout_while(said.lock().unwrap(), HANG, missing).unwrap();
        assert!(!late.timed_out(), "{text:?} did not come: {said:?}");
        let end = said.find(text).unwrap() + text.len();
        said.drain(..end);
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
