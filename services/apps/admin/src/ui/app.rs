//! One app's page: what it is doing, its log, its releases, its configuration, and who may open it.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use nexushub_applib::{
    Refusal,
    page::{Notice, Page, see_other},
};
use serde::Deserialize;

use super::{
    Sent, Tab, Visitor, again,
    apps::{away, for_people, state, written},
    package, people,
    terms::{self, Callers},
    words::{Live, class, when},
};
use crate::{
    Admin, Asker,
    events::{Change, Written},
    platform::{Instance, Release},
    rules::Rule,
    store::{self, Application, User},
};

/// Changes of state that are shown.
const HISTORY: usize = 12;

/// Everything that the page is made of.
struct Sight {
    id: String,
    /// As it is in the table, if it is.
    ours: Option<Application>,
    /// As the platform sees it, if it does.
    seen: Option<Instance>,
    releases: Vec<Release>,
    rules: Vec<Rule>,
    users: Vec<User>,
    callers: Callers,
    away: Option<String>,
    now: i64,
}

impl Sight {
    fn name(&self) -> &str {
        let ours = self.ours.as_ref().map(|app| app.display_name.as_str());
        let seen = || self.seen.as_ref().map(|one| one.display_name.as_str()).filter(|name| !name.is_empty());
        ours.or_else(seen).unwrap_or(&self.id)
    }

    fn host(&self) -> &str {
        let ours = self.ours.as_ref().map(|app| app.host_name.as_str());
        ours.or_else(|| self.seen.as_ref().map(|one| one.host_name.as_str())).unwrap_or_default()
    }

    fn is_own(&self) -> bool {
        self.ours.as_ref().is_some_and(Application::is_own)
    }

    fn live(&self) -> Live {
        self.seen.as_ref().map_or_else(|| Live::unknown(self.away.is_some()), |one| Live::of(one, self.now))
    }
}

async fn sight(admin: &Admin, id: &str, by: &Asker) -> Result<Sight, Refusal> {
    let wanted = id.to_owned();
    let table = admin.db.run(move |tx| {
        let ours = store::application_of(tx, &wanted)?;
        let callers = Callers::of(&store::applications(tx)?, &wanted);
        Ok::<_, Refusal>((ours, store::rules(tx, Some(&wanted))?, store::users(tx)?, callers))
    });
    let (table, seen, releases) =
        tokio::join!(table, admin.platform.instance(id, by), admin.platform.releases(id, by));
    let (ours, rules, users, callers) = table?;
    let away = seen.as_ref().err().map(nexushub_applib::calls::Error::said);
    let seen = seen.ok().flatten();
    if ours.is_none() && seen.is_none() && away.is_none() {
        return Err(Refusal::missing("there is no such app"));
    }
    let releases = releases.unwrap_or_default();
    Ok(Sight { id: id.to_owned(), ours, seen, releases, rules, users, callers, away, now: admin.now() })
}

/// What was just done, for the page after it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct After {
    done: String,
}

fn done(after: &str) -> Option<Notice> {
    let text = match after {
        "created" => {
            "Created. It starts as soon as its app id has a package: push one below if there is none yet."
        }
        "updated" => "Saved. A new address counts as soon as the platform has heard of it, within a second.",
        "restart" => "It is being started anew; its state below says how far that is.",
        "pause" => "Paused: requests wait a while for it to be resumed, and are told to come back then.",
        "resume" => "It goes on.",
        "rule" => "The rule counts from now on.",
        "ruled" => "The rule is gone.",
        "released" => "The version below runs now.",
        _ => return None,
    };
    Some(Notice::Good(text.to_owned()))
}

/// `GET /apps/{id}`
pub(crate) async fn show(
    State(admin): State<Arc<Admin>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(after): Query<After>,
) -> Result<Page, Response> {
    with(&admin, &visitor, &id, done(&after.done).as_ref()).await
}

