//! Signing in by an identity provider (OpenID Connect: authorisation code with PKCE), beside passwords.
//!
//! ```text
//! /signin ── /public/oidc/start ──> the provider ──> /public/oidc/return?code&state ── a user of admin's? ──> as with a password
//!              state, nonce, verifier kept;             taken once, by the same browser;
//!              a cookie says whose browser              the code redeemed, the ID token judged
//! ```
//! `config.rs`, `provider.rs`, `keys.rs` and `token.rs` judge and are pure; `issuer.rs` asks. Where a browser goes is the provider's
//! endpoint or a path of this app, whatever a link says. What went wrong in detail is told to the log and to the audit trail.

mod config;
mod issuer;
mod keys;
mod provider;
#[cfg(test)]
mod signer;
mod token;

use std::{env, sync::Arc};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use nexushub_applib::{
    Refusal, Settings,
    page::see_other,
    text::{cookie, random},
};
use serde::Deserialize;

use self::{config::Config, issuer::Trouble};
pub(crate) use self::{issuer::Issuer, provider::Secrets};
use crate::{
    Login, add_cookie, directory, guesses, origin,
    public::admit,
    signin::{Errand, session, trouble, welcome},
    store::{
        Entry,
        departures::{self, Departure, LIFE},
    },
    view,
};

/// By which a browser is known until it comes back.
const BROWSER: &str = "__Host-YOS";
/// Bytes of a code; a longer one is none.
const CODE_MAX: usize = 4096;

/// The provider that the environment names. A configuration that can't be is said, and people sign in by password alone.
pub(crate) fn from_env(settings: &Settings) -> Option<Issuer> {
    let read = Config::read(|name| env::var(name).ok());
    let made = read.and_then(|config| config.map(|config| Issuer::new(config, &settings.host)).transpose());
    made.unwrap_or_else(|why| {
        eprintln!("sign-in by an identity provider is off, passwords go on: {why}");
        None
    })
}

/// What a provider sends a browser back with.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Back {
    state: String,
    code: String,
    error: String,
    iss: Option<String>,
}

