//! Who gets in: from a password to an access token, a call and the end of it, by programs and by browsers; and who does not. The
//! login app and the admin app are stand-ins (`access.py`), the platform is whole.

use std::{fs, path::Path};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use nexushub_e2e::{Answer, Options, Platform, Protocol, accounts::cookie, soon, workshop};
use serde_json::{Value, json};
use tokio::net::UnixStream;

const LOGIN: &str = "3bf3e3c0-6e51-482a-b180-00f6aa568ee9";
const ADMIN: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";

/// Static instances: the platform's two, an app for users who are signed in, one with an API for those who have a token, and one
/// that the first may ask.
const INSTANCES: &str = r#"
[[provider.instance]]
id = "3bf3e3c0-6e51-482a-b180-00f6aa568ee9"
host_name = "login"
release = "releases/login"
driver = "process"
[[provider.instance]]
id = "18736e4f-93f9-4606-a7be-863c7986ea5b"
host_name = "admin"
release = "releases/login"
driver = "process"
[provider.instance.route]
sign_in = true
internal_callers = ["3bf3e3c0-6e51-482a-b180-00f6aa568ee9"]
[[provider.instance]]
id = "notes"
display_name = "Ada's notes"
host_name = "notes"
release = "releases/login"
driver = "process"
[provider.instance.route]
sign_in = true
[[provider.instance]]
id = "stock"
host_name = "stock"
release = "releases/login"
driver = "process"
[provider.instance.route]
callers = ["notes"]
"#;

/// The platform with these apps up.
async fn start() -> Platform {
    let mut platform = Platform::prepare(&Options::with(INSTANCES));
    let bin = platform.home.path().join("releases/login/bin");
    fs::create_dir_all(&bin).unwrap();
    let program = format!("#!/usr/bin/python3 -u\n{}", include_str!("access.py"));
    workshop::put_program(&bin.join("app"), program.as_bytes());
    platform.hand_over();
    platform.start_supervisor();
    for id in [LOGIN, ADMIN, "notes", "stock"] {
        platform.running(id).await;
    }
    soon("the table knows the apps", async {
        for host in ["login", "admin", "notes", "stock"] {
            while platform.https().get(host, "/public/x").await.status != 200 {}
        }
    })
    .await;
    platform
}

/// One request with these headers.
pub(crate) async fn ask(
    platform: &Platform,
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    send(platform, Protocol::Http1, (method, host, path), headers, "").await
}

