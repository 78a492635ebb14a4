//! What login keeps: sessions, their families of refresh tokens, codes that wait to be redeemed, the audit trail, and what
//! the proxy has yet to be told. Every function is a part of one transaction; the clock is the caller's.

pub(crate) mod departures;

use nexushub_applib::{
    text::{digest, random},
    time::Unix,
    trail::{self, Line},
};
use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::json;

use crate::family::{self, Family, LIFE, Verdict};

pub(crate) type Result<T> = std::result::Result<T, rusqlite::Error>;

/// The database, step by step.
pub(crate) const STEPS: &[&str] = &["
CREATE TABLE session (
  id TEXT PRIMARY KEY, user_id INTEGER NOT NULL, user_name TEXT NOT NULL,
  began INTEGER NOT NULL, seen INTEGER NOT NULL, address TEXT NOT NULL, agent TEXT NOT NULL
) STRICT;
CREATE INDEX session_user ON session (user_id);
CREATE TABLE family (
  id INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
  app TEXT, newest INTEGER NOT NULL, since INTEGER NOT NULL, expires INTEGER NOT NULL
) STRICT;
CREATE INDEX family_session ON family (session);
CREATE TABLE token (
  digest BLOB PRIMARY KEY, family INTEGER NOT NULL REFERENCES family (id) ON DELETE CASCADE, generation INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX token_family ON token (family, generation);
CREATE TABLE code (
  digest BLOB PRIMARY KEY, session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
  app TEXT NOT NULL, state TEXT NOT NULL, expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, what TEXT NOT NULL, user_id INTEGER, user_name TEXT NOT NULL,
  address TEXT NOT NULL, app TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_user ON audit (user_id, id);
CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL) STRICT;
", "
CREATE TABLE departure (
  digest BLOB PRIMARY KEY, browser BLOB NOT NULL, network TEXT NOT NULL, nonce TEXT NOT NULL, verifier TEXT NOT NULL,
  app TEXT NOT NULL, app_state TEXT NOT NULL, app_name TEXT NOT NULL, expires INTEGER NOT NULL
) STRICT;
CREATE INDEX departure_network ON departure (network);
CREATE INDEX departure_expires ON departure (expires);
", trail::TABLE];

/// Seconds that a code may be redeemed for.
const CODE_LIFE: Unix = 60;
/// Sessions of one user; with one more the one longest unseen ends.
const SESSIONS: i64 = 100;
/// Generations of a family whose tokens are still known; an older one is unknown, which is as useless.
const GENERATIONS: i64 = 500;
/// Families of one session for one app: of a browser whose cookies were lost, say. The oldest go.
const FAMILIES: i64 = 20;
/// Tokens of one generation of a family besides the newest: of tabs that asked at once.
const TWINS: i64 = 8;
/// Lines of the audit trail.
const AUDIT: i64 = 100_000;

/// What the audit trail says of a refusal for that.
pub(crate) const WRONG: &str = "wrong name or password";

/// Somebody who proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub id: i64,
    pub name: String,
}

/// Where a request came from, as far as it can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub address: String,
    pub agent: String,
}

/// When something is asked, and from which address, as far as that can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub at: Unix,
    pub from: String,
}

/// A session, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub id: String,
    pub person: Person,
    pub began: Unix,
    pub seen: Unix,
    pub origin: Origin,
}

/// A fresh refresh token and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub token: String,
    pub expires: Unix,
    pub session: String,
    pub person: Person,
}

/// Why a token or a code is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worthless {
    Unknown,
    Expired,
    Reused,
}

impl Worthless {
    /// The word for it on the wire.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Reused => "reused",
        }
    }
}

/// A line of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub at: Unix,
    pub what: String,
    pub user: Option<i64>,
    pub name: String,
    pub address: String,
    pub app: String,
    pub detail: String,
}

/// Begins a session; its first family is good for any app.
pub(crate) fn begin(tx: &Transaction<'_>, person: &Person, origin: &Origin, now: Unix) -> Result<Granted> {
    sweep(tx, now)?;
    let id = uuid::Uuid::new_v4().to_string();
    tx.execute(
        "INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?4, ?5, ?6)",
        params![id, person.id, person.name, now, origin.address, origin.agent],
    )?;
    let surplus =
        "SELECT id FROM session WHERE user_id = ?1 ORDER BY seen DESC, began DESC LIMIT -1 OFFSET ?2";
    let surplus: Vec<String> = tx
        .prepare_cached(surplus)?
        .query_map(params![person.id, SESSIONS], |row| row.get(0))?
        .collect::<Result<_>>()?;
    for session in surplus {
        end(tx, &session)?;
    }
    found(tx, &id, None, now)
}

