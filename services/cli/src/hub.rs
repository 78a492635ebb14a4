//! Which platform a command means: one on this machine, spoken to by its sockets as its operator, or one elsewhere, by its front
//! door as somebody who logged in. Decided here and nowhere else; commands ask the platform that they are given, whichever it is.
//!
//! ```text
//! --platform URL or local, --home, --config     ─▶ the one named
//! else NEXUSHUB_PLATFORM, NEXUSHUB_HOME, …      ─▶ the one named
//! else a project with a platform of its own     ─▶ that: what is near goes before what is far, so nobody pushes to another machine
//!                                                  what they try here, and scripts of a checkout mean what they always meant
//! else `nexushub login` without a `logout` yet  ─▶ the one logged in at
//! else                                          ─▶ the machine's own (`place.rs`)
//! ```

use std::{env, ffi::OsStr, fmt, path::Path, sync::Arc};

use bytes::Bytes;
use http::Method;
use nexushub_chassis::names::Zone;
use nexushub_proto::{
    debugapi::Application,
    procmgr::{InstanceStatus, WakeInstanceRequest},
    provider::{Instance, Origin},
};

use crate::{
    args::Global,
    failure::Failure,
    far,
    https::{Ask, Bearer, Client, Roots, Target},
    instances, logs,
    place::Place,
    plan, pushed, rpc,
    session::{Session, store::Store},
    watch::Watch,
};

/// What `--platform` calls the one on this machine.
pub(crate) const LOCAL: &str = "local";

/// A platform.
#[derive(Clone)]
pub(crate) enum Hub {
    /// On this machine.
    Here(Place),
    /// Elsewhere.
    Elsewhere(Arc<Session>),
}

/// What was said of the platform in one way: on the command line, or in the environment.
#[derive(Clone, Copy, Default)]
struct Said<'a> {
    platform: Option<&'a str>,
    /// A home or a configuration, which only one on this machine has.
    here: bool,
}

/// Which it is.
#[derive(Debug, PartialEq, Eq)]
enum Choice<'a> {
    Here,
    /// At this address.
    At(&'a str),
    /// The one that somebody is logged in at, if anywhere.
    Current,
}

/// Decides, from what was said in the nearest way; `project`: there is one with a platform of its own.
fn choose<'a>(said: [Said<'a>; 2], project: bool) -> Result<Choice<'a>, Failure> {
    for Said { platform, here } in said {
        match platform {
            Some(LOCAL) => return Ok(Choice::Here),
            Some(url) if here => {
                let message = format!(
                    "{url} is elsewhere, and a home or a configuration is of a platform on this machine"
                );
                return Err(Failure::usage(message, "name one of them: --platform, or --home and --config"));
            }
            Some(url) => return Ok(Choice::At(url)),
            None if here => return Ok(Choice::Here),
            None => {}
        }
    }
    Ok(if project { Choice::Here } else { Choice::Current })
}

/// What of a value is the command line's own, and what the environment's.
fn split<'a, T: AsRef<OsStr> + ?Sized>(
    value: Option<&'a T>,
    variable: &str,
) -> (Option<&'a T>, Option<&'a T>) {
    let by_variable = value.is_some_and(|value| env::var_os(variable).as_deref() == Some(value.as_ref()));
    if by_variable { (None, value) } else { (value, None) }
}

fn said(global: &Global) -> [Said<'_>; 2] {
    let platform = split(global.platform.as_deref(), "NEXUSHUB_PLATFORM");
    let home = split(global.home.as_deref().map(Path::as_os_str), "NEXUSHUB_HOME");
    let config = split(global.config.as_deref().map(Path::as_os_str), "NEXUSHUB_CONFIG");
    let line = Said { platform: platform.0, here: home.0.is_some() || config.0.is_some() };
    let variables = Said { platform: platform.1, here: home.1.is_some() || config.1.is_some() };
    [line, variables]
}

impl Hub {
    /// The platform that a command means.
    pub(crate) fn find(global: &Global) -> Result<Self, Failure> {
        let place = Place::find(global)?;
        let store = Store::of_user();
        let kept = match choose(said(global), place.home.is_some())? {
            Choice::Here => None,
            Choice::At(url) => {
                let kept = store.as_ref().map_err(Clone::clone)?.read()?.at(&Target::elsewhere(url)?);
                let unknown =
                    || Failure::new(format!("nobody is logged in at {url}"), format!("nexushub login {url}"));
                Some((kept.ok_or_else(unknown)?, true))
            }
            // Who has no place to keep a login in has none.
            Choice::Current => match &store {
                Ok(store) => store.read()?.current().map(|kept| (kept, false)),
                Err(_) => None,
            },
        };
        match (kept, store) {
            (Some((kept, named)), Ok(store)) => Session::open(store, kept, named).map(Self::Elsewhere),
            _ => Ok(Self::Here(place)),
        }
    }

    /// The place on this machine, for a command that needs it.
    pub(crate) fn place(self, command: &str) -> Result<Place, Failure> {
        match self {
            Self::Here(place) => Ok(place),
            Self::Elsewhere(session) => Err(needs_the_machine(command, &session)),
        }
    }

