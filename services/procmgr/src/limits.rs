//! What one instance may use.

use serde::{Deserialize, Serialize};

/// The bounds of one instance; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Memory of all its processes together.
    pub memory_bytes: u64,
    /// Processor time; 100 = one core.
    pub cpu_percent: u32,
    /// Processes and threads.
    pub processes: u32,
    /// Open files of one process.
    pub open_files: u32,
    /// Its data.
    pub data_bytes: u64,
    /// Its `/tmp`.
    pub tmp_bytes: u64,
    /// Disk for its log. Not written where there is none: what is known of an app from before there was one stays the same.
    #[serde(default, skip_serializing_if = "none")]
    pub log_bytes: u64,
}

/// Whether a bound is none; by reference, as serde asks.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn none(bound: &u64) -> bool {
    *bound == 0
}
