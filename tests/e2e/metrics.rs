//! Monitoring reads the metrics by plain HTTP, where the configuration says, over upgrades of the proxy.

use std::net::SocketAddr;

use nexushub_e2e::{App, Options, Platform, Signal, home::free_address, soon, workshop};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What is scraped there. A proxy that goes away closes what it has not read, as every server does; whoever scrapes asks anew.
async fn scraped(at: SocketAddr) -> String {
    loop {
        let mut stream = TcpStream::connect(at).await.expect("somebody listens always");
        let mut said = Vec::new();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ok();
        soon("the metrics", stream.read_to_end(&mut said)).await.ok();
        if !said.is_empty() {
            let said = String::from_utf8(said).unwrap();
            assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
            return said.split_once("\r\n\r\n").unwrap().1.to_owned();
        }
    }
}

/// What is told, without its figures.
fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_scraped_by_http_and_an_upgrade_of_the_proxy_does_not_end_that() {
    let at = free_address();
    let platform = Platform::start_with(&Options::with(&format!("[platform]\nmetrics_listen = \"{at}\"\n")));
    platform.run_app(&App::named("hello")).await;
    let text = scraped(at).await;
    let up = "nexushub_proxy_route_up{instance=\"hello\",host=\"hello\"} 1";
    assert!(text.lines().any(|line| line == up), "{text}");
    let printed = workshop::nexushub(platform.home.path(), &["metrics"]);
    assert_eq!(names(&text), names(&String::from_utf8_lossy(&printed.stdout)), "as the command prints them");
    let old = platform.daemon("proxy").await;
    platform.home.configure_more("proxy", "access_log = false");
    platform.supervisor().signal(Signal::HUP);
    let replaced = platform.replaced("proxy", old.pid);
    let scraping = async {
        loop {
            scraped(at).await;
        }
    };
    tokio::select! {
        _ = replaced => {}
        () = scraping => {}
    }
    scraped(at).await;
    platform.kill("proxy").await;
    scraped(at).await;
}
