//! Plain HTTP: who comes that way is sent to HTTPS and gets nothing else, whatever happens to the proxy.

use std::net::SocketAddr;

use nexushub_e2e::{HANG, Options, Platform, home::free_address};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

async fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(HANG, stream.read_to_string(&mut answer)).await.expect("an answer and its end").unwrap();
    answer.to_ascii_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_leads_to_https_and_nowhere_else() {
    let at = free_address();
    let platform = Platform::start_with(&Options::with(&format!("[platform]\nredirect_listen = \"{at}\"\n")));
    let asked = "POST /a?b=c HTTP/1.1\r\nHost: hello.yesterday.localhost\r\nConnection: close\r\n\r\n";
    let port = platform.address.port();
    let location = format!("\r\nlocation: https://hello.yesterday.localhost:{port}/a?b=c\r\n");
    let answer = ask(at, asked).await;
    assert!(answer.starts_with("http/1.1 308 ") && answer.contains(&location), "{answer}");
    let answer = ask(at, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    assert!(answer.starts_with("http/1.1 400 "), "{answer}");
    platform.kill("proxy").await;
    let answer = ask(at, asked).await;
    assert!(answer.contains(&location), "its listener outlives it: {answer}");
}
