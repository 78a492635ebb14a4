//! What a session does with a platform that keeps to the contract, and with one that does not.

#![allow(clippy::unwrap_used, clippy::panic)]

pub(crate) mod fake;

use std::{
    future::ready,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use serde_json::json;
use tokio::sync::Notify;

use self::fake::{Asked, BASE, Fake, Said, said, with_cookie};
use super::{
    store::{Book, Store},
    *,
};
use crate::https::{Ask, Target};

const EXCHANGE: &str = "POST /public/access_token";

/// Refresh tokens as the login app judges them, but without a minute's grace: use of any but the newest ends the session.
#[derive(Default)]
struct Family {
    newest: Mutex<u32>,
    over: AtomicBool,
}

impl Family {
    fn answer(&self, asked: &Asked) -> Said {
        match asked.line.as_str() {
            EXCHANGE => self.exchange(&asked.cookie),
            "POST /public/logout" if self.is_newest(&asked.cookie) => {
                self.over.store(true, Ordering::SeqCst);
                said(200, "null")
            }
            "POST /public/logout" => said(400, "invalid refresh token\n"),
            _ => said(200, asked.bearer.clone()),
        }
    }

    fn is_newest(&self, cookie: &str) -> bool {
        !self.over.load(Ordering::SeqCst) && *cookie == format!("YRT=r{}", self.newest.lock().unwrap())
    }

    fn exchange(&self, cookie: &str) -> Said {
        if !self.is_newest(cookie) {
            self.over.store(true, Ordering::SeqCst);
            return said(403, "refresh token not found\n");
        }
        let mut newest = self.newest.lock().unwrap();
        *newest += 1;
        with_cookie(200, &json!({ "access_token": format!("a{newest}") }).to_string(), &format!("r{newest}"))
    }
}

async fn platform() -> (Fake, Arc<Family>) {
    let family = Arc::<Family>::default();
    let own = Arc::clone(&family);
    (Fake::start(move |asked| ready(own.answer(&asked))).await, family)
}

/// A folder with one login, by this refresh token.
async fn kept(fake: &Fake, refresh: &str) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("nexushub"));
    let _turn = store.turn().await.unwrap();
    let mut book = Book::default();
    book.add(fake.kept(refresh));
    store.write(&book).unwrap();
    (folder, store)
}

fn session(fake: &Fake, store: &Store) -> Arc<Session> {
    Session::open(store.clone(), fake.kept("stale"), false).unwrap()
}

fn refresh_token(store: &Store) -> String {
    store.read().unwrap().current().unwrap().refresh_token
}

fn get(path: &str) -> Ask<'_> {
    Ask { method: Method::GET, path, content_type: "", fields: &[], body: Bytes::new() }
}

