//! What should exist, as the provider says it: judged here once, so that the rest of procmgr only meets instances that are
//! well-formed or carry the reason why they aren't. One malformed instance never touches the others.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use nexushub_chassis::launch::secret::hex;
use nexushub_proto::provider;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{clock::Ms, config::path_problem, health::Check, ids::InstanceId, limits::Limits};

pub(crate) mod feed;
mod route;
pub(crate) mod store;

/// Every desired instance.
pub(crate) type DesiredSet = BTreeMap<InstanceId, Arc<Desired>>;

/// Which isolation an instance asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Isolation {
    /// The best there is.
    #[default]
    Auto,
    /// A microVM.
    Krun,
    /// A sandbox.
    Sandbox,
    /// None.
    Process,
}

/// What the box of an instance may reach beyond this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Egress {
    /// Nothing.
    #[default]
    None,
    /// The internet.
    Internet,
}

/// How one generation of an instance follows another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Deploy {
    /// The next is started beside the present one.
    #[default]
    Overlap,
    /// The present one is ended first.
    Replace,
}

/// One instance that should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Desired {
    /// Its id.
    pub id: InstanceId,
    /// The application that it is an instance of.
    pub app_id: String,
    /// For people.
    pub display_name: String,
    /// Relative to the base domain.
    pub host_name: String,
    /// The unpacked package.
    pub release: PathBuf,
    /// The app's own data.
    pub data: PathBuf,
    /// Wanted isolation.
    pub isolation: Isolation,
    /// What its box may reach.
    #[serde(default)]
    pub egress: Egress,
    /// How a change of it is brought about; no change of the running app itself.
    #[serde(default)]
    pub deploy: Deploy,
    /// Milliseconds without a request after which it sleeps; 0 = never.
    #[serde(default)]
    pub idle_stop_ms: u32,
    /// Configured environment.
    pub env: BTreeMap<String, String>,
    /// Overrides of the health check; 0 or empty = none.
    pub health: Overrides,
    /// Overrides of the bounds on what it uses; 0 = none. Boxes have bounds, bare processes don't.
    #[serde(default)]
    pub limits: Limits,
    /// Passed on to the proxy.
    pub static_service_url: String,
    /// Passed on to the proxy.
    pub debug_port: u16,
    /// Passed on to the proxy.
    #[serde(default, with = "route")]
    pub route: Option<provider::Route>,
    /// Why it can't run as it is, if so.
    pub problem: Option<String>,
    /// What a change of is a change of the running app: all but names and what only the proxy uses, what it speaks included.
    #[serde(skip)]
    pub digest: String,
}

/// An instance's own health check; 0 or empty = the platform's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Overrides {
    path: String,
    interval_ms: u32,
    timeout_ms: u32,
    failures: u32,
    start_deadline_ms: u32,
    /// It is asked in HTTP/2, since the app speaks nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub h2c: bool,
}

impl Overrides {
    /// The check that results.
    pub(crate) fn apply(&self, default: &Check) -> Check {
        let pick = |own: u32, other: Ms| if own == 0 { other } else { own.into() };
        Check {
            path: if self.path.is_empty() { default.path.clone() } else { self.path.clone() },
            interval_ms: pick(self.interval_ms, default.interval_ms),
            timeout_ms: pick(self.timeout_ms, default.timeout_ms),
            failures: if self.failures == 0 { default.failures } else { self.failures },
            start_deadline_ms: pick(self.start_deadline_ms, default.start_deadline_ms),
            h2c: self.h2c,
            ..default.clone()
        }
    }
}

impl Desired {
    /// Takes over what the provider says. Only an id that can't be one is an error; all else becomes `problem`.
    pub(crate) fn from_proto(
        proto: provider::Instance,
        max_env_bytes: u32,
    ) -> Result<Self, crate::ids::BadId> {
        let id = InstanceId::parse(&proto.id)?;
        let isolation = match proto.driver() {
            provider::Driver::Unspecified | provider::Driver::Auto => Isolation::Auto,
            provider::Driver::Krun => Isolation::Krun,
            provider::Driver::Sandbox => Isolation::Sandbox,
            provider::Driver::Process => Isolation::Process,
        };
        let egress = match proto.egress() {
            provider::Egress::Unspecified | provider::Egress::None => Egress::None,
            provider::Egress::Internet => Egress::Internet,
        };
        let deploy = match proto.deploy() {
            provider::Deploy::Unspecified | provider::Deploy::Overlap => Deploy::Overlap,
            provider::Deploy::Replace => Deploy::Replace,
        };
        let health = proto.health.unwrap_or_default();
        let limits = proto.limits.unwrap_or_default();
        let mut desired = Self {
            id,
            app_id: proto.app_id,
            display_name: proto.display_name,
            host_name: proto.host_name,
            release: proto.release.into(),
            data: proto.data.into(),
            isolation,
            egress,
            deploy,
            idle_stop_ms: proto.idle_stop_ms,
            env: proto.env.into_iter().collect(),
            health: Overrides {
                path: health.path,
                interval_ms: health.interval_ms,
                timeout_ms: health.timeout_ms,
                failures: health.failures,
                start_deadline_ms: health.start_deadline_ms,
                h2c: proto.route.as_ref().is_some_and(|route| route.protocol() == provider::Protocol::H2c),
            },
            limits: Limits {
                memory_bytes: limits.memory_bytes,
                cpu_percent: limits.cpu_percent,
                processes: limits.processes,
                open_files: limits.open_files,
                data_bytes: limits.data_bytes,
                tmp_bytes: limits.tmp_bytes,
                log_bytes: limits.log_bytes,
            },
            static_service_url: proto.static_service_url,
            debug_port: 0,
            route: proto.route,
            problem: None,
            digest: String::new(),
        };
        match u16::try_from(proto.debug_port) {
            Ok(port) => desired.debug_port = port,
            Err(_) => desired.problem = Some(format!("debug port {} is no port", proto.debug_port)),
        }
        if desired.problem.is_none() {
            desired.problem = desired.judge(max_env_bytes);
        }
        Ok(desired.sealed())
    }

