//! Sessions, tokens and codes as the database keeps them.

#![allow(clippy::unwrap_used)]

use nexushub_applib::db::{Db, Error};
use rusqlite::Connection;

use super::*;
use crate::family::GRACE;

pub(super) fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    connection.execute_batch(&STEPS.concat()).unwrap();
    connection
}

fn at(at: Unix) -> Asked {
    Asked { at, from: "192.0.2.1".into() }
}

fn zoe() -> Person {
    Person { id: 7, name: "zoe".into() }
}

pub(super) fn count(tx: &Transaction<'_>, table: &str) -> i64 {
    tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn a_token_rotates_and_the_one_before_it_is_good_for_a_minute_more() {
    let mut database = database();
    let tx = &database.transaction().unwrap();
    let first = begin(tx, &zoe(), &Origin::default(), 1000).unwrap();
    let second = rotate(tx, &first.token, Some("app"), &at(1010)).unwrap().unwrap();
    let twin = rotate(tx, &first.token, Some("app"), &at(1010 + GRACE)).unwrap().unwrap();
    assert_eq!((second.session, second.expires), (first.session.clone(), 1010 + LIFE));
    let third = rotate(tx, &twin.token, None, &at(2000)).unwrap().unwrap();
    assert_eq!(
        rotate(tx, &second.token, None, &at(2001)).unwrap().unwrap().session,
        first.session,
        "the twin, in time"
    );
    assert_eq!(look(tx, &third.token, None, &at(2002)).unwrap().unwrap().person, zoe());
}

#[test]
fn the_use_of_an_old_token_ends_its_session_and_is_told() {
    let mut database = database();
    let tx = &database.transaction().unwrap();
    let first = begin(tx, &zoe(), &Origin::default(), 1000).unwrap();
    let other = found(tx, &first.session, Some("app"), 1000).unwrap();
    let second = rotate(tx, &first.token, None, &at(1010)).unwrap().unwrap();
    assert_eq!(rotate(tx, &first.token, None, &at(1010 + GRACE + 1)).unwrap(), Err(Worthless::Reused));
    for (token, app) in [(&second.token, None), (&other.token, Some("app"))] {
        let thief_or_owner = rotate(tx, token, app, &at(1100)).unwrap();
        assert_eq!(thief_or_owner, Err(Worthless::Unknown), "{app:?}");
    }
    let noted = &trail(tx, &zoe(), 9).unwrap()[0];
    assert_eq!((noted.what.as_str(), noted.address.as_str()), ("reuse", "192.0.2.1"));
    assert_eq!(pending(tx, 9).unwrap().1, [first.session], "access tokens end, too");
}

#[test]
fn what_somebody_asks_for_again_and_again_is_bounded() {
    let mut database = database();
    let tx = &database.transaction().unwrap();
    let first = begin(tx, &zoe(), &Origin::default(), 1000).unwrap();
    for second in 0..100 {
        found(tx, &first.session, Some("app"), 1000).unwrap();
        issue(tx, &first.session, "app", "state", 1000 + second * CODE_LIFE).unwrap();
    }
    rotate(tx, &first.token, None, &at(1001)).unwrap().unwrap();
    for _ in 0..100 {
        rotate(tx, &first.token, None, &at(1002)).unwrap().unwrap();
    }
    let count = |table: &str| -> i64 {
        tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("family"), count("code")), (FAMILIES + 1, 1));
    assert_eq!(count("token"), FAMILIES + 1 + TWINS + 1);
}

#[test]
fn a_token_for_one_app_is_worth_nothing_at_another_and_nothing_once_it_expired() {
    let mut database = database();
    let tx = &database.transaction().unwrap();
    let session = begin(tx, &zoe(), &Origin::default(), 1000).unwrap().session;
    let token = found(tx, &session, Some("app"), 1000).unwrap().token;
    for app in [Some("other"), None] {
        assert_eq!(rotate(tx, &token, app, &at(1001)).unwrap(), Err(Worthless::Unknown), "{app:?}");
        assert_eq!(look(tx, &token, app, &at(1001)).unwrap().unwrap_err(), Worthless::Unknown);
    }
    assert_eq!(rotate(tx, &token, Some("app"), &at(1000 + LIFE)).unwrap(), Err(Worthless::Expired));
    assert_eq!(rotate(tx, "guess", Some("app"), &at(1001)).unwrap(), Err(Worthless::Unknown));
}

