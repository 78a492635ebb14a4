//! `nexushub apps`: the apps alone, with where each came from, which package it runs and what it uses.

use std::{collections::BTreeMap, time::SystemTime};

use clap::Args;
use nexushub_launch::clock;
use nexushub_proto::{
    procmgr::{InstanceStatus, Usage},
    provider::{Instance, Origin},
};
use serde::Serialize;

use crate::{
    args::Output,
    failure::{Failure, OK},
    instances, out,
    place::Place,
    plan,
    status::urls,
    table::{ago, bytes, one_line, render},
};

#[derive(Debug, Args)]
pub(crate) struct Apps {
    /// How to write them
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// The whole answer; its JSON form is for programs, so fields are only ever added.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    version: u32,
    apps: Vec<App>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct App {
    id: String,
    app_id: String,
    display_name: String,
    host_name: String,
    url: String,
    state: &'static str,
    /// Why it does not run, or what is odd about it; may be empty.
    reason: String,
    /// pushed, configured or admin: who asks for it; empty = nobody (any more).
    origin: &'static str,
    driver: String,
    /// The folder of its package.
    release: String,
    generation: u64,
    since_unix_ms: i64,
    paused: bool,
    /// Absent where nothing counts it.
    memory_bytes: Option<u64>,
    data_bytes: Option<u64>,
}

/// `nexushub apps`
pub(crate) async fn run(place: &Place, args: &Apps) -> Result<u8, Failure> {
    let now = clock::unix_ms(SystemTime::now());
    let live = instances::list(place).await?;
    let asked = plan::list(place).await?;
    let report = Report { version: 1, apps: told(&live, &asked.instances, urls(place), now) };
    match args.output {
        Output::Json => out::say(&serde_json::to_string_pretty(&report).unwrap_or_default())?,
        Output::Table if report.apps.is_empty() => {
            out::say(&format!("no apps yet; bring one: {}", place.command("push DIR --name NAME")))?;
        }
        Output::Table => out::say(&people(&report, now))?,
    }
    Ok(OK)
}

/// Who asks for an instance.
pub(crate) fn origin(asked: Origin) -> &'static str {
    match asked {
        Origin::Debug => "pushed",
        Origin::Static => "configured",
        Origin::Dynamic => "admin",
        Origin::Unspecified => "",
    }
}

fn told(live: &[InstanceStatus], asked: &[Instance], url: impl Fn(&str) -> String, now: i64) -> Vec<App> {
    let asked: BTreeMap<&str, Origin> = asked.iter().map(|one| (one.id.as_str(), one.origin())).collect();
    let figure = |status: &InstanceStatus, of: fn(&Usage) -> u64| {
        status.usage.as_ref().map(of).filter(|figure| *figure > 0)
    };
    let app = |status: &InstanceStatus| App {
        id: status.id.clone(),
        app_id: status.app_id.clone(),
        display_name: status.display_name.clone(),
        host_name: status.host_name.clone(),
        url: url(&status.host_name),
        state: instances::state(status),
        reason: instances::why(status, now),
        origin: asked.get(status.id.as_str()).map_or("", |asked| origin(*asked)),
        driver: status.driver.clone(),
        release: status.release.clone(),
        generation: status.generation,
        since_unix_ms: status.since_unix_ms,
        paused: status.pause.is_some(),
        memory_bytes: figure(status, |usage| usage.memory_bytes),
        data_bytes: figure(status, |usage| usage.data_bytes),
    };
    live.iter().map(app).collect()
}

fn people(report: &Report, now: i64) -> String {
    let row = |app: &App| {
        let state = if app.paused { format!("{}, paused", app.state) } else { app.state.to_owned() };
        let name = if app.app_id.is_empty() { &app.id } else { &app.app_id };
        let since = ago(app.since_unix_ms, now);
        let memory = app.memory_bytes.map_or_else(|| "-".to_owned(), bytes);
        let said = if app.reason.is_empty() { &app.url } else { &app.reason };
        [one_line(name), state, app.origin.to_owned(), app.driver.clone(), since, memory, one_line(said)]
    };
    let rows: Vec<_> = report.apps.iter().map(row).collect();
    render(["APP", "STATE", "FROM", "DRIVER", "SINCE", "MEMORY", "URL OR REASON"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexushub_proto::procmgr::{Pause, State};

    #[test]
    fn people_see_where_an_app_came_from_and_what_it_uses() {
        let usage = Usage { memory_bytes: 5 << 20, ..Usage::default() };
        let shop = InstanceStatus {
            id: "1".into(),
            app_id: "debug-shop".into(),
            host_name: "shop".into(),
            state: State::Running.into(),
            driver: "sandbox".into(),
            since_unix_ms: 4000,
            usage: Some(usage),
            pause: Some(Pause::default()),
            ..Default::default()
        };
        let lost = InstanceStatus {
            id: "lost".into(),
            state: State::Failed.into(),
            reason: "a\u{1b}[2Jb".into(),
            ..Default::default()
        };
        let asked = Instance { id: "1".into(), origin: Origin::Debug.into(), ..Default::default() };
        let apps = told(&[shop, lost], &[asked], |host| format!("https://{host}.x/"), 9000);
        let expected = "\
APP         STATE            FROM    DRIVER   SINCE  MEMORY   URL OR REASON
debug-shop  running, paused  pushed  sandbox  5s     5.0 MiB  https://shop.x/
lost        failed                                   -        a [2Jb";
        assert_eq!(people(&Report { version: 1, apps }, 9000), expected);
    }
}
