//! `$RUN/status.json`: what the supervisor says about itself and its daemons. Believed only while that supervisor lives.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{args::DAEMONS, process::Process};

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
    /// Which file its next process is started from; supervisors of an earlier release don't tell.
    pub(crate) executable: Option<String>,
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

    /// Daemons of which there is another executable by now than they are started from. One that is missing takes nobody's place.
    pub(crate) fn renewed(&self) -> Vec<&'static str> {
        let held = |name: &str| self.daemon(name)?.executable.as_deref();
        let renewed =
            |name: &&str| held(name).is_some_and(|held| on_disk(held).is_some_and(|now| now != held));
        DAEMONS.into_iter().filter(renewed).collect()
    }

    /// One daemon.
    pub(crate) fn daemon(&self, name: &str) -> Option<&Daemon> {
        self.daemons.iter().find(|daemon| daemon.name == name)
    }
}

/// What the supervisor would say of the executable that it means, as that is now: its path, device, inode, bytes, and when it was
/// changed (`site.rs` there); none if it is not there, or not understood.
fn on_disk(held: &str) -> Option<String> {
    let (path, _) = held.strip_prefix("(\"")?.split_once("\", ")?;
    let (path, file) = (Path::new(path), fs::metadata(path).ok()?);
    let now = (path, file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    Some(format!("{now:?}").trim_end_matches(')').to_owned())
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
    fn another_executable_is_told_by_its_daemon_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(format!("nexushub-{name}"));
        let put = |name: &str| {
            fs::write(path("new"), name).unwrap();
            fs::rename(path("new"), path(name)).unwrap();
        };
        ["provider", "procmgr", "proxy"].into_iter().for_each(put);
        let held = |name: &str| Daemon {
            name: name.into(),
            executable: on_disk(&format!("({:?}, 1", path(name))),
            ..Daemon::default()
        };
        let silent = Daemon { name: "debug-api".into(), ..Daemon::default() }; // of an earlier release's supervisor
        let board = Board {
            daemons: vec![held("provider"), held("procmgr"), held("proxy"), silent],
            ..Board::default()
        };
        put("debug-api");
        assert!(board.renewed().is_empty());
        put("proxy");
        fs::remove_file(path("provider")).unwrap();
        assert_eq!(board.renewed(), ["proxy"]);
        assert_eq!(["", "(", "(\"/nowhere\", 1", "(\"\u{1b}"].map(on_disk), [const { None }; 4]);
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
