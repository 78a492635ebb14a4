//! `nexushub pause` and `nexushub resume`: an app's requests wait, or are told to come back later, until it is resumed.

use clap::Args;
use http::Method;
use nexushub_chassis::names::Zone;
use nexushub_proto::procmgr::{PauseInstanceRequest, ResumeInstanceRequest};

use crate::{
    failure::{Failure, OK},
    far,
    hub::Hub,
    instances, life, out,
    place::Place,
    pushed, rpc,
};

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// An app (id, app id, name it was pushed by, or host name)
    #[arg(value_name = "APP")]
    name: String,
    /// What people are told who ask for it meanwhile
    #[arg(long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Refuse its requests at once instead of having them wait
    #[arg(long)]
    stop: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// An app (id, app id, name it was pushed by, or host name)
    #[arg(value_name = "APP")]
    name: String,
}

/// `nexushub pause`
pub(crate) async fn pause(hub: &Hub, args: &Pause) -> Result<u8, Failure> {
    match hub {
        Hub::Here(place) => {
            let id = instance(place, &args.name).await?;
            let request = PauseInstanceRequest { id, message: args.message.clone(), closed: args.stop };
            let answer = instances::client(place)?.pause_instance(request).await;
            answer.map_err(|status| rpc::failed(place, "procmgr", &status))?;
        }
        Hub::Elsewhere(_) => {
            let path = format!("/pause?closed={}&message={}", args.stop, far::encoded(&args.message));
            order(hub, &args.name, &path, "pause the app").await?;
        }
    }
    let how = if args.stop { "is closed" } else { "is paused; its requests wait" };
    out::say(&format!("{} {how}, until {}", args.name, hub.command(&format!("resume {}", args.name))))?;
    Ok(OK)
}

/// Tells an app elsewhere.
async fn order(hub: &Hub, name: &str, path: &str, what: &str) -> Result<(), Failure> {
    let app = pushed::named(hub, name).await?.ok_or_else(|| pushed::unknown(hub, name))?;
    life::order(&hub.client(None)?.0, &app.id, Method::POST, path, what).await
}

/// `nexushub resume`
pub(crate) async fn resume(hub: &Hub, args: &Resume) -> Result<u8, Failure> {
    let Hub::Here(place) = hub else {
        order(hub, &args.name, "/resume", "resume the app").await?;
        out::say(&format!("{} is resumed", args.name))?;
        return Ok(OK);
    };
    let request = ResumeInstanceRequest { id: instance(place, &args.name).await? };
    let answer = instances::client(place)?.resume_instance(request).await;
    let answer = answer.map_err(|status| rpc::failed(place, "procmgr", &status))?.into_inner();
    out::say(&format!("{} {}", args.name, if answer.resumed { "is resumed" } else { "was not paused" }))?;
    Ok(OK)
}

async fn instance(place: &Place, name: &str) -> Result<String, Failure> {
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let list = instances::list(place).await?;
    let found = instances::named(&list, name, zone.as_ref())?.map(|instance| instance.id.clone());
    found.ok_or_else(|| {
        Failure::new(
            format!("there is no app `{name}`"),
            format!("see {} for what there is", place.command("status")),
        )
    })
}
