//! A deploy costs nobody a request: the old generation goes on until the new one answers, and then until what it has in hand is
//! done. With `NEXUSHUB_SCALE` it is
//! two hundred deploys and twenty upgrades of the proxy, at a thousand requests a second.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use nexushub_e2e::{
    App, FORGIVING, HANG, Https, Load, Options, Platform, Process, Protocol, Signal, UNHURRIED, rounds_up_to,
    soon, until, workshop,
};
use nexushub_proto::{
    procmgr::{InstanceStatus, RestartInstanceRequest, State, procmgr_service_client::ProcmgrServiceClient},
    provider::{Deploy, Driver, Health, Instance},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

const SHOP: &str = "shop";
const NEIGHBOUR: &str = "neighbour";
/// A WebSocket that is open.
struct Socket(TokioIo<Upgraded>);

impl Socket {
    async fn open(https: &Https, host: &str) -> Self {
        let mut connection = https.open(Protocol::Http1, host).await.unwrap();
        let request = Request::get("/ws").header("connection", "upgrade").header("upgrade", "websocket");
        let request = request
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let answer = connection.begin(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        Self(TokioIo::new(hyper::upgrade::on(answer).await.unwrap()))
    }

    /// Says a short text, which comes back.
    async fn echoes(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap();
        let masked_by_nothing = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
        self.0.write_all(&masked_by_nothing).await.unwrap();
        let mut back = vec![0; 2 + text.len()];
        soon("the echo of a WebSocket", self.0.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, [&[0x81, length], text.as_bytes()].concat());
    }
}

/// A stream of events that is open.
struct Events(Incoming);

impl Events {
    async fn open(https: &Https, host: &str, key: &str) -> Self {
        let mut connection = https.open(Protocol::Http2, host).await.unwrap();
        let request = Request::get(format!("/sse?key={key}")).body(Full::default()).unwrap();
        let mut events = Self(connection.begin(request).await.unwrap().into_body());
        events.next("1").await;
        events
    }

    async fn next(&mut self, number: &str) {
        let frame = soon("an event", self.0.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("data: {number}\n\n"));
    }

    /// Nothing came, no end either.
    async fn is_open(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.0.frame() => false,
            () = std::future::ready(()) => true,
        }
    }
}

/// A request whose body is half sent.
struct Halfway(TlsStream<TcpStream>);

impl Halfway {
    /// Once its body is asked for, the request is in an app's hand.
    async fn open(https: &Https, host: &str) -> Self {
        let mut stream = https.tls(host, &[b"http/1.1"]).await.unwrap();
        let host = https.authority(host);
        let head = format!(
            "POST /echo HTTP/1.1\r\nhost: {host}\r\ncontent-length: 8\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut asked = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        soon("the body is asked for", stream.read_exact(&mut asked)).await.unwrap();
        assert!(asked.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&asked));
        stream.write_all(b"half").await.unwrap();
        stream.flush().await.unwrap();
        Self(stream)
    }

    async fn ends_well(mut self) {
        self.0.write_all(b"way!").await.unwrap();
        let mut answer = Vec::new();
        // What comes after the answer says nothing about it.
        let _ = soon("the answer", self.0.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("halfway!"), "{answer}");
    }
}

/// Two apps under load, one of which is deployed again and again.
struct Scene {
    platform: Platform,
    https: Https,
    loads: [Load; 2],
    deploys: usize,
    driver: Driver,
}

impl Scene {
    async fn set() -> Self {
        Self::set_with(&Options::with(&format!("{FORGIVING}{UNHURRIED}")), Driver::Process).await
    }

    async fn set_with(options: &Options, driver: Driver) -> Self {
        let platform = Platform::start_with(options);
        for name in [SHOP, NEIGHBOUR] {
            platform.put(platform.instance(&App::named(name).within(driver))).await.unwrap();
            platform.running(name).await;
        }
        let https = platform.https();
        // Each client asks forty times a second.
        let loads = [(SHOP, rounds_up_to(4, 40)), (NEIGHBOUR, 4)];
        let loads = loads.map(|(name, kept)| Load::start(&https, name, kept, 2));
        loads[0].goes_on(20).await;
        Self { platform, https, loads, deploys: 0, driver }
    }

    /// The next version of the app: another release, and it knows its number.
    fn next(&mut self) -> Instance {
        self.deploys += 1;
        let release = self.platform.release(if self.deploys.is_multiple_of(2) { "even" } else { "odd" });
        let app = App::named(SHOP).within(self.driver).env("VERSION", &self.deploys.to_string());
        Instance { release: release.display().to_string(), ..self.platform.instance(&app) }
    }

    /// Waits until a version is the one that answers.
    async fn deployed(&self, old: &InstanceStatus, wanted: &Instance) -> InstanceStatus {
        let took_its_place = |now: &InstanceStatus| {
            now.generation > old.generation && now.routed && now.release == wanted.release
        };
        let now = self.platform.instance_until(SHOP, "is deployed", took_its_place).await;
        // The table follows in a moment, and the old generation answers until then.
        let version = async {
            loop {
                let answer = self.https.get(SHOP, "/").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                if answer.json()["env"]["VERSION"].as_str() == wanted.env.get("VERSION").map(String::as_str) {
                    return;
                }
            }
        };
        soon("the new version answers", version).await;
        now
    }

    async fn deploy(&mut self) -> InstanceStatus {
        let (old, wanted) = (self.platform.running(SHOP).await, self.next());
        self.platform.put(wanted.clone()).await.unwrap();
        self.deployed(&old, &wanted).await
    }

    /// Waits until one generation is all that lives of the app.
    async fn settled(&self) -> InstanceStatus {
        let alone = |now: &InstanceStatus| now.draining.is_empty() && now.next.is_none() && now.routed;
        self.platform.instance_until(SHOP, "is one generation", alone).await
    }

    /// Ends the load: nothing of it was lost.
    async fn end(self) {
        let platform = self.platform;
        for load in self.loads {
            load.goes_on(5).await;
            let tally = load.stop().await;
            println!("figure: {} requests, {:.0} a second", tally.ok, tally.rate);
            assert_eq!((tally.failed(), tally.retried), (0, 0), "{tally:?}");
        }
        assert_eq!(platform.running(NEIGHBOUR).await.generation, 1, "the neighbour was left alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deploys_under_load_lose_no_request_and_cut_nothing_that_is_open() {
    deploy_under_load(Scene::set().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploys_of_an_app_in_a_box_lose_no_request_and_cut_nothing_either() {
    let options = Options::with(&format!("{FORGIVING}{UNHURRIED}"));
    deploy_under_load(Scene::set_with(&options, Driver::Sandbox).await).await;
}

async fn deploy_under_load(mut scene: Scene) {
    let https = scene.https.clone();
    let mut neighbour = (Socket::open(&https, NEIGHBOUR).await, Events::open(&https, NEIGHBOUR, "n").await);
    for round in 1..=rounds_up_to(20, 200) {
        let halfway = Halfway::open(&https, SHOP).await;
        let mut own = (Socket::open(&https, SHOP).await, Events::open(&https, SHOP, "s").await);
        scene.deploy().await;
        own.0.echoes("on the old generation").await;
        assert!(own.1.is_open().await);
        halfway.ends_well().await;
        neighbour.0.echoes("on another app").await;
        https.get(NEIGHBOUR, "/go?key=n").await;
        neighbour.1.next(&(round + 1).to_string()).await;
    }
    drop(neighbour);
    scene.settled().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_generation_ends_when_what_it_had_in_hand_is_done_and_not_before() {
    let mut scene = Scene::set().await;
    let old = scene.platform.running(SHOP).await;
    let process = Process::open(old.pid).unwrap();
    let mut socket = Socket::open(&scene.https, SHOP).await;
    let now = scene.deploy().await;
    assert_eq!(now.draining.iter().map(|one| one.generation).collect::<Vec<_>>(), [old.generation]);
    scene.loads[0].goes_on(50).await;
    assert!(!process.has_ended(), "its WebSocket is open");
    socket.echoes("still here").await;
    drop(socket);
    scene.settled().await;
    assert!(process.ended_within(HANG));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_asked_for_costs_nothing_either() {
    let scene = Scene::set().await;
    let old = scene.platform.running(SHOP).await;
    let mut procmgr = ProcmgrServiceClient::new(scene.platform.operate("procmgr"));
    procmgr.restart_instance(RestartInstanceRequest { id: SHOP.into() }).await.unwrap();
    let again = |now: &InstanceStatus| now.generation > old.generation && now.routed;
    scene.platform.instance_until(SHOP, "is restarted", again).await;
    scene.settled().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_never_gets_healthy_leaves_the_old_one_serving_and_says_why() {
    let mut scene = Scene::set().await;
    let old = scene.platform.running(SHOP).await;
    let impatient = Health { start_deadline_ms: 300, ..Health::default() };
    let crashing = App::named(SHOP).env("PROBE_CRASH", "7");
    let mute = App::named(SHOP).env("PROBE_MUTE", "1").health(impatient);
    for (broken, why, said) in [
        (crashing, "exited with code 7", "probe: told to crash"),
        (mute, "did not answer before the start deadline", ""),
    ] {
        scene.platform.put(scene.platform.instance(&broken)).await.unwrap();
        let failed = |now: &InstanceStatus| {
            now.next.as_ref().is_some_and(|next| next.state() == State::Failed && next.reason.contains(why))
        };
        let now = scene.platform.instance_until(SHOP, "could not be deployed", failed).await;
        assert!(now.routed && now.pid == old.pid && now.reason.contains(why), "{now:?}");
        assert_eq!(now.last_words, said, "what the failed start said, and no other");
        assert!(now.next.unwrap().retry_unix_ms > 0, "it is tried again");
        scene.loads[0].goes_on(20).await;
    }
    let repaired = scene.deploy().await;
    assert_ne!(repaired.pid, old.pid);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn procmgr_may_be_killed_at_any_step_of_a_deploy() {
    let mut scene = Scene::set().await;
    for round in 0..rounds_up_to(6, 60) {
        let mut socket = Socket::open(&scene.https, SHOP).await;
        let (old, wanted) = (scene.platform.running(SHOP).await, scene.next());
        scene.platform.put(wanted.clone()).await.unwrap();
        let reached = |now: &InstanceStatus| match round % 3 {
            0 => true,
            1 => now.next.is_some() || now.generation > old.generation,
            _ => !now.draining.is_empty(),
        };
        scene.platform.instance_until(SHOP, "is on its way", reached).await;
        scene.platform.kill("procmgr").await;
        scene.deployed(&old, &wanted).await;
        socket.echoes("on the old generation").await;
        drop(socket);
    }
    let last = scene.settled().await;
    // A start that was cut off may still be ending; a second one of an app would never end.
    let alone = |alive: Vec<u32>| alive.contains(&last.pid) && alive.len() == 2;
    until("one of each app is left", || alone(scene.platform.app_processes()).then_some(())).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_must_not_run_twice_is_replaced_and_its_requests_wait() {
    let scene = Scene::set_with(&Options::with("[proxy]\nhold_ms = 600000\n"), Driver::Process).await;
    let old = Process::open(scene.platform.running(SHOP).await.pid).unwrap();
    let alone = App::named(SHOP).env("VERSION", "alone");
    let alone = Instance { deploy: Deploy::Replace.into(), ..scene.platform.instance(&alone) };
    scene.platform.put(alone).await.unwrap();
    let new =
        scene.platform.instance_until(SHOP, "is replaced", |now| now.routed && now.pid != old.pid).await;
    assert!(old.has_ended() && new.draining.is_empty() && new.next.is_none());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_must_not_run_twice_finishes_what_it_has_in_hand_first() {
    let patient = format!(
        "[procmgr]\nreplace_drain_ms = 600000\ndrain_ms = 600000\n{FORGIVING}[proxy]\nhold_ms = 600000\n"
    );
    let platform = Platform::start_with(&Options::with(&patient));
    let alone = |version: &str| {
        let app = App::named(SHOP).env("VERSION", version);
        Instance { deploy: Deploy::Replace.into(), ..platform.instance(&app) }
    };
    platform.put(alone("1")).await.unwrap();
    let old = Process::open(platform.running(SHOP).await.pid).unwrap();
    let https = platform.https();
    let halfway = Halfway::open(&https, SHOP).await;
    platform.put(alone("2")).await.unwrap();
    platform.instance_until(SHOP, "finishes", |now| !now.routed && now.draining.len() == 1).await;
    let waits = tokio::spawn({
        let https = https.clone();
        async move { https.get(SHOP, "/").await.status }
    });
    halfway.ends_well().await;
    assert_eq!(waits.await.unwrap(), 200);
    assert!(old.has_ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_of_the_proxy_under_load_lose_no_request_and_cut_nothing_that_is_open() {
    let programs = tempfile::Builder::new().prefix("nhbin").tempdir_in("/tmp").unwrap();
    workshop::copy_programs(programs.path());
    let patient = format!("{FORGIVING}{UNHURRIED}drain_idle_ms = 30000\n"); // the last table is the proxy's
    let mut scene = Scene::set_with(
        &Options { programs: programs.path().to_owned(), ..Options::with(&patient) },
        Driver::Process,
    )
    .await;
    let https = scene.https.clone();
    for round in 0..rounds_up_to(4, 20) {
        let (halfway, key) = (Halfway::open(&https, SHOP).await, format!("u{round}"));
        let mut open = (Socket::open(&https, SHOP).await, Events::open(&https, NEIGHBOUR, &key).await);
        let old = scene.platform.daemon("proxy").await;
        workshop::rebuild(&programs.path().join("nexushub-proxy"));
        scene.platform.supervisor().signal(Signal::HUP);
        scene.platform.replaced("proxy", old.pid).await;
        scene.loads[0].goes_on(20).await;
        open.0.echoes("by the old proxy").await;
        https.get(NEIGHBOUR, &format!("/go?key={key}")).await;
        open.1.next("2").await;
        halfway.ends_well().await;
        drop(open);
        scene.platform.await_ready();
        assert!(old.ended_within(HANG), "it has nothing left to do");
    }
    for load in scene.loads {
        load.goes_on(5).await;
        let tally = load.stop().await;
        println!("figure: {} requests, {:.0} a second, {} sent again", tally.ok, tally.rate, tally.retried);
        assert_eq!((tally.failed(), tally.retried), (0, 0), "{tally:?}");
    }
}
