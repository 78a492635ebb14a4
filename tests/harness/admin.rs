//! The admin app as provider hears it, and as debug-api hears it: a list of applications that a story writes, at the place where the
//! proxy lets the platform's daemons in, and calls to debug-api as the proxy passes on the admin app's.

use std::{
    fs, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use nexushub_proto::provider::{
    ListInstancesRequest, ListInstancesResponse, provider_service_client::ProviderServiceClient,
};
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{FORGIVING, Options, Platform, soon};

/// The admin app's id.
pub const ADMIN: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";
/// A configuration that has it, as an app that does nothing, and runs what it lists without a box.
pub const FOLLOWED: &str = "
[provider]
dynamic_driver = \"process\"

[[provider.instance]]
id = \"18736e4f-93f9-4606-a7be-863c7986ea5b\"
host_name = \"admin\"
release = \"releases/admin\"
driver = \"process\"
";

/// The largest message of provider's that is taken.
const MESSAGE_BYTES: usize = 32 << 20;

/// What it says: the last event's number, and the list, which may be none.
#[derive(Debug, Clone, Default)]
struct Says {
    event: u64,
    list: String,
    manner: Manner,
}

/// How far the text of a list comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// All of it.
    #[default]
    Whole,
    /// Then the connection is cut.
    Half,
    /// Then nothing more comes, and it goes on as if there were.
    Never,
    /// Then blanks come, without end.
    Endless,
}

/// A text in its manner.
struct Told {
    text: Option<Bytes>,
    manner: Manner,
}

impl From<String> for Told {
    fn from(text: String) -> Self {
        Self { text: Some(text.into()), manner: Manner::Whole }
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        const BLANKS: &[u8] = &[b' '; 64 * 1024];
        match (self.text.take(), self.manner) {
            (Some(text), _) => Poll::Ready(Some(Ok(Frame::data(text)))),
            (None, Manner::Whole) => Poll::Ready(None),
            (None, Manner::Half) => Poll::Ready(Some(Err(io::Error::other("cut")))),
            (None, Manner::Never) => Poll::Pending,
            (None, Manner::Endless) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(BLANKS))))),
        }
    }
}

/// An admin app that says what the story says.
pub struct Admin {
    says: watch::Sender<Says>,
    serving: JoinHandle<()>,
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Admin {
    /// A platform whose provider follows an admin app, which has no applications yet, and may be killed as often as a story likes.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn followed() -> (Platform, Self) {
        let mut platform = Platform::prepare(&Options::with(&format!("{FORGIVING}{FOLLOWED}")));
        let _ = platform.release("admin");
        platform.start_supervisor();
        let admin = Self::of(&platform).await;
        (platform, admin)
    }

    /// Takes the proxy's place for the platform's daemons, with no applications; provider is started anew and hears it.
    ///
    /// # Panics
    /// When it can't.
    pub async fn of(platform: &Platform) -> Self {
        let admin = Self::silent(platform);
        platform.kill("provider").await;
        admin
    }

    /// The same, without a word to provider, which may take its time to come back.
    ///
    /// # Panics
    /// When it can't.
    #[must_use]
    pub fn silent(platform: &Platform) -> Self {
        let path = platform.run().join("proxy.http.sock");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (says, heard) = watch::channel(Says { event: 1, list: list(&[]), ..Says::default() });
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let heard = heard.clone();
                let answer = service_fn(move |request| answer(request, heard.clone()));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { says, serving }
    }

    /// From now on it lists these: id, application, host name.
    pub fn lists(&self, applications: &[(&str, &str, &str)]) {
        self.says(list(applications));
    }

    /// From now on its list is this text.
    pub fn says(&self, list: String) {
        self.says_in(list, Manner::Whole);
    }

    /// From now on its list is this text, as far as it comes.
    pub fn says_in(&self, list: String, manner: Manner) {
        self.says.send_modify(|says| *says = Says { event: says.event + 1, list, manner });
    }
}

/// A list of these applications: id, application, host name.
#[must_use]
pub fn list(applications: &[(&str, &str, &str)]) -> String {
    let row = |(id, app_id, host): &(&str, &str, &str)| json!({"instanceId": id, "appId": app_id, "displayName": app_id, "hostName": host});
    json!({ "applications": applications.iter().map(row).collect::<Vec<Value>>() }).to_string()
}

async fn answer(
    request: Request<Incoming>,
    mut heard: watch::Receiver<Says>,
) -> Result<Response<Told>, hyper::Error> {
    let known = request.headers().get("x-application-id").is_some_and(|id| id == ADMIN)
        && request.headers().contains_key("authorization");
    let event = request.uri().query().and_then(|query| query.strip_prefix("e=")?.parse::<u64>().ok());
    if known && (request.uri().path(), event) == ("/api/applications", None) {
        let Says { list, manner, .. } = heard.borrow().clone();
        return Ok(Response::new(Told { text: Some(list.into()), manner }));
    }
    let (status, body) = match (request.uri().path(), event) {
        _ if !known => (StatusCode::UNAUTHORIZED, String::new()),
        ("/api/poll", Some(event)) => match heard.wait_for(|says| says.event >= event).await {
            Ok(says) => (StatusCode::OK, json!({"id": says.event, "version": "1"}).to_string()),
            Err(_) => (StatusCode::NOT_MODIFIED, String::new()),
        },
        _ => (StatusCode::BAD_REQUEST, String::new()),
    };
    Ok(Response::builder().status(status).body(Told::from(body)).unwrap())
}

impl Platform {
    /// Asks debug-api as the proxy passes on what the admin app asks; the status, and the JSON of the answer.
    ///
    /// # Panics
    /// When it doesn't answer.
    pub async fn facade(&self, method: Method, path: &str, body: Vec<u8>) -> (u16, Value) {
        let call = async {
            let stream = UnixStream::connect(self.run().join("debug-api.http.sock")).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let request = Request::builder().method(method).uri(format!("/internal/platform/{path}"));
            let request = request
                .header("host", "localhost")
                .header("nexushub-proxy-token", self.token("proxy", "debug-api"))
                .header("x-caller-id", ADMIN)
                .header("x-acting-user", "ada")
                .body(Full::<Bytes>::from(body));
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&text).unwrap_or_default())
        };
        soon(&format!("debug-api's answer to {path}"), call).await
    }

    /// What provider says of all that is asked for, once it pleases.
    ///
    /// # Panics
    /// When it never does.
    pub async fn asked_until(
        &self,
        what: &str,
        pleases: impl Fn(&ListInstancesResponse) -> bool,
    ) -> ListInstancesResponse {
        let mut attempt = tokio::time::interval(std::time::Duration::from_millis(20));
        soon(what, async {
            loop {
                let mut provider = ProviderServiceClient::new(self.operate("provider"))
                    .max_decoding_message_size(MESSAGE_BYTES);
                if let Ok(answer) = provider.list_instances(ListInstancesRequest {}).await {
                    let answer = answer.into_inner();
                    if pleases(&answer) {
                        return answer;
                    }
                }
                attempt.tick().await;
            }
        })
        .await
    }
}
