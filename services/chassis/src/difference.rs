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

/// What differs, in the order of the contract; a key that the contract is given asks here what it costs. Accounts of one provider: what is silent in one is silent in the other.
#[must_use]
pub fn between(was: &Instance, is: &Instance) -> Vec<Changed> {
    let Instance {
        id: _,
        app_id,
        display_name,
        host_name,
        release,
        data,
        driver: _, // compared by their names, so the next two
        egress: _,
        deploy: _,
        env: _, // below, so the next three
        health: _,
        limits: _,
        route: _,
        origin: _, // nobody's setting
        static_service_url,
        debug_port,
        idle_stop_ms,
    } = was;
    let own: [Judged; 11] = [
        ("app_id", *app_id != is.app_id, false),
        ("display_name", *display_name != is.display_name, false),
        ("host_name", *host_name != is.host_name, false),
        ("release", *release != is.release, true),
        ("data", *data != is.data, true),
        ("driver", was.driver() != is.driver(), true),
        ("static_service_url", *static_service_url != is.static_service_url, false),
        ("debug_port", *debug_port != is.debug_port, false),
        ("egress", was.egress() != is.egress(), true),
        ("deploy", was.deploy() != is.deploy(), false),
        ("idle_stop_ms", *idle_stop_ms != is.idle_stop_ms, false),
    ];
    let parts = health(was, is).into_iter().chain(limits(was, is)).chain(route(was, is));
    let judged = own.into_iter().chain(parts).filter(|(_, differs, _)| *differs);
    let keys = judged.map(|(key, _, restarts)| Changed { key: key.to_owned(), restarts });
    keys.chain(environment(was, is)).collect()
}

fn health(was: &Instance, is: &Instance) -> [Judged; 5] {
    let [was, is]: [Health; 2] = [was, is].map(|one| one.health.clone().unwrap_or_default());
    let Health { path, interval_ms, timeout_ms, failures, start_deadline_ms } = was;
    [
        ("health.path", path != is.path, true),
        ("health.interval_ms", interval_ms != is.interval_ms, true),
        ("health.timeout_ms", timeout_ms != is.timeout_ms, true),
        ("health.failures", failures != is.failures, true),
        ("health.start_deadline_ms", start_deadline_ms != is.start_deadline_ms, true),
    ]
}

fn limits(was: &Instance, is: &Instance) -> [Judged; 7] {
    let [was, is]: [Limits; 2] = [was, is].map(|one| one.limits.unwrap_or_default());
    let Limits { memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes } = was;
    [
        ("limits.memory_bytes", memory_bytes != is.memory_bytes, true),
        ("limits.cpu_percent", cpu_percent != is.cpu_percent, true),
        ("limits.processes", processes != is.processes, true),
        ("limits.open_files", open_files != is.open_files, true),
        ("limits.data_bytes", data_bytes != is.data_bytes, true),
        ("limits.tmp_bytes", tmp_bytes != is.tmp_bytes, true),
        ("limits.log_bytes", log_bytes != is.log_bytes, true),
    ]
}

fn route(was: &Instance, is: &Instance) -> [Judged; 11] {
    let [was, is]: [Route; 2] = [was, is].map(|one| one.route.clone().unwrap_or_default());
    let h2c = |route: &Route| route.protocol() == Protocol::H2c;
    let was_h2c = h2c(&was);
    let Route {
        protocol: _,
        hosts,
        path_prefix,
        strip_prefix,
        balance,
        max_body_bytes,
        client_ca,
        callers,
        internal_callers,
        sign_in,
        cors,
    } = was;
    [
        ("route.protocol", was_h2c != h2c(&is), true),
        ("route.hosts", hosts != is.hosts, false),
        ("route.path_prefix", path_prefix != is.path_prefix, false),
        ("route.strip_prefix", strip_prefix != is.strip_prefix, false),
        ("route.balance", balance != is.balance, false),
        ("route.max_body_bytes", max_body_bytes != is.max_body_bytes, false),
        ("route.client_ca", client_ca != is.client_ca, false),
        ("route.callers", callers != is.callers, false),
        ("route.internal_callers", internal_callers != is.internal_callers, false),
        ("route.sign_in", sign_in != is.sign_in, false),
        ("route.cors", cors != is.cors, false),
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
