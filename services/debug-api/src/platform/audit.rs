//! What people do by the admin app, noted; and the trail of the whole platform as the admin app shows it.

use std::{io, path::Path};

use nexushub_chassis::audit::{Audit, Event, Outcome, tail};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

/// From where people ask who use the admin app.
const FROM: &str = "admin app";

/// A change that the admin app has made and recorded by itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// Its number in that record: one that comes twice, as after a crash in between, shows by it.
    id: i64,
    /// When it was made, as that app says it.
    at: String,
    by: String,
    /// The type of its event.
    what: String,
    said: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    changes: Vec<Change>,
}

/// Entries of what the admin app tells of its own changes.
pub(super) fn changes(body: &[u8]) -> serde_json::Result<Vec<Event>> {
    let told: Changes = serde_json::from_slice(body)?;
    Ok(told.changes.into_iter().map(Change::event).collect())
}

impl Change {
    fn event(self) -> Event {
        let Self { id, at, by, what, said } = self;
        let who = if by.is_empty() { "admin".to_owned() } else { by };
        let detail = format!("change {id} of {at}, {what} {said}");
        event(&who, kind(&what), &object(&said), Outcome::Done, detail)
    }
}

/// A change's type in the words of this log.
fn kind(what: &str) -> &'static str {
    match what {
        "CreateApplication" => "application.create",
        "UpdateApplication" => "application.update",
        "DeleteApplication" => "application.delete",
        "AdoptApplication" => "application.adopt",
        "AddUser" => "user.create",
        "UpdateUser" => "user.rename",
        "UpdateUserPassword" => "user.password",
        "ResetAdministrator" => "user.reset",
        "DeleteUser" => "user.delete",
        "CreateUserAccessRule" => "rule.create",
        "DeleteUserAccessRule" => "rule.delete",
        _ => "admin.change",
    }
}

/// What a change was made to.
fn object(said: &Value) -> String {
    let named = |field: &&str| match &said[*field] {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(format!("user {id}")),
        _ => None,
    };
    ["instanceId", "applicationId", "userId"].iter().find_map(named).unwrap_or_default()
}

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

/// The newest entries of all daemons, the newest first. Blocking.
pub(super) fn read(folder: &Path, number: usize) -> io::Result<Vec<Value>> {
    Ok(tail(folder, number)?.iter().rev().map(|entry| json!(entry)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_done_is_told_with_the_newest_first() {
        let state = tempfile::tempdir().unwrap();
        let folder = nexushub_chassis::audit::folder(state.path());
        assert_eq!(read(&folder, 9).unwrap(), Vec::<Value>::new());
        let audit = Audit::of(state.path(), "debug-api");
        note(&audit, "ada", "instance.restart", "shop", None);
        note(&audit, "ada", "instance.pause", "shop", Some(&Status::not_found("there is no shop")));
        outcome(&audit, "bob", "release.install", "shop", Err("it exits at once"));
        drop(audit); // all is written
        let told: Vec<_> = read(&folder, 2)
            .unwrap()
            .iter()
            .map(|entry| {
                ["who", "what", "result", "detail"].map(|key| entry[key].as_str().unwrap().to_owned())
            })
            .collect();
        let first = ["bob", "release.install", "failed", "it exits at once"];
        assert_eq!(told, [first, ["ada", "instance.pause", "failed", "there is no shop"]]);
    }
}
