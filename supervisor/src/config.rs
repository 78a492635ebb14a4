//! The table `[supervisor]`.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

/// Declares the settings with their defaults side by side.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// What an operator may set; milliseconds fit 32 bits, so sums of them never overflow.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct Settings { $($(#[$doc])* pub(crate) $name: $type,)* }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }
    };
}

settings! {
    /// Folder of the daemons' executables; empty = the supervisor's own.
    bin_dir: PathBuf = PathBuf::new(),
    /// How long a daemon may be silent; it gives a sign of life every half of it. At least 100.
    watchdog_ms: u32 = 4_000,
    /// First delay of repeated restarts; it doubles with each.
    backoff_min_ms: u32 = 100,
    /// Longest delay of a restart.
    backoff_max_ms: u32 = 15_000,
    /// A daemon that ran for so long before it crashed is restarted at once.
    stable_ms: u32 = 60_000,
    /// So many crashes ...
    burst: usize = 10,
    /// ... within so long make the state `failed`: retried slowly.
    burst_ms: u32 = 60_000,
    /// How long `--check` of a daemon may take.
    check_timeout_s: u32 = 10,
    /// How long a daemon may take to become ready.
    start_timeout_ms: u32 = 30_000,
    /// How long the proxy may drain: longer than its own `drain_ms`.
    stop_proxy_ms: u32 = 35_000,
    /// How long procmgr may take to stop every app.
    stop_procmgr_ms: u32 = 15_000,
    /// How long any other daemon may take to stop.
    stop_other_ms: u32 = 5_000,
    /// What a second signal leaves for the rest of a stop.
    stop_hurried_ms: u32 = 8_000,
    /// How long a whole stop may take.
    stop_total_ms: u32 = 70_000,
}

/// A configured number of milliseconds.
pub(crate) fn ms(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

impl Settings {
    pub(crate) fn watchdog(&self) -> Duration {
        ms(self.watchdog_ms.max(100))
    }

    /// How long a daemon may take from SIGTERM to its end.
    pub(crate) fn stop_limit(&self, daemon: &str) -> Duration {
        ms(match daemon {
            "proxy" => self.stop_proxy_ms,
            "procmgr" => self.stop_procmgr_ms,
            _ => self.stop_other_ms,
        })
    }
}
