//! Who did what: the platform's own audit log, and the record of changes made here.

use std::{collections::HashMap, sync::Arc};

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use nexushub_applib::{
    Refusal,
    page::Page,
    time::{ago, rfc3339},
};
use serde_json::Value;

use super::{Tab, Visitor, apps::away, words::when};
use crate::{
    Admin,
    platform::Entry,
    store::{self, Event},
};

/// Lines of each that are shown.
const LINES: u32 = 100;

/// `GET /audit`
pub(crate) async fn show(State(admin): State<Arc<Admin>>, visitor: Visitor) -> Result<Page, Response> {
    let events = admin.db.run(|tx| {
        let (apps, users) = (store::applications(tx)?, store::users(tx)?);
        let apps = apps.into_iter().map(|app| (app.instance_id, app.display_name)).collect();
        let users = users.into_iter().map(|user| (user.id, user.name)).collect();
        Ok::<_, Refusal>((store::events(tx, i64::from(LINES))?, Names { apps, users }))
    });
    let (events, entries) = tokio::join!(events, admin.platform.audit(LINES, &visitor.user.name));
    let (events, names) = events.map_err(|refusal| visitor.trouble(&refusal))?;
    let (entries, gone) = match entries {
        Ok(entries) => (entries, None),
        Err(error) => (Vec::new(), Some(error.said())),
    };
    let now = admin.now();
    let content = html! {
        div.head { div.grow { h1 { "Audit" } p.quiet { "Who did what, and what came of it" } } }
        (away(gone.as_deref()))
        section.card {
            h2 { "Changes made here" }
            ul.rows.small { @for event in &events { (change(event, &names, now)) } }
        }
        section.card {
            h2 { "The platform" }
            @if entries.is_empty() { div.empty { strong { "Nothing to show" } "The platform's log is empty, or away." } }
            @else { div.scroll { (table(&entries, now)) } }
        }
    };
    Ok(visitor.page("Audit", Tab::Audit, &content))
}

fn change(event: &Event, names: &Names, now: i64) -> Markup {
    html! {
        li {
            span.badge.plain { (words(&event.what)) }
            span.grow {
                @if event.by.is_empty() { "the platform" } @else { strong { (event.by) } }
                " " (details(event, names))
            }
            @if event.at > 0 { time.quiet datetime=(rfc3339(event.at)) { (ago(event.at, now)) } }
        }
    }
}

/// An event's type as people say it.
fn words(what: &str) -> &str {
    match what {
        "Init" => "set up",
        "CreateApplication" => "new app",
        "AdoptApplication" => "app made permanent",
        "UpdateApplication" => "changed app",
        "DeleteApplication" => "removed app",
        "AddUser" => "new user",
        "UpdateUser" => "renamed user",
        "UpdateUserPassword" => "new password",
        "ResetAdministrator" => "reset administrator",
        "DeleteUser" => "removed user",
        "CreateUserAccessRule" => "new rule",
        "DeleteUserAccessRule" => "removed rule",
        other => other,
    }
}

/// Names by id, of applications and of users, for events that tell ids only.
struct Names {
    apps: HashMap<String, String>,
    users: HashMap<i64, String>,
}

/// What an event did, in a few words.
fn details(event: &Event, names: &Names) -> String {
    let said: Value = serde_json::from_str(&event.said).unwrap_or_default();
    let text = |field: &str| said[field].as_str().unwrap_or_default();
    let user = |field: &str| {
        let id = said[field].as_i64().unwrap_or_default();
        names.users.get(&id).cloned().unwrap_or_else(|| format!("user {id}"))
    };
    match event.what.as_str() {
        "CreateApplication" | "AdoptApplication" | "UpdateApplication" => {
            format!("{} at {}, package {}", text("displayName"), text("hostName"), text("appId"))
        }
        "DeleteApplication" => text("displayName").to_owned(),
        "AddUser" | "UpdateUser" | "DeleteUser" => text("username").to_owned(),
        "UpdateUserPassword" | "ResetAdministrator" => format!("for {}", user("userId")),
        "CreateUserAccessRule" | "DeleteUserAccessRule" if said["applicationId"].is_string() => {
            let who = if said["subjectType"] == "GROUP" { "everybody".to_owned() } else { user("subjectId") };
            let may = if said["ruleType"] == "ACCEPT" { "may" } else { "may not" };
            let id = text("applicationId");
            format!("{who} {may} open {}", names.apps.get(id).map_or(id, String::as_str))
        }
        "DeleteUserAccessRule" => format!("number {}", said["ruleId"]),
        _ => String::new(),
    }
}

fn table(entries: &[Entry], now: i64) -> Markup {
    html! {
        table {
            thead { tr { th { "When" } th { "Who" } th { "What" } th { "Of what" } th { "Result" } } }
            tbody {
                @for entry in entries {
                    tr {
                        td data-name="When" { time datetime=(entry.ts) { (when(&entry.ts, now)) } }
                        td data-name="Who" { (entry.who) @if !entry.from.is_empty() { small { (entry.from) } } }
                        td data-name="What" { (entry.what) small { (entry.daemon) } }
                        td data-name="Of what" { (entry.object) @if !entry.detail.is_empty() { small { (entry.detail) } } }
                        td data-name="Result" {
                            span class={ "badge " (if matches!(entry.result.as_str(), "ok" | "done") { "good" } else { "plain" }) } {
                                (entry.result)
                            }
                        }
                    }
                }
            }
        }
    }
}
