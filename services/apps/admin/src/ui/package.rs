//! Releases: a package on its way through to the platform, what became of it, the way back, and the app's log.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Multipart, Path, Query, Request, State},
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use maud::{Markup, html};
use nexushub_applib::{Refusal, calls::Error, page::Notice};
use serde::Deserialize;
use serde_json::json;

use super::{
    Sent, Visitor, app, visit,
    words::{short, when},
};
use crate::{
    Admin,
    platform::{Outcome, Release},
};

/// The card of an app's page.
pub(crate) fn section(releases: &[Release], visitor: &Visitor, path: &str, now: i64) -> Markup {
    html! {
        section.card #releases data-page=(path) {
            h2 { "Versions" }
            form method="post" action={ (path) "/package" } enctype="multipart/form-data" data-upload {
                (visitor.token())
                label for="zip" { "New version " small { "a zip with " code { "bin/app" } " in it" } }
                div.actions {
                    input #zip.grow type="file" name="zip" accept=".zip,application/zip" required;
                    button.primary { "Deploy" }
                }
                progress hidden aria-label="How much is sent" max="1" value="0" {}
            }
            div #outcome role="status" aria-live="polite" {}
            div #versions {
                @if releases.is_empty() { p.quiet { "No version is known yet." } }
                @else { ul.rows { @for release in releases { (row(release, visitor, path, now)) } } }
            }
        }
    }
}

fn row(release: &Release, visitor: &Visitor, path: &str, now: i64) -> Markup {
    let class = match release.state.as_str() {
        "current" => "good",
        "failed" => "bad",
        _ => "plain",
    };
    html! {
        li {
            div.grow {
                strong { (if release.version.is_empty() { &release.id } else { &release.version }) }
                " " span class={ "badge " (class) } { (release.state) }
                p.quiet {
                    time datetime=(release.installed_at) { (when(&release.installed_at, now)) }
                    @if !release.by.is_empty() { " by " (release.by) }
                }
                @if !release.reason.is_empty() { p { (release.reason) } }
                @if !release.ungranted.is_empty() { p.quiet { "Not all of what it asks for: " (release.ungranted) "." } }
            }
            @if release.state == "earlier" {
                form method="post" action={ (path) "/rollback" } data-confirm="Go back to this version?" {
                    (visitor.token())
                    input type="hidden" name="release" value=(release.id);
                    button.small { "Go back to it" }
                }
            }
        }
    }
}

/// `POST /apps/{id}/package`: the zip itself with the token in `X-CSRF-Token`, as the script sends it, or a form as a browser
/// sends it alone, the token before the file.
pub(crate) async fn upload(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    visitor: Visitor,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let outcome = if kind.starts_with("multipart/") {
        from_form(&admin, &id, &visitor, request).await
    } else {
        let token = headers.get("x-csrf-token").and_then(|value| value.to_str().ok()).unwrap_or_default();
        from_script(&admin, &id, &visitor, token, request.into_body()).await
    };
    if wants_json(&headers) { said(outcome) } else { shown(&admin, &visitor, &id, outcome).await }
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

async fn from_script(
    admin: &Admin,
    id: &str,
    visitor: &Visitor,
    token: &str,
    zip: Body,
) -> Result<Outcome, Refusal> {
    if !admin.csrf.holds(&visit(&visitor.user), token) {
        return Err(Refusal::stale_form());
    }
    admin.platform.package(id, &visitor.asker, zip).await.map_err(|error| refused(&error))
}

async fn from_form(admin: &Admin, id: &str, visitor: &Visitor, request: Request) -> Result<Outcome, Refusal> {
    let broken = |_| Refusal::bad("the form did not arrive whole; try once more");
    let mut form =
        Multipart::from_request(request, &()).await.map_err(|_| Refusal::bad("this is no form"))?;
    let token = form.next_field().await.map_err(broken)?.filter(|field| field.name() == Some("csrf"));
    let token = token.ok_or_else(Refusal::stale_form)?.text().await.map_err(broken)?;
    if !admin.csrf.holds(&visit(&visitor.user), &token) {
        return Err(Refusal::stale_form());
    }
    // The field is lent by the form, so the form goes along with the body, which is read a piece at a time.
    let (pieces, body) = tokio::sync::mpsc::channel::<Result<_, axum::Error>>(4);
    let read = async move {
        let Ok(Some(mut file)) = form.next_field().await else { return };
        loop {
            let piece = match file.chunk().await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => break,
                Err(error) => Err(axum::Error::new(error)),
            };
            if pieces.send(piece).await.is_err() {
                break; // the platform wants no more of it
            }
        }
    };
    let body = stream::unfold(body, async |mut body| body.recv().await.map(|piece| (piece, body))).boxed();
    let sent = admin.platform.package(id, &visitor.asker, Body::from_stream(body));
    let (sent, ()) = tokio::join!(sent, read);
    sent.map_err(|error| refused(&error))
}

fn refused(error: &Error) -> Refusal {
    app::refused(error)
}

/// What became of a release, in a sentence.
fn told(outcome: &Outcome) -> (bool, String) {
    let good = outcome.state == "running";
    let text = if good {
        let runs = format!("Version {} has taken over: it runs, and answers.", short(&outcome.release));
        let but = Some(&outcome.ungranted).filter(|ungranted| !ungranted.is_empty());
        but.map_or_else(|| runs.clone(), |ungranted| format!("{runs} But {ungranted}."))
    } else if outcome.reason.is_empty() {
        "The new version did not come up. The one before goes on.".to_owned()
    } else {
        format!("The new version did not come up: {}. The one before goes on.", outcome.reason)
    };
    (good, text)
}

fn said(outcome: Result<Outcome, Refusal>) -> Response {
    match outcome {
        Ok(outcome) => {
            let (good, text) = told(&outcome);
            Json(json!({ "good": good, "text": text, "log": outcome.log })).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn shown(admin: &Admin, visitor: &Visitor, id: &str, outcome: Result<Outcome, Refusal>) -> Response {
    let notice = match &outcome {
        Ok(outcome) => match told(outcome) {
            (true, text) => Notice::Good(text),
            (false, text) => Notice::Bad(format!("{text} {}", outcome.log.join(" · "))),
        },
        Err(refusal) => Notice::from(refusal),
    };
    match app::with(admin, visitor, id, Some(&notice)).await {
        Ok(page) => page.into_response(),
        Err(answer) => answer,
    }
}

/// `POST /apps/{id}/rollback`
pub(crate) async fn roll_back(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    sent: Sent,
) -> Response {
    let outcome = admin.platform.roll_back(&id, sent.field("release"), &sent.by.asker).await;
    match outcome.map_err(|error| refused(&error)) {
        Ok(outcome) if outcome.state == "running" => {
            match app::answer(&admin, &sent, &id, Ok("released")).await {
                Ok(answer) | Err(answer) => answer,
            }
        }
        outcome => shown(&admin, &sent.by, &id, outcome).await,
    }
}

/// Where a browser left off, which it says itself only when it comes back by itself.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct From {
    after: String,
}

/// `GET /apps/{id}/logs`: as the platform sends them, from where the browser left off.
pub(crate) async fn logs(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    visitor: Visitor,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let told = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = told.or(Some(from.after.as_str())).filter(|cursor| !cursor.is_empty());
    let answer = admin.platform.logs(&id, after, &visitor.asker).await?;
    let (head, body) = answer.into_parts();
    let headers = [(CONTENT_TYPE, "text/event-stream"), (axum::http::header::CACHE_CONTROL, "no-store")];
    Ok((head.status, headers, body).into_response())
}
