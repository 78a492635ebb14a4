//! What is known of an application across restarts, and the steps an install takes through it.
//!
//! ```text
//!   install:  installing = name ─▶ (unpack, rename) ─▶ release = name, wanted = run, settled = no, undo = what was
//!             ─▶ provider has it ─▶ settled = yes, undo = none          provider refuses ─▶ back to undo
//!   stop:     wanted = stopped, settled = no ─▶ provider removed it ─▶ settled = yes
//!   delete:   wanted = gone ─▶ provider removed it ─▶ files removed ─▶ record removed
//! ```
//! Every arrow is one durable write; start-up goes on from whichever was the last.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nexushub_chassis::launch::{clock, durable};
use serde::{Deserialize, Serialize};

use crate::{error::StorageError, names::Description, upload::File};

/// What the developer wants of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    /// Not installed yet.
    Nothing,
    Run,
    Stopped,
    Gone,
}

/// One unpacked package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Release {
    /// Its folder.
    pub(crate) name: String,
    pub(crate) file: File,
    pub(crate) installed_unix_ms: i64,
}

/// What to go back to when provider refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    pub(crate) release: Option<Release>,
    pub(crate) wanted: Wanted,
}

/// The form of the records that this release writes, and the latest that it reads.
const VERSION: u32 = 1;

/// Records had no version at first.
fn first_version() -> u32 {
    1
}

/// Why a record can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it is of version {0}, written by a later release; this one reads up to version {VERSION}")]
    Later(u32),
    #[error(transparent)]
    Malformed(#[from] serde_json::Error),
}

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(default = "first_version")]
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) description: Description,
    pub(crate) created_unix_ms: i64,
    pub(crate) updated_unix_ms: i64,
    pub(crate) wanted: Wanted,
    /// Whether provider is known to agree with `wanted`.
    pub(crate) settled: bool,
    /// The package that was uploaded last and whole.
    pub(crate) package: Option<File>,
    pub(crate) release: Option<Release>,
    pub(crate) previous: Option<Release>,
    pub(crate) undo: Option<Undo>,
    /// The release that is being unpacked.
    pub(crate) installing: Option<String>,
    /// Why the last install didn't lead to a running app, for people.
    pub(crate) refused: Option<String>,
    /// Number of the next release.
    pub(crate) next: u64,
}

impl Record {
    pub(crate) fn new(id: String, description: Description) -> Self {
        let now = now_ms();
        Self {
            version: VERSION,
            id,
            description,
            created_unix_ms: now,
            updated_unix_ms: now,
            wanted: Wanted::Nothing,
            settled: true,
            package: None,
            release: None,
            previous: None,
            undo: None,
            installing: None,
            refused: None,
            next: 1,
        }
    }

    /// Reads a record, of this version or an earlier one. What a later one means by its fields is not guessed.
    pub(crate) fn read(text: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default = "first_version")]
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(text)?;
        if version > VERSION {
            return Err(Unreadable::Later(version));
        }
        Ok(Self { version: VERSION, ..serde_json::from_slice(text)? })
    }

    /// Makes it what is known, durably. Blocking.
    pub(crate) fn keep(&self, path: &Path) -> Result<(), StorageError> {
        let text = serde_json::to_vec_pretty(self).expect("a record has nothing that JSON can't say");
        durable::write(path, &text, 0o600).map_err(StorageError::of("write", path))
    }

    /// The new release is in its place; provider is to be told.
    pub(crate) fn adopt(&mut self, release: Release) {
        let undo = Undo { release: self.release.clone(), wanted: self.wanted };
        self.undo.get_or_insert(undo);
        self.previous = self.release.replace(release);
        self.installing = None;
        self.refused = None;
        self.wanted = Wanted::Run;
        self.settled = false;
    }

    /// The release that is there already shall run again.
    pub(crate) fn resume(&mut self) {
        let undo = Undo { release: self.release.clone(), wanted: self.wanted };
        self.undo.get_or_insert(undo);
        self.refused = None;
        self.wanted = Wanted::Run;
        self.settled = false;
    }

    /// Provider refused: as it was before. Says which release to throw away.
    pub(crate) fn roll_back(&mut self, why: String) -> Option<Release> {
        self.refused = Some(why);
        self.settled = false;
        let undo = self.undo.take()?;
        let refused = std::mem::replace(&mut self.release, undo.release);
        self.wanted = undo.wanted;
        // What was running before may be gone from provider meanwhile, so it is told again.
        self.settled = self.wanted == Wanted::Nothing;
        let kept =
            self.kept().iter().any(|name| refused.as_ref().is_some_and(|refused| refused.name == *name));
        refused.filter(|_| !kept)
    }

    /// Provider agrees.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
        self.undo = None;
        self.refused = None;
    }

    /// Releases that may not be removed.
    pub(crate) fn kept(&self) -> Vec<&str> {
        let undo = self.undo.as_ref().and_then(|undo| undo.release.as_ref());
        let all = [self.release.as_ref(), self.previous.as_ref(), undo];
        let names = all.into_iter().flatten().map(|release| release.name.as_str());
        names.chain(self.installing.as_deref()).collect()
    }
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    clock::unix_ms(SystemTime::now())
}

