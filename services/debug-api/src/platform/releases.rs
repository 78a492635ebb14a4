//! A package of an application as it is told. It is called by its folder's name, the SHA-256 of its archive.

use std::path::Path;

use nexushub_proto::provider;
use serde::Serialize;

use crate::record::rfc3339;

/// One package.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Release {
    pub(crate) id: String,
    version: String,
    installed_at: String,
    by: String,
    /// current, earlier or failed.
    state: &'static str,
    reason: String,
    /// What it asks for and is not given.
    ungranted: String,
}

impl Release {
    pub(crate) fn of(release: &provider::Release) -> Self {
        let state = match (release.current, release.failed.is_empty()) {
            (true, _) => "current",
            (false, true) => "earlier",
            (false, false) => "failed",
        };
        Self {
            id: id(&release.path),
            version: release.version.clone(),
            installed_at: rfc3339(release.set_unix_ms),
            by: release.by.clone(),
            state,
            reason: release.failed.clone(),
            ungranted: release.ungranted.clone(),
        }
    }
}

/// What a package is called whose folder this is.
pub(crate) fn id(path: &str) -> String {
    Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The package of this name; without a name, the one that was current before and did not fail.
pub(crate) fn chosen<'r>(
    releases: &'r [provider::Release],
    wanted: Option<&str>,
) -> Option<&'r provider::Release> {
    match wanted {
        Some(wanted) => releases.iter().find(|release| id(&release.path) == wanted),
        None => releases.iter().find(|release| !release.current && release.failed.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(path: &str, current: bool, failed: &str) -> provider::Release {
        let (path, failed) = (path.into(), failed.into());
        provider::Release { path, current, failed, ..Default::default() }
    }

    #[test]
    fn the_way_back_leads_to_the_last_that_did_not_fail_or_to_the_one_that_is_named() {
        let all = [release("/p/c", false, "broken"), release("/p/b", true, ""), release("/p/a", false, "")];
        let path = |wanted| chosen(&all, wanted).map(|release| release.path.as_str());
        assert_eq!((path(None), path(Some("c"))), (Some("/p/a"), Some("/p/c")));
        assert_eq!((path(Some("x")), chosen(&all[..2], None)), (None, None));
        let states = all.iter().map(|release| Release::of(release).state).collect::<Vec<_>>();
        assert_eq!(states, ["failed", "current", "earlier"]);
    }
}
