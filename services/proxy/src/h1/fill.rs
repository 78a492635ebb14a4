//! Reading from a connection into a buffer that is only there while there is something in it.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Room for the first read, enough for most heads.
const LEAST: usize = 4 * 1024;
/// Room for one read when much comes: four records of TLS.
pub(crate) const MOST: usize = 64 * 1024;

thread_local! {
    /// What is small is read into this and copied into as much memory as it needs.
    static DESK: RefCell<Box<[u8; LEAST]>> = RefCell::new(Box::new([0; LEAST]));
}

/// How much is read at once: more, the more comes.
#[derive(Debug)]
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(LEAST)
    }
}

impl Room {
    /// Reads once; the number of bytes, 0 at the end. Waiting holds no memory: room is made for a read and goes with what is
    /// taken of it.
    pub(crate) fn poll_fill(
        &mut self,
        from: Pin<&mut (impl AsyncRead + ?Sized)>,
        bytes: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if !bytes.is_empty() && bytes.capacity() - bytes.len() >= self.0 / 4 {
            return poll_read_buf(from, cx, bytes);
        }
        let (read, room) = if self.0 == LEAST {
            (ready!(poll_copy(from, bytes, cx))?, LEAST)
        } else {
            let mut fresh = BytesMut::with_capacity(bytes.len() + self.0);
            fresh.extend_from_slice(bytes);
            let room = fresh.capacity() - fresh.len();
            let read = ready!(poll_read_buf(from, cx, &mut fresh))?;
            *bytes = fresh;
            (read, room)
        };
        if read == room {
            self.0 = (self.0 * 4).min(MOST);
        }
        Poll::Ready(Ok(read))
    }

    /// What comes next is a head again.
    pub(crate) fn reset(&mut self) {
        self.0 = LEAST;
    }
}

/// Reads a little by way of the desk.
fn poll_copy(
    from: Pin<&mut (impl AsyncRead + ?Sized)>,
    bytes: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    DESK.with_borrow_mut(|desk| {
        let mut piece = ReadBuf::new(&mut desk[..]);
        ready!(from.poll_read(cx, &mut piece))?;
        let piece = piece.filled();
        if bytes.is_empty() {
            *bytes = BytesMut::with_capacity(piece.len()); // what it held before belongs to somebody else by now
        }
        bytes.extend_from_slice(piece);
        Poll::Ready(Ok(piece.len()))
    })
}
