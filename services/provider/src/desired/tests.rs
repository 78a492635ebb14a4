//! What a change does, and what it leaves alone.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use nexushub_chassis::names::{HostName, Zone};

use super::*;
use crate::{
    admin::list,
    instance::{Health, Limits, Source},
    releases::Asks,
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

pub(crate) fn rules() -> Rules {
    Rules {
        ground: Ground { data_root: "/d".into(), ..Ground::default() },
        max_debug: 2,
        hold: Hold { share_percent: 50, least: 3 },
        keep_releases: 2,
        dynamic: (Driver::Process, Egress::None),
    }
}

pub(crate) fn book() -> Book {
    Book {
        statics: vec![entry("fixed", "login", Source::File("/p/apps.d/login.toml".into(), Some(3)))],
        listing: Arc::default(),
        releases: Arc::default(),
        debug: Entries::new(),
        rules: rules(),
    }
}

fn judge() -> Judge {
    Judge { zone: zone(), root: None }
}

/// An owner at work over this folder.
fn started(folder: &tempfile::TempDir) -> Handle {
    let disk = Disk::open(folder.path()).unwrap();
    let found = disk.load(&judge()).unwrap();
    let (listing, releases) = (found.listing, found.releases);
    let book = Book { listing, releases, debug: found.debug, ..book() };
    let (owner, handle) = Owner::new(book, disk, found.revision + 1);
    tokio::spawn(owner.run(std::future::pending()));
    handle
}

/// A list of the admin app: instance and host name of each, all of one application.
fn listed(rows: &[(&str, &str)]) -> List {
    let row = |(id, host): &(&str, &str)| serde_json::json!({"instanceId": id, "appId": "shop", "displayName": "", "hostName": host});
    let rows: Vec<_> = rows.iter().map(row).collect();
    list::read(serde_json::json!({"applications": rows}).to_string().as_bytes(), &judge()).unwrap()
}

fn shop(path: &str) -> Release {
    let (version, by) = ("1".to_owned(), "me".to_owned());
    Release { path: path.into(), version, by, set_unix_ms: 0, failed: None, asks: Asks::default() }
}

/// What is desired: id, host name, release.
fn desired(handle: &Handle) -> Vec<(String, String, String)> {
    let state = handle.watch().borrow().clone();
    let all = state.desired.values().map(|desired| &desired.instance);
    let told = |one: &crate::instance::Instance| {
        (one.id.to_string(), one.host_name.to_string(), one.release.display().to_string())
    };
    all.filter(|one| one.id.as_str() != "fixed").map(told).collect()
}

fn row(id: &str, host: &str, release: &str) -> (String, String, String) {
    (id.to_owned(), host.to_owned(), release.to_owned())
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
    let mut book = Book { rules: Rules { max_debug: 2000, ..rules() }, ..book() };
    let large = |n: usize| {
        let mut large = debug(&format!("i{n}"), &format!("h{n}"));
        large.fields.env = Some([("A".to_owned(), "x".repeat(30_000))].into());
        large
    };
    let fit = SNAPSHOT_MAX / 31_000;
    book.debug = (0..fit).map(|n| (large(n).id, large(n))).collect();
    book.debug = book.put(large(fit)).unwrap().unwrap();
    for n in fit + 1..fit + 50 {
        let entry = large(n);
        book.debug.insert(entry.id.clone(), entry);
    }
    assert!(matches!(book.put(large(fit + 50)), Err(Error::TooLarge(_))));
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
    let disk = Disk::open(folder.path()).unwrap();
    let (owner, handle) = Owner::new(book(), disk.clone(), 10);
    let task = tokio::spawn(owner.run(std::future::pending()));
    let mut seen = handle.watch();
    assert_eq!(handle.put(debug("a", "a")).await.unwrap(), 11);
    assert_eq!(handle.put(debug("a", "a")).await.unwrap(), 11);
    seen.changed().await.unwrap();
    assert_eq!(seen.borrow_and_update().desired.len(), 2);
    let found = disk.load(&judge()).unwrap();
    assert_eq!((found.revision, found.debug.len()), (11, 1));
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
    let (owner, handle) = Owner::new(book(), Disk::open(folder.path()).unwrap(), 10);
    folder.close().unwrap();
    let _task = tokio::spawn(owner.run(std::future::pending()));
    assert!(matches!(handle.put(debug("a", "a")).await, Err(Error::Unwritable { .. })));
    assert_eq!(handle.watch().borrow().desired.len(), 1);
}

#[tokio::test]
async fn a_stopping_owner_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (owner, handle) = Owner::new(book(), Disk::open(folder.path()).unwrap(), 10);
    owner.run(async {}).await;
    assert!(matches!(handle.put(debug("a", "a")).await, Err(Error::Stopping)));
}

