//! `nexushub stop` and `nexushub start`: an app that was pushed is told to end, and to run again. Its package and its data stay. What
//! sleeps is woken, whoever asks for it; what the configuration or the admin app asks for is theirs to start and to stop.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Method;
use nexushub_chassis::standing;
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{Instance, Origin},
};

use crate::{
    failure::{Failure, OK},
    https::{Ask, Client},
    hub::Hub,
    instances, out, pushed,
    upload::{self, Remote},
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
pub(crate) async fn stop(hub: &Hub, args: &Life) -> Result<u8, Failure> {
    let patience = Duration::from_secs(args.timeout);
    let Some(app) = pushed::named(hub, &args.name).await? else {
        return Err(not_pushed(hub, &args.name).await?);
    };
    order(&hub.client(None)?.0, &app.id, Method::POST, "/stop", "stop the app").await?;
    wait::until(hub, &app.id, Wish::Gone, patience).await?;
    out::say(&format!("{} is stopped, until {}", args.name, hub.command(&format!("start {}", args.name))))?;
    Ok(OK)
}

/// `nexushub start`
pub(crate) async fn start(hub: &Hub, args: &Life) -> Result<u8, Failure> {
    let patience = Duration::from_secs(args.timeout);
    let zone = hub.zone().ok();
    let list = hub.instances().await?;
    let listed = instances::named(&list, &args.name, zone.as_ref())?;
    let id = match listed.filter(|one| one.state() == State::Asleep) {
        Some(one) => {
            hub.wake(one).await?;
            one.id.clone()
        }
        None => match (owner(hub, listed).await?, pushed::named(hub, &args.name).await?, listed) {
            (Owner::Other(whose), _, Some(one)) => return theirs(hub, args, (one, whose)).await,
            // Also what is listed still: it may be on its way down. What runs is not changed by that.
            (_, Some(app), _) => {
                Remote::known(&hub.client(None)?.0, app.id.clone()).start().await?;
                app.id
            }
            (_, None, Some(one)) => return Err(unwanted(hub, &args.name, one)),
            (_, None, None) => return Err(pushed::unknown(hub, &args.name)),
        },
    };
    wait::until(hub, &id, Wish::Awake, patience).await?;
    out::say(&format!("{} runs", args.name))?;
    Ok(OK)
}

/// Who asks for an instance, other than its developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Nobody, or whoever pushed it.
    Developer,
    /// In words, and where to go.
    Other([&'static str; 2]),
}

async fn owner(hub: &Hub, listed: Option<&InstanceStatus>) -> Result<Owner, Failure> {
    let Some(one) = listed else { return Ok(Owner::Developer) };
    let asked = hub.asked().await?;
    let origin = asked.iter().find(|asked| asked.id == one.id).map(Instance::origin);
    Ok(origin.map_or(Owner::Developer, owned))
}

fn owned(origin: Origin) -> Owner {
    match origin {
        Origin::Static => Owner::Other(["the configuration", "take its entry out of the configuration"]),
        Origin::Dynamic => Owner::Other(["the admin app", "remove it in the admin app"]),
        Origin::Debug | Origin::Unspecified => Owner::Developer,
    }
}

/// What others ask for runs for as long as they do: it is waited for, and it is said whose it is.
async fn theirs(
    hub: &Hub,
    args: &Life,
    (one, [whose, _]): (&InstanceStatus, [&str; 2]),
) -> Result<u8, Failure> {
    let anew = hub.command(&format!("restart {}", args.name));
    let up = wait::until(hub, &one.id, Wish::Healthy, Duration::from_secs(args.timeout)).await;
    up.map_err(|failure| {
        let message = format!("{}; {whose} has it run, so there is nothing to start", failure.message);
        Failure::new(message, format!("to have it tried anew at once: {anew}; {}", failure.hint))
    })?;
    out::say(&format!("{} runs, as {whose} has it; to start it anew: {anew}", args.name))?;
    Ok(OK)
}

/// It is listed while its process ends, and nobody is there who could ask for it again.
fn unwanted(hub: &Hub, name: &str, one: &InstanceStatus) -> Failure {
    let message = format!("nobody asks for `{name}` any more: it is {}", standing::word(one));
    Failure::new(message, format!("push it, or see {} for what there is", hub.command("apps")))
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
    Err(Failure::new(message, upload::ASK_THERE))
}

/// Why an app that was not pushed is neither stopped nor removed.
pub(crate) async fn not_pushed(hub: &Hub, name: &str) -> Result<Failure, Failure> {
    let zone = hub.zone().ok();
    let list = hub.instances().await?;
    let Some(one) = instances::named(&list, name, zone.as_ref())? else {
        return Ok(pushed::unknown(hub, name));
    };
    let instead = format!("to refuse its requests: {}", hub.command(&format!("pause {name} --stop")));
    Ok(match owner(hub, Some(one)).await? {
        Owner::Other([_, end]) => Failure::new(
            format!("`{name}` was not pushed, so it runs for as long as it is asked for"),
            format!("{end}; {instead}"),
        ),
        Owner::Developer => unwanted(hub, name, one),
    })
}
