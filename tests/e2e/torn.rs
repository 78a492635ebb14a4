//! Whatever single file of its state a platform finds destroyed, it starts, and the apps that were wanted run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nexushub_e2e::{Platform, package::Package, raw::noise, until};

/// Files that daemons keep for themselves: not the releases, not the apps' own data, not the logs.
fn kept_files(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["releases", "log", "db", "data"].contains(&name) {
                folders.push(path);
            } else if path.is_file() && !name.ends_with("lock") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

async fn shop_runs(platform: &Platform) -> u32 {
    let there =
        |status: &nexushub_proto::procmgr::InstanceStatus| status.host_name == "shop.debug" && status.routed;
    let all = platform.instances_until("the app runs", |all| all.values().any(there)).await;
    all.into_values().find(there).unwrap().pid
}

/// A platform with a pushed app, and the app's process.
async fn with_shop() -> (Platform, u32) {
    let platform = Platform::start();
    platform.developer().push("shop", &Package::probe().bytes()).await;
    let pid = shop_runs(&platform).await;
    (platform, pid)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_file_of_the_state_may_be_noise_after_a_stop() {
    for number in 0.. {
        let (mut platform, _) = with_shop().await;
        assert!(platform.stop().success());
        let files = kept_files(&platform.state());
        assert!(files.len() >= 4, "{files:?}");
        let Some(file) = files.get(number) else { return };
        println!("noise in {}", file.display());
        fs::write(file, noise(17, 2000)).unwrap();
        platform.start_supervisor();
        let pid = shop_runs(&platform).await;
        assert_eq!(platform.https().get("shop.debug", "/public/whoami").await.json()["pid"], pid);
        let once = || (platform.app_processes() == [pid]).then_some(());
        until("it is there once only", once).await;
    }
}

/// Pleased by the second wish for an instance.
fn asked_again() -> impl Fn(&str) -> bool {
    let wishes = std::cell::Cell::new(0);
    move |line| {
        wishes.set(wishes.get() + u32::from(line.contains("debug instance put")));
        wishes.get() >= 2
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_file_of_the_daemons_may_be_noise_under_a_running_app() {
    for number in 0.. {
        let (mut platform, pid) = with_shop().await;
        platform.kill_supervisor().await;
        let of_shims = platform.state().join("instances");
        let mut files = kept_files(&platform.state());
        files.retain(|file| !file.starts_with(&of_shims));
        let Some(file) = files.get(number) else { return };
        println!("noise in {}", file.display());
        fs::write(file, noise(19, 2000)).unwrap();
        platform.start_supervisor();
        // Provider's own list is the one whose loss shows: the app is unwanted until debug-api has asked for it again, and
        // whether procmgr hears of that gap is a matter of luck. Any other file costs nothing.
        let of_provider = file.starts_with(platform.state().join("provider"));
        if of_provider {
            platform.journal.wait(0, "the loss is told", |line| line.contains("moved aside")).await;
            platform.journal.wait(0, "the app is asked for again", asked_again()).await;
        }
        let now = shop_runs(&platform).await;
        assert!(now == pid || of_provider, "{} cost the app its process", file.display());
    }
}
