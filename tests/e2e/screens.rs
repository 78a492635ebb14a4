//! What people look at: `top` on a real terminal, and `doctor` with the file for whoever is to help.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command, sync::Arc};

use nexushub_e2e::{App, HANG, Platform, Signal, raw::noise, terminal::Terminal, workshop::nexushub};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

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
    let said: Value = platform.https().get("shop", "/public/whoami").await.json();
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

/// Bytes that a slow line lets pass before it stands.
const AHEAD: usize = 1 << 20;

/// A line to the platform that stands once so much has gone over it, until it is told to go on. Its own address.
async fn slow_line(to: SocketAddr) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, go_on) = (listener.local_addr().unwrap(), Arc::new(Notify::new()));
    let gate = Arc::clone(&go_on);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                let platform = TcpStream::connect(to).await.unwrap();
                let ((mut from, mut back), (mut answers, mut on)) =
                    (client.into_split(), platform.into_split());
                tokio::spawn(async move { copy(&mut answers, &mut back).await });
                let (mut buffer, mut passed) = (vec![0; 64 << 10], 0);
                while let Ok(length @ 1..) = from.read(&mut buffer).await {
                    if passed < AHEAD && passed + length >= AHEAD {
                        gate.notified().await;
                    }
                    passed += length;
                    if on.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, go_on)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_a_terminal_sees_for_what_and_a_pipe_is_not_told() {
    let platform = Platform::start();
    let source = platform.release("source");
    fs::rename(source.join("bin/app"), source.join("bin/probe")).unwrap();
    // One that takes longer than nobody needs to be told of.
    fs::write(source.join("bin/app"), "#!/bin/sh\nsleep 1\nexec \"$(dirname \"$0\")/probe\"\n").unwrap();
    fs::set_permissions(source.join("bin/app"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(source.join("ballast"), noise(9, 4 << 20)).unwrap();
    let (address, go_on) = slow_line(platform.address).await;
    let (source, url) = (source.display().to_string(), format!("https://localhost:{}", address.port()));
    let push = ["push", source.as_str(), "--name", "shop", "--url", url.as_str()];
    let mut terminal = Terminal::start(platform.home.path(), platform.home.path(), &push);
    terminal.shows("uploading [####");
    go_on.notify_one();
    terminal.shows("waiting until it answers (");
    let rest = terminal.reads("shop answers at");
    assert!(rest.contains("\r\u{1b}[K"), "the line is gone before the last word: {rest:?}");
    assert_eq!(terminal.end().code(), Some(0));

    let mut restart = Terminal::start(platform.home.path(), platform.home.path(), &["restart", "shop"]);
    restart.shows("waiting until the next shop answers (");
    restart.shows("shop runs as process");
    assert_eq!(restart.end().code(), Some(0));

    let piped = nexushub(platform.home.path(), &["restart", "shop"]);
    let told = String::from_utf8_lossy(&[piped.stdout, piped.stderr].concat()).into_owned();
    assert!(told.starts_with("shop runs as process") && !told.contains("waiting"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_page_goes_through_man_at_a_terminal_and_is_roff_elsewhere() {
    let platform = Platform::prepare(&nexushub_e2e::Options::default());
    let page = nexushub(platform.home.path(), &["man"]);
    assert!(
        page.status.success() && page.stdout.windows(14).any(|text| text == b".TH nexushub 1"),
        "{page:?}"
    );
    let programs = platform.home.path().join("programs");
    fs::create_dir(&programs).unwrap();
    fs::write(programs.join("man"), "#!/bin/sh\necho \"shown: $1\"; /usr/bin/grep -c TH \"$2\"\n").unwrap();
    fs::set_permissions(programs.join("man"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = programs.display().to_string() + ":/usr/bin:/bin";
    let variables = [("PATH", Path::new(&path))];
    let mut terminal = Terminal::start_elsewhere(platform.home.path(), &["man"], &variables);
    terminal.shows("shown: --local-file");
    assert_eq!(terminal.end().code(), Some(0));
}
