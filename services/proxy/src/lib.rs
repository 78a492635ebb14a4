//! HTTPS in, apps behind.
//!
//! Workers (`workers.rs`), one for each core, accept from the inherited listeners. A connection (`front.rs`) says whose it is
//! if another proxy passes it on (`preface.rs`), shakes hands (`tls.rs`, with the pairs that `certificate.rs` judged and
//! `shelf.rs` holds, or a session of `tickets.rs`, and with the client's certificate by `guard.rs`) and becomes a `link.rs`;
//! HTTP/1.1 is spoken by `h1.rs`, HTTP/2 by `h2.rs`, and with apps that want it by `h2c.rs`. Each request is decided by a pure
//! function (`decide.rs`, with `host.rs` and `paths.rs`) over an immutable table (`table.rs`) and then goes to its backend
//! (`forward.rs`) over a pooled connection (`pool.rs`), streamed both ways (`body.rs`), its headers made fit for the other side
//! (`headers.rs`); or leaves HTTP (`upgrade.rs`, from HTTP/2 `websocket.rs`), or is answered from an app's static folder
//! (`files.rs`). Apps in boxes come in by doors of their own (`door.rs`, which also bounds what each client does:
//! `address.rs`), whose listeners their shims hand out (`entrance.rs`). The table follows procmgr's stream (`feed.rs`) and is
//! kept on disk (`store.rs`); what drains by it is let go of in time (`release.rs`), and what sleeps is woken (`sleep.rs`);
//! operators ask by RPC (`service.rs`), monitoring by HTTP (`scrape.rs`).
//!
//! Invariant: no RPC on the path of a request. procmgr, provider and debug-api may all be dead and running apps are reached.

mod access;
mod address;
mod audit;
mod body;
pub mod certificate;
mod clock;
pub mod config;
mod cookies;
mod cors;
mod counters;
mod daemons;
mod decide;
mod door;
mod entrance;
mod error;
mod feed;
mod files;
mod forward;
mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod guard;
mod h1;
mod h2;
mod h2c;
mod headers;
mod host;
mod id;
mod identity;
mod keys;
mod linger;
mod link;
#[cfg(feature = "fuzzing")]
pub mod measured;
mod metrics;
mod paths;
mod pool;
mod preface;
mod redirect;
mod refusal;
mod release;
mod revoked;
mod rules;
mod scrape;
mod service;
mod shares;
mod shelf;
mod sleep;
mod stays;
mod store;
mod table;
mod tickets;
mod tls;
mod tokens;
mod turns;
mod upgrade;
mod websocket;
mod wellknown;
mod workers;

