//! Applications that nobody asked about for too long are removed, so that forgotten ones don't pile up: but for those that
//! their developer wants kept.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{applications::Hub, audit::Asker};

/// When nothing is there to expire; a new application wakes the watch earlier.
const IDLE: Duration = Duration::from_secs(86_400);

/// Removes what expires, until the drain.
pub(crate) async fn watch(hub: Arc<Hub>) {
    let Some(expiry) = hub.config.expiry() else { return hub.shutdown.draining().await };
    while !hub.shutdown.is_draining() {
        let now = Instant::now();
        let mut next = now + IDLE;
        for app in hub.list().into_iter().filter(|app| !app.state().record.description.keep) {
            let due = app.state().active + expiry;
            if due > now {
                next = next.min(due);
                continue;
            }
            tracing::info!(instance = app.id, "application expired");
            let deleted = hub.delete(&app).await;
            let deleted =
                Asker::platform()
                    .noted(&hub.audit, ("application.expire", &app.id), deleted, |()| String::new());
            if let Err(error) = deleted {
                tracing::debug!(instance = app.id, %error, "an expired application was gone already");
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = hub.expiry.notified() => {}
            () = hub.shutdown.draining() => {}
        }
    }
}
