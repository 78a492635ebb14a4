//! What people do by the admin app and how they sign in, noted; and the trail of the whole platform as the admin app shows it.

use std::{io, path::Path};

use nexushub_chassis::{
    audit::{Audit, Event, Outcome, tail},
    names::InstanceId,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

use super::acting::{Acting, place};

/// Who tells of what was done in an app.
#[derive(Debug, Clone, Copy)]
pub(super) enum Teller {
    Admin,
    Login,
}

impl Teller {
    /// For whom nobody is named.
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Login => "login",
        }
    }

    /// From where it was done, where no address is known.
    fn place(self) -> &'static str {
        match self {
            Self::Admin => "admin app",
            Self::Login => "login app",
        }
    }
}

/// What an app has done or refused, and recorded by itself.
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
    /// The address that it was asked from.
    #[serde(default)]
    from: String,
    #[serde(default)]
    refused: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    changes: Vec<Change>,
}

/// Entries of what an app tells of its own doings.
pub(super) fn changes(teller: Teller, body: &[u8]) -> serde_json::Result<Vec<Event>> {
    let told: Changes = serde_json::from_slice(body)?;
    Ok(told.changes.into_iter().map(|change| change.event(teller)).collect())
}

impl Change {
    fn event(self, teller: Teller) -> Event {
        let Self { id, at, by, what, said, from, refused } = self;
        let who = if by.is_empty() { teller.name().to_owned() } else { by };
        let outcome = if refused { Outcome::Refused } else { Outcome::Done };
        let (object, from) = (object(&said), place(&from, teller.place()));
        let detail = format!("change {id} of {at}, {what} {said}");
        Event { who, what: kind(teller, &what), object, from, outcome, detail }
    }
}

/// A change's type in the words of this log; neither app may tell what is the other's.
fn kind(teller: Teller, what: &str) -> &'static str {
    match (teller, what) {
        (Teller::Admin, "CreateApplication") => "application.create",
        (Teller::Admin, "UpdateApplication") => "application.update",
        (Teller::Admin, "DeleteApplication") => "application.delete",
        (Teller::Admin, "AdoptApplication") => "application.adopt",
        (Teller::Admin, "AddUser") => "user.create",
        (Teller::Admin, "UpdateUser") => "user.rename",
        (Teller::Admin, "UpdateUserPassword") => "user.password",
        (Teller::Admin, "ResetAdministrator") => "user.reset",
        (Teller::Admin, "EndSessions") => "user.log_out",
        (Teller::Admin, "DeleteUser") => "user.delete",
        (Teller::Admin, "CreateUserAccessRule") => "rule.create",
        (Teller::Admin, "DeleteUserAccessRule") => "rule.delete",
        (Teller::Admin, _) => "admin.change",
        (Teller::Login, "login") => "session.begin",
        (Teller::Login, "logout") => "session.end",
        (Teller::Login, "reuse") => "session.reuse",
        (Teller::Login, "lockout") => "session.lock_out",
        (Teller::Login, "password") => "user.password",
        (Teller::Login, _) => "login.note",
    }
}

/// What a change was made to: an id as it is, and in quotes what somebody typed, so that it can't be read as an id.
fn object(said: &Value) -> String {
    let named = |field: &&str| match &said[*field] {
        Value::String(id) if *field != "name" && InstanceId::parse(id).is_ok() => Some(id.clone()),
        Value::String(typed) => Some(format!("\"{typed}\"")),
        Value::Number(id) if *field == "userId" => Some(format!("user {id}")),
        _ => None,
    };
    ["instanceId", "applicationId", "userId", "name"].iter().find_map(named).unwrap_or_default()
}

/// Notes what somebody did to an instance, and how that ended.
pub(super) fn note(
    audit: &Audit,
    acting: &Acting,
    what: &'static str,
    instance: &str,
    refused: Option<&Status>,
) {
    let outcome = if refused.is_some() { Outcome::Failed } else { Outcome::Done };
    let detail = refused.map(|status| status.message().to_owned()).unwrap_or_default();
    audit.note(event(acting, what, instance, outcome, detail));
}

/// Notes what became of a package.
pub(super) fn outcome(
    audit: &Audit,
    acting: &Acting,
    what: &'static str,
    instance: &str,
    runs: Result<&str, &str>,
) {
    let (outcome, detail) = match runs {
        Ok(release) => (Outcome::Done, release),
        Err(reason) => (Outcome::Failed, reason),
    };
    audit.note(event(acting, what, instance, outcome, detail.to_owned()));
}

fn event(acting: &Acting, what: &'static str, instance: &str, outcome: Outcome, detail: String) -> Event {
    let Acting { who, from } = acting;
    Event { who: who.clone(), what, object: instance.to_owned(), from: from.clone(), outcome, detail }
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
    fn what_somebody_typed_is_never_an_id() {
        for (said, told) in [
            (json!({ "userId": 1, "name": "zoe" }), "user 1"),
            (json!({ "userId": null, "name": "user 1" }), "\"user 1\""),
            (json!({ "name": "shop" }), "\"shop\""),
            (json!({ "name": 1 }), ""),
            (json!({ "instanceId": "shop" }), "shop"),
            (json!({ "instanceId": "user 1" }), "\"user 1\""),
            (json!({ "applicationId": "\"shop" }), "\"\"shop\""),
            (json!({ "instanceId": 1 }), ""),
            (json!("user 1"), ""),
        ] {
            assert_eq!(object(&said), told, "{said}");
        }
    }

    #[test]
    fn what_was_done_is_told_with_the_newest_first() {
        let state = tempfile::tempdir().unwrap();
        let folder = nexushub_chassis::audit::folder(state.path());
        assert_eq!(read(&folder, 9).unwrap(), Vec::<Value>::new());
        let audit = Audit::of(state.path(), "debug-api");
        let acting = |who: &str| Acting { who: who.into(), from: "192.0.2.1".into() };
        note(&audit, &acting("ada"), "instance.restart", "shop", None);
        note(&audit, &acting("ada"), "instance.pause", "shop", Some(&Status::not_found("there is no shop")));
        outcome(&audit, &acting("bob"), "release.install", "shop", Err("it exits at once"));
        drop(audit); // all is written
        let told: Vec<_> = read(&folder, 2)
            .unwrap()
            .iter()
            .map(|entry| {
                ["who", "what", "from", "result", "detail"].map(|key| entry[key].as_str().unwrap().to_owned())
            })
            .collect();
        let first = ["bob", "release.install", "192.0.2.1", "failed", "it exits at once"];
        assert_eq!(told, [first, ["ada", "instance.pause", "192.0.2.1", "failed", "there is no shop"]]);
    }
}
