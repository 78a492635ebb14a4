//! The platform as the admin app shows it: what runs, its releases, logs and history, and what may be done to it. JSON below
//! `/internal/platform`, for the admin app alone (`auth.rs`).
//!
//! ```text
//! admin app ──▶ proxy ──▶ here ─┬─▶ view.rs (pure)    provider's word + procmgr's + the proxy's counts ▶ JSON
//!                               ├─▶ package.rs        zip ▶ packages/<sha256> ▶ provider ▶ outcome.rs (pure) ▶ keep or take back
//!                               ├─▶ asking.rs         what a package asks for, as far as it is granted
//!                               ├─▶ logs.rs (above)   procmgr's log as events
//!                               ├─▶ history.rs        what state each instance was in, and why
//!                               └─▶ audit.rs          the platform's trail
//! ```
//! Invariant: this room decides nothing. What should run is provider's to say and what does is procmgr's, each asked when it matters;
//! with one of them away the answer says so.

mod acting;
pub(crate) mod asking;
mod audit;
mod error;
pub(crate) mod history;
pub(crate) mod house;
pub(crate) mod outcome;
mod package;
mod releases;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod view;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header, request::Parts};
use nexushub_chassis::names::{InstanceId, LOGIN_INSTANCE};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use self::{
    acting::Acting,
    audit::Teller,
    error::Refused,
    history::Moment,
    house::House,
    package::UnderWay,
    releases::Release,
    view::{Board, Instance},
};
use crate::{
    applications::Hub,
    auth::is_asked_by,
    logs::{self, TAIL_MAX, Wish},
};

/// Most entries of the trail that are told at once.
const AUDIT_MAX: usize = 1000;

/// Everything that the calls need.
pub(crate) struct Facade {
    hub: Arc<Hub>,
    house: Arc<dyn House>,
    /// Held from the place of a package on to provider's knowledge of it: what nobody knows of is removed.
    shelving: Mutex<()>,
    /// Applications of which a package is on its way.
    under_way: UnderWay,
    /// Where the daemons' trails lie.
    audit: std::path::PathBuf,
}

impl Facade {
    pub(crate) fn new(hub: Arc<Hub>, house: Arc<dyn House>, state: &std::path::Path) -> Arc<Self> {
        let (shelving, under_way) = (Mutex::default(), UnderWay::default());
        Arc::new(Self { hub, house, shelving, under_way, audit: nexushub_chassis::audit::folder(state) })
    }
}

/// What is served below `/internal/platform`.
pub(crate) fn router(facade: Arc<Facade>) -> Router {
    let one = "/instances/{id}";
    let of = |call: &str| format!("{one}/{call}");
    Router::new()
        .route("/instances", get(instances))
        .route(one, get(instance))
        .route(&of("releases"), get(list_releases))
        .route(&of("package"), post(package::push).layer(DefaultBodyLimit::disable()))
        .route(&of("rollback"), post(package::roll_back))
        .route(&of("restart"), post(restart))
        .route(&of("pause"), post(pause))
        .route(&of("resume"), post(resume))
        .route(&of("logs"), get(tail))
        .route("/held/confirm", post(confirm))
        .route("/audit", get(trail).post(take_in))
        .fallback(|| async { Refused::NotFound })
        .method_not_allowed_fallback(|| async { Refused::Method })
        .with_state(facade)
}

/// The instance that the path names.
pub(crate) struct Target(String);

impl FromRequestParts<Arc<Facade>> for Target {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, facade: &Arc<Facade>) -> Result<Self, Refused> {
        let id = Path::<String>::from_request_parts(parts, facade).await.map_err(|_| Refused::NoInstance)?;
        InstanceId::parse(&id).map(|id| Self(id.to_string())).map_err(|_| Refused::NoInstance)
    }
}

#[derive(Serialize)]
struct WithHistory {
    #[serde(flatten)]
    instance: Instance,
    history: Vec<Moment>,
}

#[derive(Serialize)]
struct Releases {
    releases: Vec<Release>,
}

