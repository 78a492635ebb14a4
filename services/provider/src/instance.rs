//! An instance as it is desired: every value in it has been judged. Made only by `typed.rs` and `merge.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use nexushub_chassis::names::{HostName, InstanceId};
use serde::{Deserialize, Serialize};

use crate::route::Route;

/// How a generation is isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// The best that the machine can do.
    #[default]
    Auto,
    /// A microVM.
    Krun,
    /// Namespaces, seccomp, Landlock, cgroup.
    Sandbox,
    /// None; development only.
    Process,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Krun => "krun",
            Self::Sandbox => "sandbox",
            Self::Process => "process",
        })
    }
}

/// What a box may reach beyond this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Nothing.
    #[default]
    None,
    /// The internet.
    Internet,
}

/// How one generation of an instance follows another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deploy {
    /// The next is started beside the present one.
    #[default]
    Overlap,
    /// The present one is ended first.
    Replace,
}

/// Overrides of the health check; absent = the defaults of procmgr.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Path that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
    /// Patience for one answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// Failures in a row that count as unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// Patience for the first answer after a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_deadline_ms: Option<u32>,
}

/// Bounds on what it uses; absent = the defaults of procmgr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of all its processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processor time; 100 = one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Open files of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u32>,
    /// Its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<u64>,
    /// Its `/tmp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_bytes: Option<u64>,
    /// Disk for its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
}

impl Limits {
    /// Itself where it says something, else what is below.
    #[must_use]
    pub fn over(&self, lower: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.or(lower.memory_bytes),
            cpu_percent: self.cpu_percent.or(lower.cpu_percent),
            processes: self.processes.or(lower.processes),
            open_files: self.open_files.or(lower.open_files),
            data_bytes: self.data_bytes.or(lower.data_bytes),
            tmp_bytes: self.tmp_bytes.or(lower.tmp_bytes),
            log_bytes: self.log_bytes.or(lower.log_bytes),
        }
    }
}

/// What a static entry may pin against dynamic overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the keys
pub enum Field {
    AppId,
    DisplayName,
    HostName,
    Release,
    Data,
    Driver,
    Egress,
    Deploy,
    IdleStopMs,
    Env,
    Health,
    Limits,
    Route,
    DebugPort,
    StaticServiceUrl,
}

/// Where an entry was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file, with the line at which the entry begins.
    File(PathBuf, Option<usize>),
    /// The admin app.
    Dynamic,
    /// The debug API or an operator.
    Debug,
    /// The same, of one that was made permanent: what the admin app's entry of this id is laid over, and nothing by itself.
    Promoted,
}

impl Source {
    /// The same, wherever its entry stands in a file.
    #[must_use]
    pub fn anywhere(&self) -> Self {
        match self {
            Self::File(..) => Self::File(PathBuf::new(), None),
            other => other.clone(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, Some(line)) => write!(f, "static, {}:{line}", path.display()),
            Self::File(path, None) => write!(f, "static, {}", path.display()),
            Self::Dynamic => f.write_str("dynamic, from the admin app"),
            Self::Debug => f.write_str("debug"),
            Self::Promoted => f.write_str("debug, made permanent"),
        }
    }
}

/// What one source says about an instance; a field it is silent about is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // as in `Instance`
pub struct Fields {
    pub app_id: Option<String>,
    pub display_name: Option<String>,
    pub host_name: Option<HostName>,
    pub release: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub driver: Option<Driver>,
    pub egress: Option<Egress>,
    /// How one generation follows another.
    pub deploy: Option<Deploy>,
    /// Milliseconds without a request after which it sleeps.
    pub idle_stop_ms: Option<u32>,
    pub env: Option<BTreeMap<String, String>>,
    pub health: Option<Health>,
    pub limits: Option<Limits>,
    pub route: Option<Route>,
    pub debug_port: Option<u16>,
    pub static_service_url: Option<String>,
}

impl Fields {
    /// Itself where it speaks, `lower` where it is silent or `lower` is pinned.
    #[must_use]
    pub fn over(&self, lower: &Self, pins: &BTreeSet<Field>) -> Self {
        fn pick<T: Clone>(upper: &Option<T>, lower: &Option<T>, pinned: bool) -> Option<T> {
            if pinned { lower.clone() } else { upper.clone().or_else(|| lower.clone()) }
        }
        /// The same for what is a table of its own: within it each value goes by itself.
        fn laid<T: Clone>(
            upper: &Option<T>,
            lower: &Option<T>,
            pinned: bool,
            over: fn(&T, &T) -> T,
        ) -> Option<T> {
            match (upper, lower) {
                (Some(upper), Some(lower)) if !pinned => Some(over(upper, lower)),
                _ => pick(upper, lower, pinned),
            }
        }
        let pinned = |field| pins.contains(&field);
        Self {
            app_id: pick(&self.app_id, &lower.app_id, pinned(Field::AppId)),
            display_name: pick(&self.display_name, &lower.display_name, pinned(Field::DisplayName)),
            host_name: pick(&self.host_name, &lower.host_name, pinned(Field::HostName)),
            release: pick(&self.release, &lower.release, pinned(Field::Release)),
            data: pick(&self.data, &lower.data, pinned(Field::Data)),
            driver: pick(&self.driver, &lower.driver, pinned(Field::Driver)),
            egress: pick(&self.egress, &lower.egress, pinned(Field::Egress)),
            deploy: pick(&self.deploy, &lower.deploy, pinned(Field::Deploy)),
            idle_stop_ms: pick(&self.idle_stop_ms, &lower.idle_stop_ms, pinned(Field::IdleStopMs)),
            env: pick(&self.env, &lower.env, pinned(Field::Env)),
            health: pick(&self.health, &lower.health, pinned(Field::Health)),
            limits: laid(&self.limits, &lower.limits, pinned(Field::Limits), Limits::over),
            route: laid(&self.route, &lower.route, pinned(Field::Route), Route::over),
            debug_port: pick(&self.debug_port, &lower.debug_port, pinned(Field::DebugPort)),
            static_service_url: pick(
                &self.static_service_url,
                &lower.static_service_url,
                pinned(Field::StaticServiceUrl),
            ),
        }
    }

