//! The guest's sockets: vsock to the host, and its own loopback.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::{fs::File, io};

use nix::errno::Errno;
use nix::libc::{self, VMADDR_CID_ANY, VMADDR_CID_HOST};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, connect, listen, socket,
};

fn vsock() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

/// Connects to a port of the host's.
pub(crate) fn to_host(port: u32) -> io::Result<File> {
    let socket = vsock()?;
    connect(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, port))?;
    Ok(File::from(socket))
}

/// Listens on a port that the host may connect to.
pub(crate) fn listener(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock()?;
    bind(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_ANY, port))?;
    listen(&socket, Backlog::new(128)?)?;
    Ok(socket)
}

/// The next connection from the host.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<File> {
    let socket = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4 has just made this descriptor and nobody else has it.
    Ok(unsafe { File::from_raw_fd(socket) })
}

/// Connects to the app's port.
pub(crate) fn to_app(port: u32) -> io::Result<File> {
    let app = TcpStream::connect((Ipv4Addr::LOCALHOST, port.try_into().map_err(io::Error::other)?))?;
    app.set_nodelay(true)?;
    Ok(File::from(OwnedFd::from(app)))
}

/// Brings the loopback interface up. Its address comes with it.
pub(crate) fn loopback() -> io::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid; the kernel reads its name and flags while the call lasts.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l'.cast_signed();
        request.ifr_name[1] = b'o'.cast_signed();
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        Errno::result(libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request))?;
    }
    Ok(())
}
