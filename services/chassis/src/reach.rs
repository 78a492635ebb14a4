//! Reaching an app in a box: the shim hands over a socket that it made in the box's network. Nothing that it says is believed
//! unseen: one short line, and with it exactly one descriptor, which has to be a stream socket of the expected kind.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType, recv, recvmsg,
        sockopt,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::client;

/// No reply is longer, its newline included.
const LINE_MAX: usize = 64;

/// A connection to an app.
#[derive(Debug)]
pub enum Stream {
    /// In the network of its box.
    Tcp(TcpStream),
    /// To the socket of its virtual machine.
    Unix(UnixStream),
}

/// The same call on whichever it is.
macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl Stream {
    fn from_socket(socket: OwnedFd) -> io::Result<Self> {
        if is(&socket, AddressFamily::UNIX) {
            let socket = std::os::unix::net::UnixStream::from(socket);
            socket.set_nonblocking(true)?;
            return UnixStream::from_std(socket).map(Self::Unix);
        }
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        TcpStream::from_std(socket).map(Self::Tcp)
    }

    /// Whether the other side has neither closed it nor said anything that was not read. Asks the kernel.
    pub fn is_quiet(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = either!(self, stream => recv(stream, &mut [0_u8; 1], flags));
        seen.is_err_and(|error| error == Errno::AGAIN)
    }

    /// The same, as far as the event loop has heard: what happened since it last looked is missed, and no call is made.
    pub fn seems_quiet(&self) -> bool {
        let ask = || if self.is_quiet() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) };
        either!(self, stream => stream.try_io(Interest::READABLE, ask)).is_err()
    }

    /// Waits until it is there, or never will be.
    async fn complete(self) -> io::Result<Self> {
        let this = &self;
        either!(this, stream => stream.writable().await?);
        either!(this, stream => stream.take_error()?).map_or(Ok(self), Err)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        either!(this, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        either!(this, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        either!(this, stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        either!(this, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        either!(this, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A connection to the app in the box of a shim, whose control socket this is; its small messages are sent at once. Without a
/// time-out of its own. To an app in a virtual machine it proves nothing until it is answered.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` too when the shim itself is gone; `ConnectionRefused` when the app doesn't listen;
/// `InvalidData` when the answer is none.
pub async fn connect(shim: &Path) -> io::Result<Stream> {
    let socket = ask(shim, b"connect\n", b"connected", &[AddressFamily::INET, AddressFamily::UNIX]).await?;
    Stream::from_socket(socket)?.complete().await
}

/// The listener in the box of a shim, whose control socket this is, at which its app finds the platform; non-blocking.
///
/// # Errors
/// As [`connect`].
pub async fn listener(shim: &Path) -> io::Result<std::net::TcpListener> {
    let listener = ask(shim, b"listener\n", b"listening", &[AddressFamily::INET]).await?;
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn ask(shim: &Path, request: &[u8], wanted: &[u8], families: &[AddressFamily]) -> io::Result<OwnedFd> {
    let proper = |socket: &OwnedFd| families.iter().any(|family| is(socket, *family));
    let mut stream = client::connect(shim).await?;
    stream.write_all(request).await?;
    let (line, socket) = stream.async_io(Interest::READABLE, || receive(&stream)).await?;
    match (line.strip_suffix(b"\n"), socket) {
        (Some(reply), Some(socket)) if reply == wanted && proper(&socket) => Ok(socket),
        (Some(reply), None) => Err(refusal(reply).unwrap_or_else(malformed)),
        _ if line.is_empty() => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the shim hung up")),
        _ => Err(malformed()),
    }
}

/// One message: its text, and the descriptor if exactly one came with it. A shim sends each reply as one.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut line = [0; LINE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [IoSliceMut::new(&mut line)];
    let message = recvmsg(stream, &mut text, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let mut sockets: Vec<OwnedFd> = rights.flatten().collect();
    let only = if sockets.len() == 1 { sockets.pop() } else { None };
    Ok((line[..message.bytes].to_vec(), only))
}

/// Whether it is a stream socket of this family; what is no socket at all is none of any.
fn is(socket: &OwnedFd, family: AddressFamily) -> bool {
    sockopt::socket_domain(socket) == Ok(family) && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
}

fn refusal(reply: &[u8]) -> Option<io::Error> {
    let errno = str::from_utf8(reply).ok()?.strip_prefix("failed ")?.parse().ok()?;
    Some(io::Error::from_raw_os_error(errno))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the shim's answer is malformed")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        fs::File,
        net::TcpListener,
        os::fd::{AsFd, AsRawFd},
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use tokio::{io::AsyncReadExt, net::UnixListener};

    use super::*;

    /// Asks a shim that says this and sends these.
    async fn told(says: &'static [u8], with: Vec<OwnedFd>, folder: &Path) -> io::Result<OwnedFd> {
        let path = folder.join("shim.sock");
        let dir = File::open(folder).unwrap();
        let bound = UnixListener::bind(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd())).unwrap();
        let shim = async {
            let (mut peer, _) = bound.accept().await.unwrap();
            let mut heard = [0; 8];
            peer.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"connect\n");
            if says.is_empty() {
                return;
            }
            let fds: Vec<_> = with.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            assert!(fds.is_empty() || rights.push(SendAncillaryMessage::ScmRights(&fds)));
            sendmsg(&peer, &[IoSlice::new(says)], &mut rights, SendFlags::empty()).unwrap();
        };
        let families = [AddressFamily::INET, AddressFamily::UNIX];
        tokio::join!(ask(&path, b"connect\n", b"connected", &families), shim).0
    }

    async fn kind(says: &'static [u8], with: Vec<OwnedFd>) -> io::ErrorKind {
        told(says, with, tempfile::tempdir().unwrap().path()).await.unwrap_err().kind()
    }

    fn tcp() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    fn unix() -> OwnedFd {
        std::os::unix::net::UnixStream::pair().unwrap().0.into()
    }

    #[tokio::test]
    async fn a_socket_is_handed_over_also_below_a_folder_of_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        for folder in [folder.path(), &deep] {
            let tcp = told(b"connected\n", vec![tcp()], folder).await.unwrap();
            assert!(is(&tcp, AddressFamily::INET));
            std::fs::remove_file(folder.join("shim.sock")).unwrap();
            let unix = told(b"connected\n", vec![unix()], folder).await.unwrap();
            assert!(matches!(Stream::from_socket(unix), Ok(Stream::Unix(_))));
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error_and_what_came_with_it_is_closed() {
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        assert_eq!(kind(b"connected\n", vec![]).await, io::ErrorKind::InvalidData);
        assert_eq!(kind(b"connected\n", vec![file()]).await, io::ErrorKind::InvalidData);
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        assert_eq!(kind(b"connected\n", vec![datagrams]).await, io::ErrorKind::InvalidData);
        assert_eq!(kind(b"connected\n", vec![tcp(), tcp()]).await, io::ErrorKind::InvalidData);
        assert_eq!(kind(b"connected", vec![tcp()]).await, io::ErrorKind::InvalidData);
        assert_eq!(kind(b"listening\n", vec![tcp()]).await, io::ErrorKind::InvalidData);
        assert_eq!(kind(&[b'x'; 200], vec![tcp()]).await, io::ErrorKind::InvalidData);
        assert_eq!(kind(b"", vec![]).await, io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_reason_and_a_shim_that_is_gone_is_told() {
        assert_eq!(kind(b"failed 111\n", vec![]).await, io::ErrorKind::ConnectionRefused);
        let gone = connect(Path::new("/nonexistent/shim.sock")).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
