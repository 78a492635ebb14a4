//! Secrets stay where they belong: not in a command line, an environment, a log or a core.

use std::{fs, path::Path};

use nexushub_e2e::{App, DAEMONS, Options, Platform, package::Package, processes, workshop};
use nexushub_launch::secret::GRANTS;

/// Every secret of a platform.
fn secrets(platform: &Platform) -> Vec<String> {
    let text = |path: &Path| fs::read_to_string(path).unwrap().split_whitespace().last().unwrap().to_owned();
    let mut secrets =
        vec![text(&platform.run().join("secret")), text(&platform.run().join("credentials/procmgr/app-key"))];
    secrets.extend(DAEMONS.map(|daemon| platform.operator(daemon)));
    secrets.extend(GRANTS.map(|(caller, server, _)| platform.token(caller, server)));
    secrets.iter().for_each(|secret| assert!(secret.len() >= 32, "a secret is long"));
    secrets
}

/// Makes every daemon do its work once, so that it has had the chance to tell.
async fn busy(platform: &Platform) -> Vec<String> {
    platform.run_app(&App::named("hello")).await;
    let developer = platform.developer();
    developer.push("shop", &Package::probe().bytes()).await;
    platform
        .instances_until("the app runs", |all| {
            all.values().any(|status| status.host_name == "shop.debug" && status.routed)
        })
        .await;
    platform.stranger(Some("a-wrong-token-that-nobody-should-repeat")).create("mine").await;
    let mut hidden = secrets(platform);
    for host in ["hello", "shop.debug"] {
        let portrait = platform.https().get(host, "/public/whoami").await.json();
        hidden.push(portrait["env"]["INTERNAL_SECRET"].as_str().unwrap().to_owned());
    }
    hidden
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_command_line_or_log_nor_in_a_daemons_environment() {
    let platform = Platform::start();
    let hidden = busy(&platform).await;
    for (pid, command) in platform.processes() {
        assert!(hidden.iter().all(|secret| !command.contains(secret.as_str())), "{command}");
        let app = platform.app_processes().contains(&pid) || command.contains("shim");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(
            app || hidden.iter().all(|secret| !environment.contains(secret.as_str())),
            "{command}: {environment}"
        );
    }
    let log = platform.journal.lines().join("\n");
    assert!(!log.is_empty());
    let told = hidden.iter().find(|secret| log.contains(secret.as_str()));
    let line = told.and_then(|secret| log.lines().find(|line| line.contains(secret.as_str())));
    assert_eq!(line, None, "a secret was logged");
    assert!(!log.contains("a-wrong-token-that-nobody-should-repeat"), "not even a wrong one is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_holds_its_own_secret_and_none_of_the_platforms() {
    let platform = Platform::start();
    busy(&platform).await;
    let of_platform = secrets(&platform);
    let mut own = Vec::new();
    for pid in platform.app_processes() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(of_platform.iter().all(|secret| !environment.contains(secret.as_str())), "{environment}");
        let secret =
            environment.split('\0').find_map(|entry| entry.strip_prefix("INTERNAL_SECRET=")).unwrap();
        assert_eq!(secret.len(), 36, "in the shape of a uuid");
        own.push(secret.to_owned());
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok());
        let stray = fds.into_iter().find(|target| target.starts_with(platform.run()));
        assert_eq!(stray, None, "an app inherits nothing of the platform's");
    }
    own.dedup();
    assert_eq!(own.len(), 2, "each app has another one");
}

/// Who runs the platform must not be root here: the kernel gives the files of a process that can't be dumped to root, and
/// those of one that can to its owner.
#[tokio::test(flavor = "multi_thread")]
async fn daemons_leave_no_core_and_let_nobody_look_inside() {
    use std::os::unix::fs::MetadataExt;
    let programs = workshop::programs_for_anybody();
    let platform = Platform::start_with(&Options::of_no_root(programs.path()));
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    for name in DAEMONS {
        let pid = platform.daemon(name).await.pid;
        assert_ne!(processes::field(pid, "Uid").unwrap().split_whitespace().next(), Some("0"), "{name}");
        assert_eq!(owner(pid), 0, "{name} can be dumped");
    }
    assert_eq!(owner(platform.supervisor().pid), 0, "the supervisor can be dumped");
    let app = platform.run_app(&App::named("hello")).await;
    assert_ne!(owner(app.pid), 0, "an app holds nothing of the platform and is its owner's to debug");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_secrets_belong_to_their_owner_alone_and_are_gone_after_a_clean_stop() {
    use std::os::unix::fs::PermissionsExt;
    let mut platform = Platform::start();
    let mut files = vec![platform.run().join("secret")];
    for folder in [
        "operator",
        "credentials/procmgr",
        "credentials/provider",
        "credentials/proxy",
        "credentials/debug-api",
    ] {
        files.extend(fs::read_dir(platform.run().join(folder)).unwrap().flatten().map(|entry| entry.path()));
    }
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert!(files.len() > 10, "{files:?}");
    assert!(platform.stop().success());
    assert!(files.iter().all(|file| !file.exists()), "{files:?}");
}
