//! What people do by the admin app, noted; and the trail of the whole platform as the admin app shows it.

use std::path::Path;

use nexushub_chassis::audit::{Audit, Event, Outcome, tail};
use serde_json::{Value, json};
use tonic::Status;

/// From where people ask who use the admin app.
const FROM: &str = "admin app";

/// Notes what somebody did to an instance, and how that ended.
pub(super) fn note(audit: &Audit, who: &str, what: &'static str, instance: &str, refused: Option<&Status>) {
    let outcome = if refused.is_some() { Outcome::Failed } else { Outcome::Done };
    let detail = refused.map(|status| status.message().to_owned()).unwrap_or_default();
    audit.note(event(who, what, instance, outcome, detail));
}

/// Notes what became of a package.
pub(super) fn outcome(
    audit: &Audit,
    who: &str,
    what: &'static str,
    instance: &str,
    runs: Result<&str, &str>,
) {
    let (outcome, detail) = match runs {
        Ok(release) => (Outcome::Done, release),
        Err(reason) => (Outcome::Failed, reason),
    };
    audit.note(event(who, what, instance, outcome, detail.to_owned()));
}

fn event(who: &str, what: &'static str, instance: &str, outcome: Outcome, detail: String) -> Event {
    Event { who: who.to_owned(), what, object: instance.to_owned(), from: FROM.to_owned(), outcome, detail }
}

/// The newest entries of all daemons, the newest first; none where nothing can be read. Blocking.
pub(super) fn read(folder: &Path, number: usize) -> Vec<Value> {
    let entries = tail(folder, number).unwrap_or_else(|error| {
        tracing::warn!(%error, "the audit log can't be read");
        Vec::new()
    });
    entries.iter().rev().map(|entry| json!(entry)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_done_is_told_with_the_newest_first() {
        let state = tempfile::tempdir().unwrap();
        let folder = nexushub_chassis::audit::folder(state.path());
        assert_eq!(read(&folder, 9), Vec::<Value>::new());
        let audit = Audit::of(state.path(), "debug-api");
        note(&audit, "ada", "instance.restart", "shop", None);
        note(&audit, "ada", "instance.pause", "shop", Some(&Status::not_found("there is no shop")));
        outcome(&audit, "bob", "release.install", "shop", Err("it exits at once"));
        drop(audit); // all is written
        let told: Vec<_> = read(&folder, 2)
            .iter()
            .map(|entry| {
                ["who", "what", "result", "detail"].map(|key| entry[key].as_str().unwrap().to_owned())
            })
            .collect();
        let first = ["bob", "release.install", "failed", "it exits at once"];
        assert_eq!(told, [first, ["ada", "instance.pause", "failed", "there is no shop"]]);
    }
}
