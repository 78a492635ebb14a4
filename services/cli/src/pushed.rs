//! The applications that were pushed, as debug-api lists them: those that are stopped, too. And which of them a person means.

use nexushub_chassis::names::{HostName, Zone};
use nexushub_proto::debugapi::{
    Application, ListApplicationsRequest, debug_api_service_client::DebugApiServiceClient,
};

use crate::{failure::Failure, hub::Hub, place::Place, rpc, table::one_line};

/// All of them, on this machine.
pub(crate) async fn list(place: &Place) -> Result<Vec<Application>, Failure> {
    let mut client = DebugApiServiceClient::new(rpc::channel(place, "debug-api")?);
    let answer = client.list_applications(ListApplicationsRequest {}).await;
    Ok(answer.map_err(|status| rpc::failed(place, "debug-api", &status))?.into_inner().applications)
}

/// The one that a person means: by id, else by app id, the name it was pushed by, or host name; none if nothing has that name.
pub(crate) async fn named(hub: &Hub, name: &str) -> Result<Option<Application>, Failure> {
    Ok(chosen(hub.pushed().await?, name, hub.zone().ok().as_ref()))
}

/// Why there is none.
pub(crate) fn unknown(hub: &Hub, name: &str) -> Failure {
    Failure::new(
        format!("there is no app `{}`", one_line(name)),
        format!("see {} for what there is", hub.command("status")),
    )
}

/// Whether somebody may mean it by this name.
pub(crate) fn is_named(app: &Application, name: &str, zone: Option<&Zone>) -> bool {
    is_called((&app.id, &app.app_id, &app.host_name), name, zone)
}

/// Whether somebody may mean by this name what has this id, app id and host name.
pub(crate) fn is_called(
    (id, app_id, host_name): (&str, &str, &str),
    name: &str,
    zone: Option<&Zone>,
) -> bool {
    let host = zone.and_then(|zone| HostName::parse(name, zone).ok());
    id == name
        || app_id == name
        || app_id.strip_prefix("debug-") == Some(name)
        || host.is_some_and(|host| host.as_str() == host_name)
}

fn chosen(list: Vec<Application>, name: &str, zone: Option<&Zone>) -> Option<Application> {
    let by_id = list.iter().position(|app| app.id == name);
    let at = by_id.or_else(|| list.iter().position(|app| is_named(app, name, zone)))?;
    list.into_iter().nth(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_was_pushed_is_found_by_the_names_it_has_also_while_it_does_not_run() {
        let app = |id: &str, app_id: &str, host: &str| Application {
            id: id.into(),
            app_id: app_id.into(),
            host_name: host.into(),
            ..Default::default()
        };
        let zone = Zone::new("b.localhost", 8443);
        let found = |name: &str| {
            let list = vec![app("1", "debug-shop", "market"), app("shop", "other", "other")];
            chosen(list, name, Some(&zone)).map(|app| app.app_id)
        };
        for name in ["1", "debug-shop", "market", "market.b.localhost:8443"] {
            assert_eq!(found(name).as_deref(), Some("debug-shop"), "{name}");
        }
        assert_eq!(found("shop").as_deref(), Some("other"), "an id goes before a name");
        assert_eq!(found("nobody"), None);
    }
}
