//! App instances as procmgr tells of them, and which one a person means.

use nexushub_chassis::{
    client::GrpcChannel,
    names::{HostName, Zone},
};
use nexushub_proto::procmgr::{
    InstanceStatus, ListInstancesRequest, State, exit::How, procmgr_service_client::ProcmgrServiceClient,
};

use crate::{failure::Failure, place::Place, rpc};

/// Longest answer of procmgr: every instance, each with its last words.
const LIST_BYTES: usize = 64 << 20;

/// procmgr.
pub(crate) fn client(place: &Place) -> Result<ProcmgrServiceClient<GrpcChannel>, Failure> {
    Ok(ProcmgrServiceClient::new(rpc::channel(place, "procmgr")?).max_decoding_message_size(LIST_BYTES))
}

/// Every instance.
pub(crate) async fn list(place: &Place) -> Result<Vec<InstanceStatus>, Failure> {
    let answer = client(place)?.list_instances(ListInstancesRequest {}).await;
    answer
        .map(|answer| answer.into_inner().instances)
        .map_err(|status| rpc::failed(place, "procmgr", &status))
}

/// The instance that a person means: by id, else by app id, else by host name (relative or full).
pub(crate) fn named<'i>(
    instances: &'i [InstanceStatus],
    name: &str,
    zone: Option<&Zone>,
) -> Result<Option<&'i InstanceStatus>, Failure> {
    if let Some(instance) = instances.iter().find(|instance| instance.id == name) {
        return Ok(Some(instance));
    }
    let host_name = match zone {
        Some(zone) => HostName::parse(name, zone).ok(),
        None => HostName::try_from(name.to_owned()).ok(),
    };
    let fits = |instance: &&InstanceStatus| {
        instance.app_id == name
            || instance.app_id == format!("debug-{name}")
            || host_name.as_ref().is_some_and(|host_name| host_name.as_str() == instance.host_name)
    };
    let found: Vec<_> = instances.iter().filter(fits).collect();
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => {
            let ids: Vec<&str> = found.iter().map(|instance| instance.id.as_str()).collect();
            Err(Failure::usage(
                format!("`{name}` means more than one instance"),
                format!("say which: {}", ids.join(", ")),
            ))
        }
    }
}

/// Why it isn't running, or what is odd about it though it is.
pub(crate) fn why(instance: &InstanceStatus, now_unix_ms: i64) -> String {
    let mut parts = vec![instance.reason.clone()];
    if instance.reason.is_empty() && instance.state() != State::Running {
        parts = vec!["no reason given".to_owned()];
        parts.extend(instance.last_exit.as_ref().and_then(|exit| exit.how.as_ref()).map(|how| match how {
            How::Code(code) => format!("last exit: code {code}"),
            How::Signal(signal) => format!("last exit: signal {signal}"),
            How::Lost(_) => "last exit: not seen".to_owned(),
        }));
        let due = instance.retry_unix_ms - now_unix_ms;
        if instance.retry_unix_ms > 0 && due > 0 {
            parts.push(format!("next try in {} s", (due + 999) / 1000));
        }
    }
    if instance.flagged {
        parts.push("its last health check failed".to_owned());
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nexushub_proto::procmgr::Exit;

    fn instance(id: &str, app_id: &str, host_name: &str) -> InstanceStatus {
        InstanceStatus {
            id: id.into(),
            app_id: app_id.into(),
            host_name: host_name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_app_is_found_by_every_name_it_has() {
        let all = [
            instance("1", "debug-hello", "hello"),
            instance("2", "shop", "shop.debug"),
            instance("3", "shop2", "x"),
        ];
        let id = |name| {
            named(&all, name, Some(&Zone::new("b.localhost", 8443)))
                .unwrap()
                .map(|instance| instance.id.as_str())
        };
        for name in ["1", "hello", "debug-hello", "hello.b.localhost", "HELLO.b.localhost:8443"] {
            assert_eq!(id(name), Some("1"), "{name}");
        }
        assert_eq!(id("shop.debug"), Some("2"));
        assert_eq!(id("nobody"), None);
    }

    #[test]
    fn a_name_that_means_two_is_not_guessed() {
        let all = [instance("1", "app", "a"), instance("2", "app", "b")];
        let failure = named(&all, "app", None).unwrap_err();
        assert!(failure.hint.contains("1, 2"));
    }

    #[test]
    fn what_does_not_run_says_why() {
        let failed = InstanceStatus {
            state: State::Failed.into(),
            retry_unix_ms: 12_000,
            last_exit: Some(Exit { how: Some(How::Code(3)), unix_ms: 1 }),
            ..Default::default()
        };
        assert_eq!(why(&failed, 10_000), "no reason given; last exit: code 3; next try in 2 s");
        let told = InstanceStatus { reason: "exited with code 3; next start in 2 s".into(), ..failed };
        assert_eq!(why(&told, 10_000), told.reason, "procmgr's own words are enough");
        assert_eq!(why(&InstanceStatus::default(), 0), "no reason given");
        let running = InstanceStatus { state: State::Running.into(), ..Default::default() };
        assert_eq!(why(&running, 0), "");
        assert_eq!(why(&InstanceStatus { flagged: true, ..running }, 0), "its last health check failed");
    }
}
