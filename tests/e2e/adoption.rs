//! A process manager that died finds every instance again, exactly once, and touches nothing that isn't its own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nexushub_e2e::{App, Platform, Process, Signal, processes, raw::noise, rounds, until};
use nexushub_proto::procmgr::{InstanceStatus, exit::How};

/// Every record of a platform's generations.
fn records(platform: &Platform) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![platform.state().join("instances")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == "record" {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Gives fields of a record other values.
fn forge(record: &Path, changes: &[(&str, &str)]) {
    let text = fs::read_to_string(record).unwrap();
    let forged = text.lines().map(|line| {
        let change = changes.iter().find(|(name, _)| line.starts_with(&format!("{name}=")));
        change.map_or_else(|| line.to_owned(), |(name, value)| format!("{name}={value}"))
    });
    let forged = forged.collect::<Vec<_>>().join("\n") + "\n";
    assert_ne!(forged, text, "the record names what is forged");
    fs::write(record, forged).unwrap();
}

/// A process that has nothing to do with the platform, and its name for good.
fn stranger() -> (Child, String) {
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let start = nexushub_launch::clock::start_time(child.id()).unwrap();
    let name = format!("{}:{start}", child.id());
    (child, name)
}

/// Kills an app with its shim, as a crash of the machine would.
fn kill_with_shim(app: u32) {
    let shim = Process::open(processes::parent(app).unwrap()).unwrap();
    let app = Process::open(app).unwrap();
    shim.kill();
    app.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_points_at_a_stranger_is_neither_signalled_nor_adopted() {
    let mut platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    let (mut stranger, name) = stranger();
    platform.kill_supervisor().await;
    kill_with_shim(old.pid);
    let record = &records(&platform)[0];
    forge(record, &[("shim", &name), ("app", &name), ("session", &stranger.id().to_string())]);
    platform.start_supervisor();
    let new = platform.running("hello").await;
    assert!(new.pid != old.pid && new.pid != stranger.id(), "{new:?}");
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    assert!(platform.stop().success());
    assert!(stranger.try_wait().unwrap().is_none(), "and lives on after a full stop");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_every_app_is_started_anew_and_no_old_pid_means_anything() {
    let mut platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    let (mut stranger, name) = stranger();
    platform.kill_supervisor().await;
    kill_with_shim(old.pid);
    let another_boot = [
        ("boot_id", "00000000-1111-2222-3333-444444444444"),
        ("shim", name.as_str()),
        ("app", name.as_str()),
    ];
    forge(&records(&platform)[0], &another_boot);
    platform.start_supervisor();
    let new = platform.running("hello").await;
    assert!(new.generation > old.generation && new.pid != old.pid, "{new:?}");
    assert!(stranger.try_wait().unwrap().is_none(), "who has the old pid today is not to blame");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_noise_costs_no_instance_and_doubles_none() {
    let mut platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    let other = platform.run_app(&App::named("other")).await;
    platform.kill_supervisor().await;
    kill_with_shim(old.pid);
    let record =
        records(&platform).into_iter().find(|path| path.to_string_lossy().contains("/hello/")).unwrap();
    fs::write(record, noise(7, 300)).unwrap();
    platform.start_supervisor();
    assert_eq!(platform.running("other").await.pid, other.pid, "the other one is adopted");
    let new = platform.running("hello").await;
    assert_ne!(new.pid, old.pid);
    assert_eq!(platform.app_processes().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_procmgr_again_and_again_while_apps_start_doubles_and_loses_none() {
    let platform = Platform::start_with(&nexushub_e2e::Options::with(nexushub_e2e::FORGIVING));
    let names: Vec<String> = (1..=6).map(|number| format!("app{number}")).collect();
    for name in &names {
        platform.put(platform.instance(&App::named(name))).await.unwrap();
        platform.kill("procmgr").await;
    }
    for _ in 0..rounds(4) {
        platform.kill("procmgr").await;
    }
    let all_run = |all: &nexushub_e2e::app::Instances| {
        names.iter().all(|name| all.get(name).is_some_and(|status| status.routed))
    };
    let all = platform.instances_until("all run", all_run).await;
    // A start that was cut off may still be ending; one that is a double would never end.
    let reported: BTreeSet<u32> = all.values().map(|status| status.pid).collect();
    let living = || platform.app_processes().into_iter().collect::<BTreeSet<u32>>();
    until("each instance is one process, each process an instance", || (living() == reported).then_some(()))
        .await;
    until("each has one shim", || (shims(&platform).len() == names.len()).then_some(())).await;
    let ports: BTreeSet<String> = all.values().map(|status| format!("{:?}", status.endpoint)).collect();
    assert_eq!(ports.len(), names.len(), "{ports:?}");
    for name in &names {
        assert_eq!(platform.https().get(name, "/").await.json()["pid"], all[name].pid);
    }
}

fn shims(platform: &Platform) -> Vec<u32> {
    let is_shim =
        |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.contains("shim"));
    platform.processes().into_keys().filter(|pid| is_shim(*pid)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_while_procmgr_was_away_is_known_with_its_code() {
    let platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    let app = Process::open(old.pid).unwrap();
    let procmgr = platform.daemon("procmgr").await;
    procmgr.signal(Signal::STOP);
    platform.https().get("hello", "/crash?code=9").await;
    assert!(app.ended_within(nexushub_e2e::HANG));
    procmgr.kill();
    platform.replaced("procmgr", procmgr.pid).await;
    let new =
        platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != old.pid).await;
    assert_eq!(new.last_exit.unwrap().how, Some(How::Code(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_app_along_and_its_exit_counts_as_lost() {
    let platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    let app = Process::open(old.pid).unwrap();
    Process::open(processes::parent(old.pid).unwrap()).unwrap().kill();
    assert!(app.ended_within(nexushub_e2e::HANG), "an app without a shim is gone with it");
    let new =
        platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != old.pid).await;
    assert_eq!(new.last_exit.unwrap().how, Some(How::Lost(true)));
    assert_eq!(platform.app_processes(), [new.pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_app_by_a_signal_is_known_as_such() {
    let platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    Process::open(old.pid).unwrap().kill();
    let again = |status: &InstanceStatus| status.routed && status.pid != old.pid;
    let new = platform.instance_until("hello", "runs anew", again).await;
    assert_eq!(new.last_exit.unwrap().how, Some(How::Signal(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_stays_the_apps_while_procmgr_is_replaced() {
    let platform = Platform::start();
    let before = platform.run_app(&App::named("hello")).await;
    platform.kill("procmgr").await;
    let second = platform.run_app(&App::named("second")).await;
    assert_eq!(platform.running("hello").await.endpoint, before.endpoint);
    assert_ne!(second.endpoint, before.endpoint);
}
