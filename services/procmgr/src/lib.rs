//! procmgr makes the desired app instances exist: it starts each below a shim of its own, watches its health, restarts it when
//! it fails, and tells whoever asks how each one stands and why.
//!
//! ```text
//! provider ──desired set──► desired/feed ─┐                        ┌─► table ──► service (gRPC: proxy, debug-api, people)
//!                     desired/store (disk)┤                        │
//!                                         ▼                        │
//!   effects: adopt, generation, probe ─► manager (owner task) ─────┘
//!     ▲            (events)               │  state + reconcile + backoff + health + ports: pure
//!     └───────────── actions ─────────────┘
//! ```
//! Invariants: an instance has at most one generation that is routed; procmgr may be killed at any instant and no instance notices, is
//! lost or is doubled; an unreachable provider stops nothing; SIGTERM leaves the instances running, unless the platform as a
//! whole is being stopped (the marker `$RUN/stop-all`); no app runs without a box unless `process` was asked for by name.

mod adopt;
mod agenda;
mod backoff;
mod cgroup;
mod clock;
pub mod config;
mod control;
mod data;
mod desired;
mod driver;
mod effects;
mod egress;
mod env;
mod error;
mod exit;
mod generation;
mod guest;
mod health;
mod holders;
mod ids;
mod kills;
mod last_words;
mod limits;
mod listener;
mod log;
mod manager;
mod news;
mod note;
mod orders;
mod overlap;
mod ports;
mod probe;
mod process;
mod reconcile;
mod service;
mod sleep;
mod slots;
mod state;
mod table;
mod usage;
mod yielding;

