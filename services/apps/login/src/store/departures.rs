//! Sign-ins that have left for an identity provider and may come back: kept by the digest of their state, each for one browser, for
//! some minutes, once. Every function is a part of one transaction.

use nexushub_applib::{text::digest, time::Unix};
use rusqlite::{OptionalExtension, Transaction, params};

use super::Result;
use crate::{oidc::Secrets, signin::Errand};

/// Seconds that one may take.
pub(crate) const LIFE: Unix = 600;
/// Of one address (or IPv6 network); with one more its oldest is forgotten.
const OF_ONE: i64 = 500;
/// Of all; with one more the oldest is forgotten.
const OF_ALL: i64 = 10_000;

/// Where somebody went on from, and what has to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departure {
    pub nonce: String,
    pub verifier: String,
    pub errand: Errand,
}

/// Keeps a sign-in that leaves.
pub(crate) fn depart(
    tx: &Transaction<'_>,
    secrets: &Secrets,
    browser: &str,
    network: &str,
    errand: &Errand,
    now: Unix,
) -> Result<()> {
    sweep(tx, now)?;
    tx.execute(
        "INSERT INTO departure VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            digest(&secrets.state),
            digest(browser),
            network,
            secrets.nonce,
            secrets.verifier,
            errand.app,
            errand.state,
            errand.name,
            now + LIFE
        ],
    )?;
    let oldest = "DELETE FROM departure WHERE rowid IN \
                  (SELECT rowid FROM departure WHERE network = ?1 ORDER BY rowid DESC LIMIT -1 OFFSET ?2)";
    tx.execute(oldest, params![network, OF_ONE])?;
    let all: i64 = tx.query_row("SELECT count(*) FROM departure", [], |row| row.get(0))?;
    let oldest =
        "DELETE FROM departure WHERE rowid IN (SELECT rowid FROM departure ORDER BY rowid LIMIT max(0, ?1))";
    tx.execute(oldest, [all - OF_ALL]).map(drop)
}

/// Takes the one of this state and this browser; whatever comes of it, it is gone.
pub(crate) fn arrive(
    tx: &Transaction<'_>,
    state: &str,
    browser: &str,
    now: Unix,
) -> Result<Option<Departure>> {
    sweep(tx, now)?;
    let query = "SELECT browser, nonce, verifier, app, app_state, app_name FROM departure WHERE digest = ?1";
    let found = tx.query_row(query, [digest(state)], |row| {
        let errand = Errand { app: row.get(3)?, state: row.get(4)?, name: row.get(5)? };
        let departure = Departure { nonce: row.get(1)?, verifier: row.get(2)?, errand };
        Ok((row.get::<_, [u8; 32]>(0)?, departure))
    });
    let found = found.optional()?;
    tx.execute("DELETE FROM departure WHERE digest = ?1", [digest(state)])?;
    Ok(found.filter(|(whose, _)| *whose == digest(browser)).map(|(_, departure)| departure))
}

fn sweep(tx: &Transaction<'_>, now: Unix) -> Result<()> {
    tx.execute("DELETE FROM departure WHERE expires <= ?1", [now]).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::tests::{count, database};

    fn secrets(state: &str) -> Secrets {
        Secrets { state: state.into(), nonce: format!("n {state}"), verifier: format!("v {state}") }
    }

    fn errand() -> Errand {
        Errand { app: "shop".into(), state: "an app's".into(), name: "Shop".into() }
    }

    #[test]
    fn who_left_comes_back_once_in_time_and_in_the_same_browser() {
        let mut database = database();
        let tx = &database.transaction().unwrap();
        for (browser, at, good) in
            [("b", 1000 + LIFE - 1, true), ("b", 1000 + LIFE, false), ("c", 1001, false)]
        {
            depart(tx, &secrets("s"), "b", "192.0.2.1", &errand(), 1000).unwrap();
            assert_eq!(arrive(tx, "another", "b", 1000).unwrap(), None);
            let back = arrive(tx, "s", browser, at).unwrap();
            let left = Departure { nonce: "n s".into(), verifier: "v s".into(), errand: errand() };
            assert_eq!(back, good.then_some(left), "{browser} {at}");
            assert_eq!(arrive(tx, "s", "b", 1001).unwrap(), None, "it is gone");
        }
        assert_eq!(count(tx, "departure"), 0);
    }

    #[test]
    fn they_are_bounded_for_an_address_and_for_all_and_what_is_old_is_swept() {
        let mut database = database();
        let tx = &database.transaction().unwrap();
        let leave = |state: String, network: &str, at| {
            depart(tx, &secrets(&state), "b", network, &errand(), at).unwrap();
        };
        leave("quiet".into(), "192.0.2.1", 1000);
        for number in 0..=OF_ONE {
            leave(format!("busy {number}"), "192.0.2.2", 1000);
        }
        assert_eq!(count(tx, "departure"), OF_ONE + 1, "one of the busy, none of the quiet is forgotten");
        assert!(arrive(tx, "busy 0", "b", 1001).unwrap().is_none());
        assert!(arrive(tx, "busy 1", "b", 1001).unwrap().is_some());
        for number in 0..OF_ALL {
            leave(format!("all {number}"), &format!("network {}", number / 100), 1000);
        }
        assert_eq!(count(tx, "departure"), OF_ALL);
        assert!(arrive(tx, "quiet", "b", 1001).unwrap().is_none());
        leave("late".into(), "192.0.2.1", 1000 + LIFE);
        assert_eq!(count(tx, "departure"), 1);
    }

    #[test]
    fn neither_state_nor_browser_is_kept_as_it_is() {
        let mut database = database();
        let tx = &database.transaction().unwrap();
        depart(tx, &secrets("the state"), "the browser", "", &errand(), 1000).unwrap();
        let row = "SELECT hex(digest) || hex(browser) FROM departure";
        let kept: String = tx.query_row(row, [], |row| row.get(0)).unwrap();
        let digests = [digest("the state"), digest("the browser")].concat();
        assert_eq!(kept, nexushub_applib::text::hex(&digests).to_uppercase());
    }
}
