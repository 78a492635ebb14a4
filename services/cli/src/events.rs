//! `nexushub events`: what changes on the platform, as it changes: apps as procmgr tells of them, daemons as the supervisor does; of a
//! platform elsewhere the apps that were pushed, as debug-api does.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use clap::Args;
use nexushub_chassis::{names::Zone, standing};
use nexushub_launch::clock;
use nexushub_proto::procmgr::InstanceStatus;
use serde::Serialize;

use crate::{
    args::Output, board::Board, failure::Failure, hub::Hub, instances, out, place::Place, table::one_line,
    watch::Known,
};

/// How often the supervisor's word is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only of this app (id, app id, name it was pushed by, or host name) or daemon
    #[arg(value_name = "APP|DAEMON")]
    name: Option<String>,
    /// How to write them; `json` is a line for each
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// One change; its JSON form is for programs, so fields are only ever added.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Event {
    version: u32,
    ts: String,
    /// app or daemon.
    kind: &'static str,
    /// App id, or the daemon's name.
    name: String,
    /// The instance's id; a daemon's is its name.
    id: String,
    /// What it was; empty = it was not there, or not known yet.
    was: String,
    /// What it is; `gone` = it is not there any more.
    state: String,
    /// Which start of it this is about; of daemons how often it was restarted.
    generation: u64,
    reason: String,
}

/// What of an app or daemon is worth an event when it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    kind: &'static str,
    name: String,
    state: String,
    generation: u64,
    pid: u32,
    reason: String,
}

/// `nexushub events`
pub(crate) async fn run(hub: &Hub, args: &Events) -> Result<u8, Failure> {
    let zone = hub.zone().ok();
    let mut watch = hub.watch(args.name.as_deref())?.begun().await?;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut before = BTreeMap::new();
    loop {
        let mut now = apps(&watch.known, args.name.as_deref(), zone.as_ref());
        if let Hub::Here(place) = hub {
            now.extend(daemons(place, args.name.as_deref()));
        }
        for event in changes(&before, &now, &clock::rfc3339(SystemTime::now())) {
            match args.output {
                Output::Json => out::say(&serde_json::to_string(&event).unwrap_or_default())?,
                Output::Table => out::say(&event.told())?,
            }
        }
        before = now;
        tokio::select! {
            changed = watch.changed() => changed?,
            _ = ticks.tick(), if matches!(hub, Hub::Here(_)) => {}
        }
    }
}

impl Event {
    fn told(&self) -> String {
        let Self { ts, kind, name, was, state, generation, reason, .. } = self;
        let from = if was.is_empty() || was == state { String::new() } else { format!("{was} -> ") };
        let start = if *generation == 0 { String::new() } else { format!(" #{generation}") };
        let reason = if reason.is_empty() { String::new() } else { format!("  ({})", one_line(reason)) };
        format!("{ts}  {kind:<6}  {}{start}  {from}{state}{reason}", one_line(name))
    }
}

fn apps(known: &Known, only: Option<&str>, zone: Option<&Zone>) -> BTreeMap<String, Seen> {
    let list = known.list();
    // A name that means two is watched in both.
    let meant = |one: &InstanceStatus| {
        only.is_none_or(|name| matches!(instances::named(std::slice::from_ref(one), name, zone), Ok(Some(_))))
    };
    let seen = |one: &InstanceStatus| Seen {
        kind: "app",
        name: if one.app_id.is_empty() { one.id.clone() } else { one.app_id.clone() },
        state: match &one.pause {
            Some(_) => format!("{}, paused", standing::word(one)),
            None => standing::word(one).to_owned(),
        },
        generation: one.generation,
        pid: one.pid,
        reason: one.reason.clone(),
    };
    list.iter().filter(|one| meant(one)).map(|one| (one.id.clone(), seen(one))).collect()
}

