//! A debug application becomes permanent (`install-package`): the admin app gets it, and from then on says how it is called, where it
//! answers and whether it runs. Instance, release and data stay what and where they are, so it runs on.
//!
//! ```text
//! noted ─▶ admin has it ─▶ provider has it from admin ─▶ its release is the application's package ─▶ done, provider keeps its ground
//!   └─ admin refuses, or certainly was not asked: forgotten
//! done ─▶ admin lets go of it ─▶ a debug application again, stopped, and kept with its data until its developer deletes it
//! ```
//! Every arrow may be the last before a crash, and may be done again. From the first on it doesn't expire, and what would change it
//! by these calls is refused: it is the admin app's. Who can't tell whether admin has heard asks again (it takes the same twice as
//! once), also when the caller has gone, also after a restart; what came of it is noted in the audit log, once, when it is known.

use std::{sync::Arc, time::Duration};

use nexushub_chassis::{chain, retry::Retry, shutdown::Shutdown};
use nexushub_proto::provider::{self, ListInstancesResponse, Origin};
use serde::Deserialize;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    applications::{App, Hub, Promoting},
    audit::Asker,
    claims,
    error::ApiError,
    folders::unhurried,
    install,
    names::Description,
    peers::is_refusal,
    record::{Promotion, Wanted},
    register::Registration,
};

/// Digits of a package's digest that people see.
const DIGITS: usize = 12;

/// How a permanent application is to be called; what is not said is as it was.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Wish {
    /// The application's id in the admin app.
    pub(crate) name: Option<String>,
    pub(crate) display_name: Option<String>,
    pub(crate) host_name: Option<String>,
}

/// How far it has come.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It is permanent, and called so.
    Done(Description),
    /// Admin, or provider, has not confirmed it yet; it goes on.
    UnderWay(Description),
}

/// Installs what was uploaded, if it isn't yet, and makes it permanent. Goes on when the caller has gone.
pub(crate) async fn promote(
    hub: &Arc<Hub>,
    app: &Arc<App>,
    wish: Wish,
    asker: Asker,
) -> Result<Progress, ApiError> {
    let (hub, app) = (Arc::clone(hub), Arc::clone(app));
    unhurried(async move {
        let promoted = try_to(&hub, &app, wish, &asker).await;
        noted(&hub, &app, &asker, promoted)
    })
    .await
}

async fn try_to(hub: &Arc<Hub>, app: &Arc<App>, wish: Wish, asker: &Asker) -> Result<Progress, ApiError> {
    let _promoting = Promoting::begin(app);
    if !app.is_permanent() {
        // Else the install that comes first would take up what was just given up.
        if let Some(why) = app.record().failed {
            let why = why.lines().next().unwrap_or_default();
            return Err(ApiError::Installation(format!(
                "its newest release was given up ({why}); bring another, or roll back first"
            )));
        }
        let installed = install::install(hub, app, None).await?;
        if let Some(why) = installed.not_started {
            return Err(ApiError::Installation(why));
        }
    }
    let _working = app.work.lock().await;
    app.present()?;
    let record = app.record();
    match record.promotion {
        Some(promotion) => hand_over(hub, app, promotion, Heard::Maybe).await,
        None if record.wanted == Wanted::Run && record.settled => {
            let promotion = begin(hub, app, wish, asker).await?;
            hand_over(hub, app, promotion, Heard::Nothing).await
        }
        None => Err(ApiError::Installation("it was stopped meanwhile".to_owned())),
    }
}

/// Notes what came of it; what is under way is noted once it is known.
fn noted(
    hub: &Hub,
    app: &App,
    asker: &Asker,
    promoted: Result<Progress, ApiError>,
) -> Result<Progress, ApiError> {
    if matches!(promoted, Ok(Progress::UnderWay(_))) {
        return promoted;
    }
    asker.noted(&hub.audit, ("application.promote", &app.id), promoted, |progress| {
        let (Progress::Done(now) | Progress::UnderWay(now)) = progress;
        format!("{} at {}", now.app_id, now.host_name)
    })
}

/// Goes on with those that are under way and that nobody waits for, those of the last process first, until the drain.
pub(crate) async fn pursue(hub: Arc<Hub>) {
    let (mut changed, mut retry) = (hub.changed.subscribe(), Retry::default());
    let pursuing = async {
        loop {
            changed.borrow_and_update();
            let mut open = false;
            for app in hub.list() {
                open |= !resume(&hub, &app).await;
            }
            if !open {
                retry.reset();
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(retry.wait()), if open => {}
            }
        }
    };
    tokio::select! {
        () = pursuing => {}
        () = hub.shutdown.draining() => {}
    }
}

