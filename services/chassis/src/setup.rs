//! Where a daemon lives and what it was told: its configuration table, the platform's, and the folders.

use std::{
    env,
    path::{Path, PathBuf},
};

use nexushub_launch::{
    Fault,
    config::{Config, Platform},
    handoff::Handoff,
};
use serde::de::DeserializeOwned;

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
        Ok(Self { config: config.section(daemon)?, platform, root: config.root.clone(), run, state })
    }
}

impl<C> Setup<C> {
    /// A path of the configuration, made absolute.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
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