fn daemons(place: &Place, only: Option<&str>) -> BTreeMap<String, Seen> {
    let board = Board::read(&place.run).unwrap_or_default();
    let seen = board.daemons.into_iter().map(|daemon| Seen {
        kind: "daemon",
        name: daemon.name,
        state: daemon.state,
        generation: daemon.restarts,
        pid: daemon.pid.unwrap_or(0),
        reason: daemon.reason.unwrap_or_default(),
    });
    seen.filter(|seen| only.is_none_or(|name| name == seen.name))
        .map(|seen| (format!("daemon {}", seen.name), seen))
        .collect()
}

/// What became of each that is not as it was.
fn changes(before: &BTreeMap<String, Seen>, now: &BTreeMap<String, Seen>, ts: &str) -> Vec<Event> {
    let event = |key: &str, was: &str, is: &Seen| Event {
        version: 1,
        ts: ts.to_owned(),
        kind: is.kind,
        name: is.name.clone(),
        id: key.strip_prefix("daemon ").unwrap_or(key).to_owned(),
        was: was.to_owned(),
        state: is.state.clone(),
        generation: is.generation,
        reason: is.reason.clone(),
    };
    let gone = |seen: &Seen| Seen { state: "gone".into(), reason: String::new(), ..seen.clone() };
    let ended = before.iter().filter(|(key, _)| !now.contains_key(*key));
    let ended = ended.map(|(key, seen)| event(key, &seen.state, &gone(seen)));
    let others = now.iter().filter(|(key, seen)| before.get(*key) != Some(seen));
    let others = others.map(|(key, seen)| event(key, before.get(key).map_or("", |was| &was.state), seen));
    ended.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &str, generation: u64, reason: &str) -> Seen {
        let (kind, name) = ("app", "debug-shop".to_owned());
        Seen { kind, name, state: state.into(), generation, pid: 1, reason: reason.into() }
    }

    fn told(before: &[(&str, Seen)], now: &[(&str, Seen)]) -> Vec<String> {
        let map =
            |all: &[(&str, Seen)]| all.iter().map(|(id, seen)| ((*id).to_owned(), seen.clone())).collect();
        changes(&map(before), &map(now), "T").iter().map(Event::told).collect()
    }

    #[test]
    fn only_what_changed_is_told_and_from_what_to_what() {
        let (up, failed) = (seen("running", 1, ""), seen("failed", 1, "exited\nwith 3"));
        assert_eq!(told(&[], &[("1", up.clone())]), ["T  app     debug-shop #1  running"]);
        assert!(told(&[("1", up.clone())], &[("1", up.clone())]).is_empty());
        let expected = ["T  app     debug-shop #1  running -> failed  (exited with 3)"];
        assert_eq!(told(&[("1", up.clone())], &[("1", failed)]), expected);
        assert_eq!(told(&[("1", up)], &[]), ["T  app     debug-shop #1  running -> gone"]);
    }

    #[test]
    fn a_new_process_in_the_same_state_is_a_change() {
        let (old, new) = (seen("ready", 0, ""), Seen { pid: 2, generation: 1, ..seen("ready", 0, "") });
        assert_eq!(told(&[("daemon x", old)], &[("daemon x", new)]), ["T  app     debug-shop #1  ready"]);
    }

    #[test]
    fn programs_get_every_field() {
        let now =
            BTreeMap::from([("daemon proxy".to_owned(), Seen { kind: "daemon", ..seen("ready", 2, "") })]);
        let event = serde_json::to_value(&changes(&BTreeMap::new(), &now, "T")[0]).unwrap_or_default();
        let expected = serde_json::json!({
            "version": 1, "ts": "T", "kind": "daemon", "name": "debug-shop", "id": "proxy", "was": "",
            "state": "ready", "generation": 2, "reason": "",
        });
        assert_eq!(event, expected);
        crate::shapes::tests::is_as_told(crate::shapes::EVENTS, &event);
    }
}
