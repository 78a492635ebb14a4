//! `nexushub push`: an app from a folder or an archive to its URL. An app that was pushed before keeps its id and its data; what is
//! there already is not sent again.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use nexushub_chassis::names::Zone;
use nexushub_proto::debugapi::{
    Application, ListApplicationsRequest, debug_api_service_client::DebugApiServiceClient,
};

use crate::{
    failure::{Failure, OK},
    https::{Client, Target},
    logs, out,
    package::Package,
    place::Place,
    progress, rpc,
    upload::{Description, Remote, Standing},
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
pub(crate) async fn run(place: &Place, args: &Push) -> Result<u8, Failure> {
    let platform = place.platform()?;
    let base = &platform.base_domain;
    let description = Description::of(&args.name, args.host_name.as_deref(), &Zone::from(&platform))?;
    let package = Package::open(&args.path)?;
    let (client, port) = client(place, args.url.as_deref())?;
    let app = bring(place, &client, &description, &package).await?;
    app.install().await?;
    let up = app.await_up(Duration::from_secs(args.timeout));
    if let Err(standing) = progress::waiting("waiting until it answers", up).await {
        for line in last_words(place, &app.id, &standing).await {
            out::tell(&format!("  {line}"));
        }
        let hint =
            format!("what it said last is above; all of it: {}", place.command(&format!("logs {}", app.id)));
        return Err(Failure::new(format!("{} does not answer: {}", args.name, standing.told()), hint));
    }
    out::say(&format!("{} answers at https://{}.{base}:{port}/", args.name, description.host_name))?;
    Ok(OK)
}

/// The way to debug-api by the front door, and that door's port.
pub(crate) fn client(place: &Place, url: Option<&str>) -> Result<(Client, u16), Failure> {
    let platform = place.platform()?;
    let token = place.token("debug-api")?;
    let own = || format!("https://debug.{}:{}", platform.base_domain, platform.listen.port());
    let target = Target::parse(&url.map_or_else(own, str::to_owned), platform.listen)?;
    let port = target.port;
    Ok((Client::new(target, &place.ca_file()?, &token)?, port))
}

/// What an app that does not answer said last. Of one that ended procmgr has told; one that hangs has its log only.
pub(crate) async fn last_words(place: &Place, id: &str, standing: &Standing) -> Vec<String> {
    match standing.last_words() {
        words if words.is_empty() => logs::last_lines(place, id, LAST_LINES).await,
        words => words,
    }
}

/// The application on the platform, holding the package.
async fn bring<'c>(
    place: &Place,
    client: &'c Client,
    description: &Description,
    package: &Package,
) -> Result<Remote<'c>, Failure> {
    if let Some(id) = known(place, description).await {
        let app = Remote::known(client, id);
        match app.holds(package).await? {
            Some(true) => return Ok(app),
            Some(false) => {
                send(client, &app, package).await?;
                return Ok(app);
            }
            None => {}
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

/// The id of an application that was pushed under this name, and answers at this host name.
pub(crate) async fn known(place: &Place, description: &Description) -> Option<String> {
    let mut client = DebugApiServiceClient::new(rpc::channel(place, "debug-api").ok()?);
    let list = client.list_applications(ListApplicationsRequest {}).await.ok()?.into_inner().applications;
    let same = |app: &Application| {
        app.app_id == description.app_id && app.host_name == description.host_name.as_str()
    };
    list.into_iter().find(same).map(|app| app.id)
}
