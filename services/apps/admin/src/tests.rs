//! The whole app in one process, with a platform that is played.

#![allow(clippy::unwrap_used, clippy::panic)]

mod facade;
mod pages;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, request::Builder},
};
use nexushub_applib::{Identity, guard, identity::Key, text::percent};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::store::LOGIN;
use facade::Facade;

const SECRET: &str = "admin's own";
const PASSWORD: &str = "correct horse battery";
/// Where everybody asks from.
const ADDRESS: &str = "192.0.2.9";

/// What an answer was.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}: {}", self.status, self.text))
    }

    fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }

    fn csrf(&self) -> String {
        let (_, rest) =
            self.text.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("{}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }
}

struct World {
    app: Router,
    admin: Arc<Admin>,
    now: Arc<AtomicI64>,
    facade: Facade,
    folder: tempfile::TempDir,
}

/// With one user, `admin` (1), as `dist/up` makes one.
async fn world() -> World {
    let hash = password::hash(PASSWORD).unwrap();
    world_with(Some(hash)).await
}

async fn world_with(hash: Option<String>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let facade = Facade::play().await;
    let now = Arc::new(AtomicI64::new(1_700_000_000));
    let told = Arc::clone(&now);
    let clock: Clock = Arc::new(move || told.load(Ordering::Relaxed));
    let host = "admin.x.localhost:8443".into();
    let settings = Settings { port: 0, host, secret: SECRET.into(), data: folder.path().into() };
    let db = Db::open(&folder.path().join("admin.sqlite"), store::STEPS).unwrap();
    let entrance = Entrance::played_by(facade.port, SECRET);
    let admin = Admin::new(db, entrance, &settings, Arc::clone(&clock)).await.unwrap();
    admin.first_administrator(hash).await.unwrap();
    let app = guard(routes(Arc::clone(&admin)), SECRET, clock);
    World { app, admin, now, facade, folder }
}

fn user(id: i64, name: &str) -> Identity {
    Identity { user: Some(User { id, name: name.into(), session: "s".into() }), caller: None }
}

fn caller(id: &str) -> Identity {
    Identity { user: None, caller: Some(id.into()) }
}

impl World {
    /// Tells login what it is to be told.
    fn deliver(&self) {
        tokio::spawn(outbox::deliver(Arc::clone(&self.admin)));
    }

    async fn send(&self, who: &Identity, request: Builder, body: impl Into<Body>) -> Answer {
        let proof = Key::of(SECRET).prove(who, self.admin.now());
        let request = request.header("x-nexushub-identity", proof).header("x-forwarded-for", ADDRESS);
        let request = request.body(body.into()).unwrap();
        let answer = self.app.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, text }
    }

    async fn get(&self, who: &Identity, path: &str) -> Answer {
        self.send(who, Request::get(path), Body::empty()).await
    }

    async fn post(&self, who: &Identity, path: &str, body: Value) -> Answer {
        self.send(who, Request::post(path).header("content-type", "application/json"), body.to_string()).await
    }

    async fn publish(&self, cid: &str, event: Value) -> Answer {
        self.post(&user(1, "admin"), &format!("/api/publish?cid={cid}"), event).await
    }

    /// A form as the admin's browser sends it, with the token of its pages.
    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.get(&user(1, "admin"), "/users").await.csrf();
        self.form_with(&csrf, path, fields).await
    }

    async fn form_with(&self, csrf: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let all = [fields, &[("csrf", csrf)]].concat();
        let pairs = all.iter().map(|(name, value)| format!("{name}={}", percent(value)));
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.send(&user(1, "admin"), request, pairs.collect::<Vec<_>>().join("&")).await
    }

    async fn login(&self, name: &str, password: &str) -> Value {
        let asked = json!({ "Username": name, "Password": password });
        self.post(&caller(LOGIN), "/internal/dologin", asked).await.json()
    }

    async fn may(&self, user: i64, app: &str) -> bool {
        let asked = json!({ "UserID": user, "ApplicationID": app });
        self.post(&caller(LOGIN), "/internal/checkAccess", asked).await.json()["AccessGranted"] == true
    }

    async fn shop(&self) -> String {
        let event = json!({ "type": "CreateApplication", "appId": "shop", "displayName": "Shop", "hostName": "shop" });
        self.publish(&uuid::Uuid::new_v4().to_string(), event).await;
        let list = self.get(&caller("@provider"), "/api/applications").await.json();
        let apps = list["applications"].as_array().unwrap();
        let shop = apps.iter().find(|app| app["hostName"] == "shop").unwrap();
        shop["instanceId"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_provider_gets_the_list_as_the_contract_has_it() {
    let world = world().await;
    let list = world.get(&caller("@provider"), "/api/applications").await.json();
    assert_eq!(
        list,
        json!({ "applications": [
            { "instanceId": ADMIN, "appId": "admin", "displayName": "Admin", "hostName": "admin", "signIn": false },
            { "instanceId": LOGIN, "appId": "login", "displayName": "Login", "hostName": "login", "signIn": false },
        ] })
    );
    let id = world.shop().await;
    let list = world.get(&caller("@provider"), "/api/applications").await.json();
    let ids: Vec<&str> = list["applications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|app| app["instanceId"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&id.as_str()) && ids.is_sorted());
}

#[tokio::test]
async fn an_application_that_runs_already_is_taken_over_once_and_nobody_elses_id_name_or_host_with_it() {
    let world = world().await;
    let adopt = |id: &str, app_id: &str, host: &str| json!({ "instanceId": id, "appId": app_id, "displayName": "Notes", "hostName": host, "by": "user 1" });
    let first = adopt("0b-1", "debug-notes", "notes");
    for who in [caller("shop"), caller(LOGIN), caller("@provider"), user(1, "admin")] {
        assert_eq!(world.post(&who, "/internal/adopt", first.clone()).await.status, StatusCode::FORBIDDEN);
    }
    let debug_api = caller("@debug-api");
    for _ in 0..2 {
        let answer = world.post(&debug_api, "/internal/adopt", first.clone()).await;
        assert_eq!((answer.status, &answer.json()["instanceId"]), (StatusCode::OK, &json!("0b-1")));
    }
    let list = world.get(&caller("@provider"), "/api/applications").await.json();
    let mine = json!({ "instanceId": "0b-1", "appId": "debug-notes", "displayName": "Notes", "hostName": "notes", "signIn": false });
    assert!(list["applications"].as_array().unwrap().contains(&mine), "{list}");
    for (refused, status) in [
        (adopt("0b-1", "another", "free"), StatusCode::CONFLICT),
        (adopt("0b-2", "debug-notes", "free"), StatusCode::CONFLICT),
        (adopt("0b-2", "other", "notes"), StatusCode::CONFLICT),
        (adopt(ADMIN, "other", "free"), StatusCode::CONFLICT),
        (adopt("../x", "other", "free"), StatusCode::BAD_REQUEST),
        (adopt("0b-2", "other", "notes.debug"), StatusCode::BAD_REQUEST),
        (adopt("0b-2", "other", "admin"), StatusCode::BAD_REQUEST),
    ] {
        let answer = world.post(&debug_api, "/internal/adopt", refused.clone()).await;
        assert_eq!(answer.status, status, "{refused}: {}", answer.text);
    }
    let event = json!({ "type": "AdoptApplication", "instanceId": "0b-3", "written": { "appId": "x", "hostName": "x" } });
    assert!(world.publish("1", event).await.status.is_client_error(), "the platform alone says so");
}

#[tokio::test]
async fn who_may_open_an_application_that_is_elsewhere_still_may_once_it_is_taken_over() {
    let world = world().await;
    for name in ["zoe", "bob", "eve"] {
        let add = json!({ "type": "AddUser", "username": name, "password": "a long enough one" });
        assert_eq!(world.publish(name, add).await.status, StatusCode::OK);
    }
    let rule = |app: &str, what: &str, who: i64| json!({ "type": "CreateUserAccessRule", "applicationId": app, "ruleType": what, "subjectType": "USER", "subjectId": who });
    let rules = [rule(ADMIN, "ACCEPT", 2), rule(ADMIN, "ACCEPT", 3), rule("0b-1", "DENY", 3)];
    for (cid, event) in rules.into_iter().enumerate() {
        assert_eq!(world.publish(&cid.to_string(), event).await.status, StatusCode::OK);
    }
    let pushed = json!({ "instanceId": "0b-1", "appId": "debug-notes", "hostName": "notes", "by": "zoe" });
    for taken_over in [false, true] {
        for (user, may) in [(1, true), (2, true), (3, false), (4, false)] {
            assert_eq!(world.may(user, "0b-1").await, may, "{user}, taken over: {taken_over}");
        }
        let answer = world.post(&caller("@debug-api"), "/internal/adopt", pushed.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let kept = world.admin.db.run(|tx| Ok::<_, Refusal>(store::rules(tx, Some("0b-1"))?)).await.unwrap();
    let mut of: Vec<_> = kept.iter().map(|rule| (rule.subject_id, format!("{:?}", rule.rule_type))).collect();
    of.sort();
    let said = [(1, "Accept"), (2, "Accept"), (3, "Deny")].map(|(user, what)| (user, what.to_owned()));
    assert_eq!(of, said, "nobody has two");
}

#[tokio::test(start_paused = true)]
async fn a_poll_for_an_event_that_does_not_come_is_held_for_a_while_and_answered_304() {
    let world = world().await;
    let begun = tokio::time::Instant::now();
    let quiet = world.get(&caller("@provider"), "/api/poll?e=2").await;
    assert_eq!((quiet.status, quiet.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(begun.elapsed().as_secs(), 50);
}

#[tokio::test]
async fn a_poll_is_answered_at_once_when_the_event_is_there_and_else_as_soon_as_it_is() {
    let world = world().await;
    let provider = caller("@provider");
    let first = world.get(&provider, "/api/poll?e=1").await;
    assert_eq!((first.status, first.json()["id"].as_i64()), (StatusCode::OK, Some(1)));
    for bad in ["", "?e=", "?e=x"] {
        assert_eq!(world.get(&provider, &format!("/api/poll{bad}")).await.status, StatusCode::BAD_REQUEST);
    }
    let mut waiting = std::pin::pin!(world.get(&provider, "/api/poll?e=2"));
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    world.shop().await;
    assert_eq!(waiting.await.json()["id"], 2);
}

#[tokio::test]
async fn a_poll_hears_what_another_process_of_the_app_records_and_ends_when_its_own_does() {
    let world = world().await;
    let provider = caller("@provider");
    let other = Db::open(&world.folder.path().join("admin.sqlite"), store::STEPS).unwrap();
    tokio::spawn(api::overhear(Arc::clone(&world.admin)));
    let heard = world.get(&provider, "/api/poll?e=2");
    let recorded = other.run(|tx| {
        let event = Event { id: 0, what: "AddUser".into(), at: 0, by: "admin".into(), said: "{}".into() };
        Ok::<_, Refusal>(store::record(tx, "elsewhere", &event, "")?)
    });
    let (heard, recorded) = tokio::join!(heard, recorded);
    assert_eq!((heard.json()["id"].as_i64(), recorded.unwrap()), (Some(2), 2));
    let held = world.get(&provider, "/api/poll?e=3");
    let (held, _) = tokio::join!(held, async { world.admin.leaving.send_replace(true) });
    assert_eq!(held.status, StatusCode::NOT_MODIFIED);
}

/// Whoever delivers looks without news, too, if seldom: what counts is that it has news of this.
#[tokio::test(start_paused = true)]
async fn what_a_process_of_the_version_before_left_untold_is_news_to_its_successor() {
    let world = world().await;
    let other = Db::open(&world.folder.path().join("admin.sqlite"), store::STEPS).unwrap();
    let recorded = other.run(|tx| {
        store::revoke(tx, 7)?;
        let event = Event { id: 0, what: "AddUser".into(), at: 0, by: "zoe".into(), said: "{}".into() };
        Ok::<_, Refusal>(store::record(tx, "elsewhere", &event, "")?)
    });
    recorded.await.unwrap();
    let begun = tokio::time::Instant::now();
    tokio::spawn(api::overhear(Arc::clone(&world.admin)));
    tokio::join!(world.admin.changed.notified(), world.admin.ended.notified());
    assert_eq!(begun.elapsed().as_secs(), 5, "not before that process had the time to tell it");
}

#[tokio::test]
async fn what_was_recorded_last_is_told_before_the_process_ends() {
    let world = world().await;
    let shop = json!({ "type": "CreateApplication", "appId": "shop", "hostName": "shop" });
    world.publish("last", shop).await;
    world.admin.sign_out(1, &Asker::default()).await.unwrap();
    outbox::rest(&world.admin).await;
    assert_eq!(world.facade.changes(2).await.len(), 2);
    assert_eq!(world.facade.revoked().await, 1);
}

#[tokio::test]
async fn at_the_end_the_audit_log_is_not_kept_waiting_by_login() {
    let world = world().await;
    world.facade.heard.lock().unwrap().login_waits = true;
    world.admin.sign_out(1, &Asker::default()).await.unwrap();
    outbox::rest(&world.admin).await;
    let left = world.admin.db.run(|tx| Ok::<_, Refusal>(store::next_revocation(tx)?)).await.unwrap();
    assert_eq!((left, world.facade.changes(1).await.len()), (None, 1));
}

#[tokio::test]
async fn an_event_is_carried_out_once_however_often_it_is_sent() {
    let world = world().await;
    let event = json!({ "type": "CreateApplication", "timestamp": 1, "appId": "shop", "displayName": "", "hostName": "Shop" });
    let first = world.publish("c1", event.clone()).await.json();
    assert_eq!(first, json!({ "status": "success", "id": 2, "clientId": "c1" }));
    let second = world.publish("c1", event.clone()).await;
    assert_eq!(
        (second.status, second.json()),
        (StatusCode::OK, json!({ "status": "duplicate", "id": 2, "clientId": "c1" }))
    );
    let taken = world.publish("c2", event.clone()).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    assert!(taken.text.contains("`shop` is taken"));
    assert_eq!(world.publish("", event).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        world.get(&caller("@provider"), "/api/poll?e=2").await.json()["id"],
        2,
        "what failed has no number"
    );
}

#[tokio::test]
async fn applications_are_changed_and_removed_but_for_the_platforms_own() {
    let world = world().await;
    let id = world.shop().await;
    let update = |id: &str, host: &str| json!({ "type": "UpdateApplication", "instanceId": id, "appId": "shop2", "displayName": "S", "hostName": host });
    assert_eq!(world.publish("u", update(&id, "store.x.localhost:8443")).await.status, StatusCode::OK);
    let list = world.get(&caller("@provider"), "/api/applications").await.text;
    assert!(list.contains("\"hostName\":\"store\"") && list.contains("shop2"), "{list}");
    for host in ["login", "admin", "internal", "a b", "x.debug"] {
        assert_eq!(world.publish("b", update(&id, host)).await.status, StatusCode::BAD_REQUEST, "{host}");
    }
    for own in [LOGIN, ADMIN] {
        assert_eq!(world.publish("o", update(own, "x")).await.status, StatusCode::BAD_REQUEST);
        let delete = json!({ "type": "DeleteApplication", "instanceId": own });
        assert_eq!(world.publish("d", delete).await.status, StatusCode::BAD_REQUEST);
    }
    let delete = json!({ "type": "DeleteApplication", "instanceId": id });
    assert_eq!(world.publish("x", delete.clone()).await.status, StatusCode::OK);
    assert_eq!(world.publish("y", delete).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_no_event_is_refused() {
    let world = world().await;
    for event in [json!({}), json!([]), json!({ "type": "Nonsense" }), json!({ "type": "CreateApplication" })]
    {
        assert_eq!(world.publish("c", event.clone()).await.status, StatusCode::BAD_REQUEST, "{event}");
    }
}

#[tokio::test]
async fn users_sign_in_with_their_password_and_nobody_else() {
    let world = world().await;
    let add = json!({ "type": "AddUser", "username": "Zoe", "password": "a long enough one" });
    assert_eq!(world.publish("a", add).await.status, StatusCode::OK);
    assert_eq!(
        world.login("zoe", "a long enough one").await,
        json!({ "Success": true, "UserID": 2, "UserName": "Zoe" })
    );
    for (name, password) in [("zoe", "guess"), ("nobody", "a long enough one"), ("zoe", ""), ("", "")] {
        assert_eq!(world.login(name, password).await["Success"], false, "{name}");
    }
    let lower = json!({ "username": "admin", "password": PASSWORD });
    assert_eq!(world.post(&caller(LOGIN), "/internal/dologin", lower).await.json()["UserID"], 1);
    let users = world.get(&user(1, "admin"), "/api/users").await.json();
    assert_eq!(users, json!({ "users": [{ "id": 1, "username": "admin" }, { "id": 2, "username": "Zoe" }] }));
    let twice = json!({ "type": "AddUser", "username": "ZOE", "password": "a long enough one" });
    assert_eq!(world.publish("b", twice).await.status, StatusCode::CONFLICT);
    let weak = json!({ "type": "AddUser", "username": "bob", "password": "short" });
    assert_eq!(world.publish("c", weak).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_user_is_found_by_name_alone_for_login() {
    let world = world().await;
    for (name, known) in [
        ("Admin", json!({ "Success": true, "UserID": 1, "UserName": "admin" })),
        ("nobody", json!({ "Success": false, "UserID": 0, "UserName": "" })),
    ] {
        let asked = json!({ "Username": name });
        assert_eq!(world.post(&caller(LOGIN), "/internal/user", asked).await.json(), known);
    }
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_the_present_one_and_no_password_is_kept_as_it_is() {
    let world = world().await;
    let set = |old: &str, new: &str| json!({ "UserID": 1, "Old": old, "New": new });
    for (old, new, why) in [
        ("guess", "another long one", "present password is wrong"),
        (PASSWORD, "short", "12 characters"),
        (PASSWORD, PASSWORD, "is the present one"),
    ] {
        let answer = world.post(&caller(LOGIN), "/internal/setPassword", set(old, new)).await;
        assert!(answer.status == StatusCode::BAD_REQUEST && answer.text.contains(why), "{}", answer.text);
    }
    let done = world.post(&caller(LOGIN), "/internal/setPassword", set(PASSWORD, "another long one")).await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(world.login("admin", PASSWORD).await["Success"], false);
    assert_eq!(world.login("admin", "another long one").await["Success"], true);
    let events = world.admin.db.run(|tx| Ok::<_, Refusal>(store::events(tx, 99)?)).await.unwrap();
    assert!(!format!("{events:?}").contains("another long one"));
}

#[tokio::test]
async fn rules_say_who_may_open_what_and_the_last_administrator_stays() {
    let world = world().await;
    let id = world.shop().await;
    let rule = |app: &str, what: &str, subject: &str, who: i64| json!({ "type": "CreateUserAccessRule", "applicationId": app, "ruleType": what, "subjectType": subject, "subjectId": who });
    assert!(world.may(1, ADMIN).await && world.may(1, LOGIN).await && !world.may(1, &id).await, "as shipped");
    world.publish("1", rule(&id, "ACCEPT", "GROUP", 9)).await;
    assert!(world.may(1, &id).await && !world.may(77, &id).await, "who does not exist is nobody");
    world.publish("2", rule(&id, "DENY", "USER", 1)).await;
    assert!(!world.may(1, &id).await);
    let rules =
        world.get(&user(1, "admin"), &format!("/api/user-access-rules?applicationId={id}")).await.json();
    let rules = rules["rules"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[0]["subjectId"], &rules[1]["ruleType"]), (2, &json!(0), &json!("DENY")));
    assert_eq!(rules[0]["createdAt"], "2023-11-14T22:13:20Z");
    let delete = json!({ "type": "DeleteUserAccessRule", "ruleId": rules[1]["id"] });
    assert_eq!(world.publish("3", delete).await.status, StatusCode::OK);
    assert!(world.may(1, &id).await);
    for (cid, event) in [
        ("4", rule(ADMIN, "DENY", "USER", 1)),
        ("5", json!({ "type": "DeleteUser", "userId": 1 })),
        ("6", json!({ "type": "DeleteUserAccessRule", "ruleId": 2 })),
    ] {
        let answer = world.publish(cid, event).await;
        assert!(
            answer.status == StatusCode::BAD_REQUEST && answer.text.contains("nobody"),
            "{}",
            answer.text
        );
    }
    assert_eq!(world.publish("7", rule(&id, "ACCEPT", "USER", 77)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_app_that_is_not_kept_here_is_open_to_administrators_and_to_whom_its_rules_name() {
    let world = world().await;
    world
        .publish("a", json!({ "type": "AddUser", "username": "zoe", "password": "a long enough one" }))
        .await;
    let rule = |app: &str, what: &str, who: i64| json!({ "type": "CreateUserAccessRule", "applicationId": app, "ruleType": what, "subjectType": "USER", "subjectId": who });
    assert!(world.may(1, "pushed").await && !world.may(2, "pushed").await && !world.may(77, "pushed").await);
    world.publish("b", rule("pushed", "ACCEPT", 2)).await;
    assert!(
        world.may(1, "pushed").await && world.may(2, "pushed").await,
        "a rule for one takes nothing from others"
    );
    world.facade.refuse_ends(1);
    world.deliver();
    world.publish("c", rule("pushed", "DENY", 1)).await;
    assert!(!world.may(1, "pushed").await && world.may(2, "pushed").await);
    assert_eq!(world.facade.revoked().await, 1, "whose tokens for it are worth nothing from then on");
}

#[tokio::test]
async fn a_user_who_is_removed_or_refused_is_signed_out_and_open_nothing_at_once() {
    let world = world().await;
    world
        .publish("a", json!({ "type": "AddUser", "username": "zoe", "password": "a long enough one" }))
        .await;
    let rule = json!({ "type": "CreateUserAccessRule", "applicationId": ADMIN, "ruleType": "ACCEPT", "subjectType": "USER", "subjectId": 2 });
    world.publish("b", rule).await;
    assert_eq!(world.get(&user(2, "zoe"), "/api/users").await.status, StatusCode::OK);
    world.facade.refuse_ends(1);
    world.deliver();
    world.publish("c", json!({ "type": "DeleteUser", "userId": 2 })).await;
    assert_eq!(world.get(&user(2, "zoe"), "/api/users").await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.facade.revoked().await, 2);
}

#[tokio::test]
async fn who_may_open_an_app_no_more_by_whatever_change_is_signed_out() {
    let world = world().await;
    world.deliver();
    let (app, add) = (
        world.shop().await,
        |name: &str| json!({ "type": "AddUser", "username": name, "password": "a long enough one" }),
    );
    let rule = |kind: &str, subject: &str, id: i64| json!({ "type": "CreateUserAccessRule", "applicationId": app, "ruleType": kind, "subjectType": subject, "subjectId": id });
    for (cid, event) in [
        ("a", add("zoe")),
        ("b", add("yan")),
        ("c", rule("ACCEPT", "USER", 2)),
        ("d", rule("ACCEPT", "GROUP", 0)),
    ] {
        assert_eq!(world.publish(cid, event).await.status, StatusCode::OK, "{cid}");
    }
    let denied = world.publish("e", rule("DENY", "USER", 3)).await;
    assert_eq!(denied.status, StatusCode::OK, "{}", denied.text);
    assert_eq!(world.facade.revoked_next(3).await, 3);
    world.publish("f", json!({ "type": "DeleteUserAccessRule", "ruleId": 4 })).await;
    assert_eq!(world.facade.revoked_next(1).await, 1, "zoe has a rule of her own");
    world.publish("g", json!({ "type": "DeleteUserAccessRule", "ruleId": 3 })).await;
    assert_eq!(world.facade.revoked_next(2).await, 2);
}

#[tokio::test]
async fn changes_are_told_for_the_audit_log_in_order_and_again_until_they_are_heard() {
    let world = world().await;
    let app = world.shop().await;
    world.facade.heard.lock().unwrap().away = true; // it refuses the first time
    world.deliver();
    world.facade.changes(1).await;
    let rule = json!({ "type": "CreateUserAccessRule", "applicationId": app, "ruleType": "ACCEPT", "subjectType": "GROUP" });
    world.publish("a", rule).await;
    world.publish("b", json!({ "type": "DeleteUserAccessRule", "ruleId": 3 })).await;
    let told = world.facade.changes(4).await;
    let what: Vec<_> = told.iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(what[0], "CreateApplication");
    let all = ["CreateApplication", "CreateUserAccessRule", "DeleteUserAccessRule"];
    assert_eq!(what[what.len() - 3..], all, "what was refused is told once more");
    let removed = &told[told.len() - 1];
    assert_eq!((&removed["by"], &removed["said"]["applicationId"]), (&json!("admin"), &json!(app)));
    assert!(removed["at"].as_str().unwrap().ends_with('Z') && removed["id"].is_i64(), "{removed}");
    assert_eq!((&removed["from"], &removed["refused"]), (&json!(ADDRESS), &json!(false)));
}

#[tokio::test]
async fn what_is_refused_to_an_administrator_is_told_without_a_password_and_is_no_event() {
    let world = world().await;
    world.deliver();
    let weak = json!({ "type": "AddUser", "username": "z".repeat(9_000), "password": "short" });
    assert_eq!(world.publish("a", weak).await.status, StatusCode::BAD_REQUEST);
    let rule = json!({ "type": "CreateUserAccessRule", "applicationId": ADMIN, "ruleType": "DENY", "subjectType": "USER", "subjectId": 1 });
    assert_eq!(world.publish("b", rule).await.status, StatusCode::BAD_REQUEST);
    let told = world.facade.changes(2).await;
    let what = told.iter().map(|one| (one["what"].as_str().unwrap(), one["refused"].as_bool().unwrap()));
    assert_eq!(what.collect::<Vec<_>>(), [("AddUser", true), ("CreateUserAccessRule", true)]);
    assert!(told[0]["said"]["why"].as_str().unwrap().contains("12 characters"), "{}", told[0]);
    assert!(told[0].to_string().len() < 1_000 && !told[0].to_string().contains("short"), "{}", told[0]);
    assert_eq!((&told[1]["by"], &told[1]["from"]), (&json!("admin"), &json!(ADDRESS)));
    let poll = world.get(&caller("@provider"), "/api/poll?e=1").await.json();
    assert_eq!(poll["id"], 1, "nobody waits for what did not happen");
}

#[tokio::test]
async fn who_logs_somebody_out_or_changes_their_own_password_is_told_with_the_address() {
    let world = world().await;
    world.form("/users/1/signout", &[]).await;
    let change = json!({ "UserID": 1, "Old": PASSWORD, "New": "another long one", "Address": "192.0.2.8" });
    world.post(&caller(LOGIN), "/internal/setPassword", change).await;
    world.deliver();
    let told = world.facade.changes(2).await;
    let told = told.iter().map(|one| ["what", "by", "from"].map(|field| one[field].as_str().unwrap()));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [["EndSessions", "admin", ADDRESS], ["UpdateUserPassword", "admin", "192.0.2.8"]]
    );
    let page = world.get(&user(1, "admin"), "/audit").await;
    assert!(page.text.contains("logged out") && page.text.contains("for admin"), "{}", page.text);
}

#[tokio::test]
async fn what_is_for_login_or_for_administrators_is_refused_to_others() {
    let world = world().await;
    for path in ["/internal/dologin", "/internal/user", "/internal/checkAccess", "/internal/setPassword"] {
        let body = json!({ "Username": "admin", "Password": PASSWORD, "UserID": 1, "ApplicationID": ADMIN, "Old": PASSWORD, "New": PASSWORD });
        for who in [caller("shop"), caller("@provider"), user(1, "admin")] {
            assert_eq!(world.post(&who, path, body.clone()).await.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
    for path in ["/api/users", "/api/user-access-rules", "/", "/users", "/audit", "/live"] {
        for who in [caller("shop"), caller("@provider"), user(9, "stranger")] {
            assert_eq!(world.get(&who, path).await.status, StatusCode::FORBIDDEN, "{path}");
        }
        let nobody =
            world.app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn the_first_administrator_has_the_password_that_was_made_for_them() {
    let world = world().await;
    assert_eq!(world.login("admin", PASSWORD).await["UserID"], 1);
    assert_eq!(world.login("admin", "admin").await["Success"], false);
    world.admin.first_administrator(Some(password::hash("yet another one").unwrap())).await.unwrap();
    assert_eq!(world.login("admin", PASSWORD).await["Success"], true, "only where there is nobody at all");
    let nobody = world_with(Some("no hash".into())).await;
    assert_eq!(nobody.login("admin", "admin").await["Success"], false);
}

#[tokio::test]
async fn who_lost_the_password_gets_another_which_counts_until_it_is_changed() {
    let world = world().await;
    let denied = "INSERT INTO rule (application_id, rule_type, subject_type, subject_id, at) VALUES (?1, 'DENY', 'USER', 1, 0)";
    world.admin.db.run(move |tx| Ok::<_, Refusal>(tx.execute(denied, [ADMIN])?)).await.unwrap();
    assert_eq!(world.get(&user(1, "admin"), "/api/users").await.status, StatusCode::FORBIDDEN);
    let lost = Some(password::hash("a way back in").unwrap());
    for password in ["a way back in", "changed since"] {
        world.admin.reset_administrator(lost.clone()).await.unwrap();
        assert_eq!(
            world.login("admin", password).await["Success"],
            true,
            "{password}: each hash counts once"
        );
        assert_eq!(world.login("admin", PASSWORD).await["Success"], false);
        let change = json!({ "UserID": 1, "Old": "a way back in", "New": "changed since" });
        world.post(&caller(LOGIN), "/internal/setPassword", change).await;
    }
    assert_eq!(
        world.get(&user(1, "admin"), "/api/users").await.status,
        StatusCode::OK,
        "and may open this app"
    );
    let revoked = world.admin.db.run(|tx| Ok::<_, Refusal>(store::next_revocation(tx)?)).await.unwrap();
    assert_eq!(revoked.map(|(_, user)| user), Some(1), "sessions of before end");
}
