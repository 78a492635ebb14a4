//! `nexushub plan` tells what a changed configuration would do, and `nexushub apply` does that and nothing else.

use std::{fs, process::Output};

use nexushub_e2e::{App, DAEMONS, Options, Platform, workshop};
use serde_json::{Value, json};

/// A static instance of the release that every story has.
fn entry(id: &str, release: &std::path::Path, more: &str) -> String {
    let release = release.display();
    format!("id = \"{id}\"\nhost_name = \"{id}\"\nrelease = \"{release}\"\ndriver = \"process\"\n{more}\n")
}

fn asked(platform: &Platform, args: &[&str], code: i32) -> Output {
    let output = workshop::nexushub(platform.home.path(), args);
    let said = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    output
}

fn planned(platform: &Platform, code: i32) -> Value {
    let output = asked(platform, &["plan", "-o", "json"], code);
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["configuration"].take()
}

async fn pids(platform: &Platform) -> Vec<u32> {
    let mut pids = Vec::new();
    for name in DAEMONS {
        pids.push(platform.daemon(name).await.pid);
    }
    pids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plan_says_of_a_changed_configuration_is_what_apply_does() {
    let mut platform = Platform::prepare(&Options::with(""));
    let release = platform.release("shop");
    let before = fs::read_to_string(platform.home.config()).unwrap();
    let list = |entries: &[String]| {
        let entries: String =
            entries.iter().map(|entry| format!("\n[[provider.instance]]\n{entry}")).collect();
        format!("{before}{entries}")
    };
    let three = ["gone", "routed", "shop"].map(|id| entry(id, &release, ""));
    platform.home.configure(&list(&three));
    platform.start_supervisor();
    let (shop, routed) = (platform.running("shop").await, platform.running("routed").await);
    platform.running("gone").await;
    let old = pids(&platform).await;
    let settled = planned(&platform, 0);
    assert_eq!(
        (&settled["instances"], &settled["settings"], &settled["daemons"]),
        (&json!([]), &json!([]), &json!([]))
    );

    let next = [
        entry("new", &release, ""),
        entry("routed", &release, "route = { max_body_bytes = 4096 }"),
        entry("shop", &release, "env = { MODE = \"next\" }"),
    ];
    platform.home.configure(&list(&next));
    platform.home.configure_more("proxy", "access_log = false");
    let plan = planned(&platform, 2);
    let told = |key: &str| {
        plan["instances"].as_array().unwrap().iter().map(|one| one[key].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told("id"), ["gone", "new", "routed", "shop"]);
    assert_eq!(told("change"), ["removed", "added", "changed", "restarted"]);
    assert_eq!(told("keys"), [json!([]), json!([]), json!(["route.max_body_bytes"]), json!(["env.MODE"])]);
    let setting = json!({"key": "proxy.access_log", "was": null, "is": false, "taken_up": "daemons"});
    assert_eq!((&plan["settings"], &plan["daemons"]), (&json!([setting]), &json!(["provider", "proxy"])));
    assert_eq!(pids(&platform).await, old, "it was only asked");

    let applied = asked(&platform, &["apply"], 0);
    let told = String::from_utf8_lossy(&applied.stdout).into_owned();
    assert!(
        told.contains("1 instance added, 1 instance restarted, 1 instance changed, 1 instance removed"),
        "{told}"
    );
    let new = pids(&platform).await;
    assert_eq!([old[1], old[2]], [new[1], new[2]], "procmgr and debug-api have nothing new to read");
    assert!(old[0] != new[0] && old[3] != new[3]);
    let now = platform.running("shop").await;
    assert!(now.generation > shop.generation);
    assert_eq!(platform.running("routed").await.pid, routed.pid);
    platform.running("new").await;
    platform.instances_until("it is gone", |all| !all.contains_key("gone")).await;
    assert_eq!(planned(&platform, 0)["instances"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn executables_that_are_all_that_is_new_are_told_of_and_taken_up() {
    let programs = tempfile::Builder::new().prefix("nhbin").tempdir_in("/tmp").unwrap();
    workshop::copy_programs(programs.path());
    let platform =
        Platform::start_with(&Options { programs: programs.path().to_owned(), ..Options::default() });
    let app = platform.run_app(&App::named("hello")).await.pid;
    let old = pids(&platform).await;
    assert_eq!(planned(&platform, 0)["executables"], json!([]));
    workshop::rebuild(&programs.path().join("nexushub-provider"));
    let plan = planned(&platform, 2);
    assert_eq!((&plan["executables"], &plan["daemons"]), (&json!(["provider"]), &json!(["provider"])));
    assert_eq!(pids(&platform).await, old, "it was only asked");
    let applied = asked(&platform, &["apply"], 0);
    assert_eq!(String::from_utf8_lossy(&applied.stdout), "taken up; replaced: provider\n");
    let new = pids(&platform).await;
    assert_ne!(new[0], old[0]);
    assert_eq!((&new[1..], platform.running("hello").await.pid), (&old[1..], app));
    planned(&platform, 0);

    workshop::put_program(&programs.path().join("nexushub-proxy"), b"no program at all");
    assert_eq!(planned(&platform, 2)["executables"], json!(["proxy"]), "judging it is the supervisor's");
    let refused = String::from_utf8(asked(&platform, &["apply"], 1).stderr).unwrap();
    assert!(refused.contains("not taken up as a whole"), "{refused}");
    assert_eq!(pids(&platform).await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_instances_another_file_and_a_bad_one_are_told_of_too() {
    let platform = Platform::start();
    let release = platform.release("more");
    let folder = platform.home.path().join("apps.d");
    let config = fs::read_to_string(platform.home.config()).unwrap();
    platform.home.configure(&config);
    let other = platform.home.path().join("other.toml");
    let listed = |text: &str| fs::write(&other, format!("{config}\n{text}")).unwrap();
    listed(&format!("[[provider.instance]]\n{}", entry("more", &release, "")));
    let other = other.to_str().unwrap();
    let told = asked(&platform, &["plan", other], 2);
    assert!(String::from_utf8_lossy(&told.stdout).contains("more      added"), "{told:?}");
    listed("[[provider.instance]]\nid = \"more\"\nhost_nane = \"x\"\n");
    let refused = String::from_utf8(asked(&platform, &["plan", other], 1).stderr).unwrap();
    let line = config.lines().count() + 4;
    assert!(refused.contains(&format!("other.toml:{line}: provider.host_nane")), "{refused}");
    assert_eq!(planned(&platform, 0)["instances"], json!([]), "that it was asked about it changed nothing");

    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("more.toml"), entry("more", &release, "")).unwrap();
    let plan = planned(&platform, 2);
    assert_eq!((&plan["instances"][0]["id"], &plan["daemons"]), (&json!("more"), &json!([])));
    asked(&platform, &["apply"], 0);
    platform.running("more").await;

    platform.home.configure_more("platform", "metrics_listen = \"127.0.0.1:1\"");
    assert_eq!(planned(&platform, 2)["settings"][0]["taken_up"], "platform");
    let refused = String::from_utf8(asked(&platform, &["apply"], 1).stderr).unwrap();
    assert!(refused.contains("platform.metrics_listen can't change while the platform runs"), "{refused}");
}
