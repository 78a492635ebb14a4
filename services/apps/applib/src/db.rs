//! An app's database: SQLite in its data folder, owned by one thread that carries out one transaction after another.
//!
//! What a transaction answered is on the disk (`synchronous=FULL`); one that failed, or whose process was killed, never
//! was. Two processes of the app may hold it at once, as they do while a new version takes over.
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nexushub_applib::db::{Db, Error};
//! const STEPS: &[&str] = &["CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"];
//! # let folder = tempfile::tempdir()?;
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let db = Db::open(&folder.path().join("app.sqlite"), STEPS)?;
//! let id = db.run(|tx| {
//!     tx.execute("INSERT INTO note (text) VALUES (?1)", ["milk"])?;
//!     Ok::<_, Error>(tx.last_insert_rowid())
//! }).await?;
//! assert_eq!(id, 1);
//! # Ok::<_, Error>(())
//! # })?;
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, SyncSender, TrySendError},
    thread,
    time::Duration,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::Refusal;

/// Transactions that may wait; one more is refused.
const QUEUE: usize = 1024;
/// How long another process of the app may hold the database.
const BUSY: Duration = Duration::from_secs(5);

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be opened.
    #[error("database {path}: can't be opened")]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        cause: rusqlite::Error,
    },
    /// It was written by a later version of the app.
    #[error("database {path}: its version is {found}, this app knows up to {known}; run the later app again")]
    Later {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// What this app knows.
        known: i64,
    },
    /// Its thread could not be started.
    #[error("database: its thread can't be started")]
    Thread(#[source] io::Error),
    /// Too much waits for it.
    #[error("database: too many transactions wait for it")]
    Busy,
    /// Its thread has ended.
    #[error("database: it is closed")]
    Closed,
    /// A statement failed.
    #[error("database: {0}")]
    Statement(#[from] rusqlite::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Busy => Self::away("this app is busy; try again in a moment"),
            other => Self::broken(&other),
        }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Error::from(error).into()
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the database.
#[derive(Clone, Debug)]
pub struct Db(SyncSender<Job>);

impl Db {
    /// Opens a database, makes it if need be, and brings it up to date: step n takes it from version n to n + 1. Steps are only
    /// ever added at the end.
    ///
    /// # Errors
    /// When it can't be opened or brought up to date; it is then as it was.
    pub fn open(path: &Path, steps: &'static [&'static str]) -> Result<Self, Error> {
        let failed = |cause| Error::Open { path: path.to_owned(), cause };
        let mut connection = Connection::open(path).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        migrate(&mut connection, path, steps)?;
        let (jobs, waiting) = mpsc::sync_channel::<Job>(QUEUE);
        let work = move || waiting.into_iter().for_each(|job| job(&mut connection));
        thread::Builder::new().name("database".into()).spawn(work).map_err(Error::Thread)?;
        Ok(Self(jobs))
    }

    /// Carries out a transaction: done when it answers `Ok`, undone when it answers an error.
    ///
    /// # Errors
    /// The transaction's own, or the database's.
    pub async fn run<T, E, F>(&self, transaction: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(reply.send(carry_out(connection, transaction))));
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Closed,
        })?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

fn carry_out<T, E: From<Error>>(
    connection: &mut Connection,
    transaction: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    // Immediate: one that would find out in its middle that another process writes could only fail then.
    let open = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::from)?;
    let answer = transaction(&open)?;
    open.commit().map_err(Error::from)?;
    Ok(answer)
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "secure_delete", true)
}

fn migrate(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), Error> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let open = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = open.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(Error::Later { path: path.to_owned(), found, known });
    }
    for step in &steps[usize::try_from(found).unwrap_or(0)..] {
        open.execute_batch(step)?;
    }
    open.pragma_update(None, "user_version", known)?;
    Ok(open.commit()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ONE: &[&str] = &["CREATE TABLE note (text TEXT UNIQUE) STRICT"];
    const TWO: &[&str] = &[ONE[0], "ALTER TABLE note ADD COLUMN at INTEGER"];
    const BROKEN: &[&str] = &[ONE[0], TWO[1], "CREATE TABLE other (x) ; nonsense"];

    async fn write(db: &Db, text: &'static str) -> Result<usize, Error> {
        db.run(move |tx| Ok(tx.execute("INSERT INTO note (text) VALUES (?1)", [text])?)).await
    }

    async fn count(db: &Db) -> i64 {
        db.run(|tx| Ok::<_, Error>(tx.query_row("SELECT count(*) FROM note", [], |row| row.get(0))?))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_database_is_brought_up_to_date_and_keeps_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sqlite");
        let old = Db::open(&path, ONE).unwrap();
        write(&old, "a").await.unwrap();
        let new = Db::open(&path, TWO).unwrap();
        assert_eq!(count(&new).await, 1, "while the old one still has it open");
        assert!(matches!(Db::open(&path, ONE), Err(Error::Later { found: 2, known: 1, .. })));
        assert!(Db::open(&path, BROKEN).is_err());
        assert_eq!(count(&Db::open(&path, TWO).unwrap()).await, 1, "a step that failed left nothing behind");
    }

    #[tokio::test]
    async fn what_was_answered_is_on_the_disk_and_two_processes_may_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("x.sqlite"), ONE).unwrap();
        let said = db.run(|tx| {
            let journal: String = tx.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            let synchronous: i64 = tx.pragma_query_value(None, "synchronous", |row| row.get(0))?;
            Ok::<_, Error>((journal, synchronous))
        });
        assert_eq!(said.await.unwrap(), ("wal".to_owned(), 2), "2 is FULL");
    }

    #[tokio::test]
    async fn a_transaction_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("x.sqlite"), TWO).unwrap();
        write(&db, "a").await.unwrap();
        let failed: Result<(), Error> = db
            .run(|tx| {
                tx.execute("INSERT INTO note (text) VALUES ('b')", [])?;
                tx.execute("INSERT INTO note (text) VALUES ('a')", [])?;
                Ok(())
            })
            .await;
        assert!(matches!(failed, Err(Error::Statement(_))));
        assert_eq!(count(&db).await, 1);
    }
}
