//! `nexushub apps`: the apps alone, with where each came from, which package it runs and what it uses; those that were pushed also
//! while they don't run.

use std::time::SystemTime;

use clap::Args;
use nexushub_chassis::standing;
use nexushub_launch::clock;
use nexushub_proto::{
    debugapi::Application,
    procmgr::{InstanceStatus, Usage},
    provider::{Instance, Origin},
};
use serde::Serialize;

use crate::{
    args::Output,
    failure::{Failure, OK},
    hub::Hub,
    instances, out,
    status::urls,
    table::{Spare, ago, bytes, fitted, one_line},
};

/// Characters of a release's name that people see: enough to say which one is meant.
const NAME: usize = 12;

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
    /// As procmgr has it; of what was pushed and does not run: pending, installed, stopped or failed.
    state: String,
    /// Why it does not run, or what is odd about it; may be empty.
    reason: String,
    /// pushed, configured or admin: who asks for it; empty = nobody (any more).
    origin: &'static str,
    driver: String,
    /// The folder of its package: of what it runs, or would.
    release: String,
    /// What the package's manifest says; may be empty.
    package_version: String,
    generation: u64,
    since_unix_ms: i64,
    paused: bool,
    /// Absent where nothing counts it.
    memory_bytes: Option<u64>,
    data_bytes: Option<u64>,
}

/// `nexushub apps`
pub(crate) async fn run(hub: &Hub, args: &Apps) -> Result<u8, Failure> {
    let now = clock::unix_ms(SystemTime::now());
    let (live, asked, pushed) = (hub.instances().await?, hub.asked().await?, hub.pushed().await?);
    let known = Known { live: &live, asked: &asked, pushed: &pushed };
    let report = Report { version: 1, apps: known.told(hub, now) };
    match args.output {
        Output::Json => out::say(&serde_json::to_string_pretty(&report).unwrap_or_default())?,
        Output::Table if report.apps.is_empty() => {
            out::say(&format!("no apps yet; bring one: {}", hub.command("push DIR --name NAME")))?;
        }
        Output::Table => out::say(&fitted(HEAD, &rows(&report, now), &SPARE))?,
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

/// What the daemons say.
struct Known<'a> {
    live: &'a [InstanceStatus],
    asked: &'a [Instance],
    pushed: &'a [Application],
}

impl Known<'_> {
    /// What there is of procmgr's first, then what was pushed and is not there.
    fn told(&self, hub: &Hub, now: i64) -> Vec<App> {
        let url = urls(hub);
        let lives = |app: &&Application| self.live.iter().any(|status| status.id == app.id);
        let down = self.pushed.iter().filter(|app| !lives(app)).map(|app| self.down(app, hub));
        let apps = self.live.iter().map(|status| self.up(status, now)).chain(down);
        apps.map(|app| App { url: url(&app.host_name), ..app }).collect()
    }

    fn up(&self, status: &InstanceStatus, now: i64) -> App {
        let figure = |of: fn(&Usage) -> u64| status.usage.as_ref().map(of).filter(|figure| *figure > 0);
        let runs = |app: &&Application| app.id == status.id && app.release == status.release;
        App {
            id: status.id.clone(),
            app_id: status.app_id.clone(),
            display_name: status.display_name.clone(),
            host_name: status.host_name.clone(),
            url: String::new(),
            state: standing::word(status).to_owned(),
            reason: instances::why(status, now),
            origin: self.origin(&status.id).unwrap_or_default(),
            driver: status.driver.clone(),
            release: status.release.clone(),
            package_version: self
                .pushed
                .iter()
                .find(runs)
                .map_or_else(String::new, |app| app.version.clone()),
            generation: status.generation,
            since_unix_ms: status.since_unix_ms,
            paused: status.pause.is_some(),
            memory_bytes: figure(|usage| usage.memory_bytes),
            data_bytes: figure(|usage| usage.data_bytes),
        }
    }

    fn down(&self, app: &Application, hub: &Hub) -> App {
        let reason = match app.status.as_str() {
            "stopped" => format!("{} has it run again", hub.command(&format!("start {}", app.id))),
            "pending" => format!(
                "no package of it was installed; push it again, or: {}",
                hub.command(&format!("remove {}", app.id))
            ),
            _ => String::new(),
        };
        App {
            id: app.id.clone(),
            app_id: app.app_id.clone(),
            display_name: app.display_name.clone(),
            host_name: app.host_name.clone(),
            state: app.status.clone(),
            reason,
            origin: self.origin(&app.id).unwrap_or("pushed"),
            release: app.release.clone(),
            package_version: app.version.clone(),
            ..App::default()
        }
    }

    /// Who asks for it; none = nobody.
    fn origin(&self, id: &str) -> Option<&'static str> {
        self.asked.iter().find(|asked| asked.id == id).map(|asked| origin(asked.origin()))
    }
}

