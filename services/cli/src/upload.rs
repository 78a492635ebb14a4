//! The contract's way of bringing an app onto a platform: create, upload in chunks, install, ask until it answers. Every step may be
//! repeated; a step that meets a daemon on its way back is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use nexushub_chassis::names::{HostName, Zone, is_label, shown};
use serde::{Deserialize, Serialize};

use crate::{
    failure::Failure,
    https::{Answer, Ask, Client},
    package::Package,
    table::one_line,
};

/// One chunk, as the contract's own client sends them.
pub(crate) const CHUNK: u64 = 2 << 20;
/// Tries of each request, and the waits between them.
const TRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// How often it is asked whether the app answers.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// `POST /debug/application`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Description {
    pub(crate) app_id: String,
    pub(crate) display_name: String,
    pub(crate) host_name: HostName,
    pub(crate) db_name: String,
    /// An app that is pushed stays until it is removed.
    pub(crate) keep: bool,
}

impl Description {
    /// What the contract makes of a name; the host name, below `zone`, is the cleaned name unless another is given.
    pub(crate) fn of(name: &str, host_name: Option<&str>, zone: &Zone) -> Result<Self, Failure> {
        let clean = clean(name)?;
        let host_name = HostName::parse(host_name.unwrap_or(&clean), zone)
            .map_err(|error| Failure::usage(error.to_string(), "name another with --host-name"))?;
        Ok(Self {
            app_id: format!("debug-{clean}"),
            display_name: format!("Debug: {name}"),
            db_name: format!("debug_{}.db", clean.replace('-', "_")),
            host_name,
            keep: true,
        })
    }
}

/// Lower case, blanks and underscores as `-`; what then is no label of a host name is refused.
fn clean(name: &str) -> Result<String, Failure> {
    const MAX: usize = 58; // `debug-` before it still fits an app id
    let clean = name.to_lowercase().replace([' ', '_'], "-");
    if clean.len() > MAX || !is_label(&clean) {
        let message = format!("--name {} can't be a host name", shown(name));
        return Err(Failure::usage(
            message,
            format!("use letters, digits, blanks, `_` and `-`, at most {MAX}"),
        ));
    }
    Ok(clean)
}

/// `GET …/upload/status`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct UploadStatus {
    completed: bool,
    file_hash: String,
}

/// `GET …/status`
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Standing {
    pub(crate) status: String,
    pub(crate) health_check: Option<String>,
    pub(crate) error: Option<String>,
}

/// What a standing means for somebody who waits.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    Up,
    Wait,
    Over,
}

impl Standing {
    fn outlook(&self) -> Outlook {
        match (self.status.as_str(), self.health_check.as_deref()) {
            // What sleeps has answered, and does again when somebody asks.
            ("running", Some("healthy")) | ("asleep", _) => Outlook::Up,
            ("failed" | "stopped", _) => Outlook::Over,
            _ => Outlook::Wait,
        }
    }

    /// For people: how it stands and why, in one line.
    pub(crate) fn told(&self) -> String {
        let status = if self.status.is_empty() { "unknown" } else { &self.status };
        match self.error.as_deref().and_then(|error| error.lines().next()).filter(|why| !why.is_empty()) {
            Some(why) => format!("{status}: {}", one_line(why)),
            None => status.to_owned(),
        }
    }

    /// The lines that follow: what the app said last.
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.error.iter().flat_map(|error| error.lines().skip(1)).map(one_line).collect()
    }
}

/// One application on the platform.
pub(crate) struct Remote<'c> {
    client: &'c Client,
    pub(crate) id: String,
}

