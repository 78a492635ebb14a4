//! How two accounts of one desired instance differ, by the keys that people know, and what a difference costs: some begin another
//! generation of the app, the rest is taken up while it runs. procmgr decides by a digest; a test there holds this list to it.

use std::collections::BTreeSet;

use nexushub_proto::provider::{Health, Instance, Limits, Protocol, Route};

/// A key of an instance that has another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// As in the configuration: `limits.memory_bytes`.
    pub key: String,
    /// Whether another generation is started for it.
    pub restarts: bool,
}

/// A key, whether its value differs, and whether that restarts.
type Judged = (&'static str, bool, bool);

/// What differs, in the order of the contract. Accounts of one provider: what is silent in one is silent in the other.
#[must_use]
pub fn between(was: &Instance, is: &Instance) -> Vec<Changed> {
    let own: [Judged; 11] = [
        ("app_id", was.app_id != is.app_id, false),
        ("display_name", was.display_name != is.display_name, false),
        ("host_name", was.host_name != is.host_name, false),
        ("release", was.release != is.release, true),
        ("data", was.data != is.data, true),
        ("driver", was.driver() != is.driver(), true),
        ("static_service_url", was.static_service_url != is.static_service_url, false),
        ("debug_port", was.debug_port != is.debug_port, false),
        ("egress", was.egress() != is.egress(), true),
        ("deploy", was.deploy() != is.deploy(), false),
        ("idle_stop_ms", was.idle_stop_ms != is.idle_stop_ms, false),
    ];
    let parts = health(was, is).into_iter().chain(limits(was, is)).chain(route(was, is));
    let judged = own.into_iter().chain(parts).filter(|(_, differs, _)| *differs);
    let keys = judged.map(|(key, _, restarts)| Changed { key: key.to_owned(), restarts });
    keys.chain(environment(was, is)).collect()
}

fn health(was: &Instance, is: &Instance) -> [Judged; 5] {
    let [was, is]: [Health; 2] = [was, is].map(|one| one.health.clone().unwrap_or_default());
    [
        ("health.path", was.path != is.path, true),
        ("health.interval_ms", was.interval_ms != is.interval_ms, true),
        ("health.timeout_ms", was.timeout_ms != is.timeout_ms, true),
        ("health.failures", was.failures != is.failures, true),
        ("health.start_deadline_ms", was.start_deadline_ms != is.start_deadline_ms, true),
    ]
}

fn limits(was: &Instance, is: &Instance) -> [Judged; 7] {
    let [was, is]: [Limits; 2] = [was, is].map(|one| one.limits.unwrap_or_default());
    [
        ("limits.memory_bytes", was.memory_bytes != is.memory_bytes, true),
        ("limits.cpu_percent", was.cpu_percent != is.cpu_percent, true),
        ("limits.processes", was.processes != is.processes, true),
        ("limits.open_files", was.open_files != is.open_files, true),
        ("limits.data_bytes", was.data_bytes != is.data_bytes, true),
        ("limits.tmp_bytes", was.tmp_bytes != is.tmp_bytes, true),
        ("limits.log_bytes", was.log_bytes != is.log_bytes, true),
    ]
}

fn route(was: &Instance, is: &Instance) -> [Judged; 11] {
    let [was, is]: [Route; 2] = [was, is].map(|one| one.route.clone().unwrap_or_default());
    let h2c = |route: &Route| route.protocol() == Protocol::H2c;
    [
        ("route.protocol", h2c(&was) != h2c(&is), true),
        ("route.hosts", was.hosts != is.hosts, false),
        ("route.path_prefix", was.path_prefix != is.path_prefix, false),
        ("route.strip_prefix", was.strip_prefix != is.strip_prefix, false),
        ("route.balance", was.balance != is.balance, false),
        ("route.max_body_bytes", was.max_body_bytes != is.max_body_bytes, false),
        ("route.client_ca", was.client_ca != is.client_ca, false),
        ("route.callers", was.callers != is.callers, false),
        ("route.internal_callers", was.internal_callers != is.internal_callers, false),
        ("route.sign_in", was.sign_in != is.sign_in, false),
        ("route.cors", was.cors != is.cors, false),
    ]
}

/// By variable; what they are set to is nobody's business.
fn environment(was: &Instance, is: &Instance) -> Vec<Changed> {
    let names: BTreeSet<&String> = was.env.keys().chain(is.env.keys()).collect();
    let differ = names.into_iter().filter(|name| was.env.get(*name) != is.env.get(*name));
    differ.map(|name| Changed { key: format!("env.{name}"), restarts: true }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_by_its_key_and_what_is_silent_is_no_difference() {
        let was = Instance { id: "a".into(), env: [("A".into(), "1".into())].into(), ..Instance::default() };
        assert_eq!(between(&was, &was), []);
        let silent =
            Instance { limits: Some(Limits::default()), route: Some(Route::default()), ..was.clone() };
        assert_eq!(between(&was, &silent), []);
        let limits = Some(Limits { processes: 7, ..Limits::default() });
        let route = Some(Route { sign_in: true, ..Route::default() });
        let env = [("B".into(), "1".into()), ("A".into(), "1".into())].into();
        let is = Instance { limits, route, env, host_name: "x".into(), ..was.clone() };
        let told: Vec<_> = between(&was, &is).into_iter().map(|one| (one.key, one.restarts)).collect();
        let expected =
            [("host_name", false), ("limits.processes", true), ("route.sign_in", false), ("env.B", true)];
        assert_eq!(told, expected.map(|(key, restarts)| (key.to_owned(), restarts)));
        assert_eq!(between(&is, &was).len(), 4);
    }
}
