//! The order of decisions, case by case.
#![allow(clippy::unwrap_used)]

use http::Request;

use super::*;
use crate::{
    identity::User,
    pool::Limits,
    rules::Rules,
    table::{
        Change, Entry, Pause,
        tests::{idle, running},
    },
    tokens::Access,
};

const BASE: &str = "yesterday.localhost";

fn policy() -> Policy {
    Policy { base_domain: BASE.into(), require_login: true, hold_ms: 5_000 }
}

fn paused(closed: bool) -> Option<Pause> {
    Some(Pause { message: "back at noon".into(), closed })
}

fn table() -> Table {
    let entries = vec![
        running("h1", "hello", 10_000),
        running("d1", "shop.debug", 10_001),
        Entry { debug_port: 5173, ..running("v1", "vite", 10_002) },
        idle("s1", "starting", State::Starting, "health check has not answered yet"),
        Entry { retry_unix_ms: 1_060_000, ..idle("w1", "waiting", State::Starting, "exited with code 1") },
        idle("f1", "failed", State::Failed, "exited with code 3"),
        idle("t1", "stopped", State::Stopped, "removed"),
        idle("t2", "stopping", State::Stopping, "removed"),
        Entry { retry_unix_ms: 1_000, ..idle("t3", "switching", State::Stopping, "new release") },
        idle("z1", "asleep", State::Asleep, "nobody asked for it"),
        Entry { pause: paused(false), ..running("p1", "paused", 10_003) },
        Entry { pause: paused(true), ..running("p2", "closed", 10_004) },
    ];
    Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true })
}

fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn judged(parts: &Parts, sni: Option<&str>, table: &Table, policy: &Policy) -> String {
    let authority = match authority(parts) {
        Ok(authority) => authority,
        Err(refusal) => return refusal.status.as_u16().to_string(),
    };
    let names = Names::of(&["*.yesterday.localhost", "yesterday.localhost", "localhost"]);
    let origin = Origin { names: sni.map(|_| &names), ..Origin::default() };
    outcome(decide(parts, &authority, origin, table, policy, 1_000_000))
}

/// What a request out of the box of `boxed` comes to.
fn out_of(boxed: &str, host: &str, path: &str, token: Option<&str>, id: Option<&str>) -> String {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("host", host)];
    headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
    headers.extend(id.map(|id| ("x-application-id", id)));
    let parts = parts("GET", path, &headers);
    let caller = Caller::of(boxed).unwrap();
    let origin = Origin { boxed: Some(&caller), ..Origin::default() };
    outcome(decide(&parts, &authority(&parts).unwrap(), origin, &table(), &policy(), 1_000_000))
}

fn outcome(decided: Result<Decision, Refusal>) -> String {
    let by = |by: Identity| match (by.caller, by.user) {
        (Some(caller), _) => format!(" by {}", caller.id()),
        (None, Some(user)) => format!(" by user {}", user.id),
        (None, None) => String::new(),
    };
    match decided {
        Err(refusal) => refusal.status.as_u16().to_string(),
        Ok(Decision::Debug) => "debug".into(),
        Ok(Decision::Platform(caller)) => format!("platform by {}", caller.id()),
        Ok(Decision::Ours(ours)) => {
            format!("ours: {ours:?}").split(" {").next().unwrap_or_default().to_owned()
        }
        Ok(Decision::App { route, by: who }) => format!("app {}{}", route.entry.id, by(who)),
        Ok(Decision::Dev { route, .. }) => format!("dev {}", route.entry.id),
        Ok(Decision::Site { route, .. }) => format!("site {}", route.entry.id),
        Ok(Decision::Wait(Some(route))) => format!("wait {}", route.entry.id),
        Ok(Decision::Wait(None)) => "wait for all".into(),
    }
}

fn get(host: &str, path: &str) -> String {
    judged(&parts("GET", path, &[("host", host)]), None, &table(), &policy())
}

