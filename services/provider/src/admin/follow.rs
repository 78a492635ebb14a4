//! The task that follows the admin app: it asks what `course.rs` says, and hands good lists to the owner. It can't fail; what goes
//! wrong is told in `Contact` and tried again.

use std::time::Duration;

use futures_util::{Stream, StreamExt, pin_mut};
use nexushub_chassis::{client::GrpcChannel, launch::clock, retry::Retry};
use nexushub_proto::procmgr::{
    WatchInstancesRequest, WatchInstancesResponse, procmgr_service_client::ProcmgrServiceClient,
    watch_instances_response::Event,
};
use tokio::{sync::watch, time::Instant};
use tonic::Status;
use tracing::{info, warn};

use crate::{
    admin::{
        ask::Admin,
        course::{Ask, Course},
    },
    desired::Handle,
};

/// How long procmgr may take to look at every instance before the admin app is asked all the same.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest message of procmgr's that is taken.
const MESSAGE_BYTES: usize = 64 << 20;

/// How provider stands with the admin app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Whether it is asked at all.
    pub followed: bool,
    /// When it last answered as it should.
    pub heard_unix_ms: i64,
    /// Why it can't be heard; none = it can, or was not asked yet.
    pub trouble: Option<String>,
}

/// Follows the admin app, for ever, once procmgr has looked at what is there.
pub async fn following(
    admin: impl Admin,
    handle: Handle,
    contact: watch::Sender<Contact>,
    procmgr: GrpcChannel,
) {
    settled(procmgr).await;
    follow(admin, handle, contact).await;
}

async fn follow(mut admin: impl Admin, handle: Handle, contact: watch::Sender<Contact>) {
    let began = Instant::now();
    let mut course = Course::default();
    loop {
        let asked = Instant::now();
        let wait = match course.ask(asked - began) {
            Ask::List => match list(&mut admin, &handle).await {
                Ok(()) => {
                    course.applied(began.elapsed());
                    well(&contact);
                    Duration::ZERO
                }
                Err(trouble) => {
                    troubled(&contact, trouble);
                    course.failed(jitter())
                }
            },
            Ask::Changes(event) => match admin.changes(event).await {
                Ok(heard) => {
                    well(&contact);
                    course.heard(heard, asked.elapsed(), began.elapsed(), jitter())
                }
                Err(error) => {
                    troubled(&contact, error.told());
                    if error.broke_off() {
                        course.broke_off(asked.elapsed(), jitter())
                    } else {
                        course.failed(jitter())
                    }
                }
            },
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

async fn list(admin: &mut impl Admin, handle: &Handle) -> Result<(), String> {
    let list = admin.list().await.map_err(|error| error.told())?;
    handle.list(list).await.map(drop).map_err(|error| error.to_string())
}

fn well(contact: &watch::Sender<Contact>) {
    contact.send_modify(|contact| {
        if contact.trouble.take().is_some() || contact.heard_unix_ms == 0 {
            info!(peer = "admin", "the admin app is heard");
        }
        contact.heard_unix_ms = clock::unix_ms(std::time::SystemTime::now());
    });
}

fn troubled(contact: &watch::Sender<Contact>, trouble: String) {
    contact.send_modify(|contact| {
        if contact.trouble.is_none() {
            warn!(
                peer = "admin",
                error = trouble,
                "the admin app cannot be heard; what is desired stays as it was"
            );
        }
        contact.trouble = Some(trouble);
    });
}

/// Anything within 0 and 1: what differs from one machine and moment to another.
fn jitter() -> f64 {
    f64::from(std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.subsec_nanos())) / 1e9
}

/// Waits until procmgr has looked at every instance once since it started, within reason: at a boot the apps that are there come
/// before those that are new.
async fn settled(procmgr: GrpcChannel) {
    let looked = async {
        let mut retry = Retry::default();
        while !matches!(reconciled(procmgr.clone()).await, Ok(true)) {
            tokio::time::sleep(retry.wait()).await;
        }
    };
    if tokio::time::timeout(PATIENCE, looked).await.is_err() {
        warn!(
            peer = "procmgr",
            "procmgr has not looked at every instance yet; asking the admin app all the same"
        );
    }
}

/// Listens until procmgr says so, or ends.
async fn reconciled(procmgr: GrpcChannel) -> Result<bool, Status> {
    let mut procmgr = ProcmgrServiceClient::new(procmgr).max_decoding_message_size(MESSAGE_BYTES);
    tells_so(procmgr.watch_instances(WatchInstancesRequest::default()).await?.into_inner()).await
}

/// Whether procmgr says that it has looked at everything, before it ends.
async fn tells_so(
    messages: impl Stream<Item = Result<WatchInstancesResponse, Status>>,
) -> Result<bool, Status> {
    pin_mut!(messages);
    while let Some(message) = messages.next().await.transpose()? {
        if matches!(message.event, Some(Event::Snapshot(snapshot)) if snapshot.reconciled) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
