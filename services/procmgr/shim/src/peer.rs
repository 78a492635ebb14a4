//! One connection to the control socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::{mem, os::unix::net::UnixStream};

use nexushub_shim::control::{LINE_MAX, Reply};

/// A client and what it has sent of its next request.
pub(crate) struct Peer {
    pub(crate) reader: BufReader<UnixStream>,
    line: Vec<u8>,
    /// It wants to be told of the end.
    pub(crate) waits: bool,
}

impl Peer {
    /// The stream must not block.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { reader: BufReader::with_capacity(LINE_MAX, stream), line: Vec::new(), waits: false }
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
    pub(crate) fn send(&mut self, reply: Reply) -> bool {
        let sent = self.reader.get_mut().write_all(format!("{reply}\n").as_bytes());
        sent.is_ok() && !matches!(reply, Reply::Malformed | Reply::Refused)
    }
}
