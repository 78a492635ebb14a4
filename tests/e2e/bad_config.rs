//! A platform that can't be run says so at once, in one line, and touches nothing.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use nexushub_e2e::{App, DAEMONS, Options, Platform, workshop};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

/// Starts the supervisor, which must end by itself, and returns its exit code and the error lines.
fn refused(platform: &Platform) -> (i32, Vec<Value>) {
    let mut command = platform.supervisor_command();
    let output: Output = command.env_remove("NOTIFY_SOCKET").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors: Vec<Value> =
        lines.filter(|line| line["level"] == "error" && line.get("code").is_some()).collect();
    assert!(!errors.is_empty(), "an error line: {text}");
    assert!(platform.processes().is_empty(), "nothing was left running");
    (output.status.code().unwrap_or(-1), errors)
}

fn shown(errors: &[Value]) -> String {
    errors.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_config_that_lies_exits_64_and_its_line_is_named() {
    let lies = [
        ("[proxy]\n\nno_such_key = 1\n", 3, "no_such_key"),
        ("\n[no_such_table]\n", 2, "no_such_table"),
        ("[platform]\nlisten = \"nowhere\"\n", 2, ""),
        ("[platform\n", 1, ""),
        ("[procmgr]\nhealth_interval_ms = \"often\"\n", 2, ""),
        ("[supervisor]\nwatchdog_ms = -1\n", 2, ""),
        ("[[provider.instance]]\nid = \"a\"\nhost_name = \"a\"\nrelease = \"r\"\ncolour = 1\n", 5, "colour"),
        ("[[provider.instance]]\nid = \"a b\"\nhost_name = \"a\"\nrelease = \"r\"\n", 2, "id"),
    ];
    for (text, line, key) in lies {
        let platform = Platform::prepare(&Options::of(text));
        let (code, errors) = refused(&platform);
        assert_eq!(code, 64, "{text}: {}", shown(&errors));
        let named = errors
            .iter()
            .any(|error| error["object"].as_str().unwrap().contains(&format!("nexushub.toml:{line}")));
        assert!(named, "{text}: {}", shown(&errors));
        assert!(shown(&errors).contains(key), "{text}: {}", shown(&errors));
    }
}

#[test]
fn values_that_make_no_sense_exit_64_and_their_key_is_named() {
    let lies = [
        ("[procmgr]\nhealth_failures = 0\n", "health_failures"),
        ("[procmgr]\nport_first = 80\n", "port_first"),
        ("[proxy]\nmax_connections = 0\n", "max_connections"),
        ("[debug-api]\nmax_chunks = 0\n", "max_chunks"),
        ("[platform]\nprofile = \"prod\"\n", "profile"),
        ("[platform]\nbase_domain = \"A b\"\n", "base_domain"),
        ("[provider]\nmax_debug_instances = 1000000\n", "max_debug_instances"),
    ];
    for (text, key) in lies {
        let platform = Platform::prepare(&Options::of(text));
        let (code, errors) = refused(&platform);
        assert_eq!(code, 64, "{text}: {}", shown(&errors));
        assert!(shown(&errors).contains(key), "{text}: {}", shown(&errors));
    }
}

#[test]
fn a_host_name_given_twice_is_refused_and_both_places_are_named() {
    let text = "[[provider.instance]]\nid = \"a\"\nhost_name = \"x\"\nrelease = \"r\"\n[[provider.instance]]\nid = \"b\"\nhost_name = \"x\"\nrelease = \"r\"\n";
    let platform = Platform::prepare(&Options::of(text));
    let (code, errors) = refused(&platform);
    assert_eq!(code, 64);
    assert!(
        shown(&errors).contains("nexushub.toml:1") && shown(&errors).contains("nexushub.toml:5"),
        "{}",
        shown(&errors)
    );
}

fn certificate_is_refused(spoil: impl Fn(&Path), code: &str, object: &str) {
    let platform = Platform::prepare(&Options::default());
    spoil(&platform.home.certs());
    let (exit, errors) = refused(&platform);
    assert_eq!(exit, 1, "{}", shown(&errors));
    let error = &errors[0];
    assert_eq!(error["code"], code, "{error}");
    assert!(error["object"].as_str().unwrap().contains(object), "{error}");
    assert!(
        !error["hint"].as_str().unwrap().is_empty() && error["daemon"] == "proxy" && error["ts"].is_string(),
        "{error}"
    );
}

/// A self-signed pair.
fn pair(folder: &Path, until: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![workshop::DOMAIN.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    fs::write(folder.join("server.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_expired_certificate_exits_1_and_says_so() {
    certificate_is_refused(|certs| pair(certs, 2021), "certificate_expired", "server.crt");
}

#[test]
fn a_key_that_others_may_read_exits_1_and_says_so() {
    for open in [0o644, 0o640, 0o604] {
        certificate_is_refused(
            |certs| mode(&certs.join("server.key"), open),
            "key_permissions",
            "server.key",
        );
    }
}

#[test]
fn a_key_of_another_certificate_exits_1_and_says_so() {
    let other = |certs: &Path| {
        fs::write(certs.join("server.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    };
    certificate_is_refused(other, "key_mismatch", "server.key");
}

#[test]
fn a_missing_certificate_exits_1_and_says_so() {
    certificate_is_refused(
        |certs| fs::remove_file(certs.join("server.crt")).unwrap(),
        "certificate_missing",
        "server.crt",
    );
    certificate_is_refused(
        |certs| fs::remove_file(certs.join("server.key")).unwrap(),
        "key_missing",
        "server.key",
    );
}

#[test]
fn a_certificate_that_is_none_exits_1_and_says_so() {
    certificate_is_refused(
        |certs| fs::write(certs.join("server.crt"), "no certificate").unwrap(),
        "certificate_invalid",
        "server.crt",
    );
}

#[test]
fn a_port_in_use_exits_1_and_the_address_is_named() {
    let platform = Platform::prepare(&Options::default());
    let _holder = TcpListener::bind(platform.address).unwrap();
    let (code, errors) = refused(&platform);
    assert_eq!(code, 1);
    assert!(errors[0].to_string().contains(&platform.address.port().to_string()), "{}", shown(&errors));
    assert!(errors[0].to_string().contains(&std::process::id().to_string()), "by whom: {}", shown(&errors));
}

#[test]
fn a_folder_that_cannot_be_used_exits_1_and_is_named() {
    let platform = Platform::prepare(&Options::default());
    fs::write(platform.state(), "a file where a folder should be").unwrap();
    let (code, errors) = refused(&platform);
    assert_eq!(code, 1);
    assert!(errors[0]["object"].as_str().unwrap().contains("/state"), "{}", shown(&errors));
}

#[test]
fn a_missing_program_exits_1_and_is_named() {
    let programs = tempfile::Builder::new().prefix("nhbin").tempdir_in("/tmp").unwrap();
    workshop::copy_programs(programs.path());
    fs::remove_file(programs.path().join("nexushub-procmgr")).unwrap();
    let platform = Platform::prepare(&Options { programs: programs.path().to_owned(), ..Options::default() });
    let (code, errors) = refused(&platform);
    assert_eq!(code, 1);
    assert!(shown(&errors).contains("nexushub-procmgr"), "{}", shown(&errors));
}

#[test]
fn every_program_answers_check_version_and_help_and_refuses_nonsense() {
    let platform = Platform::prepare(&Options::default());
    for name in DAEMONS
        .map(|daemon| format!("nexushub-{daemon}"))
        .iter()
        .map(String::as_str)
        .chain(["nexushub-supervisor"])
    {
        let run = |argument: &str| {
            let mut command = Command::new(workshop::program(name));
            command.arg(argument).env_clear().env("NEXUSHUB_CONFIG", platform.home.config());
            command.env("RUNTIME_DIRECTORY", platform.run()).env("STATE_DIRECTORY", platform.state());
            command.current_dir(platform.home.path()).stdin(Stdio::null()).output().unwrap()
        };
        let check = run("--check");
        assert!(check.status.success(), "{name} --check: {}", String::from_utf8_lossy(&check.stderr));
        assert!(run("--version").status.success() && run("--help").status.success(), "{name}");
        assert_eq!(run("--no-such-option").status.code(), Some(64), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_runs_is_not_harmed_by_another_start_in_its_folder() {
    let platform = Platform::start();
    let app = platform.run_app(&App::named("hello")).await;
    let output = platform.supervisor_command().env_remove("NOTIFY_SOCKET").output().unwrap();
    assert!(!output.status.success(), "one folder, one platform");
    assert_eq!(platform.https().get("hello", "/").await.json()["pid"], app.pid);
    for name in DAEMONS {
        platform.daemon(name).await;
    }
}
