//! procmgr's stream of instances becomes the table. One task owns the table and publishes it; while procmgr is away the last
//! one stays, and the stream is asked for again until it comes.

use std::sync::Arc;

use nexushub_chassis::{client::GrpcChannel, retry::Retry};
use nexushub_proto::procmgr::{
    Endpoint as WireEndpoint, InstanceStatus, State as WireState, WatchInstancesRequest,
    WatchInstancesResponse, endpoint::Kind, procmgr_service_client::ProcmgrServiceClient,
    watch_instances_response::Event,
};
use tokio::{sync::watch, time::sleep};
use tonic::Status;

use crate::{
    host,
    rules::Rules,
    table::{Beside, Change, Endpoint, Entry, Pause, Source, State, Table},
};

/// Follows procmgr for as long as the proxy lives, under this name.
pub(crate) async fn follow(
    mut procmgr: ProcmgrServiceClient<GrpcChannel>,
    holder: String,
    table: watch::Sender<Arc<Table>>,
) {
    let mut retry = Retry::default();
    loop {
        let ended = match stream(&mut procmgr, &holder, &table, &mut retry).await {
            Ok(()) => "it ended".to_owned(),
            Err(status) => status.message().to_owned(),
        };
        if table.borrow().source == Source::Procmgr {
            tracing::warn!(error = ended, "stream of instances is down; the last table stays");
            apply(&table, Change::Lost);
        } else {
            tracing::debug!(error = ended, "stream of instances is not up yet");
        }
        sleep(retry.wait()).await;
    }
}

async fn stream(
    procmgr: &mut ProcmgrServiceClient<GrpcChannel>,
    holder: &str,
    table: &watch::Sender<Arc<Table>>,
    retry: &mut Retry,
) -> Result<(), Status> {
    let mut news =
        procmgr.watch_instances(WatchInstancesRequest { holder: holder.to_owned() }).await?.into_inner();
    while let Some(message) = news.message().await? {
        retry.reset();
        if let Some(change) = read(message) {
            if let Change::Snapshot { entries, reconciled } = &change {
                tracing::info!(instances = entries.len(), reconciled, "instances known");
            }
            apply(table, change);
        }
    }
    Ok(())
}

fn apply(table: &watch::Sender<Arc<Table>>, change: Change) {
    let next = Arc::new(table.borrow().apply(change));
    table.send_replace(next);
}

/// A message as a change; none if it says nothing that this version understands.
fn read(message: WatchInstancesResponse) -> Option<Change> {
    match message.event? {
        Event::Snapshot(snapshot) => {
            let entries = snapshot.instances.into_iter().filter_map(entry).collect();
            Some(Change::Snapshot { entries, reconciled: snapshot.reconciled })
        }
        Event::Changed(status) => entry(status).map(Change::put),
        Event::RemovedId(id) => Some(Change::Removed(id)),
    }
}

/// One instance; none, and a warning, if it can't be routed by what is said of it.
fn entry(status: InstanceStatus) -> Option<Entry> {
    let host = status.host_name.to_ascii_lowercase();
    if status.id.is_empty() || !host::is_name(&host) {
        tracing::warn!(instance = status.id, host, "instance without a usable id or host name is not routed");
        return None;
    }
    let h2c = status.endpoint.as_ref().is_some_and(|endpoint| endpoint.h2c);
    let endpoint = reached(status.endpoint);
    let next = status.next.map(|next| (next.generation, next.endpoint, false));
    let draining = status.draining.into_iter().map(|one| (one.generation, one.endpoint, true));
    let beside = next.into_iter().chain(draining).map(|(generation, endpoint, draining)| Beside {
        generation,
        endpoint: reached(endpoint),
        draining,
    });
    let state = WireState::try_from(status.state).unwrap_or(WireState::Unspecified);
    Some(Entry {
        id: status.id,
        host,
        display_name: status.display_name,
        state: local(state),
        reason: status.reason,
        generation: status.generation,
        routed: status.routed && endpoint.is_some(),
        endpoint,
        h2c,
        retry_unix_ms: status.retry_unix_ms,
        release: status.release.into(),
        secret: status.secret_sha256.try_into().ok(),
        debug_port: u16::try_from(status.debug_port).unwrap_or(0),
        beside: beside.collect(),
        idle_stop_ms: status.idle_stop_ms,
        rules: status.route.map(Rules::of).unwrap_or_default(),
        pause: status.pause.map(|pause| Pause { message: pause.message, closed: pause.closed }),
    })
}

/// Where a generation is reached, if it can be.
fn reached(endpoint: Option<WireEndpoint>) -> Option<Endpoint> {
    match endpoint?.kind? {
        Kind::TcpPort(port) => u16::try_from(port).ok().filter(|port| *port != 0).map(Endpoint::Tcp),
        Kind::Shim(path) => Some(Endpoint::Shim(path.into())),
    }
}

