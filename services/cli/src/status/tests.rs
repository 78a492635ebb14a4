//! What people and programs are told.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::args::Global;

fn place(folder: &std::path::Path) -> Place {
    Place::find(&Global { home: Some(folder.to_owned()), ..Default::default() }).unwrap()
}

fn board() -> Board {
    serde_json::from_value(serde_json::json!({
        "supervisor": {"pid": 1, "start_time": 2, "since_unix_ms": 1000, "release": "0.1.0", "state": "ready"},
        "daemons": [
            {"name": "proxy", "state": "ready", "pid": 7, "since_unix_ms": 5000, "restarts": 1, "status": "3 routes", "reason": ""},
            {"name": "procmgr", "state": "waiting", "pid": null, "restarts": 9, "status": "old", "reason": "exited with code 1"},
            {"name": "provider", "state": "starting", "pid": 8, "status": "", "reason": ""},
        ],
    }))
    .unwrap()
}

#[test]
fn every_daemon_that_does_not_run_says_why() {
    let daemons = supervised(&board());
    let reason = |name: &str| daemons.iter().find(|daemon| daemon.name == name).unwrap().reason.clone();
    assert_eq!(reason("supervisor"), "");
    assert_eq!(reason("proxy"), "");
    assert_eq!(reason("procmgr"), "exited with code 1");
    assert_eq!(reason("provider"), "it is starting");
    assert_eq!(reason("debug-api"), "the supervisor does not know it");
    assert_eq!(daemons.len(), 5);
}

