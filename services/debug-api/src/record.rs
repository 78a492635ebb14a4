//! What is known of an application across restarts, and the steps an install takes through it.
//!
//! ```text
//!   install:  installing = name ─▶ (unpack, rename) ─▶ release = name, wanted = run, settled = no, undo = what was
//!             ─▶ provider has it ─▶ settled = yes, undo = none          provider refuses ─▶ back to undo
//!   rollback: release = an earlier one, package = its own, the rest as an install
//!   given up: release = the earlier one that serves, failed = why the newer one never did; settled = no, and on as above
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

use crate::{error::StorageError, manifest::Manifest, names::Description, upload::File};

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
    /// What it says of itself.
    #[serde(default)]
    pub(crate) manifest: Manifest,
    /// Whether it was ever seen to answer its health check.
    #[serde(default)]
    pub(crate) healthy: bool,
}

/// What to go back to when provider refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    pub(crate) release: Option<Release>,
    #[serde(default)]
    pub(crate) earlier: Vec<Release>,
    pub(crate) wanted: Wanted,
    /// The package that an install meant, where a rollback changed that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) package: Option<File>,
}

/// An application as the admin app has it, or is to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promotion {
    pub(crate) description: Description,
    /// Who made it permanent, for people.
    pub(crate) by: String,
    /// From where they asked for it.
    #[serde(default)]
    pub(crate) from: String,
    /// The admin app has it, and provider has it from there.
    pub(crate) done: bool,
}

