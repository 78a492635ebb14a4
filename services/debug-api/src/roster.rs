//! Every application with how it stands, as a stream: all there is first, then whatever changes. For who watches many at once; it counts
//! as caring for none of them, which asking of one does. Who is slow is told the newest only.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::response::Response;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, timeout};

use crate::{
    applications::{App, Hub},
    bulletin::{self, Bulletin, bulletin, usages},
    error::ApiError,
    http::Application,
    logs,
    outlet::{Hangup, Outlet},
};

/// One application: as the list has it, and as its own status has it. When it expires is no news by itself.
#[derive(Serialize)]
struct Entry {
    application: Application,
    standing: Bulletin,
}

impl Entry {
    fn of(hub: &Hub, app: &App) -> Self {
        Self { application: Application::of(hub, app), standing: bulletin(hub, app) }
    }

    /// What is news when it differs.
    fn noted(&self) -> String {
        written(&(&self.application, &self.standing))
    }
}

fn written(told: &impl Serialize) -> String {
    serde_json::to_string(told).expect("text and numbers are JSON")
}

/// The stream, if there is a place for another.
pub(crate) fn stream(hub: Arc<Hub>) -> Result<Response, ApiError> {
    let place = hub.status_streams.take()?;
    let (outlet, body) = Outlet::open();
    tokio::spawn(async move {
        let _place = place;
        run(&hub, outlet).await;
    });
    Ok(bulletin::events(body))
}

/// Until the client hangs up or the daemon drains, which is told.
async fn run(hub: &Hub, mut outlet: Outlet) {
    let closed = outlet.closed();
    tokio::select! {
        Err(Hangup) = tell(hub, &mut outlet) => return,
        () = closed => return,
        () = hub.shutdown.draining() => {}
    }
    outlet.put(logs::Form::Contract.end(logs::End::Leaving, "").as_bytes());
    let _ = timeout(logs::LAST_WORD, outlet.flush()).await;
}

/// What is there and what is gone; from time to time everything, with what it uses by now. `whole` says that this was all.
async fn tell(hub: &Hub, outlet: &mut Outlet) -> Result<Infallible, Hangup> {
    let (mut noted, mut changed, mut live) =
        (hub.histories.noted(), hub.changed.subscribe(), hub.live.clone());
    let mut beat = tokio::time::interval(Duration::from_millis(hub.config.keepalive_ms));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let due = tokio::select! {
            biased; // all there is comes first
            _ = beat.tick() => true, // the first is due at once
            Ok(()) = noted.changed() => false,
            Ok(()) = changed.changed() => false,
            Ok(()) = live.changed() => false, // whether procmgr can be heard, too
        };
        let apps = hub.list();
        let there: BTreeSet<&String> = apps.iter().map(|app| &app.id).collect();
        let gone: Vec<String> = told.keys().filter(|id| !there.contains(id)).cloned().collect();
        for id in gone {
            told.remove(&id);
            let id = written(&id);
            outlet.put(format!("event: removed\ndata: {{\"id\":{id}}}\n\n").as_bytes());
            outlet.flush().await?;
        }
        let news = news(hub, apps, |id, now| due || told.get(id).is_none_or(|told| *told != now));
        let used = usages(hub, &news).await;
        for (app, usage) in news.into_iter().zip(used) {
            let entry = Entry::of(hub, &app);
            told.insert(app.id.clone(), entry.noted());
            let application = Application::with_expiry(hub, &app);
            let entry = written(&Entry { application, standing: entry.standing.using(usage) });
            outlet.put(format!("event: application\ndata: {entry}\n\n").as_bytes());
            outlet.flush().await?;
        }
        if due {
            outlet.put(b"event: whole\ndata: {}\n\n");
            outlet.flush().await?;
        }
    }
}

/// Those of which there is something to tell.
fn news(hub: &Hub, apps: Vec<Arc<App>>, is_news: impl Fn(&str, String) -> bool) -> Vec<Arc<App>> {
    apps.into_iter().filter(|app| is_news(&app.id, Entry::of(hub, app).noted())).collect()
}