/// Makes a family of a session, for one app or for any.
pub(crate) fn found(tx: &Transaction<'_>, session: &str, app: Option<&str>, now: Unix) -> Result<Granted> {
    let expires = now + LIFE;
    let columns = "INSERT INTO family (session, app, newest, since, expires) VALUES (?1, ?2, 0, ?3, ?4)";
    tx.execute(columns, params![session, app, now, expires])?;
    let token = give(tx, tx.last_insert_rowid(), 0)?;
    let surplus = "DELETE FROM family WHERE id IN (SELECT id FROM family WHERE session = ?1 AND app IS ?2 ORDER BY id DESC \
                   LIMIT -1 OFFSET ?3)";
    tx.execute(surplus, params![session, app, FAMILIES])?;
    let (id, name) =
        tx.query_row("SELECT user_id, user_name FROM session WHERE id = ?1", [session], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(Granted { token, expires, session: session.to_owned(), person: Person { id, name } })
}

fn give(tx: &Transaction<'_>, family: i64, generation: i64) -> Result<String> {
    let token = random();
    tx.execute("INSERT INTO token VALUES (?1, ?2, ?3)", params![digest(&token), family, generation])?;
    let old = "DELETE FROM token WHERE family = ?1 AND generation < ?2";
    tx.execute(old, params![family, generation - GENERATIONS])?;
    let surplus = "DELETE FROM token WHERE digest IN (SELECT digest FROM token WHERE family = ?1 AND generation = ?2 \
                   AND digest <> ?3 LIMIT -1 OFFSET ?4)";
    tx.execute(surplus, params![family, generation, digest(&token), TWINS])?;
    Ok(token)
}

/// A token that was found good, and what it is of.
#[derive(Debug)]
struct Held {
    family: i64,
    app: Option<String>,
    next: i64,
    state: Family,
    session: Session,
}

fn hold(tx: &Transaction<'_>, token: &str, asked: &Asked) -> Result<std::result::Result<Held, Worthless>> {
    let query = "SELECT t.generation, f.id, f.app, f.newest, f.since, f.expires, s.id, s.user_id, s.user_name, s.began, s.seen, \
                 s.address, s.agent FROM token t JOIN family f ON f.id = t.family JOIN session s ON s.id = f.session \
                 WHERE t.digest = ?1";
    let found = tx.prepare_cached(query)?.query_row([digest(token)], |row| {
        let state = Family { newest: row.get(3)?, since: row.get(4)?, expires: row.get(5)? };
        let origin = Origin { address: row.get(11)?, agent: row.get(12)? };
        let person = Person { id: row.get(7)?, name: row.get(8)? };
        let session = Session { id: row.get(6)?, person, began: row.get(9)?, seen: row.get(10)?, origin };
        Ok((row.get(0)?, Held { family: row.get(1)?, app: row.get(2)?, next: 0, state, session }))
    });
    let Some((generation, held)) = found.optional()? else { return Ok(Err(Worthless::Unknown)) };
    Ok(match family::judge(generation, &held.state, asked.at) {
        Verdict::Next(next) => Ok(Held { next, ..held }),
        Verdict::Expired => Err(Worthless::Expired),
        Verdict::Reused => {
            end(tx, &held.session.id)?; // access tokens say of which session they are, not of which family
            let Person { id, name } = held.session.person;
            let app = held.app.unwrap_or_default();
            let detail = "a token that another had followed was used: its session is over".to_owned();
            let Asked { at, from: address } = asked.clone();
            audit(tx, &Entry { at, what: "reuse".into(), user: Some(id), name, address, app, detail })?;
            Err(Worthless::Reused)
        }
    })
}

/// Whose token it is, without using it; for an app, only one that is good for that app.
pub(crate) fn look(
    tx: &Transaction<'_>,
    token: &str,
    app: Option<&str>,
    asked: &Asked,
) -> Result<std::result::Result<Session, Worthless>> {
    let held = hold(tx, token, asked)?;
    Ok(held.and_then(|held| fits(&held, app).then_some(held.session).ok_or(Worthless::Unknown)))
}

/// Whose token it is, whatever app it is for.
pub(crate) fn holder(
    tx: &Transaction<'_>,
    token: &str,
    asked: &Asked,
) -> Result<std::result::Result<Session, Worthless>> {
    Ok(hold(tx, token, asked)?.map(|held| held.session))
}

fn fits(held: &Held, app: Option<&str>) -> bool {
    held.app.is_none() || held.app.as_deref() == app
}

/// Uses a token: what it is followed by.
pub(crate) fn rotate(
    tx: &Transaction<'_>,
    token: &str,
    app: Option<&str>,
    asked: &Asked,
) -> Result<std::result::Result<Granted, Worthless>> {
    let held = match hold(tx, token, asked)? {
        Ok(held) if fits(&held, app) => held,
        Ok(_) => return Ok(Err(Worthless::Unknown)),
        Err(worthless) => return Ok(Err(worthless)),
    };
    let state = held.state.after(held.next, asked.at);
    tx.execute(
        "UPDATE family SET newest = ?2, since = ?3, expires = ?4 WHERE id = ?1",
        params![held.family, state.newest, state.since, state.expires],
    )?;
    tx.execute("UPDATE session SET seen = ?2 WHERE id = ?1", params![held.session.id, asked.at])?;
    let token = give(tx, held.family, held.next)?;
    let Session { id: session, person, .. } = held.session;
    Ok(Ok(Granted { token, expires: state.expires, session, person }))
}

/// Ends a session; the proxy has to be told.
pub(crate) fn end(tx: &Transaction<'_>, session: &str) -> Result<bool> {
    let ended = tx.execute("DELETE FROM session WHERE id = ?1", [session])? > 0;
    if ended {
        tx.execute("INSERT INTO outbox (session) VALUES (?1)", [session])?;
    }
    Ok(ended)
}

/// Ends all sessions of a user but one; which those were.
pub(crate) fn end_all(tx: &Transaction<'_>, user: i64, but: Option<&str>) -> Result<Vec<String>> {
    let ids: Vec<String> = sessions(tx, user)?.into_iter().map(|session| session.id).collect();
    let ids: Vec<String> = ids.into_iter().filter(|id| Some(id.as_str()) != but).collect();
    for id in &ids {
        end(tx, id)?;
    }
    Ok(ids)
}

/// A user's sessions, the last seen first.
pub(crate) fn sessions(tx: &Transaction<'_>, user: i64) -> Result<Vec<Session>> {
    let query = "SELECT id, user_id, user_name, began, seen, address, agent FROM session WHERE user_id = ?1 ORDER BY seen DESC, began DESC";
    let mut query = tx.prepare_cached(query)?;
    let rows = query.query_map([user], |row| {
        let person = Person { id: row.get(1)?, name: row.get(2)? };
        let origin = Origin { address: row.get(5)?, agent: row.get(6)? };
        Ok(Session { id: row.get(0)?, person, began: row.get(3)?, seen: row.get(4)?, origin })
    })?;
    rows.collect()
}

/// Makes a code by which an app gets a family of its own; `state` says for which browser.
pub(crate) fn issue(
    tx: &Transaction<'_>,
    session: &str,
    app: &str,
    state: &str,
    now: Unix,
) -> Result<String> {
    let code = random();
    tx.execute("DELETE FROM code WHERE expires <= ?1", [now])?;
    tx.execute(
        "INSERT INTO code VALUES (?1, ?2, ?3, ?4, ?5)",
        params![digest(&code), session, app, state, now + CODE_LIFE],
    )?;
    Ok(code)
}

/// Takes a code; whatever comes of it, it is gone.
pub(crate) fn take(
    tx: &Transaction<'_>,
    code: &str,
    app: &str,
    state: &str,
    now: Unix,
) -> Result<std::result::Result<(String, Person), Worthless>> {
    let query = "SELECT c.session, c.app, c.state, c.expires, s.user_id, s.user_name FROM code c JOIN session s ON s.id = c.session \
                 WHERE c.digest = ?1";
    let found = tx.query_row(query, [digest(code)], |row| {
        let (for_app, for_state): (String, String) = (row.get(1)?, row.get(2)?);
        let expires: Unix = row.get(3)?;
        Ok((
            row.get(0)?,
            Person { id: row.get(4)?, name: row.get(5)? },
            for_app == app && for_state == state,
            expires,
        ))
    });
    let found = found.optional()?;
    tx.execute("DELETE FROM code WHERE digest = ?1 OR expires <= ?2", params![digest(code), now])?;
    Ok(match found {
        Some((session, person, true, expires)) if expires > now => Ok((session, person)),
        Some((_, _, true, _)) => Err(Worthless::Expired),
        _ => Err(Worthless::Unknown),
    })
}

/// Writes a line of the audit trail, and has the platform told what it does not note itself.
pub(crate) fn audit(tx: &Transaction<'_>, entry: &Entry) -> Result<()> {
    note(tx, entry)?;
    for_platform(entry).map_or(Ok(()), |line| trail::add(tx, &line))
}

/// Writes a line of the audit trail alone.
pub(crate) fn note(tx: &Transaction<'_>, entry: &Entry) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO audit (at, what, user_id, user_name, address, app, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![entry.at, entry.what, entry.user, entry.name, entry.address, entry.app, entry.detail])?;
    tx.execute("DELETE FROM audit WHERE id <= ?1", [tx.last_insert_rowid() - AUDIT]).map(drop)
}

/// What the platform is told: how people sign in and out. Who opens what, and who may not, its proxy notes; that somebody changed
/// their password, the admin app.
fn for_platform(entry: &Entry) -> Option<Line> {
    let Entry { at, what, user, name, address: from, app, detail } = entry.clone();
    let (what, refused) = match what.as_str() {
        "login" | "logout" | "reuse" => (what, false),
        "lockout" => (what, true),
        "refusal" if user.is_none() => ("login".to_owned(), true),
        "refusal" if app.is_empty() => ("password".to_owned(), true),
        _ => return None,
    };
    let by = if user.is_some() { name.clone() } else { String::new() };
    Some(Line {
        at,
        by,
        what,
        said: json!({ "userId": user, "name": name, "detail": detail }),
        from,
        refused,
    })
}

/// The last lines about a user, the newest first, and about attempts in their name; of refreshes there are too many to show.
pub(crate) fn trail(tx: &Transaction<'_>, user: &Person, lines: i64) -> Result<Vec<Entry>> {
    let query = "SELECT at, what, user_id, user_name, address, app, detail FROM audit WHERE what <> 'refresh' \
                 AND (user_id = ?1 OR user_id IS NULL AND user_name = ?2 COLLATE NOCASE) ORDER BY id DESC LIMIT ?3";
    let mut query = tx.prepare_cached(query)?;
    let rows = query.query_map(params![user.id, user.name, lines], |row| {
        Ok(Entry {
            at: row.get(0)?,
            what: row.get(1)?,
            user: row.get(2)?,
            name: row.get(3)?,
            address: row.get(4)?,
            app: row.get(5)?,
            detail: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// Whether somebody was right with a password, under which name, from where and when: every attempt since then, if
/// they are not too many to count before a start.
pub(crate) fn attempts(tx: &Transaction<'_>, since: Unix) -> Result<Vec<(bool, String, String, Unix)>> {
    let query = "SELECT good, user_name, address, at FROM (SELECT id, what = 'login' AS good, user_name, address, at FROM audit \
                 WHERE at > ?1 AND (what = 'refusal' AND detail = ?2 OR what = 'login' AND detail = '') \
                 ORDER BY id DESC LIMIT 10000) ORDER BY id";
    let mut query = tx.prepare(query)?;
    let rows = query
        .query_map(params![since, WRONG], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}

/// What the proxy has yet to be told: the last number, and the sessions that ended.
pub(crate) fn pending(tx: &Transaction<'_>, most: i64) -> Result<(i64, Vec<String>)> {
    let mut query = tx.prepare_cached("SELECT id, session FROM outbox ORDER BY id LIMIT ?1")?;
    let rows: Vec<(i64, String)> =
        query.query_map([most], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    let last = rows.last().map_or(0, |(id, _)| *id);
    Ok((last, rows.into_iter().map(|(_, session)| session).collect()))
}

/// The proxy was told.
pub(crate) fn told(tx: &Transaction<'_>, last: i64) -> Result<()> {
    tx.execute("DELETE FROM outbox WHERE id <= ?1", [last]).map(drop)
}

/// Families that ended by themselves, sessions without any, codes that nobody redeemed.
fn sweep(tx: &Transaction<'_>, now: Unix) -> Result<()> {
    tx.execute("DELETE FROM family WHERE expires <= ?1", [now])?;
    tx.execute("DELETE FROM session WHERE id NOT IN (SELECT session FROM family)", [])?;
    tx.execute("DELETE FROM code WHERE expires <= ?1", [now]).map(drop)
}

#[cfg(test)]
mod tests;
