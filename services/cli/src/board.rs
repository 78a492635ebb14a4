//! `$RUN/status.json`: what the supervisor says about itself and its daemons. Believed only while that supervisor lives.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::process::Process;

/// The whole file. Fields that a later version adds are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Board {
    pub(crate) supervisor: Supervisor,
    #[serde(default)]
    pub(crate) daemons: Vec<Daemon>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Supervisor {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) since_unix_ms: i64,
    pub(crate) release: String,
    pub(crate) state: String,
    /// Where it answers HTTPS.
    pub(crate) listen: Vec<String>,
    /// The configuration that it was started with.
    pub(crate) config: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) pid: Option<u32>,
    pub(crate) start_time: Option<u64>,
    pub(crate) since_unix_ms: i64,
    pub(crate) restarts: u64,
    pub(crate) status: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Daemon {
    /// Its process, if that is still the one that the supervisor means.
    pub(crate) fn process(&self) -> Option<Process> {
        Process::open(self.pid?, self.start_time?)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == "ready" && self.pid.is_some_and(|pid| pid > 0)
    }
}

impl Board {
    /// What the file says; none while there is no file, or none that can be read.
    pub(crate) fn read(run: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(run.join("status.json")).ok()?).ok()
    }

    /// The supervisor's process; none when the one that wrote the file is gone.
    pub(crate) fn supervisor(&self) -> Option<Process> {
        Process::open(self.supervisor.pid, self.supervisor.start_time).filter(Process::is_alive)
    }

    /// What the file says, if the supervisor that wrote it lives.
    pub(crate) fn live(run: &Path) -> Option<Self> {
        Self::read(run).filter(|board| board.supervisor().is_some())
    }

    /// One daemon.
    pub(crate) fn daemon(&self, name: &str) -> Option<&Daemon> {
        self.daemons.iter().find(|daemon| daemon.name == name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_read_whatever_a_later_version_adds_or_an_earlier_one_lacks() {
        let text = r#"{"supervisor":{"pid":7,"start_time":9,"release":"0.1.0","state":"running","more":1},
            "daemons":[{"name":"proxy","state":"ready","pid":8,"start_time":1,"restarts":2,"new":{}},
                       {"name":"procmgr","state":"backoff","pid":null,"reason":"exited with code 1"}]}"#;
        let board: Board = serde_json::from_str(text).unwrap();
        assert_eq!(board.supervisor.pid, 7);
        assert!(board.daemon("proxy").unwrap().is_ready());
        let procmgr = board.daemon("procmgr").unwrap();
        assert_eq!((procmgr.is_ready(), procmgr.reason.as_deref()), (false, Some("exited with code 1")));
        assert!(board.daemon("provider").is_none());
    }

    #[test]
    fn a_supervisor_that_is_gone_is_not_believed() {
        let mut board = Board::default();
        assert!(board.supervisor().is_none());
        board.supervisor.pid = std::process::id();
        board.supervisor.start_time = nexushub_launch::clock::start_time(std::process::id()).unwrap();
        assert!(board.supervisor().is_some());
        board.supervisor.start_time += 1;
        assert!(board.supervisor().is_none());
    }

    #[test]
    fn garbage_is_no_board() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Board::read(folder.path()).is_none());
        for garbage in ["", "{", "[]", "{\"supervisor\":7}"] {
            fs::write(folder.path().join("status.json"), garbage).unwrap();
            assert!(Board::read(folder.path()).is_none(), "{garbage}");
        }
    }
}
