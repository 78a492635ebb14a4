//! The sample app of NexusHub: what an app is, on one page.
//!
//! It greets at `GET /` (which host, which process, how many visits). The visits are kept in `$NEXUSHUB_DATA/visits`, so they
//! outlive restarts and new releases. The rest - where it listens, the health check, stopping after the requests in flight -
//! is `nexushub-applib`'s. Package it as `bin/app` in a zip: `nexushub push hello.zip --name hello`. Run it alone with
//! `PORT=8080 nexushub-hello`.

use std::{
    env, fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, extract::State, http::Method, response::Html, routing::get};
use nexushub_applib::{Settings, serve};

/// What the page needs to know.
struct Hello {
    host: String,
    visits: Mutex<u64>,
    /// Where the number of visits is kept; without a data folder it lives as long as the process.
    kept: Option<PathBuf>,
}

impl Hello {
    fn new(settings: &Settings) -> Self {
        let kept = env::var_os("NEXUSHUB_DATA").map(|_| settings.data.join("visits"));
        let visits = kept.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let visits = visits.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { host: settings.host.clone(), visits: Mutex::new(visits), kept }
    }

    fn count(&self) -> u64 {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        *visits += 1;
        self.keep(*visits).unwrap_or_else(|error| eprintln!("could not keep the number of visits: {error}"));
        *visits
    }

    /// Beside, then over: whoever reads the file sees a whole number. Not synced: a visit may be lost with the machine.
    fn keep(&self, visits: u64) -> io::Result<()> {
        let Some(path) = &self.kept else { return Ok(()) };
        let beside = path.with_extension("new");
        fs::write(&beside, format!("{visits}\n"))?;
        fs::rename(beside, path)
    }
}

async fn greet(method: Method, State(hello): State<Arc<Hello>>) -> Html<String> {
    if method == Method::HEAD {
        return Html(String::new()); // who asks for the head alone is no visitor
    }
    let (host, pid, visits) = (&hello.host, std::process::id(), hello.count());
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Hello from {host}</title></head>\n\
         <body><h1>Hello from {host}</h1>\n<p>process {pid}, visit number {visits}</p></body></html>\n"
    ))
}

fn main() -> io::Result<()> {
    serve(Settings::from_env()?, async |settings| {
        Ok(Router::new().route("/", get(greet)).with_state(Arc::new(Hello::new(&settings))))
    })
}
