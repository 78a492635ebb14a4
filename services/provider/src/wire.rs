//! Between the messages of the contract and our own types. An empty field of a message means: not said.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use nexushub_chassis::names::InstanceId;
use nexushub_proto::provider as proto;
use prost::Message;

use crate::{
    admin::follow::Contact,
    changes::Change,
    desired::State,
    instance::{Deploy, Driver, Egress, Health, Instance, Limits, Source},
    merge::{Conflict, Desired, Merged, Origin},
    releases::{Asks, Release, Shelf},
    route::{Protocol, Route},
    typed::{self, BadField, Judge, Typed},
};

/// What a request's instance is to be: a debug instance, or the ground of one that the admin app has.
///
/// # Errors
/// When it says that it is something else.
pub fn source(sent: &proto::Instance) -> Result<Source, BadField> {
    match sent.origin() {
        proto::Origin::Unspecified | proto::Origin::Debug => Ok(Source::Debug),
        proto::Origin::Dynamic => Ok(Source::Promoted),
        proto::Origin::Static => {
            Err(BadField { key: "origin", why: "only debug instances can be put".to_owned() })
        }
    }
}

/// A request's instance as somebody wrote it; it is judged by `typed.rs` like any other.
///
/// # Errors
/// A value that our types can't even write down.
pub fn typed(sent: proto::Instance) -> Result<Typed, BadField> {
    let driver = driver(sent.driver)?;
    let debug_port = u16::try_from(sent.debug_port)
        .map_err(|_| BadField { key: "debug_port", why: format!("{} is not a port", sent.debug_port) })?;
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let number = |value: u32| Some(value).filter(|value| *value != 0);
    Ok(Typed {
        id: sent.id,
        app_id: said(sent.app_id),
        display_name: said(sent.display_name),
        host_name: said(sent.host_name),
        release: said(sent.release),
        data: said(sent.data),
        driver,
        egress: egress(sent.egress)?,
        deploy: deploy(sent.deploy)?,
        idle_stop_ms: number(sent.idle_stop_ms),
        env: env(sent.env),
        health: health(sent.health),
        limits: limits(sent.limits),
        route: sent.route.map(route).transpose()?.filter(|route| *route != Route::default()),
        debug_port: Some(debug_port).filter(|port| *port != 0),
        static_service_url: said(sent.static_service_url),
        pin: Vec::new(),
    })
}

fn driver(sent: i32) -> Result<Option<Driver>, BadField> {
    match proto::Driver::try_from(sent) {
        Ok(proto::Driver::Unspecified) => Ok(None),
        Ok(proto::Driver::Auto) => Ok(Some(Driver::Auto)),
        Ok(proto::Driver::Krun) => Ok(Some(Driver::Krun)),
        Ok(proto::Driver::Sandbox) => Ok(Some(Driver::Sandbox)),
        Ok(proto::Driver::Process) => Ok(Some(Driver::Process)),
        Err(_) => Err(BadField { key: "driver", why: format!("there is no driver {sent}") }),
    }
}

fn env(sent: HashMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(sent.into_iter().collect()).filter(|env: &BTreeMap<_, _>| !env.is_empty())
}

fn health(sent: Option<proto::Health>) -> Option<Health> {
    let number = |value: u32| Some(value).filter(|value| *value != 0);
    let health = sent.map(|health| Health {
        path: Some(health.path).filter(|path| !path.is_empty()),
        interval_ms: number(health.interval_ms),
        timeout_ms: number(health.timeout_ms),
        failures: number(health.failures),
        start_deadline_ms: number(health.start_deadline_ms),
    });
    health.filter(|health| *health != Health::default())
}

