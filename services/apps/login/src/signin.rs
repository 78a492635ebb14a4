//! The sign-in page, and the way back to the app that sent somebody here.
//!
//! ```text
//! /signin?app&state ── signed in? ── no ──> the form ── right ──> (a session; the same again)
//!                          └─ yes ── may open the app? ── yes ──> /public/return?app&code&state, the proxy's
//!                                          └─ no ──> says so, and offers to sign in as somebody else
//! ```

use std::sync::Arc;

use axum::{
    extract::{Form, Query, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use nexushub_applib::{
    Refusal,
    page::see_other,
    text::{cookie, percent, random, sentence},
};
use serde::Deserialize;

use crate::{
    Login, PAGES, add_cookie,
    config::is_instance,
    directory, hand, held, is_foreign,
    oidc::Issuer,
    origin,
    public::{Credentials, No, authenticate},
    store::{self, Asked, Granted, Session},
    view,
};

/// What a form without a session is bound to.
const VISITOR: &str = "__Host-YCS";
/// Characters of an app's name that are shown.
const NAME_MAX: usize = 64;

/// The app that somebody comes from, as the proxy wrote it into the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Errand {
    pub app: String,
    pub state: String,
    pub name: String,
}

impl Errand {
    /// Nowhere, or an app with a state.
    pub(crate) fn judged(mut self) -> Result<Self, Refusal> {
        self.name = self.name.chars().filter(|char| !char.is_control()).take(NAME_MAX).collect();
        let is_state = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let whole = is_instance(&self.app)
            && (16..=128).contains(&self.state.len())
            && self.state.bytes().all(is_state);
        let none = self.app.is_empty() && self.state.is_empty();
        (whole || none)
            .then_some(self)
            .ok_or_else(|| Refusal::bad("this link is not whole; open the app once more"))
    }

    fn is_none(&self) -> bool {
        self.app.is_empty()
    }

    /// Where the same is asked again.
    pub(crate) fn path(&self) -> String {
        self.below("/signin")
    }

    /// Where a provider is asked who somebody is.
    pub(crate) fn start(&self) -> String {
        self.below("/public/oidc/start")
    }

    fn below(&self, path: &str) -> String {
        if self.is_none() {
            return path.to_owned();
        }
        let Self { app, state, name } = self;
        format!("{path}?app={}&state={}&name={}", percent(app), percent(state), percent(name))
    }
}

/// What the form sends.
#[derive(Deserialize)]
pub(crate) struct Filled {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    csrf: String,
    #[serde(flatten)]
    errand: Errand,
}

/// Whose browser it is, by the token that this page made: what clients hold counts for clients.
pub(crate) async fn session(
    login: &Login,
    headers: &HeaderMap,
) -> Result<Option<(String, Session)>, Refusal> {
    let Some(token) = held(headers, PAGES).map(str::to_owned) else { return Ok(None) };
    let asked = login.asked(headers);
    login
        .db
        .run(move |tx| {
            let session = store::look(tx, &token, None, &asked)?;
            Ok(session.ok().map(|session| (token, session)))
        })
        .await
}

/// `GET /signin`
pub(crate) async fn show(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Query(errand): Query<Errand>,
) -> Result<Response, Response> {
    let errand = errand.judged().map_err(trouble)?;
    match session(&login, &headers).await.map_err(trouble)? {
        None => Ok(form(&login, &headers, &errand, "", None)),
        Some(_) if errand.is_none() => Ok(see_other("/")),
        Some((token, session)) => {
            send_back(&login, &errand, token, session, login.asked(&headers)).await.map_err(trouble)
        }
    }
}

/// Sends somebody who is signed in back to the app, with a code that the proxy redeems.
async fn send_back(
    login: &Login,
    errand: &Errand,
    token: String,
    session: Session,
    asked: Asked,
) -> Result<Response, Refusal> {
    let may = login
        .directory
        .may_open(session.person.id, &errand.app)
        .await
        .map_err(|error| directory::away(&error))?;
    if !may {
        let csrf = login.csrf.token(&session.id);
        return Ok(view::denied(errand, &session.person.name, &csrf)
            .status(StatusCode::FORBIDDEN)
            .into_response());
    }
    let Errand { app, state, .. } = errand.clone();
    let issued = login.db.run(move |tx| {
        let Ok(next) = store::rotate(tx, &token, None, &asked)? else { return Ok::<_, Refusal>(None) };
        let code = store::issue(tx, &next.session, &app, &state, asked.at)?;
        Ok(Some((next, code)))
    });
    let Some((next, code)) = issued.await? else { return Ok(see_other(&errand.path())) };
    let Errand { app, state, .. } = errand;
    let mut answer = see_other(&format!(
        "/public/return?app={}&code={}&state={}",
        percent(app),
        percent(&code),
        percent(state)
    ));
    hand(&mut answer, PAGES, &next.token);
    Ok(answer)
}

/// `POST /signin`
pub(crate) async fn submit(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Form(filled): Form<Filled>,
) -> Result<Response, Response> {
    let errand = filled.errand.judged().map_err(trouble)?;
    let visitor = cookie(&headers, VISITOR).unwrap_or_default();
    if is_foreign(&headers, &login.host) || !login.csrf.holds(visitor, &filled.csrf) {
        let (stale, status) = (sentence(&Refusal::stale_form().text), StatusCode::FORBIDDEN);
        return Ok(form(&login, &headers, &errand, &filled.username, Some((&stale, status))));
    }
    let before = session(&login, &headers).await.map_err(trouble)?;
    let claimed = Credentials { username: filled.username, password: filled.password };
    match authenticate(&login, &claimed, origin(&headers)).await {
        Ok(granted) => welcome(&login, before, &granted, &errand).await.map_err(trouble),
        Err(no) => Ok(told(&login, &headers, &errand, &claimed.username, no)),
    }
}

/// Leads somebody on who is signed in now; the session that they had before ends.
pub(crate) async fn welcome(
    login: &Login,
    before: Option<(String, Session)>,
    granted: &Granted,
    errand: &Errand,
) -> Result<Response, Refusal> {
    if let Some((_, old)) = before {
        login.db.run(move |tx| Ok::<_, Refusal>(store::end(tx, &old.id)?)).await?;
        login.stir();
    }
    // A page that goes on by itself, not a redirect: a browser lets a form lead to its own site only, and the way back to the
    // app leads further.
    let mut answer = view::going_on(&errand.path()).into_response();
    hand(&mut answer, PAGES, &granted.token);
    Ok(answer)
}

fn told(login: &Login, headers: &HeaderMap, errand: &Errand, name: &str, no: No) -> Response {
    let (text, status, wait) = match no {
        No::Wrong => ("That name and password don't go together.".to_owned(), StatusCode::UNAUTHORIZED, None),
        No::Wait(seconds) => {
            let text = format!("Too many attempts. Please wait {} and try again.", view::duration(seconds));
            (text, StatusCode::TOO_MANY_REQUESTS, Some(seconds))
        }
        No::Refused(refusal) => (format!("Sorry: {}.", refusal.text), refusal.status, Some(2)),
    };
    let mut answer = form(login, headers, errand, name, Some((&text, status)));
    if let Some(Ok(seconds)) = wait.map(|seconds| seconds.to_string().parse()) {
        answer.headers_mut().insert(RETRY_AFTER, seconds);
    }
    answer
}

fn form(
    login: &Login,
    headers: &HeaderMap,
    errand: &Errand,
    name: &str,
    wrong: Option<(&str, StatusCode)>,
) -> Response {
    let known = cookie(headers, VISITOR).filter(|visitor| visitor.len() == 43);
    let visitor = known.map_or_else(random, str::to_owned);
    let provider = login.issuer.as_ref().map(Issuer::name);
    let page =
        view::sign_in(errand, name, wrong.map(|(text, _)| text), &login.csrf.token(&visitor), provider);
    let mut answer = page.status(wrong.map_or(StatusCode::OK, |(_, status)| status)).into_response();
    if known.is_none() {
        add_cookie(&mut answer, &format!("{VISITOR}={visitor}; Path=/; HttpOnly; Secure; SameSite=Lax"));
    }
    answer
}

/// A refusal as a page.
#[allow(clippy::needless_pass_by_value)] // it is what errors are mapped by
pub(crate) fn trouble(refusal: Refusal) -> Response {
    view::trouble(&refusal.text).status(refusal.status).into_response()
}
