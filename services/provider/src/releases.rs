//! The packages of each application: which one its instances run, and which they ran before. Pure, but for how it is written
//! down; debug-api unpacks packages and says here where they lie.
//!
//! ```text
//! set P ──▶ P current ──(revert P)──▶ P failed, and what was set before it and did not fail is current again
//! ```
//! Invariant: an application has at most `keep` packages besides its current one, which is never dropped; applications that no
//! instance belongs to are forgotten when there are too many of them, the one that was set longest ago first.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::instance::{Driver, Fields, Health, Limits};

/// Most applications that have packages though no instance belongs to them.
pub const ORPHANS_MAX: usize = 100;
/// Longest reason of a failure, in bytes.
const REASON_MAX: usize = 4096;

/// What a package asks for, by its own manifest. Judged as any entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asks {
    /// Its box.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Further environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Overrides of the health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Bounds on what it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

impl Asks {
    /// What an instance is given of it that has this box by configuration. Another one it may name only where that one is no less than
    /// what the configuration may come to: `auto` may be a microVM.
    #[must_use]
    pub fn fields(&self, configured: Driver) -> Fields {
        let driver = self.driver.filter(|asked| match configured {
            _ if *asked == Driver::Auto => false,
            Driver::Process => true,
            Driver::Auto => *asked == Driver::Krun,
            configured => *asked == configured,
        });
        let Self { env, health, limits, .. } = self.clone();
        Fields { driver, env, health, limits, ..Fields::default() }
    }

    /// Why an instance without a static entry, which has this box by configuration, is not given the box asked for, for people; empty =
    /// it is.
    #[must_use]
    pub fn ungranted(&self, configured: Driver) -> String {
        let asked = self.driver.filter(|asked| ![Driver::Auto, configured].contains(asked));
        let refused = asked.filter(|_| self.fields(configured).driver.is_none());
        refused.map_or_else(String::new, |asked| {
            format!(
                "it asks for the box `{asked}` and is given `{configured}` (provider.dynamic_driver), of which no package may make less; an \
                 instance with a static entry has that one's box"
            )
        })
    }

    /// Bytes of the environment it asks for.
    #[must_use]
    pub fn env_len(&self) -> usize {
        self.env.iter().flatten().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Where it lies, unpacked.
    pub path: PathBuf,
    /// What its owner calls it.
    pub version: String,
    /// Who set it.
    pub by: String,
    /// When it was set last.
    pub set_unix_ms: i64,
    /// Why it did not come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What it asks for.
    #[serde(default)]
    pub asks: Asks,
}

impl Release {
    /// Whether nothing but what it asks for tells it from this one, which asks for something else.
    fn is_but_for_asks(&self, other: &Self) -> bool {
        let said = |one: &Self| Self { set_unix_ms: 0, asks: Asks::default(), ..one.clone() };
        said(self) == said(other) && self.asks != other.asks
    }
}

/// The packages of one application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelf {
    /// The one that its instances run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<PathBuf>,
    /// All of them, the one set last first.
    pub releases: Vec<Release>,
}

impl Shelf {
    /// The current one that only asks for something else now is no news: it keeps its place, and when it was set.
    fn set(&mut self, release: Release, keep: usize) {
        let current = self.current.as_deref() == Some(&*release.path);
        let known = self.releases.iter_mut().find(|known| current && known.is_but_for_asks(&release));
        if let Some(known) = known {
            known.asks = release.asks;
            return;
        }
        self.releases.retain(|other| other.path != release.path);
        self.current = Some(release.path.clone());
        self.releases.insert(0, release);
        self.releases.truncate(keep.saturating_add(1));
    }

    /// Whether there is such a package.
    fn revert(&mut self, path: &Path, reason: &str) -> bool {
        let Some(release) = self.releases.iter_mut().find(|release| release.path == path) else {
            return false;
        };
        release.failed = Some(cut(reason));
        if self.current.as_deref() == Some(path) {
            let good = self.releases.iter().find(|release| release.failed.is_none());
            self.current = good.map(|release| release.path.clone());
        }
        true
    }
}

/// The shelves by application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// By what the admin app calls the application.
    pub applications: BTreeMap<String, Shelf>,
}

impl Releases {
    /// The package that an application's instances run.
    #[must_use]
    pub fn current(&self, app_id: &str) -> Option<&Release> {
        let shelf = self.applications.get(app_id)?;
        let current = shelf.current.as_ref()?;
        shelf.releases.iter().find(|release| release.path == *current)
    }

