//! Asking the admin app: HTTP/1.1 over the proxy's socket for the platform's own daemons. Each call has a deadline for all of it
//! and a bound on what it reads; one connection is kept between calls, and given up at the first thing that is wrong with it.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use nexushub_chassis::{chain, client, names::shown};
use serde::Deserialize;

use crate::{
    admin::{
        course::Heard,
        list::{self, List},
    },
    typed::Judge,
};

/// The longest list that is read: the longest that the admin app makes (10,000 applications with all names at their longest), and
/// half as much again.
const LIST_BYTES: usize = 16 << 20;
/// The longest other answer.
const ANSWER_BYTES: usize = 16 << 10;
/// For the whole of a list; the proxy may hold the request while the admin app starts.
const LIST_DEADLINE: Duration = Duration::from_secs(20);
/// For the whole of a call about changes, which the admin app holds for up to 50 s.
const CHANGES_DEADLINE: Duration = Duration::from_secs(65);

/// Why the admin app could not be heard.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody takes the connection.
    #[error("could not connect to `{path}`")]
    Connect {
        /// The proxy's socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The call broke, or its answer was cut short.
    #[error("the call broke")]
    Broken(#[source] hyper::Error),
    /// The answer broke off or was too long.
    #[error("the answer could not be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Another answer than the contract has.
    #[error("the admin app answered {0}: {1}")]
    Status(StatusCode, String),
    /// It can't be read as the contract has it.
    #[error("the answer is not what it should be")]
    Malformed(#[source] serde_json::Error),
    /// Too late.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// The admin app, as it is asked.
pub trait Admin: Send {
    /// The whole list.
    fn list(&mut self) -> impl Future<Output = Result<List, AskError>> + Send;
    /// Whether there is this event or a later one; held while there is none.
    fn changes(&mut self, event: u64) -> impl Future<Output = Result<Heard, AskError>> + Send;
}

/// What every request shows.
#[derive(Clone, Debug)]
pub struct Way {
    /// The proxy's socket for daemons.
    pub socket: PathBuf,
    /// `Bearer` and this daemon's token for the proxy.
    pub bearer: HeaderValue,
    /// The admin app's instance.
    pub instance: HeaderValue,
}

/// The real one.
pub struct Proxied {
    way: Way,
    judge: Judge,
    open: Option<SendRequest<Empty<Bytes>>>,
}

#[derive(Deserialize)]
struct Event {
    id: u64,
}

impl Admin for Proxied {
    async fn list(&mut self) -> Result<List, AskError> {
        let (status, text) = self.get("/api/applications", LIST_BYTES, LIST_DEADLINE).await?;
        if status != StatusCode::OK {
            return Err(refused(status, &text));
        }
        list::read(&text, &self.judge).map_err(AskError::Malformed)
    }

    async fn changes(&mut self, event: u64) -> Result<Heard, AskError> {
        let path = format!("/api/poll?e={event}");
        let (status, text) = self.get(&path, ANSWER_BYTES, CHANGES_DEADLINE).await?;
        match status {
            StatusCode::OK => serde_json::from_slice::<Event>(&text)
                .map(|event| Heard::Last(event.id))
                .map_err(AskError::Malformed),
            StatusCode::NOT_MODIFIED => Ok(Heard::Unchanged),
            _ => Err(refused(status, &text)),
        }
    }
}

impl Proxied {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(way: Way, judge: Judge) -> Self {
        Self { way, judge, open: None }
    }

    async fn get(
        &mut self,
        path: &str,
        most: usize,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), AskError> {
        let open = self.open.take(); // it comes back if all goes well
        let call = async {
            let mut sender = match open {
                Some(sender) if !sender.is_closed() => sender,
                _ => self.connect().await?,
            };
            let answer = sender.send_request(self.request(path)).await.map_err(AskError::Broken)?;
            let answer = read(answer, most).await?;
            Ok((sender, answer))
        };
        let called = tokio::time::timeout(patience, call).await;
        let (sender, answer) = called.map_err(|_| AskError::Late(patience))??;
        self.open = Some(sender);
        Ok(answer)
    }

    fn request(&self, path: &str) -> Request<Empty<Bytes>> {
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, &self.way.bearer)
            .header("x-application-id", &self.way.instance);
        request.body(Empty::new()).expect("paths made here are paths")
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, AskError> {
        let path = &self.way.socket;
        let stream =
            client::connect(path).await.map_err(|source| AskError::Connect { path: path.clone(), source })?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(AskError::Broken)?;
        tokio::spawn(connection); // ends with the sender, or with the proxy's word
        sender.ready().await.map_err(AskError::Broken)?;
        Ok(sender)
    }
}

async fn read(answer: Response<Incoming>, most: usize) -> Result<(StatusCode, Bytes), AskError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, most).collect().await.map_err(AskError::Body)?;
    Ok((head.status, body.to_bytes()))
}

fn refused(status: StatusCode, text: &[u8]) -> AskError {
    AskError::Status(status, shown(String::from_utf8_lossy(text).trim()))
}

impl AskError {
    /// Whether no answer came, but an end of the connection.
    #[must_use]
    pub fn broke_off(&self) -> bool {
        matches!(self, Self::Broken(cause) if !cause.is_parse())
    }

    /// With its causes, for people.
    #[must_use]
    pub fn told(&self) -> String {
        chain(self)
    }
}

#[cfg(test)]
mod tests;