impl<'c> Remote<'c> {
    /// A new one; an older one of the same app id gives way to it.
    pub(crate) async fn create(client: &'c Client, description: &Description) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        let body = serde_json::to_vec(description).unwrap_or_default();
        let answer =
            send(client, &Method::POST, "/debug/application", "application/json", body.into()).await?;
        let answer = expect(answer, "create the application")?;
        let created: Created = serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::new(
                format!("the platform's answer is not understood: {error}"),
                "is it a NexusHub platform?",
            )
        })?;
        Ok(Self { client, id: created.id })
    }

    /// One that exists.
    pub(crate) fn known(client: &'c Client, id: String) -> Self {
        Self { client, id }
    }

    /// Whether this very file is there already; none when there is no such application any more.
    pub(crate) async fn holds(&self, hash: &str) -> Result<Option<bool>, Failure> {
        if self.ask(&Method::GET, "status", "", Bytes::new()).await?.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.ask(&Method::GET, "upload/status", "", Bytes::new()).await?;
        let status: UploadStatus = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(Some(answer.status.is_success() && status.completed && status.file_hash == hash))
    }

    /// Sends the package, chunk by chunk.
    pub(crate) async fn upload(&self, package: &mut Package) -> Result<(), Failure> {
        let total = package.len.div_ceil(CHUNK).max(1);
        for index in 0..total {
            let piece = package.piece(index * CHUNK, CHUNK).map_err(|error| {
                Failure::new(
                    format!("could not read the package: {error}"),
                    "was it changed meanwhile? push again",
                )
            })?;
            let (content_type, body) = form(index, total, &package.hash, &piece);
            let answer = self.ask(&Method::POST, "upload", &content_type, body).await?;
            expect(answer, &format!("upload chunk {} of {total}", index + 1))?;
        }
        Ok(())
    }

    /// Unpacks what was uploaded, and has it started.
    pub(crate) async fn install(&self) -> Result<(), Failure> {
        let answer = self.ask(&Method::POST, "install", "", Bytes::new()).await?;
        expect(answer, "install the package").map(drop)
    }

    /// Waits until it answers; what it is like when it does, or when there is no more hope or time.
    pub(crate) async fn await_up(&self, patience: Duration) -> Result<(), Standing> {
        let began = Instant::now();
        loop {
            let asked = self.ask(&Method::GET, "status", "", Bytes::new()).await;
            let standing = match asked {
                Ok(answer) if answer.status.is_success() => {
                    serde_json::from_slice(&answer.body).unwrap_or_default()
                }
                Ok(answer) => Standing { error: Some(answer.text()), ..Standing::default() },
                Err(failure) => Standing { error: Some(failure.message), ..Standing::default() },
            };
            match standing.outlook() {
                Outlook::Up => return Ok(()),
                Outlook::Over => return Err(standing),
                Outlook::Wait if began.elapsed() > patience => return Err(standing),
                Outlook::Wait => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    async fn ask(
        &self,
        method: &Method,
        what: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        send(self.client, method, &format!("/debug/application/{}/{what}", self.id), content_type, body).await
    }
}

/// Asks, and asks again while the platform can't answer.
async fn send(
    client: &Client,
    method: &Method,
    path: &str,
    content_type: &str,
    body: Bytes,
) -> Result<Answer, Failure> {
    let mut waits = TRIES.iter();
    loop {
        let ask = Ask { method: method.clone(), path, content_type, body: body.clone() };
        let answer = client.ask(ask).await;
        let away = match &answer {
            Ok(answer) => matches!(
                answer.status,
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
            Err(_) => true,
        };
        match waits.next().filter(|_| away) {
            Some(wait) => tokio::time::sleep(*wait).await,
            None => return answer,
        }
    }
}

fn expect(answer: Answer, what: &str) -> Result<Answer, Failure> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let hint = match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the platform may have been started anew just now: try again"
        }
        StatusCode::NOT_FOUND => "it was removed meanwhile; push again",
        status if status.is_server_error() => "see nexushub status and nexushub logs debug-api",
        _ => "",
    };
    Err(Failure::new(format!("could not {what}: {} ({})", answer.text(), answer.status.as_u16()), hint))
}

