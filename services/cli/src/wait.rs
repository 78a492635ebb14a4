//! `nexushub wait`: until an app answers, or is gone. For scripts: the exit code says which it was.

use std::time::Duration;

use clap::{Args, ValueEnum};
use nexushub_chassis::{names::Zone, standing};
use nexushub_proto::procmgr::{InstanceStatus, State};

use crate::{
    failure::{Failure, OK},
    hub::Hub,
    instances, out, progress,
    table::one_line,
    watch::Known,
};

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// An app (id, app id, name it was pushed by, or host name); it may be one that is to come
    #[arg(value_name = "APP")]
    name: String,
    /// What is waited for
    #[arg(long = "for", value_enum, default_value_t)]
    wish: Wish,
    /// Seconds to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wish {
    /// Its requests reach it, or wake it
    #[default]
    Healthy,
    /// Nothing of it runs and nothing is asked to
    Gone,
    /// Its requests reach it, and it does not sleep
    #[value(skip)]
    Awake,
}

impl Wish {
    /// Whether it is so; `whole` = what isn't listed isn't there.
    fn holds(self, instance: Option<&InstanceStatus>, whole: bool) -> bool {
        match (self, instance) {
            (Self::Healthy, one) => one.is_some_and(standing::is_reached),
            (Self::Awake, one) => {
                one.is_some_and(|one| standing::is_reached(one) && one.state() != State::Asleep)
            }
            (Self::Gone, None) => whole,
            (Self::Gone, Some(_)) => false,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Gone => "gone",
            Self::Awake => "awake",
        }
    }
}

/// `nexushub wait`
pub(crate) async fn run(hub: &Hub, args: &Wait) -> Result<u8, Failure> {
    until(hub, &args.name, args.wish, Duration::from_secs(args.timeout)).await?;
    out::say(&format!("{} is {}", args.name, args.wish.word()))?;
    Ok(OK)
}

/// Waits until it is so, or says how it is when there is no more time.
pub(crate) async fn until(hub: &Hub, name: &str, wish: Wish, patience: Duration) -> Result<(), Failure> {
    let zone = hub.zone().ok();
    let mut watch = hub.watch(Some(name))?.begun().await?;
    let waiting = async {
        while !wish.holds(found(&watch.known, name, zone.as_ref())?.as_ref(), watch.known.whole) {
            watch.changed().await?;
        }
        Ok(())
    };
    let what = format!("waiting until {} is {}", one_line(name), wish.word());
    match progress::waiting(&what, tokio::time::timeout(patience, waiting)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(late(hub, &watch.known, name, (wish, patience), zone.as_ref())?),
    }
}

fn found(known: &Known, name: &str, zone: Option<&Zone>) -> Result<Option<InstanceStatus>, Failure> {
    Ok(instances::named(&known.list(), name, zone)?.cloned())
}

fn late(
    hub: &Hub,
    known: &Known,
    name: &str,
    (wish, patience): (Wish, Duration),
    zone: Option<&Zone>,
) -> Result<Failure, Failure> {
    let now = nexushub_launch::clock::unix_ms(std::time::SystemTime::now());
    let (how, hint) = match found(known, name, zone)? {
        Some(one) => {
            let why = Some(instances::why(&one, now)).filter(|why| !why.is_empty());
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            (format!("it is {}{why}", standing::word(&one)), hub.command(&format!("logs {name}")))
        }
        None => ("there is no such app".to_owned(), hub.command("apps")),
    };
    let message = format!("`{name}` is not {} after {} s: {how}", wish.word(), patience.as_secs());
    Ok(Failure::new(message, format!("see {hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(state: State, routed: bool) -> InstanceStatus {
        InstanceStatus { id: "shop".into(), state: state.into(), routed, ..Default::default() }
    }

    #[test]
    fn healthy_is_what_requests_reach() {
        let holds = |state, routed| Wish::Healthy.holds(Some(&instance(state, routed)), true);
        assert!(holds(State::Running, true) && !holds(State::Running, false));
        assert!(!Wish::Healthy.holds(None, true));
    }

    #[test]
    fn what_sleeps_is_there_for_who_waits_until_it_can_be_asked_and_not_for_who_has_it_run() {
        let holds = |wish: Wish, state, routed| wish.holds(Some(&instance(state, routed)), true);
        assert!(holds(Wish::Healthy, State::Asleep, false) && !holds(Wish::Awake, State::Asleep, false));
        assert!(holds(Wish::Awake, State::Running, true) && !holds(Wish::Awake, State::Starting, false));
        assert!(!Wish::Awake.holds(None, true));
    }

    #[test]
    fn what_is_not_listed_is_gone_only_once_everything_was_looked_at() {
        assert!(Wish::Gone.holds(None, true) && !Wish::Gone.holds(None, false));
        assert!(!Wish::Gone.holds(Some(&instance(State::Stopping, false)), true));
    }

    #[test]
    fn who_waited_in_vain_is_told_how_it_is() {
        let global = crate::args::Global { home: Some("/h".into()), ..Default::default() };
        let hub = Hub::find(&global).expect("a folder that is named is the place");
        let mut known = Known { whole: true, ..Known::default() };
        let told = |known: &Known| {
            let failure = late(&hub, known, "shop", (Wish::Healthy, Duration::from_secs(5)), None);
            failure.expect("the name means one").to_string()
        };
        let none = "`shop` is not healthy after 5 s: there is no such app\n  see nexushub apps --home /h";
        assert_eq!(told(&known), none);
        let failed = InstanceStatus { reason: "exited with code 3".into(), ..instance(State::Failed, false) };
        known.all.insert("shop".into(), failed);
        let failed = "`shop` is not healthy after 5 s: it is failed (exited with code 3)\n  see nexushub logs shop --home /h";
        assert_eq!(told(&known), failed);
    }
}
