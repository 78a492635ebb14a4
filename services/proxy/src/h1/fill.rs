//! Reading from a connection into a buffer that is only there while there is something in it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Room for the first read, enough for most heads.
const LEAST: usize = 4 * 1024;
/// Room for one read when much comes: four records of TLS.
const MOST: usize = 64 * 1024;

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
        let mut fresh = BytesMut::with_capacity(bytes.len() + self.0);
        fresh.extend_from_slice(bytes);
        let read = ready!(poll_read_buf(from, cx, &mut fresh))?;
        if fresh.len() == fresh.capacity() {
            self.0 = (self.0 * 4).min(MOST);
        }
        *bytes = fresh;
        Poll::Ready(Ok(read))
    }

    /// What comes next is a head again.
    pub(crate) fn reset(&mut self) {
        self.0 = LEAST;
    }
}
