//! How an app is brought onto a platform: create, upload, install, ask until it answers, as the contract has it but for the upload,
//! which is tus, so that it goes on where it broke off. Every step may be repeated; a step that meets a daemon on its way back is.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use http::{Method, StatusCode};
use nexushub_chassis::{
    names::{HostName, Zone, is_label, shown},
    standing::says_up,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    failure::Failure,
    https::{Answer, Ask, Client},
    package::Package,
    releases::Release,
    table::one_line,
};

/// Bytes of the last request of an upload, which says of all of them what they are: until then they have been read. All before go in
/// one request, since between two of them nothing moves.
const TAIL: u64 = 1 << 20;
/// In an upload's metadata: what its file is like at first sight, by which a client that was ended finds it again.
const GLANCE: &str = "glance";
/// What tus says of every request.
const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
/// Tries of each request, and the waits between them.
const TRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// How often it is asked whether the app answers: soon at first, then about ten times as often as it took so far, within these.
const ASK_EVERY: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];

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
    /// A development server on this machine that answers what is not the app's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) static_service_url: Option<String>,
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
            static_service_url: None,
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
    file_sha256: String,
}

/// An unfinished upload, in `GET …/files`
#[derive(Debug, Deserialize)]
struct Unfinished {
    location: String,
    #[serde(default)]
    metadata: String,
}

/// An upload that goes on from there; found, if it was begun by a client before this one.
struct Begun {
    path: String,
    offset: u64,
    found: bool,
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
        match self.status.as_str() {
            status if says_up(status, self.health_check.as_deref()) => Outlook::Up,
            "failed" | "stopped" => Outlook::Over,
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

/// What one request brings of a package.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    at: u64,
    end: u64,
    /// Of the whole package.
    digest: Option<String>,
}

impl Part {
    /// All from there on but the tail, or that with the digest.
    async fn of(package: &Package, at: u64) -> Result<Self, Failure> {
        let tail = package.len.saturating_sub(TAIL);
        if at < tail {
            return Ok(Self { at, end: tail, digest: None });
        }
        let sha256 = package.sha256().await.map_err(|error| unread(&error))?;
        let bytes = HEXLOWER.decode(sha256.as_bytes()).unwrap_or_default();
        Ok(Self { at, end: package.len, digest: Some(format!("sha-256=:{}:", BASE64.encode(&bytes))) })
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
        let (path, content_type) = ("/debug/application", "application/json");
        let ask = Ask { method: Method::POST, path, content_type, fields: &[], body: body.into() };
        let answer = send(client, ask).await?;
        let taken = answer.status == StatusCode::CONFLICT;
        let answer = expect(answer, "create the application").map_err(|failure| {
            let hint = if taken { ANOTHER_NAME.to_owned() } else { failure.hint };
            Failure { hint, ..failure }
        })?;
        understood(&answer).map(|Created { id }| Self { client, id })
    }

    /// One that exists.
    pub(crate) fn known(client: &'c Client, id: String) -> Self {
        Self { client, id }
    }

    /// Whether this very file is there already; none when there is no such application any more.
    pub(crate) async fn holds(&self, package: &Package) -> Result<Option<bool>, Failure> {
        if self.ask(Method::GET, "status").await?.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.ask(Method::GET, "upload/status").await?;
        let status: UploadStatus = serde_json::from_slice(&answer.body).unwrap_or_default();
        if !answer.status.is_success() || !status.completed {
            return Ok(Some(false));
        }
        Ok(Some(status.file_sha256 == package.sha256().await.map_err(|error| unread(&error))?))
    }

    /// Sends the package; what an earlier client that was ended sent of it is not sent again.
    pub(crate) async fn upload(&self, package: &Package) -> Result<(), Failure> {
        let glance = format!(
            "{GLANCE} {}",
            BASE64.encode(package.glance().map_err(|error| unread(&error))?.as_bytes())
        );
        let found = match self.unfinished(&glance).await {
            Some(path) => self.offset(&path).await.ok().map(|offset| Begun { path, offset, found: true }),
            None => None,
        };
        if let Some(found) = found
            && self.send(found, package).await?
        {
            return Ok(());
        }
        let path = self.begin(package.len, &glance).await?;
        self.send(Begun { path, offset: 0, found: false }, package).await.map(drop)
    }

