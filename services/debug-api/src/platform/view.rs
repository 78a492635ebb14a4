//! What is told of the instances: provider's word on what should run, procmgr's on what does, the proxy's counts. Pure.

use std::collections::HashMap;

use nexushub_chassis::{names::Zone, standing};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{self, ListInstancesResponse, Origin},
};
use serde::Serialize;

use super::releases;
use crate::{counts::label, live::Live, record::rfc3339};

/// An application has no package: what should run can't.
const NO_PACKAGE: &str = "no package yet";
/// Somebody else has what it asks for.
const REFUSED: &str = "refused";

/// Everything.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Board {
    pub(crate) instances: Vec<Instance>,
    held: Option<Held>,
    conflicts: Vec<Conflict>,
}

/// What the admin app no longer lists and is kept.
#[derive(Debug, Serialize)]
struct Held {
    removed: Vec<String>,
    total: usize,
}

#[derive(Debug, Serialize)]
struct Conflict {
    id: String,
    origin: &'static str,
    reason: String,
}

/// One instance.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Instance {
    pub(crate) id: String,
    app_id: String,
    display_name: String,
    host_name: String,
    url: String,
    origin: &'static str,
    pub(crate) state: &'static str,
    pub(crate) reason: String,
    healthy: bool,
    since: String,
    restarts: u32,
    driver: String,
    release: String,
    memory_bytes: u64,
    requests: u64,
    errors: u64,
}

/// Requests to one instance, and those of them that went wrong.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    requests: u64,
    errors: u64,
}

/// Puts it together. `used` is procmgr's list, with what each instance uses; it may be empty.
pub(crate) fn board(
    wanted: &ListInstancesResponse,
    live: &Live,
    used: &[InstanceStatus],
    traffic: &HashMap<String, Traffic>,
    zone: &Zone,
) -> Board {
    let used: HashMap<&str, &InstanceStatus> =
        used.iter().map(|status| (status.id.as_str(), status)).collect();
    let url = |host: &str| zone.url(host);
    let desired = wanted.instances.iter().map(|one| {
        let status = used.get(one.id.as_str()).copied().or_else(|| live.get(&one.id));
        running(one, status, traffic.get(&one.id).copied().unwrap_or_default(), url(&one.host_name))
    });
    let waiting = wanted.waiting.iter().map(|one| Instance {
        state: NO_PACKAGE,
        reason: "upload a package to start it".to_owned(),
        ..described(one, url(&one.host_name))
    });
    let mut instances: Vec<Instance> = desired.chain(waiting).collect();
    for conflict in &wanted.conflicts {
        if !instances.iter().any(|one| one.id == conflict.id) {
            let (id, reason) = (conflict.id.clone(), conflict.reason.clone());
            let origin = origin(conflict.origin());
            instances.push(Instance { id, reason, origin, state: REFUSED, ..Instance::default() });
        }
    }
    instances.sort_by(|a, b| (&a.display_name, &a.id).cmp(&(&b.display_name, &b.id)));
    let conflicts = wanted.conflicts.iter().map(|one| {
        let (id, origin, reason) = (one.id.clone(), origin(one.origin()), one.reason.clone());
        Conflict { id, origin, reason }
    });
    Board { instances, held: held(wanted), conflicts: conflicts.collect() }
}

fn held(wanted: &ListInstancesResponse) -> Option<Held> {
    let admin = wanted.admin.as_ref().filter(|admin| !admin.held.is_empty())?;
    let removed: Vec<String> = admin.held.iter().map(|one| one.id.clone()).collect();
    let total = removed.len() + admin.listed as usize;
    Some(Held { removed, total })
}

fn described(one: &provider::Instance, url: String) -> Instance {
    Instance {
        id: one.id.clone(),
        app_id: one.app_id.clone(),
        display_name: one.display_name.clone(),
        host_name: one.host_name.clone(),
        url,
        origin: origin(one.origin()),
        release: releases::id(&one.release),
        ..Instance::default()
    }
}

fn running(
    one: &provider::Instance,
    status: Option<&InstanceStatus>,
    traffic: Traffic,
    url: String,
) -> Instance {
    let described = described(one, url);
    let Some(status) = status else {
        let reason = "procmgr has not looked at it yet".to_owned();
        return Instance { state: "unknown", reason, ..described };
    };
    Instance {
        state: state(status),
        reason: reason(status),
        healthy: status.state() == State::Running && !status.flagged,
        since: rfc3339(status.since_unix_ms),
        restarts: status.restarts,
        driver: status.driver.clone(),
        release: releases::id(&status.release),
        memory_bytes: status.usage.as_ref().map_or(0, |usage| usage.memory_bytes),
        requests: traffic.requests,
        errors: traffic.errors,
        ..described
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Static => "static",
        Origin::Dynamic => "dynamic",
        Origin::Debug => "debug",
        Origin::Unspecified => "",
    }
}

/// The words that `nexushub status` has, and one for its requests.
pub(crate) fn state(status: &InstanceStatus) -> &'static str {
    if status.pause.is_some() { "paused" } else { standing::word(status) }
}

