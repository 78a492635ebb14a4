//! An instance as somebody wrote it — in a configuration file, over RPC, or in the file of debug instances — and the one place
//! where it is judged. Nothing unjudged goes further than this file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use nexushub_chassis::{
    bounds,
    names::{HostName, HttpUrl, InstanceId, Zone, is_platform_variable, is_variable, shown},
};
use serde::{Deserialize, Serialize};

use crate::{
    instance::{Deploy, Driver, Egress, Entry, Field, Fields, Health, Limits, Source},
    route::Route,
};

/// Longest app id and display name, in characters.
const NAME_MAX: usize = 128;
/// Longest path, in bytes: what the kernel takes, less its terminator.
const PATH_MAX: usize = 4095;
/// Longest health path, in bytes: what procmgr takes (`config.rs` there).
const HEALTH_PATH_MAX: usize = 1024;
/// Most variables of an app's further environment.
const ENV_MAX: usize = 64;
/// Longest value of a variable, in bytes.
const ENV_VALUE_MAX: usize = 8 * 1024;
/// Largest further environment of an app in all, in bytes.
const ENV_BYTES_MAX: usize = 32 * 1024;
/// Longest duration of the health check: an hour.
const HEALTH_MS_MAX: u32 = 3_600_000;
/// Shortest time between two health checks.
const HEALTH_INTERVAL_MIN: u32 = 100;
/// Most failures in a row that may be asked for.
const HEALTH_FAILURES_MAX: u32 = 100;

/// An instance as written; keys as in the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Typed {
    /// `[A-Za-z0-9_-]{1,64}`
    pub id: String,
    /// The application it is an instance of; default: the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// For people; default: the app id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `login`, `login.<base domain>`, either with the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Folder of the unpacked package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Folder of the app's own data; default: `$STATE/provider/data/<id>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// auto, krun, sandbox or process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// none or internet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// overlap or replace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
    /// Milliseconds without a request after which it sleeps; 0 = never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_stop_ms: Option<u32>,
    /// Further environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Overrides of the health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Bounds on what it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Which requests it gets, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// A development server for the non-API paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_port: Option<u16>,
    /// Where non-API paths are served from while developing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_service_url: Option<String>,
    /// Fields that the admin app may not override.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pin: Vec<Field>,
}

/// A value that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} (key `{key}`)")]
pub struct BadField {
    /// The key it was written under.
    pub key: &'static str,
    /// What is wrong, for people.
    pub why: String,
}

/// What values are judged against.
#[derive(Clone, Debug)]
pub struct Judge {
    /// What host names are relative to.
    pub zone: Zone,
    /// Where relative paths start; none = paths must be absolute.
    pub root: Option<PathBuf>,
}

impl Judge {
    /// Judges everything; an entry must say its host name and release.
    ///
    /// # Errors
    /// The first value that can't be.
    pub fn entry(&self, typed: Typed, source: Source) -> Result<Entry, BadField> {
        let bad = |key| move |why| BadField { key, why };
        let id = InstanceId::parse(&typed.id).map_err(|e| bad("id")(e.to_string()))?;
        let host_name = required(typed.host_name.as_deref(), "host_name")?;
        let host_name =
            HostName::parse(host_name, &self.zone).map_err(|e| bad("host_name")(e.to_string()))?;
        let release = self.path(required(typed.release.as_deref(), "release")?).map_err(bad("release"))?;
        let fields = Fields {
            app_id: typed.app_id.map(name).transpose().map_err(bad("app_id"))?,
            display_name: typed.display_name.map(name).transpose().map_err(bad("display_name"))?,
            host_name: Some(host_name),
            release: Some(release),
            data: typed.data.map(|path| self.path(&path)).transpose().map_err(bad("data"))?,
            driver: typed.driver,
            egress: typed.egress,
            deploy: typed.deploy,
            idle_stop_ms: typed.idle_stop_ms,
            env: typed.env.map(env).transpose().map_err(bad("env"))?,
            health: typed.health.map(health).transpose().map_err(bad("health"))?,
            limits: typed.limits.map(limits).transpose().map_err(bad("limits"))?,
            route: typed.route.map(|route| self.route(route)).transpose()?,
            debug_port: typed.debug_port,
            static_service_url: typed
                .static_service_url
                .map(url)
                .transpose()
                .map_err(bad("static_service_url"))?,
        };
        Ok(Entry { id, fields, pins: BTreeSet::from_iter(typed.pin), source })
    }

