//! The first page: every app, what it is doing, and the way to a new one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use nexushub_applib::{
    Refusal,
    page::{Notice, Page, see_other},
};
use serde::{Deserialize, Serialize};

use super::{Sent, Tab, Visitor, again, words::Live};
use crate::{
    Admin, Asker,
    events::{Change, Written},
    platform::{Held, Instance, Instances},
    store::{self, Application},
    terms::Wished,
};

/// An app as the list shows it.
pub(crate) struct Row {
    pub id: String,
    pub name: String,
    pub host: String,
    pub origin: String,
    pub live: Live,
}

/// What all pages about live things start from.
pub(crate) struct Scene {
    pub rows: Vec<Row>,
    pub held: Option<Held>,
    /// Why nothing is known of what is going on.
    pub away: Option<String>,
}

/// What was just done, for the page after it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct After {
    done: String,
}

impl Admin {
    /// The apps of the table and the instances of the platform, as one list.
    pub(crate) async fn scene(&self, by: &Asker) -> Result<Scene, Refusal> {
        let table = self.db.run(|tx| Ok::<_, Refusal>(store::applications(tx)?));
        let (table, seen) = tokio::join!(table, self.platform.instances(by));
        let (seen, away) = match seen {
            Ok(seen) => (seen, None),
            Err(error) => {
                eprintln!("the platform did not say what runs: {error}");
                (Instances::default(), Some(error.said()))
            }
        };
        let rows = rows(table?, seen.instances, away.is_some(), self.now());
        Ok(Scene { rows, held: seen.held.filter(|held| !held.removed.is_empty()), away })
    }
}

fn rows(table: Vec<Application>, seen: Vec<Instance>, away: bool, now: i64) -> Vec<Row> {
    let mut seen: HashMap<String, Instance> = seen.into_iter().map(|one| (one.id.clone(), one)).collect();
    let ours = table.into_iter().map(|app| {
        let live =
            seen.remove(&app.instance_id).map_or_else(|| Live::unknown(away), |one| Live::of(&one, now));
        let origin = if app.is_own() { "platform" } else { "" };
        Row { id: app.instance_id, name: app.display_name, host: app.host_name, origin: origin.into(), live }
    });
    let mut rows: Vec<Row> = ours.collect();
    rows.extend(seen.into_values().map(|one| {
        let live = Live::of(&one, now);
        let name = if one.display_name.is_empty() { one.id.clone() } else { one.display_name };
        Row { id: one.id, name, host: one.host_name, origin: one.origin, live }
    }));
    rows.sort_by_key(|row| (row.origin == "platform", row.name.to_lowercase(), row.id.clone()));
    rows
}

/// What the form for a new app was filled with.
#[derive(Default)]
struct Draft<'a> {
    name: &'a str,
    app_id: &'a str,
    host: &'a str,
}

/// `GET /`
pub(crate) async fn show(
    State(admin): State<Arc<Admin>>,
    visitor: Visitor,
    Query(after): Query<After>,
) -> Result<Page, Refusal> {
    let notice = match after.done.as_str() {
        "deleted" => Some(Notice::Good("The app is removed. Its data are kept on the machine, below its instance id; an app made anew begins without them.".into())),
        "confirmed" => Some(Notice::Good("Confirmed: the removals are carried out now.".into())),
        _ => None,
    };
    Ok(page(&visitor, &admin.scene(&visitor.asker).await?, notice.as_ref(), &Draft::default(), &admin))
}

fn page(visitor: &Visitor, scene: &Scene, notice: Option<&Notice>, draft: &Draft<'_>, admin: &Admin) -> Page {
    let own = scene.rows.iter().filter(|row| row.origin.is_empty()).count();
    let content = html! {
        div.head {
            div.grow { h1 { "Apps" } p.quiet { (scene.rows.len()) " on this machine" } }
            a.button.primary href="#new" { "New app" }
        }
        @if let Some(notice) = notice { (notice) }
        (away(scene.away.as_deref()))
        (held(scene.held.as_ref(), visitor))
        section.card data-live="/live" {
            @if own == 0 {
                div.empty {
                    strong { "No app of your own yet" }
                    "Name one below, then push its package: a zip with " code { "bin/app" } " in it."
                }
            }
            div.scroll { (table(&scene.rows, admin)) }
        }
        (new_app(visitor, draft, admin))
    };
    visitor.page("Apps", Tab::Apps, &content)
}

/// Says that nothing live is known.
pub(crate) fn away(why: Option<&str>) -> Markup {
    html! {
        p.notice.warn role="status" data-away hidden[why.is_none()] {
            "The platform does not say what is running just now"
            @if let Some(why) = why.filter(|why| !why.is_empty()) { " (" (why) ")" }
            ". What you change here counts all the same."
        }
    }
}

fn held(held: Option<&Held>, visitor: &Visitor) -> Markup {
    let Some(held) = held else { return html! {} };
    html! {
        div.notice.warn role="alert" {
            strong { (held.removed.len()) " of " (held.total) " apps would be removed at once." }
            " That is held until somebody confirms it: "
            @for (at, id) in held.removed.iter().take(10).enumerate() { @if at > 0 { ", " } code { (id) } }
            @if held.removed.len() > 10 { " and " (held.removed.len() - 10) " more" }
            ". "
            form method="post" action="/held/confirm" data-confirm="Remove these apps?" {
                (visitor.token())
                button.small.danger { "Confirm the removals" }
            }
        }
    }
}

