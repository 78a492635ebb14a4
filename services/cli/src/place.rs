//! Which platform on this machine a command means, and where its things lie. Decided here and nowhere else; whether it is one on this
//! machine at all, `hub.rs` decides.
//!
//! ```text
//! --home DIR or NEXUSHUB_HOME  ─▶ DIR
//! else <project>/.nexushub     ─▶ if it is there; for `up` also if the project is a checkout, or the user is not root
//! else                         ─▶ the machine's own platform (configured folders, else /run/nexushub, /var/lib/nexushub)
//! ```
//! The configuration is read only by commands that need it: a broken one must not keep anybody from `down`.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use nexushub_launch::{
    config::{Config, Platform},
    handoff::Handoff,
};
use serde::{Deserialize, Serialize};

use crate::{args::Global, board::Board, failure::Failure};

/// Folder of a project's own platform.
const PROJECT_HOME: &str = ".nexushub";
/// Names that make a folder a project; the second one makes it a checkout.
const PROJECT: [&str; 2] = ["nexushub.toml", "dist/config/nexushub.toml"];
/// The configuration of the machine's own platform.
const SYSTEM_CONFIG: &str = "/etc/nexushub/nexushub.toml";

/// What a keeper writes down about itself: `$RUN/keeper.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    /// Whether its output goes to the log file.
    pub(crate) detached: bool,
}

/// One platform.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its home; none = the machine's own platform.
    pub(crate) home: Option<PathBuf>,
    /// `$RUN`
    pub(crate) run: PathBuf,
    /// `$STATE`
    pub(crate) state: PathBuf,
    config: Option<PathBuf>,
}

/// What the decision rests on.
#[derive(Clone, Debug, Default)]
struct Facts {
    given: Option<PathBuf>,
    here: PathBuf,
    /// The nearest folder above that is a project, and whether it is a checkout.
    project: Option<(PathBuf, bool)>,
    /// Whether the project has a platform of its own.
    project_home: bool,
    root: bool,
    starting: bool,
}

impl Facts {
    fn collect(global: &Global, starting: bool) -> Result<Self, Failure> {
        let here = env::current_dir()
            .map_err(|error| Failure::io("tell the working folder", Path::new("."), &error))?;
        let project = here.ancestors().find_map(|folder| {
            let found = PROJECT.iter().position(|name| folder.join(name).is_file())?;
            Some((folder.to_owned(), found == 1))
        });
        let project_home = project.as_ref().is_some_and(|(folder, _)| folder.join(PROJECT_HOME).is_dir());
        let root = nix::unistd::geteuid().is_root();
        Ok(Self { given: global.home.clone(), here, project, project_home, root, starting })
    }

    /// The home; none = the machine's own platform.
    fn home(&self) -> Option<PathBuf> {
        if let Some(given) = &self.given {
            return Some(self.here.join(given));
        }
        match &self.project {
            Some((folder, checkout)) => {
                let start_here = self.starting && (*checkout || !self.root);
                (self.project_home || start_here).then(|| folder.join(PROJECT_HOME))
            }
            None => (self.starting && !self.root).then(|| self.here.join(PROJECT_HOME)),
        }
    }
}

impl Place {
    /// The platform that a command means.
    pub(crate) fn find(global: &Global) -> Result<Self, Failure> {
        let facts = Facts::collect(global, false)?;
        Ok(Self::at(facts.home(), &facts.here, global.config.as_deref()))
    }

    /// The platform that is to be started.
    pub(crate) fn to_start(global: &Global) -> Result<Self, Failure> {
        let facts = Facts::collect(global, true)?;
        Ok(Self::at(facts.home(), &facts.here, global.config.as_deref()))
    }

    fn at(home: Option<PathBuf>, here: &Path, config: Option<&Path>) -> Self {
        let config = config.map(|config| here.join(config));
        let Some(home) = home else {
            let config = config.or_else(|| Some(PathBuf::from(SYSTEM_CONFIG)).filter(|path| path.is_file()));
            let none = Handoff {
                config: None,
                run: None,
                state: None,
                listen: None,
                credentials: None,
                watchdog: None,
            };
            let folders = Config::load(config.as_deref(), here).and_then(|config| config.folders(&none));
            let (run, state) = folders
                .unwrap_or_else(|_| (PathBuf::from("/run/nexushub"), PathBuf::from("/var/lib/nexushub")));
            return Self { home: None, run, state, config };
        };
        let at_home = || Some(home.join("nexushub.toml")).filter(|path| path.is_file());
        Self {
            run: home.join("run"),
            state: home.join("state"),
            config: config.or_else(at_home),
            home: Some(home),
        }
    }

