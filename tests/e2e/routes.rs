//! Which of several apps gets a request: by path, by a further name, or by turns.

use std::collections::BTreeSet;

use nexushub_e2e::{App, Platform, Process, Protocol, soon};
use nexushub_proto::provider::{Instance, Route};
use tonic::Code;

const SHOP: &str = "shop";

/// An app with the host name of the shop.
fn at_the_shop(platform: &Platform, name: &str, route: Route) -> Instance {
    Instance { host_name: SHOP.into(), route: Some(route), ..platform.instance(&App::named(name)) }
}

fn below(path: &str) -> Route {
    Route { path_prefix: path.into(), strip_prefix: true, ..Route::default() }
}

fn member() -> Route {
    Route { balance: "shops".into(), ..Route::default() }
}

/// The table follows procmgr in a moment: waits for that.
async fn answers(platform: &Platform, host: &str, path: &str) {
    let https = platform.https();
    soon("the table knows an app", async { while https.get(host, path).await.status != 200 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_share_a_host_name_by_paths_and_have_further_names() {
    let platform = Platform::start();
    let shop = platform.run_app(&App::named(SHOP)).await;
    let reports = Route { hosts: vec!["figures".into()], ..below("/reports") };
    platform.put(at_the_shop(&platform, "reports", reports)).await.unwrap();
    let reports = platform.running("reports").await;
    let https = platform.https();
    answers(&platform, "figures", "/reports/").await;
    assert_eq!(https.get(SHOP, "/reports/whoami").await.json()["pid"], reports.pid);
    assert_eq!(https.post(SHOP, "/reports/echo", "hi").await.text(), "hi", "it is asked for /echo");
    assert_eq!(https.get("figures", "/reports/").await.json()["pid"], reports.pid);
    assert_eq!(https.get(SHOP, "/").await.json()["pid"], shop.pid);
    assert_eq!(https.get("figures", "/").await.status, 404, "it has no such path");
    let taken = platform.put(at_the_shop(&platform, "other", below("/reports"))).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    assert!(taken.message().contains("shop/reports"), "{}", taken.message());
    let malformed = platform.put(at_the_shop(&platform, "other", below("reports"))).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_group_may_die_and_costs_nobody_a_request() {
    let platform = Platform::start();
    let mut all = BTreeSet::new();
    for name in ["one", "two"] {
        platform.put(at_the_shop(&platform, name, member())).await.unwrap();
        all.insert(u64::from(platform.running(name).await.pid));
    }
    let https = platform.https();
    answers(&platform, SHOP, "/").await;
    let mut connection = https.open(Protocol::Http2, SHOP).await.unwrap();
    let mut ask = async || {
        let request = http::Request::get("/").body(http_body_util::Full::default()).unwrap();
        let answer = connection.send(request).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["pid"].as_u64().unwrap()
    };
    let mut seen = BTreeSet::new();
    soon("both answer", async {
        while seen != all {
            seen.insert(ask().await);
        }
    })
    .await;
    let victim = Process::open(u32::try_from(*all.first().unwrap()).unwrap()).unwrap();
    victim.kill();
    for _ in 0..50 {
        ask().await;
    }
}
