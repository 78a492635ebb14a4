//! The metrics for a monitoring system, by plain HTTP on a listener of their own: `GET /metrics`, one request a connection. Who asks
//! is not asked who they are; where to listen is the configuration's to choose, and nowhere unless it does.
//!
//! Generations of the proxy overlap and inherit the same listener; one that drains accepts no more and leaves the rest to the next.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{Method, StatusCode, request::Parts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    counters::Counters,
    daemons,
    h1::{Limits, Malformed, head, lines::Scan},
    linger, metrics,
    table::Table,
};

/// Where the metrics are.
const PATH: &str = "/metrics";
/// Connections at once; one more waits in the backlog.
const AT_ONCE: usize = 16;
/// Time for a request and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a listener is tried again that gave no connection.
const RETRY: Duration = Duration::from_millis(100);
/// What bounds a request.
const LIMITS: Limits = Limits { head_bytes: 8192, fields: 64, target_bytes: 1024 };
/// The text exposition format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What the metrics are made of.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    pub(crate) table: watch::Receiver<Arc<Table>>,
    pub(crate) counters: Arc<Counters>,
    /// What a drain waits for.
    pub(crate) tasks: TaskTracker,
    pub(crate) drain: CancellationToken,
}

impl Scrape {
    /// Answers until the drain.
    pub(crate) async fn serve(self, listener: TcpListener) {
        self.drain.run_until_cancelled(self.accept(listener)).await;
    }

    async fn accept(&self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let scrape = self.clone();
                    self.tasks.spawn(async move {
                        let _place = place;
                        scrape.receive(stream).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection to the metrics could be accepted");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn receive(&self, stream: TcpStream) {
        tokio::select! {
            _ = timeout(PATIENCE, self.converse(stream)) => {} // who breaks off is told nothing
            () = daemons::drained(&self.drain) => {}
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let answer = match read(&mut stream).await? {
            Ok(asked) => answer(&asked, || metrics::text(&self.table.borrow(), &self.counters)),
            Err(malformed) => plain(malformed.status(), ""),
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        linger::listen(&mut stream).await;
        Ok(())
    }
}

/// A request's head; what follows it is not read.
async fn read(stream: &mut TcpStream) -> io::Result<Result<Parts, Malformed>> {
    let (mut bytes, mut scan) = (BytesMut::new(), Scan::default());
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match scan.end(&bytes) {
            Ok(Some(end)) if end <= LIMITS.head_bytes => {
                return Ok(head::request(&bytes.split_to(end).freeze(), &LIMITS));
            }
            Ok(None) if bytes.len() < LIMITS.head_bytes => {}
            Ok(_) => return Ok(Err(Malformed::TooLarge)),
            Err(malformed) => return Ok(Err(malformed)),
        }
    }
}

/// The answer to a request, whole.
fn answer(asked: &Parts, text: impl FnOnce() -> String) -> String {
    let head_only = asked.method == Method::HEAD;
    if asked.uri.path() != PATH {
        return plain(StatusCode::NOT_FOUND, "");
    }
    if !head_only && asked.method != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "allow: GET, HEAD\r\n");
    }
    let text = text();
    let head = head_of(StatusCode::OK, FORMAT, text.len(), "");
    if head_only { head } else { head + &text }
}

fn plain(status: StatusCode, more: &str) -> String {
    let text = format!("{status}\n");
    head_of(status, PLAIN, text.len(), more) + &text
}

fn head_of(status: StatusCode, kind: &str, length: usize, more: &str) -> String {
    let fields = format!("content-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n");
    format!("HTTP/1.1 {status}\r\n{fields}{more}\r\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::pool;

    /// A generation that accepts from a listener, and what ends it.
    fn generation(listener: &std::net::TcpListener) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::from_std(listener.try_clone().unwrap()).unwrap();
        let (_, table) = watch::channel(Arc::new(Table::empty(pool::Limits::default())));
        let (counters, drain) = (Arc::new(Counters::default()), CancellationToken::new());
        counters.requests.add(7);
        let scrape = Scrape { table, counters, tasks: TaskTracker::new(), drain: drain.clone() };
        (drain, tokio::spawn(scrape.serve(listener)))
    }

    fn listener() -> (SocketAddr, std::net::TcpListener) {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    async fn say(at: SocketAddr, what: &str) -> String {
        exchange(TcpStream::connect(at).await.unwrap(), what).await
    }

    async fn exchange(mut stream: TcpStream, what: &str) -> String {
        stream.write_all(what.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn the_metrics_are_read_by_get_and_nothing_else_is_there() {
        let (at, listener) = listener();
        let _serving = generation(&listener);
        let told = say(at, "GET /metrics?a=b HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (head, text) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4"), "{head}");
        assert!(text.contains("nexushub_proxy_requests_total 7\n"), "{text}");
        assert!(head.contains(&format!("content-length: {}\r\n", text.len())), "{head}");
        let told = say(at, "HEAD /metrics HTTP/1.0\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with("\r\n\r\n"), "{told}");
        for (asked, answer) in [
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found\r\n"),
            ("GET http://a/metrics/ HTTP/1.1\r\n\r\n", "404 Not Found\r\n"),
            ("POST /metrics HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", "405 Method Not Allowed\r\n"),
            ("GET /metrics\r\n\r\n", "400 Bad Request\r\n"),
            ("GET /metrics HTTP/1.1\n\n", "400 Bad Request\r\n"),
        ] {
            let told = say(at, asked).await;
            assert!(told.starts_with(&format!("HTTP/1.1 {answer}")), "{asked:?}: {told}");
        }
        let long = say(at, &format!("GET /metrics HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(9000))).await;
        assert!(long.starts_with("HTTP/1.1 431"), "{long}");
    }

    #[tokio::test]
    async fn who_waits_while_a_generation_ends_is_heard_by_the_next() {
        let (at, listener) = listener();
        let (old, ending) = generation(&listener);
        old.cancel();
        ending.await.unwrap();
        let waiting = TcpStream::connect(at).await.unwrap();
        let _serving = generation(&listener);
        assert!(exchange(waiting, "GET /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn who_says_nothing_holds_up_nobody_but_the_bound() {
        let (at, listener) = listener();
        let _serving = generation(&listener);
        let mut mute = Vec::new();
        for _ in 0..AT_ONCE - 1 {
            mute.push(TcpStream::connect(at).await.unwrap());
        }
        assert!(say(at, "GET /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        mute.push(TcpStream::connect(at).await.unwrap());
        drop(mute);
        assert!(
            say(at, "GET /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200"),
            "places are given back"
        );
    }
}
