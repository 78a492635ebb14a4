//! Listening: `PORT` on the loopback interface, `/api/status` for the health check, and an end that loses no request.

use std::{
    env,
    future::{Future, ready},
    io,
    net::Ipv4Addr,
    path::PathBuf,
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    identity::Key,
    time::{self, Clock},
};

/// How long requests in flight may take once the app was told to stop; the platform waits 5 s before it kills.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of a request's body, unless a route says otherwise.
const BODY_MAX: usize = 256 * 1024;
/// Threads for what blocks: hashing, files.
const BLOCKING_THREADS: usize = 8;

/// What the platform tells an app in its environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `PORT`, where it shall listen; 8080 without one.
    pub port: u16,
    /// `HOST`, its public name with the port.
    pub host: String,
    /// `INTERNAL_SECRET`, by which the platform knows it and it knows the platform.
    pub secret: String,
    /// `NEXUSHUB_DATA`, what outlives it, or the current folder.
    pub data: PathBuf,
}

impl Settings {
    /// From the environment.
    ///
    /// # Errors
    /// When `PORT` is no port.
    pub fn from_env() -> io::Result<Self> {
        let text = |name: &str, otherwise: &str| env::var(name).unwrap_or_else(|_| otherwise.to_owned());
        let port = text("PORT", "8080");
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("PORT is `{port}`"));
        Ok(Self {
            port: port.parse().map_err(wrong)?,
            host: text("HOST", "localhost"),
            secret: text("INTERNAL_SECRET", ""),
            data: env::var_os("NEXUSHUB_DATA").map_or_else(|| PathBuf::from("."), PathBuf::from),
        })
    }

    /// The host's name alone.
    #[must_use]
    pub fn host_name(&self) -> &str {
        self.host.split(':').next().unwrap_or_default()
    }
}

/// Wraps an app's routes as [`serve`] does: the health check is answered, proven identities are laid beside requests
/// ([`crate::Identity`]), and bodies are bounded (a route with a `DefaultBodyLimit` of its own has that).
pub fn guard(routes: Router, secret: &str, clock: Clock) -> Router {
    let judge = Judge { key: (!secret.is_empty()).then(|| Key::of(secret)), clock };
    routes
        .route("/api/status", get(async || "OK"))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(judge, identify))
}

/// What identities are judged by; without a secret nobody is anybody.
#[derive(Clone)]
struct Judge {
    key: Option<Key>,
    clock: Clock,
}

async fn identify(State(judge): State<Judge>, mut request: Request, next: Next) -> Response {
    let known = judge.key.as_ref().and_then(|key| key.identity(request.headers(), (judge.clock)()));
    known.map(|identity| request.extensions_mut().insert(identity));
    next.run(request).await
}

/// Runs an app until it is told to stop (SIGTERM, SIGINT), and a little longer for what is in flight. `routes` is asked for the
/// app's routes once the runtime is there, and may open databases and start tasks.
///
/// # Errors
/// When the port is taken, or the routes can't be had.
pub fn serve<F, R>(settings: Settings, routes: F) -> io::Result<()>
where
    F: FnOnce(Settings) -> R,
    R: Future<Output = io::Result<Router>>,
{
    serve_then(settings, async |settings| Ok((routes(settings).await?, ready(()))))
}

/// The same for an app that has something to do after its last request, like telling what that led to. It has what is left of the
/// time that requests in flight may take.
///
/// # Errors
/// As [`serve`].
pub fn serve_then<F, R, L>(settings: Settings, routes: F) -> io::Result<()>
where
    F: FnOnce(Settings) -> R,
    R: Future<Output = io::Result<(Router, L)>>,
    L: Future<Output = ()>,
{
    // One thread carries every request of an app of this size; what would hold it up has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let ended = runtime.block_on(async { listen(settings, routes, told_to_stop()?).await });
    runtime.shutdown_background();
    ended
}

/// Listens from now on for being told to stop (SIGTERM, SIGINT): for what would hold a request open beyond that.
///
/// # Errors
/// When signals can't be had.
pub fn told_to_stop() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

async fn listen<F, R, L>(
    settings: Settings,
    routes: F,
    told_to_stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    F: FnOnce(Settings) -> R,
    R: Future<Output = io::Result<(Router, L)>>,
    L: Future<Output = ()>,
{
    let (routes, last) = routes(settings.clone()).await?;
    let app = guard(routes, &settings.secret, time::clock());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port)).await?;
    println!("listening on http://{} for {}", listener.local_addr()?, settings.host);
    let (told, stopping) = oneshot::channel();
    let told_to_stop = async move {
        told_to_stop.await;
        let _ = told.send(()); // whoever is not listening has ended already
    };
    let served = axum::serve(listener, app).with_graceful_shutdown(told_to_stop);
    let patience = async {
        if stopping.await.is_ok() {
            tokio::time::sleep(PATIENCE).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let all = async {
        let ended = served.await;
        last.await;
        ended
    };
    tokio::select! { ended = all => ended, () = patience => Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;
    use crate::Identity;

    async fn ask(secret: &str, proof: Option<String>, path: &str) -> (StatusCode, String) {
        let whoami = get(async |who: Identity| who.caller.unwrap_or_default());
        let app = guard(Router::new().route("/who", whoami), secret, Arc::new(|| 1000));
        let mut request = http::Request::get(path);
        if let Some(proof) = proof {
            request = request.header("x-nexushub-identity", proof);
        }
        let answer = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        (head.status, String::from_utf8(to_bytes(body, 1024).await.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_health_check_is_answered_and_handlers_are_told_who_asks() {
        assert_eq!(ask("s", None, "/api/status").await, (StatusCode::OK, "OK".into()));
        let who = Identity { user: None, caller: Some("one".into()) };
        let proof = Key::of("s").prove(&who, 1000);
        assert_eq!(ask("s", Some(proof), "/who").await, (StatusCode::OK, "one".into()));
        assert_eq!(ask("s", None, "/who").await.0, StatusCode::UNAUTHORIZED);
    }

    /// How long an app lives that has this to do at its end.
    async fn end(last: impl Future<Output = ()>) -> Duration {
        let begun = tokio::time::Instant::now();
        let settings = Settings { port: 0, host: "h".into(), secret: "s".into(), data: ".".into() };
        listen(settings, async |_| Ok((Router::new(), last)), ready(())).await.unwrap();
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_to_do_is_done_at_the_end_and_not_waited_for_longer_than_for_requests() {
        let (done, seen) = oneshot::channel();
        end(async { done.send("told").expect("somebody listens") }).await;
        assert_eq!(seen.await, Ok("told"));
        assert_eq!(end(std::future::pending()).await, PATIENCE);
    }

    #[tokio::test]
    async fn an_app_without_a_secret_believes_nobody() {
        let who = Identity { user: None, caller: Some("one".into()) };
        let proof = Key::of("").prove(&who, 1000);
        assert_eq!(ask("", Some(proof), "/who").await.0, StatusCode::UNAUTHORIZED);
    }
}
