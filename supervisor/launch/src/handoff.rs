//! The environment that a parent gives to a daemon, and the same read back by the daemon.

use std::{env, ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use crate::Fault;

/// Where a daemon finds its platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// The configuration file; none = built-in defaults.
    pub config: Option<PathBuf>,
    /// `$RUN`: sockets, credentials, status; none = as configured.
    pub run: Option<PathBuf>,
    /// `$STATE`: what survives a reboot; none = as configured.
    pub state: Option<PathBuf>,
    /// Address of the HTTPS listener, where it differs from the configuration.
    pub listen: Option<SocketAddr>,
    /// Folder of the daemon's credentials.
    pub credentials: Option<PathBuf>,
    /// How long the parent waits for a sign of life before it replaces the daemon.
    pub watchdog: Option<Duration>,
}

impl Handoff {
    /// What this process was started with.
    ///
    /// # Errors
    /// When a value is there but isn't what it should be.
    pub fn from_env() -> Result<Self, Fault> {
        Self::read(|name| env::var_os(name).filter(|value| !value.is_empty()), std::process::id())
    }

    fn read(var: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Self, Fault> {
        let path = |name| var(name).map(PathBuf::from);
        let for_us = var("WATCHDOG_PID").is_none_or(|value| value.to_string_lossy() == pid.to_string());
        Ok(Self {
            config: path("NEXUSHUB_CONFIG"),
            run: path("RUNTIME_DIRECTORY"),
            state: path("STATE_DIRECTORY"),
            listen: parse(&var, "NEXUSHUB_LISTEN")?,
            credentials: path("CREDENTIALS_DIRECTORY"),
            watchdog: parse(&var, "WATCHDOG_USEC")?.filter(|_| for_us).map(Duration::from_micros),
        })
    }

    /// The variables by which a child reads the same back. The watchdog goes with the process, so it isn't here.
    #[must_use]
    pub fn to_env(&self) -> Vec<(&'static str, OsString)> {
        let listen = self.listen.map(|address| OsString::from(address.to_string()));
        [
            ("NEXUSHUB_CONFIG", self.config.clone().map(Into::into)),
            ("RUNTIME_DIRECTORY", self.run.clone().map(Into::into)),
            ("STATE_DIRECTORY", self.state.clone().map(Into::into)),
            ("NEXUSHUB_LISTEN", listen),
            ("CREDENTIALS_DIRECTORY", self.credentials.clone().map(Into::into)),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
    }
}

fn parse<T: std::str::FromStr>(
    var: impl Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<T>, Fault> {
    let Some(value) = var(name) else { return Ok(None) };
    let text = value.to_string_lossy();
    text.parse().map(Some).map_err(|_| Fault {
        exit: crate::fault::EXIT_USAGE,
        ..Fault::new(
            "environment_invalid",
            format!("environment variable is malformed: {text}"),
            name,
            "unset it",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_child_reads_back_what_its_parent_wrote() {
        let sent = Handoff {
            config: Some("/a/nexushub.toml".into()),
            run: Some("/r".into()),
            state: Some("/s".into()),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9))),
            credentials: None,
            watchdog: None,
        };
        let env = sent.to_env();
        let find = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        assert_eq!(Handoff::read(find, 1).unwrap(), sent);
    }

    #[test]
    fn a_watchdog_meant_for_another_process_is_not_ours() {
        let env = |name: &str| match name {
            "WATCHDOG_PID" => Some("7".into()),
            "WATCHDOG_USEC" => Some("4000000".into()),
            _ => None,
        };
        assert_eq!(Handoff::read(env, 7).unwrap().watchdog, Some(Duration::from_secs(4)));
        assert_eq!(Handoff::read(env, 8).unwrap().watchdog, None);
    }

    #[test]
    fn a_malformed_address_is_named() {
        let env = |name: &str| (name == "NEXUSHUB_LISTEN").then(|| OsString::from("nowhere"));
        let fault = Handoff::read(env, 1).unwrap_err();
        assert_eq!((fault.object.as_str(), fault.exit), ("NEXUSHUB_LISTEN", 64));
    }
}
