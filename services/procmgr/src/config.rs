//! The `[procmgr]` table of the configuration file. Every number that bounds something is here; `dist/config/nexushub.toml`
//! documents each and equals these defaults.

use std::{net::Ipv4Addr, path::PathBuf};

use serde::Deserialize;

use crate::{backoff::Policy, clock::Ms, desired::feed, egress::Network, health::Check, limits::Limits};

/// `[procmgr]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The shim's executable; absent = `nexushub-shim` beside procmgr's own.
    pub shim: Option<PathBuf>,
    /// The program that builds sandboxes; absent = `nexushub-sandbox` beside procmgr's own.
    pub sandbox: Option<PathBuf>,
    /// The program that runs microVMs; absent = `nexushub-krun` beside procmgr's own.
    pub krun: Option<PathBuf>,
    /// Longest time for a guest to boot in the trial that tells whether microVMs run on this machine.
    pub krun_boot_ms: u32,
    /// First of the addresses from which boxes that reach the internet get theirs.
    pub egress_first: Ipv4Addr,
    /// The CA certificate that apps are told of in `SSL_CERT_FILE`, if the file exists.
    pub ca_file: PathBuf,
    /// First port given to apps.
    pub port_first: u16,
    /// Last port given to apps.
    pub port_last: u16,
    /// What a health check asks for.
    pub health_path: String,
    /// Between two checks of a healthy instance.
    pub health_interval_ms: u32,
    /// Longest wait for a check's answer.
    pub health_timeout_ms: u32,
    /// Failures in a row until an instance is replaced.
    pub health_failures: u32,
    /// Between two checks after a failure.
    pub health_retry_ms: u32,
    /// Longest time from a start to the first answer.
    pub start_deadline_ms: u32,
    /// Pause between the first two checks of a starting instance; it grows by half each time.
    pub start_probe_first_ms: u32,
    /// Longest pause between checks of a starting instance.
    pub start_probe_max_ms: u32,
    /// Wait before the restart of a failed instance; doubles with each failure in a row.
    pub backoff_first_ms: u32,
    /// Longest such wait.
    pub backoff_max_ms: u32,
    /// A run of this length clears the failures; the restart after it is at once.
    pub stable_ms: u32,
    /// From SIGTERM to SIGKILL.
    pub stop_deadline_ms: u32,
    /// Longest time that a generation whose place was taken has for the requests and connections that it has in hand.
    pub drain_ms: u32,
    /// The same where it has to end before the next one is started.
    pub replace_drain_ms: u32,
    /// Disk space for the log of an instance without a bound of its own.
    pub log_budget_bytes: u64,
    /// Size of one log segment.
    pub log_segment_bytes: u64,
    /// Generation folders kept for each instance, the present one included.
    pub keep_generations: u32,
    /// Folders (logs) of removed instances that are kept.
    pub keep_removed: u32,
    /// Most instances that are managed.
    pub max_instances: u32,
    /// Largest configured environment of one app.
    pub max_env_bytes: u32,
    /// Starts and re-adoptions under way at once.
    pub max_concurrent_starts: u32,
    /// Most `ReadLog` calls with `follow` at once.
    pub max_followers: u32,
    /// Most `WatchInstances` streams at once.
    pub max_watchers: u32,
    /// Memory of one boxed instance; 0 = not bounded.
    pub app_memory_bytes: u64,
    /// Processor time of one boxed instance, 100 = one core; 0 = not bounded.
    pub app_cpu_percent: u32,
    /// So much of a core, in percent, makes an instance yield to all others; 0 = none yields.
    pub yield_percent: u32,
    /// Processes and threads of one boxed instance; 0 = not bounded.
    pub app_processes: u32,
    /// Open files of one process of a boxed instance.
    pub app_open_files: u32,
    /// Disk space for the data of one boxed instance; 0 = not bounded.
    pub app_data_bytes: u64,
    /// Size of the `/tmp` of one boxed instance, which is memory.
    pub app_tmp_bytes: u64,
    /// `PATH` of the apps.
    pub app_path: String,
    /// `LANG` of the apps.
    pub app_lang: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shim: None,
            sandbox: None,
            krun: None,
            krun_boot_ms: 2_000,
            egress_first: Ipv4Addr::new(198, 18, 0, 0),
            ca_file: "dist/certs/ca.crt".into(),
            port_first: 10_000,
            port_last: 19_999,
            health_path: "/api/status".into(),
            health_interval_ms: 10_000,
            health_timeout_ms: 3_000,
            health_failures: 2,
            health_retry_ms: 1_000,
            start_deadline_ms: 60_000,
            start_probe_first_ms: 20,
            start_probe_max_ms: 1_000,
            backoff_first_ms: 2_000,
            backoff_max_ms: 15_000,
            stable_ms: 60_000,
            stop_deadline_ms: 5_000,
            drain_ms: 30_000,
            replace_drain_ms: 2_000,
            log_budget_bytes: 16 << 20,
            log_segment_bytes: 1 << 20,
            keep_generations: 3,
            keep_removed: 32,
            max_instances: 500,
            max_env_bytes: 64 << 10,
            max_concurrent_starts: 8,
            max_followers: 320,
            max_watchers: 64,
            app_memory_bytes: 512 << 20,
            app_cpu_percent: 100,
            yield_percent: 20,
            app_processes: 512,
            app_open_files: 1024,
            app_data_bytes: 1 << 30,
            app_tmp_bytes: 64 << 20,
            app_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            app_lang: "C.UTF-8".into(),
        }
    }
}

