//! `nexushub pause` and `nexushub resume`: an app's requests wait, or are told to come back later, until it is resumed.

use clap::Args;
use nexushub_chassis::names::Zone;
use nexushub_proto::procmgr::{PauseInstanceRequest, ResumeInstanceRequest};

use crate::{
    failure::{Failure, OK},
    instances, out,
    place::Place,
    rpc,
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
pub(crate) async fn pause(place: &Place, args: &Pause) -> Result<u8, Failure> {
    let id = instance(place, &args.name).await?;
    let request = PauseInstanceRequest { id, message: args.message.clone(), closed: args.stop };
    let answer = instances::client(place)?.pause_instance(request).await;
    answer.map_err(|status| rpc::failed(place, "procmgr", &status))?;
    let how = if args.stop { "is closed" } else { "is paused; its requests wait" };
    out::say(&format!("{} {how}, until {}", args.name, place.command(&format!("resume {}", args.name))))?;
    Ok(OK)
}

/// `nexushub resume`
pub(crate) async fn resume(place: &Place, args: &Resume) -> Result<u8, Failure> {
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
