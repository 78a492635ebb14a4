//! `nexushub plan`: what the configuration would change if it were taken up; what the admin app asks for, what of it can't be, and
//! what is held back until somebody confirms that it goes. `apply.rs` does both.

mod comparison;
pub(crate) mod proposal;

use std::{fmt::Write, path::PathBuf};

use clap::Args;
use nexushub_chassis::client::GrpcChannel;
use nexushub_proto::provider::{
    Admin, Instance, ListInstancesRequest, ListInstancesResponse, Origin,
    provider_service_client::ProviderServiceClient,
};
use serde::Serialize;

use crate::{
    args::Output,
    failure::{Failure, OK},
    out,
    place::Place,
    plan::comparison::{By, Change, Comparison},
    rpc, settings,
    table::{one_line, render},
};

/// Something would change, or is held back.
const CHANGES: u8 = 2;
/// What is said where nobody knows what the daemons were started with.
pub(crate) const UNKNOWN: &str = "\nwhat its settings would change, and whether there are new executables, is not known here: units take \
     both up when they are reloaded, one at a time (systemctl reload nexushub-proxy), a supervisor of an \
     earlier release at SIGHUP";
/// The largest answer of provider's that is taken.
const MESSAGE_BYTES: usize = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Another configuration, as if it stood in place of the present one [default: that one, as it is on disk]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How to write it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// The plan; its JSON form is for programs, so fields are only ever added.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    version: u32,
    /// Whether the admin app is asked, and why it can't be heard.
    followed: bool,
    trouble: String,
    heard_unix_ms: i64,
    /// Instances in its last list.
    listed: u32,
    /// Kept although it no longer lists them.
    pub(crate) held: Vec<Held>,
    /// Instances whose application has no package yet.
    waiting: Vec<Held>,
    /// What lost against another, and what of the list was left out.
    conflicts: Vec<String>,
    refused: Vec<String>,
    /// What taking up the configuration would change.
    configuration: Comparison,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    pub(crate) id: String,
    app_id: String,
    host_name: String,
}

/// provider.
pub(crate) fn client(place: &Place) -> Result<ProviderServiceClient<GrpcChannel>, Failure> {
    let client = ProviderServiceClient::new(rpc::channel(place, "provider")?);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES))
}

/// What is asked for.
pub(crate) async fn list(place: &Place) -> Result<ListInstancesResponse, Failure> {
    let answer = client(place)?.list_instances(ListInstancesRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| rpc::failed(place, "provider", &status))
}

/// `nexushub plan`
pub(crate) async fn plan(place: &Place, args: &Plan) -> Result<u8, Failure> {
    let (configuration, list) = proposal::compared(place, args.file.as_deref()).await?;
    let report = Report { configuration, ..Report::of(list) };
    match args.output {
        Output::Json => out::say(&serde_json::to_string_pretty(&report).unwrap_or_default())?,
        Output::Table => {
            out::say(&format!("{}\n\n{}", changes(place, &report.configuration), people(place, &report)))?;
        }
    }
    let settled = report.held.is_empty() && report.configuration.is_nothing();
    Ok(if settled { OK } else { CHANGES })
}

impl Report {
    /// What of it the admin app's list is about.
    pub(crate) fn of(answer: ListInstancesResponse) -> Self {
        let Admin { followed, heard_unix_ms, trouble, listed, held, refused } =
            answer.admin.unwrap_or_default();
        let told = |all: Vec<Instance>| all.into_iter().map(Held::of).collect();
        Self {
            version: 1,
            followed,
            trouble,
            heard_unix_ms,
            listed,
            held: told(held),
            waiting: told(answer.waiting),
            conflicts: answer.conflicts.into_iter().map(|conflict| conflict.reason).collect(),
            refused,
            configuration: Comparison::default(),
        }
    }
}

impl Held {
    fn of(instance: Instance) -> Self {
        Self { id: instance.id, app_id: instance.app_id, host_name: instance.host_name }
    }
}