/// Goes on with it if it is under way; whether there is nothing more to do. The caller holds nothing.
async fn resume(hub: &Arc<Hub>, app: &Arc<App>) -> bool {
    let under_way = || app.record().promotion.filter(|promotion| !promotion.done);
    if under_way().is_none() {
        return true;
    }
    let _working = app.work.lock().await;
    let Some(promotion) = under_way() else { return true };
    let asker = Asker { who: promotion.by.clone(), from: promotion.from.clone() };
    let came = hand_over(hub, app, promotion, Heard::Maybe).await;
    if let Err(error) = noted(hub, app, &asker, came) {
        tracing::warn!(instance = app.id, %error, "could not make an application permanent");
    }
    under_way().is_none()
}

async fn begin(hub: &Hub, app: &App, wish: Wish, asker: &Asker) -> Result<Promotion, ApiError> {
    let record = app.record();
    let description =
        record.description.permanent(wish, &hub.zone, &hub.config.reserved_hosts, &hub.front_ends);
    let (description, by, from) =
        (description.map_err(ApiError::Name)?, asker.who.clone(), asker.from.clone());
    let promotion = Promotion { description, by, from, done: false };
    is_free(&wanted(hub).await?, &app.id, &promotion.description)?;
    let noted = promotion.clone();
    hub.change(app, |record| record.promotion = Some(noted)).await?;
    Ok(promotion)
}

async fn wanted(hub: &Hub) -> Result<ListInstancesResponse, ApiError> {
    let away =
        |status: Status| ApiError::AdminAway(format!("provider does not answer ({})", status.message()));
    hub.house.wanted().await.map_err(away)
}

/// Whether nobody else has the host name or the application that it is to have. The admin app judges that as well; this is for what
/// it can't know.
fn is_free(wanted: &ListInstancesResponse, id: &str, wish: &Description) -> Result<(), ApiError> {
    is_followed(wanted)?;
    let others = || wanted.instances.iter().chain(&wanted.waiting).filter(|other| other.id != id);
    if let Some(other) = others().find(|other| claims::claims(other, wish.host_name.as_str())) {
        let why = format!("host name {} is taken by instance {}", wish.host_name, other.id);
        return Err(ApiError::AdminRefused(why));
    }
    let same = |other: &&provider::Instance| {
        other.origin() == Origin::Dynamic && other.app_id == wish.app_id.as_str()
    };
    others().find(same).map_or(Ok(()), |other| {
        let why = format!("application {} is there already, as instance {}", wish.app_id, other.id);
        Err(ApiError::AdminRefused(why))
    })
}

/// Whether there is an admin app that counts.
fn is_followed(wanted: &ListInstancesResponse) -> Result<(), ApiError> {
    let why = "provider follows none (provider.follow_admin, and an instance of the admin app)";
    let followed = wanted.admin.as_ref().is_some_and(|admin| admin.followed);
    if followed { Ok(()) } else { Err(ApiError::AdminAway(why.to_owned())) }
}

/// Whether provider has it from the admin app.
fn is_listed(wanted: &ListInstancesResponse, id: &str) -> bool {
    wanted.instances.iter().any(|instance| instance.id == id && instance.origin() == Origin::Dynamic)
}

/// What the admin app may know of it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Maybe,
}

/// From the note on to the end, or as far as it comes; the caller holds `work`.
async fn hand_over(
    hub: &Arc<Hub>,
    app: &Arc<App>,
    promotion: Promotion,
    heard: Heard,
) -> Result<Progress, ApiError> {
    let description = promotion.description.clone();
    if promotion.done {
        return Ok(Progress::Done(description));
    }
    let deadline = Instant::now() + Duration::from_millis(hub.config.provider_wait_ms);
    let there = told(hub, app, &promotion, heard, deadline).await? && listed(hub, &app.id, deadline).await;
    if !there || shelve(hub, app, &promotion).await.is_err() {
        return Ok(Progress::UnderWay(description));
    }
    let done = Promotion { done: true, ..promotion };
    let changed = hub.change(app, |record| {
        record.description = done.description.clone();
        record.promotion = Some(done);
        record.settled = false;
    });
    if let Err(error) = changed.await {
        tracing::warn!(instance = app.id, error = chain(&error), "could not note that it is permanent");
        return Ok(Progress::UnderWay(description));
    }
    if install::settle_once(hub, app).await.is_err() {
        tokio::spawn(install::settle(Arc::clone(hub), Arc::clone(app)));
    }
    tracing::info!(instance = app.id, app_id = %description.app_id, host = %description.host_name, "application made permanent");
    Ok(Progress::Done(description))
}

/// Whether the admin app has it, as far as that can be told in time. What it certainly has not is forgotten, and stays a debug
/// application.
async fn told(
    hub: &Hub,
    app: &App,
    promotion: &Promotion,
    mut heard: Heard,
    deadline: Instant,
) -> Result<bool, ApiError> {
    let mut retry = Retry::default();
    loop {
        match ask(hub, app, promotion, heard).await {
            Answer::Has => return Ok(true),
            Answer::HasNot(error) => {
                hub.change(app, |record| record.promotion = None).await?;
                app.touch();
                return Err(error);
            }
            Answer::Unknown(why) if Instant::now() >= deadline || hub.shutdown.is_draining() => {
                tracing::warn!(instance = app.id, error = why, "admin may have an application, or not");
                return Ok(false);
            }
            Answer::Unknown(_) => {
                heard = Heard::Maybe;
                tokio::time::sleep(retry.wait()).await;
            }
        }
    }
}

