//! The sockets that outlive the daemons: bound here or taken over from systemd, inherited by every generation.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nexushub_launch::{Fault, daemon::DAEMONS};
use nix::sys::socket::{Backlog, listen};
use nix::sys::stat::{Mode, umask};

use crate::site::Site;

/// Longest path that fits a socket address.
pub(crate) const MAX_PATH: usize = 107;
/// Connections that wait while their daemon is being replaced.
const BACKLOG: i32 = 4096;

/// A listening socket and who inherits it under which name.
pub(crate) struct Socket {
    pub(crate) daemon: &'static str,
    pub(crate) name: &'static str,
    pub(crate) fd: OwnedFd,
    /// Where it answers.
    pub(crate) address: String,
    /// The file that we made.
    pub(crate) path: Option<PathBuf>,
}

/// Every socket of the platform. systemd's are known by their names: `https`, `http`, `metrics`, or a Unix
/// socket's file name.
pub(crate) fn open(site: &Site, mut inherited: Vec<(String, OwnedFd)>) -> Result<Vec<Socket>, Fault> {
    let mut sockets = Vec::new();
    for daemon in DAEMONS {
        let mut add =
            |name, (fd, address, path)| sockets.push(Socket { daemon: daemon.name, name, fd, address, path });
        for (name, file) in daemon.sockets {
            let path = site.run.join(file);
            let address = path.display().to_string();
            let given = inherited.iter().position(|(given, _)| given == file);
            let (fd, path) = match given.map(|at| inherited.swap_remove(at).1) {
                Some(fd) => (fd, None),
                None => (unix(&path).map_err(|error| failed(&address, &error))?, Some(path)),
            };
            add(name, (fd, address, path));
        }
        for (public, wanted) in [("https", Some(site.listen))].into_iter().chain(site.extra) {
            let given = inherited.extract_if(.., |(name, _)| daemon.https && name == public);
            let mut listeners: Vec<_> = given.map(|(_, fd)| TcpListener::from(fd)).collect();
            if let Some(address) = wanted.filter(|_| daemon.https && listeners.is_empty()) {
                listeners.push(tcp(address).map_err(|error| failed(&address.to_string(), &error))?);
            }
            for listener in listeners {
                let bound = listener.local_addr().map_err(|error| failed(public, &error))?;
                add(public, (listener.into(), bound.to_string(), None));
            }
        }
    }
    Ok(sockets)
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

/// A stale file is in the way after a crash; it is ours, as the lock of the run folder is. A path that is too long goes by its
/// folder's descriptor.
fn unix(path: &Path) -> io::Result<OwnedFd> {
    let _ = fs::remove_file(path);
    let folder = fs::File::open(path.parent().unwrap_or(path))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    let long = path.as_os_str().len() > MAX_PATH;
    let short = path.file_name().filter(|_| long).map_or(path.to_owned(), |name| short.join(name));
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(short);
    umask(before);
    listen(listener.as_ref().map_err(io::Error::kind)?, Backlog::new(BACKLOG)?)?;
    Ok(listener?.into())
}

fn failed(address: &str, error: &io::Error) -> Fault {
    let (code, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ("port_in_use", "stop the other program, or choose another address with --listen")
        }
        io::ErrorKind::PermissionDenied => {
            ("port_forbidden", "use a port above 1023, or nexushub.socket of systemd")
        }
        _ => ("socket_failed", "check platform.listen, redirect_listen, metrics_listen and the run folder"),
    };
    let port =
        address.rsplit(':').next().and_then(|port| port.parse().ok()).filter(|_| code == "port_in_use");
    let by = port.and_then(holder).map_or(String::new(), |holder| format!(", held by {holder}"));
    Fault::new(code, format!("could not listen: {error}{by}"), address, hint)
}

/// Who listens on a port, as far as we may look: `program (pid 7)`.
fn holder(port: u16) -> Option<String> {
    let local = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.len() > 9 && fields[1].ends_with(&local) && fields[3] == "0A").then(|| fields[9].to_owned())
    })?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let fds = fs::read_dir(process.path().join("fd")).ok()?;
        fds.flatten().find(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == socket))?;
        let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some(format!("{} (pid {})", program.trim(), process.file_name().to_string_lossy()))
    })
}
