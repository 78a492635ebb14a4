//! The releases of a developer's application: which there are, which of them were ever healthy, and the way back to one of them. The
//! release goes on being the folder that it was, so nothing is unpacked; provider is told, and procmgr starts it beside what runs.

use std::{path::Path, sync::Arc};

use nexushub_chassis::standing::is_up;
use nexushub_proto::procmgr::{InstanceStatus, State};
use serde::Serialize;

use crate::{
    applications::{App, Hub},
    error::ApiError,
    folders::blocking,
    install,
    record::{Record, Release, rfc3339},
    transfers, unpack,
};

/// A release as it is told.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Told {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    installed_at: String,
    /// current or earlier.
    state: &'static str,
    /// Whether it was ever seen to answer its health check.
    healthy: bool,
}

impl Told {
    fn of(release: &Release, state: &'static str) -> Self {
        Self {
            id: release.name.clone(),
            name: release.manifest.name.clone(),
            version: release.manifest.version.clone(),
            sha256: release.file.sha256.as_ref().map(ToString::to_string),
            installed_at: rfc3339(release.installed_unix_ms),
            state,
            healthy: release.healthy,
        }
    }
}

/// All that are kept, the current one first, then the latest.
pub(crate) fn list(record: &Record) -> Vec<Told> {
    let current = record.release.iter().map(|release| Told::of(release, "current"));
    current.chain(record.earlier.iter().map(|release| Told::of(release, "earlier"))).collect()
}

/// Whether it is the current one that is asked for, by whichever name: that is no way back, but a start.
pub(crate) fn is_current(record: &Record, wanted: Option<&str>) -> bool {
    let chosen = wanted.and_then(|wanted| record.kept_as(wanted)).map(|release| &release.name);
    chosen.is_some() && chosen == record.release.as_ref().map(|release| &release.name)
}

/// Goes back to the release of this name, or to the last that was healthy; says which it is. To be done to its end: the caller
/// sees to that.
pub(crate) async fn roll_back(
    hub: &Arc<Hub>,
    app: &Arc<App>,
    wanted: Option<String>,
) -> Result<String, ApiError> {
    app.touch();
    let _working = app.work.lock().await;
    app.changeable()?;
    let record = app.record();
    let chosen = match &wanted {
        Some(wanted) => record.kept_as(wanted).ok_or_else(|| ApiError::NoRelease(wanted.clone())),
        None => record.way_back().ok_or(ApiError::NoHealthyRelease),
    }?;
    let program = hub.folders.release(&app.id, &chosen.name).join(unpack::APP);
    if !blocking(move || program.is_file()).await {
        return Err(ApiError::NoRelease(chosen.name.clone()));
    }
    let (name, chosen) = (chosen.name.clone(), chosen.clone());
    let went = go_back(hub, app, &record, chosen).await;
    app.tell_package();
    went?;
    tracing::info!(instance = app.id, release = name, "application rolled back");
    Ok(name)
}

/// What was uploaded before counts no more, also where nothing else changes: who wants that has to bring it again.
async fn go_back(hub: &Arc<Hub>, app: &Arc<App>, record: &Record, chosen: Release) -> Result<(), ApiError> {
    let told = record.package.as_ref().is_some_and(|package| package.same_bytes(&chosen.file));
    if record.release.as_ref().is_some_and(|release| release.name == chosen.name) {
        let file = chosen.file.clone();
        hub.change(app, |record| record.package = Some(file)).await?;
        install::confirm(hub, app, chosen).await?;
    } else {
        let keep = hub.config.keep_releases;
        hub.change(app, |record| record.go_back(chosen, keep)).await?;
        install::bring(hub, app).await?;
    }
    if !told {
        transfers::forget_ended(hub, app, None).await;
    }
    Ok(())
}

/// Notes which releases come up, until the drain. In memory: what is written of an application next says so too, and what runs is seen
/// again after a restart.
pub(crate) async fn watch(hub: Arc<Hub>) {
    let mut live = hub.live.clone();
    let noting = async {
        loop {
            for app in hub.list() {
                let up = live
                    .borrow_and_update()
                    .get(&app.id)
                    .and_then(|live| up(live, &hub.folders.releases(&app.id)));
                if let Some(name) = up {
                    app.state().record.came_up(&name);
                }
            }
            if live.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = noting => {}
        () = hub.shutdown.draining() => {}
    }
}

/// Which release of these is up. What sleeps is none: it may be a new one that has not run yet.
pub(crate) fn up(live: &InstanceStatus, releases: &Path) -> Option<String> {
    let name = Path::new(&live.release).strip_prefix(releases).ok()?.to_str()?;
    (is_up(live) && live.state() == State::Running && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn only_a_release_of_its_own_that_is_well_counts() {
        let live = |state: State, release: &str, flagged| InstanceStatus {
            state: state.into(),
            release: release.to_owned(),
            flagged,
            ..InstanceStatus::default()
        };
        let up = |live: &InstanceStatus| up(live, Path::new("/s/releases"));
        assert_eq!(up(&live(State::Running, "/s/releases/r1", false)).as_deref(), Some("r1"));
        assert_eq!(up(&live(State::Running, "/s/releases/r1", true)), None, "it answers no more");
        assert_eq!(up(&live(State::Asleep, "/s/releases/r1", false)), None, "it may never have run");
        assert_eq!(up(&live(State::Running, "/elsewhere/r1", false)), None);
        assert_eq!(up(&live(State::Running, "", false)), None);
    }
}
