//! `nexushub stop` and `nexushub start`: an app that was pushed is told to end, and to run again. Its package and its data stay. What
//! sleeps is woken, whoever asks for it; what the configuration or the admin app asks for is theirs to start and to stop.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::Method;
use nexushub_chassis::names::Zone;
use nexushub_proto::{
    procmgr::{InstanceStatus, State, WakeInstanceRequest},
    provider::{Instance, Origin},
};

use crate::{
    failure::{Failure, OK},
    https::{Ask, Client},
    instances, out,
    place::Place,
    plan, push, pushed, rpc,
    upload::Remote,
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
    let Some(app) = pushed::named(place, &args.name).await? else {
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
    let listed = instances::named(&list, &args.name, zone.as_ref())?;
    let id = match listed.filter(|one| one.state() == State::Asleep) {
        Some(one) => woken(place, one).await?,
        None => match (owner(place, listed).await?, pushed::named(place, &args.name).await?, listed) {
            (Owner::Other(whose), _, Some(one)) => return theirs(place, args, (one, whose)).await,
            // Also what is listed still: it may be on its way down. What runs is not changed by that.
            (_, Some(app), _) => {
                Remote::known(&push::client(place, None)?.0, app.id.clone()).install().await?;
                app.id
            }
            (_, None, Some(one)) => return Err(unwanted(place, &args.name, one)),
            (_, None, None) => return Err(pushed::unknown(place, &args.name)),
        },
    };
    wait::until(place, &id, Wish::Healthy, patience).await?;
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

async fn owner(place: &Place, listed: Option<&InstanceStatus>) -> Result<Owner, Failure> {
    let Some(one) = listed else { return Ok(Owner::Developer) };
    let asked = plan::list(place).await?.instances;
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
    place: &Place,
    args: &Life,
    (one, [whose, _]): (&InstanceStatus, [&str; 2]),
) -> Result<u8, Failure> {
    let anew = place.command(&format!("restart {}", args.name));
    let up = wait::until(place, &one.id, Wish::Healthy, Duration::from_secs(args.timeout)).await;
    up.map_err(|failure| {
        let message = format!("{}; {whose} has it run, so there is nothing to start", failure.message);
        Failure::new(message, format!("to have it tried anew at once: {anew}; {}", failure.hint))
    })?;
    out::say(&format!("{} runs, as {whose} has it; to start it anew: {anew}", args.name))?;
    Ok(OK)
}

/// It is listed while its process ends, and nobody is there who could ask for it again.
fn unwanted(place: &Place, name: &str, one: &InstanceStatus) -> Failure {
    let message = format!("nobody asks for `{name}` any more: it is {}", instances::state(one));
    Failure::new(message, format!("push it, or see {} for what there is", place.command("apps")))
}

/// Has what sleeps wake up; its id.
async fn woken(place: &Place, one: &InstanceStatus) -> Result<String, Failure> {
    let request = WakeInstanceRequest { id: one.id.clone() };
    let woken = instances::client(place)?.wake_instance(request).await;
    woken.map_err(|status| rpc::failed(place, "procmgr", &status))?;
    Ok(one.id.clone())
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

/// Why an app that was not pushed is not stopped.
async fn not_pushed(place: &Place, name: &str) -> Result<Failure, Failure> {
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let list = instances::list(place).await?;
    let Some(one) = instances::named(&list, name, zone.as_ref())? else {
        return Ok(pushed::unknown(place, name));
    };
    let instead = format!("to refuse its requests: {}", place.command(&format!("pause {name} --stop")));
    Ok(match owner(place, Some(one)).await? {
        Owner::Other([_, end]) => Failure::new(
            format!("`{name}` was not pushed, so it runs for as long as it is asked for"),
            format!("{end}; {instead}"),
        ),
        Owner::Developer => unwanted(place, name, one),
    })
}
