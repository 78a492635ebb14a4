//! A document of this daemon's on disk: `$STATE/provider/<name>.json`, replaced in one step after every change.
//!
//! What happens to a file that isn't right: one that can't be *read* stops the start (it may be readable again in a moment, and
//! going on would stop every app that it tells of). One that can be read but isn't ours any more — torn by the disk, edited by
//! hand — is moved aside as `<name>.json.corrupt-<n>` and said loudly. One written by a later version stops the start, too.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use nexushub_chassis::{Fault, launch::durable};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The form of the files that this version writes.
const VERSION: u64 = 1;
/// Most files of one name that are kept aside; the last name is reused.
const ASIDE_MAX: u32 = 9;

/// A document with its form and the revision of the desired state that it belongs to.
#[derive(Serialize)]
struct Written<'a, T> {
    version: u64,
    revision: u64,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(Deserialize)]
struct Found<T> {
    revision: u64,
    #[serde(flatten)]
    content: T,
}

/// What was on disk.
#[derive(Debug)]
pub enum Read<T> {
    /// Nothing yet.
    Absent,
    /// The revision at the last change, and the document.
    Good(u64, T),
    /// Something else, and what is wrong with it.
    Corrupt(String),
}

/// The file.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    /// Its content, for people: "debug instances".
    what: &'static str,
}

impl File {
    /// The file `name` below `folder`, which is made if needed.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn open(folder: &Path, name: &str, what: &'static str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { path: folder.join(name), what })
    }

    /// Reads the document; see the head of this file for one that isn't right.
    ///
    /// # Errors
    /// A file that can't be read, or that a later version wrote.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Read<T>, Fault> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Absent),
            other => other.map_err(|error| self.failed("read", &error))?,
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(version) =
            value.get("version").and_then(Value::as_u64).filter(|version| *version > VERSION)
        {
            let msg =
                format!("{} were written in form {version}, this version reads up to {VERSION}", self.what);
            let hint = "start the version that wrote the file, or move the file away to go on without them";
            return Err(Fault::new("state_too_new", msg, self.path.display().to_string(), hint));
        }
        Ok(match serde_json::from_value::<Found<T>>(value) {
            Ok(Found { revision, content }) => Read::Good(revision, content),
            Err(error) => Read::Corrupt(format!("not a list of {}: {error}", self.what)),
        })
    }

    /// Moves a corrupt file out of the way; where to.
    ///
    /// # Errors
    /// When it can't be moved.
    pub fn move_aside(&self) -> Result<PathBuf, Fault> {
        let name = |n| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".corrupt-{n}"));
            PathBuf::from(name)
        };
        let free = (1..ASIDE_MAX).map(name).find(|path| !path.exists());
        let aside = free.unwrap_or_else(|| name(ASIDE_MAX));
        fs::rename(&self.path, &aside).map_err(|error| self.failed("move aside", &error))?;
        Ok(aside)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it can't be written; the old content is then still there.
    pub fn save<T: Serialize>(&self, revision: u64, content: &T) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(&Written { version: VERSION, revision, content })?;
        bytes.push(b'\n');
        durable::write(&self.path, &bytes, 0o600)
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A fault of the start: the file could not be dealt with.
    #[must_use]
    pub fn failed(&self, verb: &str, error: &io::Error) -> Fault {
        let msg = format!("could not {verb} the {}: {error}", self.what);
        let hint = "check the path, its permissions and the free space";
        Fault::new("state_unreadable", msg, self.path.display().to_string(), hint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Things {
        things: Vec<String>,
    }

    fn file(folder: &tempfile::TempDir) -> File {
        File::open(&folder.path().join("provider"), "things.json", "things").unwrap()
    }

    #[test]
    fn what_was_saved_is_read_with_its_revision() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        assert!(matches!(file.read::<Things>().unwrap(), Read::Absent));
        file.save(7, &Things { things: vec!["a".into()] }).unwrap();
        let Read::Good(7, things) = file.read::<Things>().unwrap() else { unreachable!("it was saved") };
        assert_eq!(things.things, ["a"]);
    }

    #[test]
    fn garbage_is_told_and_moved_aside_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        for (n, garbage) in ["", "{", "\0\0\0", "[]", "{\"revision\":-1,\"things\":[]}"].iter().enumerate() {
            fs::write(file.path(), garbage).unwrap();
            assert!(matches!(file.read::<Things>().unwrap(), Read::Corrupt(why) if why.contains("things")));
            let aside = file.move_aside().unwrap();
            assert!(aside.ends_with(format!("things.json.corrupt-{}", n + 1)));
            assert_eq!(fs::read_to_string(aside).unwrap(), *garbage);
        }
    }

    #[test]
    fn the_file_of_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        let later = "{\"version\":2,\"others\":[]}";
        fs::write(file.path(), later).unwrap();
        assert_eq!(file.read::<Things>().unwrap_err().code, "state_too_new");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), later);
    }
}
