//! `nexushub stop` and `nexushub start`: an app that was pushed is told to end, and to run again. Its package and its data stay.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Method;
use nexushub_chassis::names::{HostName, Zone};
use nexushub_proto::{
    debugapi::{Application, ListApplicationsRequest, debug_api_service_client::DebugApiServiceClient},
    procmgr::{InstanceStatus, State, WakeInstanceRequest},
};

use crate::{
    apps,
    failure::{Failure, OK},
    https::{Ask, Client},
    instances, out,
    place::Place,
    plan, push, rpc,
    wait::{self, Wish},
};

#[derive(Debug, Args)]
pub(crate) struct Life {
    /// An app (id, app id, name it was pushed by, or host name)
    #[arg(value_name = "APP")]
    name: String,
    /// Seconds to wait until it is so
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// `nexushub stop`
pub(crate) async fn stop(place: &Place, args: &Life) -> Result<u8, Failure> {
    let patience = Duration::from_secs(args.timeout);
    let Some(app) = pushed(place, &args.name).await? else {
        return Err(not_pushed(place, &args.name).await?);
    };
    order(&push::client(place, None)?.0, &app.id, Method::POST, "/stop", "stop the app").await?;
    wait::until(place, &app.id, Wish::Gone, patience).await?;
    out::say(&format!("{} is stopped, until {}", args.name, place.command(&format!("start {}", args.name))))?;
    Ok(OK)
}

/// `nexushub start`
pub(crate) async fn start(place: &Place, args: &Life) -> Result<u8, Failure> {
    let patience = Duration::from_secs(args.timeout);
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let list = instances::list(place).await?;
    let id = match instances::named(&list, &args.name, zone.as_ref())? {
        Some(one) => {
            wake(place, one).await?;
            one.id.clone()
        }
        None => {
            let app = pushed(place, &args.name).await?.ok_or_else(|| unknown(place, &args.name))?;
            order(&push::client(place, None)?.0, &app.id, Method::POST, "/install", "start the app").await?;
            app.id
        }
    };
    wait::until(place, &id, Wish::Healthy, patience).await?;
    out::say(&format!("{} runs", args.name))?;
    Ok(OK)
}

/// What sleeps is woken; what runs, or is on its way, needs nothing.
async fn wake(place: &Place, instance: &InstanceStatus) -> Result<(), Failure> {
    if instance.state() != State::Asleep {
        return Ok(());
    }
    let request = WakeInstanceRequest { id: instance.id.clone() };
    let woken = instances::client(place)?.wake_instance(request).await;
    woken.map(drop).map_err(|status| rpc::failed(place, "procmgr", &status))
}

/// Tells debug-api what is to become of an application.
pub(crate) async fn order(
    client: &Client,
    id: &str,
    method: Method,
    path: &str,
    what: &str,
) -> Result<(), Failure> {
    let path = format!("/debug/application/{id}{path}");
    let ask = Ask { method, path: &path, content_type: "", fields: &[], body: Bytes::new() };
    let answer = client.ask(ask).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let message = format!("could not {what}: {} ({})", answer.text(), answer.status.as_u16());
    Err(Failure::new(message, "see nexushub logs debug-api"))
}

/// The application that a person means among those that were pushed, by the names that `instances::named` knows.
async fn pushed(place: &Place, name: &str) -> Result<Option<Application>, Failure> {
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let mut client = DebugApiServiceClient::new(rpc::channel(place, "debug-api")?);
    let answer = client.list_applications(ListApplicationsRequest {}).await;
    let list = answer.map_err(|status| rpc::failed(place, "debug-api", &status))?.into_inner().applications;
    Ok(chosen(list, name, zone.as_ref()))
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

/// Why an app that was not pushed is not stopped.
async fn not_pushed(place: &Place, name: &str) -> Result<Failure, Failure> {
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let list = instances::list(place).await?;
    let Some(one) = instances::named(&list, name, zone.as_ref())? else { return Ok(unknown(place, name)) };
    let asked = plan::list(place).await?.instances;
    let by = asked.iter().find(|asked| asked.id == one.id).map_or("", |asked| apps::origin(asked.origin()));
    let instead = format!("to refuse its requests: {}", place.command(&format!("pause {name} --stop")));
    let hint = match by {
        "admin" => format!("remove it in the admin app; {instead}"),
        _ => format!("take its entry out of the configuration; {instead}"),
    };
    Ok(Failure::new(format!("`{name}` was not pushed, so it runs for as long as it is asked for"), hint))
}

fn unknown(place: &Place, name: &str) -> Failure {
    Failure::new(
        format!("there is no app `{name}`"),
        format!("see {} for what there is", place.command("apps")),
    )
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