use std::{future::Future, net::TcpListener, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderValue;
use nexushub_chassis::{
    Fault,
    audit::Audit,
    daemon::{Chassis, Daemon},
    listeners::missing,
    setup::Setup,
    shutdown::Shutdown,
    vital::Vital,
};
use nexushub_proto::{
    procmgr::procmgr_service_client::ProcmgrServiceClient, proxy::proxy_service_server::ProxyServiceServer,
};
use tokio::{net::UnixListener, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    audit::Trail,
    config::Config,
    decide::Policy,
    door::{Door, Outer},
    entrance::Entrances,
    forward::{Proxy, Timing},
    front::{Front, Manner},
    gate::Gate,
    pool::{Pool, Target},
    release::Releaser,
    scrape::Scrape,
    shelf::Shelf,
    sleep::Sleep,
    table::Table,
    tickets::Tickets,
    tls::{Tls, now_unix},
    workers::Workers,
};

/// A snapshot of ten thousand instances is a few megabytes.
const NEWS_BYTES: usize = 64 * 1024 * 1024;

/// Connections at once by a listener that only redirects.
const REDIRECTS: usize = 512;

/// The proxy daemon.
pub struct Gateway;

impl Daemon for Gateway {
    const NAME: &'static str = "proxy";
    const EXCLUSIVE: bool = false;
    type Config = Config;

    fn check(setup: &Setup<Config>) -> Result<(), Fault> {
        setup.config.validate()?;
        shelf(setup).map(drop)
    }

    fn run(chassis: Chassis<Config>) -> impl Future<Output = Result<(), Fault>> + Send {
        run(chassis)
    }
}

async fn run(mut chassis: Chassis<Config>) -> Result<(), Fault> {
    let config = chassis.setup.config.clone();
    let tls = tls(&chassis.setup)?;
    let listeners = listeners(&mut chassis)?;

    let path = store::path(&chassis.setup.state);
    let (publish, table) = watch::channel(Arc::new(store::load(&path, config.pool_limits())));
    warn_of_names(&tls, &chassis.setup);
    let holder = Uuid::new_v4().to_string();
    let procmgr = ProcmgrServiceClient::new(chassis.clients.channel("procmgr"));
    let sleep = Sleep::new(Some(procmgr.clone()), holder.clone());
    let proxy = proxy(&chassis, table.clone(), sleep.clone());
    let service = service::Service {
        table: table.clone(),
        counters: Arc::clone(&proxy.counters),
        base_domain: proxy.policy.base_domain.clone(),
    };
    let mut rpc = tokio::spawn(chassis.grpc(ProxyServiceServer::new(service)));
    let mut vital = Vital::default();
    let releaser = Releaser::new(procmgr.clone(), holder.clone());
    let procmgr = procmgr.max_decoding_message_size(NEWS_BYTES);
    vital.spawn("routes from procmgr", feed::follow(procmgr, holder, publish));
    vital.spawn("letting go of what drains", releaser.follow(table.clone()));
    vital.spawn("telling who is idle", sleep.follow(table.clone()));
    vital.spawn("the kept table", keep_until_drain(path, table.clone(), chassis.shutdown.clone()));

    let drain = CancellationToken::new();
    let front = Front::new(Arc::clone(&proxy), tls, &config);
    let door = Door::outside(config.outer_bounds(), Arc::clone(&proxy.counters), drain.clone());
    redirect_from(&mut chassis, &front, &listeners, &drain)?;
    tell_metrics(&mut chassis, &proxy, &table, &drain)?;
    let number = workers::number(config.workers);
    let daemons = daemons_socket(&mut chassis)?;
    vital.spawn("the platform's own socket", daemons::serve(Arc::clone(&front), daemons, drain.clone()));
    vital.spawn("who was logged out", Arc::clone(&proxy.gate.revoked).follow());
    let mut workers =
        Workers::start(number, &front, &listeners, &door).map_err(|error| no_workers(&error))?;
    vital.spawn("a worker", workers.ended());
    vital.spawn("the entrances of boxes", Entrances::new(front, &config, drain.clone()).follow(table));
    chassis.ready.ready("accepting connections");

    let ended = tokio::select! {
        biased;
        () = chassis.shutdown.draining() => None,
        ended = &mut rpc => Some(ended), // it has no reason to: drain, and let the parent start anew
        fault = vital.ended() => Some(Ok(Err(fault))),
    };
    drain.cancel();
    drained(&proxy, Duration::from_millis(config.drain_ms)).await;
    drop((vital, workers));
    let ended = match ended {
        Some(ended) => ended,
        None => rpc.await,
    };
    let broke =
        |error| Fault::new("grpc", format!("the RPC server broke: {error}"), "proxy.sock", "see the log");
    ended.unwrap_or_else(|error| Err(broke(error)))
}

/// Keeps the table on disk; from the drain on that is the next generation's to do.
async fn keep_until_drain(path: PathBuf, table: watch::Receiver<Arc<Table>>, shutdown: Shutdown) {
    tokio::select! {
        () = store::keep(path, table) => {}
        () = shutdown.draining() => {}
    }
}

/// Waits for what is under way, up to the limit; what is left then is dropped.
async fn drained(proxy: &Proxy, limit: Duration) {
    proxy.tasks.close();
    let counters = &proxy.counters;
    tracing::info!(
        connections = counters.connections_open.get(),
        requests = counters.requests_in_flight.get(),
        upgrades = counters.upgrades_open.get(),
        "draining"
    );
    if timeout(limit, proxy.tasks.wait()).await.is_err() {
        tracing::warn!(
            connections = counters.connections_open.get(),
            "drain limit reached; the rest is dropped"
        );
        proxy.end.cancel();
    }
}

/// What a proxy is made of besides its configuration.
struct ProxyParts {
    base_domain: String,
    gate: Gate,
    audit: Audit,
    table: watch::Receiver<Arc<Table>>,
    debug_socket: PathBuf,
    debug_token: Option<HeaderValue>,
    sleep: Sleep,
}

fn base_domain(setup: &Setup<Config>) -> String {
    setup.platform.base_domain.trim_matches('.').to_ascii_lowercase()
}

fn warn_of_names(tls: &Tls, setup: &Setup<Config>) {
    let base_domain = base_domain(setup);
    let any = format!("any.{base_domain}");
    if !tls.shelf.names(&any).covers(&any) {
        tracing::warn!(base_domain, "no certificate covers the names below the base domain");
    }
}

fn proxy(chassis: &Chassis<Config>, table: watch::Receiver<Arc<Table>>, sleep: Sleep) -> Arc<Proxy> {
    let setup = &chassis.setup;
    let base_domain = base_domain(setup);
    let debug_socket = setup.run.join("debug-api.http.sock");
    let debug_token = chassis.credentials.token_for("debug-api").and_then(token);
    let gate = Gate::load(&setup.state, chassis.credentials.clone(), now_unix() * 1000);
    let audit = chassis.audit.clone();
    build(&setup.config, ProxyParts { base_domain, gate, audit, table, debug_socket, debug_token, sleep })
}

fn build(config: &Config, parts: ProxyParts) -> Arc<Proxy> {
    let ProxyParts { base_domain, gate, audit, table, debug_socket, debug_token, sleep } = parts;
    let millis = Duration::from_millis;
    Arc::new(Proxy {
        policy: Policy { base_domain, require_login: config.require_login, hold_ms: config.hold_ms },
        timing: Timing {
            first_byte: millis(config.first_byte_ms),
            debug_first_byte: millis(config.debug_first_byte_ms),
            body_idle: millis(config.body_idle_ms),
            hold: millis(config.hold_ms),
            pause: millis(config.pause_ms),
            switch: millis(config.switch_ms),
            upgrade_linger: millis(config.upgrade_linger_ms),
            whole: (config.whole_ms > 0).then(|| millis(config.whole_ms)),
        },
        table,
        counters: Arc::default(),
        gate,
        trail: Trail::new(audit),
        logins: config.logins(),
        debug: Arc::new(Pool::new(Target::Unix(debug_socket), config.pool_limits())),
        debug_token,
        debug_without_token: config.debug_without_token,
        waiting: config.waiting(),
        inward_waiting: config.waiting(),
        body_bytes: if config.max_body_bytes == 0 { u64::MAX } else { config.max_body_bytes },
        sleep,
        access_log_every: if config.access_log { config.access_log_every } else { 0 },
        hsts: (config.hsts_seconds > 0).then(|| hsts(config.hsts_seconds)),
        trusted: config.trusted_proxies.clone(),
        tasks: TaskTracker::new(),
        end: CancellationToken::new(),
    })
}

fn hsts(seconds: u32) -> HeaderValue {
    HeaderValue::try_from(format!("max-age={seconds}")).expect("digits are printable ASCII")
}

fn token(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The certificates of the configuration, the one for everybody first.
fn shelf(setup: &Setup<Config>) -> Result<Shelf, Fault> {
    let config = &setup.config;
    let first = (&config.certificate, &config.key);
    let further = config.pair.iter().map(|pair| (&pair.certificate, &pair.key));
    let places = std::iter::once(first).chain(further);
    let places = places.map(|(certificate, key)| shelf::Place {
        certificate: setup.resolve(certificate),
        key: setup.resolve(key),
    });
    Ok(Shelf::load(places.collect(), tls::provider())?)
}

fn tls(setup: &Setup<Config>) -> Result<Tls, Fault> {
    let tickets = Tickets::load(&setup.state, now_unix());
    Tls::new(shelf(setup)?, tickets).map_err(|error| {
        Fault::new(
            "tls",
            format!("could not set up TLS: {error}"),
            "certificate",
            "check the certificate and its key",
        )
    })
}

fn no_workers(error: &std::io::Error) -> Fault {
    let hint = "see how many threads and descriptors the daemon may have";
    Fault::new("system", format!("could not start the workers: {error}"), "proxy.workers", hint)
}

/// Accepts by the listeners that only send people to the others, where there are some. The first thread is enough for that.
fn redirect_from(
    chassis: &mut Chassis<Config>,
    front: &Arc<Front>,
    https: &[TcpListener],
    drain: &CancellationToken,
) -> Result<(), Fault> {
    let port = https.first().and_then(|listener| listener.local_addr().ok()).map_or(443, |at| at.port());
    let listeners = chassis.listeners.take_tcp("http");
    warn_of_unheld("redirect_listen", &chassis.setup.platform.redirect_listen, &listeners);
    for listener in listeners {
        let listener = front::prepare(&listener).and_then(|()| tokio::net::TcpListener::from_std(listener));
        let listener = listener.map_err(|error| unusable("http", &error))?;
        let door = Door::outside(Outer::of(REDIRECTS), Arc::clone(&front.proxy.counters), drain.clone());
        front.proxy.tasks.spawn(Arc::clone(front).accept(listener, door, Manner::Redirect(port)));
    }
    Ok(())
}

/// Says that nobody listens where the configuration says so: whoever started this daemon holds its sockets, and a unit of its own
/// has no more of them than it has socket units.
fn warn_of_unheld(key: &str, address: &str, listeners: &[TcpListener]) -> bool {
    let unheld = !address.is_empty() && listeners.is_empty();
    if unheld {
        let hint = "with a unit for each daemon a socket unit has to hold it; see the key in nexushub.toml";
        tracing::warn!(
            object = format!("platform.{key}"),
            address,
            hint,
            "nobody listens at a configured address"
        );
    }
    unheld
}

/// Answers who collects metrics, where anybody is to.
fn tell_metrics(
    chassis: &mut Chassis<Config>,
    proxy: &Proxy,
    table: &watch::Receiver<Arc<Table>>,
    drain: &CancellationToken,
) -> Result<(), Fault> {
    let listeners = chassis.listeners.take_tcp("metrics");
    warn_of_unheld("metrics_listen", &chassis.setup.platform.metrics_listen, &listeners);
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener);
        let listener = listener.map_err(|error| unusable("metrics", &error))?;
        let (counters, tasks) = (Arc::clone(&proxy.counters), proxy.tasks.clone());
        let scrape = Scrape { table: table.clone(), counters, tasks, drain: drain.clone() };
        tokio::spawn(scrape.serve(listener));
    }
    Ok(())
}

/// Where the platform's own daemons ask for apps.
fn daemons_socket(chassis: &mut Chassis<Config>) -> Result<UnixListener, Fault> {
    let listener = chassis.listeners.take_unix("platform").ok_or_else(|| missing("platform"))?;
    UnixListener::from_std(listener).map_err(|error| unusable("platform", &error))
}

fn unusable(name: &'static str, error: &std::io::Error) -> Fault {
    let hint = "the sockets named https, http and metrics must be listening TCP sockets";
    Fault::new("socket_unusable", format!("could not use an inherited listener: {error}"), name, hint)
}

fn listeners(chassis: &mut Chassis<Config>) -> Result<Vec<TcpListener>, Fault> {
    let inherited = chassis.listeners.take_tcp("https");
    if inherited.is_empty() {
        return Err(missing("https"));
    }
    inherited.iter().try_for_each(front::prepare).map_err(|error| unusable("https", &error))?;
    Ok(inherited)
}

#[cfg(test)]
mod tests;
