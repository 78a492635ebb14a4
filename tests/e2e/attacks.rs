//! The platform's own login and admin apps, as `nexushub bootstrap` sets them up, under attack: guessed passwords, tokens that were
//! forged, swapped, stolen or used twice, and every way around the wall before `/internal`.

use std::collections::BTreeMap;

use http_body_util::Full;
use nexushub_e2e::{
    Platform, Protocol,
    accounts::{Accounts, cookie},
    admin::ADMIN,
    soon, workshop,
};
use nexushub_proto::procmgr::InstanceStatus;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::access::{ask, token};

/// With every API behind tokens. What an address may post to login has a bound of its own in the proxy's stories; here login alone
/// judges who guesses.
async fn start() -> Accounts {
    Accounts::start("address_logins_per_minute = 0").await
}

/// Whether the admin app's API is open to a bearer.
async fn status(platform: &Platform, host: &str, bearer: &str) -> u16 {
    ask(platform, "GET", host, "/api/applications", &[("authorization", bearer)]).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_waits_and_learns_nothing_of_who_is_known() {
    let accounts = start().await;
    let again = workshop::nexushub(accounts.platform.home.path(), &["bootstrap"]);
    assert!(again.status.success() && again.stdout.is_empty(), "the password is said once");
    let known = guess_until_it_waits(&accounts, "admin").await;
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), [401, 429]);
    assert!(known[&429].0 && !known[&401].0, "who has to wait is told how long: {known:?}");
    let unknown = guess_until_it_waits(&accounts, "nobody").await;
    assert_eq!(known, unknown, "a name that there is is answered as one that there is not");
    let right = || accounts.log_in("admin", &accounts.password, "");
    soon("the wait ends", async { while right().await.status != 200 {} }).await;
}

