//! Monitoring reads the metrics by plain HTTP, where the configuration says, over upgrades of the proxy.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use nexushub_e2e::{App, Options, Platform, Signal, soon, workshop};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

async fn scraped(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut said = String::new();
    soon("the metrics", stream.read_to_string(&mut said)).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    said.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What is told, without its figures.
fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_scraped_by_http_and_an_upgrade_of_the_proxy_does_not_end_that() {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let platform = Platform::start_with(&Options::with(&format!("[proxy]\nmetrics_listen = \"{at}\"\n")));
    platform.run_app(&App::named("hello")).await;
    let text = scraped(at).await;
    let up = "nexushub_proxy_route_up{instance=\"hello\",host=\"hello\"} 1";
    assert!(text.lines().any(|line| line == up), "{text}");
    let printed = workshop::nexushub(platform.home.path(), &["metrics"]);
    assert_eq!(names(&text), names(&String::from_utf8_lossy(&printed.stdout)), "as the command prints them");
    let old = platform.daemon("proxy").await;
    let config = std::fs::read_to_string(platform.home.config()).unwrap();
    platform.home.configure(&config.replace("metrics_listen", "access_log = false\nmetrics_listen"));
    platform.supervisor().signal(Signal::HUP);
    platform.replaced("proxy", old.pid).await;
    for _ in 0..10 {
        scraped(at).await;
    }
}
