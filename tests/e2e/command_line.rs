//! The command that people type, from `up` to `down`.

use nexushub_e2e::{Https, Platform, Process, home::free_address, processes, workshop::nexushub};
use serde_json::Value;

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
    let pid = https.get("shop", "/api/whoami").await.json()["pid"].clone();
    let again = run(&["push", release.to_str().unwrap(), "--name", "shop"]);
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(
        https.get("shop", "/api/whoami").await.json()["pid"],
        pid,
        "pushing what runs changes nothing"
    );
    let status = run(&["status", "-o", "json"]);
    assert!(status.status.success(), "{}", said(&status));
    let json: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(json.to_string().contains("shop"), "{json}");
    let table = said(&run(&["status"]));
    assert!(["provider", "procmgr", "debug-api", "proxy"].iter().all(|name| table.contains(name)), "{table}");
    https.get("shop", "/api/print?text=tale&count=2").await;
    let logs = said(&run(&["logs", "shop"]));
    assert!(logs.contains("probe: listening"), "{logs}");
    let asked = ["logs", "shop", "--grep", "probe: listening", "--since", "1h", "-n", "1", "-o", "json"];
    let line: Value = serde_json::from_slice(&run(&asked).stdout).unwrap();
    assert!(
        line["text"].as_str().unwrap().starts_with("probe: listening") && line["cursor"].is_string(),
        "{line}"
    );
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
        https.get("shop", "/api/whoami").await.json()["pid"],
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
    let pid = https.get("shop", "/api/whoami").await.json()["pid"].clone();
    let supervisor =
        stay.0.board.wait("a supervisor", |status| status.supervisor.pid > 0).await.supervisor.pid;
    Process::open(supervisor).unwrap().kill();
    let all_ready = |status: &nexushub_e2e::board::Status| {
        status.supervisor.pid != supervisor && nexushub_e2e::DAEMONS.iter().all(|name| status.is_ready(name))
    };
    stay.0.board.wait("the next supervisor is ready", all_ready).await;
    assert_eq!(https.get("shop", "/api/whoami").await.json()["pid"], pid);
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
