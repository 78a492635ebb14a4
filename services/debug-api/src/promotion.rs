//! A debug application becomes permanent (`install-package`): the admin app gets it, and from then on says how it is called, where it
//! answers and whether it runs. Instance, release and data stay what and where they are, so it runs on.
//!
//! ```text
//! noted ─▶ admin has it ─▶ provider has it from admin ─▶ its release is the application's package ─▶ done, provider keeps its ground
//!   └─ admin refuses, or was not asked: forgotten
//! done ─▶ admin lets go of it ─▶ a debug application again, stopped, and kept with its data until its developer deletes it
//! ```
//! Every arrow may be the last before a crash, and may be done again. From the first on it doesn't expire, and what would change it
//! by these calls is refused: it is the admin app's.

use std::{sync::Arc, time::Duration};

use nexushub_chassis::{retry::Retry, shutdown::Shutdown};
use nexushub_proto::provider::{self, ListInstancesResponse, Origin};
use serde::Deserialize;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    applications::{App, Hub, Promoting},
    audit::Asker,
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

/// Installs what was uploaded, if it isn't yet, and makes it permanent; how it is called from then on. Goes on when the caller has
/// gone.
pub(crate) async fn promote(
    hub: &Arc<Hub>,
    app: &Arc<App>,
    wish: Wish,
    by: String,
) -> Result<Description, ApiError> {
    let (hub, app) = (Arc::clone(hub), Arc::clone(app));
    unhurried(async move {
        let _promoting = Promoting::begin(&app);
        if !app.is_permanent() {
            let installed = install::install(&hub, &app).await?;
            if let Some(why) = installed.not_started {
                return Err(ApiError::Installation(why));
            }
        }
        let _working = app.work.lock().await;
        app.present()?;
        let record = app.record();
        let promotion = match record.promotion {
            Some(promotion) => promotion,
            None if record.wanted == Wanted::Run && record.settled => begin(&hub, &app, wish, by).await?,
            None => return Err(ApiError::Installation("it was stopped meanwhile".to_owned())),
        };
        hand_over(&hub, &app, promotion).await
    })
    .await
}

/// Goes on with one that was under way when the last process ended; the caller holds nothing.
pub(crate) async fn resume(hub: &Arc<Hub>, app: &Arc<App>) {
    let _working = app.work.lock().await;
    let Some(promotion) = app.record().promotion.filter(|promotion| !promotion.done) else { return };
    match hand_over(hub, app, promotion).await {
        Ok(_) => tracing::info!(instance = app.id, "made an application permanent, which was under way"),
        Err(error) => tracing::warn!(instance = app.id, %error, "could not make an application permanent"),
    }
}

async fn begin(hub: &Hub, app: &App, wish: Wish, by: String) -> Result<Promotion, ApiError> {
    let described = app.record().description;
    let description = described.permanent(wish, &hub.zone, &hub.config.reserved_hosts, &hub.front_ends);
    let promotion = Promotion { description: description.map_err(ApiError::Name)?, by, done: false };
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
    if !wanted.admin.as_ref().is_some_and(|admin| admin.followed) {
        let why = "provider follows none (provider.follow_admin, and an instance of the admin app)";
        return Err(ApiError::AdminAway(why.to_owned()));
    }
    let others = || wanted.instances.iter().chain(&wanted.waiting).filter(|other| other.id != id);
    if let Some(other) = others().find(|other| other.host_name == wish.host_name.as_str()) {
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

/// Whether provider has it from the admin app.
fn is_listed(wanted: &ListInstancesResponse, id: &str) -> bool {
    wanted.instances.iter().any(|instance| instance.id == id && instance.origin() == Origin::Dynamic)
}

/// From the note on to the end; the caller holds `work`.
async fn hand_over(hub: &Arc<Hub>, app: &Arc<App>, promotion: Promotion) -> Result<Description, ApiError> {
    if promotion.done {
        return Ok(promotion.description);
    }
    if !is_listed(&wanted(hub).await?, &app.id) {
        if let Err(status) = hub.peers.register(registration(app, &promotion)).await {
            return Err(not_taken(hub, app, &status).await);
        }
        listed(hub, &app.id).await?;
    }
    shelve(hub, app, &promotion).await?;
    let description = promotion.description.clone();
    let done = Promotion { done: true, ..promotion };
    hub.change(app, |record| {
        record.description = done.description.clone();
        record.promotion = Some(done);
        record.settled = false;
    })
    .await?;
    if install::settle_once(hub, app).await.is_err() {
        tokio::spawn(install::settle(Arc::clone(hub), Arc::clone(app)));
    }
    tracing::info!(instance = app.id, app_id = %description.app_id, host = %description.host_name, "application made permanent");
    Ok(description)
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

/// The admin app has not taken it, or may not have. What is certain not to be there is forgotten, and it stays a debug application.
async fn not_taken(hub: &Hub, app: &App, status: &Status) -> ApiError {
    let why = status.message().to_owned();
    let certain = is_refusal(status) || status.code() == Code::Unavailable;
    if certain && let Err(error) = hub.change(app, |record| record.promotion = None).await {
        return error.into();
    }
    app.touch();
    match is_refusal(status) {
        true => ApiError::AdminRefused(why),
        false if certain => ApiError::AdminAway(why),
        false => ApiError::AdminAway(format!("{why}; it may have heard all the same")),
    }
}

/// Waits until provider has it from the admin app, within reason.
async fn listed(hub: &Hub, id: &str) -> Result<(), ApiError> {
    let deadline = Instant::now() + Duration::from_millis(hub.config.provider_wait_ms);
    let mut retry = Retry::default();
    while !hub.house.wanted().await.is_ok_and(|wanted| is_listed(&wanted, id)) {
        if Instant::now() >= deadline {
            return Err(ApiError::AdminAway(
                "it has the application, but provider has not heard so".to_owned(),
            ));
        }
        tokio::time::sleep(retry.wait()).await;
    }
    Ok(())
}

/// Its release is the application's package from now on: the admin app shows it, and there is a way back to it.
async fn shelve(hub: &Hub, app: &App, promotion: &Promotion) -> Result<(), ApiError> {
    let Some(kept) = app.record().release else { return Ok(()) };
    let path = hub.folders.release(&app.id, &kept.name).display().to_string();
    let version = kept.file.hash.to_string().chars().take(DIGITS).collect();
    let release = provider::Release { path, version, by: promotion.by.clone(), ..Default::default() };
    let set = hub.house.set_release(promotion.description.app_id.to_string(), release).await;
    set.map_err(|status| ApiError::AdminAway(format!("provider does not answer ({})", status.message())))
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
        (record.promotion, record.wanted, record.settled, record.undo) = (None, Wanted::Stopped, false, None);
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
