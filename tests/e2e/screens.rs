//! What people look at: `top` on a real terminal, and `doctor` with the file for whoever is to help.

use std::{fs, path::Path, process::Command};

use nexushub_e2e::{App, HANG, Platform, Signal, terminal::Terminal, workshop::nexushub};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_daemons_apps_requests_and_a_log_and_leaves_the_terminal_as_it_was() {
    let platform = Platform::start();
    platform.run_app(&App::named("shop")).await;
    let mut terminal = Terminal::start(platform.home.path(), platform.home.path(), &["top"]);
    for text in ["DAEMON", "procmgr", "proxy", "APP", "shop", "q quit"] {
        terminal.shows(text);
    }
    terminal.press("l");
    terminal.shows("log of app-shop");
    terminal.shows("probe: listening");
    terminal.press("/nobody\r");
    terminal.shows("only \"nobody\"");
    terminal.press("q");
    terminal.leaves_its_screen();
    assert_eq!(terminal.end().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn top_hears_keys_while_a_daemon_hangs_and_says_how_old_its_news_are() {
    let platform = Platform::start();
    platform.run_app(&App::named("shop")).await;
    let mut terminal = Terminal::start(platform.home.path(), platform.home.path(), &["top", "--logs"]);
    terminal.shows("probe: listening");
    let procmgr = platform.daemon("procmgr").await;
    procmgr.signal(Signal::STOP);
    terminal.shows("apps as of");
    terminal.press("/shop\r");
    terminal.shows("only \"shop\"");
    terminal.press("q");
    terminal.leaves_its_screen();
    assert_eq!(terminal.end().code(), Some(0));
    procmgr.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn top_that_is_told_to_end_leaves_the_terminal_as_it_was_too() {
    let platform = Platform::start();
    let mut terminal = Terminal::start(platform.home.path(), platform.home.path(), &["top"]);
    terminal.shows("q quit");
    terminal.process().signal(Signal::TERM);
    terminal.leaves_its_screen();
    assert_eq!(terminal.end().code(), Some(0));
    let terminal = Terminal::start(platform.home.path(), platform.home.path(), &["top"]);
    terminal.shows("q quit");
    assert!(terminal.hang_up().ended_within(HANG));
    let blind = nexushub(platform.home.path(), &["top"]);
    assert_eq!(blind.status.code(), Some(2), "without a terminal there is nothing to draw on");
}

/// Every secret of a platform: the contents of the files that nobody else may read.
fn secrets(run: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(run).unwrap().flatten().filter(|entry| !entry.path().ends_with("status.json")) {
        let path = entry.path();
        if path.is_dir() {
            secrets(&path, found);
        } else if path.is_file() {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let is_secret =
                |word: &&str| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
            found.extend(text.split_whitespace().filter(is_secret).map(str::to_owned));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_for_whoever_is_to_help_holds_how_everything_is_and_no_secret() {
    let platform = Platform::start();
    platform.run_app(&App::named("shop").env("PASSWORD", "hush-hush")).await;
    let said: Value = platform.https().get("shop", "/api/whoami").await.json();
    let own = said["env"]["INTERNAL_SECRET"].as_str().unwrap().to_owned();
    let file = platform.home.path().join("support.tar");
    let doctor = nexushub(platform.home.path(), &["doctor", "--bundle", file.to_str().unwrap()]);
    let table = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        ["kernel", "KVM", "HTTPS", "certificate", "ports", "clock", "disk"]
            .iter()
            .all(|what| table.contains(what)),
        "{table}"
    );
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["doctor.json", "status.json", "config.toml", "metrics.txt", "platform.log", "machine.txt"] {
        assert!(names.lines().any(|line| line == name), "{name}: {names}");
    }
    let held = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    assert!(
        held.contains("nexushub_proxy_requests_total") && held.contains("\"shop\""),
        "it says how everything is"
    );
    let mut all = vec!["hush-hush".to_owned(), own];
    secrets(&platform.home.run(), &mut all);
    assert!(all.len() > 10 && all.iter().all(|secret| !secret.is_empty()), "{all:?}");
    let told = all.iter().find(|secret| held.contains(secret.as_str()));
    assert_eq!(told, None);
    let again = nexushub(platform.home.path(), &["doctor", "--bundle", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1), "nothing is written over");
}

#[test]
fn a_configuration_is_shown_judged_and_described_without_a_platform() {
    let platform = Platform::prepare(&nexushub_e2e::Options::default());
    let run = |arguments: &[&str]| nexushub(platform.home.path(), arguments);
    let shown = String::from_utf8_lossy(&run(&["config", "show"]).stdout).into_owned();
    assert!(shown.contains("health_interval_ms = 400 # default: 10000"), "{shown}");
    let json: Value = serde_json::from_slice(&run(&["config", "show", "-o", "json"]).stdout).unwrap();
    assert_eq!(
        (&json["version"], &json["tables"]["procmgr"]["health_interval_ms"]),
        (&1.into(), &400.into())
    );
    let schema: Value = serde_json::from_slice(&run(&["config", "schema"]).stdout).unwrap();
    assert_eq!(schema["properties"]["procmgr"]["properties"]["health_interval_ms"]["type"], "integer");
    assert!(run(&["config", "check"]).status.success());
}
