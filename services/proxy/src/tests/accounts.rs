//! Logging in, from both sides of the proxy: clients that write bytes, and a login app that the test scripts.
#![allow(clippy::panic)]

use serde_json::{Value, json};

use super::*;
use crate::{
    rules::Rules,
    table::tests::{idle, running},
    wellknown::{ADMIN, LOGIN},
};

/// A platform with a login app, an admin app, and `hello`, which is for users who are signed in.
struct Platform {
    hub: Hub,
    login: Backend,
    hello: Backend,
    /// The connection to the login app that the proxy keeps.
    line: tokio::sync::Mutex<Option<Peer>>,
}

impl Platform {
    async fn start() -> Self {
        let (hub, login, hello) = (Hub::start(calm()).await, Backend::start().await, Backend::start().await);
        let signed_in = Rules { sign_in: true, ..Rules::default() };
        hub.route(vec![
            running(LOGIN, "login", login.port),
            Entry { rules: signed_in.clone(), ..running(ADMIN, "admin", 1) },
            Entry {
                rules: signed_in,
                display_name: "Hello, you".into(),
                ..running("h1", "hello", hello.port)
            },
            running("open", "open", hello.port),
        ]);
        Self { hub, login, hello, line: tokio::sync::Mutex::default() }
    }

    /// What a request is answered while the login app answers the proxy's question like this; and the question.
    async fn ask_with(&self, request: &str, status: u16, answer: Value) -> (Message, Value) {
        let mut client = self.hub.client().await;
        client.write(request).await;
        let mut line = self.line.lock().await;
        let login = match line.as_mut() {
            Some(login) => login,
            None => line.insert(self.login.accept().await),
        };
        let question = login.message().await;
        assert!(question.has("x-caller-id: @proxy"), "{}", question.head);
        assert!(question.field("x-nexushub-identity").unwrap().contains(";c=@proxy;"), "{}", question.head);
        let body = answer.to_string();
        login.write(&format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        let path = question.head.split(' ').nth(1).unwrap().to_owned();
        let mut asked: Value = serde_json::from_str(&question.body).unwrap();
        asked["path"] = path.into();
        (client.message().await, asked)
    }

    /// An access token for an instance, as a program gets it.
    async fn token(&self, host: &str) -> String {
        let request = at(host, "POST", "/api/access_token", "Cookie: YRT=r1\r\n");
        let (answer, _) = self.ask_with(&request, 200, grant("r2")).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// What `hello` is told by a request, which it answers.
    async fn heard(&self, request: &str) -> Message {
        let mut client = self.hub.client().await;
        client.write(request).await;
        let mut app = self.hello.accept().await;
        let heard = app.head().await;
        app.write(&OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(client.message().await.status(), 200);
        heard
    }
}

fn grant(refresh: &str) -> Value {
    json!({
        "Expiry": now_unix() + 600, "RefreshToken": refresh, "AccessToken": "", "ApplicationID": "x", "UserID": 7,
        "UserName": "Ada Ä", "SessionID": "s-1", "RefreshExpiry": now_unix() + 1000,
    })
}

fn at(host: &str, method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}.yesterday.localhost:8443\r\n{headers}\r\n")
}

fn cookies(message: &Message) -> Vec<&str> {
    message.head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect()
}

/// The value of a cookie that is set.
fn cookie<'a>(message: &'a Message, name: &str) -> &'a str {
    let set = cookies(message).into_iter().find_map(|set| set.strip_prefix(&format!("{name}=")));
    set.unwrap_or_else(|| panic!("no {name} in {}", message.head)).split(';').next().unwrap()
}