#[tokio::test]
async fn an_application_waits_for_its_package_and_runs_it_under_whatever_name_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    handle.list(listed(&[("a", "shop"), ("b", "shop2")])).await.unwrap();
    assert_eq!(desired(&handle), []);
    assert_eq!(handle.watch().borrow().waiting.len(), 2);
    handle.set_release("shop".to_owned(), shop("/v1")).await.unwrap();
    assert_eq!(desired(&handle), [row("a", "shop", "/v1"), row("b", "shop2", "/v1")]);
    handle.list(listed(&[("a", "store"), ("b", "shop2")])).await.unwrap();
    handle.set_release("shop".to_owned(), shop("/v2")).await.unwrap();
    assert_eq!(desired(&handle)[0], row("a", "store", "/v2"));
    handle.revert_release("shop".to_owned(), "/v2".as_ref(), "broken".to_owned()).await.unwrap();
    assert_eq!(desired(&handle)[0], row("a", "store", "/v1"));
    let unknown = handle.revert_release("shop".to_owned(), "/v9".as_ref(), String::new()).await;
    assert!(matches!(unknown, Err(Error::NoRelease { .. })));
}

/// An application whose current package asks for all that one can.
fn asking(listing: &[(&str, &str)], book: Book) -> Book {
    let asks = Asks {
        driver: Some(Driver::Sandbox),
        env: Some([("MODE".to_owned(), "asked".to_owned())].into()),
        health: Some(Health { failures: Some(9), ..Health::default() }),
        limits: Some(Limits { processes: Some(7), ..Limits::default() }),
    };
    let releases = Releases::default().set("shop", Release { asks, ..shop("/v1") }, 2).unwrap().into();
    let listing = Listing::default().after(listed(listing), rules().hold).into();
    Book { listing, releases, ..book }
}

/// What an instance is given: its box, a variable, failures of its health check, processes.
fn given(book: &Book, name: &str) -> (Driver, Option<String>, Option<u32>, Option<u32>) {
    let one = &book.merged(&book.debug).desired[&id(name)].instance;
    let failures = one.health.as_ref().and_then(|health| health.failures);
    (one.driver, one.env.get("MODE").cloned(), failures, one.limits.and_then(|limits| limits.processes))
}

#[test]
fn a_package_of_the_admin_app_is_given_what_it_asks_for_where_the_configuration_is_silent() {
    let said = |text: &str| Some(text.to_owned());
    let boxes = |driver| Book { rules: Rules { dynamic: (driver, Egress::None), ..rules() }, ..book() };
    let own = asking(&[("own", "own")], boxes(Driver::Auto));
    assert_eq!(given(&own, "own"), (Driver::Auto, said("asked"), Some(9), Some(7)), "which may be a microVM");
    let loose = asking(&[("own", "own")], boxes(Driver::Process));
    assert_eq!(given(&loose, "own"), (Driver::Sandbox, said("asked"), Some(9), Some(7)));
    let strict = asking(&[("own", "own")], boxes(Driver::Krun));
    assert_eq!(given(&strict, "own"), (Driver::Krun, said("asked"), Some(9), Some(7)), "never a lesser box");
    let fixed = |fields: Fields| {
        let mut book = boxes(Driver::Process);
        book.statics[0].fields = fields.over(&book.statics[0].fields, &BTreeSet::new());
        given(&asking(&[("fixed", "login")], book), "fixed")
    };
    assert_eq!(fixed(Fields::default()), (Driver::Auto, said("asked"), Some(9), Some(7)));
    let whole = Fields {
        driver: Some(Driver::Auto),
        env: Some([("MODE".to_owned(), "mine".to_owned())].into()),
        health: Some(Health { failures: Some(2), ..Health::default() }),
        limits: Some(Limits { processes: Some(5), ..Limits::default() }),
        ..Fields::default()
    };
    assert_eq!(fixed(whole), (Driver::Auto, said("mine"), Some(2), Some(5)), "the owner's word");
}

#[test]
fn a_package_that_asks_for_nothing_ends_what_the_one_before_it_asked_for() {
    let mut promoted = entry("mine", "shop.debug", Source::Promoted);
    promoted.fields.env = Some([("MODE".to_owned(), "earlier".to_owned())].into());
    let debug = Entries::from([(promoted.id.clone(), promoted)]);
    let listing: Arc<Listing> = Listing::default().after(listed(&[("mine", "shop")]), rules().hold).into();
    let alone = Book { listing: Arc::clone(&listing), debug: debug.clone(), ..book() };
    assert_eq!(given(&alone, "mine").1.as_deref(), Some("earlier"), "until there is another");
    let releases = Releases::default().set("shop", shop("/v2"), 2).unwrap().into();
    assert_eq!(given(&Book { listing, releases, debug, ..book() }, "mine").1, None);
}

