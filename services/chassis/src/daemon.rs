//! A daemon's `main`: arguments, configuration, identity, runtime; then the daemon itself.

use std::{env, os::unix::net::UnixListener, process::ExitCode, sync::Arc, time::Duration};

use nexushub_launch::{Fault, fault::EXIT_USAGE, handoff::Handoff, lock::Lock, notify::Notifier};
use nix::sys::prctl;
use serde::de::DeserializeOwned;
use tonic::{body::Body, server::NamedService};
use tonic_health::server::{HealthReporter, HealthService, health_reporter};
use tower::Service;

use crate::{
    audit::Audit,
    client::Clients,
    credentials::Credentials,
    gate::Gate,
    limits,
    listeners::{self, Listeners},
    ready::{self, Ready},
    serve::{self, Rpc},
    setup::{Setup, find_config},
    shutdown::Shutdown,
    telemetry::{self, Telemetry},
};

/// How long a daemon waits for its predecessor to let go of the state.
const PATIENCE: Duration = Duration::from_secs(15);

/// What makes one daemon different from the others.
pub trait Daemon: Sized + Send + 'static {
    /// Its short name: `provider`.
    const NAME: &'static str;
    /// Whether only one generation may run at a time; it then holds `$STATE/<name>.lock`.
    const EXCLUSIVE: bool = true;
    /// Threads that run its tasks; with 1 everything runs on the main thread.
    const WORKERS: usize = 1;
    /// Its table of the configuration file.
    type Config: DeserializeOwned + Default + Send + Sync + 'static;

    /// Judges the configuration and the files that it names; nothing is changed. What `--check` runs, and every start.
    ///
    /// # Errors
    /// The first reason not to start.
    fn check(setup: &Setup<Self::Config>) -> Result<(), Fault>;

    /// Runs until [`Chassis::shutdown`] says drain, and returns when drained.
    ///
    /// # Errors
    /// What makes going on impossible; the parent starts the daemon again.
    fn run(chassis: Chassis<Self::Config>) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What a running daemon is given.
pub struct Chassis<C> {
    /// Configuration and folders.
    pub setup: Setup<C>,
    /// The word to stop.
    pub shutdown: Shutdown,
    /// Inherited sockets.
    pub listeners: Listeners,
    /// Ways to the other daemons.
    pub clients: Clients,
    /// Tokens to show and digests to accept.
    pub credentials: Credentials,
    /// Tells how the daemon stands.
    pub ready: Ready,
    /// Notes who did what.
    pub audit: Audit,
    rpc: Rpc,
    health: HealthReporter,
    grpc: Option<UnixListener>,
}

impl<C> Chassis<C> {
    /// The gRPC server with this service, health and reflection, behind the checks that every call passes. It ends after the
    /// drain; spawn it or join it. To be called once.
    pub fn grpc<S>(&mut self, service: S) -> impl Future<Output = Result<(), Fault>> + Send + use<S, C>
    where
        S: Service<http::Request<Body>, Error = std::convert::Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.ready.covers(S::NAME);
        let listener = self.grpc.take();
        let timeout = Duration::from_millis(self.rpc.call_timeout_ms);
        let gate = Gate::new(
            self.credentials.clone(),
            self.setup.platform.peers.clone(),
            timeout,
            self.rpc.max_calls,
        );
        let health = HealthService::from_health_reporter(self.health.clone());
        let health = tonic_health::pb::health_server::HealthServer::new(health);
        let (shutdown, rpc) = (self.shutdown.clone(), self.rpc.clone());
        async move {
            let listener = listener.and_then(|listener| tokio::net::UnixListener::from_std(listener).ok());
            let listener = listener.ok_or_else(|| listeners::missing("grpc"))?;
            serve::serve(service, serve::Parts { gate, health, listener, shutdown, rpc }).await
        }
    }
}

