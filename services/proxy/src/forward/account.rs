//! What the proxy answers about logging in, for programs and for the platform's own apps: access tokens for a session, the end of
//! all sessions, and who was logged out. The login app knows sessions; access tokens are made here once it agreed.

use std::{pin::Pin, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use nexushub_chassis::audit::Outcome;
use serde::Deserialize;
use serde_json::json;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Exchange,
    ask::{Grant, Said, collect, unusable},
    too_large,
};
use crate::{
    audit,
    body::ResponseBody,
    clock,
    cookies::{self, HOST_YRT, YRT},
    cors,
    decide::Ours,
    identity::User,
    refusal::Refusal,
    wellknown::LOGIN,
};

/// Bytes of a list of who was logged out.
const REVOCATIONS_BYTES: usize = 1024 * 1024;
/// Time for such a list to come.
const REVOCATIONS_TIME: Duration = Duration::from_secs(10);

/// A session as it is shown, and under which name it came.
pub(super) struct Refresh {
    pub(super) name: &'static str,
    pub(super) token: String,
}

/// What was made of a session.
pub(super) struct Renewed {
    pub(super) user: User,
    pub(super) access: String,
    pub(super) refresh: String,
    /// For how long, in seconds.
    pub(super) lasts: i64,
}

/// Who was logged out.
#[derive(Deserialize)]
struct Revocations {
    #[serde(default)]
    sessions: Vec<String>,
    #[serde(default)]
    users: Vec<i64>,
}

#[derive(Deserialize)]
struct Ended {
    #[serde(rename = "SessionIDs")]
    sessions: Vec<String>,
    /// Whose they were, for the audit log; an earlier login app does not say it.
    #[serde(rename = "UserID")]
    user: Option<i64>,
}

impl Exchange {
    /// The proxy's own answer.
    pub(super) async fn answer(
        &mut self,
        ours: Ours,
        authority: &HeaderValue,
    ) -> Result<Response<ResponseBody>, Refusal> {
        match ours {
            Ours::Token { audience, public } => self.token(&audience, public, authority).await,
            Ours::Logout => self.logout(authority).await,
            Ours::Revocations => self.revocations().await,
            Ours::Preflight(route) => {
                let headers = cors::preflight(&self.parts.headers, &route.entry.rules);
                Ok(reply(StatusCode::NO_CONTENT, headers, ""))
            }
            Ours::ToSignIn => Ok(self.to_sign_in()),
            Ours::SignIn { route, audience } => self.sign_in(&route, &audience, authority).await,
            Ours::Return => self.send_back(authority),
            Ours::Session { audience } => self.session(&audience, authority).await,
            Ours::SignOut => self.sign_out(authority).await,
        }
    }

    /// The refresh token that came, that of a browser's sign-in at this host before that of a program.
    pub(super) fn refresh_token(&self) -> Option<Refresh> {
        [HOST_YRT, YRT].into_iter().find_map(|name| {
            let token = cookies::get(&self.parts.headers, name).filter(|token| cookies::is_value(token))?;
            Some(Refresh { name, token: token.to_owned() })
        })
    }

    /// An access token for this instance, if the login app lets the session go on.
    pub(super) async fn renew(
        &self,
        refresh: &str,
        audience: &str,
        authority: &HeaderValue,
    ) -> Result<Said<Renewed>, Refusal> {
        let question = json!({ "RefreshToken": refresh, "ApplicationID": audience, "Address": self.client });
        let path = "/internal/access_token";
        let said = self.ask_login(path, &question, authority).await?;
        self.granted(path, said, audience).await
    }

