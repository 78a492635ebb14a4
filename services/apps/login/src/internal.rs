//! What the proxy and the admin app ask: a refresh token or a code against a fresh one, and the end of sessions.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use nexushub_applib::{Identity, Refusal};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Login,
    config::{ACCESS, ADMIN, LOGIN, PROXY},
    directory,
    store::{self, Asked, Entry, Granted, Person, Worthless},
};

/// The proxy's question for an access token.
#[derive(Deserialize)]
pub(crate) struct Refresh {
    #[serde(rename = "RefreshToken")]
    token: String,
    #[serde(rename = "ApplicationID")]
    app: String,
    /// From where, as the proxy knows; an earlier proxy does not say it.
    #[serde(rename = "Address", default)]
    from: String,
}

/// The proxy's question when a browser came back to an app.
#[derive(Deserialize)]
pub(crate) struct Redeem {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "ApplicationID")]
    app: String,
    #[serde(rename = "State")]
    state: String,
    /// From where, as the proxy knows; an earlier proxy does not say it.
    #[serde(rename = "Address", default)]
    from: String,
}

/// The proxy's word that somebody wants out.
#[derive(Deserialize)]
pub(crate) struct Logout {
    #[serde(rename = "RefreshToken")]
    token: String,
    /// From where, as the proxy knows; an earlier proxy does not say it.
    #[serde(rename = "Address", default)]
    from: String,
}

/// Admin's word that somebody has to go.
#[derive(Deserialize)]
pub(crate) struct Revoke {
    #[serde(rename = "UserID")]
    user: i64,
}

fn only(who: &Identity, callers: &[&str]) -> Result<(), Refusal> {
    let known = who.user.is_none() && callers.iter().any(|caller| who.is(caller));
    known.then_some(()).ok_or_else(|| Refusal::forbidden("not for this caller"))
}

fn worthless(login: &Login, why: Worthless) -> Response {
    login.stir(); // that it was used may have ended its session
    (StatusCode::UNAUTHORIZED, Json(json!({ "error": why.word() }))).into_response()
}

fn granted(granted: &Granted, app: &str, now: i64) -> Response {
    let answer = json!({
        "Expiry": now + ACCESS,
        "RefreshToken": granted.token,
        "AccessToken": "",
        "ApplicationID": app,
        "UserID": granted.person.id,
        "UserName": granted.person.name,
        "SessionID": granted.session,
        "RefreshExpiry": granted.expires,
    });
    Json(answer).into_response()
}

/// None when the user may open the app, else the answer.
async fn refused(
    login: &Login,
    person: &Person,
    app: &str,
    asked: &Asked,
) -> Result<Option<Response>, Refusal> {
    let may = login.directory.may_open(person.id, app).await.map_err(|error| directory::away(&error))?;
    if may {
        return Ok(None);
    }
    let entry = Entry { detail: "no access".into(), ..entry("refusal", person, app, asked) };
    login.db.run(move |tx| Ok::<_, Refusal>(store::audit(tx, &entry)?)).await?;
    Ok(Some((StatusCode::FORBIDDEN, Json(json!({ "error": "denied" }))).into_response()))
}

fn entry(what: &str, person: &Person, app: &str, asked: &Asked) -> Entry {
    Entry {
        at: asked.at,
        what: what.to_owned(),
        user: Some(person.id),
        name: person.name.clone(),
        address: asked.from.clone(),
        app: app.to_owned(),
        ..Entry::default()
    }
}

/// `POST /internal/access_token`: the token is followed by another, once admin has confirmed that its user may open the app.
pub(crate) async fn access_token(
    State(login): State<Arc<Login>>,
    who: Identity,
    Json(Refresh { token, app, from }): Json<Refresh>,
) -> Result<Response, Refusal> {
    only(&who, &[PROXY])?;
    let asked = Asked { at: login.now(), from };
    let (held, wanted, by) = (token.clone(), app.clone(), asked.clone());
    let held = login.db.run(move |tx| Ok::<_, Refusal>(store::look(tx, &held, Some(&wanted), &by)?)).await?;
    let session = match held {
        Ok(session) => session,
        Err(why) => return Ok(worthless(&login, why)),
    };
    if let Some(answer) = refused(&login, &session.person, &app, &asked).await? {
        return Ok(answer);
    }
    let (entry, wanted, now) = (entry("refresh", &session.person, &app, &asked), app.clone(), asked.at);
    let next = login.db.run(move |tx| {
        let next = store::rotate(tx, &token, Some(&wanted), &asked)?;
        if next.is_ok() {
            store::audit(tx, &entry)?;
        }
        Ok::<_, Refusal>(next)
    });
    Ok(next.await?.map_or_else(|why| worthless(&login, why), |next| granted(&next, &app, now)))
}

/// `POST /internal/redeem`: a code, which is gone then, against the first token of a family for one app.
pub(crate) async fn redeem(
    State(login): State<Arc<Login>>,
    who: Identity,
    Json(Redeem { code, app, state, from }): Json<Redeem>,
) -> Result<Response, Refusal> {
    only(&who, &[PROXY])?;
    let (now, wanted) = (login.now(), app.clone());
    let asked = Asked { at: now, from };
    let taken =
        login.db.run(move |tx| Ok::<_, Refusal>(store::take(tx, &code, &wanted, &state, now)?)).await?;
    let (session, person) = match taken {
        Ok(taken) => taken,
        Err(why) => return Ok(worthless(&login, why)),
    };
    if let Some(answer) = refused(&login, &person, &app, &asked).await? {
        return Ok(answer);
    }
    let (entry, wanted) = (entry("opened", &person, &app, &asked), app.clone());
    let first = login.db.run(move |tx| {
        store::audit(tx, &entry)?;
        Ok::<_, Refusal>(store::found(tx, &session, Some(&wanted), now)?)
    });
    Ok(granted(&first.await?, &app, now))
}

/// `POST /internal/logout`: all sessions of the token's user end.
pub(crate) async fn logout(
    State(login): State<Arc<Login>>,
    who: Identity,
    Json(Logout { token, from }): Json<Logout>,
) -> Result<Response, Refusal> {
    only(&who, &[PROXY])?;
    let asked = Asked { at: login.now(), from };
    let ended = login.db.run(move |tx| {
        // Any family's token will do, of whatever app: who holds one may end what it is good for.
        let session = match store::holder(tx, &token, &asked)? {
            Ok(session) => session,
            Err(why) => return Ok::<_, Refusal>(Err(why)),
        };
        store::audit(tx, &entry("logout", &session.person, "", &asked))?;
        let id = session.person.id;
        Ok(Ok(json!({ "SessionIDs": store::end_all(tx, id, None)?, "UserID": id })))
    });
    let ended = ended.await?;
    login.stir();
    Ok(ended.map_or_else(|why| worthless(&login, why), |ended| Json(ended).into_response()))
}

/// `POST /internal/revoke`: all sessions of a user end, because admin says so.
pub(crate) async fn revoke(
    State(login): State<Arc<Login>>,
    who: Identity,
    Json(Revoke { user }): Json<Revoke>,
) -> Result<Response, Refusal> {
    only(&who, &[ADMIN, LOGIN])?;
    let now = login.now();
    let ended = login.db.run(move |tx| {
        let detail = "by an administrator".to_owned();
        store::audit(
            tx,
            &Entry { at: now, what: "logout".into(), user: Some(user), detail, ..Entry::default() },
        )?;
        Ok::<_, Refusal>(store::end_all(tx, user, None)?)
    });
    let ended = ended.await?;
    login.stir();
    Ok(Json(json!({ "SessionIDs": ended })).into_response())
}
