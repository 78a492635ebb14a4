//! Users, and the rules by which they may open apps.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use maud::{Markup, html};
use nexushub_applib::{
    Refusal,
    page::{Notice, Page, see_other},
    time::{ago, rfc3339},
};
use serde::Deserialize;

use super::{Sent, Tab, Visitor, again};
use crate::{
    Admin,
    events::Change,
    rules::{Rule, RuleType, SubjectType},
    store::{self, User},
};

/// What was just done, for the page after it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct After {
    done: String,
}

/// `GET /users`
pub(crate) async fn show(
    State(admin): State<Arc<Admin>>,
    visitor: Visitor,
    Query(after): Query<After>,
) -> Result<Page, Response> {
    let notice = match after.done.as_str() {
        "added" => Some("The user can sign in now. What they may open is said by the rules below."),
        "renamed" => Some("The new name counts from the next sign-in on."),
        "password" => Some("The password is changed, and every session of the user ends."),
        "signout" => Some("Every session of the user ends, and what it opened."),
        "deleted" => Some("The user is gone, and with them their rules and sessions."),
        "rule" => Some("The rule counts from now on."),
        "ruled" => Some("The rule is gone."),
        _ => None,
    };
    page(&admin, &visitor, notice.map(|text| Notice::Good(text.to_owned())).as_ref()).await
}

async fn page(admin: &Admin, visitor: &Visitor, notice: Option<&Notice>) -> Result<Page, Response> {
    let all = admin.db.run(|tx| {
        Ok::<_, Refusal>((
            store::users(tx)?,
            store::rules(tx, None)?,
            store::applications(tx)?,
            store::administrators(tx)?,
        ))
    });
    let (users, rules, apps, admins) = all.await.map_err(|refusal| visitor.trouble(&refusal))?;
    let names: HashMap<String, String> =
        apps.iter().map(|app| (app.instance_id.clone(), app.display_name.clone())).collect();
    let now = admin.now();
    let content = html! {
        div.head { div.grow { h1 { "Users" } p.quiet { "Who can sign in, and what they may open" } } }
        @if let Some(notice) = notice { (notice) }
        section.card {
            ul.rows { @for user in &users { (user_row(user, admins.contains(&user.id), visitor, now)) } }
        }
        (new_user(visitor))
        section.card #rules {
            h2 { "Rules" }
            @if rules.is_empty() { p.quiet { "There is none: nobody may open anything that asks for a sign-in." } }
            (rule_rows(&rules, &users, Some(&names), visitor, "/users"))
            form.fields method="post" action="/rules" {
                (visitor.token())
                div {
                    label for="app" { "App" }
                    select #app name="applicationId" {
                        @for app in &apps { option value=(app.instance_id) { (app.display_name) " (" (app.host_name) ")" } }
                    }
                }
                (rule_fields(&users))
                div.end { button { "Add the rule" } }
            }
            p.hint { "A rule for a user goes before one for everybody, a refusal before a grant; without any, the answer is no. What is not kept here (pushed, or of the configuration) administrators may open, unless a rule says otherwise." }
        }
    };
    Ok(visitor.page("Users", Tab::People, &content))
}

fn user_row(user: &User, administers: bool, visitor: &Visitor, now: i64) -> Markup {
    let path = format!("/users/{}", user.id);
    html! {
        li {
            div.grow {
                strong { (user.name) }
                @if user.id == visitor.user.id { " " span.badge.good { "you" } }
                @if administers { " " span.badge.plain { "administrator" } }
                p.quiet { "added " time datetime=(rfc3339(user.since)) { (ago(user.since, now)) } }
                details {
                    summary { "Change" }
                    form.fields method="post" action=(path) {
                        (visitor.token())
                        div {
                            label for={ "name" (user.id) } { "Name" }
                            input id={ "name" (user.id) } name="username" value=(user.name) required maxlength="64";
                        }
                        div.end { button { "Rename" } }
                    }
                    form.fields method="post" action={ (path) "/password" } {
                        (visitor.token())
                        div {
                            label for={ "password" (user.id) } { "New password" }
                            input id={ "password" (user.id) } name="password" type="password" autocomplete="new-password"
                                minlength="12" required;
                        }
                        div.end { button { "Set the password" } }
                    }
                    div.actions {
                        form method="post" action={ (path) "/signout" } { (visitor.token()) button { "Log out everywhere" } }
                        form method="post" action={ (path) "/delete" } data-confirm={ "Remove " (user.name) "?" } {
                            (visitor.token())
                            button.danger { "Remove " (user.name) }
                        }
                    }
                }
            }
        }
    }
}

fn new_user(visitor: &Visitor) -> Markup {
    html! {
        section.card {
            h2 { "New user" }
            form.fields method="post" action="/users" {
                (visitor.token())
                div {
                    label for="username" { "Name" }
                    input #username name="username" required maxlength="64" autocomplete="off" autocapitalize="none" spellcheck="false";
                }
                div {
                    label for="password" { "Password " small { "at least 12 characters" } }
                    input #password name="password" type="password" autocomplete="new-password" minlength="12" required;
                }
                div.end { button.primary { "Add" } }
            }
        }
    }
}

