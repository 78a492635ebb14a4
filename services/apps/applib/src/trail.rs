//! What an app of the platform has to tell for the platform's audit log: kept in the app's own database, in the transaction that
//! gave the reason, until the platform says that it is in that log.

use std::time::Duration;

use axum::http::Method;
use rusqlite::{Transaction, params};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    calls::{self, Call, Entrance},
    db::{self, Db},
    outbox,
    time::{Unix, rfc3339},
};

/// The step of an app's database that makes room for it.
pub const TABLE: &str = "
CREATE TABLE trail (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, by TEXT NOT NULL, what TEXT NOT NULL, said TEXT NOT NULL,
  address TEXT NOT NULL, refused INTEGER NOT NULL
) STRICT;
";

/// Lines that wait to be told; with one more the oldest is lost, which shows by its number.
const WAITING: i64 = 100_000;
/// Lines that are told at once.
const AT_ONCE: i64 = 100;
/// How long the platform may take to write them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that was done, or refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Unix,
    /// Whose doing it was; empty if nobody's who is known.
    pub by: String,
    /// What, as the app calls it.
    pub what: String,
    /// What else there is to say, and to what it was done.
    pub said: Value,
    /// The address that it was asked from; empty if that is not known.
    pub from: String,
    /// Whether it was refused.
    pub refused: bool,
}