    /// What comes of the login app's word.
    pub(super) async fn granted(
        &self,
        path: &'static str,
        said: Said<Grant>,
        audience: &str,
    ) -> Result<Said<Renewed>, Refusal> {
        let grant = match said {
            Said::Yes(grant) => grant,
            Said::Denied => return Ok(Said::Denied),
            Said::No(error) => return Ok(Said::No(error)),
        };
        let user = grant.user().filter(|_| cookies::is_value(&grant.refresh));
        let user = user.ok_or_else(|| unusable(path, "a session or refresh token of unusable characters"))?;
        let now_ms = clock::about_unix_ms();
        let (tokens, instance) = (Arc::clone(&self.proxy.gate.tokens), audience.to_owned());
        // It may take a new key, and that a file.
        let made = spawn_blocking(move || Some((tokens.make(&instance, &user, now_ms)?, user)));
        let made = made.await.ok().flatten();
        let (access, user) = made.ok_or_else(|| unusable(path, "no access token could be made"))?;
        let lasts = grant.refresh_expires_unix - now_ms / 1000;
        Ok(Said::Yes(Renewed { user, access, refresh: grant.refresh, lasts }))
    }

    /// An access token for a program; what is said otherwise is as its clients know it.
    async fn token(
        &mut self,
        audience: &str,
        public: bool,
        authority: &HeaderValue,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let Some(shown) = self.refresh_token() else {
            let refused = Refusal::new(StatusCode::FORBIDDEN, "missing refresh token");
            return if public { Err(refused) } else { Ok(self.where_to_log_in(authority)) };
        };
        let refused = match self.renew(&shown.token, audience, authority).await? {
            Said::Yes(renewed) => {
                self.audit(audit::REFRESH, &user_id(&renewed.user), audience, None);
                let lasts = (shown.name == HOST_YRT).then_some(renewed.lasts);
                let cookie = cookies::set(shown.name, &renewed.refresh, lasts);
                let body = json!({ "access_token": renewed.access }).to_string();
                return Ok(reply(StatusCode::OK, with(json_headers(), cookie), body));
            }
            Said::Denied => return Err(self.refused(audience, "denied")),
            Said::No(error) => self.refused(audience, &error),
        };
        if public { Err(refused) } else { Ok(self.where_to_log_in(authority)) }
    }

    /// What is said to who may not have a token.
    pub(super) fn refused(&self, audience: &str, error: &str) -> Refusal {
        self.proxy.counters.access_refused.up();
        self.audit(audit::REFRESH, "", audience, Some(error));
        match error {
            "denied" => Refusal::new(StatusCode::FORBIDDEN, "access denied"),
            "expired" => Refusal::new(StatusCode::UNAUTHORIZED, "session expired"),
            _ => Refusal::new(StatusCode::FORBIDDEN, "refresh token not found"),
        }
    }

    fn where_to_log_in(&self, authority: &HeaderValue) -> Response<ResponseBody> {
        let url = format!("{}/", self.url_of_login(authority));
        reply(StatusCode::OK, json_headers(), json!({ "login_url": url }).to_string())
    }

    async fn logout(&mut self, authority: &HeaderValue) -> Result<Response<ResponseBody>, Refusal> {
        let bad = |why| Refusal::new(StatusCode::BAD_REQUEST, why);
        let shown = self.refresh_token().ok_or_else(|| bad("missing refresh token"))?;
        if !self.end_sessions(&shown.token, authority).await? {
            self.audit("session.log_out", "", LOGIN, Some("invalid refresh token"));
            return Err(bad("invalid refresh token"));
        }
        let cleared = forget_all(json_headers(), &[YRT, HOST_YRT, cookies::HOST_YAT]);
        Ok(reply(StatusCode::OK, cleared, "null"))
    }

    /// Ends every session of the user whose refresh token this is, here and at the login app; false if it is nobody's.
    pub(super) async fn end_sessions(&self, refresh: &str, authority: &HeaderValue) -> Result<bool, Refusal> {
        let question = json!({ "RefreshToken": refresh, "Address": self.client });
        match self.ask_login::<Ended>("/internal/logout", &question, authority).await? {
            Said::Yes(ended) => {
                let who = ended.user.map_or_else(String::new, user_named);
                self.audit("session.log_out", &who, LOGIN, None);
                self.revoke(ended.sessions, Vec::new()).await?;
                Ok(true)
            }
            Said::Denied | Said::No(_) => Ok(false),
        }
    }

