//! What of the desired state isn't configuration, on disk: three documents below `$STATE/provider`, each replaced in one step
//! (`kept.rs`): the debug instances, the admin app's list as far as it is in force, and the packages of its applications.

use std::{io, path::Path, sync::Arc};

use nexushub_chassis::Fault;
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::{
    admin::{application::Application, listing::Listing},
    error::Error,
    instance::Entry,
    kept::{File, Read},
    releases::Releases,
    store::{Entries, Loaded, Store},
    typed::Judge,
};

/// A part of the state that has changed.
#[derive(Debug)]
pub enum Part {
    /// The debug instances.
    Debug(Entries),
    /// The admin app's list.
    Listing(Listing),
    /// The packages.
    Releases(Releases),
}

/// What was on disk.
#[derive(Debug, Default)]
pub struct Found {
    /// The highest revision; 0 = never changed.
    pub revision: u64,
    /// The debug instances.
    pub debug: Entries,
    /// The admin app's list.
    pub listing: Arc<Listing>,
    /// The packages.
    pub releases: Arc<Releases>,
}

/// The files.
#[derive(Clone, Debug)]
pub struct Disk {
    debug: Store,
    listing: File,
    releases: File,
}

#[derive(Serialize, Deserialize)]
struct Applications {
    applications: Vec<Application>,
    held: Vec<Application>,
}

