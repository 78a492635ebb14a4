//! `nexushub releases` and `nexushub rollback`: which releases of a pushed app are kept, and the way back to one of them.

use std::time::{Duration, Instant};

use clap::Args;
use nexushub_chassis::names::{HostName, Zone};
use nexushub_proto::debugapi::{
    Application, ListApplicationsRequest, debug_api_service_client::DebugApiServiceClient,
};
use serde::{Deserialize, Serialize};

use crate::{
    args::Output,
    failure::{Failure, OK},
    https::Client,
    out,
    place::Place,
    push, rpc,
    table::{one_line, render},
    upload::Remote,
};

#[derive(Debug, Args)]
pub(crate) struct Releases {
    /// The app: id, app id, name it was pushed by, or host name
    #[arg(value_name = "APP")]
    app: String,
    /// How to print them
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Another address of the platform
    #[arg(long, value_name = "https://HOST[:PORT]")]
    url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The app: id, app id, name it was pushed by, or host name
    #[arg(value_name = "APP")]
    app: String,
    /// The release, or the beginning of its id or its SHA-256; the last healthy one if not said
    #[arg(value_name = "RELEASE")]
    release: Option<String>,
    /// Seconds to wait until it answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Another address of the platform
    #[arg(long, value_name = "https://HOST[:PORT]")]
    url: Option<String>,
}

/// A release as the platform tells it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Release {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    installed_at: String,
    state: String,
    healthy: bool,
}

/// `nexushub releases`
pub(crate) async fn releases(place: &Place, args: &Releases) -> Result<u8, Failure> {
    let (client, _) = push::client(place, args.url.as_deref())?;
    let releases = app(place, &client, &args.app).await?.releases().await?;
    match args.output {
        Output::Json => out::say(&serde_json::to_string_pretty(&releases).unwrap_or_default())?,
        Output::Table if releases.is_empty() => out::tell(&format!("{} has no release yet", args.app)),
        Output::Table => out::say(&people(&releases))?,
    }
    Ok(OK)
}

/// `nexushub rollback`
pub(crate) async fn rollback(place: &Place, args: &Rollback) -> Result<u8, Failure> {
    let (client, _) = push::client(place, args.url.as_deref())?;
    let app = app(place, &client, &args.app).await?;
    let began = Instant::now();
    let release = app.roll_back(args.release.as_deref()).await?;
    if let Err(standing) = app.await_up(Duration::from_secs(args.timeout)).await {
        for line in push::last_words(place, &app.id, &standing).await {
            out::tell(&format!("  {line}"));
        }
        let hint =
            format!("what it said last is above; all of it: {}", place.command(&format!("logs {}", app.id)));
        let message = format!("release {release} of {} does not answer: {}", args.app, standing.told());
        return Err(Failure::new(message, hint));
    }
    let elapsed = began.elapsed().as_millis();
    out::say(&format!("{} runs release {release} again, after {elapsed} ms", args.app))?;
    Ok(OK)
}

fn people(releases: &[Release]) -> String {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), one_line);
    let rows: Vec<_> = releases
        .iter()
        .map(|release| {
            let healthy = if release.healthy { "was healthy" } else { "never healthy" };
            let (installed, id) = (one_line(&release.installed_at), one_line(&release.id));
            [
                one_line(&release.state),
                healthy.to_owned(),
                installed,
                text(&release.version),
                text(&release.name),
                id,
            ]
        })
        .collect();
    render(["STATE", "HEALTH", "INSTALLED", "VERSION", "NAME", "RELEASE"], &rows)
}

/// The application that a person means.
async fn app<'c>(place: &Place, client: &'c Client, name: &str) -> Result<Remote<'c>, Failure> {
    let mut daemon = DebugApiServiceClient::new(rpc::channel(place, "debug-api")?);
    let list = daemon.list_applications(ListApplicationsRequest {}).await;
    let list = list.map_err(|status| rpc::failed(place, "debug-api", &status))?.into_inner().applications;
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let Some(id) = named(&list, name, zone.as_ref()) else {
        let hint = format!(
            "{} shows what there is; releases of applications of the admin app are on its pages",
            place.command("status")
        );
        return Err(Failure::new(format!("there is no pushed app `{}`", one_line(name)), hint));
    };
    Ok(Remote::known(client, id))
}

/// By id, else by app id, name or host name.
fn named(list: &[Application], name: &str, zone: Option<&Zone>) -> Option<String> {
    let host = zone.and_then(|zone| HostName::parse(name, zone).ok());
    let by_id = list.iter().find(|app| app.id == name);
    let fits = |app: &&Application| {
        app.app_id == name
            || app.app_id == format!("debug-{name}")
            || host.as_ref().is_some_and(|host| host.as_str() == app.host_name)
    };
    by_id.or_else(|| list.iter().find(fits)).map(|app| app.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_app_is_found_by_every_name_it_has() {
        let app = |id: &str, app_id: &str, host: &str| Application {
            id: id.into(),
            app_id: app_id.into(),
            host_name: host.into(),
            ..Application::default()
        };
        let list = [app("1", "debug-hello", "hello"), app("2", "shop", "shop.debug")];
        let zone = Zone::new("b.localhost", 8443);
        let id = |name| named(&list, name, Some(&zone));
        for name in ["1", "hello", "debug-hello", "hello.b.localhost:8443"] {
            assert_eq!(id(name).as_deref(), Some("1"), "{name}");
        }
        assert_eq!((id("shop.debug").as_deref(), id("nobody")), (Some("2"), None));
    }

    #[test]
    fn releases_are_told_in_columns_and_nothing_in_them_moves_the_terminal() {
        let release = Release {
            id: "ab-2".into(),
            version: Some("7\u{1b}[2J".into()),
            installed_at: "2026-01-02T03:04:05Z".into(),
            state: "current".into(),
            healthy: true,
            ..Release::default()
        };
        let told = people(&[release]);
        assert_eq!(
            told,
            "STATE    HEALTH       INSTALLED             VERSION  NAME  RELEASE\n\
             current  was healthy  2026-01-02T03:04:05Z  7 [2J    -     ab-2"
        );
    }
}
