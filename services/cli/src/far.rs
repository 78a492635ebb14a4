//! Apps of a platform elsewhere, as its debug-api tells of them over HTTPS, in the words that the daemons of this machine use: so
//! every command reads them in one way, wherever they run. What it says is judged: nothing of it moves a terminal, or leads to
//! another path. Asking how an app is counts as caring for it, as it does for every client.

pub(crate) mod feed;
pub(crate) mod log;

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use nexushub_chassis::{
    names::{HostName, InstanceId, is_label},
    standing,
};
use nexushub_proto::{
    debugapi::Application,
    procmgr::{Exit, InstanceStatus, Pause, State, Usage, exit::How},
};
use serde::Deserialize;

use crate::{
    failure::Failure,
    https::{Answer, Ask, Client},
    table::one_line,
    upload,
    watch::Known,
};

/// Most lines of an app's last words.
const LAST_WORDS: usize = 100;

/// `GET /debug/application`
#[derive(Deserialize)]
struct List {
    applications: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: InstanceId,
    app_id: InstanceId,
    display_name: String,
    host_name: HostName,
    status: String,
    created_at: String,
}

impl From<Listed> for Application {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.id.as_str().to_owned(),
            app_id: listed.app_id.as_str().to_owned(),
            display_name: listed.display_name,
            host_name: listed.host_name.as_str().to_owned(),
            status: word(listed.status),
            created_unix_ms: moment(&listed.created_at),
            ..Self::default() // which package it is, the list does not tell
        }
    }
}

/// `GET …/status?details=true`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Standing {
    status: String,
    process_id: Option<u32>,
    health_check: Option<String>,
    error: Option<String>,
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    current: bool,
    state: String,
    reason: String,
    since: String,
    process_id: Option<u32>,
    /// Platforms of an earlier release don't tell; so the next.
    routed: Option<bool>,
    flagged: Option<bool>,
    generation: u64,
    restarts: u32,
    retry_at: String,
    last_exit: Option<LastExit>,
    release: String,
    driver: String,
    not_enforced: Vec<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct LastExit {
    code: Option<i32>,
    signal: Option<i32>,
    at: String,
}

/// A word of the platform's; what is none is not repeated.
fn word(said: String) -> String {
    if is_label(&said) { said } else { "unknown".to_owned() }
}

/// Milliseconds since 1970; 0 = never, or not understood.
fn moment(text: &str) -> i64 {
    text.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond)
}

impl Standing {
    /// The instance, as procmgr would tell of it; none while there is none.
    fn instance(self, app: Application) -> Option<InstanceStatus> {
        let Details { state, reason, since, last_exit, usage, .. } = self.details;
        if since.is_empty() {
            return None;
        }
        let mut said = self.error.as_deref().unwrap_or_default().lines();
        // procmgr knows no more of a release that was given up; what serves has no reason of its own.
        let reason = match said.next() {
            Some(why) if reason.is_empty() => format!("runs as it was; the newest release failed: {why}"),
            _ => reason,
        };
        let last_words: Vec<String> = said.take(LAST_WORDS).map(one_line).collect();
        let pause = (state == "paused").then(Pause::default);
        let state = named(&state);
        // Nothing is said to be healthy that the proxy does not reach: it is told of an app by the same stream. The contract's word is
        // that of a newer release while an older one runs.
        let healthy = self.health_check.as_deref() == Some("healthy");
        let routed = state == State::Running && self.status == "running" && healthy;
        let flagged = state == State::Running && self.health_check.is_some() && !healthy;
        let status = InstanceStatus {
            id: app.id,
            app_id: app.app_id,
            display_name: app.display_name,
            host_name: app.host_name,
            state: state.into(),
            reason: one_line(&reason),
            since_unix_ms: moment(&since),
            generation: self.details.generation,
            pid: self.details.process_id.or(self.process_id).unwrap_or(0),
            routed: self.details.routed.unwrap_or(routed),
            flagged: self.details.flagged.unwrap_or(flagged),
            restarts: self.details.restarts,
            last_exit: last_exit.as_ref().map(exit),
            retry_unix_ms: moment(&self.details.retry_at),
            release: one_line(&self.details.release),
            driver: word(self.details.driver),
            not_enforced: self.details.not_enforced,
            usage,
            last_words: last_words.join("\n"),
            pause,
            ..InstanceStatus::default()
        };
        Some(status)
    }
}

fn named(state: &str) -> State {
    // Its requests wait, but it runs.
    if state == "paused" { State::Running } else { standing::state(state) }
}

fn exit(said: &LastExit) -> Exit {
    let how = match (said.code, said.signal) {
        (Some(code), _) => How::Code(code),
        (None, Some(signal)) => How::Signal(signal),
        (None, None) => How::Lost(true),
    };
    Exit { how: Some(how), unix_ms: moment(&said.at) }
}

/// A text as the value of a parameter.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// The answer, if it is one; that the platform is away passes.
fn expected(answer: Answer, what: &str) -> Result<Answer, Failure> {
    let passing = upload::is_away(answer.status);
    upload::expect(answer, what).map_err(|failure| Failure { passing, ..failure })
}

/// What was pushed, those that are stopped, too.
pub(crate) async fn list(client: &Client) -> Result<Vec<Application>, Failure> {
    let (method, path) = (Method::GET, "/debug/application");
    let ask = Ask { method, path, content_type: "", fields: &[], body: Bytes::new() };
    let answer = expected(upload::send(client, ask).await?, "list the apps")?;
    upload::understood(&answer)
        .map(|List { applications }| applications.into_iter().map(Into::into).collect())
}

/// What its proxy counts of what was pushed, as Prometheus reads it.
pub(crate) async fn counted(client: &Client) -> Result<String, Failure> {
    let (method, path) = (Method::GET, "/debug/metrics");
    let answer = client.ask(Ask { method, path, content_type: "", fields: &[], body: Bytes::new() }).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Err(Failure::new(
            "a platform of an earlier release does not count them for who is elsewhere",
            "",
        ));
    }
    let answer = expected(answer, "ask for what is counted")?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// Those that are wanted, of what was pushed and runs, or is on its way to.
pub(crate) async fn instances(
    client: &Client,
    wanted: impl Fn(&Application) -> bool,
) -> Result<Known, Failure> {
    let mut known = Known { whole: true, ..Known::default() };
    for app in list(client).await?.into_iter().filter(wanted) {
        let (method, path) = (Method::GET, format!("/debug/application/{}/status?details=true", app.id));
        let ask = Ask { method, path: &path, content_type: "", fields: &[], body: Bytes::new() };
        let answer = upload::send(client, ask).await?;
        if answer.status == StatusCode::NOT_FOUND {
            continue; // it was removed meanwhile
        }
        let standing: Standing = upload::understood(&expected(answer, "ask how an app is")?)?;
        known.whole &= standing.details.current;
        known.all.extend(standing.instance(app).map(|status| (status.id.clone(), status)));
    }
    Ok(known)
}

#[cfg(test)]
mod tests;
