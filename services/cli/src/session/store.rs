//! What is kept of logins: at which platforms, as whom, by which refresh tokens, never a password. One file of the user's own:
//!
//! ```text
//! $XDG_CONFIG_HOME/nexushub/   (else ~/.config/nexushub/)   0700
//!   platforms.json             0600, written whole or not at all
//!   lock                       whoever changes the file holds it
//! ```

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    time::Duration,
};

use nexushub_chassis::names::{Zone, is_name};
use nexushub_launch::{durable, lock::Lock};
use serde::{Deserialize, Serialize};

use super::front;
use crate::{
    failure::Failure,
    https::{Roots, Target},
};

/// The form of the file.
const VERSION: u32 = 1;
/// Largest file: some hundred platforms, each with authorities of its own.
const FILE_MAX: u64 = 4 << 20;
/// How long another command may hold the lock: longer than its exchange may take, each of its tries.
const PATIENCE: Duration = Duration::from_secs(200);

/// One platform.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// As it was named.
    pub(crate) url: String,
    pub(crate) base_domain: String,
    pub(crate) user: String,
    pub(crate) refresh_token: String,
    /// The authorities that it is believed by, as PEM; without, those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
}

impl Kept {
    /// Its base domain and port.
    pub(crate) fn zone(&self) -> Result<Zone, Failure> {
        let port = Target::elsewhere(&self.url)?.port;
        if is_name(&self.base_domain) {
            Ok(Zone::new(&self.base_domain, port))
        } else {
            Err(again(&self.url))
        }
    }

    /// Whose certificates are believed of it.
    pub(crate) fn roots(&self) -> Roots<'_> {
        self.ca.as_deref().map_or(Roots::System, Roots::Pem)
    }

    /// Whether this address is one of its.
    fn is_at(&self, target: &Target) -> bool {
        self.zone()
            .is_ok_and(|zone| front::is_within(&target.host, zone.base()) && zone.port() == target.port)
    }
}

fn again(url: &str) -> Failure {
    Failure::new(format!("what is kept of {url} is not understood"), format!("nexushub login {url}"))
}

/// All of them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Book {
    version: u32,
    /// The URL of the one that is meant.
    #[serde(default)]
    current: Option<String>,
    #[serde(default)]
    platforms: Vec<Kept>,
}

impl Default for Book {
    fn default() -> Self {
        Self { version: VERSION, current: None, platforms: Vec::new() }
    }
}

impl Book {
    /// The one that was named so.
    pub(crate) fn of(&mut self, url: &str) -> Option<&mut Kept> {
        self.platforms.iter_mut().find(|kept| kept.url == url)
    }

    /// The one that is meant where nothing is said.
    pub(crate) fn current(self) -> Option<Kept> {
        let current = self.current?;
        self.platforms.into_iter().find(|kept| kept.url == current)
    }

    /// The one of which this is an address.
    pub(crate) fn at(self, target: &Target) -> Option<Kept> {
        self.platforms.into_iter().find(|kept| kept.is_at(target))
    }

    /// Adds one, in place of what is known of the same platform; it is the one that is meant from now on.
    pub(crate) fn add(&mut self, kept: Kept) {
        if let Ok(zone) = kept.zone() {
            self.platforms.retain(|old| old.url != kept.url && old.zone().as_ref() != Ok(&zone));
        }
        self.current = Some(kept.url.clone());
        self.platforms.push(kept);
    }

    /// Forgets one.
    pub(crate) fn forget(&mut self, url: &str) {
        self.platforms.retain(|kept| kept.url != url);
        self.current = self.current.take().filter(|current| current != url);
    }
}

/// Where it is kept.
#[derive(Clone)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// The user's own.
    pub(crate) fn of_user() -> Result<Self, Failure> {
        let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
        config.map(|config| Self::at(config.join("nexushub"))).ok_or_else(|| {
            Failure::new(
                "there is no place to keep a login in",
                "set HOME, or XDG_CONFIG_HOME, to an absolute path",
            )
        })
    }

    /// In this folder.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("platforms.json")
    }

    /// What is kept.
    pub(crate) fn read(&self) -> Result<Book, Failure> {
        let path = self.file();
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Book::default()),
            Err(error) => return Err(Failure::io("read", &path, &error)),
            Ok(_) => {}
        }
        let book = serde_json::from_str(&text).ok().filter(|book: &Book| book.version == VERSION);
        book.ok_or_else(|| {
            let hint = "remove it, and log in again: nexushub login URL; a platform on this machine is meant by --platform local";
            Failure::new(format!("{} is not understood", path.display()), hint)
        })
    }

    /// Keeps it; for who has the turn.
    pub(crate) fn write(&self, book: &Book) -> Result<(), Failure> {
        let (path, text) = (self.file(), serde_json::to_vec_pretty(book).unwrap_or_default());
        durable::write(&path, &text, 0o600).map_err(|error| Failure::io("write", &path, &error))
    }

    /// The turn to change it, once nobody else has it.
    pub(crate) async fn turn(&self) -> Result<Lock, Failure> {
        let own = self.clone();
        let waited = tokio::task::spawn_blocking(move || own.turn_within(PATIENCE)).await;
        waited.unwrap_or_else(|_| Err(Failure::unread()))
    }

    fn turn_within(&self, patience: Duration) -> Result<Lock, Failure> {
        let path = self.folder.join("lock");
        let taken = self.make_folder().and_then(|()| Lock::acquire_within(&path, patience));
        taken.map_err(|error| Failure::io("lock", &path, &error))?.ok_or_else(|| {
            Failure::new(format!("another command holds {}", path.display()), "wait for its end, or end it")
        })
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))
    }
}
