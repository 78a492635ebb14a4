//! What the packages of the admin app's applications ask for, as far as the configuration grants it today: told to provider with a
//! package, and once more when the daemon starts, since it may grant less by now, or more.

use std::{io, path::PathBuf, sync::Arc};

use nexushub_chassis::retry::Retry;
use nexushub_proto::provider;
use tonic::Status;

use super::Facade;
use crate::{applications::Hub, folders::blocking, manifest::Manifest, peers::is_refusal};

/// What the package in this folder asks for.
pub(super) async fn asks(hub: &Hub, path: &str) -> io::Result<Option<provider::Asks>> {
    let path = PathBuf::from(path);
    let manifest = blocking(move || Manifest::of_judged(&path)).await?;
    Ok(manifest.asks(hub.config.grants()))
}

/// Tells provider of the current packages anew that are granted something else than it knows. Ends at the drain.
pub(crate) async fn retell(facade: Arc<Facade>) {
    let (shutdown, mut retry) = (facade.hub.shutdown.clone(), Retry::default());
    while !shutdown.is_draining() {
        match facade.retell().await {
            Ok(()) => break,
            Err(status) if is_refusal(&status) => {
                tracing::warn!(error = status.message(), "provider does not say what packages ask for");
                break;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(retry.wait()) => {}
            () = shutdown.draining() => {}
        }
    }
    shutdown.draining().await;
}

impl Facade {
    /// An application of which provider doesn't take it keeps what it was granted, and one whose package can't be read keeps it until the
    /// next try; neither stands in the way of the others.
    pub(super) async fn retell(&self) -> Result<(), Status> {
        let _shelving = self.shelving.lock().await;
        let mut done = Ok(());
        for application in self.house.releases(String::new()).await? {
            let Some(current) = application.releases.into_iter().find(|release| release.current) else {
                continue;
            };
            let app_id = application.app_id;
            let asks = match asks(&self.hub, &current.path).await {
                Ok(asks) => asks,
                Err(error) => {
                    tracing::warn!(app_id, %error, "what a package asks for can't be read now");
                    done = Err(Status::unavailable("a package can't be read now"));
                    continue;
                }
            };
            if asks == current.asks {
                continue;
            }
            let release = provider::Release { asks, ..current };
            match self.house.set_release(app_id.clone(), release).await {
                Err(status) if is_refusal(&status) => {
                    let error = status.message();
                    tracing::warn!(app_id, error, "provider did not take what a package asks for");
                }
                told => told?,
            }
        }
        done
    }
}