fn bearer(host: &str, path: &str, token: &str, id: Option<&str>) -> String {
    let authorization = format!("Bearer {token}");
    let mut headers = vec![("host", host), ("authorization", authorization.as_str())];
    headers.extend(id.map(|id| ("x-application-id", id)));
    judged(&parts("GET", path, &headers), None, &table(), &policy())
}

#[test]
fn an_app_that_runs_and_is_paused_makes_its_requests_wait_or_refuses_them() {
    assert_eq!(get("paused.yesterday.localhost", "/"), "wait p1");
    assert_eq!(get("asleep.yesterday.localhost", "/"), "wait z1", "and is woken meanwhile");
    assert_eq!(get("closed.yesterday.localhost", "/"), "503");
    let table = table();
    let refusal = unready(table.by_host("closed").unwrap(), 10);
    assert_eq!(refusal.text, "Service Unavailable: closed is paused: back at noon");
}

#[test]
fn hosts_lead_to_their_instances() {
    for (host, expected) in [
        ("hello.yesterday.localhost", "app h1"),
        ("HELLO.Yesterday.Localhost:8443", "app h1"),
        ("hello.yesterday.localhost.", "app h1"),
        ("shop.debug.yesterday.localhost:1", "app d1"),
        ("nobody.yesterday.localhost", "404"),
        ("yesterday.localhost", "404"),
        ("hello.example.org", "421"),
        ("127.0.0.1:8443", "421"),
        ("hello_x.yesterday.localhost", "400"),
        ("user@hello.yesterday.localhost", "400"),
        ("", "400"),
    ] {
        assert_eq!(get(host, "/public/x"), expected, "{host}");
    }
}

#[test]
fn instances_that_are_not_routed_wait_or_say_why() {
    assert_eq!(get("starting.yesterday.localhost", "/"), "wait s1");
    assert_eq!(get("waiting.yesterday.localhost", "/"), "503", "its next start is a minute away");
    assert_eq!(get("switching.yesterday.localhost", "/"), "wait t3");
    assert_eq!(get("stopping.yesterday.localhost", "/"), "503", "it does not come back");
    assert_eq!(get("failed.yesterday.localhost", "/"), "503");
    assert_eq!(get("stopped.yesterday.localhost", "/"), "503");
    let table = table();
    let refusal = unready(table.by_host("failed").unwrap(), 1);
    assert_eq!(refusal.text, "Service Unavailable: failed is failed: exited with code 3");
    assert_eq!(refusal.retry_after, Some(1));
}

#[test]
fn debug_and_login_paths_are_for_any_host() {
    for host in ["localhost:8443", "nobody.yesterday.localhost", "example.org", "failed.yesterday.localhost"]
    {
        for path in [
            "/debug/application",
            "/debug/application/1/logs?x=1",
            "/public/login",
            "/public/logout",
            "/public/access_token",
        ] {
            assert_eq!(get(host, path), "debug", "{host} {path}");
        }
    }
    assert_eq!(get("", "/debug/application"), "400");
}

#[test]
fn internal_paths_need_the_apps_own_secret() {
    assert_eq!(get("hello.yesterday.localhost", "/internal/x"), "401");
    assert_eq!(get("hello.yesterday.localhost", "/public/../internal/x"), "401");
    assert_eq!(bearer("hello.yesterday.localhost", "/internal/x", "guess", None), "401");
    assert_eq!(bearer("hello.yesterday.localhost", "/internal/x", "secret of h1", None), "app h1 by h1");
    assert_eq!(bearer("hello.yesterday.localhost", "/internal/x", "secret of d1", None), "403");
    assert_eq!(bearer("hello.yesterday.localhost", "/api/../internal/x", "secret of d1", None), "403");
    assert_eq!(bearer("nobody.yesterday.localhost", "/internal/x", "secret of d1", None), "404");
    assert_eq!(
        bearer("starting.yesterday.localhost", "/internal/x", "guess", None),
        "401",
        "no waiting for strangers"
    );
}

