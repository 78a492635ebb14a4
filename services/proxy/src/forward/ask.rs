//! What the proxy asks the login app on behalf of a client: a request of its own, over the same pool and with the same waits as any
//! for that app, which is told that it is the proxy who asks. A login app that is down is not waited for longer than others.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Body;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use super::{Exchange, unreachable};
use crate::{
    access::Record,
    body::{RequestBody, ResponseBody},
    clock,
    decide::is_awaited,
    door::Caller,
    identity::{Identity, User, is_session},
    refusal::Refusal,
    table::Route,
    wellknown::{LOGIN, PROXY},
};

/// How long the login app may take over an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of its answer.
const MOST_BYTES: usize = 256 * 1024;

/// What the login app says to a question.
pub(super) enum Said<T> {
    Yes(T),
    /// The user may not use the app.
    Denied,
    /// What was shown is not good, in one word.
    No(String),
}

/// A session that may go on.
#[derive(Debug, Deserialize)]
pub(super) struct Grant {
    /// What to show next time.
    #[serde(rename = "RefreshToken")]
    pub(super) refresh: String,
    /// Until when.
    #[serde(rename = "RefreshExpiry")]
    pub(super) refresh_expires_unix: i64,
    #[serde(rename = "UserID")]
    user_id: i64,
    #[serde(rename = "UserName")]
    user_name: String,
    #[serde(rename = "SessionID")]
    session: String,
}

impl Grant {
    /// Whose session it is; none if the session can't be told to apps.
    pub(super) fn user(&self) -> Option<User> {
        let user = User { id: self.user_id, name: self.user_name.clone(), session: self.session.clone() };
        is_session(&user.session).then_some(user)
    }
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    error: String,
}

impl Exchange {
    /// Asks the login app.
    pub(super) async fn ask_login<T: DeserializeOwned>(
        &self,
        path: &'static str,
        question: &Value,
        authority: &HeaderValue,
    ) -> Result<Said<T>, Refusal> {
        let (status, bytes) = self.ask(path, question, authority).await?;
        let parsed = || serde_json::from_slice(&bytes).map_err(|error| unusable(path, &error.to_string()));
        match status {
            StatusCode::OK => Ok(Said::Yes(parsed()?)),
            StatusCode::FORBIDDEN => Ok(Said::Denied),
            StatusCode::UNAUTHORIZED => {
                let error = serde_json::from_slice(&bytes).unwrap_or(Error { error: String::new() });
                Ok(Said::No(error.error))
            }
            other => Err(unusable(path, other.as_str())),
        }
    }

    async fn ask(
        &self,
        path: &'static str,
        question: &Value,
        authority: &HeaderValue,
    ) -> Result<(StatusCode, Bytes), Refusal> {
        let mut asking = self.asking(path, question);
        let answered = Box::pin(asking.reach_login(authority)).await;
        let answer = answered.map_err(|refusal| match refusal.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_FOUND => refusal,
            other => unusable(path, other.as_str()),
        })?;
        let status = answer.status();
        asking.record.answered(status.as_u16());
        let bytes = timeout(PATIENCE, collect(pin!(answer.into_body()), MOST_BYTES)).await.ok().flatten();
        let Exchange { record, .. } = asking;
        record.close(bytes.is_some());
        bytes.map(|bytes| (status, bytes)).ok_or_else(|| unusable(path, "it broke off"))
    }

    /// A request of the proxy's own, as part of this one.
    fn asking(&self, path: &'static str, question: &Value) -> Self {
        let line = (Method::POST, http::Uri::from_static(path));
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.uri) = line.clone();
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (counters, link) = (Arc::clone(&self.proxy.counters), Arc::clone(&self.link));
        let record = Record::begin(counters, link, self.id.clone(), line, self.proxy.access_log_every);
        Self {
            proxy: Arc::clone(&self.proxy),
            link: Arc::clone(&self.link),
            client: self.client,
            id: self.id.clone(),
            parts,
            told: Vec::new(),
            body: RequestBody::Whole(Some(Bytes::from(question.to_string()))),
            upgrade: None,
            socket: None,
            record,
            held: None,
            switched: false,
            tried: Vec::new(),
            first_byte: self.proxy.timing.first_byte.min(PATIENCE),
            shown: None,
            daemon: None,
            bad: None,
        }
    }

    async fn reach_login(&mut self, authority: &HeaderValue) -> Result<Response<ResponseBody>, Refusal> {
        let by = Identity { caller: Caller::of(PROXY), spent: true, ..Identity::default() };
        loop {
            let (login, revision) = self.login();
            let route = login?;
            self.record.for_route(&route);
            if is_awaited(&route, self.proxy.policy.hold_ms, clock::about_unix_ms())? {
                Box::pin(self.hold(Some(&route), revision)).await?;
                continue;
            }
            route.activity.touch();
            let Some(pool) = route.app.clone() else { return Err(unreachable(&route)) };
            if let Some(answer) = self.pass(&route, &pool, &by, authority).await? {
                return Ok(answer);
            }
        }
    }

    /// The login app, and the table's revision.
    fn login(&self) -> (Result<Arc<Route>, Refusal>, u64) {
        let table = self.proxy.table.borrow();
        let none = || Refusal::new(StatusCode::NOT_FOUND, "Login service not found");
        (table.by_id(LOGIN).cloned().ok_or_else(none), table.revision)
    }
}

/// What the login app said is no answer.
pub(super) fn unusable(path: &str, error: &str) -> Refusal {
    tracing::warn!(path, error, "the login app gave no answer that could be used");
    Refusal::unavailable("Service Unavailable: the login app can't answer now", 1)
}

/// The whole of a body; nothing if it broke off or is too large.
pub(super) async fn collect<B: Body<Data = Bytes>>(mut body: Pin<&mut B>, most: usize) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return None;
        }
        bytes.extend_from_slice(&data);
    }
    Some(bytes.freeze())
}
