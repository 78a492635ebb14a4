//! Tells the proxy of sessions that ended, so that their access tokens end, too, and the platform how people sign in and out, for its
//! audit log: kept in the database until they have heard it, however long that is, and over restarts of all.

use std::sync::Arc;

use axum::http::Method;
use nexushub_applib::{calls::Call, db, outbox, trail};
use serde_json::json;

use crate::{Login, store};

/// Sessions told at once.
const BATCH: i64 = 500;

/// Delivers for ever.
pub(crate) async fn deliver(login: Arc<Login>) {
    let sessions =
        outbox::deliver("the proxy was not told which sessions ended", &login.news, || round(&login));
    tokio::join!(sessions, trail::deliver(&login.db, &login.directory.0, &login.noted));
}

/// Delivers what is left, when the app ends and whoever delivered has ended: to both at once, as there is little time, and who does not
/// answer is not to take it from the other.
pub(crate) async fn rest(login: &Login) {
    let sessions = async { while matches!(round(login).await, Ok(true)) {} };
    tokio::join!(sessions, trail::rest(&login.db, &login.directory.0));
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Call(#[from] nexushub_applib::calls::Error),
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("database: {0}")]
    Statement(#[from] rusqlite::Error),
}

/// One batch; false when there was nothing to tell.
pub(crate) async fn round(login: &Login) -> Result<bool, Error> {
    let (last, sessions) = login.db.run(|tx| Ok::<_, Error>(store::pending(tx, BATCH)?)).await?;
    if sessions.is_empty() {
        return Ok(false);
    }
    let call = Call::new(None, Method::POST, "/internal/platform/revocations");
    login.directory.0.call(call.json(&json!({ "sessions": sessions, "users": [] }))).await?;
    login.db.run(move |tx| Ok::<_, Error>(store::told(tx, last)?)).await?;
    Ok(true)
}
