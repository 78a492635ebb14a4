//! The network of a box, in which the shim lives from the start on, with nothing but `lo`. Its sockets are the only way in,
//! and a listener of it the only way out; both are handed over as descriptors, so the shim copies no byte.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio, id};
use std::{fs, io, io::Write as _, net::Ipv4Addr, net::SocketAddrV4, net::TcpListener, path::Path};

use nexushub_shim::{control, control::APP_PORT, control::INWARD_PORT, control::MACHINE, control::Reply};
use nexushub_shim::{control::Request, spec::Spec};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrLike, UnixAddr, connect, socket,
};
use nix::unistd::{getegid, geteuid};
use nix::{errno::Errno, libc};

/// Moves this process into a network of its own, and its next child into process numbers of its own. The listener is where
/// the box finds the platform.
pub(crate) fn enter(spec: &Spec) -> io::Result<TcpListener> {
    let (uid, gid) = (geteuid(), getegid());
    // In a user namespace of its own anybody may do the rest.
    if spec.mapped {
        part(&spec.program)?;
    } else if !uid.is_root() {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID)?;
    bring_up_loopback()?;
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, INWARD_PORT))
}

/// Moves this process into a user namespace whose ids are mapped by the program, which stays outside, where set-uid programs work.
fn part(program: &Path) -> io::Result<()> {
    let mut mapper = Command::new(program);
    mapper.arg("--map").arg(id().to_string()).env_clear().stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut mapper = mapper.spawn()?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // It waits for this byte. If it has ended already, it says why.
    let _ = mapper.stdin.take().map(|mut gate| gate.write_all(b"."));
    let output = mapper.wait_with_output()?;
    let why = || String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', " ");
    output.status.success().then_some(()).ok_or_else(|| io::Error::other(why()))
}

/// What a request for a way in or out is answered with. Without a box there is neither.
pub(crate) fn open(spec: &Spec, inward: Option<&TcpListener>, request: Request) -> (Reply, Option<OwnedFd>) {
    let failed = |error: io::Error| (Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO)), None);
    match (inward, request) {
        (Some(_), Request::Connect) => {
            let way = if spec.machine { into_machine(&spec.dir) } else { into_box() };
            way.map_or_else(failed, |way| (Reply::Connected, Some(way)))
        }
        (Some(listener), _) => {
            listener.try_clone().map_or_else(failed, |way| (Reply::Listening, Some(way.into())))
        }
        (None, _) => (Reply::Malformed, None),
    }
}

fn into_box() -> io::Result<OwnedFd> {
    begin(AddressFamily::Inet, &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, APP_PORT)))
}

/// Before the machine is up there is no socket: nobody listens, as elsewhere.
fn into_machine(dir: &Path) -> io::Result<OwnedFd> {
    let dir = fs::File::open(dir)?;
    let address = UnixAddr::new(&control::address(&dir, MACHINE))?;
    begin(AddressFamily::Unix, &address).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Errno::ECONNREFUSED.into(),
        _ => error,
    })
}

/// A connection to the app, which need not be complete: whoever gets it waits for that.
fn begin(family: AddressFamily, to: &impl SockaddrLike) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let way = socket(family, SockType::Stream, flags, None)?;
    match connect(way.as_raw_fd(), to) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(way),
        Err(errno) => Err(errno.into()),
    }
}

/// In the child of who isn't root: what it may do in its user namespace passes to the program that builds the box, which
/// otherwise an exec takes away.
pub(crate) fn keep_rights() -> nix::Result<()> {
    const VERSION: u32 = 0x2008_0522; // _LINUX_CAPABILITY_VERSION_3, which has two words of each set
    if geteuid().is_root() {
        return Ok(());
    }
    let (mut header, mut sets) = ([VERSION, 0], [[0_u32; 3]; 2]);
    // SAFETY: header and sets are as large as that version says; the kernel reads and writes no more.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) })?;
    sets.iter_mut().for_each(|[_, permitted, inheritable]| *inheritable = *permitted);
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) })?;
    for capability in 0..=63_u64 {
        // SAFETY: the call takes numbers only; it refuses those that this kernel doesn't know.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0_u64, 0_u64) };
    }
    Ok(())
}

fn bring_up_loopback() -> io::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeros is a valid ifreq, whose name is then ended by a zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l'.cast_signed(), b'o'.cast_signed()]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a whole ifreq, and the call only reads it.
    Errno::result(unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}
