//! Certificates: each name its own, taken up when their files change, and no connection notices.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nexushub_e2e::{App, Https, Platform, Protocol, soon};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// A self-signed pair `<name>.crt` and `<name>.key`; the certificate is what a client has to trust.
fn pair(folder: &Path, name: &str, hosts: &[&str]) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = hosts.iter().map(|host| Https::name(host)).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1));
    let secret = folder.join(name).with_extension("key");
    fs::write(&secret, key.serialize_pem()).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let certificate = folder.join(name).with_extension("crt");
    fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    certificate
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

/// Whether a client that trusts this certificate is greeted with one that it takes.
async fn greets(platform: &Platform, trusted: &Path, host: &str) -> bool {
    Https::new(platform.address, trusted).open(Protocol::Http1, host).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_taken_up_a_bad_one_refused_and_open_connections_stay() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let certs = platform.home.certs();
    let mut open = platform.https().open(Protocol::Http1, "hello").await.unwrap();
    assert_eq!(open.send(get("/")).await.unwrap().status, 200);
    fs::write(certs.join("server.crt"), "half of one").unwrap();
    let refused = |entry: &serde_json::Value| {
        entry["msg"].as_str().is_some_and(|msg| msg.contains("a changed certificate is refused"))
    };
    let noticed = async {
        while !platform.logged_by("proxy").iter().any(refused) {
            assert_eq!(platform.https().get("hello", "/").await.status, 200, "the one before stays in use");
        }
    };
    soon("the proxy says that it refuses it", noticed).await;
    let trusted = pair(&certs, "server", &["hello"]);
    soon("the new certificate is in use", async { while !greets(&platform, &trusted, "hello").await {} })
        .await;
    assert!(!greets(&platform, &certs.join("ca.crt"), "hello").await, "the old one is in use no more");
    assert_eq!(open.send(get("/")).await.unwrap().status, 200, "whoever was there before goes on");
}

/// A request in a session of this client, and how its handshake was made.
async fn visit(platform: &Platform, client: &Arc<ClientConfig>) -> HandshakeKind {
    let tcp = TcpStream::connect(platform.address).await.unwrap();
    let name = ServerName::try_from(Https::name("hello")).unwrap();
    let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, tcp).await.unwrap();
    let host = platform.https().authority("hello");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer)).await.unwrap(); // the ticket comes with it
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_after_the_proxy_was_killed() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let client = Arc::new(platform.https().tls_config(&[b"http/1.1"]));
    assert_eq!(visit(&platform, &client).await, HandshakeKind::Full);
    assert_eq!(visit(&platform, &client).await, HandshakeKind::Resumed);
    platform.kill("proxy").await;
    assert_eq!(visit(&platform, &client).await, HandshakeKind::Resumed);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_name_is_greeted_with_its_own_certificate_and_gets_nothing_of_another() {
    let mut platform = Platform::prepare(&nexushub_e2e::Options::default());
    let certs = platform.home.certs();
    let trusted = pair(&certs, "shop", &["shop"]);
    let files = ["crt", "key"].map(|kind| certs.join("shop").with_extension(kind));
    platform.home.configure(&format!("[[proxy.pair]]\ncertificate = {:?}\nkey = {:?}\n", files[0], files[1]));
    platform.start_supervisor();
    for name in ["shop", "hello"] {
        platform.put(platform.instance(&App::named(name))).await.unwrap();
        platform.running(name).await;
    }
    let of_all = certs.join("ca.crt");
    for (trusted, host, taken) in [
        (&trusted, "shop", true),
        (&of_all, "shop", false),
        (&of_all, "hello", true),
        (&trusted, "hello", false),
    ] {
        assert_eq!(greets(&platform, trusted, host).await, taken, "{host} by {}", trusted.display());
    }
    let shop = Https::new(platform.address, &trusted);
    let mut connection = shop.open(Protocol::Http1, "shop").await.unwrap();
    assert_eq!(connection.send(get("/")).await.unwrap().status, 200);
    let mut other = get("/");
    other.headers_mut().insert("host", shop.authority("hello").parse().unwrap());
    assert_eq!(connection.send(other).await.unwrap().status, 421, "its certificate does not cover that host");
}