#[tokio::test]
async fn a_program_gets_an_access_token_for_its_refresh_token_which_rotates() {
    let platform = Platform::start().await;
    for (method, path) in
        [("POST", "/api/access_token"), ("GET", "/api/access_token"), ("POST", "/public/access_token")]
    {
        let request = at("hello", method, path, "Cookie: YRT=r1\r\n");
        let (answer, question) = platform.ask_with(&request, 200, grant("r2")).await;
        assert_eq!(
            question,
            json!({ "path": "/internal/access_token", "RefreshToken": "r1", "ApplicationID": "h1", "Address": "127.0.0.1" })
        );
        assert_eq!(answer.status(), 200, "{}", answer.head);
        assert_eq!(cookies(&answer), ["YRT=r2; Path=/; HttpOnly; Secure; SameSite=Lax"]);
        assert!(answer.has("content-type: application/json") && answer.has("cache-control: no-store"));
        assert!(answer.body.starts_with(r#"{"access_token":"nxa1."#), "{}", answer.body);
    }
}

#[tokio::test]
async fn at_a_host_of_nobody_the_token_is_for_the_admin_app() {
    let platform = Platform::start().await;
    let request = at("nobody", "POST", "/api/access_token", "Cookie: YRT=r1\r\n");
    let (_, question) = platform.ask_with(&request, 200, grant("r2")).await;
    assert_eq!(question["ApplicationID"], ADMIN);
}

#[tokio::test]
async fn who_has_no_session_is_told_in_the_words_of_each_generation_of_clients() {
    let platform = Platform::start().await;
    let old = |cookie| at("hello", "POST", "/api/access_token", cookie);
    let new = |cookie| at("hello", "POST", "/public/access_token", cookie);
    let login_url = r#"{"login_url":"https://login.yesterday.localhost:8443/"}"#;
    let answer = platform.hub.ask(&old("")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, login_url));
    let answer = platform.hub.ask(&new("")).await;
    assert_eq!((answer.status(), answer.body.as_str()), (403, "missing refresh token\n"));
    let shown = "Cookie: YRT=gone\r\n";
    for (status, error, at_old, at_new) in [
        (401, "unknown", (200, login_url), (403, "refresh token not found\n")),
        (401, "reused", (200, login_url), (403, "refresh token not found\n")),
        (401, "expired", (200, login_url), (401, "session expired\n")),
        (403, "denied", (403, "access denied\n"), (403, "access denied\n")),
    ] {
        for (request, expected) in [(old(shown), at_old), (new(shown), at_new)] {
            let (answer, _) = platform.ask_with(&request, status, json!({ "error": error })).await;
            assert_eq!((answer.status(), answer.body.as_str()), expected, "{error}");
            assert!(cookies(&answer).is_empty());
        }
    }
}

#[tokio::test]
async fn a_token_opens_its_own_app_which_is_told_who_asks_and_not_the_token() {
    let platform = Platform::start().await;
    let token = platform.token("hello").await;
    let bearer = format!("Authorization: Bearer {token}\r\nX-User-Id: 1\r\nCookie: YRT=r2; a=1\r\n");
    let heard = platform.heard(&at("hello", "GET", "/api/x", &bearer)).await;
    for line in ["x-user-id: 7", "x-user-name: Ada%20%C3%84", "x-session-id: s-1", "cookie: a=1"] {
        assert!(heard.has(line), "{line} in {}", heard.head);
    }
    assert!(!heard.head.contains(&token) && heard.field("authorization").is_none());
    let signed = heard.field("x-nexushub-identity").unwrap();
    assert!(signed.contains(";u=7;n=Ada%20%C3%84;s=s-1;c=;m="), "{signed}");
    let other = platform.token("open").await;
    let forged = format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
    for (what, wrong) in
        [("another app's", other), ("a forged one", forged), ("half of one", token[..60].into())]
    {
        let request = at("hello", "GET", "/api/x", &format!("Authorization: Bearer {wrong}\r\n"));
        assert_eq!(platform.hub.ask(&request).await.status(), 401, "{what}");
        assert_eq!(
            platform.hub.ask(&request.replace("/api/x", "/public/../api/x")).await.status(),
            401,
            "{what}"
        );
    }
    assert!(platform.hub.proxy.counters.access_refused.get() >= 6);
}

#[tokio::test]
async fn a_log_out_voids_every_token_of_the_sessions_that_it_ends() {
    let platform = Platform::start().await;
    let token = platform.token("hello").await;
    let with_token = at("hello", "GET", "/api/x", &format!("Authorization: Bearer {token}\r\n"));
    platform.heard(&with_token).await;
    let logout = |cookie| at("hello", "POST", "/public/logout", cookie);
    let missing = platform.hub.ask(&logout("")).await;
    assert_eq!((missing.status(), missing.body.as_str()), (400, "missing refresh token\n"));
    let (wrong, _) =
        platform.ask_with(&logout("Cookie: YRT=x\r\n"), 401, json!({ "error": "unknown" })).await;
    assert_eq!((wrong.status(), wrong.body.as_str()), (400, "invalid refresh token\n"));
    let ended = json!({ "SessionIDs": ["s-1", "s-2"] });
    let (done, question) = platform.ask_with(&logout("Cookie: YRT=r2\r\n"), 200, ended).await;
    assert_eq!(question, json!({ "path": "/internal/logout", "RefreshToken": "r2", "Address": "127.0.0.1" }));
    assert_eq!((done.status(), done.body.as_str()), (200, "null"));
    assert!(cookies(&done).contains(&"YRT=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax"));
    assert_eq!(platform.hub.ask(&with_token).await.status(), 401);
}

#[tokio::test]
async fn the_login_app_says_who_was_logged_out_and_nobody_else_does() {
    let platform = Platform::start().await;
    let token = platform.token("hello").await;
    let with_token = at("hello", "GET", "/api/x", &format!("Authorization: Bearer {token}\r\n"));
    let body = r#"{"sessions":[],"users":[7]}"#;
    let say = |by: &str| {
        let headers = format!("Authorization: Bearer secret of {by}\r\nContent-Length: {}\r\n", body.len());
        at("internal", "POST", "/internal/platform/revocations", &headers) + body
    };
    for (by, status) in [("open", 403), (ADMIN, 403), ("nobody", 401)] {
        assert_eq!(platform.hub.ask(&say(by)).await.status(), status, "{by}");
    }
    platform.heard(&with_token).await;
    assert_eq!(platform.hub.ask(&say(LOGIN)).await.status(), 204);
    assert_eq!(platform.hub.ask(&with_token).await.status(), 401);
}

/// Begins to sign in at `hello`: the cookie that keeps it, and the state that the login app is told.
async fn begin(platform: &Platform, target: &str) -> (String, String) {
    let answer =
        platform.hub.ask(&at("hello", "GET", &format!("/public/signin?continue={target}"), "")).await;
    assert_eq!(answer.status(), 303, "{}", answer.head);
    let location = answer.field("location").unwrap();
    let state = location
        .strip_prefix("https://login.yesterday.localhost:8443/signin?app=h1&state=")
        .and_then(|rest| rest.strip_suffix("&name=Hello%2C%20you"))
        .unwrap_or_else(|| panic!("{location}"));
    let kept = cookie(&answer, "__Host-YSS");
    assert!(
        answer.has(&format!(
            "set-cookie: __Host-YSS={kept}; Max-Age=600; Path=/; HttpOnly; Secure; SameSite=Lax"
        ))
    );
    (kept.to_owned(), state.to_owned())
}

#[tokio::test]
async fn a_browser_is_signed_in_and_comes_back_to_the_page_that_it_asked_for() {
    let platform = Platform::start().await;
    let page = "Accept: text/html,*/*;q=0.8\r\n";
    let first = platform.hub.ask(&at("hello", "GET", "/notes?id=1&x=%2f", page)).await;
    let continued = "/public/signin?continue=%2Fnotes%3Fid%3D1%26x%3D%252f";
    assert_eq!((first.status(), first.field("location")), (303, Some(continued)));
    let (kept, state) = begin(&platform, "%2Fnotes%3Fid%3D1%26x%3D%252f").await;
    let back = at("login", "GET", &format!("/public/return?app=h1&code=c0de&state={state}"), "");
    let back = platform.hub.ask(&back).await;
    let session = format!("https://hello.yesterday.localhost:8443/public/session?code=c0de&state={state}");
    assert_eq!((back.status(), back.field("location")), (303, Some(session.as_str())));
    let target = session.strip_prefix("https://hello.yesterday.localhost:8443").unwrap();
    let request = at("hello", "GET", target, &format!("Cookie: __Host-YSS={kept}\r\n"));
    let (done, question) = platform.ask_with(&request, 200, grant("r1")).await;
    let redeem = json!({ "path": "/internal/redeem", "Code": "c0de", "ApplicationID": "h1", "State": state, "Address": "127.0.0.1" });
    assert_eq!(question, redeem);
    assert_eq!((done.status(), done.field("location")), (303, Some("/notes?id=1&x=%2f")));
    let access = cookie(&done, "__Host-YAT");
    assert!(done.has(&format!(
        "set-cookie: __Host-YAT={access}; Max-Age=600; Path=/; HttpOnly; Secure; SameSite=Lax"
    )));
    assert_eq!((cookie(&done, "__Host-YRT"), cookie(&done, "__Host-YSS")), ("r1", ""));
    assert!(!done.head.to_ascii_lowercase().contains("domain="));
    let heard = platform
        .heard(&at("hello", "GET", "/notes", &format!("{page}Cookie: __Host-YAT={access}\r\n")))
        .await;
    assert!(heard.has("x-user-id: 7") && heard.field("cookie").is_none(), "{}", heard.head);
}

#[tokio::test]
async fn a_browser_whose_access_is_over_gets_on_by_its_session_without_seeing_a_form() {
    let platform = Platform::start().await;
    let request = at("hello", "GET", "/public/signin?continue=%2Fa", "Cookie: __Host-YRT=r1\r\n");
    let (done, question) = platform.ask_with(&request, 200, grant("r2")).await;
    assert_eq!((question["RefreshToken"].as_str(), done.field("location")), (Some("r1"), Some("/a")));
    assert_eq!(cookie(&done, "__Host-YRT"), "r2");
    let (denied, _) = platform.ask_with(&request, 403, json!({ "error": "denied" })).await;
    assert_eq!(denied.status(), 403);
    let (over, _) = platform.ask_with(&request, 401, json!({ "error": "expired" })).await;
    assert!(over.field("location").unwrap().starts_with("https://login."), "{}", over.head);
}

#[tokio::test]
async fn nobody_signs_a_browser_in_with_a_code_that_it_did_not_ask_for() {
    let platform = Platform::start().await;
    let (kept, _) = begin(&platform, "%2F").await;
    let (_, state_of_another) = begin(&platform, "%2F").await;
    let session = format!("/public/session?code=c0de&state={state_of_another}");
    for cookie in
        ["", &format!("Cookie: __Host-YSS={kept}\r\n"), "Cookie: __Host-YSS=x\r\n", "Cookie: YSS=x.Lw\r\n"]
    {
        let answer = platform.hub.ask(&at("hello", "GET", &session, cookie)).await;
        assert_eq!((answer.status(), cookies(&answer).len()), (403, 0), "{cookie}");
    }
    let own = begin(&platform, "%2F").await;
    let cookie = format!("Cookie: __Host-YSS={}\r\n", own.0);
    let used = at("hello", "GET", &format!("/public/session?code=used&state={}", own.1), &cookie);
    let (answer, _) = platform.ask_with(&used, 401, json!({ "error": "unknown" })).await;
    assert_eq!((answer.status(), cookies(&answer).len()), (403, 0));
}

#[tokio::test]
async fn no_sign_in_leads_to_another_site() {
    let platform = Platform::start().await;
    for target in [
        "https%3A%2F%2Fevil.example",
        "%2F%2Fevil.example",
        "%2F%5Cevil.example",
        "%09%2F%2Fevil.example",
        "",
    ] {
        let (kept, state) = begin(&platform, target).await;
        let cookie = format!("Cookie: __Host-YSS={kept}\r\n");
        let request = at("hello", "GET", &format!("/public/session?code=c&state={state}"), &cookie);
        let (done, _) = platform.ask_with(&request, 200, grant("r1")).await;
        assert_eq!(done.field("location"), Some("/"), "{target}");
    }
    for (query, status) in [
        ("app=nobody&code=c&state=s", 404),
        ("app=open&code=c&state=s", 404),
        ("app=evil.example%2F&code=c&state=s", 400),
        ("app=h1&code=c%0d%0aX%3A%20y&state=s", 400),
        ("app=h1&code=c", 400),
    ] {
        let answer = platform.hub.ask(&at("login", "GET", &format!("/public/return?{query}"), "")).await;
        assert_eq!((answer.status(), answer.field("location")), (status, None), "{query}");
    }
}

#[tokio::test]
async fn signing_out_is_asked_for_by_the_apps_own_page_only() {
    let platform = Platform::start().await;
    let out = |headers: &str| {
        at("hello", "POST", "/public/signout", &format!("Cookie: __Host-YRT=r1\r\n{headers}"))
    };
    for headers in ["", "Origin: https://evil.example\r\n", "Sec-Fetch-Site: same-site\r\n"] {
        assert_eq!(platform.hub.ask(&out(headers)).await.status(), 403, "{headers}");
    }
    let own = out("Origin: https://hello.yesterday.localhost:8443\r\n");
    let (done, _) = platform.ask_with(&own, 200, json!({ "SessionIDs": ["s-1"] })).await;
    assert_eq!(done.field("location"), Some("https://login.yesterday.localhost:8443/"));
    assert_eq!(["__Host-YRT", "YRT", "__Host-YAT"].map(|name| cookie(&done, name)), [""; 3]);
}

#[tokio::test]
async fn a_login_app_that_is_down_breaks_off_or_talks_nonsense_is_not_waited_for() {
    let platform = Platform::start().await;
    let request = at("hello", "POST", "/api/access_token", "Cookie: YRT=r1\r\n");
    for (status, answer) in [(500, json!({})), (200, json!({})), (200, json!("x")), (404, json!({}))] {
        let (refused, _) = platform.ask_with(&request, status, answer.clone()).await;
        assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")), "{status} {answer}");
    }
    let mut hostile = grant("r2");
    hostile["RefreshToken"] = "r2; Domain=localhost".into();
    assert_eq!(platform.ask_with(&request, 200, hostile).await.0.status(), 503);
    for state in [table::State::Failed, table::State::Stopped] {
        platform.hub.change(Change::put(idle(LOGIN, "login", state, "")));
        let refused = platform.hub.ask(&request).await;
        assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    }
    let nobody = Backend::nobody().await;
    platform.hub.change(Change::put(running(LOGIN, "login", nobody)));
    assert_eq!(platform.hub.ask(&request).await.status(), 503);
}

#[tokio::test]
async fn a_login_app_that_is_starting_is_waited_for() {
    let platform = Platform::start().await;
    platform.hub.change(Change::put(idle(LOGIN, "login", table::State::Starting, "")));
    let mut client = platform.hub.client().await;
    client.write(&at("hello", "POST", "/api/access_token", "Cookie: YRT=r1\r\n")).await;
    platform.hub.until(|counters| counters.requests_in_flight.get(), 2).await;
    platform.hub.change(Change::put(running(LOGIN, "login", platform.login.port)));
    let mut login = platform.login.accept().await;
    assert!(login.message().await.head.starts_with("POST /internal/access_token "));
    let body = grant("r2").to_string();
    login.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn a_password_goes_to_the_login_app_from_any_host_and_its_answer_comes_back() {
    let platform = Platform::start().await;
    let mut client = platform.hub.client().await;
    let body = r#"{"username":"ada","password":"x"}"#;
    let headers = format!("Content-Length: {}\r\nCookie: YRT=r0\r\n", body.len());
    client.write(&(at("hello", "POST", "/public/login", &headers) + body)).await;
    let mut login = platform.login.accept().await;
    let asked = login.message().await;
    assert_eq!(asked.body, body);
    for line in ["x-forwarded-host: hello.yesterday.localhost:8443", "cookie: YRT=r0"] {
        assert!(asked.has(line), "{line} in {}", asked.head);
    }
    let set = "Set-Cookie: YRT=r1; Path=/; HttpOnly; Secure; SameSite=Lax";
    login.write(&format!("HTTP/1.1 200 OK\r\n{set}\r\nContent-Length: 2\r\n\r\n{{}}")).await;
    let answer = client.message().await;
    assert_eq!((answer.body.as_str(), cookie(&answer, "YRT")), ("{}", "r1"));
}

#[tokio::test]
async fn a_developer_shows_an_administrators_token_and_debug_api_hears_who_it_is() {
    let platform = Platform::start().await;
    let listener = debug_api(&platform.hub);
    let (admin, other) = (platform.token("admin").await, platform.token("hello").await);
    let ask = |token: &str| {
        at(
            "hello",
            "GET",
            "/debug/application",
            &format!("Authorization: Bearer {token}\r\nX-User-Id: 1\r\n"),
        )
    };
    let mut client = platform.hub.client().await;
    client.write(&ask(&admin)).await;
    let mut backend = accept_unix(&listener).await;
    let heard = backend.head().await;
    assert!(heard.has("x-user-id: 7") && heard.has("nexushub-proxy-token: the-token"), "{}", heard.head);
    assert!(heard.field("authorization").is_none());
    backend.write(OK).await;
    assert_eq!(client.message().await.status(), 200);
    assert_eq!(platform.hub.ask(&ask(&other)).await.status(), 401);
    client.write(&ask("an operator's")).await;
    let heard = backend.head().await;
    assert!(heard.field("x-user-id").is_none() && heard.has("authorization: Bearer an operator's"));
}

#[tokio::test]
async fn the_admin_app_asks_debug_api_and_nobody_else_does() {
    let platform = Platform::start().await;
    let listener = debug_api(&platform.hub);
    let ask = |by: &str| {
        let headers =
            format!("Authorization: Bearer secret of {by}\r\nX-Acting-User: 7\r\nX-Caller-Id: {ADMIN}\r\n");
        at("internal", "GET", "/internal/platform/instances", &headers)
    };
    let mut client = platform.hub.client().await;
    client.write(&ask(ADMIN)).await;
    let mut backend = accept_unix(&listener).await;
    let heard = backend.head().await;
    assert!(heard.has(&format!("x-caller-id: {ADMIN}")) && heard.has("x-acting-user: 7"), "{}", heard.head);
    assert!(heard.field("authorization").is_none() && heard.has("nexushub-proxy-token: the-token"));
    backend.write(OK).await;
    assert_eq!(client.message().await.status(), 200);
    for (by, status) in [("open", 403), (LOGIN, 403), ("nobody", 401)] {
        assert_eq!(platform.hub.ask(&ask(by)).await.status(), status, "{by}");
    }
}

#[tokio::test]
async fn scripts_of_listed_origins_may_ask_and_read_and_others_not() {
    let (backend, hub) = (Backend::start().await, Hub::start(calm()).await);
    let rules = Rules { cors: vec!["https://www.example".into()], ..Rules::default() };
    hub.route(vec![Entry { rules, ..running("h1", "hello", backend.port) }]);
    let asks = |origin: &str| {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n");
        at("hello", "OPTIONS", "/api/x", &headers)
    };
    let told = hub.ask(&asks("https://www.example")).await;
    assert_eq!(told.status(), 204, "{}", told.head);
    assert!(
        told.has("access-control-allow-origin: https://www.example")
            && told.has("access-control-allow-methods: PUT")
    );
    assert!(hub.ask(&asks("https://evil.example")).await.field("access-control-allow-origin").is_none());
    let mut client = hub.client().await;
    client.write(&at("hello", "GET", "/public/x", "Origin: https://www.example\r\n")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(&OK.replace("\r\n\r\n", "\r\nAccess-Control-Allow-Origin: *\r\n\r\n")).await;
    assert!(client.message().await.has("access-control-allow-origin: https://www.example"));
    let rules =
        Rules { callers: vec!["shop".into()], cors: vec!["https://www.example".into()], ..Rules::default() };
    hub.route(vec![Entry { rules, ..running("h1", "hello", backend.port) }]);
    for (origin, told) in
        [("https://www.example", Some("https://www.example")), ("https://evil.example", None)]
    {
        let refused = hub.ask(&at("hello", "GET", "/api/x", &format!("Origin: {origin}\r\n"))).await;
        assert_eq!(
            (refused.status(), refused.field("access-control-allow-origin")),
            (401, told),
            "and why not"
        );
    }
}

#[tokio::test]
async fn at_the_platforms_own_socket_a_stranger_is_refused() {
    let platform = Platform::start().await;
    let path = platform.hub.folder.path().join("proxy.http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let front = Arc::clone(&platform.hub.front);
    tokio::spawn(daemons::serve(front, listener, platform.hub.drain.clone()));
    let mut client = Peer::new(UnixStream::connect(&path).await.unwrap());
    let headers = format!("Authorization: Bearer secret of {ADMIN}\r\nX-Application-Id: {ADMIN}\r\n");
    client.write(&at("internal", "GET", "/api/applications", &headers)).await;
    assert_eq!(client.message().await.status(), 401, "an app's secret is no daemon's token");
}

#[tokio::test]
async fn who_guesses_passwords_is_slowed_down_and_nobody_else() {
    let (login, hub) =
        (Backend::start().await, Hub::start(Config { address_logins_per_minute: 2, ..calm() }).await);
    hub.route(vec![running(LOGIN, "login", login.port)]);
    let guess = at("login", "POST", "/public/login", "Content-Length: 0\r\n");
    let mut client = hub.client().await;
    client.write(&guess).await;
    let mut app = login.accept().await;
    for _ in 0..2 {
        app.head().await;
        app.write(OK).await;
        assert_eq!(client.message().await.status(), 200);
        client.write(&guess).await;
    }
    let slowed = client.message().await;
    let wait: u32 = slowed.field("retry-after").unwrap().parse().unwrap();
    assert!(slowed.status() == 429 && (1..=30).contains(&wait), "{slowed:?}"); // two a minute
    client.write(&at("login", "GET", "/", "")).await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(client.message().await.status(), 200, "who only looks");
}

#[tokio::test]
async fn who_guesses_by_way_of_a_trusted_proxy_is_slowed_down_and_not_everybody_behind_it() {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let config = Config { address_logins_per_minute: 1, trusted_proxies, ..calm() };
    let (login, hub) = (Backend::start().await, Hub::start(config).await);
    hub.route(vec![running(LOGIN, "login", login.port)]);
    let guess = |path: &str| {
        at("login", "POST", "/public/login", &format!("Content-Length: 0\r\nX-Forwarded-For: {path}\r\n"))
    };
    let mut client = hub.client().await;
    client.write(&guess("192.0.2.7")).await;
    let mut app = login.accept().await;
    assert_eq!(app.head().await.field("x-real-ip"), Some("192.0.2.7"));
    app.write(OK).await;
    assert_eq!(client.message().await.status(), 200);
    for path in ["192.0.2.7", "6.6.6.6, 192.0.2.7", "192.0.2.7, 127.0.0.9"] {
        client.write(&guess(path)).await;
        assert_eq!(client.message().await.status(), 429, "{path}");
    }
    client.write(&guess("192.0.2.7, 192.0.2.8")).await;
    assert_eq!(app.head().await.field("x-real-ip"), Some("192.0.2.8"));
    app.write(OK).await;
    assert_eq!(client.message().await.status(), 200, "somebody else");
}