    /// What the keeper of the running platform wrote down; empty while there is none.
    pub(crate) fn record(&self) -> Record {
        let text = fs::read_to_string(self.run.join("keeper.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The configuration: the one named, else the one that the running platform was started with, else the one found.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let running = || Board::live(&self.run).and_then(|board| board.supervisor.config);
        let path = self.config.clone().or_else(running);
        let here = env::current_dir()
            .map_err(|error| Failure::io("tell the working folder", Path::new("."), &error))?;
        Ok(Config::load(path.as_deref(), &here)?)
    }

    /// The configuration that was named, or lies where this platform's belongs.
    pub(crate) fn named_config(&self) -> Option<PathBuf> {
        self.config.clone()
    }

    /// `[platform]`, with the address that the running platform was given.
    pub(crate) fn platform(&self) -> Result<Platform, Failure> {
        let platform = self.config()?.platform()?;
        let running = Board::live(&self.run).and_then(|board| board.supervisor.listen.first()?.parse().ok());
        Ok(Platform { listen: running.unwrap_or(platform.listen), ..platform })
    }

    /// The CA that the platform's certificate is to be checked with.
    pub(crate) fn ca_file(&self) -> Result<PathBuf, Failure> {
        /// The one key of the table that matters here; the rest is procmgr's to judge.
        #[derive(Default, Deserialize)]
        struct Table {
            ca_file: Option<PathBuf>,
        }
        let config = self.config()?;
        let named = config.section::<Table>("procmgr")?.ca_file;
        Ok(config.resolve(named.as_deref().unwrap_or(Path::new("dist/certs/ca.crt"))))
    }

    /// The gRPC socket of a daemon.
    pub(crate) fn socket(&self, daemon: &str) -> PathBuf {
        self.run.join(format!("{daemon}.sock"))
    }

    /// The operators' token of a daemon.
    pub(crate) fn token(&self, daemon: &str) -> Result<String, Failure> {
        let path = self.run.join("operator").join(daemon);
        match fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(self.not_up()),
            Err(error) => Err(Failure::io("read", &path, &error)),
        }
    }

    /// Where the output of a platform in the background goes.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.state.join("nexushub.log")
    }

    pub(crate) fn not_up(&self) -> Failure {
        Failure::new(format!("{self} is not up"), format!("start it: {}", self.command("up --detach")))
    }

    /// A command line about this platform, for hints.
    pub(crate) fn command(&self, rest: &str) -> String {
        match &self.home {
            Some(home) => format!("nexushub {rest} --home {}", home.display()),
            None => format!("nexushub {rest}"),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.home {
            Some(home) => write!(f, "the platform in {}", home.display()),
            None => f.write_str("this machine's platform"),
        }
    }
}

/// Where to connect to a listener that may listen on every address.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts() -> Facts {
        Facts { here: "/project/sub".into(), ..Facts::default() }
    }

    fn home(facts: &Facts) -> Option<&'static str> {
        let homes = ["/given", "/project/sub/given", "/project/.nexushub", "/project/sub/.nexushub"];
        let found = facts.home()?;
        Some(homes.iter().find(|home| Path::new(home) == found).unwrap())
    }

    #[test]
    fn a_home_that_was_given_counts_before_everything() {
        let project = Some(("/project".into(), true));
        let with = |given: &str| Facts { given: Some(given.into()), project: project.clone(), ..facts() };
        assert_eq!(home(&with("/given")), Some("/given"));
        assert_eq!(home(&with("given")), Some("/project/sub/given"));
    }

    #[test]
    fn a_project_with_a_platform_of_its_own_is_meant_from_every_folder_in_it() {
        let facts =
            Facts { project: Some(("/project".into(), false)), project_home: true, root: true, ..facts() };
        assert_eq!(home(&facts), Some("/project/.nexushub"));
    }

    #[test]
    fn up_makes_a_platform_in_a_checkout_and_for_an_ordinary_user() {
        let starting = Facts { starting: true, root: true, ..facts() };
        let checkout = Facts { project: Some(("/project".into(), true)), ..starting.clone() };
        assert_eq!(home(&checkout), Some("/project/.nexushub"));
        let installed = Facts { project: Some(("/project".into(), false)), ..starting.clone() };
        assert_eq!(home(&installed), None, "root in /etc/nexushub means the machine's own platform");
        assert_eq!(home(&Facts { root: false, ..installed }), Some("/project/.nexushub"));
        assert_eq!(home(&Facts { root: false, ..starting.clone() }), Some("/project/sub/.nexushub"));
        assert_eq!(home(&starting), None);
    }

    #[test]
    fn other_commands_make_none() {
        assert_eq!(home(&Facts { project: Some(("/project".into(), true)), ..facts() }), None);
        assert_eq!(home(&facts()), None);
    }

    #[test]
    fn everything_of_a_home_lies_below_it() {
        let place = Place::at(Some("/h".into()), Path::new("/"), None);
        assert_eq!(
            (place.run.as_path(), place.state.as_path()),
            (Path::new("/h/run"), Path::new("/h/state"))
        );
        assert_eq!(place.socket("proxy"), Path::new("/h/run/proxy.sock"));
        assert_eq!(place.command("down"), "nexushub down --home /h");
    }

    #[test]
    fn the_running_platform_says_where_it_listens() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::at(Some(folder.path().to_owned()), Path::new("/"), None);
        fs::create_dir(&place.run).unwrap();
        let config = folder.path().join("other.toml");
        fs::write(&config, "[platform]\nbase_domain = 'x.localhost'\nlisten = '127.0.0.1:1'\n").unwrap();
        let me = std::process::id();
        let board = serde_json::json!({"supervisor": {
            "pid": me, "start_time": nexushub_launch::clock::start_time(me).unwrap(),
            "config": config, "listen": ["127.0.0.1:9"],
        }});
        fs::write(place.run.join("status.json"), board.to_string()).unwrap();
        let platform = place.platform().unwrap();
        assert_eq!((platform.base_domain.as_str(), platform.listen.port()), ("x.localhost", 9));
        assert_eq!(place.ca_file().unwrap(), folder.path().join("dist/certs/ca.crt"));
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_the_loopback() {
        assert_eq!(reachable("0.0.0.0:8443".parse().unwrap()).to_string(), "127.0.0.1:8443");
        assert_eq!(reachable("[::]:8443".parse().unwrap()).to_string(), "[::1]:8443");
        assert_eq!(reachable("10.1.2.3:8443".parse().unwrap()).to_string(), "10.1.2.3:8443");
    }
}