/// The contract's form: `chunkIndex`, `totalChunks`, `fileHash`, and the file part `chunk`.
fn form(index: u64, total: u64, hash: &str, piece: &[u8]) -> (String, Bytes) {
    let boundary = format!("nexushub-{}", uuid::Uuid::new_v4());
    let mut body = Vec::with_capacity(piece.len() + 1024);
    for (name, value) in
        [("chunkIndex", index.to_string()), ("totalChunks", total.to_string()), ("fileHash", hash.to_owned())]
    {
        let part =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let head = "Content-Disposition: form-data; name=\"chunk\"; filename=\"chunk\"\r\nContent-Type: application/octet-stream";
    body.extend_from_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
    body.extend_from_slice(piece);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn zone() -> Zone {
        Zone::new("b.localhost", 8443)
    }

    #[test]
    fn names_are_cleaned_as_the_contract_says() {
        let shop = Description::of("My_Shop 2", None, &zone()).unwrap();
        let expected = Description {
            app_id: "debug-my-shop-2".into(),
            display_name: "Debug: My_Shop 2".into(),
            host_name: HostName::try_from("my-shop-2".to_owned()).unwrap(),
            db_name: "debug_my_shop_2.db".into(),
            keep: true,
        };
        assert_eq!(shop, expected);
        for host in ["Shop.debug", "shop.debug.b.localhost", "shop.debug:8443", "shop.debug.B.localhost:8443"]
        {
            assert_eq!(
                Description::of("x", Some(host), &zone()).unwrap().host_name.as_str(),
                "shop.debug",
                "{host}"
            );
        }
    }

    #[test]
    fn what_can_not_be_a_host_name_is_wrong_usage() {
        for bad in ["", "-a", "a-", "_", "a/b", "../x", "a.b", "ä", "a\n", &"x".repeat(59)] {
            assert_eq!(Description::of(bad, None, &zone()).unwrap_err().code, crate::failure::USAGE, "{bad}");
        }
    }

    #[test]
    fn a_host_name_that_the_platform_would_refuse_is_refused_here() {
        for bad in ["a b", "shop:80", "internal", "b.localhost", "shop.b.localhost.b.localhost"] {
            let failure = Description::of("x", Some(bad), &zone()).unwrap_err();
            assert_eq!(failure.code, crate::failure::USAGE, "{bad}");
        }
    }

    #[test]
    fn the_form_has_the_contracts_fields() {
        let (content_type, body) = form(1, 3, "abc", b"\r\n--data");
        let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
        assert_eq!(parts.len(), 6);
        for (part, expected) in parts[1..4].iter().zip([
            "\"chunkIndex\"\r\n\r\n1\r\n",
            "\"totalChunks\"\r\n\r\n3\r\n",
            "\"fileHash\"\r\n\r\nabc\r\n",
        ]) {
            assert!(part.ends_with(expected), "{part}");
        }
        assert!(parts[4].ends_with("\r\n\r\n\r\n--data\r\n"));
        assert_eq!(parts[5], "--\r\n");
    }

    #[test]
    fn only_a_healthy_app_is_up_and_a_stopped_one_will_not_be() {
        let outlook = |status: &str, health: Option<&str>| {
            Standing { status: status.into(), health_check: health.map(str::to_owned), error: None }.outlook()
        };
        assert_eq!(outlook("running", Some("healthy")), Outlook::Up);
        assert_eq!(outlook("asleep", None), Outlook::Up);
        assert_eq!(outlook("running", None), Outlook::Wait);
        assert_eq!(outlook("pending", None), Outlook::Wait);
        assert_eq!(outlook("failed", None), Outlook::Over);
        assert_eq!(outlook("stopped", None), Outlook::Over);
    }

    #[test]
    fn a_standing_is_told_with_its_reason_on_one_line_and_the_last_words_on_others() {
        let error = "exit\t1\none\n\u{1b}[2Jtwo";
        let standing = Standing { status: "failed".into(), health_check: None, error: Some(error.into()) };
        assert_eq!(standing.told(), "failed: exit 1");
        assert_eq!(standing.last_words(), ["one", " [2Jtwo"]);
        assert_eq!(Standing::default().told(), "unknown");
        assert!(Standing::default().last_words().is_empty());
    }
}
