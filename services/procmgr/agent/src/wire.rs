//! The guest's sockets: vsock to the host, and its own loopback.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::{fs, fs::File, io, mem, ptr};

use nexushub_agent::config::WayOut;
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
    Interface::named(b"lo")?.up()
}

/// Makes the guest's end of its way out: an address and a route. The route is the last.
pub(crate) fn way_out(way: &WayOut) -> io::Result<()> {
    // Of IPv6 the rules on the host let nothing pass. A kernel without it has no such file.
    let _ = fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1");
    let made = Interface::named(b"eth0").and_then(|device| {
        device.set(libc::SIOCSIFADDR, way.address)?;
        device.set(libc::SIOCSIFNETMASK, way.mask())?;
        device.up()?;
        device.route(way.gateway)
    });
    made.map_err(|error| io::Error::other(format!("could not make the way out to the internet: {error}")))
}

/// A network interface of the guest's.
struct Interface {
    any: OwnedFd,
    request: libc::ifreq,
}

impl Interface {
    fn named(name: &[u8]) -> io::Result<Self> {
        let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // SAFETY: an all-zero ifreq is valid; its name is ended by a zero.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        Ok(Self { any, request })
    }

    fn up(&self) -> io::Result<()> {
        let mut request = self.request;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &request)
    }

    fn set(&self, what: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
        let mut request = self.request;
        request.ifr_ifru.ifru_addr = generic(address);
        self.call(what, &request)
    }

    /// Has it lead everywhere, by a gateway.
    fn route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: an all-zero rtentry is valid: of no device.
        let mut route: libc::rtentry = unsafe { mem::zeroed() };
        [route.rt_dst, route.rt_genmask] = [generic(Ipv4Addr::UNSPECIFIED); 2];
        route.rt_gateway = generic(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        self.call(libc::SIOCADDRT, &route)
    }

    fn call<T>(&self, what: libc::c_ulong, about: &T) -> io::Result<()> {
        // SAFETY: what is told about is whole, and of the type that the call reads.
        Errno::result(unsafe { libc::ioctl(self.any.as_raw_fd(), what as _, ptr::from_ref(about)) })?;
        Ok(())
    }
}

/// An address as the kernel takes those of any kind.
fn generic(address: Ipv4Addr) -> libc::sockaddr {
    let of = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data, which the family at their beginning tells apart.
    unsafe { mem::transmute(of) }
}