impl Disk {
    /// The files below `folder`, which is made if needed.
    ///
    /// # Errors
    /// When the folder can't be made or read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            debug: Store::open(folder)?,
            listing: File::open(folder, "admin.json", "applications of the admin app")?,
            releases: File::open(folder, "releases.json", "packages of applications")?,
        })
    }

    /// Reads them all; what is corrupt is moved aside and said.
    ///
    /// # Errors
    /// As [`File::read`].
    pub fn load(&self, judge: &Judge) -> Result<Found, Fault> {
        let Loaded { revision, entries, corrupt } = self.debug.load(judge)?;
        if let Some((aside, why)) = corrupt {
            let kept = entries.len();
            error!(error = %why, aside = %aside.display(), kept, "file of debug instances is corrupt; moved aside");
        }
        let (listed, applications) = read::<Applications>(&self.listing)?;
        let listing = applications.map(|applications| applications.judged(judge)).unwrap_or_default();
        let (set, releases) = read::<Releases>(&self.releases)?;
        let revision = revision.max(listed).max(set);
        let (listing, releases) = (Arc::new(listing), Arc::new(releases.unwrap_or_default()));
        Ok(Found { revision, debug: entries, listing, releases })
    }

    /// Writes a part and gives it back.
    ///
    /// # Errors
    /// When it can't be written; the old content is then still there.
    pub async fn save(&self, revision: u64, part: Part) -> Result<Part, Error> {
        let disk = self.clone();
        let path = match &part {
            Part::Debug(_) => self.debug.path(),
            Part::Listing(_) => self.listing.path(),
            Part::Releases(_) => self.releases.path(),
        };
        let saved = tokio::task::spawn_blocking(move || disk.write(revision, &part).map(|()| part)).await;
        let saved = saved.unwrap_or_else(|error| Err(io::Error::other(error)));
        saved.map_err(|source| Error::Unwritable { path: path.to_owned(), source })
    }

    fn write(&self, revision: u64, part: &Part) -> io::Result<()> {
        match part {
            Part::Debug(debug) => self.debug.save(revision, debug),
            Part::Listing(listing) => self.listing.save(revision, &Applications::from(listing)),
            Part::Releases(releases) => self.releases.save(revision, releases),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(file: &File) -> Result<(u64, Option<T>), Fault> {
    match file.read()? {
        Read::Absent => Ok((0, None)),
        Read::Good(revision, content) => Ok((revision, Some(content))),
        Read::Corrupt(why) => {
            let aside = file.move_aside()?;
            error!(error = %why, aside = %aside.display(), "a file of provider's state is corrupt; moved aside");
            Ok((0, None))
        }
    }
}

impl From<&Listing> for Applications {
    fn from(listing: &Listing) -> Self {
        let written =
            |entries: &std::collections::BTreeMap<_, Entry>| entries.values().map(Into::into).collect();
        Self { applications: written(&listing.listed), held: written(&listing.held) }
    }
}

impl Applications {
    /// What is still good: a base domain may have changed since.
    fn judged(self, judge: &Judge) -> Listing {
        let judged = |one: Application| {
            let id = one.instance_id.clone();
            match one.judged(judge) {
                Ok(entry) => Some((entry.id.clone(), entry)),
                Err(bad) => {
                    error!(instance = id, error = %bad, "an application of the admin app is left out");
                    None
                }
            }
        };
        let all = |list: Vec<Application>| list.into_iter().filter_map(judged).collect();
        Listing { listed: all(self.applications), held: all(self.held), refused: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::BTreeSet, fs};

    use nexushub_chassis::names::Zone;

    use super::*;
    use crate::{
        admin::{list, listing::Hold},
        instance::Driver,
        releases::{Asks, Release},
    };

    fn judge() -> Judge {
        Judge { zone: Zone::new("b.localhost", 8443), root: None }
    }

    fn listed(ids: &[&str]) -> list::List {
        let rows = ids.iter().map(|id| {
            serde_json::json!({"instanceId": id, "appId": "shop", "displayName": "Ä", "hostName": format!("{id}.x"),
                "callers": ["other"], "limits": {"memoryBytes": 16 << 20}})
        });
        let text = serde_json::json!({"applications": rows.collect::<Vec<_>>()}).to_string();
        list::read(text.as_bytes(), &judge()).unwrap()
    }

    #[tokio::test]
    async fn what_was_saved_is_found_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        assert_eq!(disk.load(&judge()).unwrap().revision, 0);
        let hold = Hold { share_percent: 50, least: 1 };
        let listing = Listing::default().after(listed(&["a", "b", "c"]), hold).after(listed(&["a"]), hold);
        assert_eq!(listing.held.len(), 2);
        disk.save(5, Part::Listing(listing.clone())).await.unwrap();
        let (version, by) = ("1".to_owned(), "me".to_owned());
        let asks = Asks { driver: Some(Driver::Sandbox), ..Asks::default() };
        let release =
            Release { path: "/r".into(), version, by, set_unix_ms: 4, failed: Some("no".into()), asks };
        let releases = Releases::default().set("shop", release, 3).unwrap();
        disk.save(6, Part::Releases(releases.clone())).await.unwrap();
        let found = Disk::open(folder.path()).unwrap().load(&judge()).unwrap();
        assert_eq!((found.revision, found.listing, found.releases), (6, listing.into(), releases.into()));
    }

    #[tokio::test]
    async fn a_corrupt_list_is_moved_aside_and_leaves_the_rest_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let listing = Listing::default().after(listed(&["a"]), Hold { share_percent: 50, least: 1 });
        disk.save(5, Part::Listing(listing)).await.unwrap();
        fs::write(folder.path().join("releases.json"), "{").unwrap();
        let found = disk.load(&judge()).unwrap();
        assert_eq!((found.listing.listed.len(), found.releases.applications.len()), (1, 0));
        let names = fs::read_dir(folder.path()).unwrap();
        let names: BTreeSet<_> = names.map(|found| found.unwrap().file_name()).collect();
        assert!(names.contains("releases.json.corrupt-1".as_ref() as &std::ffi::OsStr), "{names:?}");
    }

    #[tokio::test]
    async fn what_is_no_longer_a_name_here_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let listing = Listing::default().after(listed(&["a", "b"]), Hold { share_percent: 50, least: 1 });
        disk.save(5, Part::Listing(listing)).await.unwrap();
        let path = folder.path().join("admin.json");
        let text = fs::read_to_string(&path).unwrap().replace("a.x", "a x");
        fs::write(&path, text).unwrap();
        assert_eq!(disk.load(&judge()).unwrap().listing.listed.len(), 1);
    }
}
