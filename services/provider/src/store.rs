//! The debug instances on disk: `$STATE/provider/debug.json`, replaced in one step after every change.
//!
//! What happens to a file that isn't right: one that can't be *read* stops the start (it may be readable again in a moment, and
//! going on would stop every debug app). One that can be read but isn't ours any more — torn by the disk, edited by hand — is
//! moved aside as `debug.json.corrupt-<n>`, said loudly, and whatever of it is still good goes on. One written by a later
//! version stops the start, too.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nexushub_chassis::{Fault, launch::durable, names::InstanceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    instance::{Entry, Source},
    typed::{Judge, Typed},
};

/// The form of the file that this version writes.
const VERSION: u64 = 1;
/// Most files that are kept aside; the last name is reused.
const ASIDE_MAX: u32 = 9;

/// The entries by id.
pub type Entries = BTreeMap<InstanceId, Entry>;

#[derive(Serialize)]
struct Written {
    version: u64,
    revision: u64,
    instances: Vec<Typed>,
}

#[derive(Deserialize)]
struct Found {
    revision: u64,
    instances: Vec<Value>,
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
    path: PathBuf,
}

impl Store {
    /// The file below `folder`, which is made if needed; what a crash left half-written there is removed.
    ///
    /// # Errors
    /// When the folder can't be made or read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for found in fs::read_dir(folder)? {
            let found = found?;
            let name = found.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".debug.json.") && name.ends_with(".tmp") {
                fs::remove_file(found.path())?;
            }
        }
        Ok(Self { path: folder.join("debug.json") })
    }

    /// Reads the file; see the head of this file for one that isn't right.
    ///
    /// # Errors
    /// A file that can't be read or moved aside, or that a later version wrote.
    pub fn load(&self, judge: &Judge) -> Result<Loaded, Fault> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
            other => other.map_err(|error| self.failed("read", &error))?,
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(version) =
            value.get("version").and_then(Value::as_u64).filter(|version| *version > VERSION)
        {
            let msg =
                format!("debug instances were written in form {version}, this version reads up to {VERSION}");
            let hint = "start the version that wrote the file, or move the file away to go on without them";
            return Err(Fault::new("state_too_new", msg, self.path.display().to_string(), hint));
        }
        let (mut loaded, why) = match serde_json::from_value::<Found>(value) {
            Ok(found) => sift(found, judge),
            Err(error) => (Loaded::default(), Some(format!("not a list of debug instances: {error}"))),
        };
        if let Some(why) = why {
            let aside = self.aside();
            fs::rename(&self.path, &aside).map_err(|error| self.failed("move aside", &error))?;
            self.save(loaded.revision, &loaded.entries).map_err(|error| self.failed("write", &error))?;
            loaded.corrupt = Some((aside, why));
        }
        Ok(loaded)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it can't be written; the old content is then still there.
    pub fn save(&self, revision: u64, entries: &Entries) -> io::Result<()> {
        let instances = entries.values().map(Typed::from).collect();
        let written = Written { version: VERSION, revision, instances };
        let mut bytes = serde_json::to_vec_pretty(&written)?;
        bytes.push(b'\n');
        durable::write(&self.path, &bytes, 0o600)
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn aside(&self) -> PathBuf {
        let name = |n| self.path.with_file_name(format!("debug.json.corrupt-{n}"));
        (1..ASIDE_MAX).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(ASIDE_MAX))
    }

    fn failed(&self, what: &str, error: &io::Error) -> Fault {
        let msg = format!("could not {what} the debug instances: {error}");
        let hint = "check the path, its permissions and the free space";
        Fault::new("state_unreadable", msg, self.path.display().to_string(), hint)
    }
}

/// The good entries, and what is wrong with the first that isn't.
fn sift(found: Found, judge: &Judge) -> (Loaded, Option<String>) {
    let mut loaded = Loaded { revision: found.revision, ..Loaded::default() };
    let mut why = None;
    for value in found.instances {
        let typed = serde_json::from_value::<Typed>(value).map_err(|error| error.to_string());
        let judged = typed.and_then(|typed| judge.entry(typed, Source::Debug).map_err(|bad| bad.to_string()));
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

    #[test]
    fn the_file_of_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let later = "{\"version\":2,\"things\":[]}";
        fs::write(store.path(), later).unwrap();
        assert_eq!(store.load(&judge()).unwrap_err().code, "state_too_new");
        assert_eq!(fs::read_to_string(store.path()).unwrap(), later);
    }

    #[test]
    fn what_a_crash_left_half_written_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let half = folder.path().join(".debug.json.77.tmp");
        fs::write(&half, "{").unwrap();
        Store::open(folder.path()).unwrap();
        assert!(!half.exists());
    }
}
