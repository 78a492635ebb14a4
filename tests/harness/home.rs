//! The folder of one platform: short enough for socket paths, with certificates and a configuration of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, lchown},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt::ReuseAddr,
};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::workshop;

/// Ports for HTTPS listeners: above those of apps, below those that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The folder, gone when this is dropped.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// A folder with certificates, `run/` and `nexushub.toml`.
    ///
    /// # Panics
    /// When `/tmp` can't be written.
    #[must_use]
    pub fn make(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("nh").tempdir_in("/tmp").unwrap();
        let home = Self { folder };
        fs::DirBuilder::new().mode(0o700).create(home.run()).unwrap();
        home.put_certificates(workshop::certificates());
        home.configure(config);
        home
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `$RUN`.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.path().join("run")
    }

    /// `$STATE`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("nexushub.toml")
    }

    /// Where the certificates lie.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.path().join("dist/certs")
    }

    /// Writes the configuration file.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn configure(&self, config: &str) {
        fs::write(self.config(), config).unwrap();
    }

    /// Adds a key to a table of the configuration, which need not be there yet; gives the number of the key's line.
    ///
    /// # Panics
    /// When the file can't be read or written.
    pub fn configure_more(&self, table: &str, key: &str) -> usize {
        let mut text = fs::read_to_string(self.config()).unwrap();
        let head = format!("[{table}]\n");
        let at = text.find(&head).unwrap_or_else(|| {
            text.push_str(&format!("\n{head}"));
            text.len() - head.len()
        });
        let at = at + head.len();
        text.insert_str(at, &format!("{key}\n"));
        self.configure(&text);
        text[..at].lines().count() + 1
    }

    /// Gives everything in it to a user.
    ///
    /// # Panics
    /// When we may not.
    pub fn give_to(&self, user: u32) {
        let ours = geteuid().as_raw();
        let mut folders = vec![self.path().to_owned()];
        chown(self.path(), Some(user), Some(user)).unwrap();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                // What the platform took away meanwhile needs none, and what it gave to others is theirs.
                if entry.metadata().is_ok_and(|meta| meta.uid() == ours) {
                    lchown(entry.path(), Some(user), Some(user)).ok();
                }
                folders.extend(entry.path().is_dir().then(|| entry.path()));
            }
        }
    }

    /// Takes the certificates of another folder.
    ///
    /// # Panics
    /// When there are none.
    pub fn put_certificates(&self, from: &Path) {
        fs::create_dir_all(self.certs()).unwrap();
        for name in ["ca.crt", "server.crt", "server.key"] {
            fs::copy(from.join(name), self.certs().join(name)).unwrap();
        }
        fs::set_permissions(self.certs().join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// An address on this machine where nobody listens.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 400).unwrap() * 30; // so that two test runs at once rarely meet
    let span = PORTS.end - PORTS.start;
    let candidates = (0..span).map(|_| PORTS.start + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % span);
    let address = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    candidates.map(address).find(|address| is_free(*address).unwrap_or(false)).expect("a free port").into()
}

/// Binds without listening: a child that another story forks meanwhile has a copy of the socket for a moment, and of a listener's the
/// port would be taken.
fn is_free(address: SocketAddrV4) -> nix::Result<bool> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    Ok(bind(socket.as_raw_fd(), &SockaddrIn::from(address)).is_ok())
}