    /// The whole instance, its gaps filled with defaults; none while it has no host name or no release.
    #[must_use]
    pub fn complete(&self, id: &InstanceId, data_root: &Path) -> Option<Instance> {
        let app_id = self.app_id.clone().unwrap_or_else(|| id.to_string());
        Some(Instance {
            id: id.clone(),
            display_name: self.display_name.clone().unwrap_or_else(|| app_id.clone()),
            app_id,
            host_name: self.host_name.clone()?,
            release: self.release.clone()?,
            data: self.data.clone().unwrap_or_else(|| data_root.join(id.as_str())),
            driver: self.driver.unwrap_or_default(),
            egress: self.egress.unwrap_or_default(),
            deploy: self.deploy.unwrap_or_default(),
            idle_stop_ms: self.idle_stop_ms.unwrap_or(0),
            env: self.env.clone().unwrap_or_default(),
            health: self.health.clone(),
            limits: self.limits,
            route: self.route.clone(),
            debug_port: self.debug_port.unwrap_or(0),
            static_service_url: self.static_service_url.clone().unwrap_or_default(),
        })
    }
}

/// One source's entry for one instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Which instance it speaks of.
    pub id: InstanceId,
    /// What it says.
    pub fields: Fields,
    /// What a dynamic entry may not override.
    pub pins: BTreeSet<Field>,
    /// Where it was read.
    pub source: Source,
}

/// An app that should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The application it is an instance of.
    pub app_id: String,
    /// For people.
    pub display_name: String,
    /// Where it answers.
    pub host_name: HostName,
    /// Its unpacked package.
    pub release: PathBuf,
    /// Its own data.
    pub data: PathBuf,
    /// Its isolation.
    pub driver: Driver,
    /// What it may reach.
    pub egress: Egress,
    /// How one generation follows another.
    pub deploy: Deploy,
    /// Milliseconds without a request after which it sleeps; 0 = never.
    pub idle_stop_ms: u32,
    /// Further environment.
    pub env: BTreeMap<String, String>,
    /// Overrides of its health check.
    pub health: Option<Health>,
    /// Bounds on what it uses.
    pub limits: Option<Limits>,
    /// Which requests it gets besides those for its host name, and how.
    pub route: Option<Route>,
    /// A development server for the non-API paths; 0 = none.
    pub debug_port: u16,
    /// Where non-API paths are served from while developing; may be empty.
    pub static_service_url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_route_or_of_limits_leaves_what_is_not_said_as_it_is_below() {
        let list = |one: &str| vec![one.to_owned()];
        let guarded = Route {
            client_ca: Some("/ca".into()),
            hosts: list("www"),
            callers: list("till"),
            cors: list("https://a"),
            sign_in: true,
            ..Route::default()
        };
        let below = Limits { memory_bytes: Some(1), processes: Some(2), ..Limits::default() };
        let lower = Fields { route: Some(guarded.clone()), limits: Some(below), ..Fields::default() };
        let said = Route { callers: list("kiosk"), internal_callers: list("till"), ..Route::default() };
        let limits = Limits { memory_bytes: Some(9), ..Limits::default() };
        let upper = Fields { route: Some(said.clone()), limits: Some(limits), ..Fields::default() };
        let laid = upper.over(&lower, &BTreeSet::new());
        let all = Route { callers: said.callers, internal_callers: said.internal_callers, ..guarded };
        assert_eq!((laid.route, laid.limits), (Some(all), Some(Limits { memory_bytes: Some(9), ..below })));
        let pinned = upper.over(&lower, &BTreeSet::from([Field::Route, Field::Limits]));
        assert_eq!((pinned.route, pinned.limits), (lower.route, lower.limits));
    }

    #[test]
    fn gaps_are_filled_with_defaults_but_for_host_name_and_release() {
        let id = InstanceId::parse("a").expect("an id");
        assert_eq!(Fields::default().complete(&id, Path::new("/d")), None);
        let host_name = HostName::try_from("h".to_owned()).ok();
        let fields = Fields { host_name, release: Some("/r".into()), ..Fields::default() };
        let whole = fields.complete(&id, Path::new("/d")).expect("complete");
        assert_eq!((whole.app_id.as_str(), whole.display_name.as_str()), ("a", "a"));
        assert_eq!((whole.data, whole.driver, whole.debug_port), (PathBuf::from("/d/a"), Driver::Auto, 0));
    }
}
