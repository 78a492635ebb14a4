//! The applications that were pushed, as debug-api lists them: those that are stopped, too. And which of them a person means.

use nexushub_chassis::names::{HostName, Zone};
use nexushub_proto::debugapi::{
    Application, ListApplicationsRequest, debug_api_service_client::DebugApiServiceClient,
};

use crate::{failure::Failure, place::Place, rpc, table::one_line};

/// All of them.
pub(crate) async fn list(place: &Place) -> Result<Vec<Application>, Failure> {
    let mut client = DebugApiServiceClient::new(rpc::channel(place, "debug-api")?);
    let answer = client.list_applications(ListApplicationsRequest {}).await;
    Ok(answer.map_err(|status| rpc::failed(place, "debug-api", &status))?.into_inner().applications)
}

/// The one that a person means: by id, else by app id, the name it was pushed by, or host name; none if nothing has that name.
pub(crate) async fn named(place: &Place, name: &str) -> Result<Option<Application>, Failure> {
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    Ok(chosen(list(place).await?, name, zone.as_ref()))
}

/// Why there is none.
pub(crate) fn unknown(place: &Place, name: &str) -> Failure {
    Failure::new(
        format!("there is no app `{}`", one_line(name)),
        format!("see {} for what there is", place.command("status")),
    )
}

fn chosen(list: Vec<Application>, name: &str, zone: Option<&Zone>) -> Option<Application> {
    let host = zone.and_then(|zone| HostName::parse(name, zone).ok());
    let by_id = list.iter().position(|app| app.id == name);
    let fits = |app: &Application| {
        app.app_id == name
            || app.app_id == format!("debug-{name}")
            || host.as_ref().is_some_and(|host| host.as_str() == app.host_name)
    };
    let at = by_id.or_else(|| list.iter().position(fits))?;
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
