//! debug-api: developers create an application, upload its package, install it, watch it and read its log, over
//! plain HTTP behind the proxy; operators list applications over gRPC.
//!
//! ```text
//! proxy ──HTTP──▶ serve ▶ auth ▶ http ─┬─▶ applications   create, list, delete        record.rs on disk
//!                                      ├─▶ receive        chunks ▶ disk ▶ package     upload.rs (pure)
//!                                      ├─▶ files          tus.rs, draft.rs ▶ transfers ▶ transfer.rs (its files)
//!                                      ├─▶ install        unpack ▶ release ▶ provider  unpack.rs, manifest.rs
//!                                      ├─▶ releases       those that are kept, and the way back
//!                                      ├─▶ promotion      admin has it for good         register.rs
//!                                      ├─▶ bulletin       what procmgr says (live.rs)  status.rs, status/details.rs (pure)
//!                                      ├─▶ logs           procmgr's log as a stream      outlet.rs
//!                                      ├─▶ counts         how many requests there were
//!                                      └─▶ platform       what the admin app shows and does
//! ```
//! Invariants: nothing of a package is held in memory; every step of an install is marked on disk before and after, so a
//! crash between two leaves something that start-up finishes or undoes (`recover.rs`); a client's word becomes a file name
//! only after `names.rs` has judged it; whatever can grow has its bound in `config.rs`.
//!
//! Who may ask what is in `auth.rs`.

mod applications;
mod audit;
mod auth;
mod bulletin;
mod claims;
mod config;
mod counts;
mod digests;
mod disk;
mod draft;
mod duties;
mod error;
mod expiry;
mod fields;
mod files;
mod folders;
mod front_end;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod install;
mod linger;
mod live;
mod logs;
mod manifest;
mod names;
mod outlet;
mod peers;
mod places;
mod platform;
mod promotion;
mod receive;
mod record;
mod recover;
mod register;
mod releases;
mod retreat;
mod room;
mod roster;
mod serve;
mod service;
mod status;
#[cfg(test)]
mod testing;
mod transfer;
mod transfers;
mod tus;
mod unpack;
mod upload;

use std::{sync::Arc, time::Duration};

use nexushub_chassis::{
    Fault, chain,
    daemon::{Chassis, Daemon},
    listeners,
    names::Zone,
    setup::Setup,
    vital::Vital,
};
use nexushub_proto::debugapi::debug_api_service_server::DebugApiServiceServer;
use tokio::{net::UnixListener, sync::watch};

pub use config::Config;

/// The daemon.
#[derive(Debug)]
pub struct DebugApi;

impl Daemon for DebugApi {
    const NAME: &'static str = "debug-api";
    type Config = Config;

    fn check(setup: &Setup<Config>) -> Result<(), Fault> {
        setup.config.judge()
    }

    async fn run(mut chassis: Chassis<Config>) -> Result<(), Fault> {
        let socket = chassis.listeners.take_unix("http").ok_or_else(|| listeners::missing("http"))?;
        let socket = UnixListener::from_std(socket).map_err(|error| {
            Fault::new("socket_missing", format!("could not listen: {error}"), "http", "restart the platform")
        })?;
        let (config, state) = (chassis.setup.config.clone(), chassis.setup.state.clone());
        let max_bytes = config.max_package_bytes;
        let read = folders::blocking(move || {
            let folders = folders::Folders::create(&state)?;
            let histories = platform::history::Histories::load(&folders.history());
            recover::read(&folders, max_bytes).map(|found| (folders, histories, found))
        });
        let (folders, histories, found) = read.await.map_err(|error| state_fault(&error))?;
        let revived = recover::revive(found);
        let (platforms, token) =
            (chassis.setup.run.join("proxy.http.sock"), chassis.credentials.token_for("proxy"));
        let way = register::Way::new(platforms, token);
        let peers: Arc<dyn peers::Peers> = Arc::new(peers::Daemons::new(&chassis.clients, way));
        let house: Arc<dyn platform::house::House> =
            Arc::new(platform::house::Daemons::new(&chassis.clients));
        let (live_sender, live) = watch::channel(live::Live::default());
        let mut vital = Vital::default();
        vital.spawn("live feed", live::follow(Arc::clone(&peers), live_sender, chassis.shutdown.clone()));

        let bounds = serve::Bounds {
            connections: config.max_connections,
            header_timeout: Duration::from_millis(config.header_timeout_ms),
        };
        let (shutdown, zone) = (chassis.shutdown.clone(), Zone::from(&chassis.setup.platform));
        let front_ends = front_end::FrontEnds::held(&chassis.setup)?;
        vital.spawn("history", histories.clone().keep(live.clone(), shutdown.clone()));
        let parts = applications::Parts {
            config,
            zone,
            front_ends,
            folders,
            peers,
            house: Arc::clone(&house),
            live,
            histories,
            audit: chassis.audit.clone(),
            disk: Arc::new(disk::free),
            shutdown: shutdown.clone(),
        };
        let hub = applications::Hub::new(parts, recover::present(&revived));
        vital.spawn("recovery", recover::resume_all(Arc::clone(&hub), revived));
        vital.spawn("expiry", expiry::watch(Arc::clone(&hub)));
        vital.spawn("promotions", promotion::pursue(Arc::clone(&hub)));
        vital.spawn("demotions", promotion::watch(Arc::clone(&hub)));
        vital.spawn("sweep", transfers::sweep(Arc::clone(&hub)));
        vital.spawn("releases", releases::watch(Arc::clone(&hub)));
        vital.spawn("retreats", retreat::watch(Arc::clone(&hub)));
        let facade = platform::Facade::new(Arc::clone(&hub), house, &chassis.setup.state);
        vital.spawn("asks", platform::asking::retell(Arc::clone(&facade)));
        let service = DebugApiServiceServer::new(service::Service(Arc::clone(&hub)));
        let grpc = tokio::spawn(chassis.grpc(service));
        chassis.ready.ready("takes uploads");
        let router = http::router(hub, platform::router(facade), chassis.credentials.clone());
        let http = tokio::spawn(serve::serve(socket, router, bounds, shutdown.clone()));
        duties::Duties { http, grpc, vital }.done(&shutdown).await
    }
}

fn state_fault(error: &error::StorageError) -> Fault {
    let hint = "check the state folder, its owner and its permissions";
    Fault::new("state_unwritable", chain(error), error.path.clone(), hint)
}