    /// Sends what is missing. Where that breaks off it goes on with what the platform doesn't have yet, and gives up only when tries
    /// in a row bring nothing. False: what was found to go on with was no good, and is gone.
    async fn send(&self, begun: Begun, package: &Package) -> Result<bool, Failure> {
        let Begun { path, mut offset, found } = begun;
        let mut waits = TRIES.iter();
        while offset < package.len {
            let what = format!("upload the package from byte {offset} on");
            let part = Part::of(package, offset).await?;
            let there = match self.append(&path, &part, package).await {
                Ok(answer) if answer.status.is_success() => part.end,
                Ok(answer) if !may_pass(answer.status) && found => {
                    self.forget(&path).await;
                    return Ok(false);
                }
                Ok(answer) if !may_pass(answer.status) => return expect(answer, &what).map(|_| true),
                _ if !package.is_there() => return Err(unread(&io::ErrorKind::UnexpectedEof.into())),
                said => {
                    let Some(wait) = waits.next() else { return expect(said?, &what).map(|_| true) };
                    tokio::time::sleep(*wait).await;
                    self.offset(&path).await?
                }
            };
            if there > offset {
                waits = TRIES.iter();
            }
            offset = there;
        }
        Ok(true)
    }

    /// Ends an upload; one that stays nevertheless expires.
    async fn forget(&self, path: &str) {
        let ask = Ask { method: Method::DELETE, path, content_type: "", fields: &[TUS], body: Bytes::new() };
        let _ = send(self.client, ask).await;
    }

    /// Where an upload of the same file is that was not finished.
    async fn unfinished(&self, glance: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct All {
            uploads: Vec<Unfinished>,
        }
        let answer = self.ask(Method::GET, "files").await.ok().filter(|answer| answer.status.is_success())?;
        let all: All = serde_json::from_slice(&answer.body).ok()?;
        let own = format!("/debug/application/{}/files/", self.id);
        let same = |one: &Unfinished| one.metadata == glance && one.location.starts_with(&own);
        all.uploads.into_iter().find(same).map(|one| one.location)
    }

    /// Where the upload is, once there is one.
    async fn begin(&self, length: u64, glance: &str) -> Result<String, Failure> {
        let length = length.to_string();
        let fields = [TUS, ("upload-length", &*length), ("upload-metadata", glance)];
        let path = format!("/debug/application/{}/files", self.id);
        let ask =
            Ask { method: Method::POST, path: &path, content_type: "", fields: &fields, body: Bytes::new() };
        let answer = expect(send(self.client, ask).await?, "begin the upload")?;
        let place = answer.headers.get("location").and_then(|place| place.to_str().ok());
        place.filter(|place| place.starts_with(&path)).map(str::to_owned).ok_or_else(|| {
            Failure::new("the platform does not say where the upload is", "is it a NexusHub platform?")
        })
    }

    /// Once, for whatever came of it is asked for before it is tried again.
    async fn append(&self, path: &str, part: &Part, package: &Package) -> Result<Answer, Failure> {
        let (at, content_type) = (part.at.to_string(), "application/offset+octet-stream");
        let mut fields = vec![TUS, ("upload-offset", &*at)];
        fields.extend(part.digest.as_deref().map(|digest| ("repr-digest", digest)));
        let ask = Ask { method: Method::PATCH, path, content_type, fields: &fields, body: Bytes::new() };
        self.client.ask_with(ask, package.pieces(part.at, part.end - part.at)).await
    }

