//! Readiness messages (`sd_notify(3)`): what a daemon tells its parent, and how the parent reads it.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// Longest message that is read; systemd's own limit is the same order.
pub const MAX_MESSAGE: usize = 4096;
/// How long a message waits for a place in the parent's queue.
const PATIENCE: Duration = Duration::from_millis(20);

/// The way to the parent.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
}

impl Notifier {
    /// The parent named in `NOTIFY_SOCKET`; none when nobody wants to know.
    ///
    /// # Errors
    /// When the socket is named but can't be reached.
    pub fn from_env() -> io::Result<Option<Self>> {
        match env::var("NOTIFY_SOCKET") {
            Ok(path) if !path.is_empty() => Self::to(&path).map(Some),
            _ => Ok(None),
        }
    }

    /// A socket path; `@` marks an abstract name.
    ///
    /// # Errors
    /// When the socket can't be reached.
    pub fn to(path: &str) -> io::Result<Self> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Sends `READY=1`, `STATUS=...` and the like, one assignment a line. A parent that is stopped or hung misses it: it must not
    /// take us along.
    ///
    /// # Errors
    /// When the parent is gone.
    pub fn send(&self, message: &str) -> io::Result<()> {
        match self.socket.send(message.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent.map(drop),
        }
    }
}

/// The assignments of a message, in order. What isn't an assignment in UTF-8 is passed over: a message comes from a child
/// that may be broken.
pub fn parse(message: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    str::from_utf8(message).unwrap_or_default().lines().filter_map(|line| line.split_once('='))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let name = format!("nexushub-notify-{}", std::process::id());
        let parent = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::to(&format!("@{name}")).unwrap().send("READY=1\nSTATUS=a=b").unwrap();
        let mut buffer = [0; 64];
        let length = parent.recv(&mut buffer).unwrap();
        assert_eq!(parse(&buffer[..length]).collect::<Vec<_>>(), [("READY", "1"), ("STATUS", "a=b")]);
    }

    #[test]
    fn a_parent_that_reads_nothing_holds_nobody_up() {
        let name = format!("nexushub-notify-deaf-{}", std::process::id());
        let _parent = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::to(&format!("@{name}")).unwrap();
        let queue: u32 =
            fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap().trim().parse().unwrap();
        for _ in 0..queue + 2 {
            notifier.send("WATCHDOG=1").unwrap();
        }
    }

    #[test]
    fn garbage_is_no_assignment() {
        assert_eq!(parse(b"\xff\xfe=1").count(), 0);
        assert_eq!(parse(b"READY").count(), 0);
    }
}
