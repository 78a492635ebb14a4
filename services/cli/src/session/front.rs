//! What is asked of a platform's front door before anybody is known there: which base domain it has, who somebody is, an access
//! token for a refresh token, and the end of it all. As the contract's clients ask: at the admin app's host, by the cookie `YRT`.

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use nexushub_chassis::names::{Place, Zone, is_name, place};
use serde::Deserialize;
use serde_json::json;

use crate::{
    failure::Failure,
    https::{Answer, Ask, Client, Target},
    table::one_line,
    upload,
};

/// The cookie of refresh tokens.
const YRT: &str = "YRT";
/// Longest token of either kind.
const TOKEN_MAX: usize = 4096;

/// What the platform says to a refresh token.
#[derive(PartialEq, Eq)]
pub(crate) enum Word {
    /// Here is an access token, and the refresh token that follows.
    Granted {
        /// By which requests pass.
        access: String,
        /// By which the next one is had.
        refresh: String,
    },
    /// This somebody is no administrator.
    Denied,
    /// The session is over.
    Ended,
}

/// Where the admin app of a platform is, at which its clients log in.
pub(crate) fn target(zone: &Zone) -> Target {
    Target::at(format!("admin.{}", zone.base()), zone.port())
}

/// Whether a host is a platform's base domain, or below it.
pub(crate) fn is_within(host: &str, base: &str) -> bool {
    place(host, base) != Place::Outside
}

/// The base domain of the platform at this door. Only one that the door's own name belongs to: its certificate proves nothing of
/// others.
pub(crate) async fn base_domain(door: &Client, named: &Target) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Said {
        login_url: String,
    }
    let (method, path) = (Method::GET, "/api/access_token");
    let answer = door.ask(Ask { method, path, content_type: "", fields: &[], body: Bytes::new() }).await?;
    let said = serde_json::from_slice::<Said>(&answer.body).ok().filter(|_| answer.status == StatusCode::OK);
    let Some(said) = said else {
        let what = format!(
            "https://{}:{} is not where somebody logs in at a NexusHub platform",
            named.host, named.port
        );
        return Err(strange(&what, &answer));
    };
    let uri: Option<Uri> = said.login_url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().to_ascii_lowercase();
    let base = host.split_once('.').map_or("", |(_, base)| base);
    if !is_name(base) || !is_within(&named.host, base) {
        let message =
            format!("the platform at {} says that people log in at {}", named.host, one_line(&host));
        return Err(Failure::new(
            message,
            "name it by a host of its own: nexushub login https://admin.DOMAIN",
        ));
    }
    Ok(base.to_owned())
}

/// A session of somebody: its first refresh token.
pub(crate) async fn log_in(door: &Client, user: &str, password: &str) -> Result<String, Failure> {
    let body = json!({ "username": user, "password": password }).to_string();
    let (method, path, content_type) = (Method::POST, "/public/login", "application/json");
    let answer = door.ask(Ask { method, path, content_type, fields: &[], body: body.into() }).await?;
    match answer.status {
        StatusCode::OK => cookie(&answer).ok_or_else(|| strange("the platform gives no session", &answer)),
        StatusCode::UNAUTHORIZED => {
            let shown = nexushub_chassis::names::shown(user);
            Err(Failure::new(format!("wrong password, or there is no user {shown}"), "try again"))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Err(Failure::new(format!("could not log in: {}", answer.text()), "wait that long"))
        }
        _ => Err(strange("could not log in", &answer)),
    }
}

/// An access token for a refresh token, which is used up by that.
pub(crate) async fn exchange(door: &Client, refresh: &str) -> Result<Word, Failure> {
    #[derive(Deserialize)]
    struct Said {
        access_token: String,
    }
    // An answer that got lost may be asked for again: for a minute the token is still good.
    let answer = show(door, "/public/access_token", refresh).await?;
    match answer.status {
        StatusCode::OK => {
            let access = serde_json::from_slice(&answer.body).ok().map(|Said { access_token }| access_token);
            match (access.filter(|token| is_token(token)), cookie(&answer)) {
                (Some(access), Some(refresh)) => Ok(Word::Granted { access, refresh }),
                _ => Err(strange("the platform gives no access token", &answer)),
            }
        }
        StatusCode::FORBIDDEN if answer.text() == "access denied" => Ok(Word::Denied),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Ok(Word::Ended),
        _ => Err(strange("the platform gives no access token", &answer)),
    }
}

/// Ends all sessions of whoever has this refresh token; false if it is nobody's any more.
pub(crate) async fn log_out(door: &Client, refresh: &str) -> Result<bool, Failure> {
    let answer = show(door, "/public/logout", refresh).await?;
    match answer.status {
        StatusCode::OK => Ok(true),
        StatusCode::BAD_REQUEST => Ok(false),
        _ => Err(strange("could not log out", &answer)),
    }
}

/// Shows a refresh token, and does so again while the platform can't answer.
async fn show(door: &Client, path: &str, refresh: &str) -> Result<Answer, Failure> {
    let cookie = format!("{YRT}={refresh}");
    let (method, fields) = (Method::POST, [("cookie", &*cookie)]);
    upload::send(door, Ask { method, path, content_type: "", fields: &fields, body: Bytes::new() }).await
}

/// An answer that is none to what was asked.
fn strange(what: &str, answer: &Answer) -> Failure {
    let status = answer.status.as_u16();
    if answer.status.is_redirection() {
        let hint = "no redirection is followed; name the platform by its own address";
        return Failure::new(format!("{what}: it sends elsewhere ({status})"), hint);
    }
    let said = if answer.status.is_success() { "that is not understood".to_owned() } else { answer.text() };
    let hint = if answer.status.is_server_error() {
        "try again in a moment"
    } else {
        "is it a NexusHub platform with the apps login and admin?"
    };
    Failure::new(format!("{what}: {said} ({status})"), hint)
}

/// The refresh token that an answer sets.
fn cookie(answer: &Answer) -> Option<String> {
    let all = answer.headers.get_all("set-cookie").into_iter().filter_map(|field| field.to_str().ok());
    let mut values = all.filter_map(|field| field.strip_prefix(YRT)?.strip_prefix('=')?.split(';').next());
    values.find(|value| is_token(value)).map(str::to_owned)
}

/// Whether it can be sent back as it is, in a cookie or behind `Bearer`.
fn is_token(text: &str) -> bool {
    (1..=TOKEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(&byte))
}
