//! An admin app that lies: wrong, huge, endless, half a list, types that none has, and what contradicts itself. The last good state
//! runs on, over a restart of whoever was lied to, and the truth is heard after it. And what it may say besides: callers and limits.

use http::{Method, Request};
use http_body_util::Full;
use nexushub_e2e::{
    Admin, Platform, Protocol,
    admin::{ADMIN, Manner, list},
    package::Package,
    soon,
};
use nexushub_proto::{procmgr::InstanceStatus, provider::ListInstancesResponse};
use serde_json::{Value, json};

/// A platform that follows an admin app which has one shop, which runs.
async fn with_a_shop() -> (Platform, Admin, InstanceStatus) {
    let (platform, admin) = Admin::followed().await;
    admin.lists(&[("shop", "shop-app", "shop")]);
    platform.asked_until("the shop waits", |asked| asked.waiting.iter().any(|one| one.id == "shop")).await;
    let package = Package::probe().bytes();
    let (status, said) = platform.facade(Method::POST, "instances/shop/package", package).await;
    assert_eq!(status, 200, "{said}");
    let shop = platform.running("shop").await;
    (platform, admin, shop)
}

/// The shop is the same process, and answers at its name.
async fn is_unharmed(platform: &Platform, shop: &InstanceStatus, after: &str) {
    let now = platform.instance_now("shop").await.unwrap_or_else(|| panic!("no shop after {after}"));
    assert_eq!((now.pid, &now.host_name), (shop.pid, &shop.host_name), "{after}");
    assert_eq!(platform.https().get("shop", "/").await.json()["pid"], shop.pid, "{after}");
}

