//! Tells the login app whose sessions are to end, and the platform what was changed here, which is a part of its audit log: kept in
//! the database until they have heard it, over restarts of all.

use std::sync::Arc;

use axum::http::Method;
use nexushub_applib::{Refusal, calls::Call, outbox};
use serde_json::json;

use crate::{
    Admin,
    store::{self, LOGIN},
};

/// Changes that are told at once.
const CHANGES: i64 = 100;

/// Delivers for ever.
pub(crate) async fn deliver(admin: Arc<Admin>) {
    let sessions = outbox::deliver("login was not told whose sessions end", &admin.ended, || end_one(&admin));
    let changes = "the platform's audit log was not told of changes";
    let changes = outbox::deliver(changes, &admin.changed, || tell(&admin));
    tokio::join!(sessions, changes);
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Call(#[from] nexushub_applib::calls::Error),
    #[error(transparent)]
    Kept(#[from] Refusal),
}

/// The one longest waited for; false when there was none.
async fn end_one(admin: &Admin) -> Result<bool, Error> {
    let next = admin.db.run(|tx| Ok::<_, Refusal>(store::next_revocation(tx)?)).await?;
    let Some((number, user)) = next else { return Ok(false) };
    let call = Call::new(Some(LOGIN), Method::POST, "/internal/revoke").json(&json!({ "UserID": user }));
    admin.platform.0.call(call).await?;
    admin.db.run(move |tx| Ok::<_, Refusal>(store::revoked(tx, number)?)).await?;
    Ok(true)
}

/// The oldest changes of which the platform has not heard; false when there were none.
async fn tell(admin: &Admin) -> Result<bool, Error> {
    let changes = admin.db.run(|tx| Ok::<_, Refusal>(store::untold(tx, CHANGES)?)).await?;
    let Some(last) = changes.last().map(|change| change.id) else { return Ok(false) };
    admin.platform.changed(&changes).await?;
    admin.db.run(move |tx| Ok::<_, Refusal>(store::told(tx, last)?)).await?;
    Ok(true)
}