/// The page with a notice.
pub(crate) async fn with(
    admin: &Admin,
    visitor: &Visitor,
    id: &str,
    notice: Option<&Notice>,
) -> Result<Page, Response> {
    let sight = sight(admin, id, &visitor.asker).await.map_err(|refusal| visitor.trouble(&refusal))?;
    let path = format!("/apps/{}", sight.id);
    let content = html! {
        (title(&sight, visitor, &path, admin))
        @if let Some(notice) = notice { (notice) }
        (away(sight.away.as_deref()))
        (facts(&sight))
        div.pair {
            div {
                (log(&path))
                @if !sight.is_own() { (package::section(&sight.releases, visitor, &path, sight.now)) }
            }
            div {
                (access(&sight, visitor, &path))
                (configuration(&sight, visitor, &path, admin))
                (history(&sight))
            }
        }
    };
    Ok(visitor.page(sight.name(), Tab::Apps, &content))
}

fn title(sight: &Sight, visitor: &Visitor, path: &str, admin: &Admin) -> Markup {
    let paused = sight.seen.as_ref().is_some_and(|one| one.state == "paused");
    let order = |word: &str, label: &str, ask: Option<&str>| {
        html! {
            form method="post" action={ (path) "/order" } data-confirm=[ask] {
                (visitor.token())
                input type="hidden" name="order" value=(word);
                button.small { (label) }
            }
        }
    };
    html! {
        p.crumbs.quiet { a href="/" { "Apps" } " / " (sight.name()) }
        div.head {
            div.grow {
                h1 { (sight.name()) }
                p.quiet { a href={ "https://" (sight.host()) "." (admin.suffix) "/" } { (sight.host()) "." (admin.suffix) } }
            }
            div.actions {
                (order("restart", "Restart", None))
                @if paused { (order("resume", "Resume", None)) }
                @else { (order("pause", "Pause", Some("Let its requests wait for a while?"))) }
                a.button.primary.small href={ "https://" (sight.host()) "." (admin.suffix) "/" } { "Open" }
            }
        }
    }
}

fn facts(sight: &Sight) -> Markup {
    let live = sight.live();
    let fact = |name: &str, field: &str, value: &str| {
        html! { div { dt { (name) } dd data-f=(field) { (if value.is_empty() { "–" } else { value }) } } }
    };
    html! {
        section.card data-live="/live" {
            dl.facts data-id=(sight.id) {
                div { dt { "State" } dd { (state(&live)) } }
                (fact("Up", "uptime", &live.uptime))
                (fact("Version", "version", &live.version))
                (fact("Requests", "requests", &live.requests))
                (fact("Memory", "memory", &live.memory))
                (fact("Restarts", "restarts", &live.restarts))
                @if let Some(one) = &sight.seen {
                    div { dt { "Box" } dd { (one.driver) } }
                    div { dt { "From" } dd { (one.origin) } }
                }
            }
        }
    }
}

fn log(path: &str) -> Markup {
    html! {
        section.card {
            div.head {
                h2.grow { "Log" }
                button.small type="button" data-log-hold { "Hold" }
            }
            div.log role="log" aria-label="Log" tabindex="0" data-log={ (path) "/logs" } {}
        }
    }
}

fn configuration(sight: &Sight, visitor: &Visitor, path: &str, admin: &Admin) -> Markup {
    let Some(app) = sight.ours.as_ref().filter(|app| !app.is_own()) else {
        return html! {
            section.card {
                h2 { "Configuration" }
                p.quiet {
                    @if sight.is_own() { "This app belongs to the platform, and can't be changed or removed here." }
                    @else { "This instance is not from here, but from the machine's configuration or from a developer." }
                }
                p { "Instance " code { (sight.id) } }
            }
        };
    };
    html! {
        section.card {
            h2 { "Configuration" }
            form method="post" action=(path) {
                (visitor.token())
                label for="name" { "Name" }
                input #name name="displayName" value=(app.display_name) maxlength="128";
                label for="appid" { "App id " small { "what a package is for" } }
                input #appid name="appId" value=(app.app_id) required maxlength="128" autocapitalize="none" spellcheck="false";
                label for="host" { "Host name " small { "." (admin.base) } }
                input #host name="hostName" value=(app.host_name) required autocapitalize="none" spellcheck="false";
                (for_people(app.sign_in))
                (terms::fields(&app.terms, &sight.callers))
                p.hint { "Instance " code { (sight.id) } }
                button.primary.wide { "Save" }
            }
            details {
                summary { "Remove this app" }
                p.quiet { "It is stopped, and its address answers no more. Its data are kept on the machine, below its instance id; an app made anew begins without them." }
                form method="post" action={ (path) "/delete" } data-confirm={ "Remove " (app.display_name) "?" } {
                    (visitor.token())
                    button.danger { "Remove " (app.display_name) }
                }
            }
        }
    }
}

