//! `nexushub status`: daemons, instances and debug apps in one answer, or one app alone. It always comes: what can't be asked is a
//! row with the reason. Exit code 1 when anything that should run does not. Of a platform elsewhere it tells what was pushed; its
//! daemons are for who sits at the machine.

mod auto;
mod usage;

use std::{
    collections::BTreeSet,
    fmt::Write,
    time::{Duration, SystemTime},
};

use clap::Args;
use nexushub_chassis::{names::Zone, standing};
use nexushub_launch::clock;
use nexushub_proto::{
    debugapi::Application,
    procmgr::{self, InstanceStatus},
    provider::ListInstancesResponse,
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use self::{auto::Auto, usage::Usage};
use crate::{
    args::{DAEMONS, Output},
    board::{self, Board},
    failure::{FAILURE, Failure, OK},
    far,
    hub::Hub,
    instances, out,
    place::Place,
    plan, pushed, rpc,
    systemd::{self, Form, Unit},
    table::{Spare, ago, fitted, one_line, render},
};

/// How long the words of a release that failed may take; the rest is told without them.
const PATIENCE: Duration = Duration::from_secs(2);
/// The state of an instance whose application has no package.
const NO_PACKAGE: &str = "no package yet";

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// This app alone (id, app id, name it was pushed by, or host name)
    #[arg(value_name = "APP")]
    app: Option<String>,
    /// How to write it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// The whole answer; its JSON form is for programs, so fields are only ever added.
#[derive(Debug, Default, Serialize)]
struct Report {
    version: u32,
    /// supervisor, units or down: who runs the daemons; elsewhere: they are on another machine.
    form: &'static str,
    run: String,
    state: String,
    /// Whether all that should run does.
    well: bool,
    daemons: Vec<Daemon>,
    instances: Vec<Instance>,
    apps: Vec<App>,
    /// Entries that lost against others.
    conflicts: Vec<Conflict>,
    /// Instances that the admin app no longer lists and that are held, see `nexushub plan`.
    held: usize,
    /// Why the admin app can't be heard; empty = it can, or isn't followed.
    admin_trouble: String,
    /// What `auto` means on this machine.
    auto: Auto,
    /// What could not be asked.
    unknown: Vec<String>,
    /// It is of one app alone.
    #[serde(skip)]
    alone: bool,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Daemon {
    name: String,
    state: String,
    pid: Option<u32>,
    since_unix_ms: i64,
    restarts: u64,
    /// What it says about itself.
    status: String,
    /// Why it is not ready; empty when it is.
    reason: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Instance {
    id: String,
    app_id: String,
    host_name: String,
    url: String,
    state: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_words: String,
    pid: Option<u32>,
    since_unix_ms: i64,
    generation: u64,
    restarts: u32,
    driver: String,
    /// Of its isolation and bounds, what this machine doesn't enforce.
    not_enforced: Vec<String>,
    /// Absent where nothing counts it.
    memory_bytes: Option<u64>,
    cpu_usec: Option<u64>,
    data_bytes: Option<u64>,
    log_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    routed: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct App {
    id: String,
    app_id: String,
    host_name: String,
    status: String,
    created_unix_ms: i64,
}

impl Instance {
    fn runs(&self) -> bool {
        matches!(self.state, "running" | NO_PACKAGE)
    }

    /// As people know it.
    fn name(&self) -> String {
        one_line(if self.app_id.is_empty() { &self.id } else { &self.app_id })
    }
}

impl From<Application> for App {
    fn from(app: Application) -> Self {
        Self {
            id: app.id,
            app_id: app.app_id,
            host_name: app.host_name,
            status: app.status,
            created_unix_ms: app.created_unix_ms,
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Conflict {
    id: String,
    origin: &'static str,
    reason: String,
}

/// `nexushub status`
pub(crate) async fn run(hub: &Hub, args: &Status) -> Result<u8, Failure> {
    let now = clock::unix_ms(SystemTime::now());
    let mut report = match hub {
        Hub::Here(place) => gather(place, now).await,
        Hub::Elsewhere(_) => elsewhere(hub, now).await,
    };
    if let Some(app) = &args.app {
        report = report.of(app, hub.zone().ok().as_ref());
        let told = !report.instances.is_empty() || !report.apps.is_empty() || !report.unknown.is_empty();
        if !told && report.form != "down" {
            return Err(pushed::unknown(hub, app));
        }
    }
    match args.output {
        Output::Json => out::say(&serde_json::to_string_pretty(&report).unwrap_or_default())?,
        Output::Table => out::say(&people(hub, &report, now))?,
    }
    Ok(if report.well { OK } else { FAILURE })
}

/// The answer of a platform elsewhere, which tells of its apps alone.
async fn elsewhere(hub: &Hub, now: i64) -> Report {
    let mut report = Report { version: 1, form: "elsewhere", ..Report::default() };
    match hub.instances().await {
        Ok(list) => report.instances = told(urls(hub), &list, now),
        Err(failure) => report.unknown.push(format!("instances: {failure}")),
    }
    if report.unknown.is_empty() {
        match hub.pushed().await {
            Ok(list) => report.apps = list.into_iter().map(App::from).collect(),
            Err(failure) => report.unknown.push(format!("debug apps: {failure}")),
        }
    }
    let well = report.unknown.is_empty() && report.instances.iter().all(Instance::runs);
    Report { well, ..report }
}

/// The whole answer, as programs get it, but for what apps said.
pub(crate) async fn wordless(place: &Place) -> String {
    let mut report = gather(place, clock::unix_ms(SystemTime::now())).await;
    report.instances.iter_mut().for_each(|instance| instance.last_words.clear());
    serde_json::to_string_pretty(&report).unwrap_or_default()
}

async fn gather(place: &Place, now: i64) -> Report {
    let board = Board::read(&place.run);
    let live = board.as_ref().is_some_and(|board| board.supervisor().is_some());
    let units = !live && systemd::active_form(place) == Some(Form::Units);
    let mut report =
        Report { version: 1, run: text(&place.run), state: text(&place.state), ..Report::default() };
    (report.form, report.daemons) = match board {
        Some(board) if live => ("supervisor", supervised(&board)),
        _ if units || (place.home.is_none() && place.token("procmgr").is_ok()) => {
            ("units", by_units(place).await)
        }
        board => ("down", down(board.as_ref())),
    };
    let mut well = report.daemons.iter().all(|daemon| daemon.reason.is_empty());
    if report.form != "down" {
        match instances::list(place).await {
            Ok(list) => report.instances = told(urls_of(zone(place)), &list, now),
            Err(failure) => report.unknown.push(format!("instances: {}", failure.message)),
        }
        match plan::list(place).await {
            Ok(asked) => report.add(place, &asked),
            Err(failure) => report.unknown.push(format!("what is asked for: {}", failure.message)),
        }
        match pushed::list(place).await {
            Ok(list) => report.apps = list.into_iter().map(App::from).collect(),
            Err(failure) => report.unknown.push(format!("debug apps: {}", failure.message)),
        }
        add_given_up(place, &mut report).await;
        report.auto = Auto::ask(place).await.unwrap_or_default();
    }
    well &= report.unknown.is_empty() && report.instances.iter().all(Instance::runs);
    Report { well, ..report }
}

/// Why releases failed that were given up for the one that runs, and what they said last: procmgr knows of them no more, debug-api goes
/// on telling it.
async fn add_given_up(place: &Place, report: &mut Report) {
    let failed = |id: &str| report.apps.iter().any(|app| app.id == id && app.status == "failed");
    let mute = |one: &&mut Instance| one.state == "running" && one.last_words.is_empty() && failed(&one.id);
    let mute: Vec<_> = report.instances.iter_mut().filter(mute).collect();
    if mute.is_empty() {
        return;
    }
    let Ok((client, _)) = Hub::Here(place.clone()).client(None) else { return };
    let ids: Vec<_> = mute.iter().map(|one| one.id.clone()).collect();
    let asked = tokio::time::timeout(PATIENCE, far::instances(&client, |app| ids.contains(&app.id))).await;
    let Ok(Ok(known)) = asked else { return };
    for (one, told) in
        mute.into_iter().filter_map(|one| known.all.get(&one.id).cloned().map(|told| (one, told)))
    {
        one.last_words = told.last_words;
        if one.reason.is_empty() {
            one.reason = told.reason;
        }
    }
}

impl Report {
    /// What is asked for and doesn't run, as provider tells it.
    fn add(&mut self, place: &Place, asked: &ListInstancesResponse) {
        let url = urls_of(zone(place));
        let waiting = asked.waiting.iter().map(|instance| Instance {
            id: instance.id.clone(),
            app_id: instance.app_id.clone(),
            host_name: instance.host_name.clone(),
            url: url(&instance.host_name),
            state: NO_PACKAGE,
            reason: "upload one in the admin app".to_owned(),
            ..Instance::default()
        });
        self.instances.extend(waiting);
        self.conflicts = plan::lost(asked)
            .into_iter()
            .map(|(id, origin, reason)| Conflict { id, origin, reason })
            .collect();
        if let Some(admin) = &asked.admin {
            (self.held, self.admin_trouble) = (admin.held.len(), admin.trouble.clone());
        }
    }

    /// What it says of one app. Of that alone it says whether it is well.
    fn of(mut self, name: &str, zone: Option<&Zone>) -> Self {
        let is_it =
            |id: &str, app_id: &str, host_name: &str| pushed::is_called((id, app_id, host_name), name, zone);
        self.instances.retain(|one| is_it(&one.id, &one.app_id, &one.host_name));
        self.apps.retain(|one| is_it(&one.id, &one.app_id, &one.host_name));
        self.conflicts
            .retain(|one| one.id == name || self.instances.iter().any(|instance| instance.id == one.id));
        let up = self.form != "down";
        if up {
            self.daemons.clear();
        }
        let well = up && self.unknown.is_empty() && self.instances.iter().all(Instance::runs);
        Self { held: 0, auto: Auto::default(), well, alone: true, ..self }
    }

    /// What people should know besides who runs.
    fn remarks(&self, hub: &Hub) -> String {
        let mut lines: Vec<String> = self
            .conflicts
            .iter()
            .map(|conflict| format!("conflict: {}", one_line(&conflict.reason)))
            .collect();
        if !self.admin_trouble.is_empty() {
            lines.push(format!("the admin app cannot be heard: {}", one_line(&self.admin_trouble)));
        }
        for instance in &self.instances {
            let remarks = instance.usage.iter().flat_map(Usage::remarks);
            lines.extend(remarks.map(|remark| format!("{}: {remark}", instance.name())));
        }
        if self.held > 0 {
            lines.push(format!(
                "{} instances are no longer listed by the admin app and held: see {}",
                self.held,
                hub.command("plan")
            ));
        }
        lines.join("\n")
    }
}

/// How the address of a host name is written on this platform.
pub(crate) fn urls(hub: &Hub) -> impl Fn(&str) -> String {
    urls_of(hub.zone().ok())
}

fn urls_of(zone: Option<Zone>) -> impl Fn(&str) -> String {
    move |host| zone.as_ref().map_or_else(String::new, |zone| zone.url(host))
}

fn zone(place: &Place) -> Option<Zone> {
    place.platform().ok().map(|platform| Zone::from(&platform))
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// What a living supervisor says.
fn supervised(board: &Board) -> Vec<Daemon> {
    let supervisor = &board.supervisor;
    let fine = matches!(supervisor.state.as_str(), "ready" | "running" | "reloading");
    let own = Daemon {
        name: "supervisor".into(),
        state: supervisor.state.clone(),
        pid: Some(supervisor.pid),
        since_unix_ms: supervisor.since_unix_ms,
        status: format!("release {}", supervisor.release),
        reason: if fine { String::new() } else { format!("it is {}", supervisor.state) },
        ..Daemon::default()
    };
    let daemon = |name: &str| match board.daemon(name) {
        Some(daemon) => of_board(daemon),
        None => missing(name, "the supervisor does not know it"),
    };
    std::iter::once(own).chain(DAEMONS.map(daemon)).collect()
}

fn of_board(daemon: &board::Daemon) -> Daemon {
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    let reason = match (daemon.is_ready(), said(&daemon.reason)) {
        (true, _) => String::new(),
        (false, reason) if reason.is_empty() => format!("it is {}", daemon.state),
        (false, reason) => reason,
    };
    Daemon {
        name: daemon.name.clone(),
        state: daemon.state.clone(),
        pid: daemon.pid,
        since_unix_ms: daemon.since_unix_ms,
        restarts: daemon.restarts,
        status: said(&daemon.status),
        reason,
    }
}

fn missing(name: &str, reason: &str) -> Daemon {
    Daemon { name: name.into(), state: "missing".into(), reason: reason.into(), ..Daemon::default() }
}

/// Without a supervisor: what the daemons say themselves, and systemd where it runs them.
async fn by_units(place: &Place) -> Vec<Daemon> {
    let mut daemons = Vec::new();
    for name in DAEMONS {
        let health = rpc::health(place, name).await;
        daemons.push(of_unit(name, &health, systemd::unit(name).unwrap_or_default(), wall_clock));
    }
    daemons
}

fn of_unit(name: &str, health: &Result<(), String>, unit: Unit, wall_clock: fn(u64) -> i64) -> Daemon {
    let reason = match health {
        Ok(()) => String::new(),
        Err(said) if matches!(unit.result.as_str(), "" | "success") => said.clone(),
        Err(said) => format!("{said}; systemd says {}", unit.result),
    };
    let state = match (health, unit.active.as_str()) {
        (Ok(()), _) => "ready".to_owned(),
        (Err(_), "" | "active") => "not serving".to_owned(),
        (Err(_), active) => active.to_owned(),
    };
    let since_unix_ms = unit.since_monotonic_us.map_or(0, wall_clock);
    let Unit { pid, restarts, status, .. } = unit;
    Daemon { name: name.into(), state, pid, since_unix_ms, restarts, status, reason }
}

/// The time of day of a monotonic time.
fn wall_clock(monotonic_us: u64) -> i64 {
    let Ok(up) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let up_ms = up.tv_sec() * 1000 + up.tv_nsec() / 1_000_000;
    clock::unix_ms(SystemTime::now()) - up_ms + i64::try_from(monotonic_us / 1000).unwrap_or(0)
}

fn down(board: Option<&Board>) -> Vec<Daemon> {
    let reason = match board {
        Some(board) if board.supervisor.state == "stopped" => "it was stopped".to_owned(),
        Some(board) => format!("the supervisor, process {}, is gone", board.supervisor.pid),
        None => "it is not running".to_owned(),
    };
    vec![Daemon { name: "supervisor".into(), state: "down".into(), reason, ..Daemon::default() }]
}

fn told(url: impl Fn(&str) -> String, list: &[InstanceStatus], now: i64) -> Vec<Instance> {
    let instance = |status: &InstanceStatus| Instance {
        id: status.id.clone(),
        app_id: status.app_id.clone(),
        host_name: status.host_name.clone(),
        url: url(&status.host_name),
        state: standing::word(status),
        reason: instances::why(status, now),
        last_words: status.last_words.clone(),
        pid: Some(status.pid).filter(|pid| *pid != 0),
        since_unix_ms: status.since_unix_ms,
        generation: status.generation,
        restarts: status.restarts,
        driver: status.driver.clone(),
        not_enforced: status.not_enforced.clone(),
        memory_bytes: counted(status, |usage| usage.memory_bytes),
        cpu_usec: counted(status, |usage| usage.cpu_usec),
        data_bytes: counted(status, |usage| usage.data_bytes),
        log_bytes: counted(status, |usage| usage.log_bytes),
        usage: status.usage.as_ref().map(Usage::from),
        routed: status.routed,
    };
    list.iter().map(instance).collect()
}

/// A figure of what an app uses, where that is counted.
fn counted(status: &InstanceStatus, figure: fn(&procmgr::Usage) -> u64) -> Option<u64> {
    status.usage.as_ref().map(figure).filter(|figure| *figure > 0)
}

/// What one app uses; of all of them `top` tells.
fn uses(report: &Report) -> String {
    let [instance] = report.instances.as_slice() else { return String::new() };
    let lines = instance.usage.as_ref().filter(|_| report.alone).map(Usage::lines).unwrap_or_default();
    if lines.is_empty() {
        String::new()
    } else {
        format!("{} uses:\n  {}", instance.name(), lines.join("\n  "))
    }
}

/// What this machine doesn't enforce of each driver's isolation, each said once.
fn not_enforced(instances: &[Instance]) -> String {
    let each = instances.iter().flat_map(|instance| {
        instance
            .not_enforced
            .iter()
            .map(|what| format!("not enforced here ({}): {}", instance.driver, one_line(what)))
    });
    each.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("\n")
}

/// What those said last that failed.
fn last_words(instances: &[Instance]) -> String {
    let each = instances.iter().filter(|instance| !instance.last_words.is_empty()).map(|instance| {
        let lines: Vec<_> = instance.last_words.lines().map(|line| format!("  {}", one_line(line))).collect();
        format!("{} said last:\n{}", one_line(&instance.id), lines.join("\n"))
    });
    each.collect::<Vec<_>>().join("\n\n")
}

const APPS: [&str; 9] =
    ["APP", "HOST", "STATE", "DRIVER", "PID", "SINCE", "RESTARTS", "LOG", "URL OR REASON"];
const PUSHED: [&str; 5] = ["DEBUG APP", "HOST", "STATUS", "CREATED", "ID"];
/// What a narrow terminal does without.
const SPARE: [Spare; 8] = [
    Spare::Column("LOG"),
    Spare::Column("DRIVER"),
    Spare::Column("CREATED"),
    Spare::Column("PID"),
    Spare::Column("HOST"),
    Spare::Column("RESTARTS"),
    Spare::Beyond("APP", 24),
    Spare::Beyond("DEBUG APP", 24),
];

fn people(hub: &Hub, report: &Report, now: i64) -> String {
    let daemons = report.daemons.iter().map(|daemon| {
        let said = if daemon.reason.is_empty() { &daemon.status } else { &daemon.reason };
        let since = ago(daemon.since_unix_ms, now);
        [
            daemon.name.clone(),
            daemon.state.clone(),
            number(daemon.pid),
            since,
            daemon.restarts.to_string(),
            one_line(said),
        ]
    });
    let daemons: Vec<_> = daemons.collect();
    let mut text =
        format!("{hub}: {}\n\n", if report.well { "everything runs" } else { "not everything runs" });
    let tables = [
        render(["DAEMON", "STATE", "PID", "SINCE", "RESTARTS", "SAYS"], &daemons),
        fitted(APPS, &instance_rows(report, now), &SPARE),
        fitted(PUSHED, &pushed_rows(report, now), &SPARE),
        uses(report),
        last_words(&report.instances),
        report.remarks(hub),
        report.auto.line(),
        not_enforced(&report.instances),
        report
            .unknown
            .iter()
            .map(|line| format!("could not ask for {}", one_line(line)))
            .collect::<Vec<_>>()
            .join("\n"),
    ];
    let tables: Vec<String> = tables.into_iter().filter(|table| !table.is_empty()).collect();
    let _ = write!(text, "{}", tables.join("\n\n"));
    if report.form == "down" {
        let _ = write!(text, "\n\nstart it: {}", hub.command("up --detach"));
    }
    text
}

fn number(pid: Option<u32>) -> String {
    pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())
}

fn instance_rows(report: &Report, now: i64) -> Vec<[String; 9]> {
    let row = |instance: &Instance| {
        let said = if instance.reason.is_empty() { &instance.url } else { &instance.reason };
        let (since, restarts) = (ago(instance.since_unix_ms, now), instance.restarts.to_string());
        let name = if instance.app_id.is_empty() { &instance.id } else { &instance.app_id };
        let (name, host) = (one_line(name), instance.host_name.clone());
        let (state, driver) = (instance.state.to_owned(), instance.driver.clone());
        let log = instance.usage.as_ref().and_then(Usage::log).unwrap_or_else(|| "-".to_owned());
        [name, host, state, driver, number(instance.pid), since, restarts, log, one_line(said)]
    };
    report.instances.iter().map(row).collect()
}

fn pushed_rows(report: &Report, now: i64) -> Vec<[String; 5]> {
    let row = |app: &App| {
        let (name, created) = (one_line(&app.app_id), ago(app.created_unix_ms, now));
        [name, app.host_name.clone(), app.status.clone(), created, app.id.clone()]
    };
    report.apps.iter().map(row).collect()
}

#[cfg(test)]
mod tests;
