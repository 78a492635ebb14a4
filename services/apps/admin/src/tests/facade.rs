//! The platform's facade and the login app, played: a running app, a failed one, and releases that fail when they say so.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Default)]
pub(super) struct Heard {
    /// Path, acting user and body of each order.
    pub orders: Vec<(String, String, String)>,
    pub away: bool,
    pub held: bool,
    /// Changes for the audit log.
    pub changes: Vec<Value>,
    /// Ids of instances that run.
    pub running: Vec<String>,
    /// Login does not answer before a change was told.
    pub login_waits: bool,
}

impl Heard {
    fn keeps_waiting(&self) -> bool {
        self.login_waits && self.changes.is_empty()
    }
}

pub(super) struct Facade {
    pub port: u16,
    pub heard: Arc<Mutex<Heard>>,
    revoked: watch::Receiver<i64>,
    /// So many requests to end sessions are refused first.
    refusals: Arc<AtomicU32>,
}

type Shared = Arc<Mutex<Heard>>;

fn note(heard: &Shared, path: String, headers: &HeaderMap, body: &[u8]) {
    assert_eq!(headers["x-acting-address"], super::ADDRESS);
    let who = headers.get("x-acting-user").map_or("", |value| value.to_str().unwrap()).to_owned();
    heard.lock().unwrap().orders.push((path, who, String::from_utf8_lossy(body).into_owned()));
}

fn instance(id: &str) -> Value {
    json!({
        "id": id, "app_id": "shop", "display_name": "", "host_name": id, "url": null, "origin": "dynamic", "state": "running",
        "reason": null, "healthy": true, "since": "2023-11-14T20:13:20Z", "restarts": 2, "driver": "sandbox", "release": "r7",
        "memory_bytes": 3_145_728, "requests": 1234, "errors": 0,
    })
}

async fn instances(State(heard): State<Shared>) -> Response {
    let heard = heard.lock().unwrap();
    if heard.away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let all: Vec<Value> = heard.running.iter().map(|id| instance(id)).collect();
    let held = heard.held.then(|| json!({ "removed": ["gone-1", "gone-2"], "total": 3 }));
    Json(json!({ "instances": all, "held": held })).into_response()
}

async fn one(State(heard): State<Shared>, Path(id): Path<String>) -> Response {
    let heard = heard.lock().unwrap();
    if heard.away || !heard.running.contains(&id) {
        return if heard.away { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NOT_FOUND }
            .into_response();
    }
    let mut one = instance(&id);
    let moment = |state: &str, reason: String| json!({ "at": "2023-11-14T20:13:20Z", "state": state, "reason": reason });
    let earlier = (1..20).map(|age| moment("failed", format!("{age} before")));
    one["history"] = std::iter::once(moment("running", String::new())).chain(earlier).collect();
    Json(one).into_response()
}

async fn releases() -> Json<Value> {
    let ungranted = |state: &str| if state == "current" { "no sandbox" } else { "" };
    let release = |id: &str, state: &str, reason: &str| json!({ "id": id, "version": id, "installed_at": "2023-11-14T20:13:20Z", "by": "admin", "state": state, "reason": reason, "ungranted": ungranted(state) });
    Json(
        json!({ "releases": [release("r7", "current", ""), release("r6", "earlier", ""), release("r5", "failed", "exit code 3")] }),
    )
}

async fn package(
    State(heard): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    zip: Bytes,
) -> Response {
    note(&heard, format!("package {id}"), &headers, &zip);
    match &zip[..] {
        b"broken" => Json(json!({ "release": "r8", "state": "failed", "reason": "exit code 3", "log": ["panicked at <main>"] })).into_response(),
        b"no zip" => (StatusCode::BAD_REQUEST, Json(json!({ "error": "this is no zip" }))).into_response(),
        b"lesser" => Json(json!({ "release": "r8", "state": "running", "ungranted": "no sandbox" })).into_response(),
        _ => Json(json!({ "release": "r8", "state": "running", "reason": "", "log": [] })).into_response(),
    }
}

async fn order(
    State(heard): State<Shared>,
    Path((id, order)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    note(&heard, format!("{order} {id}"), &headers, &body);
    if order == "rollback" {
        return Json(json!({ "release": "r6", "state": "running" })).into_response();
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn changed(State(heard): State<Shared>, Json(told): Json<Value>) -> StatusCode {
    let mut heard = heard.lock().unwrap();
    heard.changes.extend(told["changes"].as_array().unwrap().iter().cloned());
    if std::mem::take(&mut heard.away) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
}

async fn logs(Path(id): Path<String>, headers: HeaderMap) -> Response {
    let after = headers.get("last-event-id").map_or("", |value| value.to_str().unwrap());
    let line = json!({ "timestamp": "2023-11-14T20:13:20Z", "level": "info", "source": "app", "message": format!("{id} after {after}") });
    ([("content-type", "text/event-stream")], format!("id: c1\ndata: {line}\n\n")).into_response()
}

impl Facade {
    pub(super) async fn play() -> Self {
        let heard = Shared::default();
        let (told, revoked) = watch::channel(0);
        let refusals = Arc::new(AtomicU32::new(0));
        let left = Arc::clone(&refusals);
        let revoke = post(async move |State(heard): State<Shared>, Json(asked): Json<Value>| {
            while heard.lock().unwrap().keeps_waiting() {
                tokio::task::yield_now().await;
            }
            if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            told.send_replace(asked["UserID"].as_i64().unwrap());
            StatusCode::OK
        });
        let confirm = post(async |State(heard): State<Shared>, headers: HeaderMap| {
            note(&heard, "confirm".into(), &headers, b"");
            heard.lock().unwrap().held = false;
            StatusCode::NO_CONTENT
        });
        let entry = json!({ "ts": "2023-11-14T20:13:20Z", "daemon": "provider", "who": "zoe", "what": "install", "object": "shop", "from": "192.0.2.1", "result": "ok", "detail": "" });
        let platform = Router::new()
            .route("/instances", get(instances))
            .route("/instances/{id}", get(one))
            .route("/instances/{id}/releases", get(releases))
            .route("/instances/{id}/package", post(package))
            .route("/instances/{id}/logs", get(logs))
            .route("/instances/{id}/{order}", post(order))
            .route("/held/confirm", confirm)
            .route("/audit", get(async move || Json(json!({ "entries": [entry] }))).post(changed));
        let routes = Router::new().nest("/internal/platform", platform).route("/internal/revoke", revoke);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = routes.with_state(Arc::clone(&heard));
        tokio::spawn(async { axum::serve(listener, routes).await });
        Self { port, heard, revoked, refusals }
    }

    /// Refuses the next so many requests to end sessions.
    pub(super) fn refuse_ends(&self, requests: u32) {
        self.refusals.store(requests, Ordering::SeqCst);
    }

    /// The user whom login was told to sign out.
    pub(super) async fn revoked(&self) -> i64 {
        *self.revoked.clone().wait_for(|user| *user != 0).await.unwrap()
    }

    /// Waits until login was told to sign out this user.
    pub(super) async fn revoked_next(&self, wanted: i64) -> i64 {
        *self.revoked.clone().wait_for(|user| *user == wanted).await.unwrap()
    }

    /// The changes told of, once there are so many.
    pub(super) async fn changes(&self, number: usize) -> Vec<Value> {
        loop {
            let changes = self.heard.lock().unwrap().changes.clone();
            if changes.len() >= number {
                return changes;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn orders(&self) -> Vec<(String, String, String)> {
        self.heard.lock().unwrap().orders.clone()
    }
}
