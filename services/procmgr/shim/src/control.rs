//! The control socket of a shim: one request line, one reply line, as often as one likes on a connection.
//!
//! ```text
//! status <nonce>              -> running pid=<pid> start=<ticks> | stopping | exited code=<n> | exited signal=<n>
//! stop <nonce> <deadline ms>  -> stopping     SIGTERM to all of the app, SIGKILL to what is left at the deadline
//! kill <nonce>                -> stopping     SIGKILL at once
//! wait <nonce>                -> exited ...   when it has
//! connect                     -> connected | failed <errno>     of a box: with a socket on its way to the app
//! listener                    -> listening | failed <errno>     of a box: with the listener of the way out
//! ```
//! A wrong nonce is `refused`, anything else `malformed`. `stopping` says that the end is under way and not on disk yet.
//! A connection that ends without a reply means that the shim is gone: the exit record knows the rest, or nobody does.

use std::os::{fd::AsRawFd as _, unix::net::UnixListener, unix::net::UnixStream};
use std::{fmt, fs, io, path::Path, path::PathBuf, time::Duration};

use nix::{sys::socket::getsockopt, sys::socket::sockopt, unistd::geteuid};

use crate::{exit::End, record::Process};

/// Name of the socket in the generation's folder.
pub const SOCKET: &str = "shim.sock";
/// Name of the socket there by which the app in a virtual machine is reached.
pub const MACHINE: &str = "vsock.sock";
/// The descriptor by which the program that builds a box reports: an [`End`] in text, or why the app could not be started.
pub const REPORT: i32 = 3;
/// Where an app in a box listens, on the box's 127.0.0.1.
pub const APP_PORT: u16 = 80;
/// Where an app in a box finds the platform, on the box's 127.0.0.1.
pub const INWARD_PORT: u16 = 8443;
/// No request or reply is longer, its newline included.
pub const LINE_MAX: usize = 256;

/// Replies of one word.
const PLAIN: [Reply; 5] =
    [Reply::Stopping, Reply::Connected, Reply::Listening, Reply::Refused, Reply::Malformed];

/// What a shim can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// How is the app?
    Status,
    /// End it, and by force after this long.
    Stop(Duration),
    /// End it by force.
    Kill,
    /// Answer when it has ended.
    Wait,
    /// Hand over a connection to the app in the box.
    Connect,
    /// Hand over the listener of the way out of the box.
    Listener,
}

impl Request {
    /// The line to send, with its newline.
    pub fn encode(&self, nonce: &str) -> String {
        match self {
            Self::Status => format!("status {nonce}\n"),
            Self::Stop(deadline) => format!("stop {nonce} {}\n", deadline.as_millis()),
            Self::Kill => format!("kill {nonce}\n"),
            Self::Wait => format!("wait {nonce}\n"),
            Self::Connect => "connect\n".into(),
            Self::Listener => "listener\n".into(),
        }
    }

    /// A received line, without its newline: the nonce and the request.
    pub fn parse(line: &[u8]) -> Option<(&str, Self)> {
        let words: Vec<&str> = str::from_utf8(line).ok()?.split(' ').collect();
        Some(match *words {
            ["status", nonce] => (nonce, Self::Status),
            // 32 bits of milliseconds: no such deadline overflows a clock.
            ["stop", nonce, ms] => (nonce, Self::Stop(Duration::from_millis(ms.parse::<u32>().ok()?.into()))),
            ["kill", nonce] => (nonce, Self::Kill),
            ["wait", nonce] => (nonce, Self::Wait),
            ["connect"] => ("", Self::Connect),
            ["listener"] => ("", Self::Listener),
            _ => return None,
        })
    }
}

/// What a shim answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This is the app's main process.
    Running(Process),
    /// The end is under way.
    Stopping,
    /// It has ended, and that is on disk.
    Exited(End),
    /// With it comes a socket that connects to the app.
    Connected,
    /// With it comes the listener.
    Listening,
    /// There is no way, for this reason (errno).
    Failed(i32),
    /// The nonce is another generation's.
    Refused,
    /// That was no request.
    Malformed,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(process) => write!(f, "running {process}"),
            Self::Stopping => f.write_str("stopping"),
            Self::Exited(end) => write!(f, "exited {end}"),
            Self::Connected => f.write_str("connected"),
            Self::Listening => f.write_str("listening"),
            Self::Failed(errno) => write!(f, "failed {errno}"),
            Self::Refused => f.write_str("refused"),
            Self::Malformed => f.write_str("malformed"),
        }
    }
}

impl Reply {
    /// A received line, without its newline.
    pub fn parse(line: &[u8]) -> Option<Self> {
        match str::from_utf8(line).ok()?.split_once(' ') {
            Some(("running", process)) => process.parse().ok().map(Self::Running),
            Some(("exited", end)) => end.parse().ok().map(Self::Exited),
            Some(("failed", errno)) => errno.parse().ok().map(Self::Failed),
            _ => PLAIN.into_iter().find(|reply| reply.to_string().as_bytes() == line),
        }
    }
}

/// A socket's address by way of its open folder: a socket's own path may have 107 bytes only. Good as long as the folder
/// stays open.
pub fn address(folder: &fs::File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// Makes the control socket in a generation's folder, in place of a dead one.
///
/// # Errors
/// When the folder can't be opened or the socket can't be made.
pub fn bind(dir: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(dir.join(SOCKET));
    UnixListener::bind(address(&fs::File::open(dir)?, SOCKET))
}

/// Whether the other side may ask: root and the shim's own user.
pub fn is_trusted(peer: &UnixStream) -> bool {
    let peer = getsockopt(peer, sockopt::PeerCredentials);
    peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        for request in
            [Request::Status, Request::Stop(Duration::from_millis(1500)), Request::Kill, Request::Wait]
        {
            let line = request.encode("abc");
            assert_eq!(Request::parse(line.trim_end().as_bytes()), Some(("abc", request)));
        }
        for request in [Request::Connect, Request::Listener] {
            let line = request.encode("abc");
            assert_eq!(Request::parse(line.trim_end().as_bytes()), Some(("", request)), "needs no nonce");
        }
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        let running = Reply::Running(Process { pid: 5, start: 6 });
        assert_eq!(running.to_string(), "running pid=5 start=6");
        let exits = [End::Code(3), End::Signal(9)].map(Reply::Exited);
        for reply in PLAIN.into_iter().chain([running, Reply::Failed(111)]).chain(exits) {
            assert_eq!(Reply::parse(reply.to_string().as_bytes()), Some(reply));
        }
    }

    #[test]
    fn what_is_no_request_is_none() {
        for line in [
            "",
            "status",
            "status a b",
            "stop a",
            "stop a -1",
            "stop a 99999999999",
            "stop a 1 2",
            "STATUS a",
            "dance a",
        ] {
            assert_eq!(Request::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_folder_of_any_depth_can_hold_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let listener = bind(&deep).unwrap();
        let connect = || UnixStream::connect(address(&fs::File::open(&deep).unwrap(), SOCKET));
        let client = connect().unwrap();
        assert!(is_trusted(&listener.accept().unwrap().0));
        drop((listener, client));
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        bind(&deep).unwrap();
    }

    proptest! {
        #[test]
        fn no_line_is_a_crash(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Request::parse(&line), Reply::parse(&line));
        }
    }
}
