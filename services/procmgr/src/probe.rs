//! One health check: `GET` on a connection of its own to 127.0.0.1 or into the box, 200 is healthy; of an app that speaks h2c
//! every answer below 500. On the first answers of a generation on a port it is judged too that the listener is the app's own;
//! in a box nobody else's can be.

use std::{io, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::{http1, http2},
    header, http,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nexushub_chassis::reach;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::{generation::Endpoint, health::Check, listener, state::Probed};

/// Of an answer's body, no more than this is read; what is in it doesn't matter.
const BODY_LIMIT: usize = 64 << 10;

/// What is asked, of whom.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Where the app is reached.
    pub endpoint: Endpoint,
    /// The shim, if it is to be judged whose listener answers.
    pub judge_for: Option<u32>,
}

/// Asks. The check's time-out covers everything.
pub(crate) async fn ask(question: Question, check: Check) -> Probed {
    let patience = Duration::from_millis(u64::try_from(check.timeout_ms).unwrap_or(1));
    let answer = match tokio::time::timeout(patience, get(&question.endpoint, &check)).await {
        Ok(Err(Miss::Refused)) => return Err("nothing listens on its port".into()), // there is no listener to judge
        Ok(Err(Miss::Other(why))) => Err(why),
        Ok(Ok(())) => Ok(()),
        Err(_) => Err(format!("no answer within {} ms", check.timeout_ms)),
    };
    let (Some(shim), Some(port)) = (question.judge_for, question.endpoint.port()) else { return answer };
    match tokio::task::spawn_blocking(move || listener::owner(port, shim)).await {
        Ok(listener::Owner::Stranger) => Err(format!("port {port} is listened on by a stranger")),
        Ok(listener::Owner::Nobody) if answer.is_ok() => {
            Err(format!("nothing listens on port {port} any more"))
        }
        _ => answer,
    }
}

/// Why there is no healthy answer.
enum Miss {
    /// Nobody listens.
    Refused,
    /// Anything else, for people.
    Other(String),
}

async fn connect(endpoint: &Endpoint) -> io::Result<reach::Stream> {
    match endpoint {
        Endpoint::Port(port) => {
            TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.map(reach::Stream::Tcp)
        }
        Endpoint::Shim(path) => reach::connect(path).await,
    }
}

async fn get(endpoint: &Endpoint, check: &Check) -> Result<(), Miss> {
    let stream = connect(endpoint).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Miss::Refused,
        _ => Miss::Other(format!("could not connect: {error}")),
    })?;
    let stream = TokioIo::new(stream);
    let host = endpoint.port().map_or_else(|| "127.0.0.1".into(), |port| format!("127.0.0.1:{port}"));
    let broken = |error: hyper::Error| Miss::Other(format!("the connection broke: {error}"));
    let malformed = |error: http::Error| Miss::Other(format!("the request is malformed: {error}"));
    let request = Request::get(&check.path).header(header::USER_AGENT, "nexushub-procmgr");
    let (driver, reply) = if check.h2c {
        let target = format!("http://{host}{}", check.path);
        let request = request.uri(target).body(Empty::<Bytes>::new()).map_err(malformed)?;
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(broken)?;
        (Driving(tokio::spawn(connection)), sender.send_request(request).await)
    } else {
        let request = request.header(header::HOST, host).body(Empty::<Bytes>::new()).map_err(malformed)?;
        let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        (Driving(tokio::spawn(connection)), sender.send_request(request).await)
    };
    let reply = reply.map_err(broken)?;
    let status = reply.status();
    let _ = Limited::new(reply.into_body(), BODY_LIMIT).collect().await;
    drop(driver);
    if is_healthy(status, check.h2c) {
        return Ok(());
    }
    Err(Miss::Other(format!("status {}", status.as_u16())))
}

