//! Debug applications come and go: those that nobody asks about expire, after a warning, and those that become permanent are the admin
//! app's from then on, with the instance, the release and the data that they had.

use http::Method;
use nexushub_e2e::{
    Answer, Platform, accounts::Accounts, package::Package, soon, until, upload::Developer, workshop,
};
use serde_json::{Value, json};

use crate::push::runs_at;

/// Apps without boxes, of developers and of the admin app alike; of the first those that nobody asks about don't live long.
const BRIEF: &str = "
[debug-api]
driver = \"process\"
expiry_s = 40
expiry_warning_s = 20
[provider]
dynamic_driver = \"process\"
";

async fn promote(developer: &Developer, id: &str, wish: &Value) -> Answer {
    let path = format!("/debug/application/{id}/install-package");
    developer.call(Method::POST, &path, "application/json", wish.to_string()).await
}

/// What the audit log says was done to an application.
fn noted(platform: &Platform, id: &str) -> Vec<String> {
    let output = workshop::nexushub(platform.home.path(), &["audit", "--tail", "1000", "-o", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_it = entries.filter(|entry| entry["object"] == id && entry["daemon"] == "debug-api");
    of_it.map(|entry| entry["what"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_application_outlives_its_debug_days_and_ends_with_its_entry_in_the_admin_app() {
    let accounts = Accounts::start(BRIEF).await;
    let (platform, developer) = (&accounts.platform, accounts.platform.developer());
    let asks = b"[env]\nSHOP = \"open\"\n";
    let package = Package::probe().file("static/page.txt", b"one").file("nexushub.toml", asks).bytes();
    let id = developer.push("shop", &package).await;
    developer.until(&id, "running").await; // to ask keeps it alive
    let first = runs_at(platform, "shop.debug", None).await;
    let promoted = promote(&developer, &id, &json!({ "displayName": "The shop" })).await;
    assert_eq!(promoted.status, 200, "{}", promoted.text());
    assert_eq!(
        (&promoted.json()["hostName"], &promoted.json()["applicationId"]),
        (&json!("shop"), &json!(id))
    );
    let brief = developer.push("brief", &package).await;
    let app = runs_at(platform, "shop", None).await;
    assert_eq!((app.id.as_str(), &app.release), (id.as_str(), &first.release));
    let starts = platform.https().post("shop", "/public/sh", "cat $NEXUSHUB_DATA/starts").await.text();
    assert!(starts.contains(&first.pid.to_string()) && starts.contains(&app.pid.to_string()), "{starts}");
    let given = platform.https().post("shop", "/public/sh", "echo $SHOP").await.text();
    assert!(given.contains("open"), "what its package asks for: {given}");
    assert_eq!(developer.post(&id, "/stop").await.status, 409, "it is the admin app's");
    assert_eq!(developer.delete(&id).await.status, 409);

    soon("the other one expires", async {
        while developer.list().await.iter().any(|one| one["id"] == brief.as_str()) {}
    })
    .await;
    let last = ["application.expiring".to_owned(), "application.expire".to_owned()];
    until("that is noted", || noted(platform, &brief).ends_with(&last).then_some(())).await;
    assert_eq!(platform.https().get("shop", "/page.txt").await.text(), "one", "the permanent one goes on");

    let bearer = accounts.bearer().await;
    let gone = json!({ "type": "DeleteApplication", "instanceId": id });
    accounts.publish(&bearer, "1", &gone).await;
    developer.until(&id, "stopped").await;
    soon("it may be deleted", async { while developer.delete(&id).await.status == 409 {} }).await;
    assert!(developer.list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_admin_app_nothing_becomes_permanent_and_the_answer_says_why() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.push("shop", &Package::probe().bytes()).await;
    let refused = promote(&developer, &id, &json!({})).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("provider.follow_admin"), "{}", refused.text());
    runs_at(&platform, "shop.debug", None).await;
    assert_eq!(developer.delete(&id).await.status, 204, "it is a debug application still");
}
