//! What people see and send.

use super::*;

#[tokio::test]
async fn the_list_shows_what_each_app_is_doing_and_so_does_what_the_script_asks_for() {
    let world = world().await;
    let id = world.shop().await;
    world.facade.heard.lock().unwrap().running = vec![id.clone(), "static-1".into()];
    let page = world.get(&user(1, "admin"), "/").await;
    for part in ["Shop", "running", "1\u{202f}234", "3.0 MiB", "2 h", "r7", "static-1", "Sign out"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    assert!(!page.text.contains("No app of your own yet"));
    let live = world.get(&user(1, "admin"), "/live").await.json();
    assert_eq!(
        (&live["away"], &live["apps"][&id]["class"], &live["apps"][&id]["memory"]),
        (&json!(false), &json!("good"), &json!("3.0 MiB"))
    );
}

#[tokio::test]
async fn what_happened_to_an_app_is_told_from_the_newest_on() {
    let world = world().await;
    let id = world.shop().await;
    world.facade.heard.lock().unwrap().running = vec![id.clone()];
    let page = world.get(&user(1, "admin"), &format!("/apps/{id}")).await.text;
    let told = page.split_once("What happened to it").unwrap().1;
    let at = |words: &str| told.find(words);
    assert!(at("running").unwrap() < at(">1 before").unwrap(), "{told}");
    assert!(at(">1 before").unwrap() < at(">11 before").unwrap(), "{told}");
    assert_eq!(at(">12 before"), None, "it ends with the older ones");
}

#[tokio::test]
async fn with_the_platforms_part_away_the_pages_say_so_and_go_on() {
    let world = world().await;
    let id = world.shop().await;
    world.facade.heard.lock().unwrap().away = true;
    let page = world.get(&user(1, "admin"), "/").await;
    assert!(
        page.status == StatusCode::OK
            && page.text.contains("does not say what is running")
            && page.text.contains("Shop")
    );
    let page = world.get(&user(1, "admin"), &format!("/apps/{id}")).await;
    assert!(
        page.status == StatusCode::OK && page.text.contains("does not say what is running"),
        "{}",
        page.text
    );
    assert_eq!(world.get(&user(1, "admin"), "/live").await.json()["away"], true);
    let done = world.form("/apps", &[("appId", "b"), ("hostName", "b")]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "what is changed counts all the same");
}

#[tokio::test]
async fn an_app_is_made_changed_and_removed_in_the_pages() {
    let world = world().await;
    assert!(world.get(&user(1, "admin"), "/").await.text.contains("No app of your own yet"));
    let made = world.form("/apps", &[("displayName", "Shop"), ("appId", "shop"), ("hostName", "shop")]).await;
    let path = made.location().split('?').next().unwrap().to_owned();
    let page = world.get(&user(1, "admin"), made.location()).await;
    assert!(
        page.text.contains("as soon as its app id has a package") && page.text.contains("Shop"),
        "{}",
        page.text
    );
    let twice =
        world.form("/apps", &[("displayName", "<Two>"), ("appId", "shop"), ("hostName", "shop")]).await;
    assert_eq!(twice.status, StatusCode::CONFLICT);
    assert!(
        twice.text.contains("is taken") && twice.text.contains("value=\"&lt;Two&gt;\""),
        "what was typed is kept"
    );
    let changed =
        world.form(&path, &[("displayName", "Store"), ("appId", "shop"), ("hostName", "store")]).await;
    assert_eq!(changed.location(), format!("{path}?done=updated"));
    assert_eq!(world.form(&format!("{path}/delete"), &[]).await.location(), "/?done=deleted");
    assert_eq!(world.get(&user(1, "admin"), &path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_form_without_its_token_does_nothing() {
    let world = world().await;
    let (fields, other) = ([("appId", "a"), ("hostName", "a")], world.admin.csrf.token("2 s"));
    for csrf in ["", "wrong", &other] {
        let answer = world.form_with(csrf, "/apps", &fields).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let zip =
        Request::post("/apps/x/package").header("x-csrf-token", "wrong").header("accept", "application/json");
    assert_eq!(world.send(&user(1, "admin"), zip, "PK").await.status, StatusCode::FORBIDDEN);
    assert!(world.facade.orders().is_empty());
    assert!(!world.get(&caller("@provider"), "/api/applications").await.text.contains("\"a\""));
}

#[tokio::test]
async fn a_package_goes_through_and_what_becomes_of_it_is_said() {
    let world = world().await;
    let id = world.shop().await;
    let csrf = world.get(&user(1, "admin"), "/users").await.csrf();
    let send = async |zip: &'static str| {
        let request = Request::post(format!("/apps/{id}/package")).header("accept", "application/json");
        world
            .send(
                &user(1, "admin"),
                request.header("x-csrf-token", &csrf).header("content-type", "application/zip"),
                zip,
            )
            .await
    };
    let good = send("PK good").await;
    assert_eq!((good.status, &good.json()["good"]), (StatusCode::OK, &json!(true)));
    let lesser = send("lesser").await.json()["text"].as_str().unwrap().to_owned();
    assert!(lesser.ends_with("But no sandbox."), "{lesser}");
    let page = world.get(&user(1, "admin"), &format!("/apps/{id}")).await.text;
    assert_eq!(page.matches("Not all of what it asks for: no sandbox.").count(), 1, "{page}");
    let bad = send("broken").await.json();
    assert_eq!((&bad["good"], &bad["log"][0]), (&json!(false), &json!("panicked at <main>")));
    assert!(
        bad["text"].as_str().unwrap().contains("exit code 3")
            && bad["text"].as_str().unwrap().contains("goes on")
    );
    let refused = send("no zip").await;
    assert!(
        refused.status == StatusCode::BAD_REQUEST && refused.text.contains("this is no zip"),
        "{}",
        refused.text
    );
    assert_eq!(world.facade.orders()[0], (format!("package {id}"), "admin".into(), "PK good".into()));
}

#[tokio::test]
async fn a_browser_without_script_deploys_too() {
    let world = world().await;
    let id = world.shop().await;
    world.facade.heard.lock().unwrap().running = vec![id.clone()];
    let csrf = world.get(&user(1, "admin"), "/users").await.csrf();
    for (zip, said) in [("PK good", "r8 has taken over"), ("broken", "panicked at &lt;main&gt;")] {
        let part = |name: &str, rest: &str, text: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{rest}\r\n\r\n{text}\r\n")
        };
        let body =
            [part("csrf", "", &csrf), part("zip", "; filename=\"a.zip\"", zip), "--b--\r\n".to_owned()]
                .concat();
        let request = Request::post(format!("/apps/{id}/package"))
            .header("content-type", "multipart/form-data; boundary=b");
        let answer = world.send(&user(1, "admin"), request, body).await;
        assert!(answer.status == StatusCode::OK && answer.text.contains(said), "{}", answer.text);
        assert_eq!(world.facade.orders().last().unwrap().2, zip);
    }
}

#[tokio::test]
async fn orders_reach_the_platform_in_the_name_of_who_gave_them() {
    let world = world().await;
    let id = world.shop().await;
    for order in ["restart", "pause", "resume"] {
        let done = world.form(&format!("/apps/{id}/order"), &[("order", order)]).await;
        assert_eq!(done.location(), format!("/apps/{id}?done={order}"));
    }
    assert_eq!(
        world.form(&format!("/apps/{id}/order"), &[("order", "package")]).await.status,
        StatusCode::BAD_REQUEST
    );
    let back = world.form(&format!("/apps/{id}/rollback"), &[("release", "r6")]).await;
    assert_eq!(back.location(), format!("/apps/{id}?done=released"));
    world.facade.heard.lock().unwrap().held = true;
    assert!(world.get(&user(1, "admin"), "/").await.text.contains("gone-2"));
    assert_eq!(world.form("/held/confirm", &[]).await.location(), "/?done=confirmed");
    let orders: Vec<String> =
        world.facade.orders().into_iter().map(|(path, who, _)| format!("{who}: {path}")).collect();
    let expected = ["restart", "pause", "resume", "rollback"].map(|order| format!("admin: {order} {id}"));
    assert_eq!(orders[..4], expected);
    assert_eq!(orders[4], "admin: confirm");
}

#[tokio::test]
async fn the_log_comes_through_from_where_the_browser_left_off() {
    let world = world().await;
    let request = Request::get("/apps/a1/logs").header("last-event-id", "c0");
    let log = world.send(&user(1, "admin"), request, Body::empty()).await;
    assert_eq!(log.headers["content-type"], "text/event-stream");
    assert!(log.text.starts_with("id: c1\n") && log.text.contains("a1 after c0"), "{}", log.text);
    let anew = world.get(&user(1, "admin"), "/apps/a1/logs?after=c%201").await;
    assert!(anew.text.contains("a1 after c 1"), "{}", anew.text);
}

#[tokio::test]
async fn users_and_rules_are_managed_in_the_pages() {
    let world = world().await;
    let id = world.shop().await;
    let added = world.form("/users", &[("username", "zoe"), ("password", "a long enough one")]).await;
    assert_eq!(added.location(), "/users?done=added");
    let weak = world.form("/users", &[("username", "bob"), ("password", "short")]).await;
    assert!(weak.status == StatusCode::BAD_REQUEST && weak.text.contains("12 characters"));
    let rule = [("applicationId", id.as_str()), ("subject", "2"), ("ruleType", "ACCEPT")];
    assert_eq!(world.form("/rules", &rule).await.location(), "/users?done=rule");
    assert!(world.may(2, &id).await);
    let page = world.get(&user(1, "admin"), &format!("/apps/{id}")).await;
    assert!(
        page.text.contains("zoe") && page.text.contains(&format!("value=\"/apps/{id}\"")),
        "{}",
        page.text
    );
    let gone = world.form("/rules/delete", &[("id", "3"), ("back", &format!("/apps/{id}"))]).await;
    assert_eq!(gone.location(), format!("/apps/{id}?done=ruled"));
    assert!(!world.may(2, &id).await);
    for back in ["//evil.example", "https://evil.example", "/apps//evil"] {
        world.form("/rules", &rule).await;
        let rules =
            world.get(&user(1, "admin"), &format!("/api/user-access-rules?applicationId={id}")).await.json();
        let rule = rules["rules"][0]["id"].to_string();
        let to = world.form("/rules/delete", &[("id", &rule), ("back", back)]).await.location().to_owned();
        assert_eq!(to, "/users?done=ruled", "{back}");
    }
    assert_eq!(world.form("/users/2", &[("username", "zoë")]).await.location(), "/users?done=renamed");
    let own = world.form("/users/1/delete", &[]).await;
    assert!(own.status == StatusCode::BAD_REQUEST && own.text.contains("removes themselves"), "{}", own.text);
    world.deliver();
    assert_eq!(world.form("/users/2/signout", &[]).await.location(), "/users?done=signout");
    assert_eq!(world.facade.revoked().await, 2);
    assert_eq!(world.form("/users/2/delete", &[]).await.location(), "/users?done=deleted");
}

#[tokio::test]
async fn the_audit_page_tells_what_was_done_here_and_by_the_platform() {
    let world = world().await;
    world.now.fetch_add(60, Ordering::Relaxed);
    world.shop().await;
    let page = world.get(&user(1, "admin"), "/audit").await;
    for part in ["new app", "Shop at shop", "install", "192.0.2.1"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    let pushed = json!({ "instanceId": "0b-1", "appId": "debug-notes", "displayName": "Notes", "hostName": "notes", "by": "admin" });
    assert_eq!(world.post(&caller("@debug-api"), "/internal/adopt", pushed).await.status, StatusCode::OK);
    let rule = json!({ "type": "CreateUserAccessRule", "applicationId": "0b-1", "ruleType": "DENY", "subjectType": "USER", "subjectId": 1 });
    assert_eq!(world.publish("rule", rule).await.status, StatusCode::OK);
    assert_eq!(world.form("/apps/0b-1/delete", &[]).await.location(), "/?done=deleted");
    let page = world.get(&user(1, "admin"), "/audit").await;
    for part in ["Notes at notes, package debug-notes, with a rule for one user", "admin may not open Notes"]
    {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
}

#[tokio::test]
async fn pages_run_no_script_but_their_own_and_forms_lead_home_or_to_login() {
    let world = world().await;
    let page = world.get(&user(1, "admin"), "/").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("script-src 'self'")
            && policy.ends_with("form-action 'self' https://login.x.localhost:8443"),
        "{policy}"
    );
    assert!(
        !page.text.contains("onclick") && !page.text.contains("style=\"") && !page.text.contains("<script>")
    );
    for (mark, kind) in
        [("src=\"/public/script.js", "text/javascript"), ("href=\"/public/style.css", "text/css")]
    {
        let (_, rest) = page.text.split_once(mark).unwrap();
        let path = format!("{}{}", mark.split('"').nth(1).unwrap(), rest.split('"').next().unwrap());
        assert!(
            world.get(&user(1, "admin"), &path).await.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with(kind)
        );
    }
}

#[tokio::test]
async fn an_app_is_open_to_everybody_until_somebody_says_that_it_is_not_and_its_page_warns_of_it() {
    let world = world().await;
    let fields = [("displayName", "Shop"), ("appId", "shop"), ("hostName", "shop")];
    let path = world.form("/apps", &fields).await.location().split('?').next().unwrap().to_owned();
    let listed = async || world.get(&caller("@provider"), "/api/applications").await.text;
    let warns = async || world.get(&user(1, "admin"), &path).await.text.contains("where its /api needs one");
    assert!(!listed().await.contains("\"signIn\":true") && warns().await);
    world.form(&path, &[&fields[..], &[("signIn", "yes")]].concat()).await;
    assert!(listed().await.contains("\"signIn\":true") && !warns().await);
    let id = path.rsplit('/').next().unwrap();
    let event =
        json!({ "type": "UpdateApplication", "instanceId": id, "appId": "shop", "hostName": "store" });
    assert_eq!(world.publish("u", event).await.status, StatusCode::OK);
    assert!(
        listed().await.contains("\"signIn\":true"),
        "a client that does not know of it changes nothing about it"
    );
    world.form(&path, &fields).await;
    assert!(!listed().await.contains("\"signIn\":true"));
}

const SHOP: [(&str, &str); 3] = [("displayName", "Shop"), ("appId", "shop"), ("hostName", "shop")];
const TERMS: [(&str, &str); 9] = [
    ("callers", "till\r\nconfigured-1"),
    ("internalCallers", ""),
    ("cors", "https://Shop.example, http://localhost:5173"),
    ("memory", "64"),
    ("cpu", ""),
    ("processes", "32"),
    ("files", ""),
    ("data", "2 GiB"),
    ("tmp", ""),
];

impl World {
    /// A till, and a shop that it may call: the till's id, and the path of the shop's page.
    async fn shop_with_terms(&self) -> (String, String) {
        let path = |made: Answer| made.location().split('?').next().unwrap().to_owned();
        let till =
            self.form("/apps", &[("displayName", "Till"), ("appId", "till"), ("hostName", "till")]).await;
        let shop = path(self.form("/apps", &SHOP).await);
        let said = self.form(&shop, &[&SHOP[..], &TERMS].concat()).await;
        assert!(said.location().ends_with("done=updated"), "{}", said.text);
        (path(till).rsplit('/').next().unwrap().to_owned(), shop)
    }

    /// The shop as the provider reads it.
    async fn shop_listed(&self) -> Value {
        let list = self.get(&caller("@provider"), "/api/applications").await.json();
        list["applications"].as_array().unwrap().iter().find(|app| app["hostName"] == "shop").unwrap().clone()
    }
}

#[tokio::test]
async fn who_may_call_an_app_and_what_it_may_use_is_said_on_its_page_and_listed_for_the_provider() {
    let world = world().await;
    let (till, path) = world.shop_with_terms().await;
    let app = world.shop_listed().await;
    let limits = json!({ "memoryBytes": 64 << 20, "processes": 32, "dataBytes": 2_u64 << 30 });
    assert_eq!((&app["callers"], &app["limits"]), (&json!([till, "configured-1"]), &limits));
    assert_eq!(app["cors"], json!(["https://shop.example", "http://localhost:5173"]));
    assert!(app.get("internalCallers").is_none(), "only what is said is listed");
    let page = world.get(&user(1, "admin"), &path).await.text;
    for shown in ["<details open>", ">till\nconfigured-1</textarea>", "value=\"64 MiB\"", "value=\"2 GiB\""] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    for (field, nonsense) in
        [("memory", "much"), ("memory", "1 MiB"), ("cpu", "-1"), ("callers", "a/b"), ("cors", "*")]
    {
        let fields = TERMS.map(|(name, value)| (name, if name == field { nonsense } else { value }));
        let refused = world.form(&path, &[&SHOP[..], &fields].concat()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{field}: {nonsense}");
    }
}

#[tokio::test]
async fn a_caller_whose_id_is_the_host_name_of_another_app_stays_who_it_is_when_the_page_is_saved() {
    let world = world().await;
    let (till, path) = world.shop_with_terms().await;
    let twin = [("displayName", "Twin"), ("appId", "twin"), ("hostName", "configured-1")];
    let twin = world.form("/apps", &twin).await.location().split('?').next().unwrap().to_owned();
    let twin = twin.rsplit('/').next().unwrap();
    let save = async |callers: &str, internal: &str| {
        let said = [("callers", callers), ("internalCallers", internal)];
        assert_eq!(world.form(&path, &[&SHOP[..], &said].concat()).await.status, StatusCode::SEE_OTHER);
        let app = world.shop_listed().await;
        (app["callers"].clone(), app["internalCallers"].clone())
    };
    let kept = json!([till, "configured-1"]);
    assert_eq!(save("till\nconfigured-1", "configured-1").await, (kept.clone(), json!(["configured-1"])));
    let both = (kept, json!(["configured-1", twin]));
    assert_eq!(save("till\nconfigured-1", &format!("configured-1\n{twin}")).await, both);
    let page = world.get(&user(1, "admin"), &path).await.text;
    let shown = format!(">configured-1\n{twin}</textarea>");
    assert!(page.contains(&shown), "a name that would mean another is not shown: {page}");
    assert_eq!(save("till", "").await.0, json!([till]));
    assert_eq!(save("configured-1", "").await.0, json!([twin]), "where no id is kept it is a host name");
}

#[tokio::test]
async fn what_a_client_does_not_say_of_callers_and_limits_stays_and_changes_are_on_record() {
    let world = world().await;
    let (till, path) = world.shop_with_terms().await;
    let before = world.shop_listed().await;
    world.form(&path, &SHOP).await;
    assert_eq!(world.shop_listed().await, before);
    let id = path.rsplit('/').next().unwrap();
    let event = json!({ "type": "UpdateApplication", "instanceId": id, "appId": "shop", "hostName": "shop", "callers": [] });
    assert_eq!(world.publish("u", event).await.status, StatusCode::OK);
    let after = world.shop_listed().await;
    assert_eq!((after.get("callers"), &after["limits"]), (None, &before["limits"]));
    let events = world.admin.db.run(|tx| Ok::<_, Refusal>(store::events(tx, 4)?)).await.unwrap();
    let said = |at: usize| serde_json::from_str::<Value>(&events[at].said).unwrap()["terms"].clone();
    assert_eq!((&said(0)["callers"], &said(0)["limits"]), (&json!([]), &before["limits"]));
    assert_eq!((said(1), &said(2)["callers"]), (Value::Null, &json!([till, "configured-1"])));
}

#[tokio::test]
async fn what_all_apps_say_of_their_callers_is_bounded() {
    let world = world().await;
    let path = "UPDATE application SET terms = json_object('callers', json_array(?1)) WHERE app_id = 'login'";
    let filled = world.admin.db.run(move |tx| {
        Ok::<_, Refusal>(tx.execute(path, ["x".repeat(usize::try_from(terms::ALL_MAX).unwrap())])?)
    });
    filled.await.unwrap();
    let event = json!({ "type": "CreateApplication", "appId": "shop", "hostName": "shop", "callers": ["a"] });
    let refused = world.publish("c", event).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("too much"), "{}", refused.text);
}