fn table(rows: &[Row], admin: &Admin) -> Markup {
    html! {
        table {
            thead { tr {
                th { "App" } th { "State" } th.number { "Up" } th.number { "Requests" } th.number { "Memory" } th { "Version" }
            } }
            tbody {
                @for row in rows {
                    tr data-id=(row.id) {
                        td {
                            a.name href={ "/apps/" (row.id) } { (row.name) }
                            @if !row.origin.is_empty() { " " span.badge.plain { (row.origin) } }
                            small { a.quiet href={ "https://" (row.host) "." (admin.suffix) "/" } { (row.host) } }
                        }
                        td { (state(&row.live)) }
                        td.number data-name="Up" data-f="uptime" { (row.live.uptime) }
                        td.number data-name="Requests" data-f="requests" { (row.live.requests) }
                        td.number data-name="Memory" data-f="memory" { (row.live.memory) }
                        td data-name="Version" data-f="version" { (row.live.version) }
                    }
                }
            }
        }
    }
}

/// A state's badge and its reason; the script writes into both.
pub(crate) fn state(live: &Live) -> Markup {
    html! {
        span class={ "badge state " (live.class) } data-f="state" { (live.state) }
        small data-f="reason" { (live.reason) }
    }
}

fn new_app(visitor: &Visitor, draft: &Draft<'_>, admin: &Admin) -> Markup {
    html! {
        section.card #new {
            h2 { "New app" }
            form.fields method="post" action="/apps" {
                (visitor.token())
                div {
                    label for="name" { "Name " small { "for people" } }
                    input #name name="displayName" value=(draft.name) maxlength="128" placeholder="Shop";
                }
                div {
                    label for="appid" { "App id " small { "what a package is for" } }
                    input #appid name="appId" value=(draft.app_id) required maxlength="128" pattern="[A-Za-z0-9_][A-Za-z0-9._\\-]*"
                        placeholder="shop" autocapitalize="none" spellcheck="false";
                }
                div {
                    label for="host" { "Host name " small { "." (admin.base) } }
                    input #host name="hostName" value=(draft.host) required maxlength="253" placeholder="shop"
                        autocapitalize="none" spellcheck="false";
                }
                (for_people(false))
                div.end { button.primary { "Create" } }
            }
            p.hint { "Several apps may share an app id: they run the same package, each at its own host name, with data of its own." }
        }
    }
}

/// Whether an app is for people who sign in.
pub(crate) fn for_people(sign_in: bool) -> Markup {
    html! {
        label.check {
            input type="checkbox" name="signIn" value="yes" checked[sign_in];
            "Only for people who sign in and may open it"
        }
    }
}

/// An application, as a form says it that says nothing of its terms.
pub(crate) fn written(sent: &Sent) -> Written {
    Written {
        terms: Wished::default(),
        app_id: sent.field("appId").to_owned(),
        display_name: sent.field("displayName").to_owned(),
        host_name: sent.field("hostName").to_owned(),
        sign_in: Some(sent.field("signIn") == "yes"),
    }
}

/// `POST /apps`
pub(crate) async fn create(State(admin): State<Arc<Admin>>, sent: Sent) -> Result<Response, Response> {
    let change = Change::CreateApplication { written: written(&sent) };
    match admin.publish(uuid::Uuid::new_v4().to_string(), &sent.by.asker, change).await {
        Ok(done) => Ok(see_other(&format!("/apps/{}?done=created", done.made))),
        Err(refusal) => {
            let scene = admin.scene(&sent.by.asker).await.map_err(|refusal| sent.by.trouble(&refusal))?;
            let draft = Draft {
                name: sent.field("displayName"),
                app_id: sent.field("appId"),
                host: sent.field("hostName"),
            };
            Err(again(page(&sent.by, &scene, Some(&Notice::from(&refusal)), &draft, &admin), &refusal))
        }
    }
}

/// `POST /held/confirm`
pub(crate) async fn confirm(State(admin): State<Arc<Admin>>, sent: Sent) -> Result<Response, Response> {
    let done = admin.platform.confirm(&sent.by.asker).await;
    done.map_err(|error| sent.by.trouble(&error.into()))?;
    Ok(see_other("/?done=confirmed"))
}

/// What the script asks for, every other second while somebody looks.
#[derive(Serialize)]
struct Now {
    away: bool,
    apps: BTreeMap<String, Live>,
}

/// `GET /live`
pub(crate) async fn live(State(admin): State<Arc<Admin>>, visitor: Visitor) -> Result<Response, Refusal> {
    let scene = admin.scene(&visitor.asker).await?;
    let apps = scene.rows.into_iter().map(|row| (row.id, row.live)).collect();
    let headers = [("cache-control", "no-store")];
    Ok((headers, Json(Now { away: scene.away.is_some(), apps })).into_response())
}
