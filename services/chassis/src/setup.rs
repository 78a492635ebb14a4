//! Where a daemon lives and what it was told: its configuration table, the platform's, and the folders.

use std::{
    env,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use nexushub_launch::{
    Fault,
    config::{Config, Platform},
    handoff::Handoff,
};
use serde::{Deserialize, de::DeserializeOwned};

/// Everything that is known before the daemon starts. Paths are absolute.
#[derive(Debug, Clone)]
pub struct Setup<C> {
    /// The daemon's own table.
    pub config: C,
    /// What every daemon knows.
    pub platform: Platform,
    /// The project root; relative paths of the configuration start here.
    pub root: PathBuf,
    /// `$RUN`: sockets and credentials.
    pub run: PathBuf,
    /// `$STATE`: what survives a reboot.
    pub state: PathBuf,
    file: Config,
}

/// Which ports apps are given: what of `[procmgr]` others must know, so that they keep off them. That table is procmgr's to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AppPorts {
    port_first: u16,
    port_last: u16,
}

impl Default for AppPorts {
    fn default() -> Self {
        Self { port_first: 10_000, port_last: 19_999 }
    }
}

impl From<AppPorts> for RangeInclusive<u16> {
    fn from(ports: AppPorts) -> Self {
        ports.port_first..=ports.port_last
    }
}

impl<C: DeserializeOwned + Default> Setup<C> {
    /// Reads the configuration that the parent names, or finds it from the working folder.
    ///
    /// # Errors
    /// A configuration that can't be read or isn't valid (exit code 64).
    pub fn load(daemon: &str, handoff: &Handoff, config: &Config) -> Result<Self, Fault> {
        let (run, state) = config.folders(handoff)?;
        let mut platform = config.platform()?;
        platform.listen = handoff.listen.unwrap_or(platform.listen);
        let (table, root, file) = (config.section(daemon)?, config.root.clone(), config.clone());
        Ok(Self { config: table, platform, root, run, state, file })
    }
}

impl<C> Setup<C> {
    /// A path of the configuration, made absolute.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Which ports apps are given.
    ///
    /// # Errors
    /// Ports that are none.
    pub fn app_ports(&self) -> Result<AppPorts, Fault> {
        Ok(self.file.section("procmgr")?)
    }

    /// The full name and port under which people reach a host name: `hello.yesterday.localhost:8443`.
    #[must_use]
    pub fn authority(&self, host_name: &str) -> String {
        format!("{host_name}.{}:{}", self.platform.base_domain, self.platform.listen.port())
    }
}

/// The configuration file of this process.
///
/// # Errors
/// As [`Config::load`], or when there is no working folder.
pub fn find_config(handoff: &Handoff) -> Result<Config, Fault> {
    let here = env::current_dir().map_err(|error| {
        Fault::new(
            "folder_missing",
            format!("could not tell the working folder: {error}"),
            ".",
            "start from a folder that exists",
        )
    })?;
    Ok(Config::load(handoff.config.as_deref(), &here)?)
}
