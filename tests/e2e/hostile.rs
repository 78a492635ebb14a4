//! Garbage on every socket gets an error or a closed connection, and changes nothing.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nexushub_e2e::{
    App, DAEMONS, Failure, Platform, Protocol,
    grpc::{call_with, methods, services},
    raw::{End, insults, noise, say_tcp, say_unix},
    rounds,
};
use tonic::Code;

/// Bytes beyond what a message may have, which is 4 MiB.
const TOO_LARGE: usize = (4 << 20) + 1;

/// A platform whose processes are remembered.
struct Scene {
    platform: Platform,
    app: u32,
    daemons: BTreeMap<&'static str, u32>,
}

impl Scene {
    async fn set() -> Self {
        let platform = Platform::start();
        let app = platform.run_app(&App::named("hello")).await.pid;
        let mut daemons = BTreeMap::new();
        for name in DAEMONS {
            daemons.insert(name, platform.daemon(name).await.pid);
        }
        Self { platform, app, daemons }
    }

    /// Nothing died, nothing changed, everything still answers.
    async fn stands(&self) {
        for (name, pid) in &self.daemons {
            assert_eq!(self.platform.daemon(name).await.pid, *pid, "{name} is the process it was");
            let reads = methods(name)
                .into_iter()
                .find(|method| method.path.contains("/List") || method.path.contains("Check"))
                .unwrap();
            assert_eq!(
                call_with(self.platform.operate(name), &reads.path, Vec::new()).await,
                Code::Ok,
                "{}",
                reads.path
            );
        }
        assert_eq!(self.platform.https().get("hello", "/").await.json()["pid"], self.app);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_half_frames_on_the_unix_sockets_change_nothing() {
    let scene = Scene::set().await;
    let sockets = DAEMONS.map(|daemon| format!("{daemon}.sock"));
    for socket in sockets.iter().map(String::as_str).chain(["debug-api.http.sock", "proxy.http.sock"]) {
        for (what, bytes) in insults() {
            let end = say_unix(&scene.platform.run().join(socket), &bytes);
            assert!(matches!(end, End::Closed(_)), "{what} on {socket}: {end:?}");
        }
    }
    scene.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_https_port_before_and_after_the_handshake_changes_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let scene = Scene::set().await;
    for (what, bytes) in insults() {
        let end = say_tcp(scene.platform.address, &bytes, nexushub_e2e::HANG);
        assert!(matches!(end, End::Closed(_)), "{what} before the handshake: {end:?}");
    }
    for alpn in [b"http/1.1".as_slice(), b"h2"] {
        for (what, bytes) in insults() {
            let mut stream = scene.platform.https().tls("hello", &[alpn]).await.unwrap();
            let said = async {
                stream.write_all(&bytes).await?;
                stream.shutdown().await
            };
            nexushub_e2e::soon(what, said).await.ok(); // a peer that closes early is right to
            let mut answer = Vec::new();
            nexushub_e2e::soon(what, stream.read_to_end(&mut answer)).await.ok();
        }
    }
    scene.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_of_any_seed_on_every_socket_changes_nothing() {
    let scene = Scene::set().await;
    let seeds = u64::try_from(rounds(8)).unwrap();
    for seed in 100..100 + seeds {
        let bytes = noise(seed, usize::try_from(seed).unwrap() * 37 % 9000);
        for daemon in DAEMONS {
            let preface = [nexushub_e2e::raw::PREFACE, nexushub_e2e::raw::SETTINGS, &bytes].concat();
            say_unix(&scene.platform.run().join(format!("{daemon}.sock")), &bytes);
            say_unix(&scene.platform.run().join(format!("{daemon}.sock")), &preface);
        }
        say_unix(&scene.platform.run().join("debug-api.http.sock"), &bytes);
        say_tcp(scene.platform.address, &bytes, Duration::from_secs(30));
    }
    scene.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_calls_malformed_messages_and_oversize_ones_are_refused_with_their_code() {
    let scene = Scene::set().await;
    for daemon in DAEMONS {
        let known = services(daemon).remove(0);
        for path in [
            format!("/{known}/NoSuchMethod"),
            "/no.such.Service/Method".to_owned(),
            "/".to_owned(),
            "/x".to_owned(),
        ] {
            let code = call_with(scene.platform.operate(daemon), &path, Vec::new()).await;
            assert!(
                matches!(code, Code::Unimplemented | Code::PermissionDenied),
                "{daemon} {path}: {code:?}"
            );
        }
        for method in methods(daemon) {
            let code = call_with(scene.platform.operate(daemon), &method.path, vec![0xFF; 40]).await;
            // Reflection ends its stream without a word.
            let refused =
                matches!(code, Code::Internal | Code::InvalidArgument) || method.path.contains("Reflection");
            assert!(refused, "{daemon} {} with a malformed message: {code:?}", method.path);
            let code = call_with(scene.platform.operate(daemon), &method.path, vec![0; TOO_LARGE]).await;
            let refused = [
                Code::OutOfRange,
                Code::ResourceExhausted,
                Code::InvalidArgument,
                Code::Internal,
                Code::Unknown,
                Code::Cancelled,
            ];
            assert!(
                refused.contains(&code) || method.path.contains("Reflection"),
                "{daemon} {} with too much: {code:?}",
                method.path
            );
        }
    }
    scene.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_cannot_be_are_refused_and_nothing_is_kept_of_them() {
    type Spoil = fn(&mut nexushub_proto::provider::Instance);
    let scene = Scene::set().await;
    let spoils: [(&str, Spoil); 14] = [
        ("no id", |instance| instance.id.clear()),
        ("an id that climbs", |instance| instance.id = "../../etc".to_owned()),
        ("a long id", |instance| instance.id = "a".repeat(65)),
        ("no host name", |instance| instance.host_name.clear()),
        ("a host name with a blank", |instance| instance.host_name = "a b".to_owned()),
        ("a host name that climbs", |instance| instance.host_name = "../hello".to_owned()),
        ("a long host name", |instance| instance.host_name = "a".repeat(300)),
        ("a host name of hyphens", |instance| instance.host_name = "-.-".to_owned()),
        ("a host name of another domain", |instance| instance.host_name = "www.example.com.".to_owned()),
        ("a relative release", |instance| instance.release = "releases/x".to_owned()),
        ("a release that climbs", |instance| instance.release = "/tmp/../etc".to_owned()),
        ("a variable without a name", |instance| drop(instance.env.insert(String::new(), "x".to_owned()))),
        ("a variable with a NUL", |instance| drop(instance.env.insert("A".to_owned(), "x\0y".to_owned()))),
        ("the platform's own variable", |instance| {
            drop(instance.env.insert("INTERNAL_SECRET".to_owned(), "x".to_owned()));
        }),
    ];
    for (what, spoil) in spoils {
        let mut instance = scene.platform.instance(&App::named("bad"));
        spoil(&mut instance);
        let refusal = scene.platform.put(instance).await.expect_err(what);
        assert_eq!(refusal.code(), Code::InvalidArgument, "{what}: {refusal:?}");
        assert!(!refusal.message().is_empty(), "{what}");
    }
    let call = call_with(
        scene.platform.operate("provider"),
        "/nexushub.provider.v1.ProviderService/PutInstance",
        Vec::new(),
    )
    .await;
    assert_eq!(call, Code::InvalidArgument, "no instance at all");
    assert!(scene.platform.instance_now("bad").await.is_none());
    scene.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_names_that_are_none_get_a_client_error() {
    let scene = Scene::set().await;
    let long = "a".repeat(3000);
    let hosts = [
        "",
        " ",
        ".",
        "..",
        "-",
        "a b",
        "a..b.yesterday.localhost",
        "/etc/passwd",
        "hello.yesterday.localhost:99999",
        "[::1",
        "%00",
        "hello.yesterday.localhost.evil.example",
        "hello_.yesterday.localhost\u{e9}",
        "evil.example",
        &long,
    ];
    for host in hosts {
        let Ok(value) = http::HeaderValue::from_bytes(host.as_bytes()) else { continue };
        let mut request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
        request.headers_mut().insert("host", value);
        let answer = scene.platform.https().send(Protocol::Http1, "hello", request).await.unwrap();
        assert!(answer.status.is_client_error(), "{host:?}: {}", answer.status);
    }
    for sni in ["nobody", "nobody.debug", "internal"] {
        let answer = scene.platform.https().get(sni, "/").await;
        assert!(answer.status.is_client_error(), "{sni}: {}", answer.status);
    }
    scene.stands().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_too_much_of_anything_are_refused() {
    let scene = Scene::set().await;
    let many = |request: http::request::Builder| {
        (0..500).fold(request, |request, number| request.header(format!("x-{number}"), "y"))
    };
    let requests: [(&str, http::request::Builder); 4] = [
        ("a long path", Request::get(format!("/{}", "a".repeat(60_000)))),
        ("a long header", Request::get("/").header("x", "a".repeat(200_000))),
        ("many headers", many(Request::get("/"))),
        ("a method of nobody", Request::builder().method("TRACE").uri("/")),
    ];
    for (what, request) in requests {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let again =
                Request::builder().method(request.method_ref().unwrap()).uri(request.uri_ref().unwrap());
            let mut again = again.body(Full::<Bytes>::default()).unwrap();
            *again.headers_mut() = request.headers_ref().unwrap().clone();
            match scene.platform.https().send(protocol, "hello", again).await {
                Ok(answer) => {
                    assert!(answer.status.is_client_error(), "{what} over {protocol:?}: {}", answer.status);
                }
                Err(Failure::Refused) => panic!("{what}: refused"),
                Err(_) => {}
            }
        }
    }
    scene.stands().await;
}
