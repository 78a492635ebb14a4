//! Any process of the platform may be killed at any instant, and the apps don't notice. Recovery times are printed, not
//! asserted; `NEXUSHUB_SCALE=50` makes each story fifty kills long.

use std::time::{Duration, Instant};

use nexushub_e2e::{App, DAEMONS, FORGIVING, Load, Options, Platform, Process, Tally, rounds};

/// A platform with an app under load.
struct Scene {
    platform: Platform,
    app: u32,
    load: Load,
}

impl Scene {
    async fn set() -> Self {
        let platform = Platform::start_with(&Options::with(FORGIVING));
        let app = platform.run_app(&App::named("hello")).await.pid;
        let load = Load::start(&platform.https(), "hello", 3, 2);
        load.goes_on(20).await;
        Self { platform, app, load }
    }

    /// Kills daemons at once and tells how long each took to be ready again.
    async fn kill(&self, names: &[&str]) -> Vec<Duration> {
        let mut old = Vec::new();
        for name in names {
            old.push(self.platform.daemon(name).await);
        }
        let since = Instant::now();
        for daemon in &old {
            daemon.kill();
        }
        let mut took = Vec::new();
        for (name, daemon) in names.iter().zip(&old) {
            self.platform.replaced(name, daemon.pid).await;
            took.push(since.elapsed());
        }
        self.load.goes_on(10).await;
        took
    }

    /// Ends the load; the app must be the process it was.
    async fn end(self) -> (Platform, Tally) {
        let tally = self.load.stop().await;
        assert_eq!(
            tally.pids.iter().copied().collect::<Vec<_>>(),
            [u64::from(self.app)],
            "the app's process never changes"
        );
        assert!(!Process::open(self.app).unwrap().has_ended());
        assert_eq!(self.platform.starts_of("hello"), [self.app], "the app was started once");
        assert_eq!(self.platform.running("hello").await.pid, self.app);
        (self.platform, tally)
    }
}

fn report(what: &str, mut took: Vec<Duration>, tally: &Tally) {
    took.sort();
    let (middle, most) = (took[took.len() / 2], took[took.len() - 1]);
    let lost = format!(
        "{} ok, {} in flight, {} refused, {} sent again",
        tally.ok, tally.in_flight, tally.refused, tally.retried
    );
    println!("figure: kill {what} x{}: ready again p50 {middle:.1?} max {most:.1?}; {lost}", took.len());
}

/// Kills daemons that no request passes through: nothing may be lost.
async fn costs_nothing(names: &[&str]) {
    let scene = Scene::set().await;
    let mut took = Vec::new();
    for _ in 0..rounds(3) {
        took.extend(scene.kill(names).await);
    }
    let (_platform, tally) = scene.end().await;
    report(&names.join(" and "), took, &tally);
    assert_eq!((tally.failed(), tally.retried), (0, 0), "{tally:?}");
}

/// Kills the proxy and perhaps another: what was in flight may be lost, nothing may be refused.
async fn costs_what_is_in_flight(names: &[&str]) {
    let scene = Scene::set().await;
    let (mut took, kills) = (Vec::new(), rounds(3));
    for _ in 0..kills {
        took.extend(scene.kill(names).await);
    }
    let (_platform, tally) = scene.end().await;
    report(&names.join(" and "), took, &tally);
    assert_eq!(tally.refused, 0, "{tally:?}");
    assert!(tally.other.is_empty(), "{tally:?}");
    let clients = 5;
    assert!(
        tally.in_flight <= clients * u64::try_from(kills).unwrap(),
        "no more than one for each client and kill: {tally:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_provider_costs_no_request() {
    costs_nothing(&["provider"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_procmgr_costs_no_request() {
    costs_nothing(&["procmgr"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_debug_api_costs_no_request() {
    costs_nothing(&["debug-api"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_proxy_costs_only_what_is_in_flight_and_refuses_nobody() {
    costs_what_is_in_flight(&["proxy"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_two_daemons_that_no_request_passes_through_costs_none() {
    costs_nothing(&["provider", "procmgr"]).await;
    costs_nothing(&["provider", "debug-api"]).await;
    costs_nothing(&["procmgr", "debug-api"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_proxy_and_another_refuses_nobody_and_the_last_table_serves() {
    for other in DAEMONS.into_iter().filter(|name| *name != "proxy") {
        costs_what_is_in_flight(&["proxy", other]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_supervisor_takes_its_daemons_along_and_leaves_the_app_running() {
    let mut scene = Scene::set().await;
    let mut took = Vec::new();
    for _ in 0..rounds(3) {
        let since = Instant::now();
        scene.platform.kill_supervisor().await;
        assert!(!Process::open(scene.app).unwrap().has_ended(), "the app lives on");
        scene.platform.start_supervisor();
        took.push(since.elapsed());
        for name in DAEMONS {
            scene.platform.daemon(name).await;
        }
        scene.load.goes_on(10).await;
    }
    let (platform, tally) = scene.end().await;
    report("the supervisor", took, &tally);
    assert!(tally.other.is_empty(), "what answers answers well: {tally:?}");
    drop(platform);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_supervisor_and_a_daemon_at_once_leaves_the_app_running() {
    let mut scene = Scene::set().await;
    for name in DAEMONS {
        let daemon = scene.platform.daemon(name).await;
        daemon.kill();
        scene.platform.kill_supervisor().await;
        scene.platform.start_supervisor();
        scene.load.goes_on(10).await;
    }
    let (_platform, tally) = scene.end().await;
    assert!(tally.other.is_empty(), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_secret_is_the_same_before_and_after_the_supervisors_death() {
    let mut platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let secret = platform.https().get("hello", "/").await.json()["env"]["INTERNAL_SECRET"].clone();
    let token = platform.operator("procmgr");
    platform.kill_supervisor().await;
    platform.start_supervisor();
    assert_eq!(platform.operator("procmgr"), token, "kept within one boot");
    let before = platform.running("hello").await;
    let mut procmgr = nexushub_proto::procmgr::procmgr_service_client::ProcmgrServiceClient::new(
        platform.operate("procmgr"),
    );
    let request = nexushub_proto::procmgr::RestartInstanceRequest { id: "hello".to_owned() };
    procmgr.restart_instance(request).await.unwrap();
    platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != before.pid).await;
    assert_eq!(platform.https().get("hello", "/").await.json()["env"]["INTERNAL_SECRET"], secret);
}
