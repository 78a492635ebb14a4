//! What admin keeps: applications, users, rules, and the events by which they came about. Every function is a part of one
//! transaction.

use std::collections::BTreeSet;

pub(crate) use nexushub_applib::wellknown::{ADMIN, LOGIN};
use nexushub_applib::{
    time::{Unix, rfc3339},
    trail::{self, Line},
};
use rusqlite::{OptionalExtension, Row, Transaction, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    rules::{Rule, RuleType, SubjectType, admitted, granted},
    terms::Terms,
};

pub(crate) type Result<T> = std::result::Result<T, rusqlite::Error>;

/// The database, step by step. Events are kept as the record of who did what; passwords are not among it.
pub(crate) const STEPS: &[&str] = &["
CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT, cid TEXT NOT NULL UNIQUE, what TEXT NOT NULL, at INTEGER NOT NULL,
  by TEXT NOT NULL, said TEXT NOT NULL
) STRICT;
CREATE TABLE application (
  instance_id TEXT PRIMARY KEY, app_id TEXT NOT NULL, display_name TEXT NOT NULL, host_name TEXT NOT NULL UNIQUE,
  sign_in INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE user (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, folded TEXT NOT NULL UNIQUE, hash TEXT NOT NULL,
  since INTEGER NOT NULL
) STRICT;
CREATE TABLE rule (
  id INTEGER PRIMARY KEY AUTOINCREMENT, application_id TEXT NOT NULL, rule_type TEXT NOT NULL, subject_type TEXT NOT NULL,
  subject_id INTEGER NOT NULL, at INTEGER NOT NULL,
  UNIQUE (application_id, rule_type, subject_type, subject_id)
) STRICT;
INSERT INTO event (cid, what, at, by, said) VALUES ('init', 'Init', 0, '', '{}');
INSERT INTO application (instance_id, app_id, display_name, host_name)
  VALUES ('3bf3e3c0-6e51-482a-b180-00f6aa568ee9', 'login', 'Login', 'login');
INSERT INTO application (instance_id, app_id, display_name, host_name)
  VALUES ('18736e4f-93f9-4606-a7be-863c7986ea5b', 'admin', 'Admin', 'admin');
CREATE TABLE revocation (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL) STRICT;
", "
CREATE TABLE told (event INTEGER NOT NULL) STRICT;
INSERT INTO told (event) VALUES (1);
", "
DELETE FROM revocation WHERE id NOT IN (SELECT max(id) FROM revocation GROUP BY user_id);
CREATE UNIQUE INDEX revocation_user ON revocation (user_id);
CREATE INDEX event_reset ON event (id) WHERE what = 'ResetAdministrator';
", trail::TABLE, "
INSERT INTO trail (id, at, by, what, said, address, refused)
  SELECT id, at, by, what, said, '', 0 FROM event WHERE id > (SELECT event FROM told);
DELETE FROM sqlite_sequence WHERE name = 'trail';
INSERT INTO sqlite_sequence (name, seq) SELECT 'trail', max(id) FROM event;
DROP TABLE told;
", "
ALTER TABLE application ADD COLUMN terms TEXT NOT NULL DEFAULT '{}';
"];

/// Lines of the record; with one more the oldest goes, and a client's id that was in it counts as new. Besides these stays the last
/// reset of the administrator, which would be carried out again.
const EVENTS: i64 = 100_000;
/// Users whose end of sessions may wait while login is away, counted as users however often it was asked for; of more the one who
/// waited longest is forgotten. There are fewer users than that, and what the rules refuse is refused in any case.
const REVOCATIONS: i64 = 100_000;

/// An application instance that should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Application {
    pub instance_id: String,
    pub app_id: String,
    pub display_name: String,
    pub host_name: String,
    /// It is for people who are signed in and may open it.
    pub sign_in: bool,
    #[serde(flatten)]
    pub terms: Terms,
}

impl Application {
    /// Whether it belongs to the platform, and can be neither changed nor removed.
    pub(crate) fn is_own(&self) -> bool {
        [LOGIN, ADMIN].contains(&self.instance_id.as_str())
    }
}

/// Somebody who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub id: i64,
    pub name: String,
    pub since: Unix,
}

/// A line of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub id: i64,
    pub what: String,
    pub at: Unix,
    pub by: String,
    pub said: String,
}

/// Keeps that every session of a user is to end, until login has heard it: once for a user, under the newest number, so that
/// what is asked while login is being told is told again.
pub(crate) fn revoke(tx: &Transaction<'_>, user: i64) -> Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO revocation (user_id) VALUES (?1)")?.execute([user])?;
    let surplus =
        "DELETE FROM revocation WHERE id IN (SELECT id FROM revocation ORDER BY id DESC LIMIT -1 OFFSET ?1)";
    tx.prepare_cached(surplus)?.execute([REVOCATIONS]).map(drop)
}

