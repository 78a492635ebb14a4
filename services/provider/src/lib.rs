//! Which app instances should exist.
//!
//! Three sources speak of them: static ones from the configuration file and `apps.d` (`configured.rs`), dynamic ones from the
//! admin app (a later room; `merge.rs` has its place), and debug ones put by RPC (`store.rs` keeps them). Everything that
//! anybody wrote is judged in `typed.rs` and `route.rs`; `merge.rs`, a pure function, says what they make together; one task (`desired.rs`) owns
//! the result; `service.rs` answers requests and feeds watchers with the differences that `changes.rs` finds.
//!
//! Invariant: what was answered is on disk, and nobody sees what isn't. The configuration is read once, at start; a changed one
//! is taken up when the daemon is rolled.

pub mod changes;
pub mod config;
pub mod configured;
pub mod desired;
pub mod error;
pub mod instance;
pub mod merge;
pub mod route;
pub mod service;
pub mod store;
pub mod typed;
pub mod wire;

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use nexushub_chassis::{
    Fault,
    daemon::{Chassis, Daemon},
    launch::{clock, handoff::Handoff},
    names::Zone,
    ready::Ready,
    setup::{Setup, find_config},
};
use nexushub_proto::provider::provider_service_server::ProviderServiceServer;
use tokio::sync::watch;
use tracing::error;

use crate::{
    config::{Config, MAX_DEBUG_INSTANCES},
    configured::Document,
    desired::{Book, Owner, State, first_revision},
    instance::Entry,
    service::Service,
    store::{Loaded, Store},
    typed::Judge,
};

/// Largest request, in bytes: far above what the limits of one instance allow.
const REQUEST_MAX: usize = 256 * 1024;

/// The daemon.
pub struct Provider;

impl Daemon for Provider {
    const NAME: &'static str = "provider";
    type Config = Config;

    fn check(setup: &Setup<Config>) -> Result<(), Fault> {
        if setup.config.max_debug_instances > MAX_DEBUG_INSTANCES {
            let msg = format!("{} is more than {MAX_DEBUG_INSTANCES}", setup.config.max_debug_instances);
            let fault = Fault::new("config_invalid", msg, "provider.max_debug_instances", "ask for fewer");
            return Err(Fault { exit: nexushub_chassis::launch::fault::EXIT_USAGE, ..fault });
        }
        statics(setup).map(drop)
    }

    async fn run(mut chassis: Chassis<Config>) -> Result<(), Fault> {
        let judge = Judge { root: None, ..judge(&chassis.setup) };
        let statics = statics(&chassis.setup)?;
        let (store, loaded) = debug_instances(&chassis.setup, &judge)?;
        let revision = first_revision(loaded.revision, clock::unix_ms(SystemTime::now()));
        let book = Book {
            statics,
            dynamic: Vec::new(),
            debug: loaded.entries,
            data_root: chassis.setup.state.join("provider/data"),
            max_debug: chassis.setup.config.max_debug_instances,
        };
        let (owner, handle) = Owner::new(book, store, revision);
        let desired = handle.watch();
        let service =
            ProviderServiceServer::new(Service::new(handle, judge)).max_decoding_message_size(REQUEST_MAX);
        let mut server = tokio::spawn(chassis.grpc(service));
        chassis.ready.ready(&summary(&desired.borrow()));
        tokio::spawn(say_what_changes(desired, chassis.ready.clone()));
        let ended = tokio::select! {
            () = owner.run(chassis.shutdown.draining()) => server.await,
            ended = &mut server => ended,
        };
        match ended {
            Ok(outcome) => outcome,
            Err(error) => {
                Err(Fault::new("server_failed", error.to_string(), "provider.sock", "see the log above"))
            }
        }
    }
}

fn summary(state: &State) -> String {
    format!("{} instances desired", state.desired.len())
}

async fn say_what_changes(mut desired: watch::Receiver<Arc<State>>, ready: Ready) {
    while desired.changed().await.is_ok() {
        let summary = summary(&desired.borrow_and_update());
        ready.status(&summary);
    }
}

fn judge(setup: &Setup<Config>) -> Judge {
    Judge { zone: Zone::from(&setup.platform), root: Some(setup.root.clone()) }
}

fn statics(setup: &Setup<Config>) -> Result<Vec<Entry>, Fault> {
    // The file again, for the lines of its entries; a daemon without one has none listed.
    let path = find_config(&Handoff::from_env()?)?.path;
    let document = path.and_then(|path| {
        configured::text(&path).ok().map(|text| Document { path: named(path, setup), text })
    });
    let listed = setup.config.instance.clone();
    configured::read(document.as_ref(), listed, &setup.resolve(&setup.config.apps_dir), &judge(setup))
}

/// A supervisor hands each generation a copy of the configuration; people know the file by its own name.
fn named(path: PathBuf, setup: &Setup<Config>) -> PathBuf {
    if path.starts_with(&setup.run) { PathBuf::from("nexushub.toml") } else { path }
}

fn debug_instances(setup: &Setup<Config>, judge: &Judge) -> Result<(Store, Loaded), Fault> {
    let folder = setup.state.join("provider");
    let store = Store::open(&folder).map_err(|error| {
        let msg = format!("could not open the folder of the debug instances: {error}");
        Fault::new(
            "state_unwritable",
            msg,
            folder.display().to_string(),
            "check the path and its permissions",
        )
    })?;
    let loaded = store.load(judge)?;
    if let Some((aside, why)) = &loaded.corrupt {
        let kept = loaded.entries.len();
        error!(error = %why, aside = %aside.display(), kept, "file of debug instances is corrupt; moved aside");
    }
    Ok((store, loaded))
}
