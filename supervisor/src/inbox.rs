//! The socket on which daemons report (`sd_notify(3)`). The kernel says who sent a message; who may is the caller's to judge.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{fs, io, path::Path};

use nexushub_launch::notify::MAX_MESSAGE;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt};
use nix::{cmsg_space, unistd::Pid};

use crate::sockets::MAX_PATH;

/// Most descriptors that the kernel passes in one message.
const MAX_FDS: usize = 253;

/// One message.
pub(crate) struct Message {
    pub(crate) from: Pid,
    pub(crate) text: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Binds `notify.sock` in the run folder; where that path is too long for a socket address, an abstract name. Also what
/// `NOTIFY_SOCKET` says.
pub(crate) fn bind(run: &Path) -> io::Result<(UnixDatagram, String)> {
    let path = run.join("notify.sock");
    let (socket, address) = if path.as_os_str().len() > MAX_PATH {
        let name = format!("nexushub/{}", std::process::id());
        (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?, format!("@{name}"))
    } else {
        let _ = fs::remove_file(&path);
        (UnixDatagram::bind(&path)?, path.to_string_lossy().into_owned())
    };
    setsockopt(&socket, PassCred, &true)?;
    Ok((socket, address))
}

/// The next message, if one is there. Descriptors are owned from the first moment on, whoever sent them.
pub(crate) fn receive(socket: &UnixDatagram) -> Option<Message> {
    let mut message = Message { from: Pid::from_raw(0), text: vec![0; MAX_MESSAGE], fds: Vec::new() };
    let mut control = cmsg_space!(UnixCredentials, [RawFd; MAX_FDS]);
    let (mut into, fd) = ([io::IoSliceMut::new(&mut message.text)], socket.as_raw_fd());
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let got = recvmsg::<()>(fd, &mut into, Some(&mut control), flags).ok()?;
    for part in got.cmsgs().into_iter().flatten() {
        match part {
            ControlMessageOwned::ScmCredentials(sender) => message.from = Pid::from_raw(sender.pid()),
            ControlMessageOwned::ScmRights(fds) => {
                // SAFETY: the kernel has just made these descriptors for us; nobody else knows their numbers.
                let own = |fd: &RawFd| unsafe { OwnedFd::from_raw_fd(*fd) };
                message.fds.extend(fds.iter().map(own));
            }
            _ => {}
        }
    }
    let length = if got.flags.contains(MsgFlags::MSG_TRUNC) { 0 } else { got.bytes };
    message.text.truncate(length);
    Some(message)
}
