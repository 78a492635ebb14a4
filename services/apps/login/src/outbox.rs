//! Tells the proxy of sessions that ended, so that their access tokens end, too: kept in the database until the proxy has
//! taken them, however long that is, and over restarts of both.

use std::{sync::Arc, time::Duration};

use axum::http::Method;
use nexushub_applib::{calls::Call, db};
use serde_json::json;
use tokio::time::sleep;

use crate::{Login, store};

/// Sessions told at once.
const BATCH: i64 = 500;
/// The first pause after a failure; doubles up to the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Delivers for ever.
pub(crate) async fn deliver(login: Arc<Login>) {
    let mut pause = FIRST;
    loop {
        match round(&login).await {
            Ok(true) => pause = FIRST,
            Ok(false) => login.news.notified().await,
            Err(error) => {
                eprintln!("the proxy was not told which sessions ended, and will be: {error}");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        }
    }
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