/// gRPC servers know no GET and say so each in its own way: of an app that speaks h2c any answer is a sign of life but that it
/// can't.
fn is_healthy(status: StatusCode, h2c: bool) -> bool {
    if h2c { !status.is_server_error() } else { status == StatusCode::OK }
}

/// The connection's task, ended with the check.
struct Driving(JoinHandle<Result<(), hyper::Error>>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::config::Config;

    /// With a time for the answer that no machine reaches.
    fn calm() -> Check {
        Check { timeout_ms: 600_000, ..Config::default().check() }
    }

    async fn against(answer: &'static [u8], question: impl FnOnce(u16) -> Question) -> Probed {
        against_with(answer, question, calm()).await
    }

    async fn against_with(
        answer: &'static [u8],
        question: impl FnOnce(u16) -> Question,
        check: Check,
    ) -> Probed {
        let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = app.local_addr().unwrap().port();
        let serve = async move {
            let (mut stream, _) = app.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = ask(question(port), check) => result,
            () = serve => unreachable!(),
        }
    }

    fn plain(port: u16) -> Question {
        Question { endpoint: Endpoint::Port(port), judge_for: None }
    }

    #[tokio::test]
    async fn status_200_is_healthy_and_nothing_else_is() {
        assert_eq!(against(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", plain).await, Ok(()));
        let sick = against(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", plain).await;
        assert_eq!(sick, Err("status 500".into()));
        assert!(against(b"HTTP/1.1 204 No\r\n\r\n", plain).await.is_err());
        assert!(against(b"\x00\xffgarbage\r\n\r\n", plain).await.unwrap_err().contains("broke"));
    }

    #[tokio::test]
    async fn an_app_that_speaks_h2c_is_asked_in_it_and_may_know_nothing_of_the_path() {
        for (status, answer) in [(200, Ok(())), (404, Ok(())), (503, Err("status 503".to_owned()))] {
            let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = app.local_addr().unwrap().port();
            let serve = async move {
                let (stream, _) = app.accept().await.unwrap();
                let service = hyper::service::service_fn(|_| async move {
                    hyper::Response::builder().status(status).body(Empty::<Bytes>::new())
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
                std::future::pending::<()>().await;
            };
            let check = Check { h2c: true, ..calm() };
            let asked = tokio::select! {
                asked = ask(plain(port), check) => asked,
                () = serve => unreachable!(),
            };
            assert_eq!(asked, answer);
        }
        let http1_only = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let check = Check { h2c: true, ..calm() };
        assert!(against_with(http1_only, plain, check).await.is_err());
    }

    #[tokio::test]
    async fn no_answer_and_no_listener_have_reasons_of_their_own() {
        let hasty = Check { timeout_ms: 300, ..calm() };
        assert_eq!(against_with(b"", plain, hasty).await, Err("no answer within 300 ms".into()));
        let free =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let refused = Err("nothing listens on its port".into());
        for judge_for in [None, Some(u32::MAX)] {
            let question = Question { endpoint: Endpoint::Port(free), judge_for };
            assert_eq!(ask(question, calm()).await, refused);
        }
    }

    #[tokio::test]
    async fn a_box_whose_shim_is_gone_could_not_be_connected_to_and_no_listener_is_judged() {
        let endpoint = Endpoint::Shim("/nonexistent/shim.sock".into());
        let question = Question { endpoint, judge_for: Some(u32::MAX) };
        let sick = ask(question, calm()).await.unwrap_err();
        assert!(sick.contains("could not connect"), "{sick}");
    }

    #[tokio::test]
    async fn a_healthy_answer_from_a_strangers_listener_does_not_count() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let judged = |port, shim| Question { endpoint: Endpoint::Port(port), judge_for: Some(shim) };
        let mine = |port| judged(port, std::process::id());
        assert_eq!(against(answer, mine).await, Ok(()));
        // A shim id that no process has: a family of nobody.
        let theirs = |port| judged(port, u32::MAX);
        assert!(against(answer, theirs).await.unwrap_err().contains("listened on by a stranger"));
    }
}
