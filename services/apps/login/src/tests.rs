//! The whole app in one process, with an admin app and a proxy that are played.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use axum::{
    Json,
    body::{Body, to_bytes},
    http::{Request, StatusCode, request::Builder},
    routing::post,
};
use nexushub_applib::{Identity, Refusal, calls::Entrance, guard, identity::Key};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::config::{ADMIN, PROXY};

const SECRET: &str = "login's own";
pub(crate) const STATE: &str = "a-state-of-forty-three-characters-or-so-0001";
pub(crate) const APP: &str = "app-1";

/// What an answer was.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}: {}", self.status, self.text))
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let lines = self.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
        let found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).next_back()?;
        Some(found.split(';').next().unwrap().to_owned())
    }

    pub(crate) fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }

    /// The token of the page's forms.
    fn csrf(&self) -> String {
        let (_, rest) =
            self.text.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("{}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }
}

pub(crate) struct World {
    app: Router,
    pub login: Arc<Login>,
    now: Arc<AtomicI64>,
    revoked: Arc<Mutex<Vec<Value>>>,
    folder: tempfile::TempDir,
}

/// zoe (7) and bob (8) may open `app-1`; nobody may open `closed`. Names are found as admin finds them, in small letters.
async fn played(revoked: Arc<Mutex<Vec<Value>>>) -> u16 {
    let who = post(async |Json(asked): Json<Value>| {
        let id = ["zoe", "bob"]
            .iter()
            .position(|name| asked["Username"] == *name && asked["Password"] == format!("{name}'s"));
        Json(
            json!({ "Success": id.is_some(), "UserID": id.map_or(0, |id| id + 7), "UserName": asked["Username"] }),
        )
    });
    let named = post(async |Json(asked): Json<Value>| {
        let folded = asked["Username"].as_str().unwrap().to_lowercase();
        let id = ["zoe", "kim@example.org"].iter().position(|name| *name == folded);
        Json(json!({ "Success": id.is_some(), "UserID": id.map_or(0, |id| id + 7), "UserName": folded }))
    });
    let may = post(async |Json(asked): Json<Value>| {
        Json(json!({ "AccessGranted": asked["ApplicationID"] == APP }))
    });
    let set = post(async |Json(asked): Json<Value>| {
        if asked["Old"] == "zoe's" {
            Ok(Json(json!({})))
        } else {
            Err(Refusal::bad("the present password is wrong"))
        }
    });
    let take = post(async move |Json(asked): Json<Value>| revoked.lock().unwrap().push(asked));
    let routes = Router::new()
        .route("/internal/dologin", who)
        .route("/internal/user", named)
        .route("/internal/checkAccess", may)
        .route("/internal/setPassword", set)
        .route("/internal/platform/revocations", take);
    served(routes).await
}

/// Where it is answered like this.
async fn served(routes: Router) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async { axum::serve(listener, routes).await });
    port
}

async fn world() -> World {
    world_by(None).await
}

/// With an identity provider.
pub(crate) async fn world_by(issuer: Option<Issuer>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let revoked = Arc::default();
    let entrance = Entrance::played_by(played(Arc::clone(&revoked)).await, SECRET);
    world_with(entrance, issuer, revoked, folder, clock())
}

fn clock() -> Arc<AtomicI64> {
    Arc::new(AtomicI64::new(1_700_000_000))
}

fn world_with(
    entrance: Entrance,
    issuer: Option<Issuer>,
    revoked: Arc<Mutex<Vec<Value>>>,
    folder: tempfile::TempDir,
    now: Arc<AtomicI64>,
) -> World {
    let told = Arc::clone(&now);
    let clock: Clock = Arc::new(move || told.load(Ordering::Relaxed));
    let settings = Settings {
        port: 0,
        host: "login.x.localhost:8443".into(),
        secret: SECRET.into(),
        data: folder.path().into(),
    };
    let db = Db::open(&folder.path().join("login.sqlite"), store::STEPS).unwrap();
    let login = Login::new(db, entrance, issuer, &settings, Arc::clone(&clock));
    let app = guard(routes(Arc::clone(&login)), SECRET, clock);
    World { app, login, now, revoked, folder }
}

