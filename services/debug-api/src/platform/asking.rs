//! What the packages of the admin app's applications ask for, as far as the configuration grants it today: told to provider with a
//! package, and once more when the daemon starts, since it may grant less by now, or more.

use std::{path::PathBuf, sync::Arc};

use nexushub_chassis::retry::Retry;
use nexushub_proto::provider;
use tonic::Status;

use super::Facade;
use crate::{
    applications::Hub,
    folders::blocking,
    manifest::{Grants, Manifest},
    peers::is_refusal,
};

/// What the package in this folder asks for. It was judged when it came; one that can't be read any more asks for nothing.
pub(super) async fn asks(hub: &Hub, path: &str) -> Option<provider::Asks> {
    let path = PathBuf::from(path);
    let manifest = blocking(move || Manifest::of_package(&path, Grants::EVERYTHING)).await;
    manifest.ok()?.asks(hub.config.grants())
}

/// Tells provider of the current packages anew that are granted something else than it knows. Ends at the drain.
pub(crate) async fn retell(facade: Arc<Facade>) {
    let (shutdown, mut retry) = (facade.hub.shutdown.clone(), Retry::default());
    while !shutdown.is_draining() {
        match facade.retell().await {
            Ok(()) => break,
            Err(status) if is_refusal(&status) => {
                tracing::warn!(error = status.message(), "provider did not take what packages ask for");
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
    async fn retell(&self) -> Result<(), Status> {
        let _shelving = self.shelving.lock().await;
        for application in self.house.releases(String::new()).await? {
            let Some(current) = application.releases.into_iter().find(|release| release.current) else {
                continue;
            };
            let asks = asks(&self.hub, &current.path).await;
            if asks != current.asks {
                let release = provider::Release { asks, ..current };
                self.house.set_release(application.app_id, release).await?;
            }
        }
        Ok(())
    }
}