/// The truth, which is heard after every lie.
async fn tells_the_truth(platform: &Platform, admin: &Admin, shop: &InstanceStatus) {
    admin.lists(&[("shop", "shop-app", "store"), ("two", "shop-app", "two")]);
    platform.kill("provider").await; // it is asked at once, and not when the wait after the last lie is over
    platform.running("two").await;
    platform.answers_as("store", shop.pid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_none_or_does_not_come_whole_changes_nothing_whoever_is_asked_again() {
    let (platform, admin, shop) = with_a_shop().await;
    let good = list(&[("two", "shop-app", "two")]);
    let begun = good[..good.len() - 2].to_owned();
    let many = "{\"instanceId\":\"x\"},".repeat(10_000);
    for (what, text, manner) in [
        ("an error page", "<html>".to_owned(), Manner::Whole),
        ("nothing", String::new(), Manner::Whole),
        ("a list of another name", r#"{"apps":[]}"#.to_owned(), Manner::Whole),
        ("no list", r#"{"applications":{"shop":null}}"#.to_owned(), Manner::Whole),
        ("a list that stops in its middle", begun.clone(), Manner::Whole),
        ("half a list", begun.clone(), Manner::Half),
        ("a list with a second one behind it", format!("{good}{good}"), Manner::Whole),
        ("more than there may be", format!("{{\"applications\":[{many}1]}}"), Manner::Whole),
        ("a list without an end", begun.clone(), Manner::Endless),
        ("a list that is never done", begun, Manner::Never),
    ] {
        admin.says_in(text, manner);
        platform.kill("provider").await;
        let in_trouble = |asked: &ListInstancesResponse| {
            asked.admin.as_ref().is_some_and(|admin| !admin.trouble.is_empty())
        };
        let asked = platform.asked_until(&format!("{what} is told"), in_trouble).await;
        let ids: Vec<&str> = asked.instances.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, [ADMIN, "shop"], "{what}");
        is_unharmed(&platform, &shop, what).await;
    }
    tells_the_truth(&platform, &admin, &shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_no_application_or_contradicts_itself_the_last_good_word_counts() {
    let (platform, admin, shop) = with_a_shop().await;
    let row = |more: Value| {
        let mut row = json!({ "instanceId": "shop", "appId": "shop-app", "hostName": "shop" });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let good = row(json!({}));
    for (what, rows) in [
        ("an app id that is a number", vec![row(json!({ "appId": 7 }))]),
        ("a host name that is a list", vec![row(json!({ "hostName": ["evil"] }))]),
        ("a host name that is none", vec![row(json!({ "hostName": "a b" }))]),
        ("callers that are no list", vec![row(json!({ "callers": "evil" }))]),
        ("a caller that can't be", vec![row(json!({ "internalCallers": ["../x"] }))]),
        ("an origin that stands for all", vec![row(json!({ "cors": ["*"] }))]),
        ("a limit that nothing starts with", vec![row(json!({ "limits": { "memoryBytes": 1 } }))]),
        ("a limit that is a word", vec![row(json!({ "limits": { "processes": "many" } }))]),
        ("an id that nobody can read", vec![json!({ "instanceId": 7 })]),
        ("rows of every kind but one", vec![json!(null), json!(7), json!([]), json!("shop"), json!({})]),
        ("the same id twice", vec![good.clone(), row(json!({ "hostName": "evil" }))]),
    ] {
        admin.says(json!({ "applications": rows }).to_string());
        let refused = |asked: &ListInstancesResponse| {
            asked.admin.as_ref().is_some_and(|admin| !admin.refused.is_empty())
        };
        platform.asked_until(&format!("{what} is told"), refused).await;
        is_unharmed(&platform, &shop, what).await;
        admin.says(json!({ "applications": [good] }).to_string());
        platform.asked_until(&format!("after {what} all is well"), |asked| !refused(asked)).await;
    }
    let theirs = json!({ "instanceId": "two", "appId": "shop-app", "hostName": "shop" });
    let own = json!({ "instanceId": ADMIN, "appId": "evil", "hostName": "evil" });
    admin.says(json!({ "applications": [good, theirs, own] }).to_string());
    platform.asked_until("two claim one name", |asked| !asked.conflicts.is_empty()).await;
    is_unharmed(&platform, &shop, "a claim to its name").await;
    assert_eq!(platform.https().get("evil", "/").await.status, 404, "whose host is the configuration's");
    tells_the_truth(&platform, &admin, &shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_call_an_app_and_what_it_may_use_is_as_the_admin_app_says() {
    let (platform, admin, shop) = with_a_shop().await;
    let asks = async |origin: &'static str| {
        let request = Request::options("/api/x").header("origin", origin);
        let request = request.header("access-control-request-method", "GET").body(Full::default()).unwrap();
        let answer = platform.https().send(Protocol::Http1, "shop", request).await.unwrap();
        answer.headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    let (good, evil) = ("https://good.example", "https://evil.example");
    assert_eq!(asks(good).await, None);
    let row = |more: Value| {
        let mut row = json!({ "instanceId": "shop", "appId": "shop-app", "hostName": "shop" });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "applications": [row] }).to_string()
    };
    admin.says(row(json!({ "cors": [good], "callers": ["till"], "internalCallers": ["till"] })));
    let route = |asked: &ListInstancesResponse| {
        asked
            .instances
            .iter()
            .find(|one| one.id == "shop")
            .and_then(|one| one.route.clone())
            .unwrap_or_default()
    };
    let asked = platform.asked_until("its callers are known", |asked| !route(asked).callers.is_empty()).await;
    assert_eq!(route(&asked).internal_callers, ["till"]);
    soon("scripts of that origin may ask", async { while asks(good).await.as_deref() != Some(good) {} })
        .await;
    assert_eq!(asks(evil).await, None);
    is_unharmed(&platform, &shop, "another caller").await;

    admin.says(row(json!({ "limits": { "memoryBytes": 64 << 20, "openFiles": 77, "later": true } })));
    let limits = |asked: &ListInstancesResponse| {
        asked.instances.iter().find(|one| one.id == "shop").and_then(|one| one.limits).unwrap_or_default()
    };
    let asked = platform.asked_until("its limits are known", |asked| limits(asked).open_files == 77).await;
    assert_eq!((limits(&asked).memory_bytes, limits(&asked).processes), (64 << 20, 0));
    soon("nobody else may ask any more", async { while asks(good).await.is_some() {} }).await;
}