    /// How many bytes the platform has.
    async fn offset(&self, path: &str) -> Result<u64, Failure> {
        let ask = Ask { method: Method::HEAD, path, content_type: "", fields: &[TUS], body: Bytes::new() };
        let answer = expect(send(self.client, ask).await?, "go on with the upload")?;
        told(&answer).ok_or_else(|| {
            Failure::new("the platform does not say how much it has", "is it a NexusHub platform?")
        })
    }

    /// Unpacks what was uploaded, and has it started: this package, and no other that somebody else has put in its place.
    pub(crate) async fn install(&self, package: &Package) -> Result<(), Failure> {
        let sha256 = package.sha256().await.map_err(|error| unread(&error))?;
        self.install_what(&format!("install?sha256={sha256}")).await
    }

    async fn install_what(&self, what: &str) -> Result<(), Failure> {
        expect(self.ask(Method::POST, what).await?, "install the package").map(drop)
    }

    /// Has it run as it did last, whatever was uploaded since or is newer; what never ran is installed.
    pub(crate) async fn start(&self) -> Result<(), Failure> {
        match self.releases().await?.iter().find(|release| release.is_current()) {
            Some(current) => self.roll_back(Some(&current.id)).await.map(drop),
            None => self.install_what("install").await,
        }
    }

    /// The releases that are kept.
    pub(crate) async fn releases(&self) -> Result<Vec<Release>, Failure> {
        #[derive(Deserialize)]
        struct Kept {
            releases: Vec<Release>,
        }
        let answer = expect(self.ask(Method::GET, "releases").await?, "list the releases")?;
        understood(&answer).map(|Kept { releases }| releases)
    }

    /// Goes back to a release, and says which it is.
    pub(crate) async fn roll_back(&self, release: Option<&str>) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Back {
            release: String,
        }
        let plain = |release: &&str| {
            !release.is_empty() && release.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let what = match release {
            None => "rollback".to_owned(),
            Some(release) if plain(&release) => format!("rollback?release={release}"),
            Some(_) => {
                return Err(Failure::usage("that is no release", "say one that `nexushub releases` shows"));
            }
        };
        let answer = self.ask(Method::POST, &what).await?;
        let why = (answer.status == StatusCode::NOT_FOUND).then(|| answer.text());
        match why {
            Some(why) => Err(Failure::new(why, "nexushub releases shows those that are kept")),
            None => understood(&expect(answer, "roll back")?).map(|Back { release }| release),
        }
    }

    /// Waits until it answers; what it is like when it does, or when there is no more hope or time.
    pub(crate) async fn await_up(&self, patience: Duration) -> Result<(), Standing> {
        let began = Instant::now();
        loop {
            let asked = self.ask(Method::GET, "status").await;
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
                Outlook::Wait => {
                    let [soonest, latest] = ASK_EVERY;
                    tokio::time::sleep((began.elapsed() / 10).clamp(soonest, latest)).await;
                }
            }
        }
    }

    async fn ask(&self, method: Method, what: &str) -> Result<Answer, Failure> {
        let path = format!("/debug/application/{}/{what}", self.id);
        send(self.client, Ask { method, path: &path, content_type: "", fields: &[], body: Bytes::new() })
            .await
    }
}

/// The offset that an answer tells.
fn told(answer: &Answer) -> Option<u64> {
    answer.headers.get("upload-offset")?.to_str().ok()?.parse().ok()
}

fn unread(error: &io::Error) -> Failure {
    Failure::new(format!("could not read the package: {error}"), "was it changed meanwhile? push again")
}

/// What an answer says as JSON.
pub(crate) fn understood<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::new(
            format!("the platform's answer is not understood: {error}"),
            "is it a NexusHub platform?",
        )
    })
}

/// Asks, and asks again while the platform can't answer.
pub(crate) async fn send(client: &Client, ask: Ask<'_>) -> Result<Answer, Failure> {
    let away = |answer: &Result<Answer, Failure>| {
        answer.as_ref().map_or_else(|failure| failure.passing, |answer| is_away(answer.status))
    };
    again(|| client.ask(ask.clone()), away).await
}