/// Which package it is, for people: its version, if it has one, and the beginning of its folder's name, which `nexushub releases` has
/// in full.
fn package(app: &App) -> String {
    let name: String = app.release.rsplit('/').next().unwrap_or_default().chars().take(NAME).collect();
    match (app.package_version.as_str(), name.as_str()) {
        ("", "") => "-".to_owned(),
        ("", name) => one_line(name),
        (version, name) => one_line(&format!("{version} ({name})")),
    }
}

const HEAD: [&str; 8] = ["APP", "STATE", "FROM", "RELEASE", "DRIVER", "SINCE", "MEMORY", "URL OR REASON"];
/// What a narrow terminal does without.
const SPARE: [Spare; 6] = [
    Spare::Column("DRIVER"),
    Spare::Column("FROM"),
    Spare::Column("MEMORY"),
    Spare::Column("RELEASE"),
    Spare::Column("SINCE"),
    Spare::Beyond("APP", 24),
];

fn rows(report: &Report, now: i64) -> Vec<[String; 8]> {
    let row = |app: &App| {
        let state = if app.paused { format!("{}, paused", app.state) } else { app.state.clone() };
        let name = if app.app_id.is_empty() { &app.id } else { &app.app_id };
        let since = ago(app.since_unix_ms, now);
        let memory = app.memory_bytes.map_or_else(|| "-".to_owned(), bytes);
        let said = if app.reason.is_empty() { &app.url } else { &app.reason };
        let (name, package) = (one_line(name), package(app));
        [name, state, app.origin.to_owned(), package, app.driver.clone(), since, memory, one_line(said)]
    };
    report.apps.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{shapes, table};
    use nexushub_proto::procmgr::{Pause, State};

    fn hub() -> Hub {
        let global = crate::args::Global { home: Some("/h".into()), ..Default::default() };
        Hub::find(&global).expect("a folder that is named is the place")
    }

    #[test]
    fn people_see_where_an_app_came_from_which_package_it_is_and_what_it_uses() {
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
            release: "/s/releases/0123456789abcdef-2".into(),
            ..Default::default()
        };
        let lost = InstanceStatus {
            id: "lost".into(),
            state: State::Failed.into(),
            reason: "a\u{1b}[2Jb".into(),
            ..Default::default()
        };
        let asked = Instance { id: "1".into(), origin: Origin::Debug.into(), ..Default::default() };
        let pushed = Application { id: "1".into(), release: shop.release.clone(), ..Default::default() };
        let pushed = Application { version: "1.4\n".into(), ..pushed };
        let known = Known { live: &[shop, lost], asked: &[asked], pushed: &[pushed] };
        let apps = known.told(&hub(), 9000);
        let expected = "\
APP         STATE            FROM    RELEASE              DRIVER   SINCE  MEMORY   URL OR REASON
debug-shop  running, paused  pushed  1.4  (0123456789ab)  sandbox  5s     5.0 MiB  https://shop.yesterday.localhost:8443/
lost        failed                   -                                    -        a [2Jb";
        let rows = rows(&Report { version: 1, apps }, 9000);
        assert_eq!(fitted(HEAD, &rows, &SPARE), expected);
        let [narrow, wide] = table::tests::fits(HEAD, &rows, &SPARE);
        assert!(narrow.starts_with("APP         STATE            SINCE  URL OR REASON\n"), "{narrow}");
        assert!(wide.starts_with("APP         STATE            RELEASE              SINCE  URL"), "{wide}");
        shapes::tests::is_as_told(shapes::APPS, &Report { version: 1, apps: vec![App::default()] });
        let long = [["an-application-with-a-name-as-long-as-names-may-be"; 8].map(str::to_owned)];
        table::tests::fits(HEAD, &long, &SPARE);
    }

    #[test]
    fn what_was_pushed_is_there_also_while_it_does_not_run() {
        let app = |id: &str, status: &str| Application {
            id: id.into(),
            app_id: format!("debug-{id}"),
            status: status.into(),
            release: format!("/s/{id}/ab-1"),
            ..Default::default()
        };
        let runs = InstanceStatus { id: "up".into(), release: "/s/up/cd-2".into(), ..Default::default() };
        let mut newer = app("up", "pending");
        newer.version = "2".into();
        let pushed = [newer, app("down", "stopped"), app("new", "pending")];
        let apps = Known { live: &[runs], asked: &[], pushed: &pushed }.told(&hub(), 0);
        let told: Vec<_> = apps.iter().map(|app| (app.id.as_str(), app.state.as_str(), app.origin)).collect();
        assert_eq!(
            told,
            [("up", "unknown", ""), ("down", "stopped", "pushed"), ("new", "pending", "pushed")]
        );
        assert_eq!(apps[0].package_version, "", "it runs another release than that of this version");
        assert_eq!((package(&apps[0]).as_str(), package(&apps[1]).as_str()), ("cd-2", "ab-1"));
        assert_eq!(apps[1].reason, "nexushub start down --home /h has it run again");
    }
}
