//! Boxes of somebody who isn't root, but may give ids away: each has one of its own, its data are that id's, and who runs the platform
//! looks after them all the same.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    process::Command,
};

use nexushub_e2e::{
    App, Options, Platform, machine,
    package::Package,
    platform::GIVEN,
    processes::{all, field, parent},
    soon, workshop,
};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{Driver, Limits},
};

use crate::push;

const NOBODY: u32 = 65_534;
const STRANGER: u32 = 12_345;

fn giver(programs: &tempfile::TempDir) -> Options {
    Options { gives: true, ..Options::of_no_root(programs.path()) }
}

/// Has these apps run in sandboxes with this bound on their data.
async fn run(platform: &Platform, names: &[&str], data_bytes: u64) {
    for name in names {
        let mut instance = platform.instance(&App::named(name).within(Driver::Sandbox));
        instance.limits = Some(Limits { data_bytes, ..Limits::default() });
        platform.hand_over();
        platform.put(instance).await.unwrap();
        platform.running(name).await;
    }
}

/// The app's own process: the child of its box's first.
fn process(status: &InstanceStatus) -> u32 {
    all().into_iter().find(|pid| parent(*pid) == Some(status.pid)).unwrap()
}

/// The user that this process is on the machine.
fn user(pid: u32) -> u32 {
    field(pid, "Uid").unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn owner(platform: &Platform, name: &str) -> u32 {
    fs::metadata(platform.data_of(name)).unwrap().uid()
}

/// Whether the line that says that boxes have no ids of their own is among what isn't enforced.
fn has_the_users_id(status: &InstanceStatus) -> bool {
    status.not_enforced.iter().any(|line| line.starts_with("own ids: "))
}

/// Whether somebody of this id may do it.
fn may(user: u32, script: &str) -> bool {
    let id = user.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", script]);
    command.output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_of_an_ordinary_user_are_two_users_who_can_do_nothing_to_each_other() {
    if !machine::gives_ids() {
        return;
    }
    let programs = workshop::programs_for_anybody();
    let platform = Platform::start_with(&giver(&programs));
    run(&platform, &["one", "two"], 0).await;
    let mut users = Vec::new();
    for name in ["one", "two"] {
        let status = platform.running(name).await;
        assert!(!has_the_users_id(&status), "{:?}", status.not_enforced);
        assert_eq!(platform.says(name, "id -u; id -G; echo named > /dev/stderr").await, "1000\n1000\nnamed");
        let pid = process(&status);
        assert!(GIVEN.contains(&user(pid)) && owner(&platform, name) == user(pid), "{name} is {}", user(pid));
        users.push((user(pid), pid));
    }
    let [(one, _), (two, pid)] = users[..] else { unreachable!() };
    assert_ne!(one, two);
    platform.says("two", "echo secret > /db/secret; chmod 700 /db").await;
    // Who runs the platform owns the box and may; a stranger may as little as another app.
    for (user, expected) in [(two, true), (NOBODY, true), (one, false), (STRANGER, false)] {
        assert_eq!(may(user, &format!("kill -0 {pid}")), expected, "{user}");
    }
    for user in [one, STRANGER] {
        assert!(!may(user, &format!("cat /proc/{pid}/root/db/secret || cat /proc/{pid}/environ")), "{user}");
    }
    // Its data outlive it, and its output reached its log.
    platform.https().get("two", "/crash?code=3").await;
    platform.instance_until("two", "runs anew", |status| status.routed && status.generation > 1).await;
    assert_eq!(platform.says("two", "cat /db/secret").await, "secret");
    let said = workshop::nexushub(platform.home.path(), &["logs", "two"]);
    assert!(said.status.success() && !said.stdout.is_empty(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_given_id_keeps_is_counted_and_refused_past_its_bound() {
    if !machine::gives_ids() {
        return;
    }
    let programs = workshop::programs_for_anybody();
    let platform = Platform::start_with(&giver(&programs));
    run(&platform, &["keeper"], 8 << 20).await;
    platform.says("keeper", "mkdir -m 700 /db/deep; head -c 3000000 /dev/zero > /db/deep/some; sync").await;
    let usage = platform.instance_now("keeper").await.unwrap().usage.unwrap();
    assert!((3_000_000..8 << 20).contains(&usage.data_bytes), "{usage:?}");
    platform.says("keeper", "head -c 9000000 /dev/zero > /db/deep/more").await;
    let refused = |status: &InstanceStatus| status.reason.contains("more than its data_bytes");
    platform.instance_until("keeper", "keeps too much", refused).await;
    fs::remove_file(platform.data_of("keeper").join("deep/more")).unwrap();
    platform.running("keeper").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_go_over_to_a_given_id_and_back_and_who_cannot_have_them_says_why() {
    if !machine::gives_ids() {
        return;
    }
    let programs = workshop::programs_for_anybody();
    let mut platform = Platform::start_with(&Options::of_no_root(programs.path()));
    run(&platform, &["app"], 0).await;
    assert!(has_the_users_id(&platform.running("app").await));
    platform.says("app", "mkdir /db/deep; echo kept > /db/deep/file").await;
    assert_eq!(owner(&platform, "app"), NOBODY);
    // There are ids to give from now on.
    assert!(platform.stop().success());
    platform.gives = true;
    platform.start_supervisor();
    assert!(!has_the_users_id(&platform.running("app").await));
    assert!(GIVEN.contains(&owner(&platform, "app")));
    assert_eq!(platform.says("app", "cat /db/deep/file; echo more > /db/deep/file").await, "kept");
    // And then there are none any more.
    assert!(platform.stop().success());
    platform.gives = false;
    platform.start_supervisor();
    let refused = |status: &InstanceStatus| status.state() == State::Failed;
    let refused = platform.instance_until("app", "is refused", refused).await;
    assert!(refused.reason.contains("chown -hR 65534:65534 "), "{}", refused.reason);
    // With them the user itself takes back what an app without an id of its own needs.
    assert!(platform.stop().success());
    platform.gives = true;
    platform.start_supervisor();
    platform.running("app").await;
    platform.put(platform.instance(&App::named("app"))).await.unwrap();
    let runs = |status: &InstanceStatus| status.driver == "process" && status.routed;
    platform.instance_until("app", "runs without a box", runs).await;
    assert_eq!(owner(&platform, "app"), NOBODY);
    assert_eq!(fs::read_to_string(platform.data_of("app").join("deep/file")).unwrap(), "more\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_or_data_that_no_given_id_can_use_run_with_the_users_own() {
    if !machine::gives_ids() {
        return;
    }
    let programs = workshop::programs_for_anybody();
    let platform = Platform::start_with(&giver(&programs));
    fs::set_permissions(platform.release("own"), fs::Permissions::from_mode(0o700)).unwrap();
    let shared = platform.data_of("shared");
    fs::create_dir_all(&shared).unwrap();
    chown(&shared, Some(STRANGER), None).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let strange = platform.data_of("strange");
    fs::create_dir_all(strange.join("deep")).unwrap();
    fs::write(strange.join("deep/file"), "").unwrap();
    chown(strange.join("deep/file"), Some(STRANGER), None).unwrap();
    run(&platform, &["own", "shared", "strange"], 0).await;
    for (name, why) in [
        ("own", "chmod -R go+rX"),
        ("shared", "its data are somebody else's"),
        ("strange", "\"file\" among its data is of another user or group"),
    ] {
        let status = platform.running(name).await;
        assert!(status.not_enforced.iter().any(|line| line.contains(why)), "{:?}", status.not_enforced);
        assert_eq!(user(process(&status)), NOBODY);
    }
    assert_eq!((owner(&platform, "shared"), owner(&platform, "strange")), (STRANGER, NOBODY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_in_part_or_lets_everybody_in_is_taken_back_all_the_same() {
    if !machine::gives_ids() {
        return;
    }
    let programs = workshop::programs_for_anybody();
    let platform = Platform::start_with(&giver(&programs));
    run(&platform, &["app"], 0).await;
    let id = owner(&platform, "app");
    platform.says("app", "mkdir -m 700 /db/deep; echo kept > /db/deep/file; chmod 777 /db").await;
    let data = platform.data_of("app");
    fs::write(data.join("late"), "").unwrap();
    for (path, user) in [(data.clone(), id), (data.join("late"), NOBODY)] {
        chown(path, Some(user), Some(NOBODY)).unwrap(); // as a giving that was interrupted leaves it
    }
    platform.put(platform.instance(&App::named("app"))).await.unwrap();
    let runs = |status: &InstanceStatus| status.driver == "process" && status.routed;
    platform.instance_until("app", "runs without a box", runs).await;
    assert_eq!(owner(&platform, "app"), NOBODY);
    assert_eq!(fs::metadata(data.join("deep/file")).unwrap().uid(), NOBODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_app_that_is_deleted_leaves_no_data_of_its_id() {
    if !machine::gives_ids() {
        return;
    }
    let programs = workshop::programs_for_anybody();
    let config = Options::with("[debug-api]\ndriver = \"sandbox\"\n").config;
    let platform = Platform::start_with(&Options { config, ..giver(&programs) });
    let developer = platform.developer();
    let id = developer.push("pushed", &Package::probe().bytes()).await;
    push::runs_at(&platform, "pushed.debug", None).await;
    platform.says("pushed.debug", "mkdir -m 700 /db/deep; echo x > /db/deep/file").await;
    let app = platform.state().join("debug-api/apps").join(&id);
    assert!(GIVEN.contains(&fs::metadata(app.join("db")).unwrap().uid()));
    assert_eq!(developer.delete(&id).await.status, 204);
    soon("its files are gone", async {
        while app.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
