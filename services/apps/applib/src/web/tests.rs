//! Servers of others, played on this machine.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    response::IntoResponse,
    routing::{any, get},
};
use http::HeaderMap;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn at(port: u16, path: &str) -> Url {
    Url::parse(&format!("http://127.0.0.1:{port}{path}")).unwrap()
}

#[test]
fn a_url_is_https_or_http_at_a_loopback_address() {
    for (text, host, port, target) in [
        ("https://op.example", "op.example", 443, "/"),
        ("https://OP.example:8443/a?b=c", "op.example", 8443, "/a?b=c"),
        ("https://op.example?b=c", "op.example", 443, "/?b=c"),
        ("https://192.0.2.1/x", "192.0.2.1", 443, "/x"),
        ("http://127.0.0.1/x", "127.0.0.1", 80, "/x"),
        ("http://127.8.9.1:443/x", "127.8.9.1", 443, "/x"),
        ("http://[::1]:81/x", "::1", 81, "/x"),
    ] {
        let url = Url::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((url.host(), url.port, url.target.as_str(), url.as_str()), (host, port, target, text));
    }
    assert_eq!(at(81, "/x").authority(), "127.0.0.1:81");
    assert_eq!(Url::parse("https://op.example?b=c").unwrap().authority(), "op.example");
}

#[test]
fn what_is_no_such_url_is_refused() {
    let long = format!("https://op.example/{}", "a".repeat(URL_MAX));
    for text in [
        "",
        "op.example",
        "/x",
        "HTTPS://op.example",
        "ftp://op.example",
        "http://op.example",
        "http://localhost/",
        "http://192.0.2.1/",
        "http://127.0.0.1.evil.example/",
        "https://user@op.example/",
        "https://user@op.example:443/",
        "https://127.0.0.1@evil.example/",
        "https://op.example/#x",
        "https://op.example:/",
        "https://op.example:0/",
        "https://op.example:99999/",
        "https://op.example/a b",
        "https://op.example/\r\nX: y",
        "https://zoë.example/",
        "https:///x",
        &long,
    ] {
        assert_eq!(Url::parse(text), None, "{text}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_followed_nowhere() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = any(async |State(asked): State<Arc<AtomicUsize>>| {
        asked.fetch_add(1, Ordering::Relaxed);
        (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response()
    });
    let (listener, port) = listener().await;
    let routes = Router::new().fallback(count).with_state(Arc::clone(&asked));
    tokio::spawn(async { axum::serve(listener, routes).await });
    let answer = Web::new(&Authorities::System).unwrap().get(&at(port, "/")).await.unwrap();
    assert_eq!((answer.status, asked.load(Ordering::Relaxed)), (StatusCode::FOUND, 1));
}

#[tokio::test]
async fn a_form_arrives_as_it_was_sent_and_says_by_whom() {
    let echo = any(async |headers: HeaderMap, body: String| {
        let told = ["host", "authorization", "content-type"].map(|name| headers[name].to_str().unwrap());
        format!("{} {body}", told.join(" "))
    });
    let (listener, port) = listener().await;
    tokio::spawn(async { axum::serve(listener, Router::new().route("/x", echo)).await });
    let by = Some(HeaderValue::from_static("Basic eDp5"));
    let answer =
        Web::new(&Authorities::System).unwrap().post(&at(port, "/x"), "a=b".into(), by).await.unwrap();
    let said = format!("127.0.0.1:{port} Basic eDp5 application/x-www-form-urlencoded a=b");
    assert_eq!(answer, Answer { status: StatusCode::OK, body: said.into() });
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let (listener, port) = listener().await;
    let routes = Router::new()
        .route("/fits", get(async || "x".repeat(BODY_MAX)))
        .route("/long", get(async || "x".repeat(BODY_MAX + 1)));
    tokio::spawn(async { axum::serve(listener, routes).await });
    let web = Web::new(&Authorities::System).unwrap();
    assert_eq!(web.get(&at(port, "/fits")).await.unwrap().body.len(), BODY_MAX);
    assert!(matches!(web.get(&at(port, "/long")).await.unwrap_err(), Error::Unread(_)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dribbles_is_given_up() {
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    });
    assert!(matches!(
        Web::new(&Authorities::System).unwrap().get(&at(port, "/")).await.unwrap_err(),
        Error::Late(_)
    ));
}

#[tokio::test]
async fn a_server_is_believed_when_an_authority_that_is_trusted_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let (listener, port) = listener().await;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut heard = [0; 2048];
            while !heard.windows(4).any(|part| part == b"\r\n\r\n") && tls.read(&mut heard).await.unwrap() > 0
            {
            }
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
            tls.shutdown().await.unwrap();
        }
    });
    let url = Url::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
    let stranger = Web::new(&Authorities::System).unwrap().get(&url).await.unwrap_err();
    assert!(matches!(stranger, Error::Distrust { .. }), "{stranger}");
    assert!(stranger.to_string().contains("127.0.0.1: its certificate is not trusted: "), "{stranger}");
    let file = folder.path().join("ca.pem");
    fs::write(&file, own.cert.pem()).unwrap();
    let web = Web::new(&Authorities::File(file.clone())).unwrap();
    assert!(web.trusts_somebody());
    assert_eq!(web.get(&url).await.unwrap().body, "hi");
    let web = Web::new(&Authorities::Text(own.cert.pem())).unwrap();
    assert_eq!(web.get(&url).await.unwrap().body, "hi");
    assert!(Web::new(&Authorities::Text("none".to_owned())).is_err());
    fs::write(&file, "no certificate").unwrap();
    assert!(Web::new(&Authorities::File(file)).unwrap_err().to_string().contains("no certificate in it"));
    assert!(Web::new(&Authorities::File(folder.path().join("none"))).is_err());
}
