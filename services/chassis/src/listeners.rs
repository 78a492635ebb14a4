//! The sockets that the parent bound for this daemon. A daemon binds none itself: so they outlive it, and connections made
//! while it is away wait instead of being refused.

use std::{net::TcpListener, os::fd::OwnedFd, os::unix::net::UnixListener};

use nexushub_launch::{Fault, fds};

/// Inherited sockets by name, and descriptors that an earlier generation left with the parent.
#[derive(Debug, Default)]
pub struct Listeners {
    fds: Vec<(String, OwnedFd)>,
}

impl Listeners {
    /// Takes them from the parent; to be called before any thread exists.
    ///
    /// # Errors
    /// When one that was promised isn't there.
    pub(crate) fn inherit() -> Result<Self, Fault> {
        let fds = fds::take().map_err(|error| {
            Fault::new(
                "socket_missing",
                format!("a promised socket is not open: {error}"),
                "LISTEN_FDS",
                "restart the platform",
            )
        })?;
        Ok(Self { fds })
    }

    /// Every TCP listener of a name, non-blocking.
    pub fn take_tcp(&mut self, name: &str) -> Vec<TcpListener> {
        let listeners: Vec<TcpListener> = self.take(name).into_iter().map(Into::into).collect();
        listeners.into_iter().filter(|listener| listener.set_nonblocking(true).is_ok()).collect()
    }

    /// The Unix listener of a name, non-blocking.
    pub fn take_unix(&mut self, name: &str) -> Option<UnixListener> {
        let listener = UnixListener::from(self.take(name).into_iter().next()?);
        listener.set_nonblocking(true).ok()?;
        Some(listener)
    }

    /// Every descriptor of a name.
    pub fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        let (taken, rest) = std::mem::take(&mut self.fds).into_iter().partition(|(found, _)| found == name);
        self.fds = rest;
        let taken: Vec<(String, OwnedFd)> = taken;
        taken.into_iter().map(|(_, fd)| fd).collect()
    }
}

/// The fault of a daemon that was started without a socket it needs.
#[must_use]
pub fn missing(name: &str) -> Fault {
    Fault::new(
        "socket_missing",
        "started without an inherited socket",
        name,
        "start under nexushub-supervisor or the systemd units",
    )
}
