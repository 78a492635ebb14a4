//! A release that never came up is given up while the one before it serves: that is the current one again, so that after a crash or a
//! reboot it is what starts, and not the broken one alone. Who asks how the application is goes on hearing why.
//!
//! Only for what serves. Where nothing does, because the one before slept or had to make way first, the new one was alone with the data
//! and may have changed it: whether the one before can live with that, nobody but its developer knows. It is tried on, and the way
//! back is theirs to take. One verdict is acted upon once: a release that is asked for again is judged by its new starts (`Hub::news`).

use std::sync::Arc;

use nexushub_chassis::retry::Retry;

use crate::{
    applications::{App, Hub},
    audit::Asker,
    error::ApiError,
    install,
    record::Wanted,
    releases, status,
};

/// A release that is to be given up.
struct Lost {
    /// The one that serves.
    serving: String,
    why: String,
}

/// Gives up what failed, until the drain. Who is at an application now goes first.
pub(crate) async fn watch(hub: Arc<Hub>) {
    let (mut live, mut retry) = (hub.live.clone(), Retry::default());
    let watching = async {
        loop {
            live.borrow_and_update();
            let mut later = false;
            for app in hub.list() {
                later |= !look_at(&hub, &app).await;
            }
            if !later {
                retry.reset();
            }
            tokio::select! {
                changed = live.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(retry.wait()), if later => {}
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = hub.shutdown.draining() => {}
    }
}

/// Whether there is nothing more to do for now.
async fn look_at(hub: &Arc<Hub>, app: &Arc<App>) -> bool {
    if lost(hub, app).is_none() {
        return true;
    }
    let Ok(_working) = app.work.try_lock() else { return false };
    let Some(Lost { serving, why }) = lost(hub, app) else { return true };
    let failed = app.record().release.map(|release| release.name).unwrap_or_default();
    let given_up = hub.change(app, |record| record.give_up(&serving, why)).await;
    let noted = ("application.give-up", app.id.as_str());
    let told = |(): &()| format!("release {failed} never answered; {serving} goes on");
    let given_up = given_up.map(drop).map_err(ApiError::from);
    if let Err(error) = Asker::platform().noted(&hub.audit, noted, given_up, told) {
        tracing::warn!(instance = app.id, %error, "could not give up a release that fails");
        return false;
    }
    tracing::info!(instance = app.id, release = failed, "a release that never answered is given up");
    if install::settle_once(hub, app).await.is_err() {
        tokio::spawn(install::settle(Arc::clone(hub), Arc::clone(app)));
    }
    true
}

/// What is to be given up of an application. One that answered once is not: whoever went back to it knows of it.
fn lost(hub: &Hub, app: &App) -> Option<Lost> {
    let record = app.record();
    let release = record.release.filter(|release| !release.healthy)?;
    if record.wanted != Wanted::Run || !record.settled || app.is_promoted() {
        return None;
    }
    let path = hub.folders.release(&app.id, &release.name).display().to_string();
    let status = hub.news(app).filter(|_| hub.live.borrow().is_current())?;
    let why = status::failed_beside(&status, &path, hub.config.failed_after)?;
    let serving = releases::up(&status, &hub.folders.releases(&app.id))?;
    record.earlier.iter().any(|kept| kept.name == serving).then_some(Lost { serving, why })
}
