//! The web interface: pages made here, complete without a script; the script (`ui/script.js`) keeps them up to date, follows
//! logs and shows how far an upload is. Each page can also be made with a notice, which is how a form is answered.

mod app;
mod apps;
mod audit;
mod package;
mod people;
mod terms;
mod words;

use std::{collections::HashMap, sync::Arc};

use axum::{
    RequestExt, Router,
    extract::{DefaultBodyLimit, Form, FromRef, FromRequest, FromRequestParts, Request},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use nexushub_applib::{
    Refusal, User,
    page::{self, Page, STYLE, document, file_name},
    text::sentence,
};

use crate::{Admin, Administrator, Asker};

const SCRIPT: &str = include_str!("ui/script.js");

/// Everything that people look at or send.
pub(crate) fn routes() -> Router<Arc<Admin>> {
    let packages = post(package::upload).layer(DefaultBodyLimit::disable()); // the platform has the bound, and holds it
    Router::new()
        .route("/", get(apps::show))
        .route("/live", get(apps::live))
        .route("/apps", get(apps::show).post(apps::create))
        .route("/held/confirm", post(apps::confirm))
        .route("/apps/{id}", get(app::show).post(app::update))
        .route("/apps/{id}/delete", post(app::delete))
        .route("/apps/{id}/order", post(app::order))
        .route("/apps/{id}/rules", post(app::add_rule))
        .route("/apps/{id}/package", packages)
        .route("/apps/{id}/rollback", post(package::roll_back))
        .route("/apps/{id}/logs", get(package::logs))
        .route("/users", get(people::show).post(people::add))
        .route("/users/{id}", post(people::rename))
        .route("/users/{id}/password", post(people::password))
        .route("/users/{id}/signout", post(people::sign_out))
        .route("/users/{id}/delete", post(people::delete))
        .route("/rules", post(people::add_rule))
        .route("/rules/delete", post(people::delete_rule))
        .route("/audit", get(audit::show))
        .route("/public/style.css", get(async || page::file("text/css; charset=utf-8", STYLE)))
        .route("/public/script.js", get(async || page::file("text/javascript; charset=utf-8", SCRIPT)))
        .fallback(missing)
}

/// Who looks at a page, and what every page shows of that.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub user: User,
    pub asker: Asker,
    pub csrf: String,
    pub login: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor
where
    Arc<Admin>: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let admin = Arc::<Admin>::from_ref(state);
        let Administrator { user, asker } =
            Administrator::from_request_parts(parts, state).await.map_err(|no| stray(&no))?;
        let csrf = admin.csrf.token(&visit(&user));
        Ok(Self { user, asker, csrf, login: admin.login.clone() })
    }
}

/// What a form's token is bound to.
fn visit(user: &User) -> String {
    format!("{} {}", user.id, user.session)
}

/// A form that a visitor sent from a page of ours.
#[derive(Debug)]
pub(crate) struct Sent {
    pub by: Visitor,
    fields: HashMap<String, String>,
}

impl Sent {
    /// A field's value; empty if it was not sent.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// The same; none if it was not sent.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl FromRequest<Arc<Admin>> for Sent {
    type Rejection = Response;

    async fn from_request(mut request: Request, state: &Arc<Admin>) -> Result<Self, Response> {
        let by: Visitor = request.extract_parts_with_state(state).await?;
        let form = Form::<HashMap<String, String>>::from_request(request, state).await;
        let Form(fields) = form.map_err(IntoResponse::into_response)?;
        let token = fields.get("csrf").map_or("", String::as_str);
        if !state.csrf.holds(&visit(&by.user), token) {
            return Err(by.trouble(&Refusal::stale_form()));
        }
        Ok(Self { by, fields })
    }
}

/// Which part of the interface a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tab {
    Apps,
    People,
    Audit,
    None,
}

impl Visitor {
    /// A page with everything around it.
    pub(crate) fn page(&self, title: &str, tab: Tab, content: &Markup) -> Page {
        let link = |here: Tab, path: &str, text: &str| {
            html! { a href=(path) aria-current=[(tab == here).then_some("page")] { (text) } }
        };
        let body = html! {
                body {
                    a.skip href="#content" { "To the content" }
                    header.top {
                        a.brand href="/" { span.mark aria-hidden="true" {} "NexusHub" }
                        nav aria-label="Main" {
                            (link(Tab::Apps, "/", "Apps"))
                            (link(Tab::People, "/users", "Users"))
                            (link(Tab::Audit, "/audit", "Audit"))
                        }
                        span.grow {}
                        a.who.quiet href={ (self.login) "/" } title="Sessions and password" { (self.user.name) }
                        form method="post" action="/public/signout" { button.small { "Sign out" } }
                    }
                    main #content .column { (content) }
                }
        };
        document(title, &script(), &body).forms_may_lead_to(&self.login)
    }

    /// A refusal as a page.
    pub(crate) fn trouble(&self, refusal: &Refusal) -> Response {
        let content = html! {
            div.card.empty { strong { "Sorry" } p { (sentence(&refusal.text)) } p { a href="/" { "All apps" } } }
        };
        self.page("Sorry", Tab::None, &content).status(refusal.status).into_response()
    }

    /// The hidden field of every form.
    pub(crate) fn token(&self) -> Markup {
        html! { input type="hidden" name="csrf" value=(self.csrf); }
    }
}

fn script() -> Markup {
    html! { script src=(file_name("/public/script.js", SCRIPT)) defer {} }
}

/// A refusal for whoever is no visitor.
fn stray(refusal: &Refusal) -> Response {
    let body = html! {
        body.lone {
            main.card.narrow { h1 { "No access" } p { (sentence(&refusal.text)) } }
        }
    };
    document("No access", &script(), &body).status(refusal.status).into_response()
}

/// An answer to a form: the page once more, with what is wrong.
pub(crate) fn again(page: Page, refusal: &Refusal) -> Response {
    page.status(refusal.status).into_response()
}

async fn missing(visitor: Visitor) -> Response {
    visitor.trouble(&Refusal::new(StatusCode::NOT_FOUND, "there is no such page"))
}
