//! The developers' calls: thin handlers that decode, call, and encode. The paths and the JSON are the contract's.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequestParts, MatchedPath, Path, Query, Request, State,
        rejection::QueryRejection,
    },
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use nexushub_chassis::credentials::Credentials;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    applications::{App, Hub},
    audit::Asker,
    auth, bulletin, counts,
    digests::Sha256Hex,
    error::ApiError,
    expiry, files,
    folders::unhurried,
    install::{self, Installed},
    logs,
    names::Asked,
    peers::Call,
    platform::house::House,
    promotion::{self, Progress, Wish},
    receive::{self, Received},
    record::{millis, now_ms, rfc3339},
    releases, roster,
    status::Word,
};

/// A create call's body; the largest that the limits on its fields allow is well below.
const MAX_BODY: usize = 64 << 10;

/// The call that makes an application permanent.
const PROMOTE: &str = "install-package";

/// Everything that is served.
pub(crate) fn router(hub: Arc<Hub>, platform: Router, credentials: Credentials) -> Router {
    let one = "/debug/application/{id}";
    let of = |call: &str| format!("{one}/{call}");
    Router::new()
        .route("/debug/application", post(create).get(list))
        .route(one, get(show).delete(delete))
        .route(&of("upload"), post(upload).layer(DefaultBodyLimit::disable()))
        .route(&of("upload/status"), get(upload_status))
        .route(&of("files"), any(files::place))
        .route(&of("files/{upload}"), any(files::one))
        .route(&of("install"), post(install))
        .route(&of("install-dev"), post(install))
        .route(&of(PROMOTE), post(promote))
        .route(&of("status"), get(status))
        .route(&of("logs"), get(tail))
        .route(&of("stop"), post(stop))
        .route(&of("restart"), post(restart))
        .route(&of("pause"), post(pause))
        .route(&of("resume"), post(resume))
        .route(&of("releases"), get(all_releases))
        .route(&of("rollback"), post(roll_back))
        .route("/debug/metrics", get(counts::show))
        // The room of the login service: these answer for any host, without a bearer.
        .route("/public/login", any(|| async { ApiError::Login("login") }))
        .route("/public/logout", any(|| async { ApiError::Login("logout") }))
        .route("/public/access_token", any(|| async { ApiError::Login("the exchange of access tokens") }))
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .with_state(hub)
        .nest("/internal/platform", platform)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(credentials, auth::guard))
}

/// The application that the path names, by the server's id or by the client's. A permanent one is the admin app's to change.
pub(crate) struct Target(pub(crate) Arc<App>);

impl FromRequestParts<Arc<Hub>> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, hub).await.map_err(|_| ApiError::NoApplication)?;
        let app = hub.find(&id)?;
        let promotes =
            parts.extensions.get::<MatchedPath>().is_some_and(|path| path.as_str().ends_with(PROMOTE));
        let changes = !parts.method.is_safe() && !promotes;
        if changes && app.is_promoted() { Err(ApiError::Permanent) } else { Ok(Self(app)) }
    }
}

/// Something that is to be done to an application: to which, and who asks for it.
struct Errand {
    hub: Arc<Hub>,
    app: Arc<App>,
    asker: Asker,
}

impl FromRequestParts<Arc<Hub>> for Errand {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, ApiError> {
        let Target(app) = Target::from_request_parts(parts, hub).await?;
        let asker = Asker::from_request_parts(parts, hub).await?;
        Ok(Self { hub: Arc::clone(hub), app, asker })
    }
}

impl Errand {
    /// Has it done to its end, also when the client hangs up, and noted; `told` says what else there is to say of it.
    async fn run<T, F>(
        self,
        what: &'static str,
        work: impl FnOnce(Arc<Hub>, Arc<App>) -> F,
        told: impl FnOnce(&App, &T) -> String + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let Self { hub, app, asker } = self;
        let work = work(Arc::clone(&hub), Arc::clone(&app));
        unhurried(async move {
            let done = work.await;
            asker.noted(&hub.audit, (what, &app.id), done, |done| told(&app, done))
        })
        .await
    }
}

/// An application as create, show and list tell it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Application {
    id: String,
    app_id: String,
    display_name: String,
    host_name: String,
    db_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    static_service_url: Option<String>,
    status: Word,
    created_at: String,
    /// When it is removed unless somebody cares; said to those who ask, which puts off nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl Application {
    pub(crate) fn of(hub: &Hub, app: &App) -> Self {
        let (status, record) = (hub.standing(app).status, app.record());
        let description = record.description;
        Self {
            id: record.id,
            app_id: description.app_id.to_string(),
            display_name: description.display_name,
            host_name: description.host_name.to_string(),
            db_name: description.db_name,
            static_service_url: description.static_service_url,
            status,
            created_at: rfc3339(record.created_unix_ms),
            expires_at: None,
        }
    }

    pub(crate) fn with_expiry(hub: &Hub, app: &App) -> Self {
        let due = expiry::due(hub, app).map(|due| due.saturating_duration_since(Instant::now()));
        let at = due.map(|left| now_ms().saturating_add_unsigned(millis(left)));
        Self { expires_at: at.map(rfc3339), ..Self::of(hub, app) }
    }
}

