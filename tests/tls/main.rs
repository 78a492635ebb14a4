//! What two well-known judges of TLS say of the proxy as it is shipped: sslyze at Mozilla's intermediate profile, and testssl.sh with
//! nothing above LOW. The development CA is nobody's, so it is told to the one and forgiven by the other.

#![allow(clippy::unwrap_used, clippy::panic)] // as in the harness

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use nexushub_e2e::{App, Options, Platform};
use serde_json::Value;

/// A name that the certificate covers.
const NAME: &str = "hello";
/// What testssl.sh says of a certificate for one machine's own use: where it would be revoked, who vouches for it, and who may
/// issue others (a development CA has no such places); and of what an app's pages tell browsers, which is the app's own.
const FORGIVEN: [&str; 7] = [
    "cert_chain_of_trust",
    "cert_crlDistributionPoints",
    "cert_ocspURL",
    "cert_revocation",
    "OCSP_stapling",
    "DNS_CAArecord",
    "security_headers",
];

fn said(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sslyze_finds_mozillas_intermediate_profile() {
    let platform = Platform::start_with(&Options::with("[platform]\nlog_level = \"warn\"\n"));
    let python = PathBuf::from(std::env::var_os("NEXUSHUB_PYTHON").expect("NEXUSHUB_PYTHON"));
    let mut command = Command::new(python);
    command.args(["-m", "sslyze", "--mozilla_config=intermediate", "--certinfo_ca_file"]);
    command
        .arg(platform.home.certs().join("ca.crt"))
        .arg(format!("{}{{127.0.0.1}}", platform.https().authority(NAME)));
    let output = said(command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("OK - Compliant") && output.status.success(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn testssl_finds_nothing_above_low() {
    let platform = Platform::start_with(&Options::with("[platform]\nlog_level = \"warn\"\n"));
    platform.run_app(&App::named(NAME)).await;
    let report = platform.home.path().join("testssl.json");
    let mut command = Command::new("/usr/bin/testssl");
    command
        .args(["--quiet", "--warnings", "off", "--color", "0", "--ip", "127.0.0.1", "--jsonfile"])
        .arg(&report);
    command.arg("--add-ca").arg(platform.home.certs().join("ca.crt")).arg(platform.https().authority(NAME));
    let output = said(command);
    let text = String::from_utf8_lossy(&output.stdout);
    let findings: Vec<Value> = serde_json::from_slice(&fs::read(report).expect(&text)).unwrap();
    assert!(findings.len() > 100, "it went all the way: {text}");
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let above_low = findings.iter().filter(|finding| {
        let forgiven = FORGIVEN.iter().any(|id| word(finding, "id").starts_with(id));
        !forgiven && matches!(word(finding, "severity").as_str(), "MEDIUM" | "HIGH" | "CRITICAL" | "FATAL")
    });
    let above_low: Vec<String> =
        above_low.map(|finding| format!("{}: {}", word(finding, "id"), word(finding, "finding"))).collect();
    assert_eq!(above_low, Vec::<String>::new(), "{text}");
    println!("figure: testssl.sh looked at {} things", findings.len());
}