/// These instances of one application, all of the same size.
fn many(numbers: std::ops::Range<usize>) -> List {
    let rows: Vec<_> = numbers.map(|n| (format!("i{n:04}"), format!("h{n:04}"))).collect();
    listed(&rows.iter().map(|(id, host)| (id.as_str(), host.as_str())).collect::<Vec<_>>())
}

/// A package that asks for as much of an environment as there may be.
fn greedy(path: &str) -> Release {
    let env = (0..4).map(|n| (format!("A{n}"), "x".repeat(8000))).collect();
    Release { asks: Asks { env: Some(env), ..Asks::default() }, ..shop(path) }
}

/// Instances whose greedy package no message holds.
const TOO_MANY: usize = SNAPSHOT_MAX / 32_000 + 1;

#[tokio::test]
async fn what_packages_ask_for_has_to_fit_into_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    handle.list(many(0..TOO_MANY)).await.unwrap();
    let refused = handle.set_release("shop".to_owned(), greedy("/v1")).await;
    assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
    assert_eq!(desired(&handle), []);
}

#[tokio::test]
async fn of_new_instances_as_many_come_in_order_as_a_message_holds_and_what_goes_goes() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    handle.list(listed(&[("a", "a"), ("i0000", "h0000")])).await.unwrap();
    handle.set_release("shop".to_owned(), greedy("/v1")).await.unwrap();
    let revision = handle.list(many(0..TOO_MANY)).await.unwrap();
    let came = desired(&handle);
    let (first, last) = (&came[0].0, format!("i{:04}", came.len() - 1));
    assert_eq!((first.as_str(), came[came.len() - 1].0.as_str()), ("i0000", last.as_str()));
    let bytes = snapshot_len(&handle.watch().borrow().desired);
    assert!(bytes <= SNAPSHOT_MAX && bytes + bytes / came.len() > SNAPSHOT_MAX, "{bytes} and no more");
    let told = handle.watch().borrow().listing.refused[0].clone();
    let waiting =
        format!("{} new instances and 0 changes wait, `i{:04}` first", TOO_MANY - came.len(), came.len());
    assert!(told.starts_with(&waiting), "{told}");
    assert_eq!(handle.list(many(0..TOO_MANY)).await.unwrap(), revision, "the same list again");
    handle.list(many(1..came.len() + 1)).await.unwrap();
    assert_eq!((desired(&handle).len(), handle.watch().borrow().listing.refused.len()), (came.len(), 0));
}

#[tokio::test]
async fn nothing_is_let_go_in_whose_place_something_comes_that_no_message_holds() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    let bytes = || snapshot_len(&handle.watch().borrow().desired);
    let empty = bytes();
    handle.set_release("shop".to_owned(), greedy("/v1")).await.unwrap();
    let mut mine = debug("mine", "h0000");
    mine.fields.env = Some([("A".to_owned(), "x".repeat(80_000))].into());
    handle.put(mine).await.unwrap();
    handle.list(many(0..4)).await.unwrap();
    let each = (bytes() - empty) / 4;
    let room = (SNAPSHOT_MAX - empty) / each;
    handle.list(many(4..room)).await.unwrap();
    assert_eq!(
        desired(&handle).len(),
        room,
        "the first four are held, and one of them has the name of `mine`"
    );
    let refused = handle.confirm([id("i0000")].into()).await;
    assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
    assert_eq!(handle.confirm([id("i0001")].into()).await.unwrap().1, [id("i0001")]);
}

#[tokio::test]
async fn there_is_no_way_back_to_what_no_message_holds() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    handle.set_release("shop".to_owned(), greedy("/v1")).await.unwrap();
    handle.set_release("shop".to_owned(), shop("/v2")).await.unwrap();
    handle.list(many(0..TOO_MANY)).await.unwrap();
    let refused = handle.revert_release("shop".to_owned(), "/v2".as_ref(), "broken".to_owned()).await;
    assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
    assert_eq!(desired(&handle)[0], row("i0000", "h0000", "/v2"));
}

#[tokio::test]
async fn the_last_good_list_and_the_packages_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    handle.list(listed(&[("a", "shop")])).await.unwrap();
    handle.set_release("shop".to_owned(), shop("/v1")).await.unwrap();
    let next = started(&folder);
    assert_eq!(desired(&next), [row("a", "shop", "/v1")]);
}

