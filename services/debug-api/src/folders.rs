//! Where everything lies below `$STATE/debug-api`.
//!
//! ```text
//! applications/<id>.json          the record; written last when something begins, and first when it ends
//! uploads/<id>/chunks/<index>     chunks of the session, with session.json
//! uploads/<id>/transfers/<id>.*   resumable uploads: what is known of each, and its bytes
//! uploads/<id>/package.zip        the assembled package, until it is installed
//! apps/<id>/releases/<digest>-<n>/ immutable; the newest two, and whatever is in use
//! apps/<id>/db/                   the app's own data; survives releases
//! packages/<sha256>/              immutable; the admin app's applications run them, as provider says
//! history.json                    in which states the instances were, see platform/history.rs
//! tmp/                            whatever isn't finished; emptied at start-up
//! ```
//! All of it is on one file system, so that finished things get their place by rename. Every component below the root is
//! an id made here or a checked digest, never a client's word.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

use crate::error::StorageError;

/// An application's own data, in its folder.
const DATA: &str = "db";

/// The daemon's folders.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    root: PathBuf,
}

impl Folders {
    /// Makes what is missing.
    pub(crate) fn create(state: &Path) -> Result<Self, StorageError> {
        let folders = Self { root: state.join("debug-api") };
        for folder in [
            folders.root.clone(),
            folders.applications(),
            folders.uploads(),
            folders.apps(),
            folders.packages(),
            folders.tmp(),
        ] {
            private(&folder).map_err(StorageError::of("create", &folder))?;
        }
        Ok(folders)
    }

    pub(crate) fn applications(&self) -> PathBuf {
        self.root.join("applications")
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn apps(&self) -> PathBuf {
        self.root.join("apps")
    }

    pub(crate) fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.root.join("history.json")
    }

    /// A name in `tmp` that nobody else has.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.tmp().join(uuid::Uuid::new_v4().to_string())
    }

    pub(crate) fn record(&self, id: &str) -> PathBuf {
        self.applications().join(format!("{id}.json"))
    }

    pub(crate) fn upload(&self, id: &str) -> PathBuf {
        self.uploads().join(id)
    }

    pub(crate) fn chunks(&self, id: &str) -> PathBuf {
        self.upload(id).join("chunks")
    }

    pub(crate) fn transfers(&self, id: &str) -> PathBuf {
        self.upload(id).join("transfers")
    }

    pub(crate) fn package(&self, id: &str) -> PathBuf {
        self.upload(id).join("package.zip")
    }

    pub(crate) fn app(&self, id: &str) -> PathBuf {
        self.apps().join(id)
    }

    pub(crate) fn releases(&self, id: &str) -> PathBuf {
        self.app(id).join("releases")
    }

    pub(crate) fn release(&self, id: &str, name: &str) -> PathBuf {
        self.releases(id).join(name)
    }

    pub(crate) fn data(&self, id: &str) -> PathBuf {
        self.app(id).join(DATA)
    }
}

/// Makes a folder that only this user may enter, with its parents.
pub(crate) fn private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes an application's folder, with releases and data.
pub(crate) fn remove_app(app: &Path) -> Result<(), StorageError> {
    let data = app.join(DATA);
    match remove_all(app) {
        Err(error) if error.cause.kind() == io::ErrorKind::PermissionDenied && may_be_given(&data) => {
            remove_given(&data)?;
            remove_all(app)
        }
        done => done,
    }
}

/// Whether there are data, of which some may be another's than ours.
fn may_be_given(data: &Path) -> bool {
    !nix::unistd::geteuid().is_root() && data.is_dir()
}

/// Removes data that belong to an id which an ordinary user gave the app's box: by the program that builds boxes and knows the way
/// to such files, beside this one.
fn remove_given(data: &Path) -> Result<(), StorageError> {
    let removed = std::env::current_exe().and_then(|own| {
        let mut keeper = Command::new(own.with_file_name("nexushub-sandbox"));
        keeper.args(["--remove", "--folder"]).arg(data).env_clear().stdin(Stdio::null());
        let output = keeper.output()?;
        let why = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(io::Error::other(why.trim_end().to_owned())) }
    });
    removed.map_err(StorageError::of("remove", data))
}

/// Removes a folder and all in it, however deep an app has made that; one that isn't there is gone already.
pub(crate) fn remove_all(path: &Path) -> Result<(), StorageError> {
    match nexushub_volume::remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::of("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Runs to its end what must not be left half done when a client hangs up.
pub(crate) async fn unhurried<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    finish(tokio::spawn(work.in_current_span())).await
}

/// Runs file work where it may take its time.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    finish(tokio::task::spawn_blocking(work)).await
}

async fn finish<T>(work: JoinHandle<T>) -> T {
    match work.await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Cancelled: the runtime is shutting down, and so is whoever waits here.
        Err(Err(_)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::OwnedFd;

    use nix::{
        fcntl::{OFlag, openat},
        sys::stat::{Mode, mkdirat},
    };

    use super::*;

    #[test]
    fn an_application_is_removed_however_deep_its_folders_lie() {
        let home = tempfile::tempdir().unwrap();
        let app = home.path().join("app");
        private(&app.join(DATA)).unwrap();
        let mut here = OwnedFd::from(std::fs::File::open(app.join(DATA)).unwrap());
        for _ in 0..5_000 {
            mkdirat(&here, c"a", Mode::S_IRWXU).unwrap();
            here = openat(&here, c"a", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        remove_app(&app).unwrap();
        assert!(!app.exists());
        remove_app(&app).unwrap();
    }
}
