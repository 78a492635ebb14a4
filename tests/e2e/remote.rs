//! Somebody works with the platform from a machine of their own: logs in, pushes, watches, goes back, logs out. Nothing on that
//! machine is the platform's but its address and its CA: no socket, no token, no configuration.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{
    HANG, Platform, Process, Protocol, Signal, accounts::Accounts, soon, terminal::Terminal, workshop,
};
use serde_json::{Value, json};

/// Apps without boxes.
const PLAIN: &str = "[debug-api]\ndriver = \"process\"\n";
const ADMIN: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";
const PASSWORD: &str = "correct horse battery";

/// A platform with Zoe, who is an administrator, and Bob, who is none.
async fn platform() -> (Accounts, String) {
    let accounts = Accounts::start(PLAIN).await;
    let bearer = accounts.bearer().await;
    for (id, event) in [
        ("1", json!({ "type": "AddUser", "username": "zoe", "password": PASSWORD })),
        ("2", json!({ "type": "AddUser", "username": "bob", "password": PASSWORD })),
        (
            "3",
            json!({ "type": "CreateUserAccessRule", "applicationId": ADMIN, "ruleType": "ACCEPT", "subjectType": "USER", "subjectId": 2 }),
        ),
    ] {
        accounts.publish(&bearer, id, &event).await;
    }
    (accounts, bearer)
}

