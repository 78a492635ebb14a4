//! `nexushub plan` and `nexushub apply`: what the admin app asks for, what of it can't be, and what is held back until somebody
//! confirms that it goes.

use std::fmt::Write;

use clap::Args;
use nexushub_chassis::client::GrpcChannel;
use nexushub_proto::provider::{
    Admin, ConfirmRemovalsRequest, Instance, ListInstancesRequest, ListInstancesResponse, Origin,
    provider_service_client::ProviderServiceClient,
};
use serde::Serialize;

use crate::{
    args::Output,
    failure::{Failure, OK},
    out,
    place::Place,
    rpc,
    table::{one_line, render},
};

/// Something is held back.
const HELD: u8 = 2;
/// The largest answer of provider's that is taken.
const MESSAGE_BYTES: usize = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// How to write it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// Stop the instances that the admin app no longer lists; their data stay
    #[arg(long, required = true)]
    confirm_removals: bool,
}

/// The plan; its JSON form is for programs, so fields are only ever added.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    version: u32,
    /// Whether the admin app is asked, and why it can't be heard.
    followed: bool,
    trouble: String,
    heard_unix_ms: i64,
    /// Instances in its last list.
    listed: u32,
    /// Kept although it no longer lists them.
    held: Vec<Held>,
    /// Instances whose application has no package yet.
    waiting: Vec<Held>,
    /// What lost against another, and what of the list was left out.
    conflicts: Vec<String>,
    refused: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Held {
    id: String,
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
    let report = Report::of(list(place).await?);
    match args.output {
        Output::Json => out::say(&serde_json::to_string_pretty(&report).unwrap_or_default())?,
        Output::Table => out::say(&people(place, &report))?,
    }
    Ok(if report.held.is_empty() { OK } else { HELD })
}

/// `nexushub apply`
pub(crate) async fn apply(place: &Place, args: &Apply) -> Result<u8, Failure> {
    debug_assert!(args.confirm_removals, "clap requires it");
    let held = Report::of(list(place).await?).held;
    let ids: Vec<String> = held.into_iter().map(|one| one.id).collect();
    if ids.is_empty() {
        out::say("nothing is held")?;
        return Ok(OK);
    }
    let answer = client(place)?.confirm_removals(ConfirmRemovalsRequest { ids }).await;
    let answer = answer.map_err(|status| rpc::failed(place, "provider", &status))?.into_inner();
    out::say(&format!("{} no longer listed are removed; their data stay", instances(answer.removed.len())))?;
    Ok(OK)
}

impl Report {
    fn of(answer: ListInstancesResponse) -> Self {
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
        }
    }
}

impl Held {
    fn of(instance: Instance) -> Self {
        Self { id: instance.id, app_id: instance.app_id, host_name: instance.host_name }
    }
}

fn instances(count: usize) -> String {
    if count == 1 { "1 instance".to_owned() } else { format!("{count} instances") }
}

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
    fn programs_are_told_what_the_help_says() {
        let report = Report {
            held: vec![Held::default()],
            waiting: vec![Held::default()],
            conflicts: vec!["x".into()],
            refused: vec!["x".into()],
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
