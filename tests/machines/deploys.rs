//! A microVM can't share its disk with its successor: a deploy replaces it, and who asks meanwhile waits.

use nexushub_e2e::{App, Load, Options, Platform};
use nexushub_proto::{
    procmgr::InstanceStatus,
    provider::{Driver, Instance, Limits},
};

use crate::microvms::SMALL;

#[tokio::test(flavor = "multi_thread")]
async fn deploys_of_an_app_in_a_microvm_under_load_lose_no_request() {
    let patient = "[procmgr]\nkrun_boot_ms = 60000\n[proxy]\nhold_ms = 600000\n";
    let platform = Platform::start_with(&Options::with(patient));
    let version = |number: usize| {
        let release = platform.release(if number.is_multiple_of(2) { "even" } else { "odd" });
        let app = App::named("shop").within(Driver::Krun).env("VERSION", &number.to_string());
        let instance = platform.instance(&app);
        Instance { release: release.display().to_string(), limits: Some(SMALL), ..instance }
    };
    platform.run_boxed("neighbour", Driver::Sandbox, Limits::default()).await;
    platform.put(version(0)).await.unwrap();
    let mut last = platform.running("shop").await;
    platform.says("shop", "echo kept > /db/mine").await;
    let loads = ["shop", "neighbour"].map(|name| Load::start(&platform.https(), name, 2, 0));
    for number in 1..=2 {
        loads[0].goes_on(5).await;
        let wanted = version(number);
        platform.put(wanted.clone()).await.unwrap();
        let deployed = |now: &InstanceStatus| {
            now.generation > last.generation && now.routed && now.release == wanted.release
        };
        last = platform.instance_until("shop", "is deployed", deployed).await;
        assert_eq!((last.driver.as_str(), last.draining.len()), ("krun", 0), "one at a time");
        let told = platform.https().get("shop", "/").await.json();
        assert_eq!(told["env"]["VERSION"], number.to_string().as_str());
    }
    for load in loads {
        load.goes_on(5).await;
        let tally = load.stop().await;
        assert_eq!(tally.failed(), 0, "{tally:?}");
    }
    assert_eq!(platform.says("shop", "cat /db/mine").await, "kept");
    assert_eq!(platform.running("neighbour").await.generation, 1, "the neighbour was left alone");
}
