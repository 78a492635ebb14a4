//! What the merge promises: precedence, pins, one result whatever the order.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, path::PathBuf};

use nexushub_chassis::names::{HostName, Zone};
use proptest::prelude::*;

use super::*;
use crate::{instance::Field, route::Route};

const ROOT: &str = "/state/provider/data";

fn host(name: &str) -> HostName {
    HostName::parse(name, &Zone::new("b.localhost", 8443)).unwrap()
}

fn entry(id: &str, host_name: &str, source: Source) -> Entry {
    let fields = Fields {
        host_name: Some(host(host_name)),
        release: Some(PathBuf::from(format!("/releases/{id}"))),
        ..Fields::default()
    };
    Entry { id: InstanceId::parse(id).unwrap(), fields, pins: BTreeSet::new(), source }
}

fn fixed(id: &str, host_name: &str) -> Entry {
    entry(id, host_name, Source::File(format!("/p/apps.d/{id}.toml").into(), Some(1)))
}

fn merged(statics: &[Entry], dynamic: &[Entry], debug: &[Entry]) -> Merged {
    let reserved_ids = [InstanceId::parse("admin").unwrap()].into();
    let ground = Ground { data_root: ROOT.into(), reserved_ids, reserved_hosts: ["admin".to_owned()].into() };
    merge(statics, dynamic, debug, &ground)
}

fn hosts(merged: &Merged) -> Vec<(&str, &str, Origin)> {
    let of = |desired: &Desired| desired.origin;
    merged.desired.iter().map(|(id, d)| (id.as_str(), d.instance.host_name.as_str(), of(d))).collect()
}

#[test]
fn a_dynamic_entry_overrides_field_by_field_except_what_is_pinned() {
    let mut below = fixed("a", "own");
    below.fields.display_name = Some("configured".into());
    below.fields.app_id = Some("app".into());
    below.pins = BTreeSet::from([Field::HostName]);
    let mut above = entry("a", "given", Source::Dynamic);
    above.fields.display_name = Some("given".into());
    above.fields.release = None;
    let merged = merged(&[below], &[above], &[]);
    assert_eq!(merged.conflicts, []);
    let a = &merged.desired.values().next().unwrap().instance;
    assert_eq!((a.host_name.as_str(), a.display_name.as_str(), a.app_id.as_str()), ("own", "given", "app"));
    assert_eq!(a.release, PathBuf::from("/releases/a"));
}

#[test]
fn a_static_instance_stays_when_the_admin_app_does_not_list_it() {
    let merged = merged(&[fixed("a", "a")], &[entry("b", "b", Source::Dynamic)], &[]);
    assert_eq!(hosts(&merged), [("a", "a", Origin::Static), ("b", "b", Origin::Dynamic)]);
}

#[test]
fn two_static_instances_of_one_host_name_are_named_with_file_and_line() {
    let merged = merged(&[fixed("b", "same"), fixed("a", "same")], &[], &[]);
    assert_eq!(hosts(&merged), [("a", "same", Origin::Static)]);
    assert_eq!(
        merged.conflicts[0].to_string(),
        "host name `same` of instance `b` (static, /p/apps.d/b.toml:1) is taken by instance `a` (static, /p/apps.d/a.toml:1)"
    );
}

#[test]
fn two_static_entries_of_one_id_are_a_conflict() {
    let twin = entry("a", "x", Source::File("/p/apps.d/z.toml".into(), Some(4)));
    let merged = merged(&[twin, fixed("a", "a")], &[], &[]);
    assert_eq!(hosts(&merged), [("a", "a", Origin::Static)]);
    let text = merged.conflicts[0].to_string();
    assert_eq!(text, "instance id `a` (static, /p/apps.d/z.toml:4) is taken (static, /p/apps.d/a.toml:1)");
}

#[test]
fn a_dynamic_name_never_takes_a_configured_one() {
    let merged = merged(&[fixed("z", "shop")], &[entry("a", "shop", Source::Dynamic)], &[]);
    assert_eq!(hosts(&merged), [("z", "shop", Origin::Static)]);
    assert_eq!(merged.conflicts.len(), 1);
}

