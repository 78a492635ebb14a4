//! Several platforms on one machine don't know of each other.

use nexushub_e2e::{App, Failure, Options, Platform, Protocol, grpc};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn two_platforms_side_by_side_serve_their_own_apps_under_the_same_names() {
    let (one, mut two) = (Platform::start(), Platform::start());
    let first = one.run_app(&App::named("hello")).await;
    let second = two.run_app(&App::named("hello")).await;
    assert_ne!(first.endpoint, second.endpoint, "no port is given twice on a machine");
    assert_eq!(one.https().get("hello", "/").await.json()["pid"], first.pid);
    assert_eq!(two.https().get("hello", "/").await.json()["pid"], second.pid);
    for method in grpc::methods("procmgr") {
        let code = grpc::call(one.grpc("procmgr", Some(&two.operator("procmgr"))), &method).await;
        assert_eq!(code, Code::Unauthenticated, "a neighbour's token is worth nothing: {}", method.path);
    }
    assert!(two.stop().success());
    assert_eq!(one.running("hello").await.pid, first.pid);
    assert_eq!(one.https().get("hello", "/").await.json()["pid"], first.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_platform_on_the_same_port_is_refused_and_the_first_goes_on() {
    let one = Platform::start();
    let app = one.run_app(&App::named("hello")).await;
    let two = Platform::prepare(&Options { listen: Some(one.address), ..Options::default() });
    let output = two.supervisor_command().env_remove("NOTIFY_SOCKET").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&one.address.to_string()), "{text}");
    assert_eq!(one.https().get("hello", "/").await.json()["pid"], app.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_platform_is_connections_are_refused() {
    let platform = Platform::prepare(&Options::default());
    let request = http::Request::get("/").body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
    let failure = platform.https().send(Protocol::Http1, "hello", request).await.unwrap_err();
    assert_eq!(failure, Failure::Refused);
}