/// Guesses until one is refused unheard, however slow the machine is: waits grow, and with them what is refused. Of each
/// status whether it says how long to wait, whether it sets cookies, and its text without the seconds.
async fn guess_until_it_waits(accounts: &Accounts, name: &str) -> BTreeMap<u16, (bool, bool, String)> {
    let mut told = BTreeMap::new();
    soon("guessing waits", async {
        while !told.contains_key(&429) {
            let answer = accounts.log_in(name, "a wrong password", "").await;
            let has = |header| answer.headers.contains_key(header);
            let text = answer.text().replace(|letter: char| letter.is_ascii_digit(), "");
            told.insert(answer.status.as_u16(), (has("retry-after"), has("set-cookie"), text));
        }
    })
    .await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_administrators_password_gets_another_and_whoever_had_it_is_out() {
    let accounts = start().await;
    let platform = &accounts.platform;
    let bearer = accounts.bearer().await;
    let reset = workshop::nexushub(platform.home.path(), &["bootstrap", "--reset-password"]);
    let said = String::from_utf8(reset.stdout).unwrap();
    let password =
        said.split("the password ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    assert_eq!(accounts.log_in("admin", &accounts.password, "").await.status, 200, "not yet");
    let old = platform.running(ADMIN).await;
    assert!(workshop::nexushub(platform.home.path(), &["restart", "provider"]).status.success());
    // Before its next generation is the one that answers, an attempt would be a wrong one, and wrong ones wait.
    let anew =
        |now: &InstanceStatus| now.routed && now.generation > old.generation && now.draining.is_empty();
    let new = platform.instance_until(ADMIN, "has the new hash", anew).await;
    let counts = accounts.log_in("admin", password, "").await;
    assert_eq!(counts.status, 200, "{new:?} {}", counts.text());
    assert_eq!(accounts.log_in("admin", &accounts.password, "").await.status, 401);
    soon("the sessions of before end", async { while status(platform, "admin", &bearer).await != 401 {} })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_one_app_unchanged_and_until_its_session_ends() {
    let accounts = start().await;
    let platform = &accounts.platform;
    let first = cookie(&accounts.log_in("admin", &accounts.password, "").await, "YRT");
    let (bearer, second) = token(platform, "admin", "/api/access_token", &first).await;
    assert_eq!(status(platform, "admin", &bearer).await, 200);
    assert_eq!(status(platform, "hello", &bearer).await, 401, "another app's");
    for (what, forged) in forgeries(&bearer) {
        assert_eq!(status(platform, "admin", &forged).await, 401, "{what}");
    }
    let (_, third) = token(platform, "admin", "/public/access_token", &second).await;
    let replayed = ask(platform, "POST", "admin", "/public/access_token", &[("cookie", &first)]).await;
    assert_eq!(replayed.status, 403, "the thief's");
    let owner = ask(platform, "POST", "admin", "/public/access_token", &[("cookie", &third)]).await;
    assert_eq!(owner.status, 403, "and the owner's, since nobody knows which is which");
    soon("what was given out by then ends, too", async {
        while status(platform, "admin", &bearer).await != 401 {}
    })
    .await;
}

/// A bearer, changed in every way that somebody might try.
fn forgeries(bearer: &str) -> Vec<(String, String)> {
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let changed = |at: usize| {
        let mut bytes = token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        (format!("changed at {at}"), String::from_utf8(bytes).unwrap())
    };
    let mut all: Vec<_> = (0..token.len() - 1).step_by(7).map(changed).collect();
    let others = [
        ("cut", token[..token.len() - 8].to_owned()),
        ("longer", format!("{token}AAAA")),
        ("twice", format!("{token}{token}")),
        ("empty", String::new()),
        ("nothing but its beginning", "nxa1.".to_owned()),
        ("a token without a signature", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.".to_owned()),
    ];
    all.extend(others.map(|(what, token)| (what.to_owned(), token)));
    all.into_iter().map(|(what, token)| (what, format!("Bearer {token}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_a_path_leads_to_what_is_internal() {
    let accounts = start().await;
    let platform = &accounts.platform;
    let bearer = accounts.bearer().await;
    let body = json!({ "Username": "admin", "Password": accounts.password }).to_string();
    for bearer in ["", &bearer] {
        for target in TARGETS {
            let said = raw(platform, target, bearer, &body).await;
            let line = said.lines().next().unwrap_or_default();
            assert!(line.starts_with("HTTP/1.1 4"), "{target}: {said}");
            assert!(!said.contains("\"Success\""), "{target}: {said}");
        }
        for target in TARGETS.iter().filter(|target| target.starts_with('/') && !target.contains(['\\', '#']))
        {
            let mut request = http::Request::post(*target).header("content-type", "application/json");
            if !bearer.is_empty() {
                request = request.header("authorization", bearer);
            }
            let request = request.body(Full::from(body.clone())).unwrap();
            let answer = platform.https().send(Protocol::Http2, "admin", request).await.unwrap();
            assert!(answer.status.is_client_error(), "HTTP/2 {target}: {} {}", answer.status, answer.text());
        }
    }
}

/// Ways to write the path of a question that admin answers to login alone.
const TARGETS: &[&str] = &[
    "/internal/dologin",
    "//internal/dologin",
    "/./internal/dologin",
    "/public/../internal/dologin",
    "/public/./../internal/dologin",
    "/public/..//internal/dologin",
    "/public/%2e%2e/internal/dologin",
    "/public/%2E%2E/internal/dologin",
    "/public/.%2e/internal/dologin",
    "/public/..%2finternal/dologin",
    "/public/..%2Finternal%2Fdologin",
    "/public%2f..%2finternal/dologin",
    "/public/%252e%252e/internal/dologin",
    "/public/..;/internal/dologin",
    "/public/..%5cinternal/dologin",
    "/public/..\\internal/dologin",
    "/public/..%00/internal/dologin",
    "/%69nternal/dologin",
    "/%69%6e%74%65%72%6e%61%6c/dologin",
    "/internal%2fdologin",
    "/internal;a=b/dologin",
    "/INTERNAL/dologin",
    "/Internal/dologin",
    "/internal/./dologin",
    "/internal/%64ologin",
    "/api/../internal/dologin",
    "/public/x/../../internal/dologin",
    "/internal/dologin?x=/public/",
    "/internal/dologin#/public/",
    "https://admin.yesterday.localhost/internal/dologin",
    "https://internal.yesterday.localhost/internal/dologin",
];

/// What is said to a request whose target goes out as it is.
async fn raw(platform: &Platform, target: &str, bearer: &str, body: &str) -> String {
    let https = platform.https();
    let mut stream = https.tls("admin", &[b"http/1.1"]).await.unwrap();
    let bearer = if bearer.is_empty() { String::new() } else { format!("Authorization: {bearer}\r\n") };
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {}\r\n{bearer}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n{body}",
        https.authority("admin"),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    // What was refused by its head may end before the body is read: what was said by then counts.
    let _ = soon("an answer", stream.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}