    /// With its digest.
    fn sealed(mut self) -> Self {
        let parts = (&self.release, &self.data, self.isolation, &self.env, &self.health);
        let text = match (self.egress, self.limits == Limits::default()) {
            // As it was before there were any: a newer procmgr is no reason to restart an app.
            (Egress::None, true) => serde_json::to_vec(&parts),
            (Egress::None, false) => serde_json::to_vec(&(parts, self.limits)),
            (egress, _) => serde_json::to_vec(&(parts, self.limits, egress)),
        };
        let text = text.unwrap_or_default();
        self.digest = hex(&Sha256::digest(&text)[..16]);
        self
    }

    /// The bounds in force, where `default` are those of an instance without any of its own.
    pub(crate) fn limits_in_force(&self, default: &Limits) -> Limits {
        let pick = |own: u64, other: u64| if own == 0 { other } else { own };
        let pick_short = |own: u32, other: u32| if own == 0 { other } else { own };
        Limits {
            memory_bytes: pick(self.limits.memory_bytes, default.memory_bytes),
            cpu_percent: pick_short(self.limits.cpu_percent, default.cpu_percent),
            processes: pick_short(self.limits.processes, default.processes),
            open_files: pick_short(self.limits.open_files, default.open_files),
            data_bytes: pick(self.limits.data_bytes, default.data_bytes),
            tmp_bytes: pick(self.limits.tmp_bytes, default.tmp_bytes),
            log_bytes: pick(self.limits.log_bytes, default.log_bytes),
        }
    }

    fn judge(&self, max_env_bytes: u32) -> Option<String> {
        for (what, path) in [("release", &self.release), ("data folder", &self.data)] {
            if !plain_absolute(path) {
                return Some(format!("{what} {} is not a plain absolute path", path.display()));
            }
        }
        let own = &self.health.path;
        if !own.is_empty()
            && let Some(why) = path_problem(own)
        {
            return Some(format!("health path {own:?} {why}"));
        }
        env_problem(&self.env, max_env_bytes)
    }
}

fn plain_absolute(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(plain) && !path.as_os_str().as_encoded_bytes().contains(&0)
}