#[test]
fn people_see_states_reasons_and_urls() {
    let folder = tempfile::tempdir().unwrap();
    let instances = vec![
        Instance {
            app_id: "debug-hello".into(),
            host_name: "hello".into(),
            url: "https://hello.x:1/".into(),
            state: "running",
            pid: Some(9),
            since_unix_ms: 1000,
            driver: "sandbox".into(),
            not_enforced: vec!["the disk of /db".into()],
            usage: Some(Usage::from(&procmgr::Usage {
                log_bytes: 3 << 20,
                log_limit_bytes: 16 << 20,
                ..procmgr::Usage::default()
            })),
            ..Instance::default()
        },
        Instance {
            id: "i2".into(),
            state: "failed",
            reason: "bin/app is\nmissing".into(),
            last_words: "one\n\u{1b}two".into(),
            ..Instance::default()
        },
    ];
    let unknown = vec!["debug apps: not reachable".to_owned()];
    let report =
        Report { form: "supervisor", daemons: supervised(&board()), instances, unknown, ..Report::default() };
    let text = people(&Hub::Here(place(folder.path())), &report, 11_000);
    for expected in [
        "not everything runs\n\nDAEMON",
        "proxy       ready     7    6s     1         3 routes\n",
        "procmgr     waiting   -           9         exited with code 1\n",
        "debug-hello  hello  running  sandbox  9    10s    0         18 %  https://hello.x:1/\n",
        "i2                  failed            -           0         -     bin/app is missing\n",
        "\n\ni2 said last:\n  one\n   two\n",
        "\n\nnot enforced here (sandbox): the disk of /db\n",
        "\n\ncould not ask for debug apps: not reachable",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_unit_is_ready_when_it_serves_whatever_systemd_says() {
    let unit = Unit { active: "active".into(), pid: Some(5), since_monotonic_us: Some(7), ..Unit::default() };
    let ready = of_unit("proxy", &Ok(()), unit.clone(), u64::cast_signed);
    assert_eq!(
        (ready.state.as_str(), ready.pid, ready.since_unix_ms, ready.reason.as_str()),
        ("ready", Some(5), 7, "")
    );
    let mute = of_unit("proxy", &Err("no answer within 2 s".into()), unit, |_| 0);
    assert_eq!((mute.state.as_str(), mute.reason.as_str()), ("not serving", "no answer within 2 s"));
    let failed = Unit { active: "failed".into(), result: "exit-code".into(), ..Unit::default() };
    let failed = of_unit("proxy", &Err("refused".into()), failed, |_| 0);
    assert_eq!(
        (failed.state.as_str(), failed.reason.as_str()),
        ("failed", "refused; systemd says exit-code")
    );
}

#[tokio::test]
async fn a_platform_that_is_down_is_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let report = gather(&place, 0).await;
    assert!(!report.well && report.form == "down" && report.unknown.is_empty());
    assert_eq!(report.daemons[0].reason, "it is not running");
    assert!(people(&Hub::Here(place.clone()), &report, 0).contains("start it: nexushub up --detach --home "));
    std::fs::create_dir(&place.run).unwrap();
    let gone = r#"{"supervisor":{"pid":4194300,"start_time":1,"state":"ready"},"daemons":[]}"#;
    std::fs::write(place.run.join("status.json"), gone).unwrap();
    let report = gather(&place, 0).await;
    assert_eq!(report.daemons[0].reason, "the supervisor, process 4194300, is gone");
    assert!(serde_json::to_value(&report).unwrap()["daemons"][0]["state"] == "down");
}

#[test]
fn what_is_asked_for_and_does_not_run_is_told() {
    use nexushub_proto::provider::{Admin, Conflict, Instance};
    let folder = tempfile::tempdir().unwrap();
    let waiting = Instance { id: "w".into(), app_id: "shop".into(), ..Instance::default() };
    let conflict = Conflict { reason: "host name `x` of a is taken by b".into(), ..Conflict::default() };
    let admin = Admin { held: vec![waiting.clone(); 3], trouble: "it is down".into(), ..Admin::default() };
    let asked = ListInstancesResponse {
        waiting: vec![waiting],
        conflicts: vec![conflict],
        admin: Some(admin),
        ..ListInstancesResponse::default()
    };
    let mut report = Report { form: "supervisor", ..Report::default() };
    report.add(&place(folder.path()), &asked);
    let text = people(&Hub::Here(place(folder.path())), &report, 0);
    for expected in [
        "no package yet",
        "conflict: host name `x` of a is taken by b",
        "the admin app cannot be heard: it is down",
        "3 instances are no longer listed by the admin app and held: see nexushub plan",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn of_one_app_its_own_rows_are_told_and_whether_that_is_well() {
    let one = |id: &str, app_id: &str, state| Instance {
        id: id.into(),
        app_id: app_id.into(),
        host_name: id.into(),
        state,
        ..Instance::default()
    };
    let report = |form| Report {
        form,
        daemons: supervised(&board()),
        instances: vec![one("1", "debug-shop", "running"), one("2", "other", "failed")],
        apps: vec![App { id: "1".into(), app_id: "debug-shop".into(), ..App::default() }],
        held: 3,
        ..Report::default()
    };
    let zone = Zone::new("b.localhost", 8443);
    for (name, rows, well) in [
        ("shop", 1, true),
        ("debug-shop", 1, true),
        ("1.b.localhost", 1, true),
        ("2", 1, false),
        ("x", 0, true),
    ] {
        let told = report("supervisor").of(name, Some(&zone));
        assert_eq!(
            (told.instances.len(), told.well, told.daemons.len(), told.held),
            (rows, well, 0, 0),
            "{name}"
        );
    }
    assert!(report("supervisor").of("2", None).apps.is_empty());
    let down = report("down").of("shop", None);
    assert!(!down.well && !down.daemons.is_empty(), "what is down is told whatever is asked for");
}

#[test]
fn programs_are_told_what_the_help_says() {
    let instance = Instance {
        last_words: "x".into(),
        not_enforced: vec!["x".into()],
        usage: Some(Usage::default()),
        ..Instance::default()
    };
    let report = Report {
        daemons: vec![Daemon::default()],
        instances: vec![instance],
        apps: vec![App::default()],
        conflicts: vec![Conflict::default()],
        unknown: vec!["x".into()],
        ..Report::default()
    };
    crate::shapes::tests::is_as_told(crate::shapes::STATUS, &report);
}

#[test]
fn tables_fit_a_terminal() {
    let instance = Instance {
        app_id: "debug-an-application-with-a-long-name".into(),
        host_name: "an-application-with-a-long-name".into(),
        url: "https://an-application-with-a-long-name.example.org:8443/".into(),
        state: "running",
        pid: Some(1_234_567),
        since_unix_ms: 1000,
        driver: "sandbox".into(),
        ..Instance::default()
    };
    let app = App {
        id: "18736e4f-93f9-4606-a7be-863c7986ea5b".into(),
        app_id: instance.app_id.clone(),
        host_name: instance.host_name.clone(),
        status: "running".into(),
        created_unix_ms: 1000,
    };
    let report = Report { instances: vec![instance], apps: vec![app], ..Report::default() };
    let fits = crate::table::tests::fits(APPS, &instance_rows(&report, 9000), &SPARE);
    assert!(fits.iter().all(|table| table.contains(&report.instances[0].url)), "{fits:?}");
    let fits = crate::table::tests::fits(PUSHED, &pushed_rows(&report, 9000), &SPARE);
    assert!(fits.iter().all(|table| table.contains(&report.apps[0].id)), "{fits:?}");
}