/// The form of the records that this release writes, and the latest that it reads.
const VERSION: u32 = 2;

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
    /// The package that an install means: the one that was uploaded last and whole, or that of the release which was gone back to since.
    pub(crate) package: Option<File>,
    pub(crate) release: Option<Release>,
    /// What ran before and is kept, the latest first.
    #[serde(default)]
    pub(crate) earlier: Vec<Release>,
    pub(crate) undo: Option<Undo>,
    /// The release that is being unpacked.
    pub(crate) installing: Option<String>,
    /// Why the last install didn't lead to a running app, for people.
    pub(crate) refused: Option<String>,
    /// Why the release that was installed last was given up, for people, until something else is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
    /// Number of the next release.
    pub(crate) next: u64,
    /// Of one that is permanent, or is about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) promotion: Option<Promotion>,
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
            earlier: Vec::new(),
            undo: None,
            installing: None,
            refused: None,
            failed: None,
            next: 1,
            promotion: None,
        }
    }

    /// Reads a record, of this version or an earlier one. What a later one means by its fields is not guessed.
    pub(crate) fn read(text: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default = "first_version")]
            version: u32,
        }
        /// The first version kept one release besides the current one.
        #[derive(Deserialize)]
        struct First {
            previous: Option<Release>,
        }
        let Versioned { version } = serde_json::from_slice(text)?;
        if version > VERSION {
            return Err(Unreadable::Later(version));
        }
        let mut record = Self { version: VERSION, ..serde_json::from_slice(text)? };
        if version == 1 {
            let First { previous } = serde_json::from_slice(text)?;
            record.earlier.extend(previous);
        }
        Ok(record)
    }

    /// Makes it what is known, durably. Blocking.
    pub(crate) fn keep(&self, path: &Path) -> Result<(), StorageError> {
        let text = serde_json::to_vec_pretty(self).expect("a record has nothing that JSON can't say");
        durable::write(path, &text, 0o600).map_err(StorageError::of("write", path))
    }

    /// The new release is in its place; provider is to be told. Of earlier ones `keep` are kept, and the latest that was healthy.
    pub(crate) fn adopt(&mut self, release: Release, keep: usize) {
        self.remember();
        self.earlier.retain(|other| other.name != release.name);
        if let Some(before) = self.release.replace(release) {
            self.earlier.retain(|other| other.name != before.name);
            self.earlier.insert(0, before);
        }
        let healthy = self.last_healthy().map(|release| release.name.clone());
        let mut number = 0;
        self.earlier.retain(|release| {
            number += 1;
            number <= keep || healthy.as_ref() == Some(&release.name)
        });
        self.installing = None;
        self.run();
    }

    /// An earlier release is in its place again, and is what an install means from now on.
    pub(crate) fn go_back(&mut self, release: Release, keep: usize) {
        let before = self.package.replace(release.file.clone());
        self.adopt(release, keep);
        if let Some(undo) = &mut self.undo {
            undo.package = undo.package.take().or(before);
        }
    }

    /// The release that is there already shall run again.
    pub(crate) fn resume(&mut self) {
        self.remember();
        self.run();
    }

    /// The release that is to run never came up: the one of this name, which serves, is the current one again.
    pub(crate) fn give_up(&mut self, serving: &str, why: String) {
        let Some(at) = self.earlier.iter().position(|release| release.name == serving) else { return };
        let serving = self.earlier.remove(at);
        self.earlier.splice(0..0, self.release.replace(serving));
        (self.failed, self.undo, self.settled) = (Some(why), None, false);
    }

    /// The developer says that it shall end.
    pub(crate) fn stop(&mut self) {
        (self.wanted, self.settled, self.undo, self.failed) = (Wanted::Stopped, false, None, None);
    }

    /// What to go back to when provider refuses: what it last agreed to.
    fn remember(&mut self) {
        let (release, earlier) = (self.release.clone(), self.earlier.clone());
        self.undo.get_or_insert(Undo { release, earlier, wanted: self.wanted, package: None });
    }

    fn run(&mut self) {
        (self.refused, self.failed) = (None, None);
        self.wanted = Wanted::Run;
        self.settled = false;
    }

    /// The earlier release that answered its health check last.
    pub(crate) fn last_healthy(&self) -> Option<&Release> {
        self.earlier.iter().find(|release| release.healthy)
    }

    /// Where the way back leads: where that was gone already because what was newer failed, nowhere else.
    pub(crate) fn way_back(&self) -> Option<&Release> {
        self.release.as_ref().filter(|_| self.failed.is_some()).or_else(|| self.last_healthy())
    }

    /// The kept release with this name or with archives of this SHA-256; what begins like it will do if nothing else does.
    pub(crate) fn kept_as(&self, wanted: &str) -> Option<&Release> {
        let digest =
            |release: &Release| release.file.sha256.as_ref().map(ToString::to_string).unwrap_or_default();
        let is_it =
            |release: &&Release| release.name.starts_with(wanted) || digest(release).starts_with(wanted);
        let all = || self.release.iter().chain(&self.earlier);
        let mut alike = all().filter(is_it);
        let (first, second) = (alike.next(), alike.next());
        all().find(|release| release.name == wanted).or(first.filter(|_| second.is_none()))
    }

    /// Those that were seen to be healthy.
    pub(crate) fn healthy(&self) -> impl Iterator<Item = &Release> {
        self.release.iter().chain(&self.earlier).filter(|release| release.healthy)
    }

    /// A release was seen to be healthy.
    pub(crate) fn came_up(&mut self, name: &str) {
        let known = self.release.iter_mut().chain(&mut self.earlier);
        known.filter(|release| release.name == name).for_each(|release| release.healthy = true);
    }

    /// Provider refused: as it was before. Says which release to throw away.
    pub(crate) fn roll_back(&mut self, why: String) -> Option<Release> {
        self.refused = Some(why);
        self.settled = false;
        let undo = self.undo.take()?;
        let refused = std::mem::replace(&mut self.release, undo.release);
        self.earlier = undo.earlier;
        self.wanted = undo.wanted;
        if undo.package.is_some() && self.package == refused.as_ref().map(|refused| refused.file.clone()) {
            self.package = undo.package; // nothing was uploaded since
        }
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
        let undo = self.undo.iter().flat_map(|undo| undo.release.iter().chain(&undo.earlier));
        let all = self.release.iter().chain(&self.earlier).chain(undo);
        let names = all.map(|release| release.name.as_str());
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
        let file = File { hash: Some(Md5Hex::of(&[7; 16])), sha256: None, total: 1 };
        let manifest = Manifest::default();
        Release { name: name.to_owned(), file, installed_unix_ms: 5, manifest, healthy: false }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let mut record = record("a");
        record.adopt(release("r1"), 3);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(Record::read(text.as_bytes()).unwrap(), record);
    }

    #[test]
    fn a_record_of_a_later_release_is_refused_and_one_without_a_version_is_of_the_first() {
        let written = serde_json::to_value(record("a")).unwrap();
        assert_eq!(written["version"], 2);
        let mut first = written.clone();
        let kept = serde_json::json!({
            "name": "r0",
            "file": { "hash": "07070707070707070707070707070707", "total": 1 },
            "installed_unix_ms": 5,
        });
        first.as_object_mut().unwrap().remove("version");
        first.as_object_mut().unwrap().remove("earlier");
        for (previous, earlier) in [(serde_json::Value::Null, vec![]), (kept, vec![release("r0")])] {
            first["previous"] = previous;
            let read = Record::read(first.to_string().as_bytes()).unwrap();
            assert_eq!((&read.earlier, read.version), (&earlier, 2));
            let same = Record::read(written.to_string().as_bytes()).unwrap();
            assert_eq!(Record { earlier: vec![], ..read }, same);
        }
        let refused = Record::read(br#"{"version":3,"id":{"of":"another shape"}}"#).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "it is of version 3, written by a later release; this one reads up to version 2"
        );
    }

    #[test]
    fn a_refused_install_leaves_what_was_there() {
        let mut record = record("a");
        record.adopt(release("r1"), 3);
        record.settle();
        let before = (record.release.clone(), record.earlier.clone(), record.wanted);
        record.adopt(release("r2"), 3);
        assert_eq!(record.kept(), ["r2", "r1", "r1"]);
        assert_eq!(record.earlier.len(), 1);
        assert_eq!(record.roll_back("host taken".to_owned()).unwrap().name, "r2");
        assert_eq!((record.release.clone(), record.earlier.clone(), record.wanted), before);
        assert_eq!(record.roll_back(String::new()), None, "nothing more to undo");
    }

    #[test]
    fn a_refused_first_install_leaves_nothing() {
        let mut record = record("a");
        record.adopt(release("r1"), 3);
        record.roll_back("host taken".to_owned());
        assert_eq!((record.release.as_ref(), record.wanted, record.settled), (None, Wanted::Nothing, true));
    }

    #[test]
    fn a_release_that_is_refused_when_resumed_stays_stopped_and_stays() {
        let mut record = record("a");
        record.adopt(release("r1"), 3);
        record.settle();
        record.wanted = Wanted::Stopped;
        record.resume();
        assert_eq!(record.roll_back("host taken".to_owned()), None);
        assert_eq!((record.release.unwrap().name.as_str(), record.wanted), ("r1", Wanted::Stopped));
    }

    #[test]
    fn two_installs_without_an_answer_go_back_to_the_last_that_had_one() {
        let mut record = record("a");
        record.adopt(release("r1"), 3);
        record.settle();
        record.adopt(release("r2"), 3);
        record.adopt(release("r3"), 3);
        assert!(record.kept().contains(&"r1"));
        record.roll_back(String::new());
        assert_eq!(record.release.unwrap().name, "r1");
    }

    #[test]
    fn the_latest_are_kept_and_the_last_healthy_one_however_old() {
        let mut record = record("a");
        let names = |record: &Record| -> Vec<String> {
            record.earlier.iter().map(|release| release.name.clone()).collect()
        };
        for name in ["r1", "r2"] {
            record.adopt(release(name), 2);
            record.came_up(name);
            record.settle();
        }
        for name in ["r3", "r4", "r5", "r6"] {
            record.adopt(release(name), 2);
            record.settle();
        }
        assert_eq!(names(&record), ["r5", "r4", "r2"]);
        assert_eq!(record.last_healthy().unwrap().name, "r2");
        let back = record.last_healthy().unwrap().clone();
        record.adopt(back, 2);
        assert_eq!(
            (record.release.as_ref().unwrap().name.as_str(), names(&record)),
            ("r2", vec!["r6".into(), "r5".into()])
        );
        assert_eq!(record.roll_back("no".to_owned()), None, "it was kept");
        assert_eq!((record.release.as_ref().unwrap().name.as_str(), names(&record).len()), ("r6", 3));
    }

    #[test]
    fn what_is_given_up_stands_behind_what_serves_until_something_else_is_asked_for() {
        let mut record = record("a");
        for name in ["r1", "r2", "r3"] {
            record.adopt(release(name), 2);
            record.settle();
        }
        let before = record.clone();
        record.give_up("gone", "exited with code 3".to_owned());
        assert_eq!(record, before, "nothing that is kept serves");
        record.give_up("r2", "exited with code 3".to_owned());
        record.settle();
        assert_eq!(record.kept(), ["r2", "r3", "r1"]);
        assert_eq!(
            record.failed.as_deref(),
            Some("exited with code 3"),
            "provider's word changes nothing of it"
        );
        assert_eq!(record.way_back().unwrap().name, "r2");
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(Record::read(text.as_bytes()).unwrap(), record);
        let asks: [fn(&mut Record); 3] =
            [Record::resume, Record::stop, |record| record.adopt(release("r4"), 2)];
        for ask in asks {
            let mut record = record.clone();
            ask(&mut record);
            assert_eq!(record.failed, None);
        }
    }

    #[test]
    fn a_release_is_found_by_its_name_its_digest_or_the_beginning_of_one_if_that_is_clear() {
        let mut record = record("a");
        for name in ["ab-1", "ac-2", "ab-11"] {
            record.adopt(release(name), 9);
        }
        let sha256 = crate::digests::Sha256Hex::parse(&"f".repeat(64));
        record.earlier[1].file.sha256 = sha256;
        let found = |wanted: &str| record.kept_as(wanted).map(|release| release.name.as_str());
        assert_eq!((found("ac"), found("ab-11"), found("ffff")), (Some("ac-2"), Some("ab-11"), Some("ab-1")));
        assert_eq!((found("a"), found("x"), found("ab-12")), (None, None, None));
        assert_eq!(found("ab-1"), Some("ab-1"), "a whole name is clear");
    }
}
