//! Keys, one by one and unseen, from a terminal; and that terminal as it was when nobody listens any more.

use std::{
    io::{self, IsTerminal, Read},
    thread,
};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Keys of the terminal that is standard input. Signals go on coming from it, and what is printed looks as always.
pub(crate) struct Keys {
    pressed: UnboundedReceiver<u8>,
    before: Termios,
}

impl Keys {
    /// None where standard input is no terminal.
    pub(crate) fn listen() -> Option<Self> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &quiet).ok()?;
        let (sender, pressed) = unbounded_channel();
        // It ends with the process: nothing else ends a read of a terminal.
        thread::spawn(move || {
            let mut stdin = io::stdin();
            let mut key = [0];
            while stdin.read_exact(&mut key).is_ok() && sender.send(key[0]).is_ok() {}
        });
        Some(Self { pressed, before })
    }

    /// The next key; never where the terminal is gone, whose end is told by a signal.
    pub(crate) async fn next(&mut self) -> u8 {
        match self.pressed.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before); // a terminal that is gone needs none
    }
}
