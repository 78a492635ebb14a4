//! `POST /public/login`, as clients of the HTTP contract ask it, and what it shares with the page: who may try, and how
//! often.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use nexushub_applib::Refusal;
use serde::Deserialize;
use serde_json::json;

use crate::{
    CLIENTS, Login, asked_host, directory, hand, held, is_foreign, origin,
    store::{self, Asked, Entry, Granted, Origin, Person},
};

/// Characters of a name that is asked about; a longer one is nobody's.
const NAME_MAX: usize = 128;
/// Bytes of a password; a longer one is wrong.
const PASSWORD_MAX: usize = 1024;

/// What somebody claims.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Credentials {
    pub username: String,
    pub password: String,
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(crate) enum No {
    /// Wrong name or password.
    Wrong,
    /// Too many of that: so many seconds to wait.
    Wait(i64),
    /// Nobody can tell just now.
    Refused(Refusal),
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        match self {
            Self::Wrong => (StatusCode::UNAUTHORIZED, "invalid username or password\n").into_response(),
            Self::Wait(seconds) => {
                let text = format!("too many attempts; try again in {seconds} s\n");
                (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())], text).into_response()
            }
            Self::Refused(refusal) => {
                let retry = [(RETRY_AFTER, "2".to_owned())];
                (retry, refusal).into_response()
            }
        }
    }
}

/// Checks what somebody claims, and begins a session.
pub(crate) async fn authenticate(
    login: &Login,
    claimed: &Credentials,
    origin: Origin,
) -> Result<Granted, No> {
    let now = login.now();
    let name: String = claimed.username.trim().to_owned();
    if name.chars().count() > NAME_MAX || claimed.password.len() > PASSWORD_MAX {
        return Err(No::Wrong); // nobody's, which costs nothing to know
    }
    let begun = login.guesses().begin(&name, &origin.address, now);
    let attempt = match begun {
        Ok(attempt) => attempt,
        Err(wait) => {
            locked_out(login, &name, None, &origin.address, wait).await.map_err(No::Refused)?;
            return Err(No::Wait(wait));
        }
    };
    let known = login.directory.who(&name, &claimed.password).await.map_err(|error| {
        login.guesses().take_back(&attempt);
        No::Refused(directory::away(&error))
    })?;
    let Some(person) = known else {
        let (what, detail) = ("refusal".into(), store::WRONG.into());
        let entry = Entry { at: now, what, name, address: origin.address, detail, ..Entry::default() };
        login.refused(entry).await.map_err(No::Refused)?;
        return Err(No::Wrong);
    };
    login.guesses().right(&attempt);
    admit(login, person, origin, "").await.map_err(No::Refused)
}

/// Writes down that somebody has to wait, once each time.
pub(crate) async fn locked_out(
    login: &Login,
    name: &str,
    user: Option<i64>,
    address: &str,
    wait: i64,
) -> Result<(), Refusal> {
    let at = login.now();
    if !login.guesses().is_news(name, address, at) {
        return Ok(());
    }
    let (what, detail) = ("lockout".into(), format!("too many attempts; {wait} s to wait"));
    let (name, address) = (name.to_owned(), address.to_owned());
    login.refused(Entry { at, what, user, name, address, detail, ..Entry::default() }).await
}

/// Begins a session of somebody who proved who they are; `how`, if not by a password.
pub(crate) async fn admit(
    login: &Login,
    person: Person,
    origin: Origin,
    how: &str,
) -> Result<Granted, Refusal> {
    let now = login.now();
    let entry = Entry {
        at: now,
        what: "login".into(),
        user: Some(person.id),
        name: person.name.clone(),
        address: origin.address.clone(),
        detail: how.to_owned(),
        ..Entry::default()
    };
    let begun = login.db.run(move |tx| {
        store::audit(tx, &entry)?;
        Ok(store::begin(tx, &person, &origin, now)?)
    });
    let begun = begun.await;
    login.stir(); // it may be one session too many, of which the oldest ends
    begun
}

/// `POST /public/login {"username","password"}`. Who names nobody and holds a good token already goes on with that.
pub(crate) async fn login(State(login): State<Arc<Login>>, headers: HeaderMap, body: Bytes) -> Response {
    if is_foreign(&headers, &login.host) {
        return (StatusCode::FORBIDDEN, "not from another site\n").into_response();
    }
    let claimed: Option<Credentials> =
        if body.is_empty() { Some(Credentials::default()) } else { serde_json::from_slice(&body).ok() };
    let Some(claimed) = claimed else {
        return (StatusCode::BAD_REQUEST, "the body is no JSON with username and password\n").into_response();
    };
    let held = held(&headers, CLIENTS).filter(|_| claimed.username.is_empty() && claimed.password.is_empty());
    let granted = match held {
        Some(token) => go_on(&login, token.to_owned(), login.asked(&headers)).await,
        None => authenticate(&login, &claimed, origin(&headers)).await,
    };
    match granted {
        Ok(granted) => {
            // Clients expect this field; what opens an app is the cookie.
            let inert = uuid::Uuid::new_v4().to_string();
            let domain = asked_host(&headers, &login.host);
            let mut answer = Json(json!({ "domain": domain, "app_refresh_token": inert })).into_response();
            hand(&mut answer, CLIENTS, &granted.token);
            answer
        }
        Err(no) => no.into_response(),
    }
}

async fn go_on(login: &Login, token: String, asked: Asked) -> Result<Granted, No> {
    let next =
        login.db.run(move |tx| Ok(store::rotate(tx, &token, None, &asked)?)).await.map_err(No::Refused)?;
    login.stir(); // a token that was too old ended its session
    next.map_err(|_| No::Wrong)
}