/// The rules as rows; with the names of apps where they are of several.
pub(crate) fn rule_rows(
    rules: &[Rule],
    users: &[User],
    apps: Option<&HashMap<String, String>>,
    visitor: &Visitor,
    back: &str,
) -> Markup {
    let names: HashMap<i64, &str> = users.iter().map(|user| (user.id, user.name.as_str())).collect();
    let name = |rule: &Rule| match rule.subject_type {
        SubjectType::Group => "everybody".to_owned(),
        SubjectType::User => {
            let name = names.get(&rule.subject_id).map(|name| (*name).to_owned());
            name.unwrap_or_else(|| format!("user {}", rule.subject_id))
        }
    };
    html! {
        ul.rows {
            @for rule in rules {
                li {
                    @if rule.rule_type == RuleType::Accept { span.badge.good { "may" } } @else { span.badge.bad { "may not" } }
                    span.grow {
                        strong { (name(rule)) }
                        @if let Some(apps) = apps { " → " (apps.get(&rule.application_id).unwrap_or(&rule.application_id)) }
                    }
                    form method="post" action="/rules/delete" {
                        (visitor.token())
                        input type="hidden" name="id" value=(rule.id);
                        input type="hidden" name="back" value=(back);
                        button.small aria-label={ "Remove the rule for " (name(rule)) } { "Remove" }
                    }
                }
            }
        }
    }
}

/// The fields of a new rule, but for the app.
pub(crate) fn rule_fields(users: &[User]) -> Markup {
    html! {
        div {
            label for="subject" { "Who" }
            select #subject name="subject" {
                option value="everybody" { "Everybody" }
                @for user in users { option value=(user.id) { (user.name) } }
            }
        }
        div {
            label for="ruletype" { "May they?" }
            select #ruletype name="ruleType" { option value="ACCEPT" { "may open it" } option value="DENY" { "may not" } }
        }
    }
}

/// The rule that a form asks for.
pub(crate) fn rule(sent: &Sent, app: &str) -> Result<Change, Refusal> {
    let (subject_type, subject_id) = match sent.field("subject") {
        "everybody" => (SubjectType::Group, 0),
        id => (SubjectType::User, id.parse().map_err(|_| Refusal::bad("there is no such user"))?),
    };
    let rule_type = if sent.field("ruleType") == "DENY" { RuleType::Deny } else { RuleType::Accept };
    Ok(Change::CreateUserAccessRule { application_id: app.to_owned(), rule_type, subject_type, subject_id })
}

/// Carries out a change, and sends the browser on or shows the page with what was wrong.
async fn carry_out(
    admin: &Admin,
    sent: &Sent,
    change: Result<Change, Refusal>,
    done: &str,
) -> Result<Response, Response> {
    let published = match change {
        Ok(change) => admin.publish(uuid::Uuid::new_v4().to_string(), &sent.by.asker, change).await,
        Err(refusal) => Err(refusal),
    };
    match published {
        Ok(_) => Ok(see_other(&format!("/users?done={done}"))),
        Err(refusal) => Err(again(page(admin, &sent.by, Some(&Notice::from(&refusal))).await?, &refusal)),
    }
}

/// `POST /users`
pub(crate) async fn add(State(admin): State<Arc<Admin>>, sent: Sent) -> Result<Response, Response> {
    let (username, password) = (sent.field("username").to_owned(), sent.field("password").to_owned());
    carry_out(&admin, &sent, Ok(Change::AddUser { username, password }), "added").await
}

/// `POST /users/{id}`
pub(crate) async fn rename(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<i64>,
    sent: Sent,
) -> Result<Response, Response> {
    let change = Change::UpdateUser { user_id: id, username: sent.field("username").to_owned() };
    carry_out(&admin, &sent, Ok(change), "renamed").await
}

/// `POST /users/{id}/password`
pub(crate) async fn password(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<i64>,
    sent: Sent,
) -> Result<Response, Response> {
    let change = Change::UpdateUserPassword { user_id: id, password: sent.field("password").to_owned() };
    carry_out(&admin, &sent, Ok(change), "password").await
}

/// `POST /users/{id}/signout`
pub(crate) async fn sign_out(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<i64>,
    sent: Sent,
) -> Result<Response, Refusal> {
    admin.sign_out(id, &sent.by.asker).await?;
    Ok(see_other("/users?done=signout"))
}

/// `POST /users/{id}/delete`
pub(crate) async fn delete(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<i64>,
    sent: Sent,
) -> Result<Response, Response> {
    let own = id == sent.by.user.id;
    let change = if own {
        Err(Refusal::bad("nobody removes themselves"))
    } else {
        Ok(Change::DeleteUser { user_id: id })
    };
    carry_out(&admin, &sent, change, "deleted").await
}

/// `POST /rules`
pub(crate) async fn add_rule(State(admin): State<Arc<Admin>>, sent: Sent) -> Result<Response, Response> {
    carry_out(&admin, &sent, rule(&sent, sent.field("applicationId")), "rule").await
}

/// `POST /rules/delete`
pub(crate) async fn delete_rule(State(admin): State<Arc<Admin>>, sent: Sent) -> Result<Response, Response> {
    let id = sent.field("id").parse().map_err(|_| Refusal::missing("there is no such rule"));
    let answer =
        carry_out(&admin, &sent, id.map(|rule_id| Change::DeleteUserAccessRule { rule_id }), "ruled").await?;
    // Back to the app's page where it came from there; nowhere else.
    let app = sent.field("back").strip_prefix("/apps/").filter(|id| !id.contains(['/', '\\', '?', '#']));
    Ok(app.map_or(answer, |id| see_other(&format!("/apps/{id}?done=ruled"))))
}
