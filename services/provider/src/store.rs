//! The debug instances on disk: `$STATE/provider/debug.json`. Of a file that isn't right (see `kept.rs`) whatever is still good
//! goes on.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use nexushub_chassis::{Fault, names::InstanceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    instance::{Entry, Source},
    kept::{File, Read},
    typed::{Judge, Typed},
};

/// The entries by id.
pub type Entries = BTreeMap<InstanceId, Entry>;

#[derive(Serialize)]
struct Written {
    instances: Vec<Typed>,
    /// Those that were made permanent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    promoted: Vec<Typed>,
}

#[derive(Deserialize)]
struct Found {
    instances: Vec<Value>,
    #[serde(default)]
    promoted: Vec<Value>,
}

/// What was on disk.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The revision at the last change; 0 = never changed.
    pub revision: u64,
    /// What is good.
    pub entries: Entries,
    /// What isn't, for the log: the file kept aside, and why.
    pub corrupt: Option<(PathBuf, String)>,
}

/// The file.
#[derive(Clone, Debug)]
pub struct Store {
    file: File,
}

impl Store {
    /// The file below `folder`, which is made if needed.
    ///
    /// # Errors
    /// When the folder can't be made or read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        File::open(folder, "debug.json", "debug instances").map(|file| Self { file })
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A file that can't be read or moved aside, or that a later version wrote.
    pub fn load(&self, judge: &Judge) -> Result<Loaded, Fault> {
        let (mut loaded, why) = match self.file.read::<Found>()? {
            Read::Absent => return Ok(Loaded::default()),
            Read::Good(revision, found) => sift(revision, found, judge),
            Read::Corrupt(why) => (Loaded::default(), Some(why)),
        };
        if let Some(why) = why {
            let aside = self.file.move_aside()?;
            let saved = self.save(loaded.revision, &loaded.entries);
            saved.map_err(|error| self.file.failed("write", &error))?;
            loaded.corrupt = Some((aside, why));
        }
        Ok(loaded)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it can't be written; the old content is then still there.
    pub fn save(&self, revision: u64, entries: &Entries) -> io::Result<()> {
        let of =
            |source| entries.values().filter(move |entry| entry.source == source).map(Typed::from).collect();
        self.file.save(revision, &Written { instances: of(Source::Debug), promoted: of(Source::Promoted) })
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// The good entries, and what is wrong with the first that isn't.
fn sift(revision: u64, found: Found, judge: &Judge) -> (Loaded, Option<String>) {
    let mut loaded = Loaded { revision, ..Loaded::default() };
    let mut why = None;
    let debug = found.instances.into_iter().map(|value| (value, Source::Debug));
    let promoted = found.promoted.into_iter().map(|value| (value, Source::Promoted));
    for (value, source) in debug.chain(promoted) {
        let typed = serde_json::from_value::<Typed>(value).map_err(|error| error.to_string());
        let judged = typed.and_then(|typed| judge.entry(typed, source).map_err(|bad| bad.to_string()));
        match judged {
            Ok(entry) => {
                loaded.entries.insert(entry.id.clone(), entry);
            }
            Err(bad) => {
                why.get_or_insert(bad);
            }
        }
    }
    (loaded, why)
}

impl From<&Entry> for Typed {
    fn from(entry: &Entry) -> Self {
        let fields = &entry.fields;
        let text = |path: &PathBuf| path.to_string_lossy().into_owned(); // paths were text when they were judged
        Self {
            id: entry.id.to_string(),
            app_id: fields.app_id.clone(),
            display_name: fields.display_name.clone(),
            host_name: fields.host_name.as_ref().map(ToString::to_string),
            release: fields.release.as_ref().map(text),
            data: fields.data.as_ref().map(text),
            driver: fields.driver,
            egress: fields.egress,
            deploy: fields.deploy,
            idle_stop_ms: fields.idle_stop_ms,
            env: fields.env.clone(),
            health: fields.health.clone(),
            limits: fields.limits,
            route: fields.route.clone(),
            debug_port: fields.debug_port,
            static_service_url: fields.static_service_url.clone(),
            pin: entry.pins.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::instance::{Deploy, Driver, Egress, Health};
    use nexushub_chassis::names::Zone;

    fn judge() -> Judge {
        Judge { zone: Zone::new("b.localhost", 8443), root: None }
    }

    fn entry(id: &str) -> Entry {
        let typed = Typed {
            id: id.into(),
            host_name: Some(format!("{id}.debug")),
            release: Some("/r".into()),
            driver: Some(Driver::Process),
            egress: Some(Egress::Internet),
            deploy: Some(Deploy::Replace),
            idle_stop_ms: Some(60_000),
            env: Some([("A".to_owned(), "b".to_owned())].into()),
            health: Some(Health { interval_ms: Some(500), ..Health::default() }),
            ..Typed::default()
        };
        judge().entry(typed, Source::Debug).unwrap()
    }

    fn entries(ids: &[&str]) -> Entries {
        ids.iter().map(|id| (InstanceId::parse(id).unwrap(), entry(id))).collect()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("provider")).unwrap();
        assert!(store.load(&judge()).unwrap().entries.is_empty());
        store.save(7, &entries(&["a", "b"])).unwrap();
        let loaded = store.load(&judge()).unwrap();
        assert_eq!((loaded.revision, loaded.entries), (7, entries(&["a", "b"])));
        assert!(loaded.corrupt.is_none());
    }

    #[test]
    fn garbage_is_moved_aside_and_none_is_lost_silently() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for (n, garbage) in ["", "{", "\0\0\0", "[]", "{\"revision\":-1,\"instances\":[]}"].iter().enumerate()
        {
            fs::write(store.path(), garbage).unwrap();
            let loaded = store.load(&judge()).unwrap();
            let (aside, _) = loaded.corrupt.unwrap();
            assert!(aside.ends_with(format!("debug.json.corrupt-{}", n + 1)));
            assert_eq!(fs::read_to_string(aside).unwrap(), *garbage);
            assert!(store.load(&judge()).unwrap().corrupt.is_none(), "the next start is quiet");
        }
    }

    #[test]
    fn one_bad_entry_does_not_take_the_good_ones_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.save(3, &entries(&["a", "b"])).unwrap();
        let torn = fs::read_to_string(store.path()).unwrap().replace("b.debug", "b b");
        fs::write(store.path(), torn).unwrap();
        let loaded = store.load(&judge()).unwrap();
        assert!(loaded.corrupt.unwrap().1.contains("host name"));
        assert_eq!(loaded.entries, entries(&["a"]));
    }
}