    pub(crate) fn path(&self, typed: &str) -> Result<PathBuf, String> {
        if typed.is_empty() || typed.len() > PATH_MAX || typed.contains('\0') {
            return Err(format!("{} is not a path", shown(typed)));
        }
        let path = Path::new(typed);
        match &self.root {
            Some(root) => Ok(plain(&root.join(path))),
            None if path.is_absolute() && !path.components().any(|part| part == Component::ParentDir) => {
                Ok(path.to_owned())
            }
            None => Err(format!("path {} is not absolute and free of `..`", shown(typed))),
        }
    }
}

/// Without `.` and `..`, as written: whoever wrote `../x` means the folder beside the project, wherever links lead.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

fn required<'a>(value: Option<&'a str>, key: &'static str) -> Result<&'a str, BadField> {
    value.ok_or_else(|| BadField { key, why: format!("an instance needs a {}", key.replace('_', " ")) })
}

pub(crate) fn name(typed: String) -> Result<String, String> {
    if typed.is_empty() || typed.chars().count() > NAME_MAX || typed.contains(char::is_control) {
        return Err(format!(
            "{} is empty, longer than {NAME_MAX} characters or has control characters",
            shown(&typed)
        ));
    }
    Ok(typed)
}

fn url(typed: String) -> Result<String, String> {
    if !typed.is_empty() && HttpUrl::parse(&typed).is_none() {
        return Err(format!(
            "{} is not an http:// or https:// URL with a host, at most {} bytes",
            shown(&typed),
            HttpUrl::MAX
        ));
    }
    Ok(typed)
}

pub(crate) fn env(typed: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if typed.len() > ENV_MAX {
        return Err(format!("an app may have at most {ENV_MAX} variables of its own, not {}", typed.len()));
    }
    for (name, value) in &typed {
        if !is_variable(name) {
            return Err(format!("{} is not a name of a variable", shown(name)));
        }
        if is_platform_variable(name) {
            return Err(format!("variable {} is set by the platform itself", shown(name)));
        }
        if value.len() > ENV_VALUE_MAX || value.contains('\0') {
            return Err(format!(
                "variable {} is longer than {ENV_VALUE_MAX} bytes or holds a NUL",
                shown(name)
            ));
        }
    }
    let bytes: usize = typed.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENV_BYTES_MAX {
        return Err(format!("the variables hold {bytes} bytes in all, more than {ENV_BYTES_MAX}"));
    }
    Ok(typed)
}

pub(crate) fn health(typed: Health) -> Result<Health, String> {
    if let Some(path) = &typed.path {
        let fits = path.starts_with('/')
            && path.len() <= HEALTH_PATH_MAX
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if !fits {
            return Err(format!("health path {} does not begin with `/` or is no URL path", shown(path)));
        }
    }
    let within = |what: &str, value: Option<u32>, least: u32, most: u32| match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(format!("health {what} {value} is not within {least} and {most}"))
        }
        _ => Ok(()),
    };
    within("interval_ms", typed.interval_ms, HEALTH_INTERVAL_MIN, HEALTH_MS_MAX)?;
    within("timeout_ms", typed.timeout_ms, 1, HEALTH_MS_MAX)?;
    within("failures", typed.failures, 1, HEALTH_FAILURES_MAX)?;
    within("start_deadline_ms", typed.start_deadline_ms, 1, HEALTH_MS_MAX)?;
    Ok(typed)
}

