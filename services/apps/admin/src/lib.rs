//! The admin app: which applications there are and who may open them is decided here; what they are doing is asked of the
//! platform (`platform.rs`) and never kept.
//!
//! ```text
//! people ── pages (ui.rs) ──┐                        ┌── /api/applications, /api/poll ── provider
//! clients ── /api/publish ──┼─> events.rs ─> store.rs ─┴── /internal/dologin, user, checkAccess ── login
//! debug-api ─ /internal/adopt ┘
//! ```
//! Who gets here at all is the proxy's to say; who gets anything is said here once more, by the rules of this moment
//! (`Administrator`), so that access that was taken is gone at once.

mod api;
mod events;
mod internal;
mod names;
mod outbox;
mod password;
mod platform;
mod rules;
mod store;
mod terms;
mod ui;

use std::{
    env,
    io::{self, BufRead},
    process::ExitCode,
    sync::Arc,
};

use axum::{
    Router,
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
    routing::{get, post},
};
use nexushub_applib::{
    Identity, Refusal, Settings, User,
    calls::Entrance,
    csrf::Csrf,
    db::Db,
    identity::address,
    serve_then, text,
    time::{self, Clock, Unix},
    told_to_stop,
};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    password::Passwords,
    platform::Platform,
    store::{ADMIN, Event},
};

/// The first administrator's name.
const FIRST: &str = "admin";

/// What every request needs.
pub(crate) struct Admin {
    pub db: Db,
    pub platform: Platform,
    pub passwords: Passwords,
    pub csrf: Csrf,
    /// The number of the last event.
    pub last: watch::Sender<i64>,
    pub polls: Semaphore,
    /// Whether the app is about to end: what is held open ends now, so that whoever asks comes to the version after it.
    pub leaving: watch::Sender<bool>,
    /// Somebody's sessions are to end.
    pub ended: Notify,
    /// Something was changed, of which the platform has not heard yet.
    pub changed: Notify,
    clock: Clock,
    /// Host names are relative to it.
    pub base: String,
    /// Where the login app's pages are, as `https://login.<base>:<port>`.
    pub login: String,
    /// What follows an app's host name in its address: the base domain and the port.
    pub suffix: String,
}

impl Admin {
    pub(crate) async fn new(
        db: Db,
        entrance: Entrance,
        settings: &Settings,
        clock: Clock,
    ) -> Result<Arc<Self>, Refusal> {
        let suffix =
            settings.host.split_once('.').map_or(settings.host.as_str(), |(_, rest)| rest).to_owned();
        let last = db.run(|tx| Ok::<_, Refusal>(store::last_event(tx)?)).await?;
        Ok(Arc::new(Self {
            db,
            platform: Platform(entrance),
            passwords: Passwords::new()?,
            csrf: Csrf::of(&settings.secret),
            last: watch::Sender::new(last),
            polls: Semaphore::new(api::POLLS),
            leaving: watch::Sender::new(false),
            ended: Notify::new(),
            changed: Notify::new(),
            clock,
            base: suffix.split(':').next().unwrap_or_default().to_owned(),
            login: format!("https://login.{suffix}"),
            suffix,
        }))
    }

    pub(crate) fn now(&self) -> Unix {
        (self.clock)()
    }

    /// There is this event, if not a later one: whoever waits for it has it.
    pub(crate) fn heard_of(&self, event: i64) {
        self.last.send_if_modified(|last| std::mem::replace(last, event.max(*last)) < event);
    }

    /// An event was recorded here.
    pub(crate) fn recorded(&self, event: i64) {
        self.heard_of(event);
        self.changed.notify_one();
    }

    /// Has login end every session of a user, soon: their access tokens would end by themselves within ten minutes.
    pub(crate) async fn sign_out(&self, user: i64, by: &Asker) -> Result<(), Refusal> {
        let (at, Asker { name, from }) = (self.now(), by.clone());
        let event = self.db.run(move |tx| {
            store::revoke(tx, user)?;
            let (what, said) = ("EndSessions".into(), json!({ "userId": user }).to_string());
            let event = Event { id: 0, what, at, by: name, said };
            Ok::<_, Refusal>(store::record(tx, &uuid::Uuid::new_v4().to_string(), &event, &from)?)
        });
        self.recorded(event.await?);
        self.ended.notify_one();
        Ok(())
    }

    /// Makes the first administrator, if there is nobody at all, with the password of this hash.
    async fn first_administrator(&self, hash: Option<String>) -> Result<(), Refusal> {
        let hash = hash.filter(|hash| password::is_hash(hash));
        let now = self.now();
        self.db
            .run(move |tx| {
                if !store::users(tx)?.is_empty() {
                    return Ok(());
                }
                let Some(hash) = hash else {
                    eprintln!("there is nobody who could sign in: set ADMIN_PASSWORD_HASH (nexushub-admin hash-password)");
                    return Ok(());
                };
                let id = store::add_user(tx, FIRST, &hash, now)?;
                Ok(store::make_administrator(tx, id, now)?)
            })
            .await
    }

