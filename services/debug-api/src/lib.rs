//! debug-api: developers create an application, upload its package in chunks, install it, watch it and read its log, over
//! plain HTTP behind the proxy; operators list applications over gRPC.
//!
//! ```text
//! proxy ──HTTP──▶ serve ▶ auth ▶ http ─┬─▶ applications   create, list, delete        record.rs on disk
//!                                      ├─▶ receive        chunks ▶ disk ▶ package     upload.rs (pure)
//!                                      ├─▶ install        unpack ▶ release ▶ provider  unpack.rs
//!                                      ├─▶ status         what procmgr says (live.rs)  status.rs (pure)
//!                                      └─▶ logs           procmgr's log as events
//! ```
//! Invariants: nothing of a package is held in memory; every step of an install is marked on disk before and after, so a
//! crash between two leaves something that start-up finishes or undoes (`recover.rs`); a client's word becomes a file name
//! only after `names.rs` has judged it; whatever can grow has its bound in `config.rs`.
//!
//! The room of the login service (`/public/...`) is in `http.rs`; until it is there the developers' bearer is this
//! daemon's operator token (`auth.rs`).

mod applications;
mod auth;
mod config;
mod error;
mod expiry;
mod folders;
mod http;
mod install;
mod linger;
mod live;
mod logs;
mod names;
mod peers;
mod receive;
mod record;
mod recover;
mod serve;
mod service;
mod status;
#[cfg(test)]
mod testing;
mod unpack;
mod upload;

use std::{sync::Arc, time::Duration};

use nexushub_chassis::{
    Fault,
    daemon::{Chassis, Daemon},
    listeners,
    setup::Setup,
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
            recover::read(&folders, max_bytes).map(|found| (folders, found))
        });
        let (folders, found) = read.await.map_err(|error| state_fault(&error))?;
        let revived = recover::revive(found);
        let peers: Arc<dyn peers::Peers> = Arc::new(peers::Daemons::new(&chassis.clients));
        let (live_sender, live) = watch::channel(live::Live::default());
        tokio::spawn(live::follow(Arc::clone(&peers), live_sender, chassis.shutdown.clone()));

        let bounds = serve::Bounds {
            connections: config.max_connections,
            header_timeout: Duration::from_millis(config.header_timeout_ms),
        };
        let shutdown = chassis.shutdown.clone();
        let base_domain = chassis.setup.platform.base_domain.clone();
        let parts =
            applications::Parts { config, base_domain, folders, peers, live, shutdown: shutdown.clone() };
        let hub = applications::Hub::new(parts, recover::present(&revived));
        for revived in revived {
            tokio::spawn(recover::resume(Arc::clone(&hub), revived));
        }
        tokio::spawn(expiry::watch(Arc::clone(&hub)));
        let grpc = tokio::spawn(chassis.grpc(DebugApiServiceServer::new(service::Service(Arc::clone(&hub)))));
        chassis.ready.ready(&format!("{} debug applications", hub.list().len()));
        let router = http::router(hub, chassis.credentials.clone());
        serve::serve(socket, router, bounds, shutdown).await;
        grpc.await
            .map_err(|error| Fault::new("rpc_failed", error.to_string(), "grpc", "see the log above"))?
    }
}

fn state_fault(error: &error::StorageError) -> Fault {
    let hint = "check the state folder, its owner and its permissions";
    Fault::new("state_unwritable", error::chain(error), error.path.clone(), hint)
}
