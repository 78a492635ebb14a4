//! What procmgr needs to know again of a generation and its shim's record doesn't hold: left in its folder before its start.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nexushub_chassis::launch::durable;
use serde::{Deserialize, Serialize};

use crate::{
    data::{Bound, Data},
    desired::Overrides,
    limits::Limits,
};

const FILE: &str = "note";

/// What the record doesn't hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    /// Of what it was started from.
    pub digest: String,
    /// SHA-256 of its secret, in hexadecimal digits.
    pub secret_sha256: String,
    /// Its cgroups.
    pub cgroups: Vec<PathBuf>,
    /// Its one cgroup, as an earlier version of procmgr noted it.
    #[serde(skip_serializing)]
    pub cgroup: Option<PathBuf>,
    /// Its bounds.
    pub limits: Limits,
    /// What of its isolation and its bounds this machine doesn't enforce.
    pub not_enforced: Vec<String>,
    /// The folder of its data.
    pub data: PathBuf,
    /// Whether their bound is held by measuring them, since they have no disk of their own.
    pub data_measured: bool,
    /// The program that looks after its data, where they belong to an id that an ordinary user gave its box.
    pub keeper: Option<PathBuf>,
    /// Its own health check; not known where an earlier version of procmgr noted it.
    pub health: Option<Overrides>,
    /// When it was started, wall clock.
    pub started_unix: i64,
}

impl Note {
    /// Of the generation of this folder.
    pub(crate) fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join(FILE))?)?)
    }

    /// Leaves it in a generation's folder.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        durable::write(&dir.join(FILE), &serde_json::to_vec(self)?, 0o600)
    }

    /// Size of the disk that its data have; 0 = none of their own.
    pub(crate) fn disk_bytes(&self) -> u64 {
        if self.data_measured { 0 } else { self.limits.data_bytes }
    }

    /// The bound that is held by measuring.
    pub(crate) fn measured(&self) -> Option<Bound> {
        self.data_measured.then(|| Bound { data: self.data(), bytes: self.limits.data_bytes })
    }

    /// Its data.
    pub(crate) fn data(&self) -> Data {
        Data { folder: self.data.clone(), keeper: self.keeper.clone() }
    }

    /// The folders of its cgroups.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        self.cgroups.iter().chain(&self.cgroup).cloned().collect()
    }
}