#[test]
fn two_authorizations_are_none() {
    let headers = [
        ("host", "hello.yesterday.localhost"),
        ("authorization", "Bearer secret of h1"),
        ("authorization", "Bearer x"),
    ];
    assert_eq!(judged(&parts("GET", "/internal/x", &headers), None, &table(), &policy()), "401");
}

#[test]
fn api_paths_need_a_token_unless_the_operator_says_that_they_do_not() {
    let (hello, lenient) = ("hello.yesterday.localhost", Policy { require_login: false, ..policy() });
    let anonymous = parts("GET", "/api/status", &[("host", hello)]);
    assert_eq!(judged(&anonymous, None, &table(), &policy()), "401");
    assert_eq!(judged(&anonymous, None, &table(), &lenient), "app h1");
    assert_eq!(bearer(hello, "/api/status", "secret of h1", None), "app h1 by h1");
    assert_eq!(bearer(hello, "/api/status", "secret of d1", None), "403", "it names nobody");
    let headers = [("host", hello), ("authorization", "bearer secret of d1")];
    assert_eq!(judged(&parts("GET", "/api/status", &headers), None, &table(), &lenient), "app h1 by d1");
}

#[test]
fn an_application_id_counts_only_from_who_holds_a_secret() {
    let host = "internal.yesterday.localhost";
    assert_eq!(bearer(host, "/public/x", "secret of h1", Some("d1")), "app d1 by h1");
    assert_eq!(bearer(host, "/api/x", "secret of h1", Some("d1")), "403", "it names nobody");
    assert_eq!(bearer(host, "/api/x", "secret of h1", Some("none")), "404");
    assert_eq!(bearer(host, "/api/x", "secret of h1", None), "404", "internal is no app");
    assert_eq!(bearer(host, "/api/x", "guess", Some("d1")), "401");
    assert_eq!(bearer("hello.yesterday.localhost", "/public/x", "guess", Some("d1")), "app h1");
}

#[test]
fn out_of_a_box_its_own_apps_secret_counts_and_no_other() {
    let (internal, own, id) = ("internal.yesterday.localhost:8443", Some("secret of h1"), Some("d1"));
    assert_eq!(out_of("h1", internal, "/public/x", own, id), "app d1 by h1");
    assert_eq!(out_of("h1", internal, "/", own, id), "site d1");
    for wrong in [None, Some("guess"), Some("secret of d1"), Some("secret of v1")] {
        for path in ["/api/x", "/internal/x", "/public/x", "/"] {
            assert_eq!(out_of("h1", internal, path, wrong, id), "401", "{wrong:?} {path}");
        }
    }
    assert_eq!(out_of("h1", internal, "/api/x", own, None), "404");
    assert_eq!(out_of("h1", internal, "/api/x", own, Some("none")), "404");
    assert_eq!(out_of("h1", internal, "/public/x", own, Some("s1")), "wait s1");
}

#[test]
fn out_of_a_box_an_apps_public_name_is_what_it_is_outside() {
    let hello = "hello.yesterday.localhost";
    assert_eq!(out_of("d1", hello, "/public/x", None, None), "app h1");
    assert_eq!(out_of("d1", hello, "/public/x", Some("secret of d1"), None), "app h1 by d1");
    assert_eq!(
        out_of("d1", hello, "/public/x", Some("secret of h1"), None),
        "app h1",
        "nobody in particular"
    );
    assert_eq!(out_of("d1", hello, "/api/x", None, None), "401");
    assert_eq!(out_of("d1", hello, "/", None, None), "site h1");
    for host in ["localhost:8443", "127.0.0.1:8443", "169.254.169.254", "example.org", "internal.example.org"]
    {
        assert_eq!(out_of("d1", host, "/public/x", Some("secret of d1"), None), "421", "{host}");
    }
}

#[test]
fn what_is_internal_to_an_app_is_asked_for_by_that_app_alone() {
    let (internal, hello) = ("internal.yesterday.localhost", "hello.yesterday.localhost");
    assert_eq!(out_of("h1", internal, "/internal/x", Some("secret of h1"), Some("h1")), "app h1 by h1");
    assert_eq!(out_of("h1", internal, "/internal/x", Some("secret of h1"), Some("d1")), "403");
    assert_eq!(out_of("d1", hello, "/internal/x", Some("secret of d1"), None), "403");
    assert_eq!(out_of("d1", hello, "/public/%2e%2e/Internal/x", Some("secret of d1"), None), "403");
    assert_eq!(out_of("d1", hello, "/internal/x", Some("secret of h1"), None), "401");
}