fn limits(sent: Option<proto::Limits>) -> Option<Limits> {
    let number = |value: u32| Some(value).filter(|value| *value != 0);
    let bytes = |value: u64| Some(value).filter(|value| *value != 0);
    let limits = sent.map(|limits| Limits {
        memory_bytes: bytes(limits.memory_bytes),
        cpu_percent: number(limits.cpu_percent),
        processes: number(limits.processes),
        open_files: number(limits.open_files),
        data_bytes: bytes(limits.data_bytes),
        tmp_bytes: bytes(limits.tmp_bytes),
        log_bytes: bytes(limits.log_bytes),
    });
    limits.filter(|limits| *limits != Limits::default())
}

fn egress(sent: i32) -> Result<Option<Egress>, BadField> {
    match proto::Egress::try_from(sent) {
        Ok(proto::Egress::Unspecified) => Ok(None),
        Ok(proto::Egress::None) => Ok(Some(Egress::None)),
        Ok(proto::Egress::Internet) => Ok(Some(Egress::Internet)),
        Err(_) => Err(BadField { key: "egress", why: format!("there is no egress {sent}") }),
    }
}

fn deploy(sent: i32) -> Result<Option<Deploy>, BadField> {
    match proto::Deploy::try_from(sent) {
        Ok(proto::Deploy::Unspecified) => Ok(None),
        Ok(proto::Deploy::Overlap) => Ok(Some(Deploy::Overlap)),
        Ok(proto::Deploy::Replace) => Ok(Some(Deploy::Replace)),
        Err(_) => Err(BadField { key: "deploy", why: format!("there is no deploy {sent}") }),
    }
}

fn route(sent: proto::Route) -> Result<Route, BadField> {
    let protocol = match proto::Protocol::try_from(sent.protocol) {
        Ok(proto::Protocol::Unspecified) => None,
        Ok(proto::Protocol::Http1) => Some(Protocol::Http1),
        Ok(proto::Protocol::H2c) => Some(Protocol::H2c),
        Err(_) => {
            return Err(BadField { key: "protocol", why: format!("there is no protocol {}", sent.protocol) });
        }
    };
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Route {
        protocol,
        hosts: sent.hosts,
        path_prefix: said(sent.path_prefix),
        strip_prefix: sent.strip_prefix,
        balance: said(sent.balance),
        max_body_bytes: Some(sent.max_body_bytes).filter(|bytes| *bytes > 0),
        client_ca: said(sent.client_ca),
        callers: sent.callers,
        internal_callers: sent.internal_callers,
        sign_in: sent.sign_in,
        cors: sent.cors,
    })
}

fn sent_route(route: &Route) -> proto::Route {
    let protocol = match route.protocol {
        None => proto::Protocol::Unspecified,
        Some(Protocol::Http1) => proto::Protocol::Http1,
        Some(Protocol::H2c) => proto::Protocol::H2c,
    };
    proto::Route {
        protocol: protocol.into(),
        hosts: route.hosts.clone(),
        path_prefix: route.path_prefix.clone().unwrap_or_default(),
        strip_prefix: route.strip_prefix,
        balance: route.balance.clone().unwrap_or_default(),
        max_body_bytes: route.max_body_bytes.unwrap_or(0),
        client_ca: route.client_ca.clone().unwrap_or_default(),
        callers: route.callers.clone(),
        internal_callers: route.internal_callers.clone(),
        sign_in: route.sign_in,
        cors: route.cors.clone(),
    }
}

/// A desired instance as a message.
#[must_use]
pub fn instance(desired: &Desired) -> proto::Instance {
    let Instance { id, app_id, display_name, host_name, release, data, driver, env, health, limits, .. } =
        &desired.instance;
    let text = |path: &Path| path.to_string_lossy().into_owned(); // paths were text when they were judged
    let egress = match desired.instance.egress {
        Egress::None => proto::Egress::None,
        Egress::Internet => proto::Egress::Internet,
    };
    let deploy = match desired.instance.deploy {
        Deploy::Overlap => proto::Deploy::Overlap,
        Deploy::Replace => proto::Deploy::Replace,
    };
    let origin = match desired.origin {
        Origin::Static => proto::Origin::Static,
        Origin::Dynamic => proto::Origin::Dynamic,
        Origin::Debug => proto::Origin::Debug,
    };
    proto::Instance {
        id: id.to_string(),
        app_id: app_id.clone(),
        display_name: display_name.clone(),
        host_name: host_name.to_string(),
        release: text(release),
        data: text(data),
        driver: sent_driver(*driver).into(),
        egress: egress.into(),
        deploy: deploy.into(),
        idle_stop_ms: desired.instance.idle_stop_ms,
        env: env.clone().into_iter().collect(),
        health: health.as_ref().map(sent_health),
        limits: limits.as_ref().map(sent_limits),
        origin: origin.into(),
        static_service_url: desired.instance.static_service_url.clone(),
        debug_port: desired.instance.debug_port.into(),
        route: desired.instance.route.as_ref().map(sent_route),
    }
}

