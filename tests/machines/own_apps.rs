//! The platform's own apps in microVMs: what signs people in and what knows the applications work there as without a box.

use nexushub_e2e::{accounts::Accounts, until, workshop};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn login_and_admin_in_microvms_sign_somebody_in_and_register_an_app() {
    let accounts = Accounts::within("krun", "[procmgr]\nkrun_boot_ms = 60000\n").await;
    let home = accounts.platform.home.path();
    let instances = || {
        let said = workshop::nexushub(home, &["status", "-o", "json"]);
        let mut told: Value = serde_json::from_slice(&said.stdout).unwrap();
        told["instances"].take().as_array().cloned().unwrap_or_default()
    };
    let own: Vec<Value> = instances().into_iter().filter(|one| one["host_name"] != "hello").collect();
    let in_one = |one: &Value| one["driver"] == "krun" && one["state"] == "running";
    assert!(own.len() == 2 && own.iter().all(in_one), "{own:#?}");

    let wrong = accounts.log_in("admin", "a wrong one for sure", "127.0.0.1").await;
    assert_eq!(wrong.status, 401, "{}", wrong.text());
    let bearer = accounts.bearer().await;
    let shop =
        json!({ "type": "CreateApplication", "appId": "shop", "displayName": "Shop", "hostName": "shop" });
    accounts.publish(&bearer, "1", &shop).await;
    let waits = |one: &Value| one["app_id"] == "shop" && one["state"] == "no package yet";
    until("the platform knows of it", || instances().iter().any(waits).then_some(())).await;
}