#[test]
fn no_box_reaches_what_is_for_operators() {
    for path in ["/debug/application", "/debug/application/1/logs", "/public/login"] {
        for host in ["internal.yesterday.localhost", "hello.yesterday.localhost", "localhost"] {
            assert_eq!(out_of("h1", host, path, Some("secret of h1"), Some("h1")), "404", "{host} {path}");
        }
    }
}

#[test]
fn other_paths_are_static_or_the_development_servers() {
    assert_eq!(get("hello.yesterday.localhost", "/"), "site h1");
    assert_eq!(get("hello.yesterday.localhost", "/style.css"), "site h1");
    assert_eq!(get("vite.yesterday.localhost", "/src/main.ts"), "dev v1");
    assert_eq!(get("vite.yesterday.localhost", "/public/x"), "app v1");
}

#[test]
fn the_certificate_must_cover_the_host_if_a_name_was_sent() {
    let asked = parts("GET", "/public/x", &[("host", "shop.debug.yesterday.localhost")]);
    assert_eq!(judged(&asked, Some("hello.yesterday.localhost"), &table(), &policy()), "421");
    assert_eq!(judged(&asked, None, &table(), &policy()), "app d1");
    let covered = parts("GET", "/public/x", &[("host", "hello.yesterday.localhost")]);
    assert_eq!(judged(&covered, Some("other.yesterday.localhost"), &table(), &policy()), "app h1");
    let debug = parts("GET", "/debug/application", &[("host", "example.org")]);
    assert_eq!(judged(&debug, Some("example.org"), &table(), &policy()), "debug");
}

#[test]
fn without_a_table_nothing_is_said_not_to_exist() {
    let empty = Table::empty(Limits::default());
    let asked = parts("GET", "/", &[("host", "hello.yesterday.localhost")]);
    assert_eq!(judged(&asked, None, &empty, &policy()), "wait for all");
    let partly = empty.apply(Change::Snapshot { entries: vec![running("a", "a", 1)], reconciled: false });
    assert_eq!(judged(&asked, None, &partly, &policy()), "wait for all");
    let lost = Table::empty(Limits::default()).apply(Change::Lost);
    assert_eq!(judged(&asked, None, &lost, &policy()), "wait for all");
}

#[test]
fn ambiguous_requests_are_refused() {
    let hello = "hello.yesterday.localhost";
    for (method, target, headers, expected) in [
        ("GET", "/", vec![], "400"),
        ("GET", "/", vec![("host", hello), ("host", hello)], "400"),
        ("GET", "https://hello.yesterday.localhost/public/x", vec![("host", hello)], "app h1"),
        (
            "GET",
            "http://hello.yesterday.localhost/public/x",
            vec![("host", "Hello.yesterday.localhost")],
            "app h1",
        ),
        (
            "GET",
            "https://hello.yesterday.localhost/public/x",
            vec![("host", "shop.debug.yesterday.localhost")],
            "400",
        ),
        ("GET", "https://hello.yesterday.localhost/public/x", vec![], "400"),
        ("GET", "ftp://hello.yesterday.localhost/x", vec![("host", hello)], "400"),
        ("CONNECT", "hello.yesterday.localhost:443", vec![("host", "hello.yesterday.localhost:443")], "405"),
        ("TRACE", "/", vec![("host", hello)], "405"),
        ("OPTIONS", "*", vec![("host", hello)], "204"),
        ("GET", "*", vec![("host", hello)], "400"),
    ] {
        assert_eq!(
            judged(&parts(method, target, &headers), None, &table(), &policy()),
            expected,
            "{method} {target} {headers:?}"
        );
    }
}