/// A duration as logs have it.
pub(crate) fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC.
pub(crate) fn rfc3339(unix_ms: i64) -> String {
    clock::rfc3339(UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0)))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::upload::Md5Hex;

    pub(crate) fn record(app_id: &str) -> Record {
        let json = format!(r#"{{"appId":"{app_id}","displayName":"A","hostName":"a","dbName":"a.db"}}"#);
        Record::new("id-1".to_owned(), serde_json::from_str(&json).unwrap())
    }

    pub(crate) fn release(name: &str) -> Release {
        let file = File { hash: Md5Hex::of(&[7; 16]), sha256: None, total: 1 };
        Release { name: name.to_owned(), file, installed_unix_ms: 5 }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let mut record = record("a");
        record.adopt(release("r1"));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(Record::read(text.as_bytes()).unwrap(), record);
    }

    #[test]
    fn a_record_of_a_later_release_is_refused_and_one_without_a_version_is_of_the_first() {
        let written = serde_json::to_value(record("a")).unwrap();
        assert_eq!(written["version"], 1);
        let mut first = written.clone();
        first.as_object_mut().unwrap().remove("version");
        assert_eq!(
            Record::read(first.to_string().as_bytes()).unwrap(),
            Record::read(written.to_string().as_bytes()).unwrap()
        );
        let refused = Record::read(br#"{"version":2,"id":{"of":"another shape"}}"#).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "it is of version 2, written by a later release; this one reads up to version 1"
        );
    }

    #[test]
    fn a_refused_install_leaves_what_was_there() {
        let mut record = record("a");
        record.adopt(release("r1"));
        record.settle();
        let before = (record.release.clone(), record.wanted);
        record.adopt(release("r2"));
        assert_eq!(record.kept(), ["r2", "r1", "r1"]);
        assert_eq!(record.roll_back("host taken".to_owned()).unwrap().name, "r2");
        assert_eq!((record.release.clone(), record.wanted), before);
        assert_eq!(record.roll_back(String::new()), None, "nothing more to undo");
    }

    #[test]
    fn a_refused_first_install_leaves_nothing() {
        let mut record = record("a");
        record.adopt(release("r1"));
        record.roll_back("host taken".to_owned());
        assert_eq!((record.release.as_ref(), record.wanted, record.settled), (None, Wanted::Nothing, true));
    }

    #[test]
    fn a_release_that_is_refused_when_resumed_stays_stopped_and_stays() {
        let mut record = record("a");
        record.adopt(release("r1"));
        record.settle();
        record.wanted = Wanted::Stopped;
        record.resume();
        assert_eq!(record.roll_back("host taken".to_owned()), None);
        assert_eq!((record.release.unwrap().name.as_str(), record.wanted), ("r1", Wanted::Stopped));
    }

    #[test]
    fn two_installs_without_an_answer_go_back_to_the_last_that_had_one() {
        let mut record = record("a");
        record.adopt(release("r1"));
        record.settle();
        record.adopt(release("r2"));
        record.adopt(release("r3"));
        assert!(record.kept().contains(&"r1"));
        record.roll_back(String::new());
        assert_eq!(record.release.unwrap().name, "r1");
    }
}
