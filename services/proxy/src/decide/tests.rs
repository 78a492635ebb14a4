//! The order of decisions, case by case.
#![allow(clippy::unwrap_used)]

use http::Request;

use super::*;
use crate::{
    pool::Limits,
    rules::Rules,
    table::{
        Change, Entry, Pause,
        tests::{idle, running},
    },
};

const BASE: &str = "yesterday.localhost";

fn policy() -> Policy {
    Policy { base_domain: BASE.into(), require_login: false, hold_ms: 5_000 }
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
    let origin = Origin { names: sni.map(|_| &names), boxed: None, client: None, tried: &[] };
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
    let origin = Origin { names: None, boxed: Some(&caller), client: None, tried: &[] };
    outcome(decide(&parts, &authority(&parts).unwrap(), origin, &table(), &policy(), 1_000_000))
}

fn outcome(decided: Result<Decision, Refusal>) -> String {
    let by = |caller: Option<Caller>| caller.map_or(String::new(), |caller| format!(" by {}", caller.id()));
    match decided {
        Err(refusal) => refusal.status.as_u16().to_string(),
        Ok(Decision::Debug) => "debug".into(),
        Ok(Decision::App { route, caller }) => format!("app {}{}", route.entry.id, by(caller)),
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
fn api_paths_are_open_until_login_is_required() {
    assert_eq!(get("hello.yesterday.localhost", "/api/status"), "app h1");
    let strict = Policy { require_login: true, ..policy() };
    let anonymous = parts("GET", "/api/status", &[("host", "hello.yesterday.localhost")]);
    assert_eq!(judged(&anonymous, None, &table(), &strict), "401");
    let headers = [("host", "hello.yesterday.localhost"), ("authorization", "bearer secret of h1")];
    assert_eq!(judged(&parts("GET", "/api/status", &headers), None, &table(), &strict), "app h1 by h1");
}

#[test]
fn an_application_id_counts_only_from_who_holds_a_secret() {
    let host = "internal.yesterday.localhost";
    assert_eq!(bearer(host, "/api/x", "secret of h1", Some("d1")), "app d1 by h1");
    assert_eq!(bearer(host, "/api/x", "secret of h1", Some("none")), "404");
    assert_eq!(bearer(host, "/api/x", "secret of h1", None), "404", "internal is no app");
    assert_eq!(bearer(host, "/api/x", "guess", Some("d1")), "401");
    assert_eq!(bearer("hello.yesterday.localhost", "/public/x", "guess", Some("d1")), "app h1");
}

#[test]
fn out_of_a_box_its_own_apps_secret_counts_and_no_other() {
    let (internal, own, id) = ("internal.yesterday.localhost:8443", Some("secret of h1"), Some("d1"));
    assert_eq!(out_of("h1", internal, "/api/x", own, id), "app d1 by h1");
    assert_eq!(out_of("h1", internal, "/public/x", own, id), "app d1 by h1");
    assert_eq!(out_of("h1", internal, "/", own, id), "site d1");
    for wrong in [None, Some("guess"), Some("secret of d1"), Some("secret of v1")] {
        for path in ["/api/x", "/internal/x", "/public/x", "/"] {
            assert_eq!(out_of("h1", internal, path, wrong, id), "401", "{wrong:?} {path}");
        }
    }
    assert_eq!(out_of("h1", internal, "/api/x", own, None), "404");
    assert_eq!(out_of("h1", internal, "/api/x", own, Some("none")), "404");
    assert_eq!(out_of("h1", internal, "/api/x", own, Some("s1")), "wait s1");
}

#[test]
fn out_of_a_box_an_apps_public_name_is_what_it_is_outside() {
    let hello = "hello.yesterday.localhost";
    assert_eq!(out_of("d1", hello, "/public/x", None, None), "app h1");
    assert_eq!(out_of("d1", hello, "/api/x", None, None), "app h1");
    assert_eq!(out_of("d1", hello, "/api/x", Some("secret of d1"), None), "app h1 by d1");
    assert_eq!(out_of("d1", hello, "/api/x", Some("secret of h1"), None), "app h1", "nobody in particular");
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
    assert_eq!(get("vite.yesterday.localhost", "/api/x"), "app v1");
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
        ("POST", "/api/x", vec![("host", hello), ("transfer-encoding", "gzip, chunked")], "400"),
        (
            "POST",
            "/api/x",
            vec![("host", hello), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            "400",
        ),
        ("POST", "/api/x", vec![("host", hello), ("transfer-encoding", "Chunked")], "app h1"),
        ("POST", "/api/x", vec![("host", hello), ("content-length", "1"), ("content-length", "1")], "400"),
        ("POST", "/api/x", vec![("host", hello), ("content-length", "1, 1")], "400"),
        ("POST", "/api/x", vec![("host", hello), ("content-length", "+1")], "400"),
        ("POST", "/api/x", vec![("host", hello), ("content-length", "1")], "app h1"),
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
    let policy = Policy { require_login: true, ..policy() };
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
        let is = judged(&parts, None, &table, &policy).replace("app h1", "site h1");
        assert_eq!(is, expected, "{path}");
    }
}