/// Why nothing could be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform did not take it.
    #[error(transparent)]
    Call(#[from] calls::Error),
    /// It could not be read, or not be taken out.
    #[error(transparent)]
    Kept(#[from] db::Error),
}

/// Keeps a line, as a part of the transaction.
///
/// # Errors
/// The database's.
pub fn add(tx: &Transaction<'_>, line: &Line) -> Result<(), rusqlite::Error> {
    let Line { at, by, what, said, from, refused } = line;
    let insert = "INSERT INTO trail (at, by, what, said, address, refused) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    tx.prepare_cached(insert)?.execute(params![at, by, what, said.to_string(), from, refused])?;
    let surplus = "DELETE FROM trail WHERE id <= ?1";
    tx.prepare_cached(surplus)?.execute([tx.last_insert_rowid() - WAITING]).map(drop)
}

/// Tells the platform for ever, at once when there is `news`.
pub async fn deliver(db: &Db, entrance: &Entrance, news: &Notify) {
    outbox::deliver("the platform's audit log was not told", news, || round(db, entrance)).await;
}

/// Tells what is left, when the app ends: until nothing is, or the platform does not take it. Whoever told until now has ended; what
/// was on its way then may be told twice, which shows by its number.
pub async fn rest(db: &Db, entrance: &Entrance) {
    while matches!(round(db, entrance).await, Ok(true)) {}
}

/// The line that waits longest, if any does.
///
/// # Errors
/// The database's.
pub fn waiting(tx: &Transaction<'_>) -> Result<Option<i64>, rusqlite::Error> {
    tx.query_row("SELECT min(id) FROM trail", [], |row| row.get(0))
}

/// Tells the oldest lines; false when there were none.
///
/// # Errors
/// When they are still to be told.
pub async fn round(db: &Db, entrance: &Entrance) -> Result<bool, Error> {
    let lines = db.run(|tx| Ok::<_, db::Error>(oldest(tx)?)).await?;
    let Some(last) = lines.last().map(|(id, _)| *id) else { return Ok(false) };
    let changes: Vec<Value> = lines.into_iter().map(|(id, line)| wire(id, line)).collect();
    let call = Call::new(None, Method::POST, "/internal/platform/audit");
    entrance.call(call.json(&json!({ "changes": changes })).patience(PATIENCE)).await?;
    db.run(move |tx| Ok::<_, db::Error>(tx.execute("DELETE FROM trail WHERE id <= ?1", [last])?)).await?;
    Ok(true)
}

fn wire(id: i64, line: Line) -> Value {
    let Line { at, by, what, said, from, refused } = line;
    json!({ "id": id, "at": rfc3339(at), "by": by, "what": what, "said": said, "from": from, "refused": refused })
}

fn oldest(tx: &Transaction<'_>) -> Result<Vec<(i64, Line)>, rusqlite::Error> {
    let query = "SELECT id, at, by, what, said, address, refused FROM trail ORDER BY id LIMIT ?1";
    let mut query = tx.prepare_cached(query)?;
    let lines = query.query_map([AT_ONCE], |row| {
        let said = serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default();
        let (from, refused) = (row.get(5)?, row.get(6)?);
        let line = Line { at: row.get(1)?, by: row.get(2)?, what: row.get(3)?, said, from, refused };
        Ok((row.get(0)?, line))
    })?;
    lines.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use axum::{Json, Router, http::StatusCode, routing::post};

    use super::*;

    /// A platform that refuses the first time; what it was told each time.
    async fn platform() -> (Entrance, Arc<Mutex<Vec<Value>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let take = post(async move |Json(changes): Json<Value>| {
            let mut heard = heard.lock().unwrap();
            heard.push(changes["changes"].clone());
            if heard.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = Router::new().route("/internal/platform/audit", take);
        tokio::spawn(async { axum::serve(listener, routes).await });
        (Entrance::played_by(port, "s"), told)
    }

    fn line(what: &str) -> Line {
        let (by, from, said) = ("zoe".into(), "192.0.2.1".into(), json!({ "x": 1 }));
        Line { at: 1_700_000_000, by, what: what.into(), said, from, refused: what == "no" }
    }

    async fn database(folder: &tempfile::TempDir) -> Db {
        let db = Db::open(&folder.path().join("x.sqlite"), &[TABLE]).unwrap();
        let lines = |tx: &Transaction<'_>| {
            for number in 0..=AT_ONCE {
                add(tx, &line(if number == 0 { "no" } else { "yes" }))?;
            }
            Ok::<_, db::Error>(())
        };
        db.run(lines).await.unwrap();
        db
    }

    #[tokio::test]
    async fn what_was_not_heard_is_told_again_and_what_was_heard_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (db, (entrance, told)) = (database(&folder).await, platform().await);
        assert!(round(&db, &entrance).await.is_err());
        let mut rounds = Vec::new();
        for _ in 0..3 {
            rounds.push(round(&db, &entrance).await.unwrap());
        }
        assert_eq!(rounds, [true, true, false]);
        let told = told.lock().unwrap();
        assert_eq!(
            told.iter().map(|lines| lines.as_array().unwrap().len()).collect::<Vec<_>>(),
            [100, 100, 1]
        );
        assert_eq!(
            told[1][0],
            json!({ "id": 1, "at": "2023-11-14T22:13:20Z", "by": "zoe", "what": "no", "said": { "x": 1 },
                "from": "192.0.2.1", "refused": true })
        );
        assert_eq!((&told[2][0]["id"], &told[2][0]["refused"]), (&json!(101), &json!(false)));
    }

    #[tokio::test]
    async fn at_the_end_all_is_told_and_nobody_is_waited_for_who_does_not_take_it() {
        let folder = tempfile::tempdir().unwrap();
        let (db, (entrance, told)) = (database(&folder).await, platform().await);
        let waits = async || {
            let waits = db.run(|tx| Ok::<_, db::Error>(waiting(tx)?)).await.unwrap();
            (told.lock().unwrap().len(), waits)
        };
        rest(&db, &entrance).await;
        assert_eq!(waits().await, (1, Some(1)), "it was refused, and is kept");
        rest(&db, &entrance).await;
        assert_eq!(waits().await, (3, None));
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        let left = db.run(|tx| {
            tx.execute("UPDATE sqlite_sequence SET seq = ?1", [WAITING + 3])?;
            add(tx, &line("last"))?;
            Ok::<_, db::Error>(oldest(tx)?.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        });
        let left = left.await.unwrap();
        assert_eq!((left[0], left.len()), (5, 98), "four went, and one came");
    }
}