async fn send(
    platform: &Platform,
    protocol: Protocol,
    (method, host, path): (&str, &str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    platform.https().send(protocol, host, request).await.unwrap()
}

/// The cookies that an answer sets, with all that is said of them.
fn cookies(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
}

/// Logs a program in at a host: its cookie.
async fn log_in(platform: &Platform, host: &str, name: &str) -> String {
    let body = json!({ "username": name, "password": format!("{name}'s") }).to_string();
    let answer = send(platform, Protocol::Http1, ("POST", host, "/public/login"), &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["domain"], format!("{host}.yesterday.localhost"));
    cookie(&answer, "YRT")
}

/// An access token, and the cookie for the next.
pub(crate) async fn token(platform: &Platform, host: &str, path: &str, refresh: &str) -> (String, String) {
    let answer = ask(platform, "POST", host, path, &[("cookie", refresh)]).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert!(
        cookies(&answer)[0].ends_with("; Path=/; HttpOnly; Secure; SameSite=Lax"),
        "{:?}",
        cookies(&answer)
    );
    (format!("Bearer {}", answer.json()["access_token"].as_str().unwrap()), cookie(&answer, "YRT"))
}

async fn call(platform: &Platform, host: &str, bearer: &str) -> Answer {
    ask(platform, "GET", host, "/api/x", &[("authorization", bearer)]).await
}

/// The own secret of an app, which these apps give away.
async fn secret_of(platform: &Platform, host: &str) -> String {
    let told = platform.https().get(host, "/public/x").await.json();
    format!("Bearer {}", told["secret"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_logs_in_calls_refreshes_and_logs_out_by_either_path() {
    let platform = start().await;
    for path in ["/api/access_token", "/public/access_token"] {
        let first = log_in(&platform, "stock", "ada").await;
        let (bearer, second) = token(&platform, "stock", path, &first).await;
        assert_ne!(first, second, "it rotates");
        let told = call(&platform, "stock", &bearer).await.json();
        assert_eq!(
            (&told["who"]["u"], &told["who"]["n"], &told["who"]["c"]),
            (&json!("7"), &json!("ada"), &json!(""))
        );
        assert_eq!(told["headers"]["x-user-id"], "7");
        for gone in ["authorization", "cookie"] {
            assert_eq!(told["headers"][gone], Value::Null, "{told}");
        }
        let (again, third) = token(&platform, "stock", path, &second).await;
        assert_eq!(call(&platform, "stock", &again).await.status, 200);
        let replayed = ask(&platform, "POST", "stock", "/public/access_token", &[("cookie", &second)]).await;
        assert_eq!((replayed.status.as_u16(), replayed.text().as_str()), (403, "refresh token not found\n"));
        let out = ask(&platform, "POST", "stock", "/public/logout", &[("cookie", &third)]).await;
        assert_eq!((out.status.as_u16(), out.text().as_str()), (200, "null"));
        for bearer in [&bearer, &again] {
            assert_eq!(call(&platform, "stock", bearer).await.status, 401, "void at once");
        }
        let over = ask(&platform, "POST", "stock", "/api/access_token", &[("cookie", &third)]).await;
        let url = format!("https://{}/", platform.https().authority("login"));
        assert_eq!((over.status.as_u16(), over.json()), (200, json!({ "login_url": url })));
    }
    for (what, who, result) in [
        ("token.refresh", "user 7", "ok"),
        ("token.refresh", "", "refused"),
        ("session.log_out", "user 7", "ok"),
        ("access.refuse", "", "refused"),
    ] {
        noted(&platform, what, who, result).await;
    }
}

/// Waits until the proxy has noted this in the audit log: it does so after its answer.
async fn noted(platform: &Platform, what: &str, who: &str, result: &str) {
    let is_it = |line: &str| {
        serde_json::from_str::<Value>(line)
            .is_ok_and(|entry| entry["what"] == what && entry["who"] == who && entry["result"] == result)
    };
    let there = async {
        loop {
            let told = workshop::nexushub(platform.home.path(), &["audit", "--output", "json"]).stdout;
            if String::from_utf8_lossy(&told).lines().any(is_it) {
                return;
            }
        }
    };
    soon(what, there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_log_outs_outlive_the_proxy() {
    let platform = start().await;
    let (ada, zoe) = (log_in(&platform, "stock", "ada").await, log_in(&platform, "stock", "zoe").await);
    let (ada_may, ada) = token(&platform, "stock", "/api/access_token", &ada).await;
    let (zoe_may, _) = token(&platform, "stock", "/api/access_token", &zoe).await;
    assert_eq!(ask(&platform, "POST", "stock", "/public/logout", &[("cookie", &ada)]).await.status, 200);
    platform.kill("proxy").await;
    assert_eq!(call(&platform, "stock", &ada_may).await.status, 401);
    assert_eq!(call(&platform, "stock", &zoe_may).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_at_an_app_stays_for_a_while_and_signs_out() {
    let platform = start().await;
    let page = ("accept", "text/html,*/*;q=0.8");
    let begun = ask(&platform, "GET", "notes", "/list?of=mine", &[page]).await;
    assert_eq!(
        (begun.status.as_u16(), begun.header("location")),
        (303, "/public/signin?continue=%2Flist%3Fof%3Dmine")
    );
    let away = ask(&platform, "GET", "notes", begun.header("location"), &[page]).await;
    let state = cookie(&away, "__Host-YSS");
    let at_login = local(&platform, "login", away.header("location"));
    assert!(at_login.starts_with("/signin?app=notes&state=") && at_login.ends_with("&name=Ada%27s%20notes"));
    let logged_in = ask(&platform, "GET", "login", &at_login, &[page]).await;
    let back = ask(&platform, "GET", "login", logged_in.header("location"), &[page]).await;
    let session = local(&platform, "notes", back.header("location"));
    let stolen = ask(&platform, "GET", "notes", &session, &[page]).await;
    assert_eq!(
        (stolen.status.as_u16(), cookies(&stolen).len()),
        (403, 0),
        "another browser gets nothing for it"
    );
    let done = ask(&platform, "GET", "notes", &session, &[page, ("cookie", &state)]).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, "/list?of=mine"), "{}", done.text());
    let (access, refresh) = (cookie(&done, "__Host-YAT"), cookie(&done, "__Host-YRT"));
    let told = ask(&platform, "GET", "notes", "/list?of=mine", &[page, ("cookie", &access)]).await.json();
    assert_eq!((&told["who"]["n"], &told["headers"]["cookie"]), (&json!("ada"), &Value::Null));
    let again = ask(&platform, "GET", "notes", &session, &[page, ("cookie", &state)]).await;
    assert_eq!((again.status.as_u16(), cookies(&again).len()), (403, 0), "a code is used once");
    let post = ask(&platform, "POST", "notes", "/api/x", &[("cookie", &access)]).await;
    assert_eq!(post.status, 403, "no page of the app's own asked for it");
    let origin = format!("https://{}", platform.https().authority("notes"));
    let post = ask(&platform, "POST", "notes", "/api/x", &[("cookie", &access), ("origin", &origin)]).await;
    assert_eq!(post.status, 200, "{}", post.text());
    let renewed =
        ask(&platform, "GET", "notes", "/public/signin?continue=%2F", &[page, ("cookie", &refresh)]).await;
    assert_eq!(renewed.header("location"), "/", "by the session that it has");
    let refresh = cookie(&renewed, "__Host-YRT");
    let out =
        ask(&platform, "POST", "notes", "/public/signout", &[("cookie", &refresh), ("origin", &origin)])
            .await;
    assert_eq!(local(&platform, "login", out.header("location")), "/");
    let late = ask(&platform, "GET", "notes", "/", &[page, ("cookie", &access)]).await;
    assert_eq!(late.header("location"), "/public/signin?continue=%2F");
}

/// The path of a URL of this host, of which it has to be.
fn local(platform: &Platform, host: &str, url: &str) -> String {
    let own = format!("https://{}", platform.https().authority(host));
    url.strip_prefix(&own).unwrap_or_else(|| panic!("{url} is not at {own}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_however_it_is_asked_for() {
    let platform = start().await;
    let (good, _) =
        token(&platform, "stock", "/api/access_token", &log_in(&platform, "stock", "ada").await).await;
    let (other, _) =
        token(&platform, "notes", "/api/access_token", &log_in(&platform, "notes", "ada").await).await;
    let (notes, login) = (secret_of(&platform, "notes").await, secret_of(&platform, "login").await);
    let forged = format!("{}AA", &good[..good.len() - 2]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let ask = async |path: &str, bearer: &str, id: &str| {
            let headers = [("authorization", bearer), ("x-application-id", id)];
            let host = if id.is_empty() { "stock" } else { "internal" };
            let headers = if id.is_empty() { &headers[..1] } else { &headers[..] };
            send(&platform, protocol, ("GET", host, path), headers, "").await.status.as_u16()
        };
        for (what, path, bearer, id, status) in [
            ("a good token", "/api/x", good.as_str(), "", 200),
            ("another app's token", "/api/x", &other, "", 401),
            ("a forged token", "/api/x", &forged, "", 401),
            ("a guess", "/api/x", "Bearer guess", "", 401),
            ("a token for what is internal", "/internal/x", &good, "", 401),
            ("the same by a detour", "/public/%2e%2e/internal/x", &good, "", 401),
            ("the same by two", "/api/..%2finternal/x", &good, "", 401),
            ("the same, louder", "//INTERNAL/x", &good, "", 401),
            ("the same with parameters", "/internal;x=y/z", &good, "", 401),
            ("an app that is named", "/api/x", &notes, "stock", 200),
            ("an app that is not", "/api/x", &login, "stock", 403),
            ("what is internal to another", "/internal/x", &notes, "stock", 403),
            ("what login may", "/internal/x", &login, ADMIN, 200),
            ("what notes may not", "/internal/x", &notes, ADMIN, 403),
            ("nor by a detour", "/api/%2e%2e/internal/x", &notes, ADMIN, 403),
            ("debug-api with another app's token", "/debug/application", &good, "", 401),
        ] {
            assert_eq!(ask(path, bearer, id).await, status, "{what}, {protocol:?}");
        }
    }
    for (caller, path) in [(&notes, "instances"), (&login, "instances"), (&notes, "revocations")] {
        let path = format!("/internal/platform/{path}");
        let answer = ask(&platform, "POST", "internal", &path, &[("authorization", caller)]).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    platform.https().post("login", "/public/deny?app=stock", "").await;
    let refresh = log_in(&platform, "stock", "zoe").await;
    let denied = ask(&platform, "POST", "stock", "/api/access_token", &[("cookie", &refresh)]).await;
    assert_eq!((denied.status.as_u16(), denied.text().as_str()), (403, "access denied\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_develops_with_the_token_of_the_admin_app() {
    let platform = start().await;
    let (admin, _) =
        token(&platform, "admin", "/api/access_token", &log_in(&platform, "admin", "ada").await).await;
    let list = async |bearer: &str| {
        let headers = [("authorization", bearer), ("x-user-id", "7")];
        ask(&platform, "GET", "admin", "/debug/application", &headers).await.status.as_u16()
    };
    assert_eq!(list(&admin).await, 200);
    assert_eq!(list(&format!("Bearer {}", platform.operator("debug-api"))).await, 200);
    assert_eq!(list("Bearer guess").await, 401, "whatever it says of itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_asks_the_admin_app_by_the_platforms_own_socket() {
    let platform = start().await;
    let socket = platform.run().join("proxy.http.sock");
    let provider = platform.token("provider", "proxy");
    let answer = by_socket(&socket, "/api/applications", &provider, ADMIN).await;
    assert_eq!(answer.0, 200);
    let told: Value = serde_json::from_slice(&answer.1).unwrap();
    assert_eq!((&told["path"], &told["who"]["c"]), (&json!("/api/applications"), &json!("@provider")));
    assert_eq!(told["headers"]["authorization"], Value::Null);
    for (what, path, token, id, status) in [
        ("what is internal", "/internal/dologin", provider.as_str(), ADMIN, 403),
        ("another app", "/api/x", &provider, "stock", 403),
        ("a guess", "/api/applications", "guess", ADMIN, 401),
        (
            "a token of another server's",
            "/api/applications",
            &platform.token("proxy", "debug-api"),
            ADMIN,
            401,
        ),
    ] {
        assert_eq!(by_socket(&socket, path, token, id).await.0, status, "{what}");
    }
    platform.kill("proxy").await;
    assert_eq!(
        by_socket(&socket, "/api/applications", &provider, ADMIN).await.0,
        200,
        "the socket outlives it"
    );
}

async fn by_socket(socket: &Path, path: &str, token: &str, id: &str) -> (u16, Bytes) {
    let stream = TokioIo::new(UnixStream::connect(socket).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "internal")
        .header("authorization", format!("Bearer {token}"))
        .header("x-application-id", id)
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = soon("an answer", sender.send_request(request)).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}