#[test]
fn a_static_instance_whose_given_name_is_taken_falls_back_to_its_own() {
    let statics = [fixed("a", "a"), fixed("b", "b")];
    let merged = merged(&statics, &[entry("a", "b", Source::Dynamic)], &[]);
    assert_eq!(hosts(&merged), [("a", "a", Origin::Static), ("b", "b", Origin::Static)]);
    assert_eq!(merged.conflicts.len(), 1);
}

#[test]
fn a_name_that_a_static_instance_gave_up_is_free() {
    let given = [entry("a", "new", Source::Dynamic), entry("c", "a", Source::Dynamic)];
    let merged = merged(&[fixed("a", "a")], &given, &[]);
    assert_eq!(hosts(&merged), [("a", "new", Origin::Static), ("c", "a", Origin::Dynamic)]);
}

#[test]
fn a_debug_instance_takes_neither_the_id_nor_the_name_of_another() {
    let debug = [entry("a", "free", Source::Debug), entry("d", "a", Source::Debug)];
    let merged = merged(&[fixed("a", "a")], &[], &debug);
    assert_eq!(hosts(&merged), [("a", "a", Origin::Static)]);
    let told: Vec<String> = merged.conflicts.iter().map(Conflict::to_string).collect();
    assert_eq!(
        told,
        [
            "instance id `a` (debug) is taken (static, /p/apps.d/a.toml:1)",
            "host name `a` of instance `d` (debug) is taken by instance `a` (static, /p/apps.d/a.toml:1)",
        ]
    );
}

#[test]
fn a_conflict_is_the_same_wherever_its_entries_stand_and_one_stands_for_one() {
    let at = |line| Source::File("/p/nexushub.toml".into(), Some(line));
    let of = |all: &[(&str, &str, Source)]| {
        let entries: Vec<_> = all.iter().map(|(id, host, source)| entry(id, host, source.clone())).collect();
        merged(&entries, &[], &[entry("d", "x", Source::Debug)]).conflicts
    };
    let now = of(&[("a", "x", at(1)), ("a", "y", at(4)), ("b", "x", at(7))]);
    assert_eq!(now.len(), 3);
    let moved = of(&[("a", "x", at(2)), ("a", "y", at(5)), ("b", "x", at(8))]);
    assert_ne!(moved, now);
    assert_eq!(further(moved, &now), []);
    let more = of(&[("a", "x", at(2)), ("a", "y", at(5)), ("a", "z", at(6)), ("b", "x", at(8))]);
    assert_eq!(further(more, &now).len(), 1, "another that claims the same id");
    let other = of(&[("c", "x", at(1)), ("b", "x", at(7))]);
    assert_eq!(further(other, &now).len(), 2, "another holds the name");
}

#[test]
fn an_entry_that_nobody_completes_is_not_desired() {
    let mut bare = entry("a", "a", Source::Dynamic);
    bare.fields.host_name = None;
    let merged = merged(&[], &[bare], &[]);
    assert!(merged.desired.is_empty());
    assert_eq!(merged.conflicts[0].clash, Clash::Incomplete);
}

#[test]
fn a_dynamic_instance_without_a_package_waits_and_holds_its_name() {
    let mut bare = entry("a", "a", Source::Dynamic);
    bare.fields.release = None;
    let merged = merged(&[], &[bare], &[entry("b", "a", Source::Debug)]);
    assert!(merged.desired.is_empty() && merged.waiting.len() == 1);
    assert!(matches!(&merged.conflicts[..], [lost] if lost.id.as_str() == "b"), "{:?}", merged.conflicts);
}