fn local(state: WireState) -> State {
    match state {
        WireState::Unspecified | WireState::Unknown => State::Unknown,
        WireState::Starting => State::Starting,
        WireState::Running => State::Running,
        WireState::Unhealthy => State::Unhealthy,
        WireState::Stopping => State::Stopping,
        WireState::Stopped => State::Stopped,
        WireState::Failed => State::Failed,
        WireState::Asleep => State::Asleep,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::procmgr::{DrainingGeneration, InstancesSnapshot, NextGeneration};

    use super::*;

    fn status(id: &str, host: &str, kind: Option<Kind>) -> InstanceStatus {
        InstanceStatus {
            id: id.into(),
            host_name: host.into(),
            state: WireState::Running.into(),
            routed: true,
            endpoint: Some(WireEndpoint { kind, h2c: false }),
            secret_sha256: vec![1; 32],
            ..InstanceStatus::default()
        }
    }

    #[test]
    fn what_is_said_of_an_instance_is_checked() {
        let good = entry(status("a", "Hello", Some(Kind::TcpPort(10_000)))).unwrap();
        assert_eq!(
            (good.host.as_str(), good.endpoint, good.routed),
            ("hello", Some(Endpoint::Tcp(10_000)), true)
        );
        assert_eq!(good.secret, Some([1; 32]));
        for port in [0, 65_536, u32::MAX] {
            let bad = entry(status("a", "hello", Some(Kind::TcpPort(port)))).unwrap();
            assert_eq!((bad.endpoint, bad.routed), (None, false), "{port}");
        }
        assert!(!entry(status("a", "hello", None)).unwrap().routed);
        assert!(entry(status("a", "no host", Some(Kind::TcpPort(1)))).is_none());
        assert!(entry(status("", "hello", Some(Kind::TcpPort(1)))).is_none());
        let short = InstanceStatus { secret_sha256: vec![1; 31], state: 99, ..status("a", "hello", None) };
        let short = entry(short).unwrap();
        assert_eq!((short.secret, short.state), (None, State::Unknown));
    }

    #[test]
    fn what_comes_up_and_what_drains_beside_an_instance_is_known() {
        let at = |port| Some(WireEndpoint { kind: Some(Kind::TcpPort(port)), h2c: false });
        let next = Some(NextGeneration { generation: 3, endpoint: at(10_003), ..Default::default() });
        let draining = vec![DrainingGeneration { generation: 1, endpoint: at(10_001), ..Default::default() }];
        let told = InstanceStatus { next, draining, ..status("a", "a", Some(Kind::TcpPort(10_002))) };
        let beside =
            |generation, port, draining| Beside { generation, endpoint: Some(Endpoint::Tcp(port)), draining };
        assert_eq!(entry(told).unwrap().beside, [beside(3, 10_003, false), beside(1, 10_001, true)]);
    }

    #[test]
    fn what_is_said_of_its_requests_and_of_what_it_speaks_is_taken_over() {
        let told = nexushub_proto::provider::Route {
            hosts: vec!["*.Shop".into()],
            path_prefix: "/a".into(),
            strip_prefix: true,
            balance: "g".into(),
            max_body_bytes: 7,
            client_ca: "/ca.pem".into(),
            callers: vec!["b".into()],
            internal_callers: vec!["c".into()],
            sign_in: true,
            cors: vec!["https://shop.example".into()],
            ..Default::default()
        };
        let endpoint = Some(WireEndpoint { kind: Some(Kind::TcpPort(10_000)), h2c: true });
        let status = InstanceStatus { route: Some(told), endpoint, ..status("a", "a", None) };
        let rules = Rules {
            hosts: vec!["*.shop".into()],
            prefix: "/a".into(),
            strip: true,
            group: "g".into(),
            body_bytes: Some(7),
            client_ca: Some("/ca.pem".into()),
            callers: vec!["b".into()],
            internal_callers: vec!["c".into()],
            sign_in: true,
            cors: vec!["https://shop.example".into()],
        };
        let entry = entry(status).unwrap();
        assert_eq!((entry.rules, entry.h2c), (rules, true));
        let plain = super::entry(self::status("a", "a", Some(Kind::TcpPort(1)))).unwrap();
        assert_eq!((plain.rules, plain.h2c), (Rules::default(), false));
    }

    #[test]
    fn messages_become_changes_and_empty_ones_nothing() {
        let message = |event| WatchInstancesResponse { revision: 1, event };
        assert!(read(message(None)).is_none());
        let snapshot = InstancesSnapshot {
            instances: vec![status("a", "a", None), status("", "b", None)],
            reconciled: true,
        };
        let read_snapshot = read(message(Some(Event::Snapshot(snapshot))));
        assert!(
            matches!(read_snapshot, Some(Change::Snapshot { entries, reconciled: true }) if entries.len() == 1)
        );
        let removed = read(message(Some(Event::RemovedId("a".into()))));
        assert!(matches!(removed, Some(Change::Removed(id)) if id == "a"));
    }
}
