//! The table `[debug-api]` of the configuration file. Invariant: everything that can grow has its bound here.

use std::time::Duration;

use nexushub_chassis::{Fault, bounds, names::RESERVED_HOSTS};
use nexushub_proto::provider::{Driver, Egress};
use serde::Deserialize;

use crate::{front_end::Ports, manifest::Grants, unpack};

/// A year: what an upload's life may be at most.
const MAX_LIFE_S: u64 = 366 * 86_400;
/// Releases that may be kept of one application: they are listed whole.
const RELEASES_MAX: u64 = 100;

/// `[debug-api]`. Durations carry their unit in the key, sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How debug apps are isolated: `auto`, `krun`, `sandbox` or `process`.
    pub driver: String,
    /// What debug apps in boxes may reach beyond this machine: none or internet.
    pub egress: String,
    /// Relative host names that no debug app may claim.
    pub reserved_hosts: Vec<String>,
    /// Ports, and ranges of them, at which a front-end server of a developer's may be forwarded to.
    pub static_ports: Vec<String>,
    /// Applications at the same time.
    pub max_applications: usize,
    /// A whole package.
    pub max_package_bytes: u64,
    /// One chunk of it.
    pub max_chunk_bytes: u64,
    /// Chunks of one package.
    pub max_chunks: u32,
    /// Chunks received at the same time; further ones wait.
    pub max_uploads: usize,
    /// How long an upload may be silent.
    pub upload_idle_ms: u64,
    /// Unfinished resumable uploads of one application.
    pub max_transfers_per_application: usize,
    /// Unfinished resumable uploads of all applications.
    pub max_transfers: usize,
    /// An unfinished upload of which nobody heard for so long is removed.
    pub upload_life_s: u64,
    /// The share of the disk space that would be free without them that unfinished uploads may take, and what is unpacked with them.
    pub max_upload_disk_percent: u8,
    /// All files of a package, unpacked.
    pub max_unpacked_bytes: u64,
    /// Files and folders in a package.
    pub max_entries: u32,
    /// How many times larger than its archive a package may unpack (the first MiB is free).
    pub max_ratio: u64,
    /// What a package's manifest may ask for at most: memory of all its processes.
    pub max_app_memory_bytes: u64,
    /// Processor time; 100 = one core.
    pub max_app_cpu_percent: u32,
    /// Processes and threads.
    pub max_app_processes: u32,
    /// Open files of one process.
    pub max_app_open_files: u32,
    /// Its data.
    pub max_app_data_bytes: u64,
    /// Its `/tmp`.
    pub max_app_tmp_bytes: u64,
    /// Disk for its log.
    pub max_app_log_bytes: u64,
    /// Releases that are kept of an application besides the current one.
    pub keep_releases: usize,
    /// How long provider may be away during an install before the client is told.
    pub provider_wait_ms: u64,
    /// How long a removal waits for the app's end before it deletes the app's files.
    pub stop_wait_ms: u64,
    /// Starts since the last stable run from which on a starting app counts as failed.
    pub failed_after: u32,
    /// An app that nobody asked about for so long is removed; 0 = never.
    pub expiry_s: u64,
    /// So long before it that is announced; 0 = not at all.
    pub expiry_warning_s: u64,
    /// Streams of logs at the same time.
    pub max_log_streams: usize,
    /// Streams of statuses at the same time.
    pub max_status_streams: usize,
    /// Log lines that a new stream starts with.
    pub log_history: u32,
    /// A longer log line is cut into pieces.
    pub max_log_line_bytes: usize,
    /// How often a stream says that it lives.
    pub keepalive_ms: u64,
    /// HTTP connections at the same time; further ones wait.
    pub max_connections: usize,
    /// How long a request's head may take.
    pub header_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            driver: "auto".to_owned(),
            egress: "none".to_owned(),
            reserved_hosts: RESERVED_HOSTS.map(str::to_owned).to_vec(),
            static_ports: ["3000-3099", "4173", "4200-4209", "4321", "5173-5199", "8000-8009", "8080-8085"]
                .map(str::to_owned)
                .to_vec(),
            max_applications: 64,
            max_package_bytes: 512 << 20,
            max_chunk_bytes: 32 << 20,
            max_chunks: 16_384,
            max_uploads: 8,
            upload_idle_ms: 60_000,
            max_transfers_per_application: 4,
            max_transfers: 64,
            upload_life_s: 86_400,
            max_upload_disk_percent: 80,
            max_unpacked_bytes: 2 << 30,
            max_entries: 20_000,
            max_ratio: 200,
            max_app_memory_bytes: 512 << 20,
            max_app_cpu_percent: 100,
            max_app_processes: 512,
            max_app_open_files: 1024,
            max_app_data_bytes: 1 << 30,
            max_app_tmp_bytes: 64 << 20,
            max_app_log_bytes: 16 << 20,
            keep_releases: 3,
            provider_wait_ms: 20_000,
            stop_wait_ms: 15_000,
            failed_after: 3,
            expiry_s: 3_600,
            expiry_warning_s: 300,
            max_log_streams: 256,
            max_status_streams: 64,
            log_history: 50,
            max_log_line_bytes: 256 << 10,
            keepalive_ms: 30_000,
            max_connections: 512,
            header_timeout_ms: 10_000,
        }
    }
}

