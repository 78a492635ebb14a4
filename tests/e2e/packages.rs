//! Packages that lie are refused with a reason, and nothing of them stays.

use std::{fs, path::Path};

use nexushub_e2e::{
    Platform,
    package::{Package, md5},
    raw::noise,
};

async fn refused(platform: &Platform, what: &str, package: &[u8]) {
    let developer = platform.developer();
    let id = developer.created("bad").await;
    developer.upload(&id, package).await;
    let answer = developer.post(&id, "/install").await;
    assert!(
        answer.status.is_client_error() || answer.status.as_u16() == 500,
        "{what}: {} {}",
        answer.status,
        answer.text()
    );
    assert!(!answer.text().trim().is_empty(), "{what}: a reason");
    assert_ne!(developer.status(&id).await["status"], "running", "{what}");
    assert_eq!(developer.delete(&id).await.status, 204, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_that_escapes_swells_or_is_none_is_refused_and_leaves_nothing() {
    let platform = Platform::start();
    let home = platform.home.path();
    let outside = home.join("outside");
    let app = |package: Package| {
        package.program("bin/app", &nexushub_e2e::workshop::program("nexushub-probe")).bytes()
    };
    let climb = format!("{}{}", "../".repeat(20), outside.display().to_string().trim_start_matches('/'));
    let packages = [
        ("a name that climbs", app(Package::default().file("../../../../outside", b"x"))),
        ("a name that climbs far", app(Package::default().file(&climb, b"x"))),
        ("an absolute name", app(Package::default().file(outside.to_str().unwrap(), b"x"))),
        ("a name with a backslash", app(Package::default().file("..\\..\\outside", b"x"))),
        ("a link out", app(Package::default().link("escape", home.to_str().unwrap()))),
        (
            "a link and a file through it",
            app(Package::default().link("escape", home.to_str().unwrap()).file("escape/outside", b"x")),
        ),
        ("a bomb", Package::default().file("bin/app", b"#!/bin/sh\n").zeros("bomb", 64 << 20).bytes()),
        ("no zip at all", noise(11, 100_000)),
        ("half a zip", Package::probe().bytes()[..200_000].to_vec()),
    ];
    for (what, package) in packages {
        refused(&platform, what, &package).await;
        assert!(!outside.exists(), "{what} escaped");
    }
    assert!(leftovers(&platform.state().join("debug-api")) < 100, "what was refused is not kept");
    let developer = platform.developer();
    developer.push("good", &Package::probe().bytes()).await;
    platform
        .instances_until("a good one runs", |all| {
            all.values().any(|status| status.host_name == "good.debug" && status.routed)
        })
        .await;
}

fn leftovers(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { leftovers(&entry.path()) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_cannot_be_are_refused_and_the_right_ones_still_count() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.created("shop").await;
    let package = Package::probe().bytes();
    let hash = md5(&package);
    for (index, total) in [(-5, 1), (7, 1), (1, 1), (0, 0), (0, -1), (0, i64::MAX), (i64::MAX, i64::MAX)] {
        let answer = developer.chunk(&id, index, total, &hash, b"x").await;
        assert_eq!(answer.status, 400, "{index} of {total}: {}", answer.text());
    }
    for hash in ["", "short", "../../etc/passwd", &"z".repeat(32)] {
        let answer = developer.chunk(&id, 0, 1, hash, b"x").await;
        assert_eq!(answer.status, 400, "{hash:?}: {}", answer.text());
    }
    let garbage = developer
        .call(
            http::Method::POST,
            &format!("/debug/application/{id}/upload"),
            "multipart/form-data; boundary=x",
            noise(1, 5000),
        )
        .await;
    assert_eq!(garbage.status, 400, "{}", garbage.text());
    developer.upload(&id, &package).await;
    assert_eq!(developer.post(&id, "/install").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_that_cannot_be_are_refused() {
    let platform = Platform::start();
    let developer = platform.developer();
    let bodies = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "{\"appId\": 5}".to_owned(),
        r#"{"appId":"a","displayName":"b","hostName":"c"}"#.to_owned(),
        r#"{"appId":"debug-../../../pwn","displayName":"b","hostName":"../c","dbName":"d"}"#.to_owned(),
        r#"{"appId":"debug-a","displayName":"b","hostName":"login","dbName":"d"}"#.to_owned(),
        r#"{"appId":"debug-a","displayName":"b","hostName":"a b","dbName":"d"}"#.to_owned(),
        "x".repeat(1 << 20),
        "[".repeat(50_000),
    ];
    for body in bodies {
        let shown: String = body.chars().take(80).collect();
        let answer = developer.call(http::Method::POST, "/debug/application", "application/json", body).await;
        assert!(answer.status.is_client_error(), "{shown}: {} {}", answer.status, answer.text());
    }
    for id in ["nobody", "..", "%2e%2e%2f", "%00", &"a".repeat(2000)] {
        for what in ["", "/status", "/logs", "/upload/status"] {
            let answer = developer.get(id, what).await;
            assert!(answer.status.is_client_error(), "{id}{what}: {}", answer.status);
        }
    }
    assert_eq!(developer.create("fine").await.status, 201);
}

/// What a program header says of the loader's name.
const PT_INTERP: usize = 3;

/// Whether an ELF file names a loader, without which it can't be started.
fn asks_for_a_loader(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        elf[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    assert_eq!(&elf[..5], b"\x7fELF\x02");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|header| number(table + header * size, 4) == PT_INTERP)
}

#[test]
fn the_platforms_own_apps_run_in_boxes_where_there_is_no_loader() {
    for app in ["nexushub-login", "nexushub-admin", "nexushub-hello"] {
        let program = fs::read(nexushub_e2e::workshop::program(app)).unwrap();
        assert!(!asks_for_a_loader(&program), "{app} is linked dynamically; dist/build links it statically");
    }
    assert!(asks_for_a_loader(&fs::read(std::env::current_exe().unwrap()).unwrap()), "as this one does");
}