use std::{
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use nexushub_chassis::{
    Fault,
    daemon::{Chassis, Daemon},
    launch::{clock::boot_id, daemon::STOP_ALL, fault::EXIT_USAGE},
    setup::Setup,
};
use nexushub_proto::procmgr::procmgr_service_server::ProcmgrServiceServer;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use crate::{
    cgroup::Cgroups,
    clock::Clock,
    config::Config,
    desired::{feed, store},
    driver::Programs,
    effects::{Os, Terms},
    egress::Router,
    env::Surroundings,
    generation::Place,
    holders::Holders,
    manager::{Event, Manager, Start},
    orders::Orders,
    reconcile::Mode,
    service::Service,
    slots::Slots,
    table::Table,
};

/// Events on their way to the owner task.
const EVENTS: usize = 256;
/// Beyond the stop deadline, how long the last instances may take when everything is stopped.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// The daemon.
#[derive(Debug)]
pub struct Procmgr;

impl Daemon for Procmgr {
    const NAME: &'static str = "procmgr";
    type Config = Config;

    fn check(setup: &Setup<Config>) -> Result<(), Fault> {
        if let Some((key, why)) = setup.config.problem() {
            let fault = Fault::new(
                "config_invalid",
                why,
                format!("procmgr.{key}"),
                "correct it in the table [procmgr]",
            );
            return Err(Fault { exit: EXIT_USAGE, ..fault });
        }
        open_shim(setup).map(drop)
    }

    async fn run(mut chassis: Chassis<Config>) -> Result<(), Fault> {
        let shim = open_shim(&chassis.setup)?;
        let place = place(&chassis.setup, &shim)?;
        let (events, inbox) = mpsc::channel(EVENTS);
        let os = Os::new(place.clone(), terms(&chassis)?, chassis.setup.config.at_once(), events.clone())
            .map_err(|error| fault("could not listen for ended shims", &error, Path::new("SIGCHLD")))?;
        let table = Table::default();
        let ready = chassis.ready.clone();
        let announce = Box::new(move |text: &str| ready.status(text));
        let start = start(&chassis.setup, &place, table.clone(), announce)?;
        // Beside everything else: only what needs a box waits for it.
        let search =
            tokio::spawn(driver::search(programs(&chassis.setup)?, place.root_router(), events.clone()));
        let yielding =
            tokio::spawn(yielding::keep_looking(place.cgroups.clone(), chassis.setup.config.yield_percent));
        let holders = start.holders.clone();
        let (instances, desired) = (start.known.len(), start.desired.clone());
        let mut owner = tokio::spawn(Manager::new(start, os).run(inbox));
        let mut feed = tokio::spawn(feed::follow(
            chassis.clients.channel("provider"),
            chassis.setup.config.limits(),
            desired,
            desired_path(&place.state),
            events.clone(),
        ));
        let config = &chassis.setup.config;
        let service = Service::new(
            config,
            (table, holders),
            events.clone(),
            place.instances(),
            (chassis.shutdown.clone(), chassis.audit.clone()),
        );
        let mut server = tokio::spawn(chassis.grpc(ProcmgrServiceServer::new(service)));
        chassis.ready.ready(&format!("{instances} instances known on disk"));
        tokio::select! {
            biased; // the drain ends the server, which is no fault then
            () = chassis.shutdown.draining() => {}
            fault = first_end(&mut owner, &mut feed, &mut server) => return Err(fault),
        }
        search.abort(); // a trial that is under way ends with it
        yielding.abort();
        if stop_all_marker(&chassis.setup).exists() {
            stop_all(&chassis, &events).await;
            place.router.leave();
        }
        match server.await {
            Ok(outcome) => outcome,
            Err(error) => Err(ended("rpc_failed", "grpc", &error.to_string())),
        }
    }
}

/// Waits for the first of the tasks to end, which none has a reason to before the drain, and says so: without any of them
/// procmgr only looks alive, so it is to be started again.
async fn first_end(
    owner: &mut JoinHandle<()>,
    feed: &mut JoinHandle<()>,
    server: &mut JoinHandle<Result<(), Fault>>,
) -> Fault {
    let why = |end: Result<(), JoinError>| match end {
        Ok(()) => "it ended".to_owned(),
        Err(error) => error.to_string(),
    };
    tokio::select! {
        biased; // the feed ends with the owner
        end = owner => ended("owner_ended", "owner task", &why(end)),
        end = feed => ended("feed_ended", "feed of desired instances", &why(end)),
        end = server => match end {
            Ok(Err(fault)) => fault,
            Ok(Ok(())) => ended("rpc_failed", "grpc", &why(Ok(()))),
            Err(error) => ended("rpc_failed", "grpc", &why(Err(error))),
        },
    }
}

fn ended(code: &'static str, what: &str, why: &str) -> Fault {
    Fault::new(code, format!("a part of procmgr is gone: {why}"), what, "see the log above")
}

/// The path of a program of the platform: where the configuration says, or beside the own.
fn program(setup: &Setup<Config>, said: Option<&Path>, name: &str) -> Result<PathBuf, Fault> {
    if let Some(path) = said {
        return Ok(setup.resolve(path));
    }
    let own = std::env::current_exe()
        .map_err(|error| fault("could not tell the own executable", &error, Path::new("/proc/self/exe")))?;
    Ok(own.with_file_name(name))
}

/// The programs that make boxes. Whether they are there is found out by the search for a box.
fn programs(setup: &Setup<Config>) -> Result<Programs, Fault> {
    let config = &setup.config;
    Ok(Programs {
        sandbox: program(setup, config.sandbox.as_deref(), "nexushub-sandbox")?,
        krun: program(setup, config.krun.as_deref(), "nexushub-krun")?,
        krun_boot_ms: config.krun_boot_ms,
    })
}

/// Opens the shim's executable, from which every start is made until procmgr itself is started again.
fn open_shim(setup: &Setup<Config>) -> Result<File, Fault> {
    let path = program(setup, setup.config.shim.as_deref(), "nexushub-shim")?;
    let mut file = File::open(&path).map_err(|error| fault("could not open the shim", &error, &path))?;
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_err() || magic != *b"\x7fELF" {
        let hint = "it is started from an open file, which works with ELF executables only";
        return Err(Fault::new(
            "shim_invalid",
            "the shim is not an ELF executable",
            path.display().to_string(),
            hint,
        ));
    }
    Ok(file)
}

fn place(setup: &Setup<Config>, shim: &File) -> Result<Place, Fault> {
    let place = Place {
        state: setup.state.clone(),
        boot_id: boot_id().map_err(|error| {
            fault("could not tell the boot", &error, Path::new("/proc/sys/kernel/random/boot_id"))
        })?,
        shim: PathBuf::from(format!("/proc/self/fd/{}", shim.as_raw_fd())),
        cgroups: Cgroups::find(&setup.state),
        router: Router::new(&setup.state, setup.config.egress_first),
        slots: nix::unistd::geteuid().is_root().then(Slots::default),
        keep: usize::try_from(setup.config.keep_generations).unwrap_or(usize::MAX),
    };
    let desired = desired_path(&place.state);
    let folders = [place.instances(), desired.parent().map(Path::to_owned).unwrap_or_default()];
    for folder in folders {
        generation::make(&folder).map_err(|error| fault("could not make a folder", &error, &folder))?;
    }
    Ok(place)
}

fn terms(chassis: &Chassis<Config>) -> Result<Terms, Fault> {
    let Setup { config, platform, .. } = &chassis.setup;
    let ca_file = chassis.setup.resolve(&config.ca_file);
    let key = chassis.credentials.app_key().ok_or_else(|| {
        Fault::new(
            "credentials_missing",
            "started without the key of the apps' secrets",
            "app-key",
            "restart the platform",
        )
    })?;
    Ok(Terms {
        limits: config.app_limits(),
        check: config.check(),
        stop_ms: config.stop_ms(),
        around: Surroundings::new(config, &platform.base_domain, platform.listen.port(), &ca_file),
        key,
        log_segment_bytes: config.log_segment_bytes,
        orders: orders_path(&chassis.setup.state),
        keep_removed: usize::try_from(config.keep_removed).unwrap_or(usize::MAX),
        keeper: programs(&chassis.setup)?.sandbox,
    })
}

fn start(
    setup: &Setup<Config>,
    place: &Place,
    table: Table,
    announce: Box<dyn Fn(&str) + Send>,
) -> Result<Start, Fault> {
    let path = desired_path(&place.state);
    let desired = store::load(&path).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), error = %error, "what was desired cannot be read; the provider is waited for");
        None
    });
    let path = orders_path(&place.state);
    let orders = Orders::load(&path).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), error = %error, "which instances are paused or asleep cannot be read; none is");
        Orders::default()
    });
    let known =
        place.known().map_err(|error| fault("could not list the instances", &error, &place.instances()))?;
    let stopped = stop_all_marker(setup).exists();
    if stopped {
        tracing::warn!("the platform is being stopped: instances are ended and none is started");
    }
    Ok(Start {
        config: setup.config.clone(),
        clock: Clock::start(),
        table,
        holders: Holders::default(),
        orders,
        desired,
        known,
        mode: if stopped { Mode::StopAll } else { Mode::Run },
        announce,
    })
}