/// Why it is in its state, or else what keeps its next generation from taking its place.
pub(crate) fn reason(status: &InstanceStatus) -> String {
    let next = status.next.as_ref().filter(|next| next.restarts > 0 && status.reason.is_empty());
    next.map_or_else(
        || status.reason.clone(),
        |next| format!("the next generation does not come up: {}", next.reason),
    )
}

/// The counts of each instance in the proxy's text for Prometheus. Where one has several routes they are added up.
pub(crate) fn traffic(text: &str) -> HashMap<String, Traffic> {
    let mut all: HashMap<String, Traffic> = HashMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("nexushub_proxy_route_responses_total{") else { continue };
        let Some((labels, count)) = rest.rsplit_once("} ") else { continue };
        let (Some(id), Ok(count)) = (label(labels, "instance"), count.parse::<u64>()) else { continue };
        let traffic = all.entry(id.to_owned()).or_default();
        traffic.requests += count;
        if matches!(label(labels, "class"), Some("5xx" | "none")) {
            traffic.errors += count;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::{
        procmgr::{NextGeneration, Pause, Usage},
        provider::Admin,
    };

    use super::*;

    fn wanted(id: &str) -> provider::Instance {
        provider::Instance {
            id: id.into(),
            app_id: "shop".into(),
            display_name: format!("The {id}"),
            host_name: id.into(),
            release: "/packages/abc".into(),
            origin: Origin::Dynamic.into(),
            ..Default::default()
        }
    }

    fn status(id: &str, state: State) -> InstanceStatus {
        let usage = Some(Usage { memory_bytes: 7, ..Usage::default() });
        let release = "/packages/abc".to_owned();
        InstanceStatus { id: id.into(), state: state.into(), release, usage, ..InstanceStatus::default() }
    }

    fn told(wanted: &ListInstancesResponse, used: &[InstanceStatus]) -> serde_json::Value {
        let counts = HashMap::from([("a".to_owned(), Traffic { requests: 9, errors: 2 })]);
        let zone = Zone::new("b.localhost", 8443);
        serde_json::to_value(board(wanted, &Live::default(), used, &counts, &zone)).unwrap()
    }

    #[test]
    fn an_instance_is_told_with_everybodys_word_on_it() {
        let answer =
            ListInstancesResponse { instances: vec![wanted("a"), wanted("b")], ..Default::default() };
        let told = told(&answer, &[status("a", State::Running)]);
        let expected = serde_json::json!({
            "id": "a", "app_id": "shop", "display_name": "The a", "host_name": "a",
            "url": "https://a.b.localhost:8443/", "origin": "dynamic", "state": "running", "reason": "",
            "healthy": true, "since": "1970-01-01T00:00:00.000Z", "restarts": 0, "driver": "", "release": "abc",
            "memory_bytes": 7, "requests": 9, "errors": 2,
        });
        assert_eq!(told["instances"][0], expected);
        assert_eq!(told["instances"][1]["state"], "unknown");
        assert_eq!(told["held"], serde_json::Value::Null);
    }

    #[test]
    fn what_cannot_run_is_told_with_the_reason() {
        let conflict = provider::Conflict { id: "c".into(), reason: "taken".into(), ..Default::default() };
        let admin = Admin { listed: 2, held: vec![wanted("h")], ..Admin::default() };
        let (waiting, conflicts) = (vec![wanted("w")], vec![conflict]);
        let answer = ListInstancesResponse { waiting, conflicts, admin: Some(admin), ..Default::default() };
        let told = told(&answer, &[]);
        let states: Vec<_> = told["instances"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        assert_eq!(states, ["refused", "no package yet"]);
        assert_eq!(told["held"], serde_json::json!({"removed": ["h"], "total": 3}));
        assert_eq!(told["conflicts"][0]["reason"], "taken");
    }

    #[test]
    fn a_release_that_does_not_come_up_is_told_beside_the_one_that_runs() {
        let next = NextGeneration { restarts: 1, reason: "exited with code 3".into(), ..Default::default() };
        let mut status = InstanceStatus { next: Some(next), ..status("a", State::Running) };
        assert_eq!(reason(&status), "the next generation does not come up: exited with code 3");
        status.pause = Some(Pause::default());
        assert_eq!(state(&status), "paused");
    }

    #[test]
    fn counts_are_read_from_the_proxys_text() {
        let text = "# TYPE nexushub_proxy_route_responses_total counter\n\
            nexushub_proxy_route_responses_total{instance=\"a\",host=\"a\",class=\"2xx\"} 5\n\
            nexushub_proxy_route_responses_total{instance=\"a\",host=\"a\",class=\"5xx\"} 2\n\
            nexushub_proxy_route_responses_total{instance=\"a\",host=\"x\",class=\"none\"} 1\n\
            nexushub_proxy_route_responses_total{instance=\"b\",class=\"4xx\"} x\n\
            nexushub_proxy_route_responses_total{broken 1\n";
        let all = traffic(text);
        assert_eq!(all.len(), 1);
        assert_eq!(all["a"], Traffic { requests: 8, errors: 3 });
    }
}
