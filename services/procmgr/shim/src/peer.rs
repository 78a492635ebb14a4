//! One connection to the control socket.

use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::{mem, os::unix::net::UnixStream, time::Instant};

use nexushub_shim::control::{LINE_MAX, Reply};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// A client and what it has sent of its next request.
pub(crate) struct Peer {
    pub(crate) reader: BufReader<UnixStream>,
    line: Vec<u8>,
    /// From when on its place may be another's: once it has an answer, at once; none where it wants to be told of the end.
    pub(crate) until: Option<Instant>,
}

impl Peer {
    /// The stream must not block.
    pub(crate) fn new(stream: UnixStream, until: Instant) -> Self {
        Self { reader: BufReader::with_capacity(LINE_MAX, stream), line: Vec::new(), until: Some(until) }
    }

    /// The next line, or as much of it as a line may have; `WouldBlock` while it has not come, other errors when the peer
    /// has left.
    pub(crate) fn line(&mut self) -> io::Result<Vec<u8>> {
        let room = LINE_MAX - self.line.len();
        self.reader.by_ref().take(room as u64).read_until(b'\n', &mut self.line)?;
        if !self.line.ends_with(b"\n") && self.line.len() < LINE_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut line = mem::take(&mut self.line);
        line.pop();
        Ok(line)
    }

    /// Replies; false when that was the last word: to nonsense, to a stranger, to one who left or does not read.
    /// A descriptor goes with it if there is one.
    pub(crate) fn send(&mut self, reply: Reply, with: Option<&OwnedFd>) -> bool {
        let (line, fds) = (format!("{reply}\n"), with.map(AsRawFd::as_raw_fd));
        let rights = fds.as_slice();
        let rights = (!rights.is_empty()).then_some(ControlMessage::ScmRights(rights));
        let (socket, text) = (self.reader.get_ref().as_raw_fd(), [IoSlice::new(line.as_bytes())]);
        // So little is sent whole or not at all.
        self.until = self.until.map(|_| Instant::now());
        let sent = sendmsg::<()>(socket, &text, rights.as_slice(), MsgFlags::MSG_NOSIGNAL, None);
        sent.is_ok() && !matches!(reply, Reply::Malformed | Reply::Refused)
    }
}