impl Config {
    /// The isolation asked for by name.
    pub(crate) fn driver(&self) -> Option<Driver> {
        match self.driver.as_str() {
            "auto" => Some(Driver::Auto),
            "krun" => Some(Driver::Krun),
            "sandbox" => Some(Driver::Sandbox),
            "process" => Some(Driver::Process),
            _ => None,
        }
    }

    /// What its apps may reach, by name.
    pub(crate) fn egress(&self) -> Option<Egress> {
        match self.egress.as_str() {
            "none" => Some(Egress::None),
            "internet" => Some(Egress::Internet),
            _ => None,
        }
    }

    /// Where front-end servers may be.
    pub(crate) fn static_ports(&self) -> Result<Ports, Fault> {
        Ports::parse(&self.static_ports).map_err(|none| {
            let hint = "say ports and ranges of them, such as \"3000\" and \"5173-5199\"";
            wrong("static_ports", format!("`{none}` is no port and no range of them"), hint)
        })
    }

    /// What packages are held to.
    pub(crate) fn rules(&self) -> unpack::Rules {
        let limits = unpack::Limits {
            entries: self.max_entries,
            bytes: self.max_unpacked_bytes,
            ratio: self.max_ratio,
        };
        unpack::Rules { limits, grants: self.grants() }
    }

    /// What their manifests may ask for.
    pub(crate) fn grants(&self) -> Grants {
        Grants {
            driver: self.driver().unwrap_or_default(),
            memory_bytes: self.max_app_memory_bytes,
            cpu_percent: self.max_app_cpu_percent,
            processes: self.max_app_processes,
            open_files: self.max_app_open_files,
            data_bytes: self.max_app_data_bytes,
            tmp_bytes: self.max_app_tmp_bytes,
            log_bytes: self.max_app_log_bytes,
        }
    }

    pub(crate) fn expiry(&self) -> Option<Duration> {
        (self.expiry_s > 0).then(|| Duration::from_secs(self.expiry_s))
    }

    /// How long before its expiry an app's end is announced.
    pub(crate) fn expiry_warning(&self) -> Option<Duration> {
        (self.expiry_warning_s > 0).then(|| Duration::from_secs(self.expiry_warning_s))
    }

    pub(crate) fn upload_life(&self) -> Duration {
        Duration::from_secs(self.upload_life_s)
    }

    /// Whether the table makes sense; what `--check` says about it.
    pub(crate) fn judge(&self) -> Result<(), Fault> {
        if self.driver().is_none() {
            let msg = format!("unknown driver `{}`", self.driver);
            return Err(wrong("driver", msg, "auto, krun, sandbox or process"));
        }
        if self.egress().is_none() {
            let msg = format!("unknown egress `{}`", self.egress);
            return Err(wrong("egress", msg, "none or internet"));
        }
        self.static_ports()?;
        let bounds = [
            ("max_applications", self.max_applications as u64),
            ("max_package_bytes", self.max_package_bytes),
            ("max_chunk_bytes", self.max_chunk_bytes),
            ("max_chunks", self.max_chunks.into()),
            ("max_uploads", self.max_uploads as u64),
            ("upload_idle_ms", self.upload_idle_ms),
            ("max_transfers_per_application", self.max_transfers_per_application as u64),
            ("max_transfers", self.max_transfers as u64),
            ("upload_life_s", self.upload_life_s),
            ("max_upload_disk_percent", self.max_upload_disk_percent.into()),
            ("max_unpacked_bytes", self.max_unpacked_bytes),
            ("max_entries", self.max_entries.into()),
            ("max_ratio", self.max_ratio),
            ("max_app_memory_bytes", self.max_app_memory_bytes),
            ("max_app_cpu_percent", self.max_app_cpu_percent.into()),
            ("max_app_processes", self.max_app_processes.into()),
            ("max_app_open_files", self.max_app_open_files.into()),
            ("max_app_data_bytes", self.max_app_data_bytes),
            ("max_app_tmp_bytes", self.max_app_tmp_bytes),
            ("max_app_log_bytes", self.max_app_log_bytes),
            ("keep_releases", self.keep_releases as u64),
            ("max_log_streams", self.max_log_streams as u64),
            ("max_status_streams", self.max_status_streams as u64),
            ("max_log_line_bytes", self.max_log_line_bytes as u64),
            ("keepalive_ms", self.keepalive_ms),
            ("max_connections", self.max_connections as u64),
            ("header_timeout_ms", self.header_timeout_ms),
        ];
        if let Some((key, _)) = bounds.iter().find(|(_, value)| *value == 0) {
            return Err(wrong(key, format!("`{key}` is 0"), "a bound must be at least 1"));
        }
        self.judge_least()?;
        let most = [
            ("max_entries", self.max_entries.into(), 65_000),
            ("upload_life_s", self.upload_life_s, MAX_LIFE_S),
            ("max_upload_disk_percent", self.max_upload_disk_percent.into(), 100),
            ("keep_releases", self.keep_releases as u64, RELEASES_MAX),
        ];
        if let Some((key, value, most)) = most.iter().find(|(_, value, most)| value > most) {
            return Err(wrong(key, format!("{value} is more than {most}"), &format!("use at most {most}")));
        }
        Ok(())
    }

