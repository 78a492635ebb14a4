//! The command that people type, from `up` to `down`.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use nexushub_e2e::{
    Https, Platform, Process,
    home::free_address,
    lines::Lines,
    package::{Package, tar_zst},
    processes, soon,
    workshop::{nexushub, program},
};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{Instance, ListInstancesRequest, provider_service_client::ProviderServiceClient},
};
use serde_json::Value;

use crate::push::runs_at;

/// A home with nothing running, and whatever was started in it ended.
struct Stay(Platform);

impl Drop for Stay {
    fn drop(&mut self) {
        drop(nexushub(self.0.home.path(), &["down"]));
        for pid in processes::below(self.0.home.path()) {
            if let Some(process) = Process::open(pid) {
                process.kill();
            }
        }
    }
}

fn said(output: &std::process::Output) -> String {
    format!(
        "{} {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn up_push_status_logs_restart_secret_and_down_do_what_they_say() {
    let stay = Stay(Platform::prepare(&nexushub_e2e::Options::default()));
    let home = stay.0.home.path().to_owned();
    let run = |arguments: &[&str]| nexushub(&home, arguments);
    let address = free_address();
    let up = run(&["up", "--listen", &address.to_string(), "--detach"]);
    assert!(up.status.success(), "{}", said(&up));
    let release = stay.0.release("source");
    let push = run(&["push", release.to_str().unwrap(), "--name", "shop"]);
    assert!(push.status.success(), "{}", said(&push));
    let https = Https::new(address, &stay.0.home.certs().join("ca.crt"));
    let pid = https.get("shop", "/public/whoami").await.json()["pid"].clone();
    let again = run(&["push", release.to_str().unwrap(), "--name", "shop"]);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(
        https.get("shop", "/public/whoami").await.json()["pid"],
        pid,
        "pushing what runs changes nothing"
    );
    let status = run(&["status", "-o", "json"]);
    assert!(status.status.success(), "{}", said(&status));
    let json: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(json.to_string().contains("shop"), "{json}");
    let table = said(&run(&["status"]));
    assert!(["provider", "procmgr", "debug-api", "proxy"].iter().all(|name| table.contains(name)), "{table}");
    https.get("shop", "/public/print?text=tale&count=2").await;
    let logs = said(&run(&["logs", "shop"]));
    assert!(logs.contains("probe: listening"), "{logs}");
    let asked = ["logs", "shop", "--grep", "probe: listening", "--since", "1h", "-n", "1", "-o", "json"];
    let line: Value = serde_json::from_slice(&run(&asked).stdout).unwrap();
    assert!(
        line["text"].as_str().unwrap().starts_with("probe: listening") && line["cursor"].is_string(),
        "{line}"
    );
    assert_eq!((&line["ts"], &line["msg"], &line["level"]), (&line["time"], &line["text"], &"info".into()));
    assert!(line["instance"].is_string() && line["release"].is_string(), "{line}");
    assert!(!run(&["logs", "shop", "--level", "loud"]).status.success());
    assert!(!run(&["logs", "proxy", "--grep", "x"]).status.success());
    assert!(said(&run(&["logs", "proxy"])).contains("\"proxy\""));
    let secret = run(&["secret", "procmgr"]);
    assert_eq!(String::from_utf8_lossy(&secret.stdout).trim(), stay.0.operator("procmgr"));
    let old = stay.0.daemon("provider").await.pid;
    let restart = run(&["restart", "provider"]);
    assert!(restart.status.success(), "{}", said(&restart));
    stay.0.replaced("provider", old).await;
    assert_eq!(
        https.get("shop", "/public/whoami").await.json()["pid"],
        pid,
        "restarting a daemon leaves apps alone"
    );
    let check = run(&["check"]);
    assert!(check.status.success(), "{}", said(&check));
    let down = run(&["down"]);
    assert!(down.status.success(), "{}", said(&down));
    assert!(stay.0.left().is_empty(), "{:?}", processes::programs_below(&home));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_dies_is_kept_up_by_the_command_and_the_app_lives_on() {
    let stay = Stay(Platform::prepare(&nexushub_e2e::Options::default()));
    let home = stay.0.home.path().to_owned();
    let address = free_address();
    let up = nexushub(&home, &["up", "--listen", &address.to_string(), "--detach"]);
    assert!(up.status.success(), "{}", said(&up));
    let release = stay.0.release("source");
    assert!(nexushub(&home, &["push", release.to_str().unwrap(), "--name", "shop"]).status.success());
    let https = Https::new(address, &stay.0.home.certs().join("ca.crt"));
    let pid = https.get("shop", "/public/whoami").await.json()["pid"].clone();
    let supervisor =
        stay.0.board.wait("a supervisor", |status| status.supervisor.pid > 0).await.supervisor.pid;
    Process::open(supervisor).unwrap().kill();
    let all_ready = |status: &nexushub_e2e::board::Status| {
        status.supervisor.pid != supervisor && nexushub_e2e::DAEMONS.iter().all(|name| status.is_ready(name))
    };
    stay.0.board.wait("the next supervisor is ready", all_ready).await;
    assert_eq!(https.get("shop", "/public/whoami").await.json()["pid"], pid);
}

#[test]
fn wrong_usage_exits_2_and_a_platform_that_is_not_there_1_with_a_hint() {
    let platform = Platform::prepare(&nexushub_e2e::Options::default());
    let run = |arguments: &[&str]| nexushub(platform.home.path(), arguments);
    for wrong in [&["no-such-command"][..], &["up", "--listen", "nowhere"], &["secret", "nobody"], &["push"]]
    {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let release = platform.release("source").display().to_string();
    let push = ["push", release.as_str(), "--name", "x"];
    for absent in
        [&["status"][..], &["doctor"], &["logs", "proxy"], &["secret", "proxy"], &["restart", "proxy"], &push]
    {
        let output = run(absent);
        assert_eq!(output.status.code(), Some(1), "{absent:?}: {}", said(&output));
        assert!(said(&output).contains("nexushub up"), "{absent:?} says what to do: {}", said(&output));
    }
}

/// What a command says on standard error, without what is of this platform alone.
fn failed(platform: &Platform, arguments: &[&str]) -> String {
    let output = nexushub(platform.home.path(), arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", said(&output));
    let home = platform.home.path().display().to_string();
    let words =
        |text: &str| text.replace(&home, "HOME").replace(&platform.address.port().to_string(), "PORT");
    let told = words(&String::from_utf8_lossy(&output.stderr));
    let id = |word: &str| uuid(word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    let told: Vec<String> = told
        .lines()
        .map(|line| line.split("; next start in").next().unwrap()) // when is by chance
        .map(|line| {
            line.split(' ').map(|word| if id(word) { "ID" } else { word }).collect::<Vec<_>>().join(" ")
        })
        .collect();
    format!("$ nexushub {}\n{}\n\n", words(&arguments.join(" ")), told.join("\n"))
}

fn uuid(word: &str) -> bool {
    word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_on_a_platform_is_told_whole() {
    let fixed = "[[provider.instance]]\nid = \"fixed\"\nhost_name = \"market\"\nrelease = \"source\"\n";
    let platform = Platform::start_with(&nexushub_e2e::Options::with(fixed));
    let source = platform.release("pushed");
    let path = |name: &str| platform.home.path().join(name).display().to_string();
    fs::write(path("garbage.zip"), "no zip").unwrap();
    fs::write(path("strange.tar.zst"), tar_zst(&[("bin/app", b"echo hello", 0o755)])).unwrap();
    let deep = source.join(vec!["d"; 33].join("/"));
    let push = |what: &str, name: &str| failed(&platform, &["push", what, "--name", name]);
    let mut told: String = [
        &["status", "nobody"][..],
        &["logs", "nobody"],
        &["stop", "nobody"],
        &["start", "nobody"],
        &["restart", "nobody"],
        &["pause", "nobody"],
        &["releases", "nobody"],
        &["rollback", "nobody"],
        &["wait", "nobody", "--timeout", "0"],
        &["stop", "fixed"],
    ]
    .map(|arguments| failed(&platform, arguments))
    .concat();
    told += &push(&path("garbage.zip"), "shop");
    told += &push(&path("strange.tar.zst"), "shop");
    told += &push(&source.display().to_string(), "market");
    told += &push(&source.display().to_string(), "admin");
    fs::write(source.join("bin/app"), "#!/bin/sh\necho 'no such table: carts'\nexit 3\n").unwrap();
    told += &push(&source.display().to_string(), "shop");
    told += &failed(&platform, &["rollback", "shop"]);
    told += &failed(&platform, &["rollback", "shop", "none-like-it"]);
    fs::create_dir_all(&deep).unwrap();
    told += &push(&source.display().to_string(), "shop");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/errors.txt");
    if std::env::var_os("NEXUSHUB_RENEW_HELP").is_some() {
        fs::write(&file, &told).unwrap();
    }
    let filed = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(told, filed, "if it should be so: NEXUSHUB_RENEW_HELP=1, and read the difference");
}

/// A command that goes on, and what it says line by line.
struct Going(Child, Lines);

impl Going {
    fn of(platform: &Platform, arguments: &[&str]) -> Self {
        let mut command = Command::new(program("nexushub"));
        command.arg("--home").arg(platform.home.path()).args(arguments).current_dir(platform.home.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = Lines::of(child.stdout.take().unwrap());
        Self(child, said)
    }

    /// The next line as JSON that fits.
    fn until(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let json = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.1.until(what, |line| Some(json(line)).filter(&fits))
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_asks_for_is_its_own_to_start_and_to_stop() {
    let mut platform = Platform::prepare(&nexushub_e2e::Options::default());
    let release = platform.release("source").display().to_string();
    let config = fs::read_to_string(platform.home.config()).unwrap();
    let entry =
        format!("[[provider.instance]]\nid = \"fixed\"\nhost_name = \"fixed\"\nrelease = \"{release}\"\n");
    let broken = entry.replace("fixed", "broken");
    let driver = "driver = \"process\"\n";
    let crash = "[provider.instance.env]\nPROBE_CRASH = \"3\"\n";
    platform.home.configure(&format!("{config}{entry}{driver}{broken}{driver}{crash}"));
    platform.start_supervisor();
    let run = |arguments: &[&str]| nexushub(platform.home.path(), arguments);
    assert!(run(&["wait", "fixed"]).status.success());
    let table = said(&run(&["apps"]));
    assert!(table.contains("fixed") && table.contains("configured"), "{table}");
    let fixed = run(&["stop", "fixed"]);
    assert!(
        fixed.status.code() == Some(1) && said(&fixed).contains("pause fixed --stop"),
        "{}",
        said(&fixed)
    );

    let fixed = run(&["start", "fixed"]);
    assert!(fixed.status.success(), "{}", said(&fixed));
    for words in ["fixed runs, as the configuration has it", "restart fixed"] {
        assert!(said(&fixed).contains(words), "{}", said(&fixed));
    }
    let broken = run(&["start", "broken", "--timeout", "0"]);
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    for words in ["`broken` is not healthy", "the configuration has it run", "restart broken", "logs broken"]
    {
        assert!(said(&broken).contains(words), "{}", said(&broken));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_stopped_started_waited_for_and_every_change_is_told() {
    let platform = Platform::start();
    let release = platform.release("source").display().to_string();
    let home = platform.home.path().to_owned();
    let run = |arguments: &[&str]| nexushub(&home, arguments);
    assert!(run(&["push", &release, "--name", "shop"]).status.success());
    let waited = run(&["wait", "shop"]);
    assert!(waited.status.success() && said(&waited).contains("shop is healthy"), "{}", said(&waited));
    let listed = || {
        let apps: Value = serde_json::from_slice(&run(&["apps", "-o", "json"]).stdout).unwrap();
        assert_eq!(apps["version"], 1);
        let all = apps["apps"].as_array().unwrap();
        all.iter().find(|app| app["app_id"] == "debug-shop").unwrap().clone()
    };
    let shop = listed();
    assert_eq!((&shop["origin"], &shop["state"]), (&"pushed".into(), &"running".into()));
    let package = shop["release"].as_str().unwrap();
    assert!(Path::new(package).join("bin/app").is_file(), "{package}");
    let events = Going::of(&platform, &["events", "-o", "json"]);
    let is = |name: &'static str, state: &'static str| {
        move |event: &Value| event["name"] == name && event["state"] == state
    };
    events.until("it runs", is("debug-shop", "running"));
    let stop = run(&["stop", "shop"]);
    assert!(stop.status.success(), "{}", said(&stop));
    let gone = events.until("it is gone", is("debug-shop", "gone"));
    assert_eq!((&gone["kind"], &gone["version"]), (&"app".into(), &1.into()));
    assert!(run(&["wait", "shop", "--for", "gone"]).status.success());
    let stopped = listed();
    assert_eq!(
        (&stopped["origin"], &stopped["state"], &stopped["release"]),
        (&"pushed".into(), &"stopped".into(), &package.into()),
        "what does not run is there all the same"
    );
    let late = run(&["wait", "shop", "--timeout", "0"]);
    assert_eq!(late.status.code(), Some(1), "{}", said(&late));
    assert!(said(&late).contains("there is no such app"), "{}", said(&late));
    let start = run(&["start", "shop"]);
    assert!(start.status.success(), "{}", said(&start));
    events.until("it runs again", is("debug-shop", "running"));
    let up = async { while platform.https().get("shop", "/public/whoami").await.status != 200 {} };
    soon("it answers again", up).await;

    platform.kill("provider").await;
    let back = events.until("provider is back", |event| {
        event["name"] == "provider" && event["state"] == "ready" && event["generation"] == 1
    });
    assert_eq!(back["kind"], "daemon");
    let unknown = run(&["stop", "nobody"]);
    assert!(
        unknown.status.code() == Some(1) && said(&unknown).contains("nexushub status"),
        "{}",
        said(&unknown)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn start_wakes_a_pushed_app_that_sleeps_and_changes_nothing_of_it() {
    let platform = Platform::start();
    let run = |arguments: &[&str]| nexushub(platform.home.path(), arguments);
    let release = platform.release("source").display().to_string();
    assert!(run(&["push", &release, "--name", "shop"]).status.success());
    let id = runs_at(&platform, "shop", None).await.id;
    let asked = async || -> Instance {
        let mut provider = ProviderServiceClient::new(platform.operate("provider"));
        let all = soon("ListInstances", provider.list_instances(ListInstancesRequest {})).await.unwrap();
        all.into_inner().instances.into_iter().find(|one| one.id == id).unwrap()
    };
    platform.put(Instance { idle_stop_ms: 1_000, ..asked().await }).await.unwrap();
    let sleeps = |one: &InstanceStatus| one.state() == State::Asleep && one.draining.is_empty();
    let before = platform.instance_until(&id, "sleeps", sleeps).await.generation;
    let start = run(&["start", "shop"]);
    assert!(start.status.success() && said(&start).contains("shop runs"), "{}", said(&start));
    platform.instance_until(&id, "was woken", |one| one.generation > before).await;
    assert_eq!(asked().await.idle_stop_ms, 1_000, "it was not installed anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_waits_for_an_app_that_is_on_its_way_down_and_starts_it() {
    let platform = Platform::start();
    let run = |arguments: &[&str]| nexushub(platform.home.path(), arguments);
    let stubborn = b"manifest = 1\n[env]\nPROBE_IGNORE_TERM = \"1\"\n";
    let package = platform.home.path().join("shop.zip");
    fs::write(&package, Package::probe().file("nexushub.toml", stubborn).bytes()).unwrap();
    assert!(run(&["push", package.to_str().unwrap(), "--name", "shop"]).status.success());
    let old = runs_at(&platform, "shop", None).await;
    let _stop = Going::of(&platform, &["stop", "shop"]);
    let going = |one: &InstanceStatus| one.state() == State::Stopping;
    platform.instance_until(&old.id, "is on its way down", going).await;
    let start = run(&["start", "shop"]);
    assert!(start.status.success() && said(&start).contains("shop runs"), "{}", said(&start));
    let new = runs_at(&platform, "shop", Some(old.pid)).await;
    assert!(new.generation > old.generation, "{new:?}");
}