pub(crate) fn instances(count: usize) -> String {
    if count == 1 { "1 instance".to_owned() } else { format!("{count} instances") }
}

/// What the configuration would change.
fn changes(place: &Place, plan: &Comparison) -> String {
    let file =
        plan.file.as_ref().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    let mut text = format!("configuration: {file}");
    let row = |one: &comparison::Difference| {
        let why = match one.change {
            Change::Removed => "its data stay".to_owned(),
            _ => one.keys.join(", "),
        };
        [one.id.clone(), one.change.name().to_owned(), one.host_name.clone(), why]
    };
    let rows: Vec<_> = plan.instances.iter().map(row).collect();
    let settings: Vec<_> = plan.settings.iter().flatten().map(setting).collect();
    for table in [
        render(["INSTANCE", "CHANGE", "HOST", "WHY"], &rows),
        render(["SETTING", "TAKEN UP BY", "WAS", "IS"], &settings),
    ] {
        if !table.is_empty() {
            let _ = write!(text, "\n\n{table}");
        }
    }
    let gap = if rows.is_empty() && settings.is_empty() { "" } else { "\n" };
    let named = |title: &str, names: &[&str]| {
        if names.is_empty() { String::new() } else { format!("\n{title}: {}", names.join(", ")) }
    };
    if plan.is_nothing() {
        text.push_str("\nnothing of it would change anything");
    } else {
        let executables = named("new executables", &plan.executables);
        let daemons = named("replaced, while apps run on", &plan.daemons);
        let _ = write!(text, "{gap}{executables}{daemons}\ntake it up: {}", place.command("apply"));
    }
    for conflict in &plan.conflicts {
        let _ = write!(text, "\nconflict: {}", one_line(conflict));
    }
    if !plan.knows_settings() {
        text.push_str(UNKNOWN);
    }
    text
}

fn setting(setting: &comparison::Setting) -> [String; 4] {
    let (table, key) = setting.key.split_once('.').unwrap_or((&setting.key, ""));
    let by = match setting.taken_up {
        By::Platform => "down and up".to_owned(),
        By::Supervisor => "the supervisor".to_owned(),
        By::Daemons if comparison::is_shared(table) => "every daemon".to_owned(),
        By::Daemons => table.to_owned(),
    };
    let shown = |value: &Option<toml::Value>| match (value, settings::default_of(table, key)) {
        (Some(value), _) => one_line(&value.to_string()),
        (None, Some(default)) => one_line(&default.to_string()),
        (None, None) => "-".to_owned(),
    };
    [setting.key.clone(), by, shown(&setting.was), shown(&setting.is)]
}

/// What the admin app asks for.
fn people(place: &Place, report: &Report) -> String {
    let mut text = match (report.followed, report.trouble.as_str()) {
        (false, _) => "the admin app is not followed".to_owned(),
        (true, "") if report.heard_unix_ms == 0 => "the admin app was not heard yet".to_owned(),
        (true, "") => format!("the admin app lists {}", instances(report.listed as usize)),
        (true, trouble) => format!("the admin app cannot be heard: {}", one_line(trouble)),
    };
    let rows = |all: &[Held]| -> Vec<_> {
        all.iter().map(|one| [one_line(&one.app_id), one.host_name.clone(), one.id.clone()]).collect()
    };
    for (title, all) in [("NO PACKAGE YET", &report.waiting), ("HELD", &report.held)] {
        if !all.is_empty() {
            let _ = write!(text, "\n\n{}", render([title, "HOST", "ID"], &rows(all)));
        }
    }
    for (title, lines) in [("conflict", &report.conflicts), ("left out of the list", &report.refused)] {
        for line in lines {
            let _ = write!(text, "\n{title}: {}", one_line(line));
        }
    }
    if !report.held.is_empty() {
        let confirm = place.command("apply --confirm-removals");
        let _ = write!(
            text,
            "\n\n{} are no longer listed and go on until this is confirmed: {confirm}",
            instances(report.held.len())
        );
    }
    text
}

