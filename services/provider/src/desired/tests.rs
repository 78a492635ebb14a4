//! What a change does, and what it leaves alone.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use nexushub_chassis::names::{HostName, Zone};

use super::*;
use crate::{
    instance::{Fields, Source},
    typed::Judge,
};

fn zone() -> Zone {
    Zone::new("b.localhost", 8443)
}

fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

fn entry(name: &str, host_name: &str, source: Source) -> Entry {
    let host_name = HostName::parse(host_name, &zone()).ok();
    let fields = Fields { host_name, release: Some("/r".into()), ..Fields::default() };
    Entry { id: id(name), fields, pins: BTreeSet::new(), source }
}

fn debug(name: &str, host_name: &str) -> Entry {
    entry(name, host_name, Source::Debug)
}

fn book() -> Book {
    Book {
        statics: vec![entry("fixed", "login", Source::File("/p/apps.d/login.toml".into(), Some(3)))],
        dynamic: Vec::new(),
        debug: Entries::new(),
        data_root: "/d".into(),
        max_debug: 2,
    }
}

fn with(mut book: Book, entries: &[Entry]) -> Book {
    for entry in entries {
        book.debug = book.put(entry.clone()).unwrap().unwrap();
    }
    book
}

#[test]
fn a_taken_host_name_is_refused_with_both_origins() {
    let told = book().put(debug("mine", "login")).unwrap_err().to_string();
    assert!(
        told.contains("`mine` (debug)") && told.contains("`fixed` (static, /p/apps.d/login.toml:3)"),
        "{told}"
    );
    for newcomer in ["a", "z"] {
        let book = with(book(), &[debug("m", "shop")]);
        let told = book.put(debug(newcomer, "shop")).unwrap_err().to_string();
        assert!(
            told.contains(&format!("of instance `{newcomer}` (debug) is taken by instance `m`")),
            "{told}"
        );
    }
}

#[test]
fn an_id_of_the_configuration_is_not_to_be_put_or_removed() {
    assert!(matches!(book().put(debug("fixed", "free")), Err(Error::Taken(_))));
    assert!(matches!(book().remove(&id("fixed")), Err(Error::NotDebug { .. })));
}

#[test]
fn the_same_instance_twice_changes_nothing() {
    let book = with(book(), &[debug("a", "a")]);
    assert!(book.put(debug("a", "a")).unwrap().is_none());
    assert!(book.put(debug("a", "other")).unwrap().is_some());
    assert!(book.remove(&id("unknown")).unwrap().is_none());
}

#[test]
fn there_is_a_limit_and_a_replacement_does_not_count() {
    let book = with(book(), &[debug("a", "a"), debug("b", "b")]);
    assert!(matches!(book.put(debug("c", "c")), Err(Error::TooMany(2))));
    assert!(book.put(debug("b", "bb")).is_ok());
}

#[test]
fn a_state_that_no_message_holds_is_refused() {
    let mut book = Book { max_debug: 1000, ..book() };
    for n in 0..1000 {
        let mut large = debug(&format!("i{n}"), &format!("h{n}"));
        large.fields.env = Some([("A".to_owned(), "x".repeat(30_000))].into());
        match book.put(large) {
            Ok(debug) => book.debug = debug.unwrap(),
            Err(error) => {
                assert!(matches!(error, Error::TooLarge(_)) && n > 50, "{error}");
                return;
            }
        }
    }
    unreachable!("a thousand large instances fit into one message");
}

#[test]
fn revisions_never_run_backwards_over_a_restart() {
    assert_eq!(first_revision(0, 1_700_000_000_000), 1_700_000_000_000);
    assert_eq!(first_revision(1_800_000_000_000, 1_700_000_000_000), 1_800_000_000_001);
    assert_eq!(first_revision(5, -1), 6);
}

#[tokio::test]
async fn a_change_is_on_disk_before_it_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (owner, handle) = Owner::new(book(), store.clone(), 10);
    let task = tokio::spawn(owner.run(std::future::pending()));
    let mut seen = handle.watch();
    assert_eq!(handle.put(debug("a", "a")).await.unwrap(), 11);
    assert_eq!(handle.put(debug("a", "a")).await.unwrap(), 11);
    seen.changed().await.unwrap();
    assert_eq!(seen.borrow_and_update().desired.len(), 2);
    let loaded = store.load(&Judge { zone: zone(), root: None }).unwrap();
    assert_eq!((loaded.revision, loaded.entries.len()), (11, 1));
    assert_eq!(handle.remove(id("a")).await.unwrap(), (12, true));
    assert_eq!(handle.remove(id("a")).await.unwrap(), (12, false));
    drop(handle);
    task.await.unwrap();
    assert!(seen.changed().await.is_ok(), "the last change is still to be read");
    assert!(seen.changed().await.is_err(), "and then the watch ends");
}

#[tokio::test]
async fn a_change_that_cannot_be_written_is_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (owner, handle) = Owner::new(book(), store, 10);
    folder.close().unwrap();
    let _task = tokio::spawn(owner.run(std::future::pending()));
    assert!(matches!(handle.put(debug("a", "a")).await, Err(Error::Unwritable { .. })));
    assert_eq!(handle.watch().borrow().desired.len(), 1);
}

#[tokio::test]
async fn a_stopping_owner_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (owner, handle) = Owner::new(book(), Store::open(folder.path()).unwrap(), 10);
    owner.run(async {}).await;
    assert!(matches!(handle.put(debug("a", "a")).await, Err(Error::Stopping)));
}