#[derive(Serialize)]
struct Trail {
    entries: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct TailQuery {
    tail: Option<u32>,
    follow: Option<String>,
}

#[derive(Deserialize)]
struct TrailQuery {
    tail: Option<usize>,
}

async fn instances(State(facade): State<Arc<Facade>>) -> Result<Response, Refused> {
    Ok(json(StatusCode::OK, &facade.board().await?))
}

async fn instance(State(facade): State<Arc<Facade>>, Target(id): Target) -> Result<Response, Refused> {
    let board = facade.board().await?;
    let instance = board.instances.into_iter().find(|one| one.id == id).ok_or(Refused::NoInstance)?;
    let history = facade.hub.histories.of(&id);
    Ok(json(StatusCode::OK, &WithHistory { instance, history }))
}

async fn list_releases(State(facade): State<Arc<Facade>>, Target(id): Target) -> Result<Response, Refused> {
    let wanted = facade.wanted(&id).await?;
    let shelves = facade.house.releases(wanted.app_id).await?;
    let releases =
        shelves.into_iter().flat_map(|shelf| shelf.releases).map(|one| Release::of(&one)).collect();
    Ok(json(StatusCode::OK, &Releases { releases }))
}

async fn restart(
    State(facade): State<Arc<Facade>>,
    Target(id): Target,
    acting: Acting,
) -> Result<StatusCode, Refused> {
    let done = facade.house.restart(id.clone()).await;
    audit::note(&facade.hub.audit, &acting, "instance.restart", &id, done.as_ref().err());
    done.map(|()| StatusCode::NO_CONTENT).map_err(Refused::from)
}

async fn pause(
    State(facade): State<Arc<Facade>>,
    Target(id): Target,
    acting: Acting,
) -> Result<StatusCode, Refused> {
    let done = facade.house.pause(id.clone(), String::new(), false).await;
    audit::note(&facade.hub.audit, &acting, "instance.pause", &id, done.as_ref().err());
    done.map(|()| StatusCode::NO_CONTENT).map_err(Refused::from)
}

async fn resume(
    State(facade): State<Arc<Facade>>,
    Target(id): Target,
    acting: Acting,
) -> Result<StatusCode, Refused> {
    let done = facade.house.resume(id.clone()).await;
    audit::note(&facade.hub.audit, &acting, "instance.resume", &id, done.as_ref().err());
    done.map(|()| StatusCode::NO_CONTENT).map_err(Refused::from)
}

/// Of what is held at this moment; what will be held in the next is somebody else's to confirm.
async fn confirm(State(facade): State<Arc<Facade>>, acting: Acting) -> Result<StatusCode, Refused> {
    let held = facade.house.wanted().await?.admin.unwrap_or_default().held;
    let ids: Vec<String> = held.into_iter().map(|instance| instance.id).collect();
    let done = facade.house.confirm(ids.clone()).await;
    audit::note(&facade.hub.audit, &acting, "removals.confirm", &ids.join(" "), done.as_ref().err());
    done.map(|()| StatusCode::NO_CONTENT).map_err(Refused::from)
}

async fn tail(
    State(facade): State<Arc<Facade>>,
    Target(id): Target,
    Query(query): Query<TailQuery>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let follow = query.follow.is_some_and(|word| matches!(word.as_str(), "" | "1" | "true"));
    let tail = query.tail.unwrap_or(facade.hub.config.log_history).min(TAIL_MAX);
    let wish = Wish::of_page(tail, follow, &headers);
    logs::of_instance(Arc::clone(&facade.hub), id, wish).await.map_err(Refused::from)
}

async fn trail(
    State(facade): State<Arc<Facade>>,
    Query(query): Query<TrailQuery>,
) -> Result<Response, Refused> {
    let (folder, tail) = (facade.audit.clone(), query.tail.unwrap_or(100).min(AUDIT_MAX));
    let entries = crate::folders::blocking(move || audit::read(&folder, tail)).await;
    Ok(json(StatusCode::OK, &Trail { entries: entries.map_err(Refused::Trail)? }))
}

/// What was done in the admin app or the login app, which keeps it until this says that it is in the trail.
async fn take_in(
    State(facade): State<Arc<Facade>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let teller = if is_asked_by(&headers, LOGIN_INSTANCE) { Teller::Login } else { Teller::Admin };
    let changes = audit::changes(teller, &body).map_err(|error| Refused::Body(error.to_string()))?;
    let audit = facade.hub.audit.clone();
    let kept = crate::folders::blocking(move || audit.keep(changes)).await;
    if kept { Ok(StatusCode::NO_CONTENT) } else { Err(Refused::Unwritten) }
}

impl Facade {
    /// Everything that should run and how it stands. What only explains (use of memory, requests) may be missing.
    async fn board(&self) -> Result<Board, Refused> {
        let (wanted, used, metrics) =
            tokio::join!(self.house.wanted(), self.house.instances(), self.house.metrics());
        let (wanted, used) = (wanted?, used.unwrap_or_default());
        let traffic = metrics.map(|text| view::traffic(&text)).unwrap_or_default();
        let live = self.hub.live.borrow();
        Ok(view::board(&wanted, &live, &used, &traffic, &self.hub.zone))
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    use axum::response::IntoResponse;
    let text = serde_json::to_vec(value).expect("these replies are text and numbers");
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}