fn access(sight: &Sight, visitor: &Visitor, path: &str) -> Markup {
    html! {
        section.card #access {
            h2 { "Who may open it" }
            @if sight.ours.as_ref().is_some_and(|app| !app.sign_in && !app.is_own()) {
                p.notice.warn {
                    "Its pages are for anybody who reaches its address: these rules count for access tokens, where its /api needs one, "
                    "and for its pages once it is “only for people who sign in” (Configuration)."
                }
            }
            (people::rule_rows(&sight.rules, &sight.users, None, visitor, path))
            form method="post" action={ (path) "/rules" } {
                (visitor.token())
                (people::rule_fields(&sight.users))
                button.wide { "Add the rule" }
            }
            p.hint {
                "A rule for a user goes before one for everybody; without any, "
                (if sight.ours.is_some() { "nobody may." } else { "administrators may." })
            }
        }
    }
}

fn history(sight: &Sight) -> Markup {
    let Some(one) = sight.seen.as_ref().filter(|one| !one.history.is_empty()) else { return html! {} };
    html! {
        section.card {
            h2 { "What happened to it" }
            ul.rows.small {
                @for moment in one.history.iter().take(HISTORY) {
                    li {
                        span.badge.(class(&moment.state, true)) { (moment.state) }
                        span.grow { (moment.reason) }
                        time.quiet datetime=(moment.at) { (when(&moment.at, sight.now)) }
                    }
                }
            }
        }
    }
}

/// Sends the browser on, or shows the page with what was wrong.
pub(crate) async fn answer(
    admin: &Admin,
    sent: &Sent,
    id: &str,
    done: Result<&'static str, Refusal>,
) -> Result<Response, Response> {
    match done {
        Ok(word) => Ok(see_other(&format!("/apps/{id}?done={word}"))),
        Err(refusal) => Err(again(with(admin, &sent.by, id, Some(&Notice::from(&refusal))).await?, &refusal)),
    }
}

/// `POST /apps/{id}`: its configuration.
pub(crate) async fn update(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Response> {
    let done = save(&admin, &id, &sent).await;
    answer(&admin, &sent, &id, done.map(|()| "updated")).await
}

async fn save(admin: &Admin, id: &str, sent: &Sent) -> Result<(), Refusal> {
    let apps = admin.db.run(|tx| Ok::<_, Refusal>(store::applications(tx)?)).await?;
    let terms = terms::wished(sent, &Callers::of(&apps, id))?;
    let written = Written { terms, ..written(sent) };
    let change = Change::UpdateApplication { instance_id: id.to_owned(), written };
    admin.publish(uuid::Uuid::new_v4().to_string(), &sent.by.asker, change).await.map(drop)
}

/// `POST /apps/{id}/delete`
pub(crate) async fn delete(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Response> {
    let change = Change::DeleteApplication { instance_id: id.clone() };
    match admin.publish(uuid::Uuid::new_v4().to_string(), &sent.by.asker, change).await {
        Ok(_) => Ok(see_other("/?done=deleted")),
        Err(refusal) => answer(&admin, &sent, &id, Err(refusal)).await,
    }
}

/// `POST /apps/{id}/order`: restart, pause or resume.
pub(crate) async fn order(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Response> {
    let order = match sent.field("order") {
        "restart" => "restart",
        "pause" => "pause",
        "resume" => "resume",
        _ => return Err(StatusCode::BAD_REQUEST.into_response()),
    };
    let done = admin.platform.order(&id, order, &sent.by.asker).await;
    answer(&admin, &sent, &id, done.map(|()| order).map_err(|error| refused(&error))).await
}

/// The platform's own words for why not.
pub(crate) fn refused(error: &nexushub_applib::calls::Error) -> Refusal {
    let status = error.status().unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    Refusal::new(status, format!("the platform did not do it: {}", error.said()))
}

/// `POST /apps/{id}/rules`
pub(crate) async fn add_rule(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Response> {
    let done = match people::rule(&sent, &id) {
        Ok(change) => admin.publish(uuid::Uuid::new_v4().to_string(), &sent.by.asker, change).await,
        Err(refusal) => Err(refusal),
    };
    answer(&admin, &sent, &id, done.map(|_| "rule")).await
}