/// What is known of the admin app's having it.
enum Answer {
    Has,
    /// For certain.
    HasNot(ApiError),
    Unknown(String),
}

/// Asks once. Where it may have heard, it is looked up first; where nobody follows it any more, nobody has it.
async fn ask(hub: &Hub, app: &App, promotion: &Promotion, heard: Heard) -> Answer {
    if heard == Heard::Maybe
        && let Ok(wanted) = hub.house.wanted().await
    {
        match is_followed(&wanted) {
            Ok(()) if is_listed(&wanted, &app.id) => return Answer::Has,
            Ok(()) => {}
            Err(error) => return Answer::HasNot(error),
        }
    }
    let Err(status) = hub.peers.register(registration(app, promotion)).await else { return Answer::Has };
    let why = status.message().to_owned();
    match status.code() {
        _ if is_refusal(&status) => Answer::HasNot(ApiError::AdminRefused(why)),
        Code::Unavailable if heard == Heard::Nothing => Answer::HasNot(ApiError::AdminAway(why)),
        _ => Answer::Unknown(why),
    }
}

fn registration(app: &App, promotion: &Promotion) -> Registration {
    let Description { app_id, display_name, host_name, .. } = &promotion.description;
    Registration {
        instance_id: app.id.clone(),
        app_id: app_id.to_string(),
        display_name: display_name.clone(),
        host_name: host_name.to_string(),
        by: promotion.by.clone(),
    }
}

/// Whether provider has it from the admin app in time.
async fn listed(hub: &Hub, id: &str, deadline: Instant) -> bool {
    let mut retry = Retry::default();
    while !hub.house.wanted().await.is_ok_and(|wanted| is_listed(&wanted, id)) {
        if Instant::now() >= deadline || hub.shutdown.is_draining() {
            return false;
        }
        tokio::time::sleep(retry.wait()).await;
    }
    true
}

/// Its release is the application's package from now on: the admin app shows it, and there is a way back to it.
async fn shelve(hub: &Hub, app: &App, promotion: &Promotion) -> Result<(), Status> {
    let Some(kept) = app.record().release else { return Ok(()) };
    let path = hub.folders.release(&app.id, &kept.name).display().to_string();
    let version = kept.file.digest().chars().take(DIGITS).collect();
    let (by, asks) = (promotion.by.clone(), kept.manifest.asks(hub.config.grants()));
    let release = provider::Release { path, version, by, asks, ..Default::default() };
    hub.house.set_release(promotion.description.app_id.to_string(), release).await
}

/// Sees to those that the admin app lets go of, until the drain.
pub(crate) async fn watch(hub: Arc<Hub>) {
    let (mut live, shutdown): (_, Shutdown) = (hub.live.clone(), hub.shutdown.clone());
    let watching = async {
        loop {
            live.borrow_and_update();
            for app in hub.list() {
                if is_let_go(&hub, &app).await {
                    demote(&hub, &app).await;
                }
            }
            if live.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = shutdown.draining() => {}
    }
}

/// Whether it is permanent, runs no more, and nobody wants it to.
async fn is_let_go(hub: &Hub, app: &App) -> bool {
    let done = app.state().record.promotion.as_ref().is_some_and(|promotion| promotion.done);
    if !done || !hub.live.borrow().is_gone(&app.id) {
        return false;
    }
    let Ok(wanted) = hub.house.wanted().await else { return false };
    !wanted.instances.iter().chain(&wanted.waiting).any(|instance| instance.id == app.id)
}

/// A debug application again; the caller holds nothing.
async fn demote(hub: &Arc<Hub>, app: &Arc<App>) {
    let _working = app.work.lock().await;
    let record = app.record();
    if let Some(kept) = &record.release {
        let path = hub.folders.release(&app.id, &kept.name).display().to_string();
        let reason = "its application was removed, and is a debug application again".to_owned();
        // Of no consequence where it fails: nobody runs it.
        let _ = hub.house.revert_release(record.description.app_id.to_string(), path, reason).await;
    }
    let changed = hub.change(app, |record| {
        record.promotion = None;
        record.stop();
    });
    let changed = changed.await.map(drop).map_err(ApiError::from);
    let noted = ("application.demote", app.id.as_str());
    let told = |(): &()| "the admin app has let go of it".to_owned();
    if let Err(error) = Asker::platform().noted(&hub.audit, noted, changed, told) {
        tracing::warn!(instance = app.id, %error, "could not note that an application is permanent no more");
    }
    if install::settle_once(hub, app).await.is_err() {
        tokio::spawn(install::settle(Arc::clone(hub), Arc::clone(app)));
    }
}
