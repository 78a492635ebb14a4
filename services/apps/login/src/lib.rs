//! The login app: who is signed in where. It owns sessions and refresh tokens; the proxy signs access tokens once login has
//! confirmed; the admin app knows passwords and who may open what.
//!
//! ```text
//! browser or client ── /public/login, /signin ──> login ── /internal/dologin, checkAccess ──> admin
//! browser ── /public/oidc/... (oidc.rs) ──> login ── an identity provider, then /internal/user ──> admin
//! proxy ── /internal/access_token, redeem, logout ──> login ── revocations (outbox.rs) ──> proxy
//! ```
//! `family.rs` (what a refresh token is worth) and `guesses.rs` (who has to wait) are pure, as is `room.rs`; `store.rs` is what is kept.

mod account;
mod config;
mod directory;
mod family;
mod guesses;
mod internal;
mod oidc;
mod outbox;
mod public;
mod room;
mod signin;
mod store;
mod view;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, header},
    response::Response,
    routing::{get, post},
};
use nexushub_applib::{
    Refusal, Settings,
    calls::Entrance,
    csrf::Csrf,
    db::Db,
    identity::address,
    page, serve_then, text,
    time::{self, Clock, Unix},
};
use tokio::sync::Notify;

use crate::{
    directory::Directory,
    guesses::Guesses,
    oidc::Issuer,
    room::Room,
    store::{Asked, Entry, Origin},
};

/// Bytes of any request's body: names and passwords.
const BODY_MAX: usize = 16 * 1024;
/// Bytes of what a browser calls itself that are kept.
const AGENT_MAX: usize = 200;

/// The cookie in which clients of the HTTP contract hold a refresh token.
pub(crate) const CLIENTS: &str = "YRT";
/// The one in which browsers hold that of these pages. Its name has browsers take it from this host alone; `YRT` a script of a sibling
/// host could plant, and somebody would use the session of another unawares.
pub(crate) const PAGES: &str = "__Host-YRT";

/// What every request needs.
pub(crate) struct Login {
    pub db: Db,
    pub directory: Directory,
    pub csrf: Csrf,
    /// Who else may say who somebody is.
    pub issuer: Option<Issuer>,
    guesses: Mutex<Guesses>,
    /// For refusals of which the platform is told.
    room: Mutex<Room>,
    clock: Clock,
    /// Its own host name, where a request doesn't tell another.
    pub host: String,
    /// Something new is in the outbox.
    pub news: Notify,
    /// Something was written down, of which the platform has not heard yet.
    pub noted: Notify,
}

impl Login {
    pub(crate) fn new(
        db: Db,
        entrance: Entrance,
        issuer: Option<Issuer>,
        settings: &Settings,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            db,
            directory: Directory(entrance),
            csrf: Csrf::of(&settings.secret),
            issuer,
            guesses: Mutex::default(),
            room: Mutex::default(),
            clock,
            host: settings.host_name().to_owned(),
            news: Notify::new(),
            noted: Notify::new(),
        })
    }

    pub(crate) fn now(&self) -> Unix {
        (self.clock)()
    }

    /// Sessions may have ended, or something was written down: whoever is to hear of it is told soon.
    pub(crate) fn stir(&self) {
        self.news.notify_one();
        self.noted.notify_one();
    }

    /// Writes down that something was refused.
    pub(crate) async fn refused(&self, entry: Entry) -> Result<(), Refusal> {
        let site = guesses::site(&entry.address);
        let told = self.room.lock().unwrap_or_else(PoisonError::into_inner).take(site, entry.at);
        let note = if told { store::audit } else { store::note };
        self.db.run(move |tx| Ok::<_, Refusal>(note(tx, &entry)?)).await?;
        self.noted.notify_one();
        Ok(())
    }

    /// When and from where a request came.
    pub(crate) fn asked(&self, headers: &HeaderMap) -> Asked {
        Asked { at: self.now(), from: address(headers).to_owned() }
    }

    /// Takes up who has to wait from before a restart.
    pub(crate) async fn recall(&self) -> Result<(), Refusal> {
        let since = self.now() - guesses::FORGOTTEN;
        let attempts = self.db.run(move |tx| Ok::<_, Refusal>(store::attempts(tx, since)?)).await?;
        for (right, name, address, at) in attempts {
            self.guesses().recall(&name, &address, right, at);
        }
        Ok(())
    }

    pub(crate) fn guesses(&self) -> MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that the app answers.
