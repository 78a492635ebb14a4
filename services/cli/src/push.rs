//! `nexushub push`: an app from a folder or an archive to its URL. An app that was pushed before keeps its id, its host name and its
//! data; what is there already is not sent again.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http::Method;
use nexushub_chassis::names::HostName;
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
    /// The host name, if it shall be another one; below the base domain. An app keeps the one that it was pushed with first
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
    let mut description = Description::of(&args.name, args.host_name.as_deref(), &hub.zone()?)?;
    let package = Package::open(&args.path)?;
    let (client, zone) = hub.client(args.url.as_deref())?;
    let older = known(hub, &description).await?;
    if let Some(older) = &older {
        description.host_name = kept_host(hub, args, older)?;
    }
    let older = older.map(|older| older.id);
    let app = bring(&client, &description, older.clone(), &package).await?;
    let installed = progress::waiting("installing", app.install(&package)).await;
    if installed.as_ref().is_err_and(|failure| older.is_none() && upload::is_unfit(failure)) {
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

/// Where the app that was pushed before answers, and goes on to: at another name it would be another app, made in place of this one
/// and its data.
fn kept_host(hub: &Hub, args: &Push, older: &Application) -> Result<HostName, Failure> {
    let zone = hub.zone()?;
    let kept = HostName::parse(&older.host_name, &zone)
        .map_err(|error| Failure::new(error.to_string(), "push it under another --name"))?;
    match args.host_name.as_deref().map(|wanted| HostName::parse(wanted, &zone)) {
        Some(wanted) if wanted.as_ref() != Ok(&kept) => {
            let message = format!("`{}` was pushed before and answers at {kept}, which it keeps", args.name);
            let remove = hub.command(&format!("remove {}", older.id));
            Err(Failure::new(
                message,
                format!("push it under another --name, or remove it and its data first: {remove}"),
            ))
        }
        _ => Ok(kept),
    }
}

/// The application on the platform, holding the package.
async fn bring<'c>(
    client: &'c Client,
    description: &Description,
    older: Option<String>,
    package: &Package,
) -> Result<Remote<'c>, Failure> {
    if let Some(id) = older {
        let app = Remote::known(client, id);
        match app.holds(package).await? {
            Some(true) => return Ok(app),
            Some(false) => return send(client, &app, package).await.map(|()| app),
            None => {} // removed meanwhile
        }
    }
    let app = Remote::create(client, description).await?;
    send(client, &app, package).await?;
    Ok(app)
}

/// Uploads, and shows how far it is.
async fn send(client: &Client, app: &Remote<'_>, package: &Package) -> Result<(), Failure> {
    let total = package.len;
    progress::sending("uploading", client.sent(), total, app.upload(package)).await
}

/// The application that was pushed under this name. Nobody may take one for new that is only not told of: it would be made in place
/// of the older one and its data.
pub(crate) async fn known(hub: &Hub, description: &Description) -> Result<Option<Application>, Failure> {
    let passes = |told: &Result<_, Failure>| told.as_ref().is_err_and(|failure| failure.passing);
    let apps = upload::again(|| hub.pushed(), passes).await?;
    Ok(apps.into_iter().find(|app| app.app_id == description.app_id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nexushub_chassis::names::Zone;

    use crate::{args::Global, place::Place};

    #[tokio::test(start_paused = true)]
    async fn an_app_that_nobody_tells_of_is_not_taken_for_new() {
        let folder = tempfile::tempdir().unwrap();
        let place =
            Place::find(&Global { home: Some(folder.path().to_owned()), ..Default::default() }).unwrap();
        std::fs::create_dir_all(place.run.join("operator")).unwrap();
        std::fs::write(place.run.join("operator/debug-api"), "00").unwrap();
        let description = Description::of("shop", None, &Zone::new("b.localhost", 8443)).unwrap();
        let told = known(&Hub::Here(place), &description).await;
        assert!(told.unwrap_err().passing);
    }
}