impl World {
    pub(crate) fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The same after a restart.
    async fn again(self) -> Self {
        let entrance = Entrance::played_by(played(Arc::clone(&self.revoked)).await, SECRET);
        let world = world_with(entrance, None, self.revoked, self.folder, self.now);
        world.login.recall().await.unwrap();
        world
    }

    async fn send(&self, request: Builder, body: String) -> Answer {
        let answer = self.app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, text }
    }

    async fn internal(&self, caller: &str, path: &str, body: Value) -> Answer {
        let who = Identity { user: None, caller: Some(caller.into()) };
        let proof = Key::of(SECRET).prove(&who, self.login.now());
        let request = Request::post(path)
            .header("x-nexushub-identity", proof)
            .header("content-type", "application/json");
        self.send(request, body.to_string()).await
    }

    async fn login(&self, name: &str, password: &str) -> Answer {
        let request = Request::post("/public/login").header("x-forwarded-host", "app.x.localhost:8443");
        let request = request.header("x-forwarded-for", "192.0.2.1");
        self.send(request, json!({ "username": name, "password": password }).to_string()).await
    }

    pub(crate) async fn token(&self) -> String {
        self.login("zoe", "zoe's").await.cookie("YRT").unwrap()
    }

    pub(crate) async fn refresh(&self, token: &str, app: &str) -> Answer {
        self.internal(PROXY, "/internal/access_token", json!({ "RefreshToken": token, "ApplicationID": app }))
            .await
    }

    pub(crate) async fn get(&self, path: &str, cookies: &str) -> Answer {
        self.send(Request::get(path).header("cookie", cookies), String::new()).await
    }

    /// What the platform's audit log is to be told: what, by whom, from where, and whether it was refused.
    async fn told(&self) -> Vec<String> {
        let read = |tx: &rusqlite::Transaction<'_>| {
            let mut query = tx.prepare("SELECT what, by, address, refused FROM trail ORDER BY id")?;
            let lines = query.query_map([], |row| {
                let refused = if row.get(3)? { ", refused" } else { "" };
                let (what, by, from): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(format!("{what} by {by} from {from}{refused}"))
            })?;
            lines.collect::<Result<Vec<_>, _>>()
        };
        self.login.db.run(move |tx| Ok::<_, Refusal>(read(tx)?)).await.unwrap()
    }

    /// The lines of its own trail about zoe, the oldest first.
    async fn trail(&self) -> Vec<String> {
        let zoe = store::Person { id: 7, name: "zoe".into() };
        let lines = self.login.db.run(move |tx| Ok::<_, Refusal>(store::trail(tx, &zoe, 99)?)).await.unwrap();
        lines
            .iter()
            .rev()
            .map(|line| format!("{} from {}: {}", line.what, line.address, line.detail))
            .collect()
    }

    async fn form(&self, path: &str, cookies: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", text::percent(value))).collect();
        let request = Request::post(path)
            .header("cookie", cookies)
            .header("content-type", "application/x-www-form-urlencoded");
        let request = request.header("sec-fetch-site", "same-origin").header("x-forwarded-for", "192.0.2.1");
        self.send(request, pairs.join("&")).await
    }
}

#[tokio::test]
async fn login_answers_as_both_earlier_generations_clients_expect() {
    let world = world().await;
    let good = world.login("zoe", "zoe's").await;
    assert_eq!((good.status, good.json()["domain"].as_str().unwrap()), (StatusCode::OK, "app.x.localhost"));
    assert_eq!(good.json()["app_refresh_token"].as_str().unwrap().len(), 36);
    let cookie = good.headers["set-cookie"].to_str().unwrap();
    for part in ["YRT=", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "for this host alone: {cookie}");
    for (name, password) in [("zoe", "guess"), ("nobody", "zoe's"), ("", "")] {
        let bad = world.login(name, password).await;
        assert_eq!(
            (bad.status, bad.text.as_str()),
            (StatusCode::UNAUTHORIZED, "invalid username or password\n")
        );
        assert!(bad.headers.get("set-cookie").is_none());
    }
}

#[tokio::test]
async fn who_holds_a_good_token_and_names_nobody_goes_on_with_it() {
    let world = world().await;
    let held = world.token().await;
    let again =
        world.send(Request::post("/public/login").header("cookie", format!("YRT={held}")), "{}".into()).await;
    assert_eq!(again.status, StatusCode::OK);
    let next = again.cookie("YRT").unwrap();
    assert_ne!(next, held);
    assert_eq!(world.refresh(&next, APP).await.status, StatusCode::OK);
}