/// The user who has waited longest for that, and under which number.
pub(crate) fn next_revocation(tx: &Transaction<'_>) -> Result<Option<(i64, i64)>> {
    let query = "SELECT id, user_id FROM revocation ORDER BY id LIMIT 1";
    tx.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Login has heard it.
pub(crate) fn revoked(tx: &Transaction<'_>, number: i64) -> Result<()> {
    tx.execute("DELETE FROM revocation WHERE id = ?1", [number]).map(drop)
}

fn word<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> Result<T> {
    parsed(at, &serde_json::Value::String(row.get(at)?).to_string())
}

fn parsed<T: DeserializeOwned>(at: usize, json: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error.into()))
}

/// A word as it is kept.
pub(crate) fn kept(word: impl Serialize) -> String {
    serde_json::to_value(word).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Every application, by instance id.
pub(crate) fn applications(tx: &Transaction<'_>) -> Result<Vec<Application>> {
    let mut query = tx.prepare_cached(
        "SELECT instance_id, app_id, display_name, host_name, sign_in, terms FROM application ORDER BY 1",
    )?;
    query.query_map([], application)?.collect()
}

fn application(row: &Row<'_>) -> Result<Application> {
    Ok(Application {
        instance_id: row.get(0)?,
        app_id: row.get(1)?,
        display_name: row.get(2)?,
        host_name: row.get(3)?,
        sign_in: row.get(4)?,
        terms: parsed(5, &row.get::<_, String>(5)?)?,
    })
}

/// One application.
pub(crate) fn application_of(tx: &Transaction<'_>, id: &str) -> Result<Option<Application>> {
    let query = "SELECT instance_id, app_id, display_name, host_name, sign_in, terms FROM application WHERE instance_id = ?1";
    tx.query_row(query, [id], application).optional()
}

/// Keeps an application, a new one or one that there is.
pub(crate) fn put_application(tx: &Transaction<'_>, app: &Application) -> Result<()> {
    let put = "INSERT INTO application (instance_id, app_id, display_name, host_name, sign_in, terms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
               ON CONFLICT (instance_id) DO UPDATE SET app_id = ?2, display_name = ?3, host_name = ?4, sign_in = ?5, terms = ?6";
    let Application { instance_id, app_id, display_name, host_name, sign_in, terms } = app;
    let terms = serde_json::json!(terms).to_string();
    tx.execute(put, params![instance_id, app_id, display_name, host_name, sign_in, terms]).map(drop)
}

/// Bytes of the terms of all applications.
pub(crate) fn terms_bytes(tx: &Transaction<'_>) -> Result<i64> {
    tx.query_row("SELECT coalesce(sum(octet_length(terms)), 0) FROM application", [], |row| row.get(0))
}

/// Every user, by name.
pub(crate) fn users(tx: &Transaction<'_>) -> Result<Vec<User>> {
    let mut query = tx.prepare_cached("SELECT id, name, since FROM user ORDER BY folded")?;
    query.query_map([], |row| Ok(User { id: row.get(0)?, name: row.get(1)?, since: row.get(2)? }))?.collect()
}

/// A user and the hash of their password, by name.
pub(crate) fn user_named(tx: &Transaction<'_>, name: &str) -> Result<Option<(User, String)>> {
    user_where(tx, "folded = ?1", fold(name))
}

/// The same by id.
pub(crate) fn user_of(tx: &Transaction<'_>, id: i64) -> Result<Option<(User, String)>> {
    user_where(tx, "id = ?1", id)
}

fn user_where(
    tx: &Transaction<'_>,
    which: &str,
    key: impl rusqlite::ToSql,
) -> Result<Option<(User, String)>> {
    let query = format!("SELECT id, name, since, hash FROM user WHERE {which}");
    let read =
        |row: &Row<'_>| Ok((User { id: row.get(0)?, name: row.get(1)?, since: row.get(2)? }, row.get(3)?));
    tx.query_row(&query, [key], read).optional()
}

/// A name as it is compared.
pub(crate) fn fold(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Adds a user.
pub(crate) fn add_user(tx: &Transaction<'_>, name: &str, hash: &str, at: Unix) -> Result<i64> {
    let insert = "INSERT INTO user (name, folded, hash, since) VALUES (?1, ?2, ?3, ?4)";
    tx.execute(insert, params![name, fold(name), hash, at])?;
    Ok(tx.last_insert_rowid())
}

/// Gives a user another password; false when there is no such user.
pub(crate) fn set_hash(tx: &Transaction<'_>, user: i64, hash: &str) -> Result<bool> {
    Ok(tx.execute("UPDATE user SET hash = ?2 WHERE id = ?1", params![user, hash])? > 0)
}

/// The rules, of one application or of all.
pub(crate) fn rules(tx: &Transaction<'_>, app: Option<&str>) -> Result<Vec<Rule>> {
    let query = "SELECT id, application_id, rule_type, subject_type, subject_id, at FROM rule \
                 WHERE ?1 IS NULL OR application_id = ?1 ORDER BY id";
    let mut query = tx.prepare_cached(query)?;
    let read = |row: &Row<'_>| {
        Ok(Rule {
            id: row.get(0)?,
            application_id: row.get(1)?,
            rule_type: word(row, 2)?,
            subject_type: word(row, 3)?,
            subject_id: row.get(4)?,
            created_at: rfc3339(row.get(5)?),
        })
    };
    query.query_map([app], read)?.collect()
}

/// The application that a rule is about.
pub(crate) fn application_ruled(tx: &Transaction<'_>, rule: i64) -> Result<Option<String>> {
    tx.query_row("SELECT application_id FROM rule WHERE id = ?1", [rule], |row| row.get(0)).optional()
}

/// Whether a user, who exists, may open an application: what [`who_may`] says of all.
pub(crate) fn may_open(tx: &Transaction<'_>, user: i64, app: &str) -> Result<bool> {
    let said = |app: &str| Ok::<_, rusqlite::Error>(granted(&rules(tx, Some(app))?.iter(), user));
    Ok(user_of(tx, user)?.is_some()
        && match said(app)? {
            None if is_elsewhere(tx, app)? => said(ADMIN)?.unwrap_or(false),
            said => said.unwrap_or(false),
        })
}

/// Everybody who may open an application; of one that is not kept here administrators, unless its rules say otherwise of them.
pub(crate) fn who_may(tx: &Transaction<'_>, app: &str) -> Result<BTreeSet<i64>> {
    let otherwise = if is_elsewhere(tx, app)? { administrators(tx)? } else { BTreeSet::new() };
    admitted_to(tx, app, &otherwise)
}

/// Whether an application is nobody's of these: one that a developer pushed, or the configuration's.
fn is_elsewhere(tx: &Transaction<'_>, app: &str) -> Result<bool> {
    Ok(application_of(tx, app)?.is_none())
}

/// Whoever may open this app.
pub(crate) fn administrators(tx: &Transaction<'_>) -> Result<BTreeSet<i64>> {
    admitted_to(tx, ADMIN, &BTreeSet::new())
}

fn admitted_to(tx: &Transaction<'_>, app: &str, otherwise: &BTreeSet<i64>) -> Result<BTreeSet<i64>> {
    let users = users(tx)?;
    Ok(admitted(rules(tx, Some(app))?.iter(), users.iter().map(|user| user.id), otherwise))
}

/// Lets a user open login and admin, whatever was said of that before.
pub(crate) fn make_administrator(tx: &Transaction<'_>, user: i64, at: Unix) -> Result<()> {
    let (may, subject) = (kept(RuleType::Accept), kept(SubjectType::User));
    for app in [LOGIN, ADMIN] {
        let said = "DELETE FROM rule WHERE application_id = ?1 AND subject_type = ?2 AND subject_id = ?3";
        tx.execute(said, params![app, subject, user])?;
        let insert = "INSERT INTO rule (application_id, rule_type, subject_type, subject_id, at) VALUES (?1, ?2, ?3, ?4, ?5)";
        tx.execute(insert, params![app, may, subject, user, at])?;
    }
    Ok(())
}

/// The number of the last event.
pub(crate) fn last_event(tx: &Transaction<'_>) -> Result<i64> {
    tx.query_row("SELECT max(id) FROM event", [], |row| row.get(0))
}

/// The event that a client sent under this id of its own.
pub(crate) fn event_by(tx: &Transaction<'_>, cid: &str) -> Result<Option<i64>> {
    tx.query_row("SELECT id FROM event WHERE cid = ?1", [cid], |row| row.get(0)).optional()
}

/// Writes a line of the record, of which the platform is told; `from` is the address that it was asked from.
pub(crate) fn record(tx: &Transaction<'_>, cid: &str, event: &Event, from: &str) -> Result<i64> {
    let insert = "INSERT INTO event (cid, what, at, by, said) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.execute(insert, params![cid, event.what, event.at, event.by, event.said])?;
    let id = tx.last_insert_rowid();
    let surplus = "DELETE FROM event WHERE id <= ?1 \
                   AND id <> coalesce((SELECT max(id) FROM event WHERE what = 'ResetAdministrator'), 0)";
    tx.prepare_cached(surplus)?.execute([id - EVENTS])?;
    let Event { at, by, what, said, .. } = event.clone();
    let (said, from) = (serde_json::from_str(&said).unwrap_or_default(), from.to_owned());
    trail::add(tx, &Line { at, by, what, said, from, refused: false })?;
    Ok(id)
}

/// The last lines of the record, the newest first.
pub(crate) fn events(tx: &Transaction<'_>, lines: i64) -> Result<Vec<Event>> {
    let mut query =
        tx.prepare_cached("SELECT id, what, at, by, said FROM event ORDER BY id DESC LIMIT ?1")?;
    query.query_map([lines], event)?.collect()
}

fn event(row: &Row<'_>) -> Result<Event> {
    Ok(Event { id: row.get(0)?, what: row.get(1)?, at: row.get(2)?, by: row.get(3)?, said: row.get(4)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::Connection;

    use super::*;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&STEPS.concat()).unwrap();
        connection
    }

    fn count(tx: &Transaction<'_>, table: &str) -> i64 {
        tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    fn event(tx: &Transaction<'_>, cid: &str, what: &str) -> i64 {
        let event = Event { id: 0, what: what.into(), at: 0, by: "admin".into(), said: "{}".into() };
        record(tx, cid, &event, "").unwrap()
    }

    /// As after so many events more.
    fn pass(tx: &Transaction<'_>, events: i64) {
        tx.execute("UPDATE sqlite_sequence SET seq = seq + ?1 WHERE name = 'event'", [events]).unwrap();
    }

    #[test]
    fn the_record_is_bounded_and_keeps_what_is_still_needed() {
        let mut database = database();
        let tx = &database.transaction().unwrap();
        event(tx, "reset-1", "ResetAdministrator");
        event(tx, "reset-2", "ResetAdministrator");
        event(tx, "old", "AddUser");
        let young = event(tx, "young", "AddUser");
        pass(tx, EVENTS - 2);
        event(tx, "after", "AddUser");
        assert_eq!(event_by(tx, "young").unwrap(), Some(young));
        let last = event(tx, "last", "AddUser");
        for (cid, kept) in [
            ("init", false),
            ("reset-1", false),
            ("reset-2", true),
            ("old", false),
            ("young", false),
            ("after", true),
        ] {
            assert_eq!(event_by(tx, cid).unwrap().is_some(), kept, "{cid}");
        }
        assert_eq!(last_event(tx).unwrap(), last);
    }

    #[test]
    fn whose_sessions_end_waits_once_and_not_without_end() {
        let mut database = database();
        let tx = &database.transaction().unwrap();
        for user in [1, 2, 1] {
            revoke(tx, user).unwrap();
        }
        assert_eq!((count(tx, "revocation"), next_revocation(tx).unwrap()), (2, Some((2, 2))));
        revoke(tx, 2).unwrap();
        revoked(tx, 2).unwrap();
        assert_eq!(count(tx, "revocation"), 2, "asked again while login was told of it");
        tx.execute("UPDATE sqlite_sequence SET seq = seq + ?1 WHERE name = 'revocation'", [REVOCATIONS])
            .unwrap();
        revoke(tx, 3).unwrap();
        assert_eq!(
            next_revocation(tx).unwrap().unwrap().1,
            1,
            "asked for ever so often, they are three users"
        );
        let many = "INSERT INTO revocation (user_id) WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n LIMIT ?1) SELECT i FROM n";
        tx.execute(many, [REVOCATIONS - 2]).unwrap();
        revoke(tx, 4).unwrap();
        assert_eq!(count(tx, "revocation"), REVOCATIONS);
        assert_eq!(next_revocation(tx).unwrap().unwrap().1, 3, "who waited longest is forgotten");
    }

    #[test]
    fn what_the_platform_had_not_heard_of_before_it_is_told_under_its_number() {
        let mut database = Connection::open_in_memory().unwrap();
        database.execute_batch(&STEPS[..2].concat()).unwrap();
        let add = "INSERT INTO event (cid, what, at, by, said) VALUES (?1, 'AddUser', 0, 'admin', '{}')";
        for cid in ["told", "not yet"] {
            database.execute(add, [cid]).unwrap();
        }
        database.execute_batch("UPDATE told SET event = 2").unwrap();
        database.execute_batch(&STEPS[2..].concat()).unwrap();
        let tx = &database.transaction().unwrap();
        event(tx, "new", "AddUser");
        let ids: Vec<i64> = tx
            .prepare("SELECT id FROM trail")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(ids, [3, 4]);
    }

    #[test]
    fn who_waited_twice_before_waits_once() {
        let mut database = Connection::open_in_memory().unwrap();
        database.execute_batch(&STEPS[..2].concat()).unwrap();
        database.execute_batch("INSERT INTO revocation (user_id) VALUES (1), (2), (1)").unwrap();
        database.execute_batch(STEPS[2]).unwrap();
        assert_eq!(next_revocation(&database.transaction().unwrap()).unwrap(), Some((2, 2)));
    }
}
