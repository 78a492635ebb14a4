//! The sample app of NexusHub: an ordinary HTTP/1.1 program that knows nothing of the platform but its environment.
//!
//! It listens on `127.0.0.1:$PORT` (8080 without one), answers `GET /api/status` with `OK` as every app must, greets at
//! `GET /` (which host, which process, how many visits), and stops on SIGTERM after the requests in flight. The visits
//! are kept in `$NEXUSHUB_DATA/visits`, so they outlive restarts and new releases. Package it as `bin/app` in a zip:
//! `nexushub push hello.zip --name hello`. Run it alone with `PORT=8080 nexushub-hello`.

use std::{
    cell::Cell, convert::Infallible, env, fs, io, net::Ipv4Addr, path::PathBuf, rc::Rc, time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinSet, LocalSet},
};

/// How long requests in flight may take once the app was told to stop; the platform waits 5 s before it kills.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the pages need to know, and the counter.
struct Hello {
    host: String,
    visits: Cell<u64>,
    /// Where the counter is kept; without a data folder it lives as long as the process.
    kept: Option<PathBuf>,
}

impl Hello {
    fn from_env() -> Self {
        let kept = env::var_os("NEXUSHUB_DATA").map(|data| PathBuf::from(data).join("visits"));
        let visits = kept.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let visits = visits.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self {
            host: env::var("HOST").unwrap_or_else(|_| "localhost".to_owned()),
            visits: Cell::new(visits),
            kept,
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/api/status") => text(StatusCode::OK, "OK"),
            (&Method::GET, "/") => page(self.greeting()),
            (&Method::HEAD, "/") => page(String::new()),
            (_, "/" | "/api/status") => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn greeting(&self) -> String {
        let visits = self.visits.get() + 1;
        self.visits.set(visits);
        self.keep(visits).unwrap_or_else(|error| eprintln!("could not keep the number of visits: {error}"));
        let (host, pid) = (&self.host, std::process::id());
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Hello from {host}</title></head>\n\
             <body><h1>Hello from {host}</h1>\n<p>process {pid}, visit number {visits}</p></body></html>\n"
        )
    }

    /// Beside, then over: whoever reads the file sees a whole number. Not synced: a visit may be lost with the machine.
    fn keep(&self, visits: u64) -> io::Result<()> {
        let Some(path) = &self.kept else { return Ok(()) };
        let beside = path.with_extension("new");
        fs::write(&beside, format!("{visits}\n"))?;
        fs::rename(beside, path)
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body.into())
}

fn page(body: String) -> Response<Full<Bytes>> {
    typed(StatusCode::OK, "text/html; charset=utf-8", body.into())
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

async fn connection(hello: Rc<Hello>, stream: TcpStream, mut stopping: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let response = hello.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let served =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        _ = stopping.wait_for(|stop| *stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    ended.unwrap_or_else(|error| eprintln!("a connection broke: {error}"));
}

async fn serve() -> io::Result<()> {
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let port: u16 =
        port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("PORT is `{port}`")))?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let hello = Rc::new(Hello::from_env());
    println!(
        "hello {} listens on http://{} for {}",
        env!("CARGO_PKG_VERSION"),
        listener.local_addr()?,
        hello.host
    );
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn_local(connection(Rc::clone(&hello), stream, stopping.clone()))),
                // Out of descriptors, most likely: wait for some to be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    let _ = tokio::time::timeout(PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
    println!("hello stops at visit number {}", hello.visits.get());
    Ok(())
}

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(serve()))
}