#[tokio::test]
async fn another_site_can_log_nobody_in() {
    let world = world().await;
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        let request = Request::post("/public/login").header(name, value);
        let answer = world.send(request, json!({ "username": "zoe", "password": "zoe's" }).to_string()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
}

#[tokio::test]
async fn guessing_waits_and_says_for_how_long_and_others_do_not_wait() {
    let world = world().await;
    for _ in 0..5 {
        assert_eq!(world.login("zoe", "guess").await.status, StatusCode::UNAUTHORIZED);
    }
    let wait = world.login("ZOE", "zoe's").await;
    assert_eq!(
        (wait.status, wait.headers["retry-after"].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "2")
    );
    assert_eq!(world.login("bob", "bob's").await.status, StatusCode::OK);
    world.pass(1);
    assert_eq!(world.login("zoe", "zoe's").await.status, StatusCode::TOO_MANY_REQUESTS, "not yet");
    let world = world.again().await;
    assert_eq!(world.login("zoe", "zoe's").await.status, StatusCode::TOO_MANY_REQUESTS, "nor anew");
    assert_eq!(world.login("bob", "bob's").await.status, StatusCode::OK);
    world.pass(1);
    assert_eq!(world.login("zoe", "zoe's").await.status, StatusCode::OK);
    assert_eq!(world.login("zoe", "guess").await.status, StatusCode::UNAUTHORIZED, "begun anew");
}

#[tokio::test]
async fn the_proxy_gets_a_fresh_token_for_a_good_one_and_for_an_app_that_is_granted() {
    let world = world().await;
    let token = world.token().await;
    let denied = world.refresh(&token, "closed").await;
    assert_eq!((denied.status, denied.json()), (StatusCode::FORBIDDEN, json!({ "error": "denied" })));
    let good = world.refresh(&token, APP).await.json();
    assert_eq!(
        (&good["UserID"], &good["UserName"], &good["ApplicationID"]),
        (&json!(7), &json!("zoe"), &json!(APP))
    );
    assert_eq!(good["Expiry"], world.login.now() + 600);
    assert_eq!(good["RefreshExpiry"], world.login.now() + 30 * 86_400);
    assert!(good["SessionID"].is_string() && good["AccessToken"] == "");
    world.pass(61);
    let reused = world.refresh(&token, APP).await;
    assert_eq!((reused.status, reused.json()), (StatusCode::UNAUTHORIZED, json!({ "error": "reused" })));
    let next = good["RefreshToken"].as_str().unwrap();
    assert_eq!(world.refresh(next, APP).await.json(), json!({ "error": "unknown" }));
}

#[tokio::test]
async fn what_is_the_proxys_is_refused_to_everybody_else() {
    let world = world().await;
    let token = world.token().await;
    let refresh = json!({ "RefreshToken": token, "ApplicationID": APP });
    for (path, body) in [
        ("/internal/access_token", refresh),
        ("/internal/redeem", json!({ "Code": "c", "ApplicationID": APP, "State": "s" })),
        ("/internal/logout", json!({ "RefreshToken": token })),
        ("/internal/revoke", json!({ "UserID": 7 })),
    ] {
        assert_eq!(
            world.internal("some-app", path, body.clone()).await.status,
            StatusCode::FORBIDDEN,
            "{path}"
        );
        let request = Request::post(path).header("content-type", "application/json");
        assert_eq!(world.send(request, body.to_string()).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(world.refresh(&token, APP).await.status, StatusCode::OK);
}

#[tokio::test]
async fn logout_ends_every_session_of_the_user_and_the_proxy_is_told() {
    let world = world().await;
    let (one, two) = (world.token().await, world.token().await);
    let out = world.internal(PROXY, "/internal/logout", json!({ "RefreshToken": one })).await;
    assert_eq!(out.json()["SessionIDs"].as_array().unwrap().len(), 2);
    assert_eq!(out.json()["UserID"], 7, "for the audit log");
    assert_eq!(world.refresh(&two, APP).await.json(), json!({ "error": "unknown" }));
    assert_eq!(
        world.internal(PROXY, "/internal/logout", json!({ "RefreshToken": one })).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert!(outbox::round(&world.login).await.unwrap() && !outbox::round(&world.login).await.unwrap());
    assert_eq!(world.revoked.lock().unwrap()[0]["sessions"], out.json()["SessionIDs"]);
}

#[tokio::test]
async fn admin_can_end_a_users_sessions() {
    let world = world().await;
    let token = world.token().await;
    assert_eq!(
        world.internal(ADMIN, "/internal/revoke", json!({ "UserID": 7 })).await.status,
        StatusCode::OK
    );
    assert_eq!(world.refresh(&token, APP).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_the_proxy_could_not_be_told_is_kept_for_later() {
    let world = world_with(
        Entrance::played_by(1, SECRET),
        None,
        Arc::default(),
        tempfile::tempdir().unwrap(),
        clock(),
    );
    let person = store::Person { id: 7, name: "zoe".into() };
    let ended = world.login.db.run(move |tx| {
        let granted = store::begin(tx, &person, &Origin::default(), 1000)?;
        Ok::<_, outbox::Error>(store::end(tx, &granted.session)?)
    });
    assert!(ended.await.unwrap());
    assert!(outbox::round(&world.login).await.is_err());
    let (_, kept) = world.login.db.run(|tx| Ok::<_, outbox::Error>(store::pending(tx, 9)?)).await.unwrap();
    assert_eq!(kept.len(), 1);
}

#[tokio::test]
async fn at_the_end_the_platform_is_not_kept_waiting_by_the_proxy() {
    let told = Arc::new(Notify::new());
    let waits = Arc::clone(&told);
    let routes = Router::new()
        .route("/internal/platform/revocations", post(async move || waits.notified().await))
        .route("/internal/platform/audit", post(async move || told.notify_one()));
    let port = served(routes).await;
    let folder = tempfile::tempdir().unwrap();
    let world = world_with(Entrance::played_by(port, SECRET), None, Arc::default(), folder, clock());
    let person = store::Person { id: 7, name: "zoe".into() };
    let ended = world.login.db.run(move |tx| {
        let granted = store::begin(tx, &person, &Origin::default(), 1000)?;
        Ok::<_, outbox::Error>(store::end(tx, &granted.session)?)
    });
    assert!(ended.await.unwrap());
    world.login.refused(Entry { what: "refusal".into(), ..Entry::default() }).await.unwrap();
    outbox::rest(&world.login).await;
    let (_, kept) = world.login.db.run(|tx| Ok::<_, outbox::Error>(store::pending(tx, 9)?)).await.unwrap();
    assert_eq!((kept.len(), world.told().await.len()), (0, 0));
}

#[tokio::test]
async fn without_admin_nobody_is_let_in_and_nobody_is_blamed() {
    let world = world_with(
        Entrance::played_by(1, SECRET),
        None,
        Arc::default(),
        tempfile::tempdir().unwrap(),
        clock(),
    );
    for _ in 0..8 {
        let answer = world.login("zoe", "zoe's").await;
        assert_eq!(
            (answer.status, &answer.headers["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"2".parse().unwrap())
        );
    }
}

/// Signs in with the page; the cookies that a browser holds then.
async fn signed_in(world: &World, errand: &str) -> (String, Answer) {
    let page = world.get(&format!("/signin{errand}"), "").await;
    let visitor = format!("__Host-YCS={}", page.cookie("__Host-YCS").unwrap());
    let app = if errand.is_empty() { "" } else { APP };
    let state = if errand.is_empty() { "" } else { STATE };
    let fields =
        [("csrf", &*page.csrf()), ("username", "zoe"), ("password", "zoe's"), ("app", app), ("state", state)];
    let answer = world.form("/signin", &visitor, &fields).await;
    assert_eq!(answer.cookie("YRT"), None, "that one is for clients");
    (format!("{visitor}; __Host-YRT={}", answer.cookie("__Host-YRT").unwrap()), answer)
}

#[tokio::test]
async fn a_browser_signs_in_and_is_sent_back_with_a_code_that_is_good_once() {
    let world = world().await;
    let errand = format!("?app={APP}&state={STATE}&name=Shop");
    let (cookies, answer) = signed_in(&world, &errand).await;
    assert!(answer.text.contains("http-equiv=\"refresh\""), "{}", answer.text);
    let back = world.get(&format!("/signin{errand}"), &cookies).await;
    assert_eq!(back.status, StatusCode::SEE_OTHER);
    let (path, query) = back.location().split_once('?').unwrap();
    let code = query.split('&').find_map(|pair| pair.strip_prefix("code=")).unwrap();
    assert_eq!((path, query.contains(STATE), code.len()), ("/public/return", true, 43));
    assert!(back.cookie("__Host-YRT").is_some(), "its own token rotates");
    let redeem = json!({ "Code": code, "ApplicationID": APP, "State": STATE });
    let first = world.internal(PROXY, "/internal/redeem", redeem.clone()).await.json();
    assert_eq!(first["UserName"], "zoe");
    let token = first["RefreshToken"].as_str().unwrap();
    assert_eq!(
        world.refresh(token, "other").await.json(),
        json!({ "error": "unknown" }),
        "it is for one app"
    );
    assert_eq!(world.refresh(token, APP).await.status, StatusCode::OK);
    assert_eq!(world.internal(PROXY, "/internal/redeem", redeem).await.json(), json!({ "error": "unknown" }));
}

#[tokio::test]
async fn who_may_not_open_an_app_is_told_so_on_a_page() {
    let world = world().await;
    let (cookies, _) = signed_in(&world, "").await;
    let page = world.get(&format!("/signin?app=closed&state={STATE}&name=Vault"), &cookies).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text.contains("Vault") && page.text.contains("zoe"), "{}", page.text);
}

#[tokio::test]
async fn a_form_of_another_site_or_without_its_token_signs_nobody_in() {
    let world = world().await;
    let page = world.get("/signin", "").await;
    let (visitor, csrf) = (page.cookie("__Host-YCS").unwrap(), page.csrf());
    let fields = |csrf: &'static str| [("csrf", csrf), ("username", "zoe"), ("password", "zoe's")];
    for answer in [
        world.form("/signin", &format!("__Host-YCS={visitor}"), &fields("wrong")).await,
        world.form("/signin", "", &[("csrf", &*csrf), ("username", "zoe"), ("password", "zoe's")]).await,
    ] {
        assert_eq!((answer.status, answer.cookie("__Host-YRT")), (StatusCode::FORBIDDEN, None));
    }
    for errand in
        ["?app=app-1", "?app=../x&state=0123456789012345678", "?app=a&state=a%0d%0aX:1aaaaaaaaaaaaaaaaaa"]
    {
        assert_eq!(
            world.get(&format!("/signin{errand}"), "").await.status,
            StatusCode::BAD_REQUEST,
            "{errand}"
        );
    }
}

#[tokio::test]
async fn a_wrong_password_on_the_page_keeps_the_name_and_says_what_is_wrong() {
    let world = world().await;
    let page = world.get("/signin", "").await;
    let visitor = format!("__Host-YCS={}", page.cookie("__Host-YCS").unwrap());
    let fields = [("csrf", &*page.csrf()), ("username", "zoe"), ("password", "guess")];
    let answer = world.form("/signin", &visitor, &fields).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.text.contains("go together") && answer.text.contains("value=\"zoe\""), "{}", answer.text);
    assert!(!answer.text.contains("guess"));
}

#[tokio::test]
async fn my_account_shows_sessions_and_ends_one_or_all() {
    let world = world().await;
    let elsewhere = world.token().await;
    let (cookies, _) = signed_in(&world, "").await;
    world.login("Zoe", "guess").await;
    let page = world.get("/", &cookies).await;
    assert!(page.text.contains("wrong name or password"), "attempts in one's name are shown: {}", page.text);
    assert_eq!((page.status, page.text.matches("/session/end").count()), (StatusCode::OK, 1));
    let (_, rest) = page.text.split_once("name=\"id\" value=\"").unwrap();
    let id = rest.split('"').next().unwrap();
    let csrf = page.csrf();
    assert_eq!(
        world.form("/session/end", &cookies, &[("csrf", "x"), ("id", id)]).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(world.refresh(&elsewhere, APP).await.status, StatusCode::OK);
    let ended = world.form("/session/end", &cookies, &[("csrf", &csrf), ("id", id)]).await;
    assert_eq!((ended.status, ended.location()), (StatusCode::SEE_OTHER, "/?done=ended"));
    assert_eq!(world.refresh(&elsewhere, APP).await.status, StatusCode::UNAUTHORIZED);
    let out = world.form("/everywhere", &cookies, &[("csrf", &csrf)]).await;
    assert_eq!((out.location(), out.cookie("__Host-YRT").unwrap().as_str()), ("/signin", ""));
    assert_eq!(out.cookie("YRT").unwrap(), "", "nor does one of before these pages had a name of their own");
    assert_eq!(world.get("/", &cookies).await.location(), "/signin");
}

#[tokio::test]
async fn nobody_ends_the_session_of_another() {
    let world = world().await;
    let bobs = world.login("bob", "bob's").await.cookie("YRT").unwrap();
    let id = world.refresh(&bobs, APP).await.json()["SessionID"].as_str().unwrap().to_owned();
    let (cookies, _) = signed_in(&world, "").await;
    let csrf = world.get("/", &cookies).await.csrf();
    world.form("/session/end", &cookies, &[("csrf", &csrf), ("id", &id)]).await;
    assert_eq!(world.refresh(&bobs, APP).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_new_password_ends_every_other_session() {
    let world = world().await;
    let elsewhere = world.token().await;
    let (cookies, _) = signed_in(&world, "").await;
    let csrf = world.get("/", &cookies).await.csrf();
    let fields = |old, again| {
        [("csrf", &*csrf), ("old", old), ("new", "correct horse battery"), ("again", again)]
            .map(|(a, b): (&str, &str)| (a.to_owned(), b.to_owned()))
    };
    for (old, again, said) in
        [("zoe's", "another", "same twice"), ("guess", "correct horse battery", "present password is wrong")]
    {
        let fields = fields(old, again);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let answer = world.form("/password", &cookies, &fields).await;
        assert!(answer.status == StatusCode::BAD_REQUEST && answer.text.contains(said), "{}", answer.text);
    }
    let fields = fields("zoe's", "correct horse battery");
    let fields: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(world.form("/password", &cookies, &fields).await.location(), "/?done=password");
    assert_eq!(world.refresh(&elsewhere, APP).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/", &cookies).await.status, StatusCode::OK, "this one goes on");
}

#[tokio::test]
async fn a_cookie_that_a_sibling_host_could_plant_signs_nobody_in_at_the_pages() {
    let world = world().await;
    let planted = format!("YRT={}", world.login("bob", "bob's").await.cookie("YRT").unwrap());
    let errand = format!("/signin?app={APP}&state={STATE}&name=Shop");
    assert_eq!(world.get("/", &planted).await.location(), "/signin");
    let page = world.get(&errand, &planted).await;
    assert!(page.status == StatusCode::OK && page.text.contains("name=\"password\""), "{}", page.text);
    let (own, _) = signed_in(&world, "").await;
    for both in [format!("{planted}; {own}"), format!("{own}; {planted}")] {
        let page = world.get("/", &both).await;
        assert!(page.text.contains("zoe") && !page.text.contains("bob"), "{}", page.text);
    }
}

#[tokio::test]
async fn how_people_sign_in_and_out_is_written_down_and_told_to_the_platform() {
    let world = world().await;
    world.token().await;
    world.login("Zoe", "guess").await;
    let (cookies, _) = signed_in(&world, "").await;
    let csrf = world.get("/", &cookies).await.csrf();
    let long = "correct horse battery";
    for old in ["guess", "zoe's"] {
        let fields = [("csrf", &*csrf), ("old", old), ("new", long), ("again", long)];
        world.form("/password", &cookies, &fields).await;
    }
    world.form("/everywhere", &cookies, &[("csrf", &csrf)]).await;
    world.internal(ADMIN, "/internal/revoke", json!({ "UserID": 7 })).await;
    assert_eq!(
        world.trail().await,
        [
            "login from 192.0.2.1: ",
            "refusal from 192.0.2.1: wrong name or password",
            "login from 192.0.2.1: ",
            "refusal from 192.0.2.1: another password: the present password is wrong",
            "password from 192.0.2.1: changed; every other session has ended",
            "logout from 192.0.2.1: everywhere",
            "logout from : by an administrator",
        ]
    );
    assert_eq!(
        world.told().await,
        [
            "login by zoe from 192.0.2.1",
            "login by  from 192.0.2.1, refused",
            "login by zoe from 192.0.2.1",
            "password by zoe from 192.0.2.1, refused",
            "logout by zoe from 192.0.2.1",
            "logout by  from ",
        ],
        "that the password was changed is the admin app's to tell"
    );
}

#[tokio::test]
async fn a_lock_out_is_written_down_once_each_time_and_not_for_every_attempt() {
    let world = world().await;
    for _ in 0..5 {
        world.login("zoe", "guess").await;
    }
    let lockouts = async || world.trail().await.iter().filter(|line| line.starts_with("lockout")).count();
    for _ in 0..9 {
        assert_eq!(world.login("zoe", "zoe's").await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(lockouts().await, 1);
    assert_eq!(world.told().await.last().unwrap(), "lockout by  from 192.0.2.1, refused");
    world.pass(2);
    world.login("zoe", "guess").await;
    for _ in 0..9 {
        world.login("zoe", "zoe's").await;
    }
    assert_eq!(lockouts().await, 2);
    world.pass(4);
    let (cookies, _) = signed_in(&world, "").await;
    let csrf = world.get("/", &cookies).await.csrf();
    for _ in 0..9 {
        let long = "correct horse battery";
        let fields = [("csrf", &*csrf), ("old", "guess"), ("new", long), ("again", long)];
        world.form("/password", &cookies, &fields).await;
    }
    assert_eq!(world.told().await.last().unwrap(), "lockout by zoe from 192.0.2.1, refused");
    assert_eq!(lockouts().await, 3, "nor on the account page");
}

#[tokio::test]
async fn of_a_flood_of_refusals_the_platform_is_told_the_beginning() {
    let world = world().await;
    let refuse = async |from: String| {
        let (at, what, name) = (world.login.now(), "refusal".to_owned(), "zoe".to_owned());
        world.login.refused(Entry { at, what, name, address: from, ..Entry::default() }).await.unwrap();
    };
    for number in 0..130 {
        refuse(format!("2001:db8:0:{number:x}::1")).await; // one customer's networks
    }
    assert_eq!((world.told().await.len(), world.trail().await.len()), (20, 99), "it shows 99 of 130");
    refuse("192.0.2.9".into()).await;
    assert_eq!(world.told().await.last().unwrap(), "login by  from 192.0.2.9, refused", "others are heard");
    world.token().await;
    assert_eq!(world.told().await.len(), 22, "who signs in is told in any case");
}

#[tokio::test]
async fn what_the_proxy_asks_for_is_written_down_with_the_address_that_it_knows() {
    let world = world().await;
    let token = world.token().await;
    let ask = async |path: &str, app: &str| {
        let asked = json!({ "RefreshToken": token, "ApplicationID": app, "Address": "198.51.100.7" });
        world.internal(PROXY, path, asked).await.status
    };
    assert_eq!(ask("/internal/access_token", "closed").await, StatusCode::FORBIDDEN);
    assert_eq!(ask("/internal/access_token", APP).await, StatusCode::OK);
    assert_eq!(ask("/internal/logout", "").await, StatusCode::OK);
    assert_eq!(
        world.trail().await[1..],
        ["refusal from 198.51.100.7: no access", "logout from 198.51.100.7: "],
        "of refreshes there are too many to show"
    );
    let refreshed = world.login.db.run(|tx| {
        let query = "SELECT address FROM audit WHERE what = 'refresh'";
        Ok::<_, Refusal>(tx.query_row(query, [], |row| row.get::<_, String>(0))?)
    });
    assert_eq!(refreshed.await.unwrap(), "198.51.100.7");
    assert_eq!(world.told().await[1..], ["logout by zoe from 198.51.100.7"]);
    let (again, asked) = (world.token().await, "203.0.113.5");
    world.refresh(&again, APP).await;
    world.pass(61);
    let stolen = json!({ "RefreshToken": again, "ApplicationID": APP, "Address": asked });
    world.internal(PROXY, "/internal/access_token", stolen).await;
    assert_eq!(world.told().await.last().unwrap(), "reuse by zoe from 203.0.113.5");
}

#[tokio::test]
async fn pages_run_no_foreign_script_and_are_not_framed() {
    let world = world().await;
    let page = world.get("/signin", "").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("frame-ancestors 'none'")
            && !policy.contains("unsafe")
    );
    assert!(!page.text.contains("<script") && !page.text.contains("style=\""));
    let style = page.text.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(world.get(style, "").await.headers["content-type"], "text/css; charset=utf-8");
}
