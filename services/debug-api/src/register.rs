//! Asking the admin app to take an application over: one HTTP/1.1 request over the proxy's socket for the platform's own daemons, with
//! a deadline for all of it and a bound on what is read.
//!
//! What comes of it is told as a status: a refusal (`FailedPrecondition`) is the admin app's own word, `Unavailable` means that it was
//! not asked, and anything else that it may have heard. A 503 is such an answer: who gave it can't be told, nor when.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use nexushub_chassis::{
    client,
    names::{ADMIN_INSTANCE, shown},
};
use serde::Serialize;
use tonic::Status;

/// For all of it; the proxy may hold the request while the admin app starts.
const DEADLINE: Duration = Duration::from_secs(20);
/// The longest answer.
const ANSWER_BYTES: usize = 16 << 10;

/// An application as the admin app is to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Registration {
    pub(crate) instance_id: String,
    pub(crate) app_id: String,
    pub(crate) display_name: String,
    pub(crate) host_name: String,
    /// Who made it permanent, for people.
    pub(crate) by: String,
}

/// The way to the admin app.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    socket: PathBuf,
    /// None where this daemon was given no token for the proxy.
    bearer: Option<HeaderValue>,
}

impl Way {
    pub(crate) fn new(socket: PathBuf, token: Option<&str>) -> Self {
        let mut bearer = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        if let Some(bearer) = &mut bearer {
            bearer.set_sensitive(true);
        }
        Self { socket, bearer }
    }

    /// Has the admin app take it over.
    pub(crate) async fn register(&self, registration: &Registration) -> Result<(), Status> {
        let asked = tokio::time::timeout(DEADLINE, self.ask(registration)).await;
        asked.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!("it did not answer within {} s", DEADLINE.as_secs())))
        })
    }

    async fn ask(&self, registration: &Registration) -> Result<(), Status> {
        let away = |error: String| Status::unavailable(format!("the proxy can't be reached: {error}"));
        let bearer = self.bearer.as_ref().ok_or_else(|| away("there is no token for it".to_owned()))?;
        let stream = client::connect(&self.socket).await.map_err(|error| away(error.to_string()))?;
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| away(error.to_string()))?;
        let connection = tokio::spawn(connection); // ends with the sender
        let text = serde_json::to_vec(registration).expect("a registration is text");
        let request = Request::post("/internal/adopt")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, bearer)
            .header("x-application-id", ADMIN_INSTANCE)
            .body(Full::<Bytes>::from(text))
            .expect("a path and header fields made here");
        let broke = |error: &dyn std::error::Error| Status::unknown(format!("the call broke: {error}"));
        let answer = sender.send_request(request).await.map_err(|error| broke(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| broke(&*error))?;
        connection.abort();
        judge(head.status, &body.to_bytes())
    }
}

/// What an answer says. That nobody is there to ask is the proxy's word.
fn judge(status: StatusCode, text: &[u8]) -> Result<(), Status> {
    let told = || shown(String::from_utf8_lossy(text).trim());
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::NOT_FOUND => Err(Status::unavailable("there is no admin app")),
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(Status::failed_precondition(told()))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Status::unavailable(format!("this daemon may not ask it: {status}")))
        }
        other => Err(Status::unknown(format!("it answered {other}: {}", told()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };
    use tonic::Code;

    use super::*;

    fn registration() -> Registration {
        let text = |text: &str| text.to_owned();
        Registration {
            instance_id: text("id-1"),
            app_id: text("a"),
            display_name: text("A"),
            host_name: text("a"),
            by: text("user 1"),
        }
    }

    /// What is said to this way, and what comes of it.
    async fn asked(answer: &str) -> (String, Result<(), Code>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("proxy.http.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let way = Way::new(socket, Some("token"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"}") {
                stream.read_buf(&mut heard).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(heard).unwrap()
        };
        let registration = registration();
        let (heard, answered) = tokio::join!(serve, way.register(&registration));
        (heard, answered.map_err(|status| status.code()))
    }

    fn with(status: &str, text: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}", text.len())
    }

    #[tokio::test]
    async fn the_admin_app_is_asked_as_a_daemon_asks_and_its_answer_is_told_from_nobodys() {
        let (heard, done) = asked(&with("200 OK", "{}")).await;
        assert_eq!(done, Ok(()));
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /internal/adopt HTTP/1.1\r\n"), "{head}");
        for line in ["authorization: Bearer token", &format!("x-application-id: {ADMIN_INSTANCE}")] {
            assert!(head.lines().any(|found| found == line), "{head}");
        }
        assert_eq!(
            body,
            r#"{"instanceId":"id-1","appId":"a","displayName":"A","hostName":"a","by":"user 1"}"#
        );
        for (status, code) in [
            ("409 Conflict", Code::FailedPrecondition),
            ("400 Bad Request", Code::FailedPrecondition),
            ("503 Service Unavailable", Code::Unknown),
            ("404 Not Found", Code::Unavailable),
            ("403 Forbidden", Code::Unavailable),
            ("500 Internal Server Error", Code::Unknown),
        ] {
            assert_eq!(asked(&with(status, "why")).await.1, Err(code), "{status}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{}", "x".repeat(99_999));
        assert_eq!(asked(&endless).await.1, Err(Code::Unknown), "more than is read");
        assert_eq!(asked("nonsense\r\n\r\n").await.1, Err(Code::Unknown));
    }

    #[tokio::test]
    async fn where_nobody_can_be_asked_nobody_has_heard() {
        let folder = tempfile::tempdir().unwrap();
        for token in [Some("token"), None] {
            let way = Way::new(folder.path().join("none.sock"), token);
            assert_eq!(way.register(&registration()).await.unwrap_err().code(), Code::Unavailable);
        }
    }
}