#[test]
fn http2_needs_no_host_beside_its_authority() {
    let mut asked = parts("GET", "https://hello.yesterday.localhost:8443/public/x", &[]);
    asked.version = Version::HTTP_2;
    assert_eq!(judged(&asked, None, &table(), &policy()), "app h1");
    asked.headers.insert("host", "shop.debug.yesterday.localhost".parse().unwrap());
    assert_eq!(judged(&asked, None, &table(), &policy()), "400");
}

#[test]
fn a_path_that_is_stripped_needs_what_either_of_its_readings_needs() {
    let rules = Rules { prefix: "/shop".into(), strip: true, ..Rules::default() };
    let whole = Rules { prefix: "/whole".into(), ..Rules::default() };
    let entries = vec![
        running("h1", "hello", 1),
        Entry { rules, ..running("s1", "hello", 2) },
        Entry { rules: whole, ..running("w1", "hello", 3) },
    ];
    let table = Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true });
    for (path, expected) in [
        ("/", "site h1"),
        ("/shop", "site s1"),
        ("/shop/x", "site s1"),
        ("/shops", "site h1"),
        ("/shop/public/x", "app s1"),
        ("/shop/api/x", "401"),
        ("/shop/internal/x", "401"),
        ("/shop//internal/x", "401"),
        ("/shop/%69nternal/x", "401"),
        ("/shop/a/../internal/x", "401"),
        ("/shop/debug/x", "site s1"),
        ("/whole/internal/x", "site w1"),
        ("/whole/../internal/x", "401"),
    ] {
        let parts = parts("GET", path, &[("host", "hello.yesterday.localhost")]);
        let is = judged(&parts, None, &table, &policy()).replace("app h1", "site h1");
        assert_eq!(is, expected, "{path}");
    }
}

/// Apps with rules: a login app, an admin app that only login may ask inside, an app for users who are signed in, and one that
/// names its callers.
fn ruled() -> Table {
    let with = |id: &str, host: &str, rules: Rules| Entry { rules, ..running(id, host, 11_000) };
    let list = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let entries = vec![
        running(LOGIN, "login", 11_001),
        with(ADMIN, "admin", Rules { internal_callers: list(&[LOGIN]), sign_in: true, ..Rules::default() }),
        with("notes", "notes", Rules { sign_in: true, ..Rules::default() }),
        with("stock", "stock", Rules { callers: list(&["shop"]), ..Rules::default() }),
        with("figures", "figures", Rules { cors: list(&["https://www.example"]), ..Rules::default() }),
        running("shop", "shop", 11_002),
    ];
    Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true })
}

/// A user's token for an instance.
fn access(instance: &str) -> Option<Arc<Access>> {
    let user = User { id: 7, name: "Ada".into(), session: "s".into() };
    Some(Arc::new(Access { instance: instance.into(), user: Arc::new(user), expires_ms: i64::MAX }))
}

/// What a request with rules and tokens comes to.
fn ruling(method: &str, host: &str, path: &str, headers: &[(&str, &str)], shown: &Shown) -> String {
    let host = format!("{host}.{BASE}:8443");
    let headers: Vec<_> = [("host", host.as_str())].into_iter().chain(headers.iter().copied()).collect();
    let parts = parts(method, path, &headers);
    let origin = Origin { shown: Some(shown), ..Origin::default() };
    outcome(decide(&parts, &authority(&parts).unwrap(), origin, &ruled(), &policy(), 1_000_000))
}

/// A call by an app's own secret at the internal entrance.
fn call(by: &str, to: &str, path: &str) -> String {
    let secret = format!("Bearer secret of {by}");
    let headers = [("authorization", secret.as_str()), ("x-application-id", to)];
    ruling("POST", "internal", path, if to.is_empty() { &headers[..1] } else { &headers }, &Shown::default())
}

fn in_cookie(instance: &str) -> Shown {
    Shown { cookie: access(instance), ..Shown::default() }
}

fn as_bearer(instance: &str) -> Shown {
    Shown { bearer: access(instance), ..Shown::default() }
}

