//! The contract's endpoints: what the provider polls, and what clients of the earlier generations ask and publish.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use nexushub_applib::{Identity, Refusal, trail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    Admin, Administrator,
    events::{Change, client_id},
    store,
};

/// How long a poll is held.
const HELD: Duration = Duration::from_secs(50);
/// Polls held at once; one more is answered at once.
pub(crate) const POLLS: usize = 256;
/// How often it is looked for what another process of this app recorded.
const LOOK: Duration = Duration::from_secs(1);
/// In so many looks, one after the other, the same has to wait to be told until it counts as left.
const LOOKS: u32 = 5;

/// `GET /api/applications`: for whoever the platform let in, the provider first.
pub(crate) async fn applications(
    State(admin): State<Arc<Admin>>,
    _: Identity,
) -> Result<Json<Value>, Refusal> {
    let all = admin.db.run(|tx| Ok::<_, Refusal>(store::applications(tx)?)).await?;
    Ok(Json(json!({ "applications": all })))
}

/// What is waited for: text, so that what is no number is refused in our words.
#[derive(Deserialize)]
pub(crate) struct Poll {
    #[serde(default)]
    e: String,
}

/// What has waited longest to be told, look after look.
#[derive(Default)]
struct Waiting<T> {
    seen: Option<T>,
    looks: u32,
}

impl<T: PartialEq> Waiting<T> {
    /// Whether this, if it is anything, has waited for so long that whoever was to tell it has ended over it: telling may take a while.
    fn is_left(&mut self, seen: Option<T>) -> bool {
        self.looks = if self.seen == seen { self.looks.saturating_add(1) } else { 1 };
        self.seen = seen;
        self.seen.is_some() && self.looks >= LOOKS
    }
}

/// Looks for ever at what another process of this app recorded, as there is one while a new version takes over: polls that are held
/// hear of it, and what that process does not tell the platform and login for several looks, as it may have ended over it, is told here.
pub(crate) async fn overhear(admin: Arc<Admin>) {
    let (mut changes, mut ends) = (Waiting::default(), Waiting::default());
    loop {
        sleep(LOOK).await;
        let look = |tx: &rusqlite::Transaction<'_>| {
            Ok::<_, Refusal>((store::last_event(tx)?, trail::waiting(tx)?, store::next_revocation(tx)?))
        };
        let Ok((last, change, end)) = admin.db.run(look).await else { continue };
        admin.heard_of(last);
        if changes.is_left(change) {
            admin.changed.notify_one();
        }
        if ends.is_left(end) {
            admin.ended.notify_one();
        }
    }
}

/// `GET /api/poll?e=N`: the number of the last event as soon as it is N; 304 when that takes long, or the app is about to end.
pub(crate) async fn poll(
    State(admin): State<Arc<Admin>>,
    _: Identity,
    Query(poll): Query<Poll>,
) -> Result<Response, Refusal> {
    let wanted: i64 =
        poll.e.parse().map_err(|_| Refusal::bad("e is the number of the event that is waited for"))?;
    let reached = |last: &i64| *last >= wanted;
    let (mut last, mut leaving) = (admin.last.subscribe(), admin.leaving.subscribe());
    if let Ok(_turn) = admin.polls.try_acquire() {
        // What comes of it is read below: nothing in time is an answer, too.
        let news = async {
            tokio::select! { _ = last.wait_for(reached) => {}, _ = leaving.wait_for(|leaves| *leaves) => {} }
        };
        let _ = timeout(HELD, news).await;
    }
    let id = admin.db.run(|tx| Ok::<_, Refusal>(store::last_event(tx)?)).await?;
    if !reached(&id) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    Ok(Json(json!({ "id": id, "version": env!("CARGO_PKG_VERSION") })).into_response())
}

/// The client's id of an event.
#[derive(Deserialize)]
pub(crate) struct Cid {
    #[serde(default)]
    cid: String,
}

/// `POST /api/publish?cid=ID`: one event; the same id twice is one event.
pub(crate) async fn publish(
    State(admin): State<Arc<Admin>>,
    who: Administrator,
    Query(Cid { cid }): Query<Cid>,
    Json(event): Json<Value>,
) -> Result<Json<Value>, Refusal> {
    let cid = client_id(&cid)?;
    let change: Change =
        serde_json::from_value(event).map_err(|error| Refusal::bad(format!("this is no event: {error}")))?;
    let done = admin.publish(cid.clone(), &who.asker, change).await?;
    let status = if done.duplicate { "duplicate" } else { "success" };
    Ok(Json(json!({ "status": status, "id": done.id, "clientId": cid })))
}

/// `GET /api/users`
pub(crate) async fn users(State(admin): State<Arc<Admin>>, _: Administrator) -> Result<Json<Value>, Refusal> {
    let users = admin.db.run(|tx| Ok::<_, Refusal>(store::users(tx)?)).await?;
    let users: Vec<Value> =
        users.iter().map(|user| json!({ "id": user.id, "username": user.name })).collect();
    Ok(Json(json!({ "users": users })))
}

/// Of which application.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Of {
    application_id: Option<String>,
}

/// `GET /api/user-access-rules[?applicationId=ID]`
pub(crate) async fn rules(
    State(admin): State<Arc<Admin>>,
    _: Administrator,
    Query(of): Query<Of>,
) -> Result<Json<Value>, Refusal> {
    let of = of.application_id.filter(|id| !id.is_empty());
    let rules = admin.db.run(move |tx| Ok::<_, Refusal>(store::rules(tx, of.as_deref())?)).await?;
    Ok(Json(json!({ "rules": rules })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_being_told_is_not_left_and_what_stays_is() {
        let mut waiting = Waiting::default();
        let mut looks = |seen: &[Option<u8>]| seen.iter().filter(|one| waiting.is_left(**one)).count();
        assert_eq!(looks(&[Some(1); 4]), 0);
        assert_eq!(looks(&[Some(2); 4]), 0, "the one before was told meanwhile");
        assert_eq!(looks(&[None; 9]), 0);
        assert_eq!(looks(&[Some(3); 6]), 2, "with the fifth look");
    }
}
