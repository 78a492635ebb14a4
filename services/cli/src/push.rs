//! `nexushub push`: an app from a folder or an archive to its URL. An app that was pushed before keeps its id and its data; what is
//! there already is not sent again.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::Method;
use nexushub_proto::debugapi::Application;

use crate::{
    failure::{Failure, OK},
    https::Client,
    hub::Hub,
    life, out,
    package::Package,
    progress,
    upload::{self, Description, Remote, Standing},
};

/// Lines of its log that are shown of an app that does not answer.
const LAST_LINES: u32 = 20;

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Folder of the app (bin/app, static/…), or an archive of one (zip or tar.zst)
    #[arg(value_name = "DIR|ARCHIVE")]
    path: PathBuf,
    /// What to call it; lower-cased it is the host name
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The host name, if it shall be another one; below the base domain
    #[arg(long, value_name = "HOST")]
    host_name: Option<String>,
    /// Another address of the platform
    #[arg(long, value_name = "https://HOST[:PORT]")]
    url: Option<String>,
    /// Seconds to wait until it answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// `nexushub push`
pub(crate) async fn run(hub: &Hub, args: &Push) -> Result<u8, Failure> {
    let description = Description::of(&args.name, args.host_name.as_deref(), &hub.zone()?)?;
    let package = Package::open(&args.path)?;
    let (client, zone) = hub.client(args.url.as_deref())?;
    let (app, is_new) = bring(hub, &client, &description, &package).await?;
    let installed = progress::waiting("installing", app.install(&package)).await;
    if installed.as_ref().is_err_and(|failure| is_new && upload::is_unfit(failure)) {
        // It was made for this package, and before there was none of its name: all is as it was. If it can't be, it tells of itself.
        let _ = life::order(&client, &app.id, Method::DELETE, "", "remove the app").await;
    }
    installed?;
    let up = app.await_up(Duration::from_secs(args.timeout));
    if let Err(standing) = progress::waiting("waiting until it answers", up).await {
        for line in last_words(hub, &app.id, &standing).await {
            out::tell(&format!("  {line}"));
        }
        let hint =
            format!("what it said last is above; all of it: {}", hub.command(&format!("logs {}", app.id)));
        return Err(Failure::new(format!("{} does not answer: {}", args.name, standing.told()), hint));
    }
    out::say(&format!("{} answers at {}", args.name, zone.url(description.host_name.as_str())))?;
    Ok(OK)
}

/// What an app that does not answer said last. Of one that ended procmgr has told; one that hangs has its log only.
pub(crate) async fn last_words(hub: &Hub, id: &str, standing: &Standing) -> Vec<String> {
    match standing.last_words() {
        words if words.is_empty() => hub.last_lines(id, LAST_LINES).await,
        words => words,
    }
}

/// The application on the platform, holding the package; and whether there was none of its name before, as far as is known.
async fn bring<'c>(
    hub: &Hub,
    client: &'c Client,
    description: &Description,
    package: &Package,
) -> Result<(Remote<'c>, bool), Failure> {
    let pushed = hub.pushed().await;
    let is_new = pushed.as_ref().is_ok_and(|apps| apps.iter().all(|app| app.app_id != description.app_id));
    if let Some(id) = pushed.ok().and_then(|apps| among(apps, description)) {
        let app = Remote::known(client, id);
        match app.holds(package).await? {
            Some(true) => return Ok((app, false)),
            Some(false) => {
                send(client, &app, package).await?;
                return Ok((app, false));
            }
            None => {}
        }
    }
    let app = Remote::create(client, description).await?;
    send(client, &app, package).await?;
    Ok((app, is_new))
}

/// Uploads, and shows how far it is.
async fn send(client: &Client, app: &Remote<'_>, package: &Package) -> Result<(), Failure> {
    let total = package.len;
    progress::sending("uploading", client.sent(), total, app.upload(package)).await
}

/// The id of an application that was pushed under this name, and answers at this host name.
pub(crate) async fn known(hub: &Hub, description: &Description) -> Option<String> {
    among(hub.pushed().await.ok()?, description)
}

fn among(apps: Vec<Application>, description: &Description) -> Option<String> {
    let same = |app: &Application| {
        app.app_id == description.app_id && app.host_name == description.host_name.as_str()
    };
    apps.into_iter().find(same).map(|app| app.id)
}
