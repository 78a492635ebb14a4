//! The clients of three generations, and the tool that tries uploads, each from its first call to its last. They are written in another
//! language, from the contract's text alone (`generations.py`); login, admin and the platform are whole.

use std::{process::Stdio, time::Duration};

use nexushub_e2e::{HANG, Platform, accounts::Accounts};
use tokio::process::Command;

/// Any port for a front-end server: the one of the story is whichever is free.
const FRONT_ENDS: &str = "[debug-api]\ndriver = \"process\"\nstatic_ports = [\"1024-65535\"]\n";

/// Runs a client to its end.
async fn run(platform: &Platform, generation: &str, password: &str) {
    let mut client = Command::new("/usr/bin/python3");
    client.args(["-c", include_str!("generations.py"), generation, &platform.address.port().to_string()]);
    client.arg(platform.home.certs().join("ca.crt")).arg(password);
    let client = client.stdin(Stdio::null()).kill_on_drop(true).output();
    let patience: Duration = 4 * HANG;
    let output = tokio::time::timeout(patience, client).await.expect("the client comes to its end").unwrap();
    assert!(output.status.success(), "{generation}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A developer of one generation pushes an app, watches it, changes it and quits.
async fn story(generation: &str) {
    let accounts = Accounts::start(FRONT_ENDS).await;
    run(&accounts.platform, generation, &accounts.password).await;
    assert!(accounts.platform.developer().list().await.is_empty(), "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_first_generation_does_all_that_it_does() {
    story("a-seed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_second_generation_does_all_that_it_does_by_either_name_of_the_install() {
    story("a").await;
    story("a-last").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_third_generation_does_all_that_it_does() {
    story("b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_that_tries_uploads_comes_in_without_a_token_only_where_that_is_allowed() {
    let strict = Accounts::start("").await;
    run(&strict.platform, "test-upload", "refused").await;
    drop(strict);
    let lenient = Accounts::start(&format!("debug_without_token = true\n{FRONT_ENDS}")).await;
    run(&lenient.platform, "test-upload", "").await;
}
