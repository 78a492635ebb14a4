//! `$RUN/status.json`, read again whenever the supervisor replaced it.

use std::{fs, path::Path, thread};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use tokio::sync::watch;

use crate::soon;

/// One daemon, as the supervisor sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Daemon {
    /// Its short name.
    pub name: String,
    /// `ready` when it serves.
    pub state: String,
    /// Its process; none while there is none.
    #[serde(default)]
    pub pid: Option<u32>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u64,
    /// Why it is not running.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The supervisor itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Supervisor {
    /// Its process.
    pub pid: u32,
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The supervisor.
    pub supervisor: Supervisor,
    /// Its daemons.
    pub daemons: Vec<Daemon>,
}

impl Status {
    /// One daemon; an empty one when it is not there.
    #[must_use]
    pub fn daemon(&self, name: &str) -> Daemon {
        self.daemons.iter().find(|daemon| daemon.name == name).cloned().unwrap_or_default()
    }

    /// Whether a daemon serves.
    #[must_use]
    pub fn is_ready(&self, name: &str) -> bool {
        let daemon = self.daemon(name);
        daemon.state == "ready" && daemon.pid.is_some_and(|pid| pid > 0)
    }
}

/// Follows the file.
#[derive(Debug)]
pub struct Board {
    latest: watch::Receiver<Status>,
}

impl Board {
    /// Follows `status.json` in a folder that exists.
    ///
    /// # Panics
    /// When it can't be watched.
    #[must_use]
    pub fn follow(folder: &Path) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        inotify
            .add_watch(
                folder,
                AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE_SELF,
            )
            .unwrap();
        let (sender, latest) = watch::channel(read(folder).unwrap_or_default());
        let folder = folder.to_owned();
        thread::spawn(move || {
            while inotify.read_events().is_ok_and(|events| {
                !events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED))
            }) {
                if let Some(status) = read(&folder)
                    && sender.send(status).is_err()
                {
                    return;
                }
            }
        });
        Self { latest }
    }

    /// What the file says now.
    #[must_use]
    pub fn now(&self) -> Status {
        self.latest.borrow().clone()
    }

    /// Waits until it says something that pleases.
    ///
    /// # Panics
    /// When it never does.
    pub async fn wait(&self, what: &str, pleases: impl Fn(&Status) -> bool) -> Status {
        let mut latest = self.latest.clone();
        soon(what, latest.wait_for(|status| pleases(status)))
            .await
            .expect("the folder is still there")
            .clone()
    }
}

fn read(folder: &Path) -> Option<Status> {
    serde_json::from_str(&fs::read_to_string(folder.join("status.json")).ok()?).ok()
}