#[test]
fn what_is_internal_is_for_the_app_itself_and_whom_it_names() {
    assert_eq!(call(LOGIN, ADMIN, "/internal/dologin"), format!("app {ADMIN} by {LOGIN}"));
    assert_eq!(call(ADMIN, ADMIN, "/internal/dologin"), format!("app {ADMIN} by {ADMIN}"));
    assert_eq!(call("shop", ADMIN, "/internal/dologin"), "403");
    assert_eq!(call(ADMIN, LOGIN, "/internal/revoke"), "403", "it names nobody");
    for path in [
        "/public/../internal/x",
        "/public/%2e%2e/internal/x",
        "//internal/x",
        "/Internal/x",
        "/internal;a/x",
        "/x/..%5cinternal/x",
    ] {
        assert_eq!(call("shop", ADMIN, path), "403", "{path}");
        assert_eq!(ruling("GET", "admin", path, &[], &in_cookie(ADMIN)), "401", "{path}: no token opens it");
        assert_eq!(ruling("GET", "admin", path, &[], &as_bearer(ADMIN)), "401", "{path}");
    }
}

#[test]
fn an_app_that_names_its_callers_is_closed_to_everybody_else() {
    assert_eq!(call("shop", "stock", "/api/x"), "app stock by shop");
    assert_eq!(call("stock", "stock", "/api/x"), "app stock by stock");
    assert_eq!(call("notes", "stock", "/api/x"), "403");
    assert_eq!(ruling("GET", "stock", "/api/x", &[], &Shown::default()), "401");
    assert_eq!(ruling("GET", "stock", "/api/x", &[], &as_bearer("stock")), "app stock by user 7");
    assert_eq!(ruling("GET", "stock", "/api/x", &[], &as_bearer("shop")), "401", "a token of another app");
    assert_eq!(ruling("GET", "stock", "/public/x", &[], &Shown::default()), "app stock");
    assert_eq!(call("notes", "shop", "/api/x"), "403", "who names nobody has none");
    assert_eq!(call("shop", "notes", "/api/x"), "403", "users only");
}

#[test]
fn who_is_not_signed_in_is_led_there_by_navigation_and_refused_else() {
    let page = ("accept", "text/html,*/*;q=0.8");
    let nobody = Shown::default();
    assert_eq!(ruling("GET", "notes", "/", &[page], &nobody), "ours: ToSignIn");
    assert_eq!(ruling("GET", "notes", "/", &[], &nobody), "401");
    assert_eq!(ruling("POST", "notes", "/", &[page], &nobody), "401");
    assert_eq!(ruling("GET", "notes", "/public/x", &[], &nobody), "app notes");
    assert_eq!(ruling("GET", "notes", "/", &[page], &in_cookie("notes")), "site notes");
    assert_eq!(ruling("GET", "notes", "/", &[page], &in_cookie("shop")), "ours: ToSignIn", "of another app");
    assert_eq!(ruling("GET", "notes", "/public/signin", &[], &nobody), "ours: SignIn");
    assert_eq!(ruling("GET", "shop", "/public/signin", &[], &nobody), "app shop", "it has no sign-in");
    assert_eq!(ruling("GET", "login", "/public/return", &[], &nobody), "ours: Return");
    assert_eq!(
        ruling("GET", "shop", "/api/x", &[], &in_cookie("shop")),
        "401",
        "a cookie says nothing there"
    );
}

