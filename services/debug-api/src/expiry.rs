//! Applications that nobody asked about for too long are removed, so that forgotten ones don't pile up: but for those that
//! their developer wants kept. Installs, status calls, uploads for as long as they take, and open log streams are what counts. Some time
//! before, the end is announced, in the log and in the audit log, where the admin app shows it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    applications::{App, Hub},
    audit::Asker,
};

/// When nothing is there to expire; a new application wakes the watch earlier.
const IDLE: Duration = Duration::from_secs(86_400);

/// When the application expires unless somebody cares before; none if it doesn't.
pub(crate) fn due(hub: &Hub, app: &App) -> Option<Instant> {
    let expiry = hub.config.expiry()?;
    let state = app.state();
    let kept = state.record.description.keep || state.record.promotion.is_some();
    (!kept && !app.is_visited()).then(|| state.active + expiry)
}

/// Removes what expires, until the drain.
pub(crate) async fn watch(hub: Arc<Hub>) {
    while !hub.shutdown.is_draining() {
        let now = Instant::now();
        let mut next = now + IDLE;
        for app in hub.list() {
            match due(&hub, &app) {
                None => {}
                Some(due) if due > now => next = next.min(announce(&hub, &app, due, now).unwrap_or(due)),
                Some(_) => expire(&hub, &app).await,
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = hub.expiry.notified() => {}
            () = hub.shutdown.draining() => {}
        }
    }
}

/// Announces the end of an application if it is time; when it will be, if not. At most half of its time is left then, so that who
/// heeds one announcement hears the next.
fn announce(hub: &Hub, app: &App, due: Instant, now: Instant) -> Option<Instant> {
    let (warning, expiry) = (hub.config.expiry_warning()?, hub.config.expiry()?);
    let at = due - warning.min(expiry / 2);
    if at > now {
        return Some(at);
    }
    if !std::mem::replace(&mut app.state().warned, true) {
        let left = (due - now).as_secs();
        tracing::warn!(instance = app.id, left, "application expires soon: nobody asks about it");
        let detail = |(): &()| format!("in {left} s, unless somebody asks about it");
        let _ = Asker::platform().noted(&hub.audit, ("application.expiring", &app.id), Ok(()), detail);
    }
    None
}

async fn expire(hub: &Arc<Hub>, app: &Arc<App>) {
    tracing::info!(instance = app.id, "application expired");
    app.state().expired = true;
    let deleted = hub.delete(app).await;
    let noted = ("application.expire", app.id.as_str());
    if let Err(error) = Asker::platform().noted(&hub.audit, noted, deleted, |()| String::new()) {
        tracing::debug!(instance = app.id, %error, "an expired application was gone already");
    }
}
