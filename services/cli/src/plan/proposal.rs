//! A configuration that is to be taken up: read, judged by every daemon as if it were in place, and compared with what runs.

use std::path::Path;

use nexushub_launch::config::Config;
use nexushub_proto::provider::{ListInstancesResponse, PreviewDesiredRequest};

use super::comparison::{self, SUPERVISOR};
pub(crate) use super::comparison::{Change, Comparison};
use crate::{args::DAEMONS, board::Board, check, failure::Failure, place::Place, rpc};

/// What would change if this file were taken up, or the present one as it is on disk; and what provider has, as it was compared.
pub(crate) async fn compared(
    place: &Place,
    file: Option<&Path>,
) -> Result<(Comparison, ListInstancesResponse), Failure> {
    let proposed = proposed(place, file)?;
    check::judge(place, &proposed)?;
    let path = proposed.path.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let request = PreviewDesiredRequest { configuration: proposed.text().to_owned(), path };
    let now = super::list(place).await?; // after the judgement, which takes its time: both are of about one moment
    let preview = super::client(place)?.preview_desired(request).await;
    let preview = preview.map_err(|status| rpc::failed(place, "provider", &status))?.into_inner();
    let conflicts = preview.conflicts.into_iter().map(|one| one.reason).collect();
    let instances = comparison::instances(&now.instances, &preview.instances);
    let (mut settings, mut daemons) = (None, Vec::new());
    if let Some(running) = running(place) {
        let told = comparison::settings(&running, &proposed, |key| is_fixed(place, &running, key))?;
        (settings, daemons) = (Some(told.0), told.1);
    }
    let executables = Board::live(&place.run).map(|board| board.renewed()).unwrap_or_default();
    daemons =
        DAEMONS.into_iter().filter(|name| daemons.contains(name) || executables.contains(name)).collect();
    Ok((Comparison { file: proposed.path, instances, conflicts, settings, daemons, executables }, now))
}

/// It stands where the present one stands: what it says of files is meant from there.
fn proposed(place: &Place, file: Option<&Path>) -> Result<Config, Failure> {
    let present = place.config()?;
    let Some(file) = file else { return Ok(present) };
    let file = std::path::absolute(file).map_err(|error| Failure::io("read", file, &error))?;
    let text = Config::load(Some(&file), Path::new("/"))?.text().to_owned();
    Ok(present.with(file, text)?)
}

/// What each daemon and the supervisor were started with; none where nobody kept that.
fn running(place: &Place) -> Option<Vec<(&'static str, Config)>> {
    Board::live(&place.run)?;
    let names = DAEMONS.into_iter().chain([SUPERVISOR]);
    let copy = |name| place.run.join(format!("config/{name}.toml"));
    names.map(|name| Some((name, Config::load(Some(&copy(name)), Path::new("/")).ok()?))).collect()
}

/// Whether a key of `[platform]` is one that holds here until the platform is stopped: what was said when it was started goes before
/// the file.
fn is_fixed(place: &Place, running: &[(&str, Config)], key: &str) -> bool {
    match key {
        "run_dir" | "state_dir" => place.home.is_none(),
        "listen" => {
            let said = running.iter().find_map(|(_, config)| config.platform().ok());
            let bound = Board::live(&place.run).and_then(|board| board.supervisor.listen.into_iter().next());
            said.map(|platform| platform.listen.to_string()) == bound
        }
        _ => true,
    }
}