fn sent_driver(driver: Driver) -> proto::Driver {
    match driver {
        Driver::Auto => proto::Driver::Auto,
        Driver::Krun => proto::Driver::Krun,
        Driver::Sandbox => proto::Driver::Sandbox,
        Driver::Process => proto::Driver::Process,
    }
}

fn sent_health(health: &Health) -> proto::Health {
    proto::Health {
        path: health.path.clone().unwrap_or_default(),
        interval_ms: health.interval_ms.unwrap_or(0),
        timeout_ms: health.timeout_ms.unwrap_or(0),
        failures: health.failures.unwrap_or(0),
        start_deadline_ms: health.start_deadline_ms.unwrap_or(0),
    }
}

fn sent_limits(limits: &Limits) -> proto::Limits {
    proto::Limits {
        memory_bytes: limits.memory_bytes.unwrap_or(0),
        cpu_percent: limits.cpu_percent.unwrap_or(0),
        processes: limits.processes.unwrap_or(0),
        open_files: limits.open_files.unwrap_or(0),
        data_bytes: limits.data_bytes.unwrap_or(0),
        tmp_bytes: limits.tmp_bytes.unwrap_or(0),
        log_bytes: limits.log_bytes.unwrap_or(0),
    }
}

/// One message of a watch.
#[must_use]
pub fn change(revision: u64, change: &Change) -> proto::WatchDesiredResponse {
    use proto::watch_desired_response::Event;
    let event = match change {
        Change::Snapshot(all) => {
            Event::Snapshot(proto::DesiredSnapshot { instances: all.iter().map(instance).collect() })
        }
        Change::Put(desired) => Event::Put(instance(desired)),
        Change::Removed(id) => Event::RemovedId(id.to_string()),
    };
    proto::WatchDesiredResponse { revision, event: Some(event) }
}

/// Everything that is asked for, desired or not.
#[must_use]
pub fn listed(state: &State, contact: Contact) -> proto::ListInstancesResponse {
    let held: Vec<_> = state.listing.held.keys().collect();
    let held = held.iter().filter_map(|id| state.desired.get(*id).or_else(|| state.waiting.get(*id)));
    let listed = u32::try_from(state.listing.listed.len()).unwrap_or(u32::MAX);
    let admin = proto::Admin {
        followed: contact.followed,
        heard_unix_ms: contact.heard_unix_ms,
        trouble: contact.trouble.unwrap_or_default(),
        listed,
        held: held.map(instance).collect(),
        refused: state.listing.refused.clone(),
    };
    proto::ListInstancesResponse {
        revision: state.revision,
        instances: state.desired.values().map(instance).collect(),
        waiting: state.waiting.values().map(instance).collect(),
        conflicts: state.conflicts.iter().map(conflict).collect(),
        admin: Some(admin),
    }
}

/// What would be desired.
#[must_use]
pub fn preview(merged: &Merged) -> proto::PreviewDesiredResponse {
    proto::PreviewDesiredResponse {
        instances: merged.desired.values().map(instance).collect(),
        conflicts: merged.conflicts.iter().map(conflict).collect(),
    }
}