#[test]
fn a_cookie_counts_only_for_what_the_apps_own_page_asks() {
    let signed_in = in_cookie("notes");
    let own = ("origin", "https://notes.yesterday.localhost:8443");
    for (what, headers, outcome) in [
        ("its own page", vec![own], "app notes by user 7"),
        ("its own page, as the browser says", vec![("sec-fetch-site", "same-origin")], "app notes by user 7"),
        ("a program", vec![], "403"),
        (
            "a sibling",
            vec![("origin", "https://shop.yesterday.localhost:8443"), ("sec-fetch-site", "same-site")],
            "403",
        ),
        ("another port", vec![("origin", "https://notes.yesterday.localhost")], "403"),
        ("another scheme", vec![("origin", "http://notes.yesterday.localhost:8443")], "403"),
        ("a sandboxed page", vec![("origin", "null")], "403"),
    ] {
        assert_eq!(ruling("POST", "notes", "/api/x", &headers, &signed_in), outcome, "{what}");
    }
    assert_eq!(ruling("GET", "notes", "/api/x", &[], &signed_in), "app notes by user 7", "it only looks");
    let socket = [("upgrade", "websocket"), ("origin", "https://evil.example")];
    assert_eq!(
        ruling("GET", "notes", "/api/x", &socket, &signed_in),
        "403",
        "a WebSocket does more than look"
    );
    let socket = [("sec-websocket-key", "a2V5"), ("origin", "https://evil.example")];
    assert_eq!(ruling("GET", "notes", "/api/x", &socket, &signed_in), "403", "over HTTP/2, too");
    assert_eq!(ruling("POST", "notes", "/api/x", &[], &as_bearer("notes")), "app notes by user 7");
}

#[test]
fn logging_in_is_asked_for_at_any_host_but_not_by_another_sites_page() {
    let nobody = Shown::default();
    for host in ["shop", "nobody", "login"] {
        assert_eq!(ruling("POST", host, "/public/login", &[], &nobody), format!("app {LOGIN}"));
        assert_eq!(ruling("POST", host, "/public/logout", &[], &nobody), "ours: Logout");
        assert_eq!(ruling("GET", host, "/api/access_token", &[], &nobody), "ours: Token");
        assert_eq!(ruling("POST", host, "/public/access_token", &[], &nobody), "ours: Token");
        for path in ["/public/login", "/public/logout", "/api/access_token", "/public/access_token"] {
            assert_eq!(
                ruling("POST", host, path, &[("origin", "https://evil.example")], &nobody),
                "403",
                "{path}"
            );
            assert_eq!(
                ruling("POST", host, path, &[("sec-fetch-site", "same-site")], &nobody),
                "403",
                "{path}"
            );
        }
    }
    assert_eq!(ruling("GET", "shop", "/public/logout", &[], &nobody), "405");
}

#[test]
fn where_login_or_admin_want_a_certificate_nothing_that_stands_for_them_elsewhere_goes_without() {
    let guarded = |id: &str, host: &str| {
        let rules = Rules { client_ca: Some("/ca".into()), ..Rules::default() };
        Entry { rules, ..running(id, host, 11_000) }
    };
    let asked = |entries: Vec<Entry>, method: &str, path: &str, client: Option<&Verified>| {
        let table = Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true });
        let parts = parts(method, path, &[("host", "nobody.yesterday.localhost:8443")]);
        let origin = Origin { client, ..Origin::default() };
        outcome(decide(&parts, &authority(&parts).unwrap(), origin, &table, &policy(), 1_000_000))
    };
    let known = Verified {
        ca: "/ca".into(),
        subject: HeaderValue::from_static("CN=ada"),
        sha256: HeaderValue::from_static("ab"),
    };
    let admin = || vec![running(LOGIN, "login", 11_001), guarded(ADMIN, "admin")];
    for (method, path, good) in
        [("GET", "/debug/application", "debug"), ("POST", "/public/access_token", "ours: Token")]
    {
        assert_eq!(asked(admin(), method, path, None), "403", "{path}");
        assert_eq!(asked(admin(), method, path, Some(&known)), good, "{path}");
    }
    let login = || vec![guarded(LOGIN, "login"), running(ADMIN, "admin", 11_001)];
    for path in ["/public/login", "/public/logout", "/public/access_token"] {
        assert_eq!(asked(login(), "POST", path, None), "403", "{path}");
    }
    assert_eq!(asked(login(), "POST", "/public/logout", Some(&known)), "ours: Logout");
}

#[test]
fn without_a_login_app_its_paths_are_whose_they_were() {
    let ask = |path: &str| get("hello.yesterday.localhost", path);
    assert_eq!((ask("/public/login").as_str(), ask("/api/access_token").as_str()), ("debug", "401"));
}

