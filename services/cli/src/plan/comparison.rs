//! What a configuration would change: the instances that provider would have of it against those that it has, and its settings
//! against those that each daemon was started with. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use nexushub_chassis::difference;
use nexushub_launch::config::Config;
use nexushub_proto::provider::Instance;
use serde::Serialize;
use toml::{Table, Value};

use crate::failure::Failure;

/// Tables that every daemon reads, besides its own.
const SHARED: [&str; 3] = ["platform", "rpc", "telemetry"];
/// What holds for as long as the supervisor runs.
const FIXED: [&str; 5] = ["listen", "redirect_listen", "metrics_listen", "run_dir", "state_dir"];
/// Who has the table of the same name, and no other.
pub(super) const SUPERVISOR: &str = "supervisor";

/// Whether every daemon reads a table.
pub(super) fn is_shared(table: &str) -> bool {
    SHARED.contains(&table)
}

/// Everything that would change.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Comparison {
    pub(super) file: Option<PathBuf>,
    pub(super) instances: Vec<Difference>,
    /// Entries that would lose against another and do not now, for people.
    pub(super) conflicts: Vec<String>,
    /// None = nobody knows what the daemons were started with.
    pub(super) settings: Option<Vec<Setting>>,
    /// Daemons that are replaced.
    pub(super) daemons: Vec<&'static str>,
    /// Those of them of which there is another executable by now.
    pub(super) executables: Vec<&'static str>,
}

impl Comparison {
    /// Whether all is as the configuration has it.
    pub(crate) fn is_nothing(&self) -> bool {
        let settled = self.settings.as_ref().is_none_or(Vec::is_empty);
        self.instances.is_empty() && self.conflicts.is_empty() && self.daemons.is_empty() && settled
    }

    /// Whether it is known what would become of the settings.
    pub(crate) fn knows_settings(&self) -> bool {
        self.settings.is_some()
    }

    /// The instances that would not be as they are.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&str, Change)> {
        self.instances.iter().map(|one| (one.id.as_str(), one.change))
    }

    /// The first setting for which the platform has to be stopped and started.
    pub(crate) fn fixed(&self) -> Option<&Setting> {
        self.settings.iter().flatten().find(|setting| setting.taken_up == By::Platform)
    }

    /// Daemons of which another process takes the place.
    pub(crate) fn replaced(&self) -> &[&'static str] {
        &self.daemons
    }

    /// Whether the supervisor has to read it.
    pub(crate) fn is_for_the_supervisor(&self) -> bool {
        !self.daemons.is_empty() || self.settings.as_ref().is_some_and(|settings| !settings.is_empty())
    }
}

/// What becomes of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    Added,
    Removed,
    /// The next generation takes over from the present one.
    Restarted,
    /// It runs on.
    Changed,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Restarted => "restarted",
            Self::Changed => "changed",
        }
    }
}

/// One instance that is not as it would be.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) id: String,
    pub(super) app_id: String,
    pub(super) host_name: String,
    pub(crate) change: Change,
    /// What differs, where it is there before and after.
    pub(super) keys: Vec<String>,
}

/// Who takes a setting up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    /// The next process of each daemon that reads it.
    Daemons,
    Supervisor,
    /// Nobody who runs.
    Platform,
}

/// One key that says something else.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Setting {
    pub(crate) key: String,
    /// None = it was not said.
    pub(super) was: Option<Value>,
    pub(super) is: Option<Value>,
    pub(super) taken_up: By,
}

/// By id, what would be otherwise.
pub(super) fn instances(was: &[Instance], is: &[Instance]) -> Vec<Difference> {
    let by_id =
        |all: &'_ [Instance]| all.iter().map(|one| (one.id.clone(), one.clone())).collect::<BTreeMap<_, _>>();
    let (was, is) = (by_id(was), by_id(is));
    let ids: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    ids.into_iter().filter_map(|id| difference(was.get(id), is.get(id))).collect()
}