    /// With this package as the current one; none when it is already.
    #[must_use]
    pub fn set(&self, app_id: &str, release: Release, keep: usize) -> Option<Self> {
        let shelf = self.applications.get(app_id);
        let same = |found: &Release| {
            found.path == release.path && found.failed.is_none() && found.asks == release.asks
        };
        let known = shelf.is_some_and(|shelf| shelf.releases.first().is_some_and(same));
        if known && self.current(app_id).is_some_and(same) {
            return None;
        }
        let mut next = self.clone();
        next.applications.entry(app_id.to_owned()).or_default().set(release, keep);
        Some(next)
    }

    /// Without this package as the current one; none when there is no such.
    #[must_use]
    pub fn revert(&self, app_id: &str, path: &Path, reason: &str) -> Option<Self> {
        let mut next = self.clone();
        next.applications.get_mut(app_id)?.revert(path, reason).then_some(next)
    }

    /// Without the applications that are too many of those to which no instance belongs.
    #[must_use]
    pub fn pruned(mut self, used: &BTreeSet<&str>) -> Self {
        let newest = |shelf: &Shelf| shelf.releases.first().map_or(0, |release| release.set_unix_ms);
        let orphans = self.applications.iter().filter(|(app_id, _)| !used.contains(app_id.as_str()));
        let mut orphans: Vec<_> = orphans.map(|(app_id, shelf)| (newest(shelf), app_id.clone())).collect();
        orphans.sort();
        let many = orphans.len().saturating_sub(ORPHANS_MAX);
        for (_, app_id) in orphans.into_iter().take(many) {
            self.applications.remove(&app_id);
        }
        self
    }
}