#[test]
fn what_is_the_platforms_own_is_for_the_two_apps_that_belong_to_it() {
    assert_eq!(call(ADMIN, "", "/internal/platform/instances"), format!("platform by {ADMIN}"));
    assert_eq!(call(LOGIN, "", "/internal/platform/revocations"), "ours: Revocations");
    assert_eq!(call(LOGIN, "", "/internal/platform/audit"), format!("platform by {LOGIN}"));
    assert_eq!(call(ADMIN, "", "/internal/platform/revocations"), "403");
    assert_eq!(call(LOGIN, "", "/internal/platform/instances"), "403");
    assert_eq!(call("shop", "", "/internal/platform/instances"), "403");
    for path in [
        "/internal/platform/../x",
        "/internal/platform/%2e%2e/x",
        "/internal/platform//x",
        "/internal/platform/a;b",
    ] {
        assert_eq!(call(ADMIN, "", path), "403", "{path}");
    }
    let nobody = ruling("GET", "internal", "/internal/platform/instances", &[], &Shown::default());
    assert_eq!(nobody, "401");
}

#[test]
fn a_daemon_asks_for_what_it_needs_and_nothing_else() {
    let send = |method: &str, daemon: &str, id: Option<&str>, path: &str| {
        let headers: Vec<_> =
            [("host", "internal")].into_iter().chain(id.map(|id| ("x-application-id", id))).collect();
        let (parts, daemon) = (parts(method, path, &headers), Caller::of(daemon));
        let origin = Origin { daemon: daemon.as_ref(), ..Origin::default() };
        outcome(decide(&parts, &authority(&parts).unwrap(), origin, &ruled(), &policy(), 1_000_000))
    };
    let ask = |daemon: &str, id, path: &str| send("GET", daemon, id, path);
    let adopt = |daemon: &str, id, path: &str| send("POST", daemon, Some(id), path);
    assert_eq!(adopt(DEBUG_API, ADMIN, "/internal/adopt"), format!("app {ADMIN} by @debug-api"));
    for (daemon, id, path) in [
        (DEBUG_API, ADMIN, "/internal/dologin"),
        (DEBUG_API, ADMIN, "/internal/adopt/x"),
        (DEBUG_API, ADMIN, "/internal/%61dopt"),
        (DEBUG_API, ADMIN, "/api/publish"),
        (DEBUG_API, "shop", "/internal/adopt"),
        (PROVIDER, ADMIN, "/internal/adopt"),
    ] {
        assert_eq!(adopt(daemon, id, path), "403", "{daemon} {id} {path}");
    }
    assert_eq!(ask(DEBUG_API, Some(ADMIN), "/internal/adopt"), "403", "only as it is done");
    assert_eq!(ask(PROVIDER, Some(ADMIN), "/api/applications"), format!("app {ADMIN} by @provider"));
    assert_eq!(ask(PROVIDER, Some(ADMIN), "/internal/dologin"), "403");
    assert_eq!(ask(PROVIDER, Some(ADMIN), "/api/../internal/dologin"), "403");
    assert_eq!(ask(PROVIDER, Some("shop"), "/api/x"), "403");
    assert_eq!(ask(PROVIDER, None, "/api/applications"), "400");
    assert_eq!(ask("@operator", Some(ADMIN), "/api/applications"), "403");
}

#[test]
fn scripts_that_ask_whether_they_may_are_answered_where_an_app_lists_origins() {
    let asks = [("origin", "https://www.example"), ("access-control-request-method", "PUT")];
    assert_eq!(ruling("OPTIONS", "figures", "/api/x", &asks, &Shown::default()), "ours: Preflight(Route");
    assert_eq!(
        ruling("OPTIONS", "shop", "/public/x", &asks, &Shown::default()),
        "app shop",
        "it says so itself"
    );
    assert_eq!(ruling("OPTIONS", "shop", "/api/x", &asks, &Shown::default()), "401", "not without a token");
}