    /// Gives the first administrator the password of this hash, the right to open admin, and an end to every session: the way
    /// back for who has lost the password. Each hash counts once, or a password that was changed since would be undone.
    async fn reset_administrator(&self, hash: Option<String>) -> Result<(), Refusal> {
        let Some(hash) = hash.filter(|hash| password::is_hash(hash)) else { return Ok(()) };
        let now = self.now();
        let once = format!("reset-{}", text::hex(&text::digest(&hash)));
        let reset = self.db.run(move |tx| {
            if store::event_by(tx, &once)?.is_some() {
                return Ok::<_, Refusal>(None);
            }
            let user = match store::user_named(tx, FIRST)? {
                Some((user, _)) => user.id,
                None => store::add_user(tx, FIRST, &hash, now)?,
            };
            store::set_hash(tx, user, &hash)?;
            store::make_administrator(tx, user, now)?;
            store::revoke(tx, user)?;
            let (what, by) = ("ResetAdministrator".into(), "nexushub bootstrap".into());
            let said = json!({ "userId": user }).to_string();
            Ok(Some(store::record(tx, &once, &Event { id: 0, what, at: now, by, said }, "")?))
        });
        if let Some(event) = reset.await? {
            self.recorded(event);
            self.ended.notify_one();
        }
        Ok(())
    }
}

/// Who asks for something, as it is written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asker {
    pub name: String,
    /// The address; empty where it is not known.
    pub from: String,
}

/// A person whom this app's own rules let in, at this moment.
#[derive(Debug, Clone)]
pub(crate) struct Administrator {
    pub user: User,
    pub asker: Asker,
}

impl<S: Send + Sync> FromRequestParts<S> for Administrator
where
    Arc<Admin>: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let who = <Identity as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        let (admin, user) = (Arc::<Admin>::from_ref(state), who.person()?.clone());
        let id = user.id;
        let may = admin.db.run(move |tx| Ok::<_, Refusal>(store::may_open(tx, id, ADMIN)?)).await?;
        let asker = Asker { name: user.name.clone(), from: address(&parts.headers).to_owned() };
        may.then_some(Self { user, asker })
            .ok_or_else(|| Refusal::forbidden("you may not open this app any more"))
    }
}

/// Everything that the app answers.
pub(crate) fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/api/applications", get(api::applications))
        .route("/api/poll", get(api::poll))
        .route("/api/publish", post(api::publish))
        .route("/api/users", get(api::users))
        .route("/api/user-access-rules", get(api::rules))
        .route("/internal/dologin", post(internal::do_login))
        .route("/internal/user", post(internal::user))
        .route("/internal/checkAccess", post(internal::check_access))
        .route("/internal/setPassword", post(internal::set_password))
        .route("/internal/adopt", post(internal::adopt))
        .merge(ui::routes())
        .with_state(admin)
}

/// Runs the app until it is told to stop.
///
/// # Errors
/// When its database or its port can't be had.
pub fn run() -> io::Result<()> {
    let [first, reset] = ["ADMIN_PASSWORD_HASH", "ADMIN_PASSWORD_RESET"].map(|name| env::var(name).ok());
    serve_then(Settings::from_env()?, async |settings| {
        let db = Db::open(&settings.data.join("admin.sqlite"), store::STEPS).map_err(io::Error::other)?;
        let entrance = Entrance::from_env(&settings)?;
        let admin = Admin::new(db, entrance, &settings, time::clock()).await.map_err(io::Error::other)?;
        admin.first_administrator(first).await.map_err(io::Error::other)?;
        admin.reset_administrator(reset).await.map_err(io::Error::other)?;
        let delivering = tokio::spawn(outbox::deliver(Arc::clone(&admin)));
        tokio::spawn(api::overhear(Arc::clone(&admin)));
        let (told, leaving) = (told_to_stop()?, Arc::clone(&admin));
        tokio::spawn(async move {
            told.await;
            leaving.leaving.send_replace(true);
        });
        let last = Arc::clone(&admin);
        let last = async move {
            delivering.abort();
            drop(delivering.await);
            outbox::rest(&last).await;
        };
        Ok((routes(admin), last))
    })
}

/// Reads a password from the standard input and prints its hash: what `ADMIN_PASSWORD_HASH` takes.
///
/// # Errors
/// When the standard input can't be read.
pub fn hash_password() -> io::Result<ExitCode> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']);
    match password::judge(password, "admin").and_then(|()| password::hash(password)) {
        Ok(hash) => {
            println!("{hash}");
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            eprintln!("nexushub-admin: {refusal}");
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests;