/// The whole of a daemon's `main`.
#[must_use]
pub fn main<D: Daemon>() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => start::<D>(),
        ["--check"] => prepare::<D>().map(drop),
        ["--version"] => {
            println!("nexushub-{} {}", D::NAME, env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        ["--help" | "-h"] => {
            println!("{}", help(D::NAME));
            Ok(())
        }
        other => Err(Fault {
            exit: EXIT_USAGE,
            ..Fault::new("usage", "unknown arguments", other.join(" "), "see --help")
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{}", fault.to_json_line(D::NAME));
            ExitCode::from(fault.exit)
        }
    }
}

fn help(name: &str) -> String {
    format!(
        "nexushub-{name}: a daemon of the NexusHub platform; started by nexushub-supervisor or systemd.\n\n\
         usage: nexushub-{name} [--check | --version | --help]\n\n  \
         --check    judge the configuration and the files it names, print one JSON line if they are bad, and end\n\n\
         environment: NEXUSHUB_CONFIG, RUNTIME_DIRECTORY, STATE_DIRECTORY, NEXUSHUB_LISTEN, CREDENTIALS_DIRECTORY,\n  \
         LISTEN_FDS, NOTIFY_SOCKET, WATCHDOG_USEC. Exit codes: 0 ended well, 1 failure, 64 bad configuration or usage."
    )
}

struct Prepared<C> {
    handoff: Handoff,
    setup: Setup<C>,
    rpc: Rpc,
    telemetry: Telemetry,
}

fn prepare<D: Daemon>() -> Result<Prepared<D::Config>, Fault> {
    let handoff = Handoff::from_env()?;
    let config = find_config(&handoff)?;
    let setup = Setup::load(D::NAME, &handoff, &config)?;
    D::check(&setup)?;
    Ok(Prepared { rpc: config.section("rpc")?, telemetry: config.section("telemetry")?, handoff, setup })
}

fn start<D: Daemon>() -> Result<(), Fault> {
    // Before any thread exists: descriptors are taken, the name is set, memory is closed to others.
    let mut listeners = Listeners::inherit()?;
    let name = std::ffi::CString::new(format!("nexushub-{}", D::NAME)).expect("a daemon's name has no NUL");
    let _ = prctl::set_name(&name);
    prctl::set_dumpable(false).map_err(|error| system("could not close the process to others", error))?;
    let generation = listeners.take("generation"); // held until the process ends: see the supervisor
    let prepared = prepare::<D>()?;
    let credentials = prepared.handoff.credentials.clone();
    let credentials = credentials.ok_or_else(|| {
        let hint = "start the daemon under nexushub-supervisor or its systemd unit";
        Fault::new("credentials_missing", "started without credentials", "CREDENTIALS_DIRECTORY", hint)
    })?;
    let credentials = Credentials::load(&credentials)?;
    let _exclusive = D::EXCLUSIVE.then(|| exclusive::<D>(&prepared.setup)).transpose()?;
    let exporting = telemetry::start(D::NAME, prepared.setup.platform.level(), &prepared.telemetry)?;
    limits::raise_open_files();
    let mut runtime = match D::WORKERS {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(D::WORKERS.max(1)).enable_all().build();
    let runtime = runtime.map_err(|error| system("could not start the runtime", error))?;
    let outcome = runtime.block_on(run::<D>(prepared, listeners, credentials));
    runtime.shutdown_timeout(Duration::from_millis(100));
    exporting.finish();
    drop(generation);
    outcome
}

/// Waits for the predecessor of an exclusive daemon to be gone.
fn exclusive<D: Daemon>(setup: &Setup<D::Config>) -> Result<Lock, Fault> {
    let path = setup.state.join(format!("{}.lock", D::NAME));
    let object = path.display().to_string();
    match Lock::acquire_within(&path, PATIENCE) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Fault::new(
            "already_running",
            "another process holds the state",
            object,
            "stop the other one first",
        )),
        Err(error) => Err(Fault::new(
            "state_unwritable",
            format!("could not lock the state: {error}"),
            object,
            "check the folder",
        )),
    }
}

async fn run<D: Daemon>(
    prepared: Prepared<D::Config>,
    mut listeners: Listeners,
    credentials: Credentials,
) -> Result<(), Fault> {
    let notifier =
        Notifier::from_env().map_err(|error| system("could not reach the parent", error))?.map(Arc::new);
    let (health, _) = health_reporter();
    let shutdown = Shutdown::on_signals().map_err(|error| system("could not listen for signals", error))?;
    let ready = Ready::new(notifier, health.clone());
    if let Some(patience) = prepared.handoff.watchdog {
        tokio::spawn(ready::watchdog(ready.clone(), patience));
    }
    let stopping = (shutdown.clone(), ready.clone());
    tokio::spawn(async move {
        stopping.0.draining().await;
        stopping.1.stopping();
    });
    let audit = Audit::of(&prepared.setup.state, D::NAME);
    let chassis = Chassis {
        clients: Clients::new(prepared.setup.run.clone(), credentials.clone()),
        grpc: listeners.take_unix("grpc"),
        setup: prepared.setup,
        shutdown,
        listeners,
        credentials,
        ready,
        audit,
        rpc: prepared.rpc,
        health,
    };
    D::run(chassis).await
}

fn system(what: &str, error: impl std::fmt::Display) -> Fault {
    Fault::new("system", format!("{what}: {error}"), "process", "see the message")
}