    /// What its names are relative to.
    pub(crate) fn zone(&self) -> Result<Zone, Failure> {
        match self {
            Self::Here(place) => Ok(Zone::from(&place.platform()?)),
            Self::Elsewhere(session) => Ok(session.zone().clone()),
        }
    }

    /// A command line about this platform, for hints.
    pub(crate) fn command(&self, rest: &str) -> String {
        match self {
            Self::Here(place) => place.command(rest),
            Self::Elsewhere(session) if session.named => {
                format!("nexushub {rest} --platform {}", session.url())
            }
            Self::Elsewhere(_) => format!("nexushub {rest}"),
        }
    }

    /// The way to debug-api by the front door, which on this machine may be another than the usual; and the zone by that.
    pub(crate) fn client(&self, url: Option<&str>) -> Result<(Client, Zone), Failure> {
        let place = match (self, url) {
            (Self::Here(place), _) => place,
            (Self::Elsewhere(session), None) => return Ok((session.client()?, session.zone().clone())),
            (Self::Elsewhere(_), Some(_)) => {
                let message = "--url is another address of the platform on this machine";
                return Err(Failure::usage(
                    message,
                    "name one elsewhere by --platform URL, once you are logged in there",
                ));
            }
        };
        let platform = place.platform()?;
        let token = place.token("debug-api")?;
        let own = || format!("https://debug.{}:{}", platform.base_domain, platform.listen.port());
        let target = Target::parse(&url.map_or_else(own, str::to_owned), platform.listen)?;
        let zone = Zone::new(&platform.base_domain, target.port);
        let client = Client::new(target, &Roots::File(&place.ca_file()?), Bearer::Operator(token))?;
        Ok((client, zone))
    }

    /// What was pushed, those that are stopped, too.
    pub(crate) async fn pushed(&self) -> Result<Vec<Application>, Failure> {
        match self {
            Self::Here(place) => pushed::list(place).await,
            Self::Elsewhere(session) => far::list(&session.client()?).await,
        }
    }

    /// Every instance; elsewhere those that were pushed.
    pub(crate) async fn instances(&self) -> Result<Vec<InstanceStatus>, Failure> {
        match self {
            Self::Here(place) => instances::list(place).await,
            Self::Elsewhere(session) => Ok(far::instances(&session.client()?, |_| true).await?.list()),
        }
    }

    /// What is asked for, and by whom.
    pub(crate) async fn asked(&self) -> Result<Vec<Instance>, Failure> {
        let pushed =
            |app: Application| Instance { id: app.id, origin: Origin::Debug.into(), ..Instance::default() };
        match self {
            Self::Here(place) => Ok(plan::list(place).await?.instances),
            Self::Elsewhere(_) => Ok(self.pushed().await?.into_iter().map(pushed).collect()),
        }
    }

    /// What becomes of instances; elsewhere of those of this name, or of all that were pushed.
    pub(crate) fn watch(&self, name: Option<&str>) -> Result<Watch<'_>, Failure> {
        match self {
            Self::Here(place) => Ok(Watch::new(place)),
            Self::Elsewhere(session) => Ok(Watch::elsewhere(session.client()?, name, session.zone())),
        }
    }

    /// Has what sleeps wake up: elsewhere by asking for it, as whoever wants something of it does.
    pub(crate) async fn wake(&self, one: &InstanceStatus) -> Result<(), Failure> {
        match self {
            Self::Here(place) => {
                let request = WakeInstanceRequest { id: one.id.clone() };
                let woken = instances::client(place)?.wake_instance(request).await;
                woken.map(drop).map_err(|status| rpc::failed(place, "procmgr", &status))
            }
            Self::Elsewhere(session) => {
                let (method, body) = (Method::GET, Bytes::new());
                let ask = Ask { method, path: "/", content_type: "", fields: &[], body };
                session.app(&one.host_name)?.stream(ask).await.map(drop)
            }
        }
    }

    /// The last lines of an app, for a message about its failure.
    pub(crate) async fn last_lines(&self, id: &str, count: u32) -> Vec<String> {
        match self {
            Self::Here(place) => logs::last_lines(place, id, count).await,
            Self::Elsewhere(session) => match session.client() {
                Ok(client) => far::log::last_lines(&client, id, count).await,
                Err(_) => Vec::new(),
            },
        }
    }
}

/// Refuses what only who sits at the machine can do.
pub(crate) fn needs_the_machine(command: &str, session: &Session) -> Failure {
    Failure::new(
        format!("`nexushub {command}` needs the machine itself, and {} is elsewhere", session.url()),
        format!(
            "run it there: nexushub {command}; or mean a platform on this machine: nexushub {command} --platform {LOCAL}"
        ),
    )
}

impl fmt::Display for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(place) => place.fmt(f),
            Self::Elsewhere(session) => write!(f, "the platform at {}", session.url()),
        }
    }
}

#[cfg(test)]
mod tests;