fn env_problem(env: &BTreeMap<String, String>, max_bytes: u32) -> Option<String> {
    for (name, value) in env {
        if !nexushub_chassis::names::is_variable(name) {
            return Some(format!("environment name {name:?} is not a name"));
        }
        if value.contains('\0') {
            return Some(format!("environment variable {name} holds a NUL"));
        }
    }
    let size: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let fits = size <= usize::try_from(max_bytes).unwrap_or(usize::MAX);
    (!fits).then(|| format!("its environment takes {size} bytes, {max_bytes} are allowed"))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nexushub_chassis::difference;

    pub(crate) fn proto(id: &str) -> provider::Instance {
        provider::Instance {
            id: id.into(),
            host_name: "hello".into(),
            release: "/srv/app/1".into(),
            data: "/srv/data".into(),
            driver: provider::Driver::Process.into(),
            ..Default::default()
        }
    }

    fn desired(change: impl FnOnce(&mut provider::Instance)) -> Desired {
        let mut instance = proto("a");
        change(&mut instance);
        Desired::from_proto(instance, 1_000).unwrap()
    }

    #[test]
    fn names_do_not_change_the_digest_and_everything_the_app_sees_does() {
        let base = desired(|_| ()).digest;
        assert_eq!(base, desired(|i| i.host_name = "other".into()).digest);
        assert_eq!(base, desired(|i| i.display_name = "other".into()).digest);
        assert_ne!(base, desired(|i| i.release = "/srv/app/2".into()).digest);
        assert_ne!(base, desired(|i| drop(i.env.insert("A".into(), "1".into()))).digest);
        let health = provider::Health { failures: 5, ..Default::default() };
        assert_ne!(base, desired(|i| i.health = Some(health)).digest);
        let limits = provider::Limits { memory_bytes: 1 << 20, ..Default::default() };
        assert_ne!(base, desired(|i| i.limits = Some(limits)).digest);
        assert_eq!(base, desired(|i| i.limits = Some(provider::Limits::default())).digest);
        let as_before =
            r#"{"memory_bytes":1,"cpu_percent":0,"processes":0,"open_files":0,"data_bytes":0,"tmp_bytes":0}"#;
        let told = serde_json::to_string(&Limits { memory_bytes: 1, ..Limits::default() }).unwrap();
        assert_eq!(told, as_before, "a bound that is newer than an app's start is no reason to restart it");
        assert_ne!(base, desired(|i| i.egress = provider::Egress::Internet.into()).digest);
        assert_eq!(base, desired(|i| i.egress = provider::Egress::None.into()).digest);
        assert_eq!(base, desired(|i| i.deploy = provider::Deploy::Replace.into()).digest);
        let prefix = provider::Route { path_prefix: "/a".into(), ..Default::default() };
        assert_eq!(base, desired(|i| i.route = Some(prefix)).digest);
        let h2c = provider::Route { protocol: provider::Protocol::H2c.into(), ..Default::default() };
        assert_ne!(base, desired(|i| i.route = Some(h2c)).digest, "each generation speaks one protocol");
    }

    #[test]
    fn what_plan_says_of_a_change_is_what_becomes_of_the_app() {
        let with = |change: fn(&mut provider::Instance)| {
            let mut proto = proto("a");
            change(&mut proto);
            proto
        };
        let changes: [fn(&mut provider::Instance); 20] = [
            |i| i.app_id = "x".into(),
            |i| i.display_name = "x".into(),
            |i| i.host_name = "x".into(),
            |i| i.release = "/srv/app/2".into(),
            |i| i.data = "/srv/data/2".into(),
            |i| i.driver = provider::Driver::Sandbox.into(),
            |i| drop(i.env.insert("A".into(), "1".into())),
            |i| i.health = Some(provider::Health { path: "/up".into(), ..Default::default() }),
            |i| i.health = Some(provider::Health { start_deadline_ms: 1, ..Default::default() }),
            |i| i.limits = Some(provider::Limits { memory_bytes: 1 << 20, ..Default::default() }),
            |i| i.limits = Some(provider::Limits { log_bytes: 1 << 20, ..Default::default() }),
            |i| i.static_service_url = "http://localhost:5173".into(),
            |i| i.debug_port = 5173,
            |i| i.egress = provider::Egress::Internet.into(),
            |i| i.deploy = provider::Deploy::Replace.into(),
            |i| i.idle_stop_ms = 1000,
            |i| {
                let protocol = provider::Protocol::H2c.into();
                i.route = Some(provider::Route { protocol, ..Default::default() });
            },
            |i| i.route = Some(provider::Route { hosts: vec!["x".into()], ..Default::default() }),
            |i| i.route = Some(provider::Route { sign_in: true, ..Default::default() }),
            |i| i.route = Some(provider::Route { client_ca: "/ca".into(), ..Default::default() }),
        ];
        for change in changes {
            let told = difference::between(&proto("a"), &with(change));
            assert_eq!(told.len(), 1, "{told:?}");
            let restarted = desired(|_| ()).digest != desired(change).digest;
            assert_eq!(told[0].restarts, restarted, "{told:?}");
        }
    }

    #[test]
    fn a_malformed_instance_carries_its_problem() {
        let problem = |change: fn(&mut provider::Instance)| desired(change).problem;
        assert_eq!(desired(|_| ()).problem, None);
        assert!(problem(|i| i.release = "app".into()).unwrap().contains("release app"));
        assert!(problem(|i| i.release = "/srv/../etc".into()).is_some());
        assert!(problem(|i| i.data = String::new()).unwrap().contains("data folder"));
        assert!(problem(|i| drop(i.env.insert("A=B".into(), String::new()))).is_some());
        assert!(problem(|i| drop(i.env.insert("A".into(), "\0".into()))).is_some());
        assert!(problem(|i| drop(i.env.insert("A".into(), "x".repeat(2_000)))).unwrap().contains("allowed"));
        assert!(problem(|i| i.debug_port = 70_000).is_some());
        let bad_path = provider::Health { path: "x y".into(), ..Default::default() };
        assert!(desired(|i| i.health = Some(bad_path)).problem.is_some());
    }

    #[test]
    fn an_instance_overrides_the_platforms_bounds_one_by_one() {
        let limits = provider::Limits { memory_bytes: 7, open_files: 9, ..Default::default() };
        let default = crate::config::Config::default().app_limits();
        let bounds = desired(|i| i.limits = Some(limits)).limits_in_force(&default);
        assert_eq!(bounds, Limits { memory_bytes: 7, open_files: 9, ..default });
    }

    #[test]
    fn an_instance_overrides_the_platforms_health_check_field_by_field() {
        let default = crate::config::Config::default().check();
        let own = Overrides { failures: 5, path: "/up".into(), ..Overrides::default() }.apply(&default);
        assert_eq!((own.failures, own.path.as_str(), own.interval_ms), (5, "/up", 10_000));
    }
}
