//! Which app instances should exist.
//!
//! Three sources speak of them: static ones from the configuration file and `apps.d` (`basis.rs`, `configured.rs`), dynamic ones from the
//! admin app (`admin.rs`; which package they run is in `releases.rs`), and debug ones put by RPC (`store.rs` keeps them). Everything
//! that anybody wrote is judged in `typed.rs` and `route.rs`; `merge.rs`, a pure function, says what they make together; one task
//! (`desired.rs`) owns the result; `service.rs` answers requests and feeds watchers with the differences that `changes.rs` finds.
//!
//! Invariant: what was answered is on disk (`disk.rs`), and nobody sees what isn't. The configuration is read once, at start; a
//! changed one is taken up when the daemon is rolled.

pub mod admin;
pub mod basis;
pub mod changes;
pub mod config;
pub mod configured;
pub mod desired;
pub mod disk;
pub mod error;

pub mod instance;
pub mod kept;
pub mod merge;
pub mod releases;
pub mod route;
pub mod service;
pub mod store;
pub mod typed;
pub mod wire;

use std::{sync::Arc, time::SystemTime};

use http::HeaderValue;
use nexushub_chassis::{
    Fault,
    daemon::{Chassis, Daemon},
    launch::clock,
    names::ADMIN_INSTANCE,
    ready::Ready,
    setup::Setup,
    vital::Vital,
};
use nexushub_proto::provider::provider_service_server::ProviderServiceServer;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    admin::{
        ask::{Proxied, Way},
        follow::{Contact, following},
    },
    config::Config,
    desired::{Book, Owner, State, first_revision},
    disk::{Disk, Found},
    service::Service,
    typed::Judge,
};

/// Largest request, in bytes: a configuration of a MiB, or the ids of ten thousand instances; far above what the limits of one
/// instance allow.
const REQUEST_MAX: usize = (1 << 20) + (64 << 10);

/// The daemon.
pub struct Provider;

impl Daemon for Provider {
    const NAME: &'static str = "provider";
    type Config = Config;

    fn check(setup: &Setup<Config>) -> Result<(), Fault> {
        setup.config.judge()?;
        basis::present(setup).map(drop)
    }

    async fn run(mut chassis: Chassis<Config>) -> Result<(), Fault> {
        let judge = Judge { root: None, ..basis::judge(&chassis.setup) };
        let (disk, found) = found(&chassis.setup, &judge)?;
        let revision = first_revision(found.revision, clock::unix_ms(SystemTime::now()));
        let book = Book {
            statics: basis::present(&chassis.setup)?,
            listing: found.listing,
            releases: found.releases,
            debug: found.debug,
            rules: basis::rules(&chassis.setup),
        };
        let way = way(&chassis, &book);
        let (owner, handle) = Owner::new(book, disk, revision);
        let desired = handle.watch();
        let (contact, stands) = watch::channel(Contact { followed: way.is_some(), ..Contact::default() });
        let mut vital = Vital::default();
        if let Some(way) = way {
            let (admin, procmgr) = (Proxied::new(way, judge.clone()), chassis.clients.channel("procmgr"));
            vital.spawn("follower of the admin app", following(admin, handle.clone(), contact, procmgr));
        }
        let service = ProviderServiceServer::new(Service::new(handle, judge, stands, chassis.audit.clone()));
        let mut server = tokio::spawn(chassis.grpc(service.max_decoding_message_size(REQUEST_MAX)));
        chassis.ready.ready(&summary(&desired.borrow()));
        tokio::spawn(say_what_changes(desired, chassis.ready.clone()));
        let ended = tokio::select! {
            () = owner.run(chassis.shutdown.draining()) => server.await,
            ended = &mut server => ended,
            fault = vital.ended() => return Err(fault),
        };
        match ended {
            Ok(outcome) => outcome,
            Err(error) => {
                Err(Fault::new("server_failed", error.to_string(), "provider.sock", "see the log above"))
            }
        }
    }
}

/// The way to the admin app, if it is to be followed and the configuration has it.
fn way(chassis: &Chassis<Config>, book: &Book) -> Option<Way> {
    let there = book.statics.iter().any(|entry| entry.id.as_str() == ADMIN_INSTANCE);
    if !chassis.setup.config.follow_admin || !there {
        return None;
    }
    let token = chassis.credentials.token_for("proxy");
    let bearer = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
    let Some(mut bearer) = bearer else {
        warn!(peer = "proxy", "there is no token for the proxy; the admin app is not followed");
        return None;
    };
    bearer.set_sensitive(true);
    let instance = HeaderValue::from_static(ADMIN_INSTANCE);
    Some(Way { socket: chassis.setup.run.join("proxy.http.sock"), bearer, instance })
}

fn summary(state: &State) -> String {
    let held = match state.listing.held.len() {
        0 => String::new(),
        held => format!("; {held} are no longer listed and held, see nexushub plan"),
    };
    format!("{} instances desired{held}", state.desired.len())
}

async fn say_what_changes(mut desired: watch::Receiver<Arc<State>>, ready: Ready) {
    while desired.changed().await.is_ok() {
        let summary = summary(&desired.borrow_and_update());
        ready.status(&summary);
    }
}

fn found(setup: &Setup<Config>, judge: &Judge) -> Result<(Disk, Found), Fault> {
    let folder = setup.state.join("provider");
    let disk = Disk::open(&folder).map_err(|error| {
        let msg = format!("could not open the folder of the desired instances: {error}");
        let hint = "check the path and its permissions";
        Fault::new("state_unwritable", msg, folder.display().to_string(), hint)
    })?;
    let found = disk.load(judge)?;
    Ok((disk, found))
}