/// What lost, for the status: by id, where it came from, and why.
pub(crate) fn lost(answer: &ListInstancesResponse) -> Vec<(String, &'static str, String)> {
    let origin = |origin: Origin| match origin {
        Origin::Static => "static",
        Origin::Dynamic => "dynamic",
        Origin::Debug => "debug",
        Origin::Unspecified => "",
    };
    let conflicts = answer.conflicts.iter();
    conflicts.map(|one| (one.id.clone(), origin(one.origin()), one.reason.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::provider::Conflict;

    use super::*;
    use crate::args::Global;

    fn instance(id: &str) -> Instance {
        Instance { id: id.into(), app_id: "shop".into(), host_name: id.into(), ..Instance::default() }
    }

    fn said(answer: ListInstancesResponse) -> String {
        let folder = tempfile::tempdir().unwrap();
        let place =
            Place::find(&Global { home: Some(folder.path().to_owned()), ..Default::default() }).unwrap();
        people(&place, &Report::of(answer))
    }

    #[test]
    fn what_would_change_is_told_with_why_and_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let home = Some(folder.path().to_owned());
        let place = Place::find(&Global { home, ..Default::default() }).unwrap();
        let apply = place.command("apply");
        let expected = format!(
            "\
configuration: /c

INSTANCE  CHANGE     HOST  WHY
gone      removed    gone  its data stay
new       added      new
shop      restarted  shop  limits.memory_bytes

SETTING                  TAKEN UP BY     WAS     IS
platform.log_level       every daemon    \"info\"  \"\"
platform.metrics_listen  down and up     \"\"      \"127.0.0.1:9\"
proxy.drain_ms           proxy           1       2
supervisor.burst         the supervisor  10      3

new executables: proxy
replaced, while apps run on: provider, proxy
take it up: {apply}
conflict: host name `x` is taken"
        );
        assert_eq!(changes(&place, &comparison::tests::every_kind()), expected);
        let expected = "configuration: the defaults\nnothing of it would change anything";
        assert_eq!(changes(&place, &Comparison::settled()), expected);
        let units = changes(&place, &Comparison::default());
        assert!(units.contains("nothing of it") && units.contains("is not known here"), "{units}");
    }

    #[test]
    fn programs_are_told_what_the_help_says() {
        let mut configuration = comparison::tests::every_kind();
        configuration.instances.retain(|one| !one.keys.is_empty());
        let report = Report {
            held: vec![Held::default()],
            waiting: vec![Held::default()],
            conflicts: vec!["x".into()],
            refused: vec!["x".into()],
            configuration,
            ..Report::default()
        };
        crate::shapes::tests::is_as_told(crate::shapes::PLAN, &report);
    }

    #[test]
    fn what_is_held_is_listed_with_the_way_to_confirm_it() {
        let held = vec![instance("a"), instance("b")];
        let admin = Admin { followed: true, heard_unix_ms: 1, listed: 1, held, ..Admin::default() };
        let conflicts = vec![Conflict { reason: "host name `x` is taken".into(), ..Conflict::default() }];
        let waiting = vec![instance("w")];
        let text =
            said(ListInstancesResponse { admin: Some(admin), conflicts, waiting, ..Default::default() });
        for part in [
            "the admin app lists 1 instance",
            "NO PACKAGE YET",
            "HELD",
            "conflict: host name `x` is taken",
            "2 instances are no longer listed",
            "apply --confirm-removals",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn an_admin_app_that_is_not_there_is_said_in_one_line() {
        assert_eq!(said(ListInstancesResponse::default()), "the admin app is not followed");
        let trouble = "no answer within 20 s".to_owned();
        let admin = Some(Admin { followed: true, trouble, ..Admin::default() });
        let text = said(ListInstancesResponse { admin, ..Default::default() });
        assert_eq!(text, "the admin app cannot be heard: no answer within 20 s");
    }
}
