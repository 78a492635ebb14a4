//! How an application stands, at length: once, or as a stream that tells it whenever it changes. Who is slow is told the newest
//! only; what is on its way to them is one event.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use futures_util::{StreamExt, future::BoxFuture, stream};
use http::{HeaderMap, HeaderValue, Uri, header};
use nexushub_proto::procmgr::{InstanceStatus, Usage};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};

use crate::{
    applications::{App, Hub},
    error::ApiError,
    http::json,
    logs,
    outlet::{Hangup, Outlet},
    peers::Call,
    status::{Standing, details::Details},
};

/// How long procmgr may take to say what an app uses; then it is left out.
const PATIENCE: Duration = Duration::from_secs(1);
/// Apps that it is asked about at the same time.
const ASKED_AT_ONCE: usize = 16;

/// The contract's fields, and further ones.
#[derive(Serialize)]
pub(crate) struct Bulletin {
    #[serde(flatten)]
    standing: Standing,
    details: Details,
}

impl Bulletin {
    /// With what it uses, as far as that is known.
    pub(crate) fn using(self, usage: Option<Usage>) -> Self {
        Self { details: self.details.using(usage), ..self }
    }
}

/// How it stands now, but for what it uses.
pub(crate) fn bulletin(hub: &Hub, app: &App) -> Bulletin {
    let (standing, history) = (hub.standing(app), hub.histories.of(&app.id));
    let live = hub.live.borrow();
    Bulletin { standing, details: Details::of(live.get(&app.id), live.is_current(), history) }
}

/// What it uses, if procmgr says so in time.
pub(crate) async fn usage(hub: &Hub, app: &App) -> Option<Usage> {
    usage_by(Instant::now() + PATIENCE, hub.peers.instance(app.id.clone())).await
}

/// What each of them uses, as far as procmgr says so in the time that one may take.
pub(crate) fn usages<'a>(hub: &'a Hub, apps: &[Arc<App>]) -> BoxFuture<'a, Vec<Option<Usage>>> {
    let deadline = Instant::now() + PATIENCE;
    let calls: Vec<Call<'a, InstanceStatus>> =
        apps.iter().map(|app| hub.peers.instance(app.id.clone())).collect();
    let used = calls.into_iter().map(move |call| usage_by(deadline, call));
    Box::pin(stream::iter(used).buffered(ASKED_AT_ONCE).collect())
}

async fn usage_by(deadline: Instant, call: Call<'_, InstanceStatus>) -> Option<Usage> {
    timeout_at(deadline, call).await.ok()?.ok()?.usage
}

/// The answer to a status call: the contract's, or what is asked for beyond that.
pub(crate) async fn answer(
    hub: Arc<Hub>,
    app: Arc<App>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    app.touch();
    if is_streamed(headers) {
        return stream(hub, app);
    }
    if uri.query() == Some("details=true") {
        return Ok(json(http::StatusCode::OK, &bulletin(&hub, &app).using(usage(&hub, &app).await)));
    }
    Ok(json(http::StatusCode::OK, &hub.standing(&app)))
}

/// Whether events are asked for.
pub(crate) fn is_streamed(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|field| {
        field.to_str().is_ok_and(|field| field.to_ascii_lowercase().contains("text/event-stream"))
    })
}

/// An answer of events.
pub(crate) fn events(body: Body) -> Response {
    let mut response = Response::new(body);
    for (name, value) in [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn stream(hub: Arc<Hub>, app: Arc<App>) -> Result<Response, ApiError> {
    let place = hub.status_streams.take()?;
    let (outlet, body) = Outlet::open();
    tokio::spawn(async move {
        let _place = place;
        run(&hub, &app, outlet).await;
    });
    Ok(events(body))
}

/// Until the client hangs up, the application is deleted, or the daemon drains; the last two are told.
async fn run(hub: &Hub, app: &App, mut outlet: Outlet) {
    let closed = outlet.closed();
    let end = tokio::select! {
        Err(Hangup) = tell(hub, app, &mut outlet) => return,
        () = closed => return,
        () = app.gone.cancelled() => logs::farewell(app),
        () = hub.shutdown.draining() => logs::End::Leaving,
    };
    outlet.put(logs::Form::Contract.end(end, "").as_bytes());
    let _ = timeout(logs::LAST_WORD, outlet.flush()).await;
}

/// Every change, and from time to time what it uses by now, which is also a sign of life.
async fn tell(hub: &Hub, app: &App, outlet: &mut Outlet) -> Result<std::convert::Infallible, Hangup> {
    let (mut noted, mut changed) = (hub.histories.noted(), hub.changed.subscribe());
    let mut beat = tokio::time::interval(Duration::from_millis(hub.config.keepalive_ms));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        let due = tokio::select! {
            _ = beat.tick() => true, // the first is due at once
            Ok(()) = noted.changed() => false,
            Ok(()) = changed.changed() => false,
        };
        let bulletin = bulletin(hub, app);
        let now = serde_json::to_string(&bulletin).expect("text and numbers are JSON");
        if due {
            app.touch();
        }
        if !due && now == last {
            continue;
        }
        last = now;
        let told =
            serde_json::to_string(&bulletin.using(usage(hub, app).await)).expect("text and numbers are JSON");
        outlet.put(format!("event: status\ndata: {told}\n\n").as_bytes());
        outlet.flush().await?;
    }
}