fn difference(was: Option<&Instance>, is: Option<&Instance>) -> Option<Difference> {
    let shown = is.or(was)?;
    let (change, keys) = match (was, is) {
        (Some(was), Some(is)) => {
            let changed = difference::between(was, is);
            let restarts = changed.iter().any(|one| one.restarts);
            let keys: Vec<_> = changed.into_iter().map(|one| one.key).collect();
            let change = if restarts { Change::Restarted } else { Change::Changed };
            (!keys.is_empty()).then_some((change, keys))?
        }
        (None, _) => (Change::Added, Vec::new()),
        (_, None) => (Change::Removed, Vec::new()),
    };
    let (id, app_id, host_name) = (shown.id.clone(), shown.app_id.clone(), shown.host_name.clone());
    Some(Difference { id, app_id, host_name, change, keys })
}

/// Settings that would be others than those the daemons and the supervisor were started with, and which daemons are replaced for it.
/// `fixed` says whether a key is one that holds here for as long as the supervisor runs.
pub(super) fn settings(
    running: &[(&'static str, Config)],
    proposed: &Config,
    fixed: impl Fn(&str) -> bool,
) -> Result<(Vec<Setting>, Vec<&'static str>), Failure> {
    let (mut settings, mut replaced) = (BTreeMap::new(), Vec::new());
    for (name, config) in running {
        let tables = tables(name);
        if *name != SUPERVISOR && config.fingerprint(&tables) != proposed.fingerprint(&tables) {
            replaced.push(*name);
        }
        for table in tables {
            let (was, is) = (flat(config.section(table)?), flat(proposed.section(table)?));
            let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for key in keys.into_iter().filter(|key| was.get(*key) != is.get(*key)) {
                let taken_up = match table {
                    "platform" if FIXED.contains(&key.as_str()) && fixed(key) => By::Platform,
                    SUPERVISOR => By::Supervisor,
                    _ => By::Daemons,
                };
                let (was, is, key) = (was.get(key).cloned(), is.get(key).cloned(), format!("{table}.{key}"));
                settings.insert(key.clone(), Setting { key, was, is, taken_up });
            }
        }
    }
    Ok((settings.into_values().collect(), replaced))
}

fn tables(name: &'static str) -> Vec<&'static str> {
    if name == SUPERVISOR { vec![name] } else { SHARED.into_iter().chain([name]).collect() }
}

/// Keys by their path; instances are told on their own.
fn flat(table: Table) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in table.into_iter().filter(|(key, _)| key != "instance") {
        match value {
            Value::Table(table) => {
                flat.extend(
                    self::flat(table).into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)),
                );
            }
            value => drop(flat.insert(key, value)),
        }
    }
    flat
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nexushub_proto::provider::{Limits, Route};
    use std::path::Path;

    impl Comparison {
        /// Nothing would change, and that is known.
        pub(crate) fn settled() -> Self {
            Self { settings: Some(Vec::new()), ..Self::default() }
        }
    }

    /// One of each that there is to tell.
    pub(in crate::plan) fn every_kind() -> Comparison {
        let limits = Some(Limits { memory_bytes: 7, ..Limits::default() });
        let is = [instance("new"), Instance { limits, ..instance("shop") }];
        let was = "[platform]\nlog_level='info'\n[proxy]\ndrain_ms=1\n";
        let is_said =
            "[platform]\nmetrics_listen='127.0.0.1:9'\n[proxy]\ndrain_ms=2\n[supervisor]\nburst=3\n";
        let running = ["provider", "proxy", SUPERVISOR].map(|name| (name, config(was)));
        let (settings, daemons) = settings(&running, &config(is_said), |_| true).unwrap();
        Comparison {
            file: Some("/c".into()),
            instances: instances(&[instance("gone"), instance("shop")], &is),
            conflicts: vec!["host name `x` is taken".into()],
            settings: Some(settings),
            daemons,
            executables: vec!["proxy"],
        }
    }

    fn instance(id: &str) -> Instance {
        Instance { id: id.into(), host_name: id.into(), release: "/r".into(), ..Instance::default() }
    }

    fn config(text: &str) -> Config {
        Config::load(None, Path::new("/nowhere")).unwrap().with("/c".into(), text.to_owned()).unwrap()
    }

    /// What becomes of the settings of a proxy and a provider that were started with one text, and a supervisor with the same.
    fn compared(was: &str, is: &str) -> (Vec<(String, By)>, Vec<&'static str>) {
        let running = ["provider", "proxy", SUPERVISOR].map(|name| (name, config(was)));
        let (settings, replaced) = settings(&running, &config(is), |key| key != "run_dir").unwrap();
        (settings.into_iter().map(|setting| (setting.key, setting.taken_up)).collect(), replaced)
    }

    #[test]
    fn an_instance_comes_goes_is_restarted_or_runs_on() {
        let was = [instance("gone"), instance("limited"), instance("routed"), instance("same")];
        let limits = Some(Limits { memory_bytes: 7, ..Limits::default() });
        let route = Some(Route { sign_in: true, ..Route::default() });
        let is = [
            instance("same"),
            Instance { route: route.clone(), ..instance("routed") },
            Instance { limits, route, ..instance("limited") },
            instance("new"),
        ];
        let told = instances(&was, &is);
        let told: Vec<_> = told.iter().map(|one| (one.id.as_str(), one.change, one.keys.join(" "))).collect();
        assert_eq!(
            told,
            [
                ("gone", Change::Removed, String::new()),
                ("limited", Change::Restarted, "limits.memory_bytes route.sign_in".into()),
                ("new", Change::Added, String::new()),
                ("routed", Change::Changed, "route.sign_in".into()),
            ]
        );
        assert_eq!(instances(&was, &was), []);
    }

    #[test]
    fn a_setting_is_taken_up_by_whoever_reads_it() {
        let was = "[platform]\nlog_level='info'\n[proxy]\ndrain_ms=1\n";
        assert_eq!(compared(was, was), (vec![], vec![]));
        assert_eq!(
            compared(was, "# said in another way\n[proxy]\ndrain_ms = 0x1\n[platform]\nlog_level='info'\n"),
            (vec![], vec![])
        );
        let own = compared(was, "[platform]\nlog_level='info'\n[proxy]\ndrain_ms=2\n");
        assert_eq!(own, (vec![("proxy.drain_ms".into(), By::Daemons)], vec!["proxy"]));
        let shared = compared(was, "[proxy]\ndrain_ms=1\n");
        assert_eq!(shared, (vec![("platform.log_level".into(), By::Daemons)], vec!["provider", "proxy"]));
        let (settings, replaced) = compared("", "[supervisor]\nburst=3\n");
        assert_eq!((settings, replaced), (vec![("supervisor.burst".into(), By::Supervisor)], vec![]));
        let (settings, _) = compared("", "[platform]\nmetrics_listen='127.0.0.1:9'\nrun_dir='/x'\n");
        let expected = [("platform.metrics_listen", By::Platform), ("platform.run_dir", By::Daemons)];
        assert_eq!(settings, expected.map(|(key, by)| (key.to_owned(), by)));
    }

    #[test]
    fn a_profile_counts_and_instances_are_no_settings() {
        let profile =
            compared("", "[profile.development.proxy]\ndrain_ms=2\n[profile.staging.proxy]\ndrain_ms=3\n");
        assert_eq!(profile, (vec![("proxy.drain_ms".into(), By::Daemons)], vec!["proxy"]));
        let listed = compared("", "[[provider.instance]]\nid='a'\n");
        assert_eq!(listed, (vec![], vec!["provider"]), "which has to read them");
    }
}