/// At most so long, cut between characters; the end of it is what tells most.
fn cut(reason: &str) -> String {
    let mut from = reason.len().saturating_sub(REASON_MAX);
    while !reason.is_char_boundary(from) {
        from += 1;
    }
    reason[from..].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn release(path: &str, unix_ms: i64) -> Release {
        let (version, by) = ("1".to_owned(), "admin".to_owned());
        Release { path: path.into(), version, by, set_unix_ms: unix_ms, failed: None, asks: Asks::default() }
    }

    fn with(paths: &[&str]) -> Releases {
        let set = |releases: Releases, path: &&str| releases.set("shop", release(path, 1), 2).unwrap();
        paths.iter().fold(Releases::default(), set)
    }

    fn paths(releases: &Releases) -> Vec<&str> {
        releases.applications["shop"].releases.iter().map(|one| one.path.to_str().unwrap()).collect()
    }

    fn current(releases: &Releases) -> Option<&str> {
        releases.current("shop").map(|release| release.path.to_str().unwrap())
    }

    #[test]
    fn the_newest_package_runs_and_some_earlier_ones_are_kept() {
        let releases = with(&["/a", "/b", "/c", "/d"]);
        assert_eq!((current(&releases), paths(&releases)), (Some("/d"), vec!["/d", "/c", "/b"]));
        assert!(releases.set("shop", release("/d", 9), 2).is_none(), "it runs already");
        let back = releases.set("shop", release("/b", 9), 2).unwrap();
        assert_eq!((current(&back), paths(&back)), (Some("/b"), vec!["/b", "/d", "/c"]));
        assert_eq!(back.current("another"), None);
    }

    #[test]
    fn what_was_written_down_before_packages_could_ask_is_read() {
        let old = r#"{"current":"/r","releases":[{"path":"/r","version":"1","by":"me","set_unix_ms":4}]}"#;
        let shelf: Shelf = serde_json::from_str(old).unwrap();
        assert_eq!(shelf.releases[0].asks, Asks::default());
    }

    #[test]
    fn a_package_that_asks_for_something_else_is_another() {
        let releases = with(&["/a"]);
        let asks = Asks { env: Some(BTreeMap::from([("A".into(), "b".into())])), ..Asks::default() };
        let asking = Release { asks, ..release("/a", 9) };
        let again = releases.set("shop", asking.clone(), 2).unwrap();
        let kept = Release { set_unix_ms: 1, ..asking.clone() };
        assert_eq!((paths(&again), again.current("shop")), (vec!["/a"], Some(&kept)));
        assert!(again.set("shop", asking.clone(), 2).is_none());
        let back = with(&["/a", "/b"]).revert("shop", "/b".as_ref(), "broken").unwrap();
        let told = back.set("shop", asking.clone(), 2).unwrap();
        assert_eq!((paths(&told), told.current("shop")), (vec!["/b", "/a"], Some(&kept)), "its place");
        let anew = told.set("shop", Release { by: "ada".to_owned(), ..asking }, 2).unwrap();
        assert_eq!((paths(&anew), anew.current("shop").unwrap().set_unix_ms), (vec!["/a", "/b"], 9));
    }

    #[test]
    fn a_box_is_granted_by_name_where_it_is_the_best_and_never_a_lesser_one() {
        use Driver::{Auto, Krun, Process, Sandbox};
        let given =
            |configured, driver| Asks { driver: Some(driver), ..Asks::default() }.fields(configured).driver;
        let said =
            |configured, driver| Asks { driver: Some(driver), ..Asks::default() }.ungranted(configured);
        for (configured, driver) in [(Auto, Krun), (Krun, Krun), (Sandbox, Sandbox), (Process, Krun)] {
            assert_eq!(given(configured, driver), Some(driver), "{configured:?} {driver:?}");
            assert_eq!(said(configured, driver), "", "{configured:?} {driver:?}");
        }
        for (configured, driver) in [
            (Auto, Sandbox),
            (Auto, Process),
            (Auto, Auto),
            (Krun, Sandbox),
            (Krun, Process),
            (Sandbox, Krun),
            (Krun, Auto),
        ] {
            assert_eq!(given(configured, driver), None, "{configured:?} {driver:?}");
            let told = said(configured, driver);
            assert_eq!(told.is_empty(), driver == Auto, "{configured:?} {driver:?}: {told}");
        }
        assert!(said(Auto, Sandbox).contains("`sandbox` and is given `auto`"), "{}", said(Auto, Sandbox));
        assert!(said(Sandbox, Krun).ends_with("less; an instance with a static entry has that one's box"));
    }

    #[test]
    fn a_package_that_fails_gives_way_to_the_last_that_did_not() {
        let releases = with(&["/a", "/b", "/c"]);
        let once = releases.revert("shop", "/c".as_ref(), "exited with code 3").unwrap();
        assert_eq!(current(&once), Some("/b"));
        assert_eq!(
            once.applications["shop"].releases[0].failed.as_deref(),
            Some("exited with code 3"),
            "it is still shown"
        );
        let twice = once.revert("shop", "/b".as_ref(), "").unwrap();
        assert_eq!(current(&twice), Some("/a"));
        let again = once.set("shop", release("/c", 9), 2).unwrap();
        assert!(again.applications["shop"].releases[0].failed.is_none(), "it gets another chance");
        assert_eq!(releases.revert("shop", "/unknown".as_ref(), ""), None);
        assert_eq!(releases.revert("another", "/a".as_ref(), ""), None);
    }

    #[test]
    fn the_first_package_of_all_leaves_nothing_when_it_fails() {
        let releases = with(&["/a"]).revert("shop", "/a".as_ref(), "no").unwrap();
        assert_eq!((current(&releases), paths(&releases)), (None, vec!["/a"]));
        assert!(releases.set("shop", release("/a", 9), 2).is_some(), "the same once more is a change");
    }

    #[test]
    fn a_package_that_is_not_current_fails_without_consequence() {
        let releases = with(&["/a", "/b"]).revert("shop", "/a".as_ref(), "old").unwrap();
        assert_eq!(current(&releases), Some("/b"));
    }

    #[test]
    fn of_applications_without_instances_the_oldest_are_forgotten() {
        let mut releases = Releases::default();
        for n in 0..ORPHANS_MAX + 3 {
            let unix_ms = i64::try_from(n).unwrap();
            releases = releases.set(&format!("app{n}"), release("/r", unix_ms), 2).unwrap();
        }
        let pruned = releases.pruned(&BTreeSet::from(["app0"]));
        assert_eq!(pruned.applications.len(), ORPHANS_MAX + 1);
        assert!(pruned.applications.contains_key("app0"), "it is used");
        assert!(!pruned.applications.contains_key("app1") && !pruned.applications.contains_key("app2"));
    }

    #[test]
    fn a_long_reason_keeps_its_end() {
        let reason = cut(&format!("{}end", "ä".repeat(REASON_MAX)));
        assert!(reason.len() <= REASON_MAX && reason.ends_with("end"));
    }
}
