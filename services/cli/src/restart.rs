//! `nexushub restart`: a daemon is told to end and its parent starts the next one; an app is started anew by procmgr. Either way
//! the command ends when the new one answers. Under the supervisor that is before an old proxy has drained.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use clap::Args;
use http::Method;
use nexushub_chassis::{names::Zone, standing};
use nexushub_proto::procmgr::{GetInstanceRequest, InstanceStatus, RestartInstanceRequest, State};
use tonic::Code;

use crate::{
    args::DAEMONS,
    board::{self, Board},
    failure::{Failure, OK},
    hub::{self, Hub},
    instances, life, logs, out,
    place::Place,
    process::Signal,
    progress, pushed, rpc,
    systemd::{Form, active_form},
    table::one_line,
};

/// How often it is looked whether the new one answers.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// A daemon, or an app (id, app id, name it was pushed by, or host name)
    #[arg(value_name = "DAEMON|APP")]
    name: String,
    /// Seconds to wait until the new one answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// `nexushub restart`
pub(crate) async fn run(hub: &Hub, args: &Restart) -> Result<u8, Failure> {
    let patience = Duration::from_secs(args.timeout);
    if args.name == "supervisor" {
        let hint = "take up a new configuration, or new executables: nexushub apply";
        return Err(Failure::usage(
            "the supervisor is not restarted: it would take every daemon with it",
            hint,
        ));
    }
    let is_daemon = DAEMONS.contains(&args.name.as_str());
    let place = match hub {
        Hub::Here(place) => place,
        Hub::Elsewhere(session) if is_daemon => {
            return Err(hub::needs_the_machine(&format!("restart {}", args.name), session));
        }
        Hub::Elsewhere(_) => return far(hub, &args.name, patience).await,
    };
    if !is_daemon {
        return app(place, &args.name, patience).await;
    }
    if active_form(place) == Some(Form::Units) {
        return unit(&args.name);
    }
    anew(&args.name, daemon(place, &args.name, patience)).await
}

/// Waits for what is started anew.
async fn anew<T>(name: &str, started: impl Future<Output = T>) -> T {
    progress::waiting(&format!("waiting until the next {} answers", one_line(name)), started).await
}

/// Has a daemon of the supervisor's replaced, and waits until the next is ready.
pub(crate) async fn daemon(place: &Place, name: &str, patience: Duration) -> Result<u8, Failure> {
    let board = Board::live(&place.run).ok_or_else(|| place.not_up())?;
    let old = board.daemon(name).and_then(board::Daemon::process);
    if let Some(old) = &old {
        old.signal(Signal::TERM).map_err(|error| {
            let hint = "run this as the user that started the platform";
            Failure::new(format!("could not signal {name}, process {}: {error}", old.pid), hint)
        })?;
    }
    let began = Instant::now();
    loop {
        let now = Board::live(&place.run);
        let now = now.as_ref().and_then(|board| board.daemon(name));
        let replaced = |pid| old.as_ref().is_none_or(|old| old.pid != pid || !old.is_alive());
        if let Some(pid) =
            now.filter(|now| now.is_ready()).and_then(|now| now.pid).filter(|pid| replaced(*pid))
        {
            out::say(&format!("{name} is ready as process {pid}, after {} ms", began.elapsed().as_millis()))?;
            return Ok(OK);
        }
        if began.elapsed() > patience {
            let why = now.and_then(|now| now.reason.clone()).filter(|why| !why.is_empty());
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            let hint = format!("see {}", place.command(&format!("logs {name}")));
            return Err(Failure::new(
                format!("{name} is not ready after {} s{why}", patience.as_secs()),
                hint,
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has a daemon of systemd's replaced.
pub(crate) fn unit(name: &str) -> Result<u8, Failure> {
    let unit = format!("nexushub-{name}.service");
    let restarted = Command::new("systemctl").args(["restart", &unit]).status();
    if restarted.is_ok_and(|status| status.success()) {
        out::say(&format!("restarted {unit}"))?;
        return Ok(OK);
    }
    Err(Failure::new(
        format!("systemctl could not restart {unit}"),
        format!("run this as root; see journalctl -u {unit}"),
    ))
}

async fn app(place: &Place, name: &str, patience: Duration) -> Result<u8, Failure> {
    let zone = place.platform().ok().map(|platform| Zone::from(&platform));
    let list = instances::list(place).await?;
    let Some(before) = instances::named(&list, name, zone.as_ref())? else {
        let hint = format!("see {} for what there is", place.command("status"));
        return Err(Failure::new(format!("there is no daemon or app `{name}`"), hint));
    };
    let request = RestartInstanceRequest { id: before.id.clone() };
    match instances::client(place)?.restart_instance(request).await {
        // The end of the old generation may take longer than a call: what counts is the new one.
        Err(status) if !matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => {
            return Err(rpc::failed(place, "procmgr", &status));
        }
        _ => {}
    }
    let now = anew(name, await_next(place, before, patience)).await?;
    out::say(&format!("{name} runs as process {}, start {}", now.pid, now.generation))?;
    Ok(OK)
}

/// An app elsewhere, by its platform's front door.
async fn far(hub: &Hub, name: &str, patience: Duration) -> Result<u8, Failure> {
    let app = pushed::named(hub, name).await?.ok_or_else(|| pushed::unknown(hub, name))?;
    let mut watch = hub.watch(Some(&app.id))?.begun().await?;
    let before = watch.known.all.get(&app.id).map_or(0, |one| one.generation);
    life::order(&hub.client(None)?.0, &app.id, Method::POST, "/restart", "restart the app").await?;
    let next = async {
        loop {
            watch.changed().await?;
            let now = watch.known.all.get(&app.id);
            if let Some(now) = now.filter(|now| now.state() == State::Running && now.generation > before) {
                return Ok::<_, Failure>(now.clone());
            }
        }
    };
    let waited = anew(name, tokio::time::timeout(patience, next)).await;
    let Ok(now) = waited else {
        let message = format!("`{name}` does not answer after {} s", patience.as_secs());
        return Err(Failure::new(message, format!("see {}", hub.command(&format!("logs {name}")))));
    };
    let now = now?;
    out::say(&format!("{name} runs as process {}, start {}", now.pid, now.generation))?;
    Ok(OK)
}

async fn await_next(
    place: &Place,
    before: &InstanceStatus,
    patience: Duration,
) -> Result<InstanceStatus, Failure> {
    let began = Instant::now();
    loop {
        let request = GetInstanceRequest { id: before.id.clone() };
        let asked = instances::client(place)?.get_instance(request).await;
        let now =
            asked.ok().and_then(|answer| answer.into_inner().instance).unwrap_or_else(|| before.clone());
        if now.state() == State::Running && now.generation > before.generation {
            return Ok(now);
        }
        if began.elapsed() > patience {
            let unix_ms = nexushub_launch::clock::unix_ms(std::time::SystemTime::now());
            let state = format!("{} ({})", standing::word(&now), instances::why(&now, unix_ms));
            for line in logs::last_lines(place, &before.id, 20).await {
                out::tell(&format!("  {line}"));
            }
            let message = format!("`{}` does not answer after {} s: {state}", before.id, patience.as_secs());
            return Err(Failure::new(message, "what it said last is above"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