#[test]
fn what_is_reserved_is_the_configurations_alone() {
    let statics = [fixed("admin", "admin"), fixed("x", "x")];
    let mut hijack = entry("admin", "elsewhere", Source::Dynamic);
    hijack.fields.display_name = Some("Administration".into());
    let grab = entry("x", "admin", Source::Dynamic);
    let debug = [entry("admin", "mine", Source::Debug), entry("d", "admin", Source::Debug)];
    let both = merged(&statics, &[hijack, grab], &debug);
    assert_eq!(hosts(&both), [("admin", "admin", Origin::Static), ("x", "x", Origin::Static)]);
    let admin = &both.desired.values().next().unwrap().instance;
    assert_eq!(
        (admin.release.to_str(), admin.display_name.as_str()),
        (Some("/releases/admin"), "Administration")
    );
    assert_eq!(both.conflicts.len(), 3, "{:?}", both.conflicts);

    let none = merged(&[], &[entry("admin", "free", Source::Dynamic)], &[entry("d", "admin", Source::Debug)]);
    assert!(none.desired.is_empty() && none.waiting.is_empty());
    let told: Vec<String> = none.conflicts.iter().map(Conflict::to_string).collect();
    assert_eq!(
        told,
        [
            "instance id `admin` (dynamic, from the admin app) is reserved for an instance of the configuration",
            "host name `admin` of instance `d` (debug) is reserved for an instance of the configuration",
        ]
    );
}

/// One that says this of its requests besides.
fn routed(id: &str, host_name: &str, change: impl FnOnce(&mut Route)) -> Entry {
    let mut entry = fixed(id, host_name);
    change(entry.fields.route.insert(Route::default()));
    entry
}

/// Who is desired, and what the others are told.
fn told(statics: &[Entry]) -> (Vec<String>, Vec<String>) {
    let merged = merged(statics, &[], &[]);
    let conflicts = merged.conflicts.iter().map(Conflict::to_string).collect();
    (merged.desired.keys().map(ToString::to_string).collect(), conflicts)
}

#[test]
fn a_further_name_is_claimed_like_a_first_one_and_a_wildcard_takes_nobodys_name() {
    let shop = routed("a", "shop", |route| route.hosts = vec!["www".into(), "*.shop".into()]);
    let (desired, conflicts) = told(&[shop.clone(), fixed("b", "cart.shop"), fixed("c", "www")]);
    assert_eq!(desired, ["a", "b"]);
    assert_eq!(
        conflicts,
        [
            "host name `www` of instance `c` (static, /p/apps.d/c.toml:1) is taken by instance `a` (static, /p/apps.d/a.toml:1)"
        ]
    );
    let twin = routed("d", "d", |route| route.hosts = vec!["*.shop".into()]);
    assert_eq!(told(&[shop, twin]).0, ["a"]);
}

#[test]
fn a_name_is_shared_by_paths_and_by_those_who_say_so() {
    let below = |id: &str, path: &str| routed(id, "shop", |route| route.path_prefix = Some(path.into()));
    let (desired, conflicts) =
        told(&[fixed("a", "shop"), below("b", "/api"), below("c", "/api/v2"), below("d", "/api")]);
    assert_eq!(desired, ["a", "b", "c"]);
    assert!(conflicts[0].starts_with("host name `shop/api` of instance `d`"), "{conflicts:?}");
    let of = |id: &str, group: &str| routed(id, "shop", |route| route.balance = Some(group.into()));
    let (desired, conflicts) = told(&[of("a", "g"), of("b", "g"), of("c", "h"), fixed("d", "shop")]);
    assert_eq!((desired.join(" "), conflicts.len()), ("a b".into(), 2));
}

#[test]
fn whoever_shares_a_name_asks_its_clients_for_the_same_certificates() {
    let of = |id: &str, path: &str, ca: Option<&str>| {
        routed(id, "shop", |route| {
            route.path_prefix = Some(path.into());
            route.client_ca = ca.map(str::to_owned);
        })
    };
    let (desired, conflicts) =
        told(&[of("a", "/a", Some("/ca")), of("b", "/b", Some("/ca")), of("c", "/c", None)]);
    assert_eq!(desired, ["a", "b"]);
    assert!(conflicts[0].contains("`shop` of instance `c`") && conflicts[0].contains("another client_ca"));
}

#[test]
fn routes_that_can_not_be_together_leave_the_lower_one_and_are_told() {
    let below = routed("a", "shop", |route| route.path_prefix = Some("/a".into()));
    let mut above = entry("a", "given", Source::Dynamic);
    above.fields.route = Some(Route { sign_in: true, ..Route::default() });
    let merged = merged(std::slice::from_ref(&below), &[above], &[]);
    let a = &merged.desired.values().next().unwrap().instance;
    assert_eq!((a.host_name.as_str(), &a.route), ("shop", &below.fields.route));
    assert_eq!(
        merged.conflicts[0].to_string(),
        "the route of instance `a` (dynamic, from the admin app) can't be laid over what is below it: a host has one sign-in, so not below a path prefix (key `sign_in`)"
    );
}