impl Config {
    /// What is wrong with it, if anything: the key and why.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let positive = [
            ("health_interval_ms", self.health_interval_ms),
            ("health_timeout_ms", self.health_timeout_ms),
            ("health_failures", self.health_failures),
            ("health_retry_ms", self.health_retry_ms),
            ("start_deadline_ms", self.start_deadline_ms),
            ("start_probe_first_ms", self.start_probe_first_ms),
            ("start_probe_max_ms", self.start_probe_max_ms),
            ("backoff_first_ms", self.backoff_first_ms),
            ("backoff_max_ms", self.backoff_max_ms),
            ("stable_ms", self.stable_ms),
            ("stop_deadline_ms", self.stop_deadline_ms),
            ("keep_generations", self.keep_generations),
            ("max_instances", self.max_instances),
            ("max_concurrent_starts", self.max_concurrent_starts),
            ("max_followers", self.max_followers),
            ("max_watchers", self.max_watchers),
            ("app_open_files", self.app_open_files),
            ("krun_boot_ms", self.krun_boot_ms),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Some((key, "must be greater than 0".into()));
        }
        if self.port_first < 1024 || self.port_last < self.port_first {
            let range = format!("{}-{}", self.port_first, self.port_last);
            return Some(("port_first", format!("{range} is no range of ports from 1024 up")));
        }
        let least = nexushub_shim::segment::BUDGET_MIN / 2;
        if self.log_segment_bytes < least || self.log_budget_bytes < self.log_segment_bytes.saturating_mul(2)
        {
            let why = format!("must hold at least two segments of at least {least} bytes");
            return Some(("log_budget_bytes", why));
        }
        if self.app_tmp_bytes == 0 {
            return Some(("app_tmp_bytes", "must be greater than 0: it would not be bounded".into()));
        }
        if !Network::fits(self.egress_first) {
            let why = format!("{} is not a multiple of {}", self.egress_first, Network::ADDRESSES);
            return Some(("egress_first", why));
        }
        let path = &self.health_path;
        if let Some(why) = path_problem(path) {
            return Some(("health_path", format!("{path:?} {why}")));
        }
        None
    }

    /// The restart policy.
    pub(crate) fn backoff(&self) -> Policy {
        Policy {
            first_ms: self.backoff_first_ms.into(),
            max_ms: self.backoff_max_ms.into(),
            stable_ms: self.stable_ms.into(),
        }
    }

    /// The health check of instances without overrides.
    pub(crate) fn check(&self) -> Check {
        Check {
            path: self.health_path.clone(),
            interval_ms: self.health_interval_ms.into(),
            timeout_ms: self.health_timeout_ms.into(),
            failures: self.health_failures,
            start_deadline_ms: self.start_deadline_ms.into(),
            retry_ms: self.health_retry_ms.into(),
            fast_first_ms: self.start_probe_first_ms.into(),
            fast_max_ms: self.start_probe_max_ms.into(),
            h2c: false,
        }
    }

    /// From SIGTERM to SIGKILL.
    pub(crate) fn stop_ms(&self) -> Ms {
        self.stop_deadline_ms.into()
    }

    /// Starts and re-adoptions under way at once.
    pub(crate) fn at_once(&self) -> usize {
        usize::try_from(self.max_concurrent_starts).unwrap_or(usize::MAX)
    }

    /// Bounds on an instance without bounds of its own; without a box only that on its log is held.
    pub(crate) fn app_limits(&self) -> Limits {
        Limits {
            memory_bytes: self.app_memory_bytes,
            cpu_percent: self.app_cpu_percent,
            processes: self.app_processes,
            open_files: self.app_open_files,
            data_bytes: self.app_data_bytes,
            tmp_bytes: self.app_tmp_bytes,
            log_bytes: self.log_budget_bytes,
        }
    }

    /// Bounds on what the provider says.
    pub(crate) fn limits(&self) -> feed::Limits {
        feed::Limits {
            instances: usize::try_from(self.max_instances).unwrap_or(usize::MAX),
            env_bytes: self.max_env_bytes,
        }
    }
}

/// Why a text can't be the path of a request.
pub(crate) fn path_problem(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("does not start with /");
    }
    (path.len() > 1024 || !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#'))
        .then_some("is longer than 1024 bytes or holds characters that a request path may not")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem_and_others_keep_off_the_ports_of_apps() {
        let config = Config::default();
        assert_eq!(config.problem(), None);
        let ports: std::ops::RangeInclusive<u16> = nexushub_chassis::setup::AppPorts::default().into();
        assert_eq!(ports, config.port_first..=config.port_last);
    }

    #[test]
    fn a_config_that_lies_is_named_by_its_key() {
        let key = |config: Config| config.problem().map(|(key, _)| key);
        assert_eq!(key(Config { health_failures: 0, ..Config::default() }), Some("health_failures"));
        assert_eq!(key(Config { port_last: 9_000, ..Config::default() }), Some("port_first"));
        assert_eq!(key(Config { port_first: 80, ..Config::default() }), Some("port_first"));
        assert_eq!(key(Config { log_budget_bytes: 5_000, ..Config::default() }), Some("log_budget_bytes"));
        assert_eq!(key(Config { health_path: "api".into(), ..Config::default() }), Some("health_path"));
        assert_eq!(key(Config { app_tmp_bytes: 0, ..Config::default() }), Some("app_tmp_bytes"));
        let odd = Config { egress_first: Ipv4Addr::new(198, 18, 0, 1), ..Config::default() };
        assert_eq!(key(odd), Some("egress_first"));
        assert_eq!(key(Config { app_open_files: 0, ..Config::default() }), Some("app_open_files"));
        assert_eq!(key(Config { health_path: "/a b\r\n".into(), ..Config::default() }), Some("health_path"));
    }
}
