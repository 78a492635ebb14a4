//! What the platform says about itself: one schema, one trace id for one walk, and no cry of wolf.

use std::collections::BTreeSet;

use nexushub_e2e::{App, DAEMONS, Platform, package::Package};

/// A platform that boots, runs an app and a pushed one, restarts a daemon, and stops.
async fn ordinary_life() -> Platform {
    let mut platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    platform.developer().push("shop", &Package::probe().bytes()).await;
    let runs = |all: &nexushub_e2e::app::Instances| {
        all.values().any(|status| status.host_name == "shop.debug" && status.routed)
    };
    platform.instances_until("the app runs", runs).await;
    platform.https().get("shop.debug", "/").await;
    platform.https().get("nobody", "/").await;
    platform.kill("provider").await;
    assert!(platform.stop().success());
    platform
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_json_in_one_schema_and_an_ordinary_life_knows_no_error() {
    let platform = ordinary_life().await;
    let mut speakers = BTreeSet::new();
    for line in platform.journal.lines() {
        let entry: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text =
            |name: &str| entry[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}")).to_owned();
        let (ts, level, msg) = (text("ts"), text("level"), text("msg"));
        assert!(ts.len() == 24 && ts.ends_with('Z') && ts.as_bytes()[10] == b'T', "{line}");
        assert!(["warn", "info", "debug"].contains(&level.as_str()), "{line}");
        assert!(msg.starts_with(|first: char| first.is_lowercase()), "{line}");
        assert!(!text("release").is_empty(), "{line}");
        speakers.insert(text("daemon"));
    }
    let expected: BTreeSet<String> = DAEMONS.into_iter().chain(["supervisor"]).map(str::to_owned).collect();
    assert_eq!(speakers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_a_start_are_told_with_the_time_they_took() {
    let platform = ordinary_life().await;
    let of_supervisor = platform.logged_by("supervisor");
    for daemon in DAEMONS {
        let ready = |entry: &&serde_json::Value| {
            entry["child"] == daemon && entry["msg"].as_str().unwrap().contains("ready")
        };
        let ready = of_supervisor.iter().find(ready).unwrap_or_else(|| panic!("{daemon}: {of_supervisor:?}"));
        assert!(ready["elapsed_ms"].is_u64(), "{ready}");
    }
    let milestone = platform
        .logged_by("procmgr")
        .into_iter()
        .find(|entry| entry["msg"].as_str().unwrap().contains("first reconcile"));
    assert!(milestone.expect("the first reconcile is a milestone")["elapsed_ms"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_id_leads_from_the_proxy_through_debug_api_to_the_provider() {
    let platform = ordinary_life().await;
    let said = |daemon: &str, what: &str| {
        let lines = platform.logged_by(daemon).into_iter();
        lines.filter(|entry| entry["msg"].as_str().unwrap().contains(what)).collect::<Vec<_>>()
    };
    let installed = said("debug-api", "installed");
    let trace = installed[0]["trace_id"].as_str().expect("a trace id").to_owned();
    assert_eq!(trace.len(), 32, "{trace}");
    for (daemon, what) in [("proxy", "request"), ("provider", "debug instance put")] {
        let found = said(daemon, what);
        assert!(found.iter().any(|entry| entry["trace_id"] == trace.as_str()), "{daemon}: {found:?}");
    }
}