#[test]
fn a_code_is_good_once_for_one_app_one_browser_and_a_minute() {
    let mut database = database();
    let tx = &database.transaction().unwrap();
    let session = begin(tx, &zoe(), &Origin::default(), 1000).unwrap().session;
    for (app, state, at, worth) in [
        ("app", "state", 1059, Ok((session.clone(), zoe()))),
        ("app", "state", 1060, Err(Worthless::Expired)),
        ("other", "state", 1001, Err(Worthless::Unknown)),
        ("app", "another", 1001, Err(Worthless::Unknown)),
    ] {
        let code = issue(tx, &session, "app", "state", 1000).unwrap();
        assert_eq!(take(tx, &code, app, state, at).unwrap(), worth, "{app} {state} {at}");
        assert_eq!(take(tx, &code, "app", "state", 1001).unwrap(), Err(Worthless::Unknown), "it is gone");
    }
}

#[test]
fn what_ended_is_told_until_it_was_taken_and_takes_its_tokens_along() {
    let mut database = database();
    let tx = &database.transaction().unwrap();
    let one = begin(tx, &zoe(), &Origin::default(), 1000).unwrap();
    let two = begin(tx, &zoe(), &Origin::default(), 1001).unwrap();
    let other = begin(tx, &Person { id: 8, name: "bob".into() }, &Origin::default(), 1002).unwrap();
    assert_eq!(end_all(tx, 7, Some(&two.session)).unwrap(), std::slice::from_ref(&one.session));
    assert_eq!(rotate(tx, &one.token, None, &at(1003)).unwrap(), Err(Worthless::Unknown));
    assert!(
        rotate(tx, &two.token, None, &at(1003)).unwrap().is_ok()
            && rotate(tx, &other.token, None, &at(1003)).unwrap().is_ok()
    );
    let (last, ended) = pending(tx, 9).unwrap();
    assert_eq!(ended, std::slice::from_ref(&one.session));
    told(tx, last).unwrap();
    assert_eq!(pending(tx, 9).unwrap(), (0, Vec::new()));
    assert!(!end(tx, &one.session).unwrap(), "ended is ended");
    end(tx, &two.session).unwrap();
    assert!(pending(tx, 9).unwrap().0 > last, "numbers are not used twice");
}

#[test]
fn sessions_tokens_and_the_trail_are_bounded() {
    let mut database = database();
    let tx = &database.transaction().unwrap();
    for at in 0..SESSIONS + 5 {
        begin(tx, &zoe(), &Origin::default(), 1000 + at).unwrap();
    }
    assert_eq!(count(tx, "session"), SESSIONS);
    let mut token = begin(tx, &Person { id: 8, name: "bob".into() }, &Origin::default(), 2000).unwrap().token;
    for passed in 0..GENERATIONS + 5 {
        token = rotate(tx, &token, None, &at(2000 + passed)).unwrap().unwrap().token;
    }
    assert_eq!(count(tx, "token"), SESSIONS + GENERATIONS + 1);
    begin(tx, &zoe(), &Origin::default(), 3000 + 2 * LIFE).unwrap();
    assert_eq!(count(tx, "session"), 1, "what expired is swept");
}

#[tokio::test]
async fn secrets_are_not_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("login.sqlite");
    let db = Db::open(&path, STEPS).unwrap();
    let (token, code) = db
        .run(|tx| {
            let granted = begin(tx, &zoe(), &Origin::default(), 1000)?;
            Ok::<_, Error>((granted.token, issue(tx, &granted.session, "app", "state", 1000)?))
        })
        .await
        .unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        for secret in [&token, &code] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{file:?}");
        }
    }
}