#[derive(Serialize)]
struct Applications {
    applications: Vec<Application>,
}

/// What is said of bytes that came.
#[derive(Serialize)]
pub(crate) struct ChunkReply {
    message: &'static str,
    status: &'static str,
}

impl ChunkReply {
    const RECEIVED: Self = Self { message: "Chunk received successfully", status: "received" };
    /// The package is whole.
    pub(crate) const COMPLETED: Self =
        Self { message: "Package upload completed successfully", status: "completed" };
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstallReply {
    application_id: String,
    status: &'static str,
    message: String,
    installed_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PromotionReply {
    application_id: String,
    app_id: String,
    display_name: String,
    host_name: String,
    status: &'static str,
    message: &'static str,
    installed_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StopReply {
    application_id: String,
    status: Word,
    message: &'static str,
}

#[derive(Serialize)]
struct Releases {
    releases: Vec<releases::Told>,
}

/// What people are told whose requests wait, and whether they don't.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pause {
    message: String,
    closed: bool,
}

/// Which package an install is about: it may be another one by then.
#[derive(Default, Deserialize)]
struct Meant {
    sha256: Option<String>,
}

/// Which release to go back to.
#[derive(Default, Deserialize)]
struct Back {
    release: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackReply {
    application_id: String,
    release: String,
    status: Word,
    message: &'static str,
}

async fn create(State(hub): State<Arc<Hub>>, asker: Asker, request: Request) -> Result<Response, ApiError> {
    use axum::extract::FromRequest;
    let patience = Duration::from_millis(hub.config.upload_idle_ms);
    let body = tokio::time::timeout(patience, Bytes::from_request(request, &())).await;
    let body = body.map_err(|_| ApiError::Body)?.map_err(|_| ApiError::Body)?;
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::Body); // a list would pass for an object with its fields in order
    }
    let asked: Asked = serde_json::from_slice(&body).map_err(|_| ApiError::Body)?;
    // A client that hangs up now must not leave the older application removed and the new one not made.
    let created = unhurried(async move {
        let created = hub.create(asked).await.map(|app| Application::of(&hub, &app));
        let id = created.as_ref().map_or("", |app| app.id.as_str()).to_owned();
        asker.noted(&hub.audit, ("application.create", &id), created, |app| format!("at {}", app.host_name))
    });
    Ok(json(StatusCode::CREATED, &created.await?))
}

async fn list(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Response, ApiError> {
    if bulletin::is_streamed(&headers) {
        return roster::stream(hub);
    }
    let applications = hub.list().iter().map(|app| Application::with_expiry(&hub, app)).collect();
    Ok(json(StatusCode::OK, &Applications { applications }))
}

async fn show(State(hub): State<Arc<Hub>>, Target(app): Target) -> Response {
    json(StatusCode::OK, &Application::with_expiry(&hub, &app))
}

async fn delete(errand: Errand) -> Result<StatusCode, ApiError> {
    let delete = |hub: Arc<Hub>, app| async move { hub.delete(&app).await };
    errand.run("application.delete", delete, |_, ()| String::new()).await.map(|()| StatusCode::NO_CONTENT)
}

async fn upload(
    State(hub): State<Arc<Hub>>,
    Target(app): Target,
    asker: Asker,
    request: Request,
) -> Result<Response, ApiError> {
    let received = receive::chunk(Arc::clone(&hub), Arc::clone(&app), request).await;
    let received = match received {
        Ok(Received::One) => received,
        done => asker.noted(&hub.audit, ("application.upload", &app.id), done, |_| app.package()),
    };
    let reply = match received? {
        Received::One => ChunkReply::RECEIVED,
        Received::Completed => ChunkReply::COMPLETED,
    };
    Ok(json(StatusCode::OK, &reply))
}

async fn upload_status(Target(app): Target) -> Result<Response, ApiError> {
    let report = app.state().upload.as_ref().map(|session| session.report(&app.id));
    report.map(|report| json(StatusCode::OK, &report)).ok_or(ApiError::NoSession)
}

async fn install(errand: Errand, meant: Result<Query<Meant>, QueryRejection>) -> Result<Response, ApiError> {
    const USE: ApiError = ApiError::Field("query: use ?sha256=DIGEST");
    let Query(meant) = meant.map_err(|_| USE)?;
    let expected = meant.sha256.map(|text| Sha256Hex::parse(&text).ok_or(USE)).transpose()?;
    let application_id = errand.app.id.clone();
    let install = |hub, app| async move { install::install(&hub, &app, expected).await };
    let told = |app: &App, done: &Installed| done.not_started.clone().unwrap_or_else(|| app.package());
    let installed = errand.run("application.install", install, told).await?;
    let (status, message) = match installed.not_started {
        None => ("running", "Application installed and started successfully".to_owned()),
        Some(why) => ("installed_not_started", format!("Application installed but not started: {why}")),
    };
    let installed_at = rfc3339(installed.unix_ms);
    Ok(json(StatusCode::OK, &InstallReply { application_id, status, message, installed_at }))
}

async fn promote(Errand { hub, app, asker }: Errand, body: Bytes) -> Result<Response, ApiError> {
    let wish = match body.trim_ascii() {
        b"" => Wish::default(),
        text if text.starts_with(b"{") => serde_json::from_slice(text).map_err(|_| ApiError::Body)?,
        _ => return Err(ApiError::Body),
    };
    let (code, status, message, permanent) = match promotion::promote(&hub, &app, wish, asker).await? {
        Progress::Done(permanent) => {
            let message = "Application is permanent now; the admin app owns it";
            (StatusCode::OK, "running", message, permanent)
        }
        Progress::UnderWay(permanent) => {
            let message = "Application becomes permanent; the admin app has not confirmed it yet, and is asked until it has";
            (StatusCode::ACCEPTED, "pending", message, permanent)
        }
    };
    let reply = PromotionReply {
        application_id: app.id.clone(),
        app_id: permanent.app_id.to_string(),
        display_name: permanent.display_name,
        host_name: permanent.host_name.to_string(),
        status,
        message,
        installed_at: rfc3339(now_ms()),
    };
    Ok(json(code, &reply))
}

async fn status(
    State(hub): State<Arc<Hub>>,
    Target(app): Target,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    bulletin::answer(hub, app, &uri, &headers).await
}

async fn tail(
    State(hub): State<Arc<Hub>>,
    Target(app): Target,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    logs::stream(hub, app, &uri, &headers).await
}

async fn stop(errand: Errand) -> Result<Response, ApiError> {
    let application_id = errand.app.id.clone();
    let stop = |hub, app| async move { install::stop(&hub, &app).await };
    let ended = errand.run("application.stop", stop, |_, _| String::new()).await?;
    let (code, status, message) = match ended {
        true => (StatusCode::OK, Word::Stopped, "Application stopped"),
        false => (StatusCode::ACCEPTED, Word::Pending, "Application is being stopped"),
    };
    Ok(json(code, &StopReply { application_id, status, message }))
}

/// Tells procmgr what is to become of an application that runs; what comes of it is in its status.
async fn tell(
    errand: Errand,
    what: &'static str,
    order: impl for<'h> FnOnce(&'h dyn House, String) -> Call<'h, ()> + Send + 'static,
) -> Result<StatusCode, ApiError> {
    let tell = |hub: Arc<Hub>, app: Arc<App>| async move {
        app.touch();
        order(&*hub.house, app.id.clone()).await.map_err(|status| ApiError::told(&status))
    };
    errand.run(what, tell, |_, ()| String::new()).await.map(|()| StatusCode::NO_CONTENT)
}

async fn restart(errand: Errand) -> Result<StatusCode, ApiError> {
    tell(errand, "application.restart", |procmgr, id| procmgr.restart(id)).await
}

async fn pause(errand: Errand, wish: Result<Query<Pause>, QueryRejection>) -> Result<StatusCode, ApiError> {
    let Query(wish) = wish.map_err(|_| ApiError::Field("query: use ?message=TEXT&closed=true"))?;
    tell(errand, "application.pause", move |procmgr, id| procmgr.pause(id, wish.message, wish.closed)).await
}

async fn resume(errand: Errand) -> Result<StatusCode, ApiError> {
    tell(errand, "application.resume", |procmgr, id| procmgr.resume(id)).await
}

async fn all_releases(Target(app): Target) -> Response {
    json(StatusCode::OK, &Releases { releases: releases::list(&app.record()) })
}

async fn roll_back(errand: Errand, back: Result<Query<Back>, QueryRejection>) -> Result<Response, ApiError> {
    let Query(back) = back.map_err(|_| ApiError::Field("query: use ?release=RELEASE"))?;
    let wanted = back.release.filter(|release| !release.is_empty());
    let (hub, app) = (Arc::clone(&errand.hub), Arc::clone(&errand.app));
    let what = match releases::is_current(&app.record(), wanted.as_deref()) {
        true => "application.start",
        false => "application.rollback",
    };
    let roll_back = |hub, app| async move { releases::roll_back(&hub, &app, wanted).await };
    let release = errand.run(what, roll_back, |_, release| release.clone()).await?;
    let (application_id, status) = (app.id.clone(), hub.standing(&app).status);
    let message = "Application rolled back; its status says when it answers";
    Ok(json(StatusCode::OK, &BackReply { application_id, release, status, message }))
}

/// JSON with a newline at its end, as the contract's encoder writes it.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut text = serde_json::to_vec(value).expect("these replies are text and numbers");
    text.push(b'\n');
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
