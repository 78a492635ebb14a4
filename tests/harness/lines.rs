//! What a process says, line by line, for as long as it goes on: waited for, but not for ever.

use std::{
    io::{BufRead, BufReader, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
};

use crate::HANG;

/// The lines of a pipe, read as they come.
pub struct Lines(Receiver<String>);

impl Lines {
    /// Of this end of it; the other one closes when the process ends.
    #[must_use]
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        let mut read = BufReader::new(pipe).lines().map_while(Result::ok);
        thread::spawn(move || while read.next().is_some_and(|line| sender.send(line).is_ok()) {});
        Self(lines)
    }

    /// The next line that makes something of it.
    ///
    /// # Panics
    /// When none does before the end, or before a test counts as hung.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&str) -> Option<T>) -> T {
        let mut said = Vec::new();
        loop {
            match self.0.recv_timeout(HANG) {
                Ok(line) => match look(&line) {
                    Some(found) => return found,
                    None => said.push(line),
                },
                Err(RecvTimeoutError::Timeout) => panic!("hung: {what}; it said {said:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before {what}; it said {said:?}"),
            }
        }
    }
}
