//! What is asked of the platform is noted, by whom and from where, in a record that shows when somebody changes it.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt};

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{
    App, FORGIVING, Options, Platform, Protocol, accounts::Accounts, package::Package, workshop,
};
use serde_json::{Value, json};

/// What the command prints, and whether it ended well.
fn audit(platform: &Platform, arguments: &[&str]) -> (bool, String) {
    let output = workshop::nexushub(platform.home.path(), &[&["audit"], arguments].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn entries(platform: &Platform) -> Vec<Value> {
    let (well, said) = audit(platform, &["--output", "json"]);
    assert!(well, "{said}");
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until something is noted so often: it is written after its answer.
async fn noted(platform: &Platform, what: &str, times: usize) -> Value {
    let there = async {
        loop {
            let mut found = entries(platform);
            found.retain(|entry| entry["what"] == what);
            if found.len() >= times {
                return found.pop().unwrap();
            }
        }
    };
    nexushub_e2e::soon(what, there).await
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_noted_with_who_asked_and_from_where_and_kept_over_kills() {
    let platform = Platform::start_with(&Options::with(FORGIVING));
    let developer = platform.developer();
    let id = developer.push("shop", &Package::probe().bytes()).await;
    developer.post(&id, "/stop").await;
    for (what, detail) in [
        ("application.create", "at shop.debug"),
        ("application.upload", "package "),
        ("application.install", "package "),
        ("application.stop", ""),
    ] {
        let entry = noted(&platform, what, 1).await;
        assert_eq!((&entry["who"], &entry["object"]), (&"operator".into(), &id.as_str().into()), "{entry}");
        assert_eq!((&entry["from"], &entry["result"]), (&"127.0.0.1".into(), &"ok".into()), "{entry}");
        assert!(entry["detail"].as_str().unwrap().starts_with(detail), "{entry}");
    }
    let put = noted(&platform, "instance.put", 1).await;
    assert_eq!((&put["who"], &put["daemon"]), (&"debug-api".into(), &"provider".into()), "{put}");
    noted(&platform, "instance.remove", 1).await;
    for daemon in ["provider", "debug-api"] {
        platform.kill(daemon).await;
    }
    let seen: BTreeSet<String> = entries(&platform).iter().map(Value::to_string).collect();
    developer.delete(&id).await;
    let gone = noted(&platform, "application.delete", 1).await;
    assert_eq!(gone["object"], id.as_str());
    noted(&platform, "instance.remove", 2).await;
    let now: BTreeSet<String> = entries(&platform).iter().map(Value::to_string).collect();
    assert!(now.is_superset(&seen), "nothing of it was lost");
    let (well, said) = audit(&platform, &["verify"]);
    assert!(well && said.contains("provider: ") && said.contains("debug-api: "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_administrators_change_is_in_the_platforms_log_though_debug_api_dies_meanwhile() {
    let accounts = Accounts::start("").await;
    let bearer = accounts.bearer().await;
    let shop =
        json!({ "type": "CreateApplication", "appId": "shop", "displayName": "Shop", "hostName": "shop" });
    accounts.publish(&bearer, "first", &shop).await;
    let made = noted(&accounts.platform, "application.create", 1).await;
    assert_eq!((&made["who"], &made["from"]), (&"admin".into(), &"127.0.0.1".into()), "{made}");
    accounts.platform.daemon("debug-api").await.kill();
    let user = json!({ "type": "AddUser", "username": "zoe", "password": "a long enough one" });
    accounts.publish(&bearer, "second", &user).await;
    let user = noted(&accounts.platform, "user.create", 1).await;
    assert_eq!((&user["who"], &user["object"]), (&"admin".into(), &"user 2".into()), "{user}");
    let said = entries(&accounts.platform).iter().map(Value::to_string).collect::<String>();
    assert!(!said.contains("a long enough one"), "no password is noted");
    assert!(audit(&accounts.platform, &["verify"]).0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_in_and_who_is_refused_is_in_the_platforms_log() {
    let accounts = Accounts::start("").await;
    accounts.log_in("admin", "a guess", "").await;
    let refused = noted(&accounts.platform, "session.begin", 1).await;
    assert_eq!(
        (&refused["result"], &refused["object"]),
        (&"refused".into(), &"\"admin\"".into()),
        "{refused}"
    );
    let bearer = accounts.bearer().await;
    let signed_in = noted(&accounts.platform, "session.begin", 2).await;
    assert_eq!(
        (&signed_in["who"], &signed_in["from"]),
        (&"admin".into(), &"127.0.0.1".into()),
        "{signed_in}"
    );
    let user = json!({ "type": "AddUser", "username": "zoe", "password": "weak" }).to_string();
    let request = Request::post("/api/publish?cid=1").header("authorization", bearer);
    let request = request.header("content-type", "application/json").body(Full::from(user)).unwrap();
    let answer = accounts.platform.https().send(Protocol::Http1, "admin", request).await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    let refused = noted(&accounts.platform, "user.create", 1).await;
    assert_eq!((&refused["result"], &refused["who"]), (&"refused".into(), &"admin".into()), "{refused}");
    assert!(!entries(&accounts.platform).iter().any(|entry| entry.to_string().contains("weak")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_that_somebody_changed_is_found_with_its_file_and_line() {
    let platform = Platform::start();
    for name in ["one", "two", "three"] {
        platform.put(platform.instance(&App::named(name))).await.unwrap();
    }
    platform.put(platform.instance(&App { name: "no name".into(), ..App::named("x") })).await.unwrap_err();
    let refused = noted(&platform, "instance.put", 4).await;
    assert_eq!((&refused["result"], &refused["who"]), (&"failed".into(), &"operator".into()), "{refused}");
    let log = platform.home.state().join("audit/provider.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(audit(&platform, &["verify"]).0);
    let changed = fs::read_to_string(&log).unwrap().replacen("\"object\":\"two\"", "\"object\":\"twe\"", 1);
    fs::write(&log, changed).unwrap();
    let (well, said) = audit(&platform, &["verify"]);
    assert!(!well && said.contains(&format!("{}:2: ", log.display())), "{said}");
}