#[tokio::test]
async fn the_same_list_again_is_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    let first = handle.list(listed(&[("a", "shop")])).await.unwrap();
    assert_eq!(handle.list(listed(&[("a", "shop")])).await.unwrap(), first);
    assert!(handle.list(listed(&[])).await.unwrap() > first);
}

#[tokio::test]
async fn a_mass_deletion_is_held_over_a_restart_until_it_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    handle.set_release("shop".to_owned(), shop("/v1")).await.unwrap();
    handle.list(listed(&[("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")])).await.unwrap();
    handle.list(listed(&[("e", "e")])).await.unwrap();
    assert_eq!(desired(&handle).len(), 5, "the new one runs and the others go on");
    let handle = started(&folder);
    assert_eq!((desired(&handle).len(), handle.watch().borrow().listing.held.len()), (5, 4));
    let (_, removed) = handle.confirm(["a", "b", "e", "x"].map(id).into()).await.unwrap();
    assert_eq!(removed, ["a", "b"].map(id));
    assert_eq!(desired(&handle).len(), 3);
}

#[tokio::test]
async fn a_list_that_cannot_be_written_is_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    folder.close().unwrap();
    assert!(matches!(handle.list(listed(&[("a", "a")])).await, Err(Error::Unwritable { .. })));
    assert_eq!(handle.watch().borrow().listing.listed.len(), 0);
}

#[test]
fn what_the_admin_app_lists_is_not_to_be_put_or_removed() {
    let listing = Listing::default().after(listed(&[("a", "a")]), rules().hold).into();
    let book = Book { listing, ..book() };
    assert!(matches!(book.put(debug("a", "free")), Err(Error::Taken(_))));
    assert!(matches!(book.remove(&id("a")), Err(Error::NotDebug { .. })));
}

#[test]
fn a_list_of_ten_thousand_is_merged_whole() {
    let rows: Vec<_> = (0..10_000).map(|n| (format!("i{n}"), format!("h{n}"))).collect();
    let rows: Vec<_> = rows.iter().map(|(id, host)| (id.as_str(), host.as_str())).collect();
    let listing = Listing::default().after(listed(&rows), rules().hold).into();
    let releases = Releases::default().set("shop", shop("/v1"), 2).unwrap().into();
    let book = Book { listing, releases, ..book() };
    assert_eq!(book.merged(&Entries::new()).desired.len(), 10_001);
    assert!(book.put(debug("mine", "mine")).is_ok(), "there is room for more");
}

#[tokio::test]
async fn a_debug_instance_that_the_admin_app_takes_over_runs_on_with_its_data_and_ends_with_its_entry() {
    let folder = tempfile::tempdir().unwrap();
    let handle = started(&folder);
    let mut mine = debug("mine", "shop.debug");
    (mine.fields.data, mine.fields.debug_port) = (Some("/data".into()), Some(5173));
    handle.put(mine.clone()).await.unwrap();
    handle.set_release("shop".into(), shop("/of-an-earlier-life")).await.unwrap();
    handle.list(listed(&[("mine", "shop")])).await.unwrap();
    assert_eq!(desired(&handle), [row("mine", "shop", "/r")], "its own release");
    let whole = handle.watch().borrow().desired[&id("mine")].clone();
    assert_eq!((whole.origin, whole.instance.data.to_str()), (crate::merge::Origin::Dynamic, Some("/data")));
    assert_eq!(whole.instance.debug_port, 0, "no development server for a permanent one");
    assert!(matches!(handle.remove(id("mine")).await, Err(Error::NotDebug { .. })));

    handle.set_release("shop".into(), shop("/r")).await.unwrap();
    let ground = Entry { source: Source::Promoted, ..mine };
    handle.put(ground).await.unwrap();
    handle.set_release("shop".into(), shop("/next")).await.unwrap();
    assert_eq!(desired(&handle), [row("mine", "shop", "/next")], "packages are the admin app's now");
    drop(handle);
    let handle = started(&folder);
    assert_eq!(desired(&handle), [row("mine", "shop", "/next")], "kept on disk");
    handle.list(listed(&[])).await.unwrap();
    assert_eq!(desired(&handle), [], "nothing comes back as a debug instance");
    assert!(handle.remove(id("mine")).await.unwrap().1);
}

#[test]
fn an_id_of_the_admin_apps_is_not_to_be_taken_and_what_it_took_over_makes_room() {
    let mut book = book();
    book.listing = Arc::new(book.listing.after(listed(&[("hers", "shop")]), book.rules.hold));
    assert!(matches!(book.put(debug("hers", "free")), Err(Error::Taken(_))));
    let book = with(book, &[entry("a", "a", Source::Promoted), debug("b", "b"), debug("c", "c")]);
    assert!(matches!(book.put(debug("d", "d")), Err(Error::TooMany(2))));
}
