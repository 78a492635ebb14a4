//! Apps that speak gRPC, over HTTPS: calls of every kind, their status, and a deploy that cuts none of them.

use std::fs;

use hyper_util::rt::TokioIo;
use nexushub_e2e::{App, Failure, Https, Options, Platform, Process, Protocol, UNHURRIED, soon, workshop};
use nexushub_proto::{
    procmgr::InstanceStatus,
    provider::{self, Instance, Route},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, ServerReflectionResponse, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    },
    v1alpha,
};

const SHOP: &str = "shop";

/// The app, of this version.
fn shop(platform: &Platform, version: &str) -> Instance {
    let release = platform.home.path().join("releases").join("grpc");
    let program = release.join("bin/app");
    if !program.exists() {
        fs::create_dir_all(release.join("bin")).unwrap();
        workshop::install(&workshop::program("nexushub-probe-grpc"), &program);
    }
    let route = Route { protocol: provider::Protocol::H2c.into(), ..Default::default() };
    let app = App::named(SHOP).env("VERSION", version);
    Instance { release: release.display().to_string(), route: Some(route), ..platform.instance(&app) }
}

/// A connection over TLS to the proxy.
fn channel(https: &Https) -> Channel {
    let authority = https.authority(SHOP);
    let https = https.clone();
    let connect = tower::service_fn(move |_| {
        let https = https.clone();
        async move {
            let stream = https.tls(SHOP, &[b"h2"]).await;
            stream.map(TokioIo::new).map_err(|failure: Failure| std::io::Error::other(format!("{failure:?}")))
        }
    });
    Endpoint::from_shared(format!("http://{authority}")).unwrap().connect_with_connector_lazy(connect)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

/// A call in which both sides speak in turn.
struct Talk {
    say: mpsc::UnboundedSender<ServerReflectionRequest>,
    hear: Streaming<ServerReflectionResponse>,
}

impl Talk {
    async fn begin(channel: Channel) -> Self {
        let (say, said) = mpsc::unbounded_channel();
        let asked = UnboundedReceiverStream::new(said);
        let mut client = ServerReflectionClient::new(channel);
        let hear = soon("a call", client.server_reflection_info(asked)).await.unwrap();
        Self { say, hear: hear.into_inner() }
    }

    async fn turn(&mut self) {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        self.say.send(ServerReflectionRequest { host: String::new(), message_request }).unwrap();
        let heard = soon("an answer", self.hear.message()).await.unwrap().unwrap();
        assert!(heard.message_response.is_some());
    }

    async fn ends_well(mut self) {
        drop(self.say);
        assert!(soon("the end", self.hear.message()).await.unwrap().is_none());
    }
}

async fn is_serving(answer: &mut Streaming<HealthCheckResponse>) {
    let first = soon("a message", answer.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_reach_an_app_that_speaks_nothing_but_http2() {
    let platform = Platform::start();
    platform.put(shop(&platform, "1")).await.unwrap();
    platform.running(SHOP).await;
    let https = platform.https();
    let mut health = HealthClient::new(channel(&https));
    let one = soon("a unary call", health.check(of("shop"))).await.unwrap().into_inner();
    assert_eq!(one.status(), ServingStatus::Serving);
    let status = soon("a unary call", health.check(of("nobody"))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    is_serving(&mut health.watch(of("shop")).await.unwrap().into_inner()).await;
    let mut talk = Talk::begin(channel(&https)).await;
    for _ in 0..3 {
        talk.turn().await;
    }
    talk.ends_well().await;
    let mut older = v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&https));
    let unknown = soon("a call", older.server_reflection_info(tokio_stream::iter([]))).await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    let request = http::Request::get("/").body(http_body_util::Full::default()).unwrap();
    let answer = https.send(Protocol::Http1, SHOP, request).await.unwrap();
    assert_eq!(answer.header("grpc-status"), "12", "a browser gets what the app says to it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_cuts_no_stream_of_the_old_generation_and_waits_for_their_end() {
    let platform = Platform::start_with(&Options::with(UNHURRIED));
    platform.put(shop(&platform, "1")).await.unwrap();
    let old = platform.running(SHOP).await;
    let process = Process::open(old.pid).unwrap();
    let https = platform.https();
    let mut talk = Talk::begin(channel(&https)).await;
    talk.turn().await;
    let mut watch = HealthClient::new(channel(&https)).watch(of("shop")).await.unwrap().into_inner();
    is_serving(&mut watch).await;
    platform.put(shop(&platform, "2")).await.unwrap();
    let took_its_place = |now: &InstanceStatus| now.generation > old.generation && now.routed;
    platform.instance_until(SHOP, "is deployed", took_its_place).await;
    let mut health = HealthClient::new(channel(&https));
    for _ in 0..20 {
        talk.turn().await;
        let answer = soon("a call", health.check(of("shop"))).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert!(!process.has_ended(), "streams are open");
    talk.ends_well().await;
    drop(watch);
    let alone = |now: &InstanceStatus| now.draining.is_empty() && now.routed;
    platform.instance_until(SHOP, "is one generation", alone).await;
    assert!(process.ended_within(nexushub_e2e::HANG));
}