pub(crate) fn limits(typed: Limits) -> Result<Limits, String> {
    let Limits { memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes } = typed;
    for (what, value, (least, most)) in [
        ("memory_bytes", memory_bytes, bounds::MEMORY),
        ("cpu_percent", cpu_percent.map(u64::from), bounds::CPU),
        ("processes", processes.map(u64::from), bounds::PROCESSES),
        ("open_files", open_files.map(u64::from), bounds::FILES),
        ("data_bytes", data_bytes, bounds::DISK),
        ("tmp_bytes", tmp_bytes, bounds::DISK),
        ("log_bytes", log_bytes, bounds::LOG),
    ] {
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            return Err(format!("limit {what} {value} is not within {least} and {most}"));
        }
    }
    Ok(typed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn judge(root: Option<&str>) -> Judge {
        Judge { zone: Zone::new("b.localhost", 8443), root: root.map(PathBuf::from) }
    }

    fn typed() -> Typed {
        Typed { id: "a".into(), host_name: Some("h".into()), release: Some("/r".into()), ..Typed::default() }
    }

    fn key_of(typed: Typed) -> &'static str {
        judge(None).entry(typed, Source::Debug).unwrap_err().key
    }

    #[test]
    fn relative_paths_start_at_the_root_and_are_refused_where_there_is_none() {
        let relative = Typed { release: Some("apps/x".into()), ..typed() };
        let entry = judge(Some("/project")).entry(relative.clone(), Source::Debug).unwrap();
        assert_eq!(entry.fields.release, Some("/project/apps/x".into()));
        let beside = Typed { release: Some("./../beside/../../x".into()), ..typed() };
        let entry = judge(Some("/a/project")).entry(beside, Source::Debug).unwrap();
        assert_eq!(entry.fields.release, Some("/x".into()));
        assert_eq!(key_of(relative), "release");
        assert_eq!(key_of(Typed { data: Some("/a/../../etc".into()), ..typed() }), "data");
    }

    #[test]
    fn each_bad_value_is_named_by_its_key() {
        assert_eq!(key_of(Typed { id: "../x".into(), ..typed() }), "id");
        assert_eq!(key_of(Typed { host_name: None, ..typed() }), "host_name");
        assert_eq!(key_of(Typed { host_name: Some("a b".into()), ..typed() }), "host_name");
        assert_eq!(key_of(Typed { release: None, ..typed() }), "release");
        assert_eq!(key_of(Typed { release: Some("/a\0".into()), ..typed() }), "release");
        assert_eq!(key_of(Typed { app_id: Some("x".repeat(129)), ..typed() }), "app_id");
        assert_eq!(key_of(Typed { display_name: Some("a\nb".into()), ..typed() }), "display_name");
        for url in ["ftp://x", "http://", "http:///x", "javascript:x", "http://a b"] {
            assert_eq!(
                key_of(Typed { static_service_url: Some(url.into()), ..typed() }),
                "static_service_url"
            );
        }
        let health = |health| key_of(Typed { health: Some(health), ..typed() });
        for path in ["status", "/a#b", "/a b", &format!("/{}", "x".repeat(HEALTH_PATH_MAX))] {
            assert_eq!(health(Health { path: Some(path.into()), ..Health::default() }), "health", "{path}");
        }
        assert_eq!(health(Health { interval_ms: Some(1), ..Health::default() }), "health");
        assert_eq!(health(Health { failures: Some(0), ..Health::default() }), "health");
        let limits = |limits| key_of(Typed { limits: Some(limits), ..typed() });
        for less in [
            Limits { memory_bytes: Some(bounds::MEMORY.0 - 1), ..Limits::default() },
            Limits { cpu_percent: Some(0), ..Limits::default() },
            Limits { processes: Some(3), ..Limits::default() },
            Limits { open_files: Some(u32::MAX), ..Limits::default() },
            Limits { data_bytes: Some(1), ..Limits::default() },
            Limits { tmp_bytes: Some(u64::MAX), ..Limits::default() },
            Limits { log_bytes: Some(bounds::LOG.0 - 1), ..Limits::default() },
        ] {
            assert_eq!(limits(less), "limits", "{less:?}");
        }
    }

    #[test]
    fn the_environment_is_bounded_and_leaves_the_platform_its_own() {
        let with = |pairs: Vec<(String, String)>| {
            judge(None).entry(Typed { env: Some(pairs.into_iter().collect()), ..typed() }, Source::Debug)
        };
        let one = |name: &str, value: &str| with(vec![(name.into(), value.into())]);
        assert!(one("DATABASE_URL", "x=y").is_ok());
        for name in ["", "1A", "A=B", "A B", "PORT", "PATH", "INTERNAL_SECRET", "NEXUSHUB_ENTRANCE", "Ä"] {
            assert!(one(name, "x").is_err(), "{name}");
        }
        assert!(one("A", "\0").is_err());
        assert!(one("A", &"x".repeat(ENV_VALUE_MAX + 1)).is_err());
        assert!(with((0..65).map(|n| (format!("A{n}"), String::new())).collect()).is_err());
        assert!(with((0..5).map(|n| (format!("A{n}"), "x".repeat(8000))).collect()).is_err());
    }

    proptest! {
        #[test]
        fn any_text_in_any_place_is_judged_without_harm(text in ".{0,200}", key in 0..7_usize) {
            let mut hostile = typed();
            match key {
                0 => hostile.id = text,
                1 => hostile.app_id = Some(text),
                2 => hostile.host_name = Some(text),
                3 => hostile.release = Some(text),
                4 => hostile.static_service_url = Some(text),
                5 => hostile.env = Some(BTreeMap::from([(text, "v".into())])),
                _ => hostile.health = Some(Health { path: Some(text), ..Health::default() }),
            }
            if let Err(error) = judge(None).entry(hostile, Source::Debug) {
                prop_assert!(!error.to_string().contains(char::is_control));
            }
        }
    }
}
