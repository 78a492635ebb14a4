//! The lines on the control connection. Each side ignores what it does not know, so that one can be replaced before the other.

use std::{fmt, str::FromStr};

/// The most that one line may have; a longer one is not from an agent of ours.
pub const MAX_BYTES: usize = 4096;

/// How the app's main process ended, in the shim's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The guest is up.
    Hello,
    /// The app's program runs.
    Started,
    /// Once a second, from a thread that waits for nothing else.
    Alive {
        /// Memory in use in the guest, the kernel's included.
        memory_bytes: u64,
        /// Processes in the guest, kernel threads included.
        processes: u64,
    },
    /// So many processes has the guest's kernel killed for want of memory. Said when it changes, and before the end.
    OomKills(u64),
    /// The app's main process has ended and its files are on the host.
    Ended(End),
    /// The app could not be started.
    Failed(String),
}

/// What the host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGTERM to every process of the app; SIGKILL when its time is over.
    Stop,
    /// The end has been heard.
    Bye,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code={code}"),
            Self::Signal(signal) => write!(f, "signal={signal}"),
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => write!(f, "hello"),
            Self::Started => write!(f, "started"),
            Self::Alive { memory_bytes, processes } => write!(f, "alive {memory_bytes} {processes}"),
            Self::OomKills(count) => write!(f, "oom-kills {count}"),
            Self::Ended(end) => write!(f, "{end}"),
            Self::Failed(reason) => write!(f, "failed {}", one_line(reason)),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Bye => "bye",
        })
    }
}

impl FromStr for Word {
    type Err = ();
    fn from_str(line: &str) -> Result<Self, ()> {
        let (first, rest) = line.split_once([' ', '=']).unwrap_or((line, ""));
        let number = || rest.parse().map_err(|_| ());
        Ok(match first {
            "hello" => Self::Hello,
            "started" => Self::Started,
            "code" => Self::Ended(End::Code(number()?)),
            "signal" => Self::Ended(End::Signal(number()?)),
            "oom-kills" => Self::OomKills(rest.parse().map_err(|_| ())?),
            "failed" => Self::Failed(one_line(rest)),
            "alive" => {
                let (memory, processes) = rest.split_once(' ').ok_or(())?;
                let number = |text: &str| text.parse().map_err(|_| ());
                Self::Alive { memory_bytes: number(memory)?, processes: number(processes)? }
            }
            _ => return Err(()),
        })
    }
}

impl FromStr for Order {
    type Err = ();
    fn from_str(line: &str) -> Result<Self, ()> {
        match line {
            "stop" => Ok(Self::Stop),
            "bye" => Ok(Self::Bye),
            _ => Err(()),
        }
    }
}

/// A text as one line: control characters become spaces.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = text.replace(char::is_control, " ");
    line.truncate(line.floor_char_boundary(MAX_BYTES / 2));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_as_it_was_written() {
        for word in [
            Word::Hello,
            Word::Started,
            Word::Alive { memory_bytes: u64::MAX, processes: 3 },
            Word::OomKills(2),
            Word::Ended(End::Code(255)),
            Word::Ended(End::Signal(11)),
            Word::Failed("could not start /app/bin/app: a = b".into()),
        ] {
            assert_eq!(word.to_string().parse(), Ok(word));
        }
        for order in [Order::Stop, Order::Bye] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
    }

    #[test]
    fn a_reason_stays_one_line_of_bounded_length() {
        let long = Word::Failed(format!("a\nb\r\0{}", "é".repeat(MAX_BYTES))).to_string();
        assert!(long.len() < MAX_BYTES && !long.contains(char::is_control));
    }

    #[test]
    fn other_lines_are_not_understood() {
        for line in ["", "code=", "code=x", "signal=1 2", "alive 1", "alive -1 1", "oom-kills -1", "lost=1"] {
            assert_eq!(line.parse::<Word>(), Err(()), "{line}");
        }
        assert_eq!("halt".parse::<Order>(), Err(()));
    }
}