    async fn revocations(&mut self) -> Result<Response<ResponseBody>, Refusal> {
        let bytes = timeout(REVOCATIONS_TIME, collect(Pin::new(&mut self.body), REVOCATIONS_BYTES)).await;
        let bytes = bytes.ok().flatten().ok_or_else(too_large)?;
        let told: Revocations = serde_json::from_slice(&bytes)
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "not a list of sessions and users"))?;
        self.revoke(told.sessions, told.users).await?;
        Ok(reply(StatusCode::NO_CONTENT, HeaderMap::new(), ""))
    }

    /// Voids access tokens, for good once this returns.
    async fn revoke(&self, sessions: Vec<String>, users: Vec<i64>) -> Result<(), Refusal> {
        let number = sessions.len() + users.len();
        let revoked = Arc::clone(&self.proxy.gate.revoked);
        let kept = spawn_blocking(move || revoked.add(sessions, users, clock::about_unix_ms())).await;
        match kept {
            Ok(Ok(())) => {
                self.audit("session.revoke", "", &format!("{number} sessions or users"), None);
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "who was logged out could not be kept");
                Err(Refusal::unavailable("Service Unavailable: the log-out could not be kept", 1))
            }
            Err(_) => Err(Refusal::unavailable("Service Unavailable: the proxy is stopping", 1)),
        }
    }

    /// Notes what was done, or why it was refused.
    pub(super) fn audit(&self, what: &'static str, who: &str, object: &str, refused: Option<&str>) {
        let outcome = if refused.is_some() { Outcome::Refused } else { Outcome::Done };
        let (from, detail) = (self.client, refused.unwrap_or_default());
        self.proxy.trail.note(&audit::Event { what, who, object, from, outcome, detail });
    }

    /// Where the login app is, as the client reaches this host.
    pub(super) fn url_of_login(&self, authority: &HeaderValue) -> String {
        let table = self.proxy.table.borrow();
        let host = table.by_id(LOGIN).map_or("login", |login| login.entry.host.as_str());
        self.url_of(host, authority)
    }

    /// Where a host of the platform is, by the port by which the client reaches this one.
    pub(super) fn url_of(&self, host: &str, authority: &HeaderValue) -> String {
        let base = &self.proxy.policy.base_domain;
        let port = authority.to_str().ok().and_then(|authority| authority.rsplit_once(':'));
        let port = port.map(|(_, port)| port).filter(|port| !port.contains(']') && *port != "443");
        let colon = if port.is_some() { ":" } else { "" };
        format!("https://{host}.{base}{colon}{}", port.unwrap_or_default())
    }
}

/// How the audit log calls a user.
pub(super) fn user_id(user: &User) -> String {
    user_named(user.id)
}

fn user_named(id: i64) -> String {
    format!("user {id}")
}

/// What nobody may keep.
fn private() -> HeaderMap {
    HeaderMap::from_iter([
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ])
}

fn json_headers() -> HeaderMap {
    let mut headers = private();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

/// These headers and a cookie.
pub(super) fn with(mut headers: HeaderMap, cookie: Option<HeaderValue>) -> HeaderMap {
    if let Some(cookie) = cookie {
        headers.append(SET_COOKIE, cookie);
    }
    headers
}

/// These headers, and cookies that are to be forgotten.
pub(super) fn forget_all(headers: HeaderMap, names: &[&str]) -> HeaderMap {
    names.iter().fold(headers, |headers, name| with(headers, cookies::clear(name)))
}

/// An answer with a few words.
pub(super) fn reply(
    status: StatusCode,
    mut headers: HeaderMap,
    body: impl Into<String>,
) -> Response<ResponseBody> {
    let body = body.into();
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut response = Response::new(ResponseBody::text(body.into()));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

/// To another place, by GET.
pub(super) fn see_other(location: &str, mut headers: HeaderMap) -> Response<ResponseBody> {
    headers.extend(private());
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(LOCATION, location);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply(StatusCode::SEE_OTHER, headers, "")
}