/// Does it, and does it again while that may help.
pub(crate) async fn again<T, Done: Future<Output = T>>(
    mut once: impl FnMut() -> Done,
    passes: impl Fn(&T) -> bool,
) -> T {
    let mut waits = TRIES.iter();
    loop {
        let done = once().await;
        match waits.next().filter(|_| passes(&done)) {
            Some(wait) => tokio::time::sleep(*wait).await,
            None => return done,
        }
    }
}

/// What to do where a name is another's.
const ANOTHER_NAME: &str = "name it otherwise by --name or --host-name, or see who has it: nexushub apps";

/// How the platform begins what is wrong with a package itself.
const UNFIT: &str = "Package preparation failed: ";
/// What to do where the platform says no more than that something failed.
pub(crate) const ASK_THERE: &str =
    "try again; the whole reason is known on the platform's machine: nexushub logs debug-api";

/// Whether it is the package itself that the platform won't have.
pub(crate) fn is_unfit(failure: &Failure) -> bool {
    failure.message.contains(UNFIT)
}

/// What is said while a daemon is on its way back.
pub(crate) fn is_away(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// A refusal of some bytes of an upload that says nothing against going on: it was silent, or is elsewhere than was thought.
fn may_pass(status: StatusCode) -> bool {
    is_away(status) || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT)
}

/// The answer, if it says that it was done.
pub(crate) fn expect(answer: Answer, what: &str) -> Result<Answer, Failure> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let hint = match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the platform may have been started anew just now: try again"
        }
        StatusCode::NOT_FOUND => "it was removed meanwhile; push again",
        StatusCode::PAYLOAD_TOO_LARGE => {
            "make it smaller; the bound is in [debug-api] of the platform's configuration"
        }
        StatusCode::INSUFFICIENT_STORAGE => "free some space on the platform's machine, and try again",
        _ if answer.text().starts_with(UNFIT) => "mend the package and bring it again; what runs goes on",
        status if status.is_server_error() => ASK_THERE,
        _ => "",
    };
    Err(Failure::new(format!("could not {what}: {} ({})", answer.text(), answer.status.as_u16()), hint))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn zone() -> Zone {
        Zone::new("b.localhost", 8443)
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let hint = |status: StatusCode, text: &str| {
            let (headers, body) = (http::HeaderMap::new(), text.to_owned().into());
            expect(Answer { status, headers, body }, "x").err().unwrap().hint
        };
        assert!(hint(StatusCode::INTERNAL_SERVER_ERROR, "boom").contains("logs debug-api"));
        let unfit = "Package preparation failed: bin/app is for aarch64, this machine is x86_64";
        assert!(hint(StatusCode::INTERNAL_SERVER_ERROR, unfit).contains("mend the package"));
        assert!(hint(StatusCode::INSUFFICIENT_STORAGE, unfit).contains("free some space"));
        assert!(hint(StatusCode::PAYLOAD_TOO_LARGE, "Upload is too large").contains("smaller"));
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
            static_service_url: None,
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

    #[tokio::test]
    async fn the_digest_of_the_whole_goes_with_the_last_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.tar.zst");
        std::fs::write(&path, [&[0x28, 0xb5, 0x2f, 0xfd][..], &vec![7; 3 << 20]].concat()).unwrap();
        let package = Package::open(&path).unwrap();
        let tail = package.len - TAIL;
        for at in [0, 1, tail - 1] {
            assert_eq!(Part::of(&package, at).await.unwrap(), Part { at, end: tail, digest: None });
        }
        for at in [tail, package.len - 1] {
            let part = Part::of(&package, at).await.unwrap();
            assert_eq!((part.at, part.end), (at, package.len));
            assert!(part.digest.is_some_and(|digest| digest.starts_with("sha-256=:")));
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [408, 409, 502, 503, 504] {
            assert!(may_pass(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [400, 404, 413, 422, 429, 500, 507] {
            assert!(!may_pass(StatusCode::from_u16(status).unwrap()), "{status}");
        }
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
