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
        let apps = apps.into_iter().map(|app| (app.instance_id, app.display_name));
        let events = store::events(tx, i64::from(LINES))?;
        let apps = events.iter().rev().filter_map(named).chain(apps).collect();
        let users = users.into_iter().map(|user| (user.id, user.name)).collect();
        Ok::<_, Refusal>((events, Names { apps, users }))
    });
    let (events, entries) = tokio::join!(events, admin.platform.audit(LINES, &visitor.asker));
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
            ul.rows.small.trail { @for event in &events { (change(event, &names, now)) } }
        }
        section.card {
            h2 { "The platform" }
            @if entries.is_empty() { div.empty { strong { "Nothing to show" } "The platform's log is empty, or away." } }
            @else { div.scroll { (table(&entries, &names, now)) } }
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
        "EndSessions" => "logged out",
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

/// The application that an event is about, and its name then: it may be gone by now.
fn named(event: &Event) -> Option<(String, String)> {
    let said: Value = serde_json::from_str(&event.said).ok()?;
    let text = |field: &str| said[field].as_str().map(str::to_owned);
    Some((text("instanceId")?, text("displayName")?))
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
            let terms =
                if said["terms"].is_object() { ", and who may call it or what it may use" } else { "" };
            let rules = match said["rulesMade"].as_u64().unwrap_or_default() {
                0 => String::new(),
                1 => ", with a rule for one user who might open it before".to_owned(),
                some => format!(", with rules for {some} users who might open it before"),
            };
            format!(
                "{} at {}, package {}{terms}{rules}",
                text("displayName"),
                text("hostName"),
                text("appId")
            )
        }
        "DeleteApplication" => text("displayName").to_owned(),
        "AddUser" | "UpdateUser" | "DeleteUser" => text("username").to_owned(),
        "UpdateUserPassword" | "ResetAdministrator" | "EndSessions" => format!("for {}", user("userId")),
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

impl Names {
    /// Of what the platform's log says by its id: `user 7`, an instance.
    fn of<'a>(&'a self, said: &'a str) -> &'a str {
        let user = said.strip_prefix("user ").and_then(|id| self.users.get(&id.parse().ok()?));
        user.or_else(|| self.apps.get(said)).map_or(said, String::as_str)
    }
}

/// What the platform's log calls something, as people say it.
fn doing(what: &str) -> &str {
    match what {
        "application.create" => "new app",
        "application.update" => "changed app",
        "application.delete" => "removed app",
        "application.adopt" => "app made permanent",
        "application.upload" => "uploaded package",
        "application.install" | "release.install" => "new version",
        "application.rollback" | "release.rollback" => "back to a version",
        "application.start" => "started",
        "instance.restart" => "restarted",
        "instance.pause" => "paused",
        "instance.resume" => "resumed",
        "removals.confirm" => "confirmed removals",
        "user.create" => "new user",
        "user.rename" => "renamed user",
        "user.password" => "new password",
        "user.reset" => "reset administrator",
        "user.log_out" => "logged out",
        "user.delete" => "removed user",
        "rule.create" => "new rule",
        "rule.delete" => "removed rule",
        "session.begin" => "signed in",
        "session.end" | "session.log_out" => "signed out",
        "session.lock_out" => "locked out",
        "session.reuse" => "stolen token?",
        "session.sign_in" => "opened an app",
        "session.refresh" => "went on",
        "session.revoke" => "ended sessions",
        other => other,
    }
}

/// What else the platform's log says; of what an app told it, `change 7 of <time>, AddUser {...}`, what that was, in a few words.
fn more(entry: &Entry, names: &Names) -> String {
    let told = entry.detail.strip_prefix("change ").and_then(|told| told.split_once(", "));
    let Some((what, said)) = told.and_then(|(_, told)| told.split_once(' ')) else {
        return entry.detail.clone();
    };
    let Ok(json) = serde_json::from_str::<Value>(said) else { return entry.detail.clone() };
    let event = Event { id: 0, what: what.to_owned(), at: 0, by: String::new(), said: said.to_owned() };
    let why = ["why", "detail"].iter().find_map(|field| json[*field].as_str()).unwrap_or_default();
    let all = [details(&event, names), why.to_owned()];
    all.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

fn table(entries: &[Entry], names: &Names, now: i64) -> Markup {
    html! {
        table {
            thead { tr { th { "When" } th { "Who" } th { "What" } th { "Of what" } th { "Result" } } }
            tbody {
                @for entry in entries {
                    tr {
                        td data-name="When" { time datetime=(entry.ts) { (when(&entry.ts, now)) } }
                        td data-name="Who" { (names.of(&entry.who)) @if !entry.from.is_empty() { small { (entry.from) } } }
                        td data-name="What" title=(entry.what) { (doing(&entry.what)) small { (entry.daemon) } }
                        td data-name="Of what" {
                            (names.of(&entry.object))
                            @let more = more(entry, names);
                            @if !more.is_empty() { small { (more) } }
                        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_that_is_gone_is_still_called_by_its_name() {
        let event = |said: &str| Event {
            id: 1,
            what: String::new(),
            at: 0,
            by: String::new(),
            said: said.to_owned(),
        };
        let told = named(&event(r#"{"instanceId":"i-2","displayName":"Kiosk"}"#));
        assert_eq!(told, Some(("i-2".to_owned(), "Kiosk".to_owned())));
        assert_eq!(named(&event(r#"{"userId":7,"username":"zoe"}"#)), None);
        assert_eq!(named(&event("{")), None);
    }

    #[test]
    fn ids_are_told_by_name_and_what_an_app_told_in_words() {
        let names = Names {
            apps: HashMap::from([("i-1".to_owned(), "Shop".to_owned())]),
            users: HashMap::from([(7, "zoe".to_owned())]),
        };
        assert_eq!(
            ["user 7", "user 8", "i-1", "operator", ""].map(|id| names.of(id)),
            ["zoe", "user 8", "Shop", "operator", ""]
        );
        for (detail, words) in [
            ("package 3a, 12 KiB", "package 3a, 12 KiB"),
            (r#"change 4 of 2026-01-02T03:04:05Z, UpdateUserPassword {"userId":7}"#, "for zoe"),
            (
                r#"change 5 of 2026-01-02T03:04:05Z, CreateUserAccessRule {"applicationId":"i-1","ruleType":"DENY","subjectType":"USER","subjectId":7,"why":"not so"}"#,
                "zoe may not open Shop: not so",
            ),
            (
                r#"change 6 of 2026-01-02T03:04:05Z, login {"name":"bob","detail":"wrong name or password"}"#,
                "wrong name or password",
            ),
            (
                r#"change 8 of 2026-01-02T03:04:05Z, UpdateApplication {"displayName":"Shop","hostName":"s","appId":"p","terms":{}}"#,
                "Shop at s, package p, and who may call it or what it may use",
            ),
            (
                r#"change 9 of 2026-01-02T03:04:05Z, AdoptApplication {"displayName":"Shop","hostName":"s","appId":"p","rulesMade":2}"#,
                "Shop at s, package p, with rules for 2 users who might open it before",
            ),
            (
                r#"change 9 of 2026-01-02T03:04:05Z, AdoptApplication {"displayName":"Shop","hostName":"s","appId":"p","rulesMade":1}"#,
                "Shop at s, package p, with a rule for one user who might open it before",
            ),
            (
                r#"change 9 of 2026-01-02T03:04:05Z, AdoptApplication {"displayName":"Shop","hostName":"s","appId":"p","rulesMade":0}"#,
                "Shop at s, package p",
            ),
            (
                r#"change 7 of 2026-01-02T03:04:05Z, AddUser {"username":"…"#,
                r#"change 7 of 2026-01-02T03:04:05Z, AddUser {"username":"…"#,
            ),
        ] {
            let entry = Entry { detail: detail.to_owned(), ..Entry::default() };
            assert_eq!(more(&entry, &names), words);
        }
    }
}