fn conflict(conflict: &Conflict) -> proto::Conflict {
    let origin = match conflict.source {
        Source::File(..) => proto::Origin::Static,
        Source::Dynamic => proto::Origin::Dynamic,
        Source::Debug | Source::Promoted => proto::Origin::Debug,
    };
    proto::Conflict { id: conflict.id.to_string(), origin: origin.into(), reason: conflict.to_string() }
}

/// A package as somebody sets it; when that is, is for the owner to say.
///
/// # Errors
/// The first value that can't be.
pub fn release(app_id: String, sent: proto::Release, judge: &Judge) -> Result<(String, Release), BadField> {
    let bad = |key| move |why| BadField { key, why };
    let app_id = typed::name(app_id).map_err(bad("app_id"))?;
    let path = judge.path(&sent.path).map_err(bad("path"))?;
    let text = |key, text: String| match text.as_str() {
        "" => Ok(text),
        _ => typed::name(text).map_err(bad(key)),
    };
    let (version, by) = (text("version", sent.version)?, text("by", sent.by)?);
    let asks = asks(sent.asks.unwrap_or_default())?;
    Ok((app_id, Release { path, version, by, set_unix_ms: 0, failed: None, asks }))
}

fn asks(sent: proto::Asks) -> Result<Asks, BadField> {
    let bad = |key| move |why| BadField { key, why };
    Ok(Asks {
        driver: driver(sent.driver)?,
        env: env(sent.env).map(typed::env).transpose().map_err(bad("env"))?,
        health: health(sent.health).map(typed::health).transpose().map_err(bad("health"))?,
        limits: limits(sent.limits).map(typed::limits).transpose().map_err(bad("limits"))?,
    })
}

fn sent_asks(asks: &Asks) -> proto::Asks {
    proto::Asks {
        driver: asks.driver.map_or(proto::Driver::Unspecified, sent_driver).into(),
        env: asks.env.clone().unwrap_or_default().into_iter().collect(),
        health: asks.health.as_ref().map(sent_health),
        limits: asks.limits.as_ref().map(sent_limits),
    }
}

/// The packages of an application as a message.
#[must_use]
pub fn shelf(app_id: &str, shelf: &Shelf, dynamic: Driver) -> proto::Application {
    let release = |release: &Release| proto::Release {
        path: release.path.to_string_lossy().into_owned(), // it was text when it was judged
        version: release.version.clone(),
        by: release.by.clone(),
        set_unix_ms: release.set_unix_ms,
        current: shelf.current.as_ref() == Some(&release.path),
        failed: release.failed.clone().unwrap_or_default(),
        asks: (release.asks != Asks::default()).then(|| sent_asks(&release.asks)),
        ungranted: release.asks.ungranted(dynamic),
    };
    proto::Application { app_id: app_id.to_owned(), releases: shelf.releases.iter().map(release).collect() }
}