/// Stops every instance, because the platform as a whole is being stopped.
async fn stop_all(chassis: &Chassis<Config>, events: &mpsc::Sender<Event>) {
    let (reply, stopped) = oneshot::channel();
    if events.send(Event::StopAll(reply)).await.is_err() {
        return;
    }
    let deadline = Duration::from_millis(chassis.setup.config.stop_deadline_ms.into()) + STOP_SLACK;
    match tokio::time::timeout(deadline, stopped).await {
        Ok(Ok(stopped)) => {
            tracing::info!(instances = stopped, "every instance is stopped");
            chassis.ready.status("every instance is stopped");
        }
        _ => tracing::error!("some instances could not be stopped in time; they are left to the next start"),
    }
}

fn stop_all_marker(setup: &Setup<Config>) -> PathBuf {
    setup.run.join(STOP_ALL)
}

fn desired_path(state: &Path) -> PathBuf {
    state.join("procmgr/desired.json")
}

fn orders_path(state: &Path) -> PathBuf {
    state.join("procmgr/orders.json")
}

fn fault(what: &str, error: &std::io::Error, object: &Path) -> Fault {
    Fault::new(
        "procmgr_failed",
        format!("{what}: {error}"),
        object.display().to_string(),
        "check that it is there and may be used",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn lasts<T: Send + 'static>() -> JoinHandle<T> {
        tokio::spawn(std::future::pending())
    }

    #[tokio::test]
    async fn the_end_of_any_part_before_the_drain_is_a_fault_that_names_it() {
        let panics = || tokio::spawn(async { panic!("broken") });
        let fault = first_end(&mut panics(), &mut lasts(), &mut lasts()).await;
        assert_eq!((fault.code, fault.object.as_str()), ("owner_ended", "owner task"));
        let fault = first_end(&mut lasts(), &mut panics(), &mut lasts()).await;
        assert!(fault.code == "feed_ended" && fault.msg.contains("broken"), "{}", fault.msg);
        let fault = first_end(&mut lasts(), &mut tokio::spawn(async {}), &mut lasts()).await;
        assert_eq!(fault.code, "feed_ended");
        for server in [tokio::spawn(async { Ok(()) }), tokio::spawn(async { panic!("broken") })] {
            let mut server = server;
            assert_eq!(first_end(&mut lasts(), &mut lasts(), &mut server).await.code, "rpc_failed");
        }
        let mut server = tokio::spawn(async { Err(Fault::new("own", "why", "x", "y")) });
        assert_eq!(first_end(&mut lasts(), &mut lasts(), &mut server).await.code, "own");
    }
}
