//! A client's connection once hands are shaken.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::ServerConnection;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// TLS over TCP. Most reads find nothing, since a connection is listened to whenever it has been served: of those TLS hears nothing,
/// which would make ready for a record first.
pub(crate) struct Secured {
    /// In a box: whatever it passes through on its way keeps room for it as long as the connection lasts.
    tls: Box<TlsStream<TcpStream>>,
    /// What went wrong behind what was read last.
    error: Option<io::Error>,
}

impl Secured {
    pub(super) fn new(tls: TlsStream<TcpStream>) -> Self {
        Self { tls: Box::new(tls), error: None }
    }

    /// What was agreed on.
    pub(crate) fn session(&self) -> &ServerConnection {
        self.tls.get_ref().1
    }

    /// What has been decrypted; empty at the end.
    fn poll_decrypted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        let (tcp, session) = self.tls.get_ref();
        if session.wants_read() {
            ready!(tcp.poll_read_ready(cx))?; // nothing that was decrypted is left, and nothing has come
        }
        Pin::new(&mut *self.tls).poll_fill_buf(cx)
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        while room.remaining() > 0 {
            let read = match self.poll_decrypted(cx) {
                Poll::Ready(Ok(piece)) => {
                    let length = piece.len().min(room.remaining());
                    room.put_slice(&piece[..length]);
                    length
                }
                nothing if room.filled().len() == before => return nothing.map_ok(drop),
                Poll::Ready(Err(error)) => {
                    self.error = Some(error);
                    0
                }
                Poll::Pending => 0,
            };
            if read == 0 {
                break;
            }
            Pin::new(&mut *self.tls).consume(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.tls).poll_write(cx, piece)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.tls).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_shutdown(cx)
    }
}
