//! The end of a connection whose client may still be sending: closing at once would take the last answer away from it.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::timeout,
};

/// How long, and how many bytes of it, a client is listened to after that.
const TIME: Duration = Duration::from_secs(2);
const BYTES: usize = 4 * 1024 * 1024;

/// Says the last words; nobody waits longer for that.
pub(crate) async fn part(words: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(TIME, words).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads and forgets, until the client is done or it is enough. How it ends is of no interest.
pub(crate) async fn listen(from: &mut (impl AsyncRead + Unpin)) {
    let mut left = BYTES;
    let listen = poll_fn(|cx| {
        let mut piece = [MaybeUninit::uninit(); 4096];
        loop {
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut *from).poll_read(cx, &mut piece) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !piece.filled().is_empty() && piece.filled().len() < left => {
                    left -= piece.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    });
    let _ = timeout(TIME, listen).await;
}
