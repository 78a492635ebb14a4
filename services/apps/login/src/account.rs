//! "My account": where somebody is signed in, what was done of late in their name, and the ways to end it.

use std::sync::Arc;

use axum::{
    extract::{Form, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use nexushub_applib::{
    Refusal,
    page::{Notice, see_other},
};
use serde::Deserialize;

use crate::{
    Login, clear_cookies, directory, is_foreign, origin,
    public::locked_out,
    signin::{session, trouble},
    store::{self, Entry, Session},
    view,
};

/// Lines of the audit trail that are shown.
const LINES: i64 = 15;

/// What was just done, for the page after it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct After {
    done: String,
}

/// What each of the forms may send.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Filled {
    csrf: String,
    id: String,
    old: String,
    new: String,
    again: String,
}

/// `GET /`
pub(crate) async fn show(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Query(after): Query<After>,
) -> Result<Response, Response> {
    let Some((_, here)) = session(&login, &headers).await.map_err(trouble)? else {
        return Ok(see_other("/signin"));
    };
    let notice = match after.done.as_str() {
        "ended" => Some(Notice::Good("That session has ended.".to_owned())),
        "password" => {
            Some(Notice::Good("Your password is changed, and every other session has ended.".to_owned()))
        }
        _ => None,
    };
    page(&login, &here, notice).await.map_err(trouble)
}

async fn page(login: &Login, here: &Session, notice: Option<Notice>) -> Result<Response, Refusal> {
    let person = here.person.clone();
    let (sessions, trail) = login
        .db
        .run(move |tx| Ok::<_, Refusal>((store::sessions(tx, person.id)?, store::trail(tx, &person, LINES)?)))
        .await?;
    let csrf = login.csrf.token(&here.id);
    Ok(view::account(here, &sessions, &trail, notice.as_ref(), &csrf, login.now()).into_response())
}

/// Who sent a form of this page, if they did so themselves.
async fn sender(login: &Login, headers: &HeaderMap, filled: &Filled) -> Result<Session, Response> {
    let Some((_, here)) = session(login, headers).await.map_err(trouble)? else {
        return Err(see_other("/signin"));
    };
    if is_foreign(headers, &login.host) || !login.csrf.holds(&here.id, &filled.csrf) {
        return Err(trouble(Refusal::stale_form()));
    }
    Ok(here)
}

fn entry(login: &Login, headers: &HeaderMap, here: &Session, what: &str, detail: &str) -> Entry {
    Entry {
        at: login.now(),
        what: what.into(),
        user: Some(here.person.id),
        name: here.person.name.clone(),
        address: origin(headers).address,
        app: String::new(),
        detail: detail.into(),
    }
}

/// `POST /session/end`: one session, which may be this one.
pub(crate) async fn end_session(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Form(filled): Form<Filled>,
) -> Result<Response, Response> {
    let here = sender(&login, &headers, &filled).await?;
    let (user, id) = (here.person.id, filled.id);
    let entry = entry(&login, &headers, &here, "logout", "one session, from the account page");
    let own = id == here.id;
    let ended = login.db.run(move |tx| {
        if store::sessions(tx, user)?.iter().any(|session| session.id == id) && store::end(tx, &id)? {
            store::audit(tx, &entry)?;
        }
        Ok::<_, Refusal>(())
    });
    ended.await.map_err(trouble)?;
    login.stir();
    Ok(if own { signed_out() } else { see_other("/?done=ended") })
}

/// `POST /signout`: this session.
pub(crate) async fn sign_out(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Form(mut filled): Form<Filled>,
) -> Result<Response, Response> {
    let here = sender(&login, &headers, &filled).await?;
    filled.id = here.id;
    end_session(State(login), headers, Form(filled)).await
}

/// `POST /everywhere`: all sessions, this one included.
pub(crate) async fn end_everywhere(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Form(filled): Form<Filled>,
) -> Result<Response, Response> {
    let here = sender(&login, &headers, &filled).await?;
    let (user, entry) = (here.person.id, entry(&login, &headers, &here, "logout", "everywhere"));
    let ended = login.db.run(move |tx| {
        store::audit(tx, &entry)?;
        Ok::<_, Refusal>(store::end_all(tx, user, None)?)
    });
    ended.await.map_err(trouble)?;
    login.stir();
    Ok(signed_out())
}

fn signed_out() -> Response {
    let mut answer = see_other("/signin");
    clear_cookies(&mut answer);
    answer
}

/// `POST /password`: another password, and an end to every other session.
pub(crate) async fn change_password(
    State(login): State<Arc<Login>>,
    headers: HeaderMap,
    Form(filled): Form<Filled>,
) -> Result<Response, Response> {
    let here = sender(&login, &headers, &filled).await?;
    match new_password(&login, &headers, &here, &filled).await {
        Ok(()) => Ok(see_other("/?done=password")),
        Err(refusal) => {
            let mut answer = page(&login, &here, Some(Notice::from(&refusal))).await.map_err(trouble)?;
            *answer.status_mut() = refusal.status;
            Err(answer)
        }
    }
}

async fn new_password(
    login: &Login,
    headers: &HeaderMap,
    here: &Session,
    filled: &Filled,
) -> Result<(), Refusal> {
    if filled.new != filled.again {
        return Err(Refusal::bad("The new password was not the same twice."));
    }
    // Guessing the old password is guessing, too.
    let (person, address) = (&here.person, origin(headers).address);
    let begun = login.guesses().begin(&person.name, &address, login.now());
    let attempt = match begun {
        Ok(attempt) => attempt,
        Err(wait) => {
            locked_out(login, &person.name, Some(person.id), &address, wait).await?;
            let text = format!("Too many attempts. Please wait {} and try again.", view::duration(wait));
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text));
        }
    };
    let set = login.directory.set_password(person.id, &filled.old, &filled.new, &address).await;
    let set = set.map_err(|error| {
        login.guesses().take_back(&attempt);
        directory::away(&error)
    })?;
    if let Err(why) = set {
        login.refused(entry(login, headers, here, "refusal", &format!("another password: {why}"))).await?;
        return Err(Refusal::bad(format!("Your password was not changed: {why}.")));
    }
    login.guesses().right(&attempt);
    let (user, keep) = (here.person.id, here.id.clone());
    let entry = entry(login, headers, here, "password", "changed; every other session has ended");
    login
        .db
        .run(move |tx| {
            store::audit(tx, &entry)?;
            Ok::<_, Refusal>(store::end_all(tx, user, Some(&keep))?)
        })
        .await?;
    login.stir();
    Ok(())
}

/// What is not here.
pub(crate) async fn missing() -> Response {
    trouble(Refusal::missing("there is no such page"))
}