pub(crate) fn routes(login: Arc<Login>) -> Router {
    Router::new()
        .route("/public/login", post(public::login))
        .route("/public/oidc/start", get(oidc::start))
        .route("/public/oidc/return", get(oidc::back))
        .route("/internal/access_token", post(internal::access_token))
        .route("/internal/redeem", post(internal::redeem))
        .route("/internal/logout", post(internal::logout))
        .route("/internal/revoke", post(internal::revoke))
        .route("/signin", get(signin::show).post(signin::submit))
        .route("/signout", post(account::sign_out))
        .route("/", get(account::show))
        .route("/session/end", post(account::end_session))
        .route("/everywhere", post(account::end_everywhere))
        .route("/password", post(account::change_password))
        .route("/public/style.css", get(async || page::file("text/css; charset=utf-8", page::STYLE)))
        .fallback(account::missing)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(login)
}

/// Runs the app until it is told to stop.
///
/// # Errors
/// When its database or its port can't be had.
pub fn run() -> io::Result<()> {
    serve_then(Settings::from_env()?, async |settings| {
        let db = Db::open(&settings.data.join("login.sqlite"), store::STEPS).map_err(io::Error::other)?;
        let (entrance, issuer) = (Entrance::from_env(&settings)?, oidc::from_env(&settings));
        let login = Login::new(db, entrance, issuer, &settings, time::clock());
        login.recall().await.map_err(|refusal| io::Error::other(refusal.text))?;
        let delivering = tokio::spawn(outbox::deliver(Arc::clone(&login)));
        let last = Arc::clone(&login);
        let last = async move {
            delivering.abort();
            drop(delivering.await);
            outbox::rest(&last).await;
        };
        Ok((routes(login), last))
    })
}

/// Where a request came from, as the proxy says.
pub(crate) fn origin(headers: &HeaderMap) -> Origin {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Origin { address: address(headers).to_owned(), agent: agent.chars().take(AGENT_MAX).collect() }
}

/// The host that was asked, without the port.
pub(crate) fn asked_host<'a>(headers: &'a HeaderMap, otherwise: &'a str) -> &'a str {
    let authority =
        headers.get("x-forwarded-host").and_then(|value| value.to_str().ok()).unwrap_or(otherwise);
    authority.split(':').next().unwrap_or_default()
}

/// Whether another site had a browser send this: what a form or a script of that site may send without asking.
pub(crate) fn is_foreign(headers: &HeaderMap, otherwise: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let host = text("x-forwarded-host").unwrap_or(otherwise);
    text("origin").is_some_and(|origin| origin.strip_prefix("https://") != Some(host))
}

/// The refresh token in a cookie.
pub(crate) fn held<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    text::cookie(headers, cookie).filter(|token| !token.is_empty())
}

/// Has a client or a browser hold a refresh token, for this host alone.
pub(crate) fn hand(response: &mut Response, cookie: &str, token: &str) {
    let life = family::LIFE;
    add_cookie(
        response,
        &format!("{cookie}={token}; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age={life}"),
    );
}

/// Has a browser forget it, under either name: one that these pages gave before they had a name of their own would live on.
pub(crate) fn clear_cookies(response: &mut Response) {
    for cookie in [PAGES, CLIENTS] {
        add_cookie(response, &format!("{cookie}=; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=0"));
    }
}

pub(crate) fn add_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = cookie.parse() {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests;