fn any_entry(source: fn(u8) -> Source) -> impl Strategy<Value = Entry> {
    let pins =
        prop::collection::btree_set(prop_oneof![Just(Field::HostName), Just(Field::DisplayName)], 0..2);
    (0..5_u8, prop::option::of(0..5_u8), any::<bool>(), prop::option::of(0..3_u8), pins, 0..3_u8).prop_map(
        move |(id, name, release, display, pins, line)| {
            let fields = Fields {
                host_name: name.map(|n| host(&format!("h{n}"))),
                release: release.then(|| "/r".into()),
                display_name: display.map(|n| n.to_string()),
                ..Fields::default()
            };
            Entry { id: InstanceId::parse(&format!("i{id}")).unwrap(), fields, pins, source: source(line) }
        },
    )
}

fn entries(source: fn(u8) -> Source) -> impl Strategy<Value = (Vec<Entry>, Vec<Entry>)> {
    let list = prop::collection::vec(any_entry(source), 0..8);
    list.prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()))
}

fn file(line: u8) -> Source {
    Source::File("/f".into(), Some(line.into()))
}

/// As many of the static entries as get along: what the check of the configuration lets through.
fn without_conflicts(entries: &[Entry]) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries {
        kept.push(entry.clone());
        if !merged(&kept, &[], &[]).conflicts.is_empty() {
            kept.pop();
        }
    }
    kept
}

proptest! {
    #[test]
    fn the_order_of_the_entries_changes_nothing(
        s in entries(file), y in entries(|_| Source::Dynamic), d in entries(|_| Source::Debug)
    ) {
        prop_assert_eq!(merged(&s.0, &y.0, &d.0), merged(&s.1, &y.1, &d.1));
    }

    #[test]
    fn a_host_name_has_one_owner_and_every_id_is_desired_or_explained(
        s in entries(file), y in entries(|_| Source::Dynamic), d in entries(|_| Source::Debug)
    ) {
        let merged = merged(&s.0, &y.0, &d.0);
        let all = || merged.desired.iter().chain(&merged.waiting);
        let names: BTreeSet<_> = all().map(|(_, d)| &d.instance.host_name).collect();
        prop_assert_eq!(names.len(), all().count());
        for entry in s.0.iter().chain(&y.0).chain(&d.0) {
            let explained = merged.conflicts.iter().any(|conflict| conflict.id == entry.id);
            prop_assert!(all().any(|(id, _)| *id == entry.id) || explained, "{:?}", entry);
        }
    }

    #[test]
    fn dynamic_and_debug_entries_never_displace_a_static_instance(
        s in entries(file), y in entries(|_| Source::Dynamic), d in entries(|_| Source::Debug)
    ) {
        let statics = without_conflicts(&s.0);
        let alone = merged(&statics, &[], &[]);
        let with_debug = merged(&statics, &[], &d.0);
        let all = merged(&statics, &y.0, &d.0);
        for entry in &statics {
            let before = &alone.desired[&entry.id];
            prop_assert_eq!(with_debug.desired.get(&entry.id), Some(before));
            let pinned = entry.pins.contains(&Field::HostName);
            let after = all.desired.get(&entry.id);
            prop_assert!(!pinned || after.is_some_and(|after| after.instance.host_name == before.instance.host_name));
            prop_assert!(after.is_none_or(|after| after.origin == Origin::Static));
        }
    }

    #[test]
    fn pins_hold_whatever_the_admin_app_says(s in any_entry(file), mut y in any_entry(|_| Source::Dynamic)) {
        y.id = s.id.clone();
        let over = y.fields.over(&s.fields, &s.pins);
        if s.pins.contains(&Field::HostName) {
            prop_assert_eq!(&over.host_name, &s.fields.host_name);
        }
        let expected = if s.pins.contains(&Field::DisplayName) { &s.fields.display_name }
            else { y.fields.display_name.as_ref().map_or(&s.fields.display_name, |_| &y.fields.display_name) };
        prop_assert_eq!(&over.display_name, expected);
    }
}