/// Why somebody who came back is not signed in.
enum No {
    /// They, or the provider, did not want to.
    Declined(String),
    /// There was trouble with the provider.
    Trouble(Trouble),
    /// The provider knows them, admin doesn't.
    Stranger(String),
    /// Too much of that from their address: so many seconds to wait.
    Wait(i64),
    /// Nobody can tell just now.
    Refused(Refusal),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Trouble> for No {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

fn issuer(login: &Login) -> Result<&Issuer, Refusal> {
    login.issuer.as_ref().ok_or_else(|| Refusal::missing("people sign in by password here"))
}

/// `GET /public/oidc/start`: keeps where somebody goes on, and sends them to the provider.
pub(crate) async fn start(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Query(errand): Query<Errand>,
) -> Result<Response, Response> {
    let issuer = issuer(&login).map_err(trouble)?;
    let errand = errand.judged().map_err(trouble)?;
    let now = login.now();
    let secrets = Secrets { state: random(), nonce: random(), verifier: random() };
    let to = match issuer.authorize(&secrets, now).await {
        Ok(to) => to,
        Err(trouble) => {
            eprintln!("nobody can sign in by {} just now: {trouble}", issuer.name());
            return Err(said(issuer, &errand, &No::Trouble(trouble)));
        }
    };
    // One cookie for all that a browser has begun: two tabs are no mistake.
    let known = cookie(&headers, BROWSER).filter(|browser| browser.len() == 43);
    let browser = known.map_or_else(random, str::to_owned);
    let mut answer = see_other(&to);
    let of = format!("{BROWSER}={browser}; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age={LIFE}");
    add_cookie(&mut answer, &of);
    let network = guesses::network(&origin(&headers).address);
    let kept =
        login.db.run(move |tx| Ok(departures::depart(tx, &secrets, &browser, &network, &errand, now)?));
    kept.await.map_err(trouble)?;
    Ok(answer)
}

/// `GET /public/oidc/return`: who comes back from the provider.
pub(crate) async fn back(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Result<Response, Response> {
    let (issuer, now) = (issuer(&login).map_err(trouble)?, login.now());
    let browser = cookie(&headers, BROWSER).unwrap_or_default().to_owned();
    let state = back.state.clone();
    let left = login.db.run(move |tx| Ok(departures::arrive(tx, &state, &browser, now)?));
    let Some(left) = left.await.map_err(trouble)? else {
        // Not in the audit trail: anybody could fill it with what they made up.
        let why = "This sign-in was used already, was begun in another browser, or took too long.";
        return Err(view::not_signed_in(&Errand::default(), why)
            .status(StatusCode::FORBIDDEN)
            .into_response());
    };
    let attempt = login.guesses().begin_return(&origin(&headers).address, now);
    let attempt = attempt.map_err(|wait| said(issuer, &left.errand, &No::Wait(wait)))?;
    match arrived(&login, issuer, &headers, &back, &left).await {
        Ok(answer) => {
            login.guesses().right(&attempt);
            Ok(answer)
        }
        Err(no) => {
            note(&login, issuer, &headers, &left, &no).await.map_err(trouble)?;
            Err(said(issuer, &left.errand, &no))
        }
    }
}

async fn arrived(
    login: &Login,
    issuer: &Issuer,
    headers: &HeaderMap,
    back: &Back,
    left: &Departure,
) -> Result<Response, No> {
    if !back.error.is_empty()
        || back.code.is_empty()
        || back.code.len() > CODE_MAX
        || !issuer.is(back.iss.as_deref())
    {
        return Err(No::Declined(word(&back.error)));
    }
    let name = issuer.who(&back.code, left, login.now()).await?;
    let known = login.directory.named(&name).await.map_err(|error| directory::away(&error))?;
    let Some(person) = known.filter(|person| issuer.means(&name, &person.name)) else {
        return Err(No::Stranger(name));
    };
    let before = session(login, headers).await?;
    let by = format!("by {}", issuer.name());
    let granted = admit(login, person, origin(headers), &by).await?;
    Ok(welcome(login, before, &granted, &left.errand).await?)
}

/// Writes down why somebody is not signed in.
async fn note(
    login: &Login,
    issuer: &Issuer,
    headers: &HeaderMap,
    left: &Departure,
    no: &No,
) -> Result<(), Refusal> {
    let (name, why) = match no {
        No::Declined(word) if word.is_empty() => {
            ("", "it sent back neither an error nor a code that can be used".to_owned())
        }
        No::Declined(word) => ("", format!("it declined: {word}")),
        No::Trouble(trouble) => ("", trouble.to_string()),
        No::Stranger(name) => (name.as_str(), "there is no user of this name".to_owned()),
        No::Wait(seconds) => ("", format!("too many attempts; {seconds} s to wait")),
        No::Refused(refusal) => ("", refusal.text.clone()),
    };
    eprintln!("nobody was signed in by {}: {why}", issuer.name());
    let entry = Entry {
        at: login.now(),
        what: "refusal".into(),
        name: name.to_owned(),
        address: origin(headers).address,
        app: left.errand.app.clone(),
        detail: format!("by {}: {why}", issuer.name()),
        ..Entry::default()
    };
    login.refused(entry).await
}

/// Tells somebody that they are not signed in, and what to do.
fn said(issuer: &Issuer, errand: &Errand, no: &No) -> Response {
    let by = issuer.name();
    let (status, text) = match no {
        No::Declined(_) => (StatusCode::FORBIDDEN, format!("{by} did not sign you in.")),
        No::Trouble(Trouble::Unfit(_)) => {
            let text = format!(
                "What {by} said of you is not enough to sign you in. An administrator finds the reason in the log."
            );
            (StatusCode::FORBIDDEN, text)
        }
        No::Trouble(_) => {
            let text =
                format!("{by} can't be asked just now. Please try again in a moment, or use a password.");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        No::Stranger(name) => {
            let text = format!(
                "{by} knows you as {name}, but there is no such user here. An administrator can add one."
            );
            (StatusCode::FORBIDDEN, text)
        }
        No::Wait(seconds) => {
            let text = format!("Too many attempts. Please wait {} and try again.", view::duration(*seconds));
            (StatusCode::TOO_MANY_REQUESTS, text)
        }
        No::Refused(refusal) => (refusal.status, format!("Sorry: {}.", refusal.text)),
    };
    view::not_signed_in(errand, &text).status(status).into_response()
}

/// An error's word as it may be written down: RFC 6749 has letters, digits and a few signs.
fn word(text: &str) -> String {
    text.chars().filter(|char| char.is_ascii_alphanumeric() || "_-.".contains(*char)).take(64).collect()
}

#[cfg(test)]
mod tests;