/// Somebody's own machine.
struct Laptop {
    folder: tempfile::TempDir,
    url: String,
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{} {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

impl Laptop {
    fn of(platform: &Platform) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(platform.home.certs().join("ca.crt"), folder.path().join("ca.crt")).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder, url: format!("https://admin.{}:{}", workshop::DOMAIN, platform.address.port()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(workshop::program("nexushub"));
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&self.path("work"), arguments).output().unwrap()
    }

    /// Runs it to its good end.
    fn well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it writes for programs.
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.well(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    fn log_in(&self, url: &str, name: &str, password: &str) -> Output {
        let ca = self.path("ca.crt").display().to_string();
        let mut command = self.command(&self.path("work"), &["login", url, "--user", name, "--ca", &ca]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that is refused before it asks for a password reads none.
        let _ = writeln!(child.stdin.take().unwrap(), "{password}");
        child.wait_with_output().unwrap()
    }

    /// Logs Zoe in.
    fn of_zoe(platform: &Platform) -> Self {
        let laptop = Self::of(platform);
        let output = laptop.log_in(&laptop.url, "zoe", PASSWORD);
        assert!(output.status.success(), "{}", said(&output));
        laptop
    }

    fn kept(&self) -> PathBuf {
        self.path(".config/nexushub/platforms.json")
    }

    /// A package whose page says this.
    fn package(&self, page: &str) -> String {
        let folder = self.path(page);
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::create_dir_all(folder.join("static")).unwrap();
        workshop::install(&workshop::program("nexushub-probe"), &folder.join("bin/app"));
        fs::write(folder.join("static/page.txt"), page).unwrap();
        folder.display().to_string()
    }
}

async fn shows(platform: &Platform, page: &str) {
    let shown = async { while platform.https().get("shop", "/page.txt").await.text() != page {} };
    soon(page, shown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_pushes_watches_goes_back_and_leaves_from_another_machine() {
    let (accounts, _) = platform().await;
    let platform = &accounts.platform;
    let laptop = Laptop::of(platform);
    assert_eq!(laptop.run(&["apps"]).status.code(), Some(1), "there is nothing on this machine");
    let output = laptop.log_in(&laptop.url, "zoe", PASSWORD);
    assert!(said(&output).contains(&format!("logged in at {} as zoe", laptop.url)), "{}", said(&output));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&laptop.kept()), mode(laptop.kept().parent().unwrap())), (0o600, 0o700));
    assert!(!fs::read_to_string(laptop.kept()).unwrap().contains(PASSWORD));
    assert!(laptop.well(&["apps"]).contains("no apps yet"));

    let pushed = laptop.well(&["push", &laptop.package("one"), "--name", "shop"]);
    let url = format!("https://shop.{}:{}/", workshop::DOMAIN, platform.address.port());
    assert!(pushed.contains(&url), "{pushed}");
    shows(platform, "one").await;
    as_here(&laptop, platform);
    assert!(laptop.well(&["status"]).contains(&format!("the platform at {}: everything runs", laptop.url)));
    assert!(laptop.well(&["status", "shop"]).contains(&url));
    assert!(said(&laptop.run(&["status", "nobody"])).contains("there is no app `nobody`"));

    assert!(laptop.well(&["push", &laptop.package("two"), "--name", "shop"]).contains(&url));
    shows(platform, "two").await;

    assert!(laptop.well(&["stop", "shop"]).contains("stopped, until nexushub start shop"));
    assert!(laptop.well(&["wait", "shop", "--for", "gone"]).contains("is gone"));
    let late = laptop.run(&["wait", "shop", "--timeout", "0"]);
    assert!(late.status.code() == Some(1) && said(&late).contains("no such app"), "{}", said(&late));
    laptop.well(&["start", "shop"]);
    assert!(laptop.well(&["wait", "shop"]).contains("is healthy"));
    shows(platform, "two").await;

    let here = workshop::nexushub(platform.home.path(), &["releases", "shop", "-o", "json"]);
    let releases = laptop.json(&["releases", "shop"]);
    assert_eq!(releases, serde_json::from_slice::<Value>(&here.stdout).unwrap());
    let first = releases["releases"][1]["id"].as_str().unwrap().to_owned();
    assert!(laptop.well(&["rollback", "shop"]).contains(&first));
    shows(platform, "one").await;

    let kept: Value = serde_json::from_str(&fs::read_to_string(laptop.kept()).unwrap()).unwrap();
    let token = kept["platforms"][0]["refresh_token"].as_str().unwrap().to_owned();
    assert!(laptop.well(&["logout"]).contains("logged out"));
    assert!(!fs::read_to_string(laptop.kept()).unwrap().contains(&token));
    let exchange = Request::post("/public/access_token").header("cookie", format!("YRT={token}"));
    let answer =
        platform.https().send(Protocol::Http1, "admin", exchange.body(Full::default()).unwrap()).await;
    assert_eq!(answer.unwrap().status, 403, "the platform has ended it, too");
    assert_eq!(laptop.run(&["apps"]).status.code(), Some(1));
    assert!(said(&laptop.run(&["logout"])).contains("nobody is logged in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_is_watched_on_a_screen_from_another_machine() {
    let (accounts, _) = platform().await;
    let platform = &accounts.platform;
    let laptop = Laptop::of_zoe(platform);
    laptop.well(&["push", &laptop.package("one"), "--name", "shop"]);
    let home = laptop.folder.path();
    let mut terminal = Terminal::start_elsewhere(&laptop.path("work"), &["top"], &[("HOME", home)]);
    for text in [&format!("the platform at {}", laptop.url), "APP", "debug-shop", "running", "process"] {
        terminal.shows(text);
    }
    let (https, heard) = (platform.https(), Arc::new(AtomicBool::new(false)));
    let until = Arc::clone(&heard);
    let asks = tokio::spawn(async move {
        while !until.load(Ordering::Relaxed) {
            https.get("shop", "/page.txt").await;
        }
    });
    terminal.shows(" ms"); // how long they took, which nobody knows before the proxy says it counted any
    heard.store(true, Ordering::Relaxed);
    asks.await.unwrap();
    terminal.press("l");
    terminal.shows("log of debug-shop");
    terminal.shows("probe: listening");
    laptop.well(&["pause", "shop"]);
    terminal.shows("paused");
    terminal.press("q");
    terminal.leaves_its_screen();
    assert_eq!(terminal.end().code(), Some(0));
}

/// What programs are told is of one form, and of one app the same, here and there.
fn as_here(laptop: &Laptop, platform: &Platform) {
    let shop = |told: &Value, list: &str| {
        let one = told[list].as_array().unwrap().iter().find(|one| one["app_id"] == "debug-shop");
        one.unwrap_or_else(|| panic!("{told}")).as_object().unwrap().clone()
    };
    for (command, list, same) in [
        (
            "apps",
            "apps",
            &["id", "host_name", "url", "state", "reason", "origin", "driver", "generation", "since_unix_ms"]
                [..],
        ),
        (
            "status",
            "instances",
            &[
                "id",
                "host_name",
                "url",
                "state",
                "reason",
                "pid",
                "generation",
                "restarts",
                "driver",
                "routed",
            ],
        ),
        ("status", "apps", &["id", "host_name", "status", "created_unix_ms"]),
    ] {
        let there = laptop.json(&[command]);
        let here = workshop::nexushub(platform.home.path(), &[command, "-o", "json"]);
        let here: Value = serde_json::from_slice(&here.stdout).unwrap();
        assert!(there.as_object().unwrap().keys().eq(here.as_object().unwrap().keys()), "{command}: {there}");
        let (there, here) = (shop(&there, list), shop(&here, list));
        assert!(there.keys().eq(here.keys()), "{command}: {there:?} {here:?}");
        for name in same {
            assert_eq!(there[*name], here[*name], "{command}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_over_the_death_of_debug_api_each_line_once() {
    let (accounts, _) = platform().await;
    let platform = &accounts.platform;
    let laptop = Laptop::of_zoe(platform);
    laptop.well(&["push", &laptop.package("one"), "--name", "shop"]);
    shows(platform, "one").await;
    let mut command = laptop.command(&laptop.path("work"), &["logs", "-f", "shop", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |text: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(text));
        serde_json::from_str::<Value>(&line.unwrap_or_else(|| panic!("it ended before {text}"))).unwrap()
    };
    let begun = until("probe: listening");
    assert!(begun["cursor"].is_string() && begun["pid"].is_number(), "{begun}");
    platform.https().get("shop", "/public/print?text=before&count=1").await;
    until("before");
    platform.kill("debug-api").await;
    platform.https().get("shop", "/public/print?text=after&count=1").await;
    let next = lines.next().unwrap().unwrap();
    assert!(next.contains("after"), "nothing is told twice: {next}");
    child.kill().unwrap();
    child.wait().unwrap();

    let last = laptop.well(&["logs", "shop", "-n", "1", "--since", "1h", "--grep", "before"]);
    assert_eq!(last.lines().count(), 1, "{last}");
    let loud = laptop.run(&["logs", "shop", "--level", "loud"]);
    assert!(loud.status.code() == Some(2) && said(&loud).contains("--level"), "{}", said(&loud));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_paused_resumed_and_started_anew_from_another_machine_and_its_events_are_seen() {
    let (accounts, _) = platform().await;
    let platform = &accounts.platform;
    let laptop = Laptop::of_zoe(platform);
    laptop.well(&["push", &laptop.package("one"), "--name", "shop"]);
    let mut command = laptop.command(&laptop.path("work"), &["events", "shop", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |state: &str, generation: u64| {
        let events = lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let found =
            events.into_iter().find(|event| event["state"] == state && event["generation"] == generation);
        assert_eq!(found.map(|event| event["kind"].clone()), Some("app".into()), "{state} {generation}");
    };
    until("running", 1);
    let closed = laptop.well(&["pause", "shop", "--message", "back & soon", "--stop"]);
    assert!(closed.contains("shop is closed, until nexushub resume shop"), "{closed}");
    let told = async { while !platform.https().get("shop", "/").await.text().contains("back & soon") {} };
    soon("who asks is told so", told).await;
    until("running, paused", 1);
    assert!(laptop.well(&["resume", "shop"]).contains("is resumed"));
    shows(platform, "one").await;
    let anew = laptop.well(&["restart", "shop"]);
    assert!(anew.contains("shop runs as process") && anew.contains("start 2"), "{anew}");
    until("running", 2);
    shows(platform, "one").await;
    for verb in ["pause", "resume", "restart"] {
        let none = laptop.run(&[verb, "nobody"]);
        assert!(said(&none).contains("there is no app `nobody`\n  see nexushub status"), "{}", said(&none));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why_and_nothing_is_kept() {
    let (accounts, _) = platform().await;
    let laptop = Laptop::of(&accounts.platform);
    let (port, url) = (accounts.platform.address.port(), laptop.url.clone());
    let (outside, nobody) =
        (format!("https://localhost:{port}"), "https://admin.yesterday.localhost:1".to_owned());
    for (url, name, password, words) in [
        (&url, "zoe", "wrong", "wrong password, or there is no user `zoe`"),
        (&url, "nobody", PASSWORD, "wrong password, or there is no user `nobody`"),
        (&url, "bob", PASSWORD, "that is for its administrators"),
        (&url, "zoe", "", "nothing was typed"),
        (&outside, "zoe", PASSWORD, "says that people log in at login.yesterday.localhost"),
        (&nobody, "zoe", PASSWORD, "could not connect"),
    ] {
        let output = laptop.log_in(url, name, password);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words), "{words:?}: {}", said(&output));
    }
    for (arguments, code, words) in [
        (&["login", &url, "--user", "zoe"][..], 1, "certificate"),
        (&["login", &url, "--user", "zoe", "--ca", "/nowhere/ca.crt"], 1, "/nowhere/ca.crt"),
        (&["login", "http://admin.x", "--user", "zoe"], 2, "https://"),
        (&["apps", "--platform", &url], 1, "nobody is logged in at"),
    ] {
        let output = laptop.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(words), "{words:?}: {}", said(&output));
    }
    assert!(!laptop.kept().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_an_administrator_ends_is_over_and_begun_anew_by_another_login() {
    let (accounts, bearer) = platform().await;
    let laptop = Laptop::of_zoe(&accounts.platform);
    let all: Vec<_> = (0..6)
        .map(|_| {
            let mut command = laptop.command(&laptop.path("work"), &["apps", "-o", "json"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "commands at once don't end the session: {}", said(&output));
    }
    let other = "another horse battery";
    let change = json!({ "type": "UpdateUserPassword", "userId": 2, "password": other });
    accounts.publish(&bearer, "4", &change).await;
    soon("the session ends", async { while laptop.run(&["apps"]).status.success() {} }).await;
    let output = laptop.run(&["apps"]);
    let words = format!("the session at {} has ended\n  nexushub login {}", laptop.url, laptop.url);
    assert!(said(&output).contains(&words), "{}", said(&output));
    assert!(said(&laptop.log_in(&laptop.url, "zoe", PASSWORD)).contains("wrong password"));
    assert!(laptop.log_in(&laptop.url, "zoe", other).status.success());
    laptop.well(&["apps"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_typed_unseen_and_the_terminal_is_as_it_was_however_that_ends() {
    let (accounts, _) = platform().await;
    let laptop = Laptop::of(&accounts.platform);
    let ca = laptop.path("ca.crt").display().to_string();
    let arguments = ["login", &laptop.url, "--ca", &ca];
    let config = laptop.path("elsewhere");
    let variables = [("XDG_CONFIG_HOME", config.as_path())];
    let mut terminal = Terminal::start_elsewhere(&laptop.path("work"), &arguments, &variables);
    terminal.shows("user at");
    terminal.press("zoe\n");
    terminal.shows("password of `zoe`");
    terminal.press(&format!("{PASSWORD}x\u{7f}\n"));
    let seen = terminal.reads("logged in");
    assert!(!seen.contains("horse"), "{seen:?}");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(config.join("nexushub/platforms.json").exists() && !laptop.kept().exists());
    let mut terminal = Terminal::start_elsewhere(&laptop.path("work"), &arguments, &variables);
    terminal.shows("user at");
    terminal.press("zoe\n");
    terminal.shows("password of");
    terminal.press("corr\u{3}");
    assert_eq!(terminal.end().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_that_is_meant_is_the_one_that_was_said_then_the_projects_then_the_one_logged_in_at() {
    let (accounts, _) = platform().await;
    let laptop = Laptop::of_zoe(&accounts.platform);
    for (arguments, there) in [
        (&["down"][..], "run it there: nexushub down"),
        (&["restart", "proxy"], "run it there: nexushub restart"),
        (&["logs", "proxy"], "run it there: nexushub logs proxy"),
        (&["dev", "--static-url", "http://localhost:5173"], "leave --static-url out"),
        (&["releases", "x", "--url", "https://localhost"], "--url is another address"),
    ] {
        let output = laptop.run(arguments);
        assert!(
            !output.status.success() && said(&output).contains(there),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    assert!(!said(&laptop.run(&["apps", "--platform", "local"])).contains("no apps yet"));

    let project = laptop.path("project");
    fs::create_dir_all(project.join(".nexushub")).unwrap();
    fs::write(project.join("nexushub.toml"), "").unwrap();
    let run = |arguments: &[&str]| laptop.command(&project, arguments).output().unwrap();
    let near = run(&["apps"]);
    assert!(said(&near).contains("project/.nexushub is not up"), "{}", said(&near));
    let far = run(&["apps", "--platform", &laptop.url]);
    assert!(said(&far).contains(&format!("--platform {}", laptop.url)), "hints name it: {}", said(&far));
    let mut variable = laptop.command(&project, &["apps"]);
    assert!(variable.env("NEXUSHUB_PLATFORM", &laptop.url).output().unwrap().status.success());
    let both = variable.env("NEXUSHUB_HOME", "/nowhere").output().unwrap();
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    let again = laptop.log_in(&laptop.url, "zoe", PASSWORD);
    assert!(!said(&again).contains("goes before"), "there is no project here: {}", said(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_developed_on_a_platform_elsewhere_and_removed_at_the_end() {
    let (accounts, _) = platform().await;
    let platform = &accounts.platform;
    let laptop = Laptop::of_zoe(platform);
    laptop.well(&["init", "shop", "--template", "c"]);
    let mut dev = laptop.command(&laptop.path("work/shop"), &["dev"]);
    let mut dev = dev.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (process, mut told) = (Process::open(dev.id()).unwrap(), BufReader::new(dev.stderr.take().unwrap()));
    let mut until = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(told.read_line(&mut line).unwrap() > 0, "it ended before it said {text}");
        }
    };
    until("https://shop-dev.");
    let answers = async { while platform.https().get("shop-dev", "/").await.status != 200 {} };
    soon("it answers", answers).await;
    process.signal(Signal::TERM);
    until("shop-dev is removed");
    assert!(process.ended_within(HANG) && dev.wait().unwrap().success());
    assert!(platform.developer().list().await.is_empty());
}