    /// Whether what packages may ask for is what an instance can have.
    fn judge_least(&self) -> Result<(), Fault> {
        let least = [
            ("max_app_memory_bytes", self.max_app_memory_bytes, bounds::MEMORY.0),
            ("max_app_cpu_percent", self.max_app_cpu_percent.into(), bounds::CPU.0),
            ("max_app_processes", self.max_app_processes.into(), bounds::PROCESSES.0),
            ("max_app_open_files", self.max_app_open_files.into(), bounds::FILES.0),
            ("max_app_data_bytes", self.max_app_data_bytes, bounds::DISK.0),
            ("max_app_tmp_bytes", self.max_app_tmp_bytes, bounds::DISK.0),
            ("max_app_log_bytes", self.max_app_log_bytes, bounds::LOG.0),
        ];
        if let Some((key, value, least)) = least.iter().find(|(_, value, least)| value < least) {
            let msg = format!("{value} is less than an instance can have, {least}");
            return Err(wrong(key, msg, &format!("use at least {least}")));
        }
        Ok(())
    }
}

/// What is wrong with a key.
fn wrong(key: &str, msg: String, hint: &str) -> Fault {
    Fault { exit: 64, ..Fault::new("config_invalid", msg, format!("debug-api.{key}"), hint) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_lies_are_refused_with_their_key() {
        Config::default().judge().unwrap();
        let fault = Config { driver: "vm".to_owned(), ..Config::default() }.judge().unwrap_err();
        assert_eq!((fault.exit, fault.object.as_str()), (64, "debug-api.driver"));
        let fault = Config { egress: "lan".to_owned(), ..Config::default() }.judge().unwrap_err();
        assert_eq!((fault.exit, fault.object.as_str()), (64, "debug-api.egress"));
        let fault = Config { max_chunks: 0, ..Config::default() }.judge().unwrap_err();
        assert_eq!((fault.exit, fault.object.as_str()), (64, "debug-api.max_chunks"));
        for config in [
            Config { max_entries: 70_000, ..Config::default() },
            Config { static_ports: vec!["4999-4000".to_owned()], ..Config::default() },
            Config { upload_life_s: 0, ..Config::default() },
            Config { upload_life_s: u64::MAX, ..Config::default() },
            Config { max_upload_disk_percent: 101, ..Config::default() },
            Config { keep_releases: 0, ..Config::default() },
            Config { keep_releases: 101, ..Config::default() },
            Config { max_app_memory_bytes: 0, ..Config::default() },
            Config { max_app_memory_bytes: bounds::MEMORY.0 - 1, ..Config::default() },
            Config { max_app_processes: 3, ..Config::default() },
            Config { max_app_open_files: 15, ..Config::default() },
            Config { max_app_data_bytes: bounds::DISK.0 - 1, ..Config::default() },
            Config { max_app_tmp_bytes: bounds::DISK.0 - 1, ..Config::default() },
            Config { max_app_log_bytes: bounds::LOG.0 - 1, ..Config::default() },
            Config { max_status_streams: 0, ..Config::default() },
        ] {
            assert!(config.judge().is_err());
        }
    }
}