#[tokio::test]
async fn an_access_token_is_had_once_and_the_next_refresh_token_is_kept_at_once() {
    let (fake, _) = platform().await;
    let (_folder, store) = kept(&fake, "r0").await;
    let session = session(&fake, &store);
    assert_eq!((session.token().await.unwrap(), session.token().await.unwrap()), ("a1".into(), "a1".into()));
    assert_eq!((fake.count(EXCHANGE), refresh_token(&store)), (1, "r1".to_owned()));
    assert_eq!(session.instead_of("a1").await.unwrap(), "a2");
    assert_eq!(session.instead_of("a1").await.unwrap(), "a2", "somebody was quicker");
    let too_old = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    session.access.lock().await.as_mut().unwrap().until = too_old;
    assert_eq!((session.token().await.unwrap(), refresh_token(&store)), ("a3".into(), "r3".into()));
    let asked = &fake.asked()[0];
    assert_eq!(
        (asked.host.as_str(), asked.cookie.as_str()),
        (&*format!("admin.{BASE}:{}", fake.port), "YRT=r0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_run_at_once_take_turns_and_the_session_goes_on() {
    let (fake, family) = platform().await;
    let (_folder, store) = kept(&fake, "r0").await;
    let commands: Vec<_> = (0..8).map(|_| session(&fake, &store)).collect();
    let had: Vec<_> =
        commands.iter().cloned().map(|one| tokio::spawn(async move { one.token().await })).collect();
    for one in had {
        one.await.unwrap().unwrap();
    }
    assert!(!family.over.load(Ordering::SeqCst));
    assert_eq!(refresh_token(&store), "r8");
}

#[tokio::test]
async fn who_stops_waiting_loses_no_token() {
    let (held, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let family = Arc::<Family>::default();
    let (own, comes, goes) = (Arc::clone(&family), Arc::clone(&held), Arc::clone(&go));
    let fake = Fake::start(move |asked| {
        let (own, comes, goes) = (Arc::clone(&own), Arc::clone(&comes), Arc::clone(&goes));
        async move {
            let answer = own.answer(&asked);
            comes.notify_one();
            goes.notified().await;
            answer
        }
    })
    .await;
    let (_folder, store) = kept(&fake, "r0").await;
    let session = session(&fake, &store);
    tokio::select! {
        _ = session.token() => panic!("nobody answered yet"),
        () = held.notified() => {}
    }
    go.notify_one();
    assert_eq!(session.token().await.unwrap(), "a1", "what was asked for came");
    assert_eq!((fake.count(EXCHANGE), refresh_token(&store)), (1, "r1".to_owned()));
}

#[tokio::test]
async fn a_session_that_has_ended_says_so_and_stays_until_somebody_logs_in_again_or_out() {
    let (fake, _) = platform().await;
    let (_folder, store) = kept(&fake, "r7").await;
    let failure = session(&fake, &store).token().await.unwrap_err();
    let url = format!("https://admin.{BASE}:{}", fake.port);
    assert_eq!(failure.to_string(), format!("the session at {url} has ended\n  nexushub login {url}"));
    assert_eq!(refresh_token(&store), "r7");
    assert_eq!(session(&fake, &store).log_out(false).await.unwrap(), Farewell::Over);
    assert!(store.read().unwrap().current().is_none());
}

#[tokio::test]
async fn logging_out_ends_the_session_there_and_forgets_it_here() {
    let (fake, family) = platform().await;
    let (_folder, store) = kept(&fake, "r0").await;
    let one = session(&fake, &store);
    one.token().await.unwrap();
    assert_eq!(one.log_out(false).await.unwrap(), Farewell::Said);
    assert!(family.over.load(Ordering::SeqCst) && store.read().unwrap().current().is_none());
    assert!(session(&fake, &store).token().await.unwrap_err().message.contains("has ended"));
}

#[tokio::test]
async fn a_platform_that_can_not_be_told_keeps_the_session_unless_it_is_to_be_forgotten() {
    let fake = Fake::start(|_| ready(said(500, "broken"))).await;
    let (_folder, store) = kept(&fake, "r0").await;
    let failure = session(&fake, &store).log_out(false).await.unwrap_err();
    assert!(failure.hint.contains("logout --forget") && refresh_token(&store) == "r0", "{failure}");
    assert_eq!(session(&fake, &store).log_out(true).await.unwrap(), Farewell::Untold);
    assert!(store.read().unwrap().current().is_none());
}

#[tokio::test]
async fn a_password_is_said_once_to_the_admin_host() {
    let fake = Fake::start(|asked| {
        let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
        let right = body == json!({ "username": "ada", "password": "s\"1" });
        ready(if right { with_cookie(200, "{}", "r0") } else { said(401, "invalid username or password\n") })
    })
    .await;
    let target = front::target(&fake.kept("").zone().unwrap());
    let door = Client::new(target, &fake.kept("").roots(), Bearer::Nobody).unwrap();
    assert_eq!(front::log_in(&door, "ada", "s\"1").await.unwrap(), "r0");
    let failure = front::log_in(&door, "a\u{1b}da", "wrong").await.unwrap_err();
    assert!(!failure.message.contains('\u{1b}') && failure.message.contains("wrong password"), "{failure}");
    let asked = fake.asked();
    let all: Vec<_> = asked.iter().map(|asked| (asked.line.as_str(), asked.host.as_str())).collect();
    let host = format!("admin.{BASE}:{}", fake.port);
    assert_eq!(all, [("POST /public/login", host.as_str()); 2]);
}

#[tokio::test]
async fn a_token_that_is_refused_is_followed_by_one_more_and_no_further() {
    let family = Arc::<Family>::default();
    let fake = Fake::start(move |asked| {
        let exchanges = asked.line == EXCHANGE;
        ready(if exchanges { family.answer(&asked) } else { said(401, "Unauthorized\n") })
    })
    .await;
    let (_folder, store) = kept(&fake, "r0").await;
    let client = session(&fake, &store).client().unwrap();
    assert_eq!(client.ask(get("/debug/application")).await.unwrap().status, 401);
    let bearers: Vec<String> =
        fake.asked().into_iter().map(|asked| asked.bearer).filter(|b| !b.is_empty()).collect();
    assert_eq!(bearers, ["Bearer a1", "Bearer a2"]);
    let streamed = client.stream(get("/debug/application/x/logs")).await.unwrap();
    assert_eq!((streamed.status.as_u16(), fake.count(EXCHANGE)), (401, 3));
}

#[tokio::test]
async fn no_redirection_is_followed_with_a_token_or_a_password() {
    let (other, _) = platform().await;
    let to = format!("https://admin.{BASE}:{}/debug/application", other.port);
    let fake = Fake::start(move |asked| {
        let family = Family::default();
        let away = Response::builder().status(307).header("location", &to).body(Full::default()).unwrap();
        ready(if asked.line == EXCHANGE && asked.cookie == "YRT=r0" { family.answer(&asked) } else { away })
    })
    .await;
    let (_folder, store) = kept(&fake, "r0").await;
    let session = session(&fake, &store);
    let answer = session.client().unwrap().ask(get("/debug/application")).await.unwrap();
    assert_eq!(answer.status, 307);
    let failure = front::log_in(&session.door, "ada", "secret").await.unwrap_err();
    assert!(failure.message.contains("sends elsewhere (307)"), "{failure}");
    let failure = session.instead_of("a1").await.unwrap_err();
    assert!(failure.message.contains("sends elsewhere (307)"), "{failure}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn answers_that_are_none_are_refused_and_change_nothing() {
    let token = json!({ "access_token": "a" }).to_string();
    let huge = || with_cookie(200, &format!("{{\"access_token\":\"{}\"}}", "x".repeat(2 << 20)), "r1");
    let answers: [(&str, Said); 6] = [
        ("no JSON", with_cookie(200, "<html>", "r1")),
        ("no cookie", said(200, token.clone())),
        ("a cookie that is none", with_cookie(200, &token, "r 1\"")),
        ("a token that is none", with_cookie(200, "{\"access_token\":\"a b\"}", "r1")),
        ("huge", huge()),
        ("a page of an error", said(404, "Not Found\n")),
    ];
    for (what, answer) in answers {
        let fake = Fake::start(move |_| ready(answer.clone())).await;
        let (_folder, store) = kept(&fake, "r0").await;
        assert!(session(&fake, &store).token().await.is_err(), "{what}");
        assert_eq!(refresh_token(&store), "r0", "{what}");
    }
    let fake = Fake::start(move |_| ready(with_cookie(200, &token, "r1"))).await;
    let (_folder, store) = kept(&fake, "r0").await;
    assert_eq!(session(&fake, &store).token().await.unwrap(), "a");
}

#[tokio::test]
async fn a_certificate_of_other_authorities_is_not_believed() {
    let ((fake, _), (other, _)) = (platform().await, platform().await);
    for ca in [Some(other.ca.clone()), None] {
        let (_folder, store) = kept(&fake, "r0").await;
        let session = Session::open(store, Kept { ca, ..fake.kept("r0") }, false);
        // A machine that trusts nobody can't even try.
        if let Ok(session) = session {
            let failure = front::log_in(&session.door, "ada", "secret").await.unwrap_err();
            assert!(failure.passing, "{failure}");
        }
    }
    assert!(fake.asked().is_empty(), "nothing was said to it");
    assert!(
        Session::open(Store::at("/".into()), Kept { ca: Some("no PEM".into()), ..fake.kept("r0") }, false)
            .is_err()
    );
}

#[tokio::test]
async fn the_base_domain_is_the_login_hosts_and_only_one_that_the_address_belongs_to() {
    let told = |login: &'static str| async move {
        let said = json!({ "login_url": login }).to_string();
        let fake = Fake::start(move |_| ready(fake::said(200, said.clone()))).await;
        let named = Target::elsewhere(&format!("https://admin.{BASE}:{}", fake.port)).unwrap();
        let door = Client::new(named.clone(), &fake.kept("").roots(), Bearer::Nobody).unwrap();
        front::base_domain(&door, &named).await.map_err(|failure| failure.message)
    };
    assert_eq!(told("https://login.b.localhost:8443/").await.unwrap(), BASE);
    assert_eq!(told("https://LOGIN.B.localhost/").await.unwrap(), BASE);
    for wrong in [
        "https://login.evil.example/",
        "https://login.admin.x/",
        "https://localhost/",
        "login",
        "",
        "https://a b/",
    ] {
        assert!(told(wrong).await.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn what_is_kept_is_for_its_owner_alone_and_whole_or_not_there() {
    let (fake, _) = platform().await;
    let (folder, store) = kept(&fake, "r0").await;
    let own = folder.path().join("nexushub");
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
    session(&fake, &store).token().await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&own), mode(&own.join("platforms.json")), mode(&own.join("lock"))),
        (0o700, 0o600, 0o600)
    );
    let names: Vec<_> = std::fs::read_dir(&own).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing is left over: {names:?}");
    for text in ["", "{", "[]", "{\"version\":2,\"platforms\":[]}", "{\"version\":1,\"platforms\":[{}]}"] {
        std::fs::write(own.join("platforms.json"), text).unwrap();
        let Err(failure) = store.read() else { panic!("{text}") };
        assert!(failure.to_string().contains("platforms.json is not understood"), "{failure}");
    }
    std::fs::write(own.join("platforms.json"), " ".repeat((4 << 20) + 1)).unwrap();
    assert!(store.read().is_err());
}

#[test]
fn of_several_platforms_the_last_is_meant_and_each_can_be_named_by_any_host_of_it() {
    let kept = |url: &str, base: &str| Kept {
        url: url.into(),
        base_domain: base.into(),
        user: "ada".into(),
        refresh_token: "r".into(),
        ca: None,
    };
    let book = || {
        let mut book = Book::default();
        book.add(kept("https://admin.one.example", "one.example"));
        book.add(kept("https://two.example:8443", "two.example"));
        book
    };
    assert_eq!(book().current().unwrap().base_domain, "two.example");
    let at = |url: &str| book().at(&Target::elsewhere(url).unwrap()).map(|kept| kept.base_domain);
    for url in ["https://one.example", "https://ADMIN.one.example:443/", "https://shop.x.one.example"] {
        assert_eq!(at(url).as_deref(), Some("one.example"), "{url}");
    }
    for url in
        ["https://one.example:8443", "https://two.example", "https://someone.example", "https://example"]
    {
        assert_eq!(at(url), None, "{url}");
    }
    let mut again = book();
    again.add(kept("https://one.example", "one.example"));
    assert!(again.of("https://admin.one.example").is_none(), "one platform is kept once");
    again.forget("https://two.example:8443");
    assert_eq!(again.current().unwrap().url, "https://one.example", "another one is forgotten");
    let mut left = book();
    left.forget("https://two.example:8443");
    assert!(left.current().is_none(), "nobody is logged in anywhere by logging out");
}
