//! From nothing to an app that answers.

use std::{collections::BTreeSet, fs};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use nexushub_e2e::{App, DAEMONS, Platform, Process, Protocol, processes};

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_becomes_ready_and_an_app_answers_over_https_by_either_protocol() {
    let platform = Platform::start();
    for name in DAEMONS {
        let daemon = platform.daemon(name).await;
        assert_eq!(
            processes::parent(daemon.pid),
            Some(platform.supervisor().pid),
            "{name} is the supervisor's child"
        );
    }
    let app = platform.run_app(&App::named("hello")).await;
    for (protocol, version) in [(Protocol::Http1, Version::HTTP_11), (Protocol::Http2, Version::HTTP_2)] {
        let answer = platform
            .https()
            .send(protocol, "hello", Request::get("/").body(Full::<Bytes>::default()).unwrap())
            .await
            .unwrap();
        assert_eq!((answer.status.as_u16(), answer.version), (200, version));
        assert_eq!(answer.json()["pid"], app.pid);
        assert_eq!(answer.json()["env"]["HOST"], platform.https().authority("hello"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_environment_is_the_contracts_and_nothing_else() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello").env("COLOUR", "blue")).await;
    let portrait = platform.https().get("hello", "/").await.json();
    let names: BTreeSet<&str> = portrait["env"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "COLOUR",
        "HOME",
        "HOST",
        "INTERNAL_SECRET",
        "LANG",
        "NEXUSHUB_DATA",
        "NEXUSHUB_ENTRANCE",
        "PATH",
        "PORT",
        "SSL_CERT_FILE",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let value = |name: &str| portrait["env"][name].as_str().unwrap().to_owned();
    let data = platform.data_of("hello").display().to_string();
    assert_eq!(
        (value("COLOUR"), value("HOME"), value("NEXUSHUB_DATA")),
        ("blue".to_owned(), data.clone(), data)
    );
    assert_eq!(portrait["cwd"], platform.release("hello").display().to_string());
    let ca = fs::read_to_string(value("SSL_CERT_FILE")).unwrap();
    assert_eq!(ca, fs::read_to_string(platform.home.certs().join("ca.crt")).unwrap());
    assert!((10_000..20_000).contains(&value("PORT").parse::<u16>().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_but_unix_sockets_the_https_port_and_the_apps_ports() {
    let platform = Platform::start();
    let app = platform.run_app(&App::named("hello")).await;
    let port =
        platform.https().get("hello", "/").await.json()["env"]["PORT"].as_str().unwrap().parse().unwrap();
    let mut expected = BTreeSet::from([platform.address.port(), port]);
    let listening: BTreeSet<u16> =
        platform.processes().keys().flat_map(|pid| listening_ports(*pid)).collect();
    assert!(listening.is_subset(&expected), "all processes: {listening:?}");
    assert!(listening == expected || !nix::unistd::geteuid().is_root(), "all processes: {listening:?}");
    expected.remove(&platform.address.port());
    assert_eq!(listening_ports(app.pid), expected, "the app");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_folder_and_every_socket_in_it_belong_to_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let platform = Platform::start();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&platform.run()), 0o700);
    let sockets = DAEMONS.map(|daemon| format!("{daemon}.sock"));
    for socket in sockets.iter().map(String::as_str).chain(["debug-api.http.sock", "proxy.http.sock"]) {
        assert_eq!(mode(&platform.run().join(socket)), 0o600, "{socket}");
    }
    for daemon in DAEMONS {
        assert_eq!(mode(&platform.run().join("operator").join(daemon)), 0o600, "operator/{daemon}");
    }
}

/// TCP ports on which a process listens.
fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let table = ["tcp", "tcp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default())
        .concat();
    let listens = |inode: &str| {
        table.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (local, state, owner) = (words.get(1)?, words.get(3)?, words.get(9)?);
            let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (*state == "0A" && *owner == inode).then_some(port)
        })
    };
    // Only root may look into a daemon; what an ordinary user can't see stays untold here, and is told where root runs this.
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        let ended = Process::open(pid).is_none_or(|process| process.has_ended()); // as what only begins an app does
        assert!(ended || !nix::unistd::geteuid().is_root(), "root may look into every process");
        return BTreeSet::new();
    };
    let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned));
    links.filter_map(|link| listens(link.strip_prefix("socket:[")?.strip_suffix(']')?)).collect()
}