/// How large the snapshot of a state is in which this is desired, in bytes.
#[must_use]
pub fn snapshot_len(desired: &BTreeMap<InstanceId, Desired>) -> usize {
    const FRAMING: usize = 8; // tag and length of one entry of a list
    desired.values().map(|desired| instance(desired).encoded_len() + FRAMING).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{instance::Source, typed::Judge};
    use nexushub_chassis::names::Zone;
    use proptest::prelude::*;

    #[test]
    fn an_instance_comes_back_as_it_was_sent() {
        let sent = proto::Instance {
            id: "a".into(),
            app_id: "app".into(),
            display_name: "An app".into(),
            host_name: "a.debug".into(),
            release: "/r".into(),
            data: "/d".into(),
            driver: proto::Driver::Process.into(),
            egress: proto::Egress::Internet.into(),
            deploy: proto::Deploy::Replace.into(),
            idle_stop_ms: 60_000,
            env: [("A".to_owned(), "b".to_owned())].into(),
            health: Some(proto::Health { path: "/up".into(), failures: 3, ..Default::default() }),
            limits: Some(proto::Limits { memory_bytes: 1 << 30, processes: 9, ..Default::default() }),
            origin: proto::Origin::Debug.into(),
            static_service_url: "http://localhost:5173".into(),
            debug_port: 5173,
            route: Some(proto::Route {
                protocol: proto::Protocol::H2c.into(),
                hosts: vec!["*.shop".into()],
                path_prefix: "/reports".into(),
                strip_prefix: true,
                balance: "shops".into(),
                max_body_bytes: 7,
                client_ca: "/ca.pem".into(),
                callers: vec!["admin".into()],
                internal_callers: vec!["login".into()],
                sign_in: false,
                cors: vec!["https://shop.example".into()],
            }),
        };
        let judge = Judge { zone: Zone::new("b", 1), root: None };
        let entry = judge.entry(typed(sent.clone()).unwrap(), Source::Debug).unwrap();
        let whole = entry.fields.complete(&entry.id, Path::new("/x")).unwrap();
        assert_eq!(instance(&Desired { instance: whole, origin: Origin::Debug }), sent);
    }

    #[test]
    fn what_a_package_asks_for_comes_back_as_it_was_sent_and_what_cannot_be_is_refused() {
        let asks = proto::Asks {
            driver: proto::Driver::Krun.into(),
            env: [("A".to_owned(), "b".to_owned())].into(),
            health: Some(proto::Health { path: "/up".into(), ..Default::default() }),
            limits: Some(proto::Limits { processes: 9, ..Default::default() }),
        };
        let judge = Judge { zone: Zone::new("b", 1), root: None };
        let judged = |asks| {
            let sent = proto::Release { path: "/r".into(), asks: Some(asks), ..Default::default() };
            release("shop".to_owned(), sent, &judge).map(|(_, release)| release)
        };
        let kept = Shelf { current: None, releases: vec![judged(asks.clone()).unwrap()] };
        assert_eq!(shelf("shop", &kept, Driver::Auto).releases[0].asks, Some(asks.clone()));
        let nothing = Shelf { releases: vec![judged(proto::Asks::default()).unwrap()], ..kept };
        assert_eq!(shelf("shop", &nothing, Driver::Auto).releases[0].asks, None);
        let key = |asks| judged(asks).unwrap_err().key;
        assert_eq!(key(proto::Asks { driver: 99, ..Default::default() }), "driver");
        assert_eq!(
            key(proto::Asks { env: [("PATH".to_owned(), String::new())].into(), ..Default::default() }),
            "env"
        );
        let health = Some(proto::Health { path: "x".into(), ..Default::default() });
        assert_eq!(key(proto::Asks { health, ..Default::default() }), "health");
        let limits = Some(proto::Limits { processes: 1, ..Default::default() });
        assert_eq!(key(proto::Asks { limits, ..Default::default() }), "limits");
    }

    #[test]
    fn a_sign_in_comes_back_as_it_was_sent() {
        let sent = proto::Route { sign_in: true, ..Default::default() };
        assert_eq!(sent_route(&route(sent.clone()).unwrap()), sent);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let key = |sent| typed(sent).unwrap_err().key;
        assert_eq!(key(proto::Instance { driver: 99, ..Default::default() }), "driver");
        assert_eq!(key(proto::Instance { egress: 99, ..Default::default() }), "egress");
        assert_eq!(key(proto::Instance { deploy: 99, ..Default::default() }), "deploy");
        let route = Some(proto::Route { protocol: 99, ..Default::default() });
        assert_eq!(key(proto::Instance { route, ..Default::default() }), "protocol");
        assert_eq!(key(proto::Instance { debug_port: 65_536, ..Default::default() }), "debug_port");
        assert_eq!(
            source(&proto::Instance { origin: proto::Origin::Static.into(), ..Default::default() })
                .unwrap_err()
                .key,
            "origin"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_a_message_that_is_judged_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let judge = Judge { zone: Zone::new("b", 1), root: None };
            if let Ok(sent) = proto::Instance::decode(bytes.as_slice()) {
                let _ = typed(sent).and_then(|typed| judge.entry(typed, Source::Debug));
            }
        }
    }
}
